#![no_main]

xmbench_fuzz::target!("idx-gzip");
