//! Features of pictures without a dataset around them, and what a second makes of them.
//!
//! `cargo run --release -p xmbench-encoders --example encode -- WEIGHTS OUT PICTURE...` writes, for each picture, its vector and then its
//! 7 x 7 regions as f32, least significant byte first.

use std::{path::PathBuf, time::Instant};

use xmbench_encoders::{
    Error, Result, open,
    picture::{Fit, Limit, decode},
};

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [weights, out, pictures @ ..] = &arguments[..] else {
        return Err(Error::option("arguments", "WEIGHTS OUT PICTURE...", "fewer", "name them all"));
    };
    let (encoder, digest) = open("efficientnet-lite0", weights, Some(Fit::Stretch), 7)?;
    println!("weights {digest}");
    let read = |path: &PathBuf| {
        let bytes = xmbench_datasets::files::read(path)?;
        decode(&bytes, Limit::default()).map_err(|found| Error::content(path, "", "a picture", found, "leave it out"))
    };
    let pictures: Vec<_> = pictures.iter().map(read).collect::<Result<_>>()?;
    encoder.encode(&pictures[..pictures.len().min(4)])?;
    let start = Instant::now();
    let encoded = encoder.encode(&pictures)?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{} pictures in {seconds:.3} s: {:.1} a second", pictures.len(), pictures.len() as f64 / seconds);
    let values = encoded.iter().flat_map(|one| one.global.iter().chain(&one.regions));
    let bytes: Vec<u8> = values.flat_map(|value| value.to_le_bytes()).collect();
    std::fs::write(out, bytes).map_err(Error::io(out))
}
