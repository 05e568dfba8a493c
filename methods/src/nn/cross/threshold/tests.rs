use candle_core::Device;

use super::*;

fn normal(mean: f64, deviation: f64) -> Normal {
    Normal { count: 11.0, mean, squares: 10.0 * deviation * deviation }
}

/// Means and deviations of matching and other samples, alpha, and equation (3) in both forms, from another program.
const KNOWN: [([f64; 5], f64, f64); 5] = [
    ([0.6, 0.1, 0.3, 0.08, 2.0], 0.4573356617747783, 0.4573356687701609),
    ([0.6, 0.1, 0.3, 0.08, 1.0], 0.4392574997360252, 0.43925750616722126),
    ([0.6, 0.08, 0.3, 0.1, 2.0], 0.47932018655832487, 0.4793201803360217),
    ([0.55, 0.12, 0.35, 0.12000001, 1.0], 0.4595744650513068, 0.4499999981666662),
    ([0.55, 0.12, 0.35, 0.12, 1.0], 0.0, 0.45),
];

#[test]
fn both_forms_are_those_of_an_independent_reference() {
    for ([m, d, n, e, alpha], released, stable) in KNOWN {
        let (matching, other) = (normal(m, d), normal(n, e));
        let found = boundary(&matching, &other, alpha).unwrap();
        assert!((found - stable).abs() < 1e-13, "{stable} {found}");
        // Near equal deviations every digit of the released form depends on the rounding.
        let found = released_boundary(&matching, &other, alpha).unwrap();
        let tolerance = if (d - e).abs() < 1e-6 { 1e-3 } else { 1e-12 };
        assert!((found - released).abs() < tolerance, "{released} {found}");
    }
}

#[test]
fn densities_meet_at_the_boundary() {
    let log_density = |x: f64, mean: f64, deviation: f64| -0.5 * ((x - mean) / deviation).powi(2) - deviation.ln();
    for [m, d, n, e, alpha] in [[0.6, 0.1, 0.3, 0.08, 2.0], [0.5, 0.05, 0.2, 0.2, 1.0], [0.5, 0.2, 0.2, 0.05, 0.3]] {
        let t = boundary(&normal(m, d), &normal(n, e), alpha).unwrap();
        let (matching, other) = (log_density(t, m, d), log_density(t, n, e) + f64::ln(alpha));
        assert!((matching - other).abs() < 1e-9, "{t}: {matching} {other}");
        // To the right the matching ones prevail: the error is least, not most.
        assert!(log_density(t + 1e-4, m, d) > log_density(t + 1e-4, n, e) + f64::ln(alpha));
    }
}

#[test]
fn there_need_be_no_boundary() {
    // Twice as wide and ten times as dear: other samples prevail everywhere.
    assert_eq!(boundary(&normal(0.5, 0.1), &normal(0.5, 0.2), 10.0), None);
    assert_eq!(boundary(&normal(0.3, 0.1), &normal(0.5, 0.1), 1.0), None);
    assert_eq!(boundary(&normal(0.6, 0.0), &normal(0.5, 0.1), 1.0), None);
    assert_eq!(boundary(&normal(0.6, 0.1), &normal(0.5, 0.0), 1.0), None);
    assert_eq!(boundary(&Normal::of(&[0.5]), &Normal::of(&[0.1]), 1.0), None);
    assert_eq!(boundary(&Normal::default(), &Normal::default(), 1.0), None);
}

#[test]
fn samples_come_in_parts() {
    // Of 1, 2 and 4: mean 7/3, unbiased variance 7/3.
    let all = Normal::of(&[1.0, 2.0, 4.0]);
    assert!((all.mean - 7.0 / 3.0).abs() < 1e-15 && (all.deviation() - (7.0f64 / 3.0).sqrt()).abs() < 1e-15);
    let parts = Normal::default().and(Normal::of(&[1.0])).and(Normal::of(&[])).and(Normal::of(&[2.0, 4.0]));
    assert!((parts.mean - all.mean).abs() < 1e-15 && (parts.squares - all.squares).abs() < 1e-14);
    assert_eq!(parts.count, 3.0);
}

#[test]
fn peaks_are_those_of_real_vectors_alone() {
    // Two images of two regions, texts of one and two words: all products are below 0 but where written.
    let images = Tensor::new(&[[[-1f32, -2.0], [-3.0, -1.0]], [[1.0, 0.0], [0.0, 2.0]]], &Device::Cpu).unwrap();
    let words = Tensor::new(&[[1f32, 1.0], [0.5, 0.25], [0.0, 3.0]], &Device::Cpu).unwrap();
    let lengths = Lengths::new([1, 2]).unwrap();
    let found = |direction, pairs: &[(usize, usize)]| peaks(direction, &images, &words, &lengths, pairs).unwrap();
    let pairs = [(0, 0), (1, 1), (0, 1)];
    // Words of 0 with image 0: max(-3, -4); of 1 with image 1: max(0.5, 0.5), max(0, 6); with image 0: max(-1, -1.75), max(-6, -3).
    assert_eq!(found(Direction::T2i, &pairs), [-3.0, 0.5, 6.0, -1.0, -3.0]);
    // Regions of image 0 with word 0: -3, -4; of 1 with text 1: max(0.5, 0), max(0.5, 6); of 0: max(-1, -6), max(-1.75, -3).
    assert_eq!(found(Direction::I2t, &pairs), [-3.0, -4.0, 0.5, 6.0, -1.0, -1.75]);
    assert!(found(Direction::T2i, &[]).is_empty());
}

#[test]
fn the_first_of_equals_has_the_gradient() {
    let x = candle_core::Var::new(&[[[[1f64, 3.0, 3.0, 9.0]]]], &Device::Cpu).unwrap();
    let seen = Tensor::new(&[[[[1u8, 1, 1, 0]]]], &Device::Cpu).unwrap();
    let most = largest(&x, Some(&seen)).unwrap();
    assert_eq!(most.flatten_all().unwrap().to_vec1::<f64>().unwrap(), [3.0]);
    let grads = most.sum_all().unwrap().backward().unwrap();
    assert_eq!(grads.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap(), [0.0, 1.0, 0.0, 0.0]);
}
