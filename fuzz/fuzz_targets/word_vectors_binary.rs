#![no_main]

xmbench_fuzz::target!("word-vectors-binary");
