#![no_main]

xmbench_fuzz::target!("split-list");
