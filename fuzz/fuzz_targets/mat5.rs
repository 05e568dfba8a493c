#![no_main]

xmbench_fuzz::target!("mat5");
