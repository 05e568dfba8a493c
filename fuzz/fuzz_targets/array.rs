#![no_main]

xmbench_fuzz::target!("array");
