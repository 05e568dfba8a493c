#![no_main]

xmbench_fuzz::target!("table-metrics");
