#![no_main]

xmbench_fuzz::target!("trec-run");
