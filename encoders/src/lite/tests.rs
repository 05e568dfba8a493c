use std::path::Path;

use super::*;
use crate::{Encoder, Picture, picture::Fit, weights::Weights};

/// The network of `tests/data/make.py`: the form of Lite0 with few channels, seeing an odd number of pixels.
const SMALL: Layout = Layout {
    side: 75,
    stem: 8,
    stages: [
        Stage { repeat: 1, kernel: 3, stride: 1, expand: 1, channels: 16 },
        Stage { repeat: 2, kernel: 3, stride: 2, expand: 6, channels: 8 },
        Stage { repeat: 2, kernel: 5, stride: 2, expand: 6, channels: 16 },
        Stage { repeat: 1, kernel: 3, stride: 2, expand: 6, channels: 16 },
        Stage { repeat: 1, kernel: 5, stride: 1, expand: 6, channels: 24 },
        Stage { repeat: 2, kernel: 5, stride: 2, expand: 6, channels: 24 },
        Stage { repeat: 1, kernel: 3, stride: 1, expand: 6, channels: 32 },
    ],
    head: 320,
    classes: 10,
};

fn weights() -> Weights {
    let bytes = include_bytes!("../../tests/data/lite-small.safetensors");
    Weights::parse(Path::new("lite-small.safetensors"), bytes.to_vec()).unwrap()
}

fn small(fit: Fit, grid: usize) -> Lite {
    Lite::new("lite-small", &SMALL, &weights(), fit, grid).unwrap()
}

/// The picture of `make.py`.
fn picture() -> Picture {
    let value = |y: usize, x: usize, c: usize| ((7 * y + 13 * x + 29 * c + 11 * (x * y % 17)) % 256) as u8;
    let rgb = (0..75 * 75 * 3).map(|i| value(i / 225, i / 3 % 75, i % 3)).collect();
    Picture { width: 75, height: 75, rgb }
}

fn near(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < tolerance, "{worst}");
}

/// What `efficientnet_lite_pytorch` 0.1.0 computes: map, vector, scores of the classes.
#[test]
fn the_network_is_that_of_the_reference() {
    let (weights, network) = (weights(), small(Fit::Stretch, 3));
    let [found] = &network.encode(&[picture()]).unwrap()[..] else { panic!("one picture, one answer") };
    near(&found.regions, &weights.take("expected.map", &[3, 3, 320]).unwrap(), 1e-4);
    near(&found.global, &weights.take("expected.pooled", &[320]).unwrap(), 1e-4);
    near(&network.classes(&found.global), &weights.take("expected.classes", &[10]).unwrap(), 1e-4);
    assert_eq!(found.boxes[5], [2.0 / 3.0, 1.0 / 3.0, 1.0, 2.0 / 3.0]);
}

/// Two cells a side of three places: each is the mean of two of them, as in adaptive pooling.
#[test]
fn a_coarser_grid_is_a_mean() {
    let fine = &small(Fit::Stretch, 3).encode(&[picture()]).unwrap()[0];
    let coarse = &small(Fit::Stretch, 2).encode(&[picture()]).unwrap()[0];
    let place = |y: usize, x: usize, c: usize| fine.regions[(y * 3 + x) * 320 + c];
    // The cell of the second row and first column, channel 7.
    let expected = (place(1, 0, 7) + place(1, 1, 7) + place(2, 0, 7) + place(2, 1, 7)) / 4.0;
    assert!((coarse.regions[2 * 320 + 7] - expected).abs() < 1e-6);
    assert_eq!(coarse.boxes[2], [0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0]);
    assert_eq!(coarse.global, fine.global);
    let whole = &small(Fit::Stretch, 1).encode(&[picture()]).unwrap()[0];
    near(&whole.regions, &fine.global, 1e-6);
    assert!(small(Fit::Stretch, 0).encode(&[picture()]).unwrap()[0].regions.is_empty());
    let error = Lite::new("lite-small", &SMALL, &weights(), Fit::Stretch, 4).err().unwrap().to_string();
    assert_eq!(error, "grid: expected 0 to 3 cells a side, found 4; the last map of lite-small has 3 x 3 places");
}

/// Alone or among others, on one thread or more: the same bits.
#[test]
fn company_and_threads_change_nothing() {
    let network = small(Fit::Crop, 2);
    let turned = |by: usize| {
        let mut picture = picture();
        picture.rgb.rotate_left(3 * by);
        picture
    };
    let pictures: Vec<Picture> = (0..9).map(turned).collect();
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let together = pool(4).install(|| network.encode(&pictures)).unwrap();
    assert_eq!(pool(1).install(|| network.encode(&pictures)).unwrap(), together);
    for (picture, encoded) in pictures.iter().zip(&together) {
        assert_eq!(network.encode(std::slice::from_ref(picture)).unwrap()[0], *encoded);
    }
    assert_ne!(together[0].global, together[1].global);
}

#[test]
fn weights_of_another_network_are_refused() {
    let error = Lite::new("efficientnet-lite0", &LITE0, &weights(), Fit::Stretch, 7).err().unwrap().to_string();
    assert_eq!(
        error,
        "lite-small.safetensors, array `_conv_stem.weight`: expected shape [32, 3, 3, 3], found [8, 3, 3, 3]; name the \
         weights of this network, or another --encoder"
    );
    assert_eq!((LITE0.cells(), SMALL.cells()), (7, 3));
}
