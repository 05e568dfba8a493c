#![no_main]

xmbench_fuzz::target!("matcher-vse-shape");
