#![no_main]

xmbench_fuzz::target!("table-history");
