//! An extraction without the command line around it: `folder WEIGHTS PICTURES OUT`, and what a second makes of pictures from their files on.

use std::{path::PathBuf, time::Instant};

use xmbench_datasets::Notice;
use xmbench_encoders::{
    Error, Result,
    extract::{End, Job, Precision, Progress, Watch, extract},
    open,
    picture::{Fit, Limit},
};

/// Nobody watches, and nobody stops it.
struct Unwatched;

impl Watch for Unwatched {
    fn progress(&self, _: Progress) {}
    fn stopped(&self) -> bool {
        false
    }
}

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [weights, images, out] = &arguments[..] else {
        return Err(Error::option("arguments", "WEIGHTS PICTURES OUT", "others", "name them all"));
    };
    let (encoder, digest) = open("efficientnet-lite0", weights, Some(Fit::Stretch), 7)?;
    let job = Job {
        images: images.clone(),
        captions: Vec::new(),
        lists: Vec::new(),
        drawn: None,
        limit: Limit::default(),
        precision: Precision::F16,
        out: out.clone(),
        fresh: true,
        notice: Notice::default(),
    };
    let start = Instant::now();
    if let End::Done(manifest) = extract(&job, &*encoder, &digest, &Unwatched)? {
        let seconds = start.elapsed().as_secs_f64();
        let pictures: usize = manifest.splits.values().map(|sizes| sizes.images).sum();
        let skipped = manifest.skipped.len();
        println!("{pictures} pictures in {seconds:.2} s, {skipped} skipped: {:.1} a second", pictures as f64 / seconds);
    }
    Ok(())
}
