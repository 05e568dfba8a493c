#![no_main]

xmbench_fuzz::target!("captions-table");
