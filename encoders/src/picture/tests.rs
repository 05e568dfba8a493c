use super::*;

/// A grey picture of known values.
fn grey(height: usize, width: usize) -> Picture {
    let value = |y: usize, x: usize| ((37 * y + 91 * x + 13 * x * y) % 256) as u8;
    let rgb = (0..height * width).flat_map(|i| [value(i / width, i % width); 3]).collect();
    Picture { width, height, rgb }
}

/// Values of `torch.nn.functional.interpolate(mode="bilinear", antialias=True, align_corners=False)` in f64, PyTorch 2.15: smaller, smaller along one
/// side and larger along the other, larger.
#[test]
fn resizing_is_that_of_pytorch() {
    let cases: [(usize, usize, usize, &[f32]); 3] = [
        (7, 5, 3, &[75.49, 148.635, 109.163, 134.445, 146.791, 140.731, 148.224, 142.317, 127.122]),
        (
            4,
            9,
            6,
            &[
                34.125, 133.333, 65.667, 150.333, 82.667, 181.875, 55.062, 163.389, 105.111, 128.778, 127.389, 169.938,
                82.979, 179.759, 138.741, 104.778, 153.833, 164.688, 110.896, 125.019, 115.481, 95.0, 80.722, 191.438,
                138.812, 141.389, 149.111, 142.111, 121.389, 186.188, 159.75, 171.444, 188.556, 191.667, 180.333,
                174.25,
            ],
        ),
        (
            2,
            2,
            5,
            &[
                0.0, 9.1, 45.5, 81.9, 91.0, 3.7, 12.93, 49.85, 86.77, 96.0, 18.5, 28.25, 67.25, 106.25, 116.0, 33.3,
                43.57, 84.65, 125.73, 136.0, 37.0, 47.4, 89.0, 130.6, 141.0,
            ],
        ),
    ];
    for (height, width, side, expected) in cases {
        let found = resize(&grey(height, width), Fit::Stretch, side);
        assert_eq!(found.len(), 3 * expected.len());
        for (pixel, expected) in found.chunks(3).zip(expected) {
            assert!(pixel.iter().all(|value| (value - expected).abs() < 1e-3), "{pixel:?} for {expected}");
        }
    }
}

#[test]
fn a_crop_is_the_middle() {
    // Of 24 x 16 pixels the crop is the square of 14 in the middle; at 14 pixels a side nothing is mixed but half-way neighbours: none.
    let picture = grey(16, 24);
    let found = resize(&picture, Fit::Crop, 14);
    for (y, x) in [(0, 0), (13, 13), (5, 9)] {
        assert_eq!(found[(y * 14 + x) * 3], f32::from(picture.rgb[((y + 1) * 24 + x + 5) * 3]));
    }
    assert_eq!(Fit::Crop.in_picture(24, 16, [0.0, 0.0, 1.0, 1.0]), [5.0 / 24.0, 1.0 / 16.0, 19.0 / 24.0, 15.0 / 16.0]);
    assert_eq!(Fit::Stretch.in_picture(24, 16, [0.0, 0.25, 0.5, 1.0]), [0.0, 0.25, 0.5, 1.0]);
}

fn encoded(image: &DynamicImage, format: image::ImageFormat) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    image.write_to(&mut out, format).unwrap();
    out.into_inner()
}

#[test]
fn transparency_shows_white() {
    let mut image = image::RgbaImage::new(2, 1);
    image.put_pixel(0, 0, image::Rgba([200, 100, 0, 255]));
    image.put_pixel(1, 0, image::Rgba([200, 100, 0, 51]));
    let found = decode(&encoded(&image.into(), image::ImageFormat::Png), Limit::default()).unwrap();
    // 51 / 255 is one fifth: 200 / 5 + 204, 100 / 5 + 204, 204.
    assert_eq!(found, Picture { width: 2, height: 1, rgb: vec![200, 100, 0, 244, 224, 204] });
}

#[test]
fn jpeg_is_turned_as_it_says() {
    let image = image::RgbImage::from_fn(16, 8, |x, _| image::Rgb([if x < 8 { 0 } else { 255 }; 3]));
    let plain = encoded(&image.into(), image::ImageFormat::Jpeg);
    let found = decode(&plain, Limit::default()).unwrap();
    assert_eq!((found.width, found.height), (16, 8));
    // An EXIF segment whose one entry says 6: the top of what was seen is the left of what is stored.
    let exif =
        [&b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"[..], &plain[2..]];
    let turned = [&plain[..2], &exif.concat()].concat();
    let found = decode(&turned, Limit::default()).unwrap();
    assert_eq!((found.width, found.height), (8, 16));
    assert!(found.rgb[0] < 20 && found.rgb[found.rgb.len() - 1] > 235);
}

#[test]
fn a_pixel_bomb_is_refused_from_its_header() {
    // A PNG of 60,000 x 60,000 pixels: a header, and no data at all. The checksum is that of `IHDR` and its thirteen bytes.
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    png.extend([60_000u32.to_be_bytes(), 60_000u32.to_be_bytes()].concat());
    png.extend([8, 2, 0, 0, 0]);
    let mut crc = !0u32;
    for &byte in &png[12..] {
        crc ^= u32::from(byte);
        (0..8).for_each(|_| crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 });
    }
    png.extend((!crc).to_be_bytes());
    png.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    let error = decode(&png, Limit::default()).unwrap_err();
    assert_eq!(
        error,
        "expected at most 50000000 pixels, found 60000 x 60000 = 3600000000 in the header; make it smaller, or allow more"
    );
}

#[test]
fn what_is_no_picture_says_so() {
    let error = decode(b"GIF? no", Limit::default()).unwrap_err();
    assert_eq!(error, "expected a PNG, JPEG or WebP picture, found another file");
    assert!(decode(b"", Limit::default()).is_err());
    let image = image::RgbImage::from_fn(40, 30, |x, y| image::Rgb([(7 * x + y) as u8, (x * y) as u8, 9]));
    for format in [image::ImageFormat::Png, image::ImageFormat::Jpeg] {
        let whole = encoded(&image.clone().into(), format);
        for end in (0..whole.len() - 2).step_by(7) {
            // A JPEG that ends early is shown as far as it goes by some decoders: no panic is what is asked for.
            let found = decode(&whole[..end], Limit::default());
            assert!(format != image::ImageFormat::Png || found.is_err() || end > whole.len() - 16, "{end}");
        }
    }
}
