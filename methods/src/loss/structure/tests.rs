use candle_core::{DType, Device};

use super::{
    super::support::{assert_gradients, gradients, normal, scalar},
    *,
};

const SETTINGS: Structure = Structure {
    margin: 1.5,
    image_weight: 2.0,
    sentence_weight: 0.7,
    sentence_structure: 0.4,
    image_structure: 0.3,
    top_k: 2,
};
/// Image 3 has no sentence, image 1 has one, the sentences of image 0 are apart.
const OWNER: [usize; 7] = [0, 2, 0, 4, 1, 4, 0];
const CLASSES: [u32; 5] = [5, 1, 5, 9, 5];

fn inputs() -> [Tensor; 2] {
    [normal("images", 5, 4), normal("sentences", 7, 4)]
}

fn terms(at: &[Tensor], settings: &Structure) -> [f64; 5] {
    let terms = structure_preserving(&at[0], &at[1], &OWNER, Some(&CLASSES), settings).unwrap();
    [&terms.image, &terms.sentence, &terms.image_structure, &terms.sentence_structure, &terms.loss].map(scalar)
}

/// The four terms, from every triplet.
fn brute_force([x, y]: &[Tensor; 2], settings: &Structure) -> [f64; 4] {
    let (x, y) = (x.to_vec2::<f64>().unwrap(), y.to_vec2::<f64>().unwrap());
    let d = |a: &[f64], b: &[f64]| (a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>() + 1e-4).sqrt();
    let mut rows = [const { Vec::new() }; 4];
    // The mean of the largest, of the hinges of one row.
    let top = |mut hinges: Vec<f64>| {
        hinges.sort_by(|a, b| b.total_cmp(a));
        hinges.truncate(settings.top_k);
        hinges.iter().sum::<f64>() / hinges.len().max(1) as f64
    };
    let hinge = |near: f64, far: f64| (settings.margin + near - far).max(0.0);
    for (i, &own) in OWNER.iter().enumerate() {
        let others = (0..5).filter(|&k| k != own);
        rows[0].push(top(others.map(|k| hinge(d(&y[i], &x[own]), d(&y[i], &x[k]))).collect()));
        let foreign = || (0..7).filter(|&k| OWNER[k] != own);
        rows[1].push(top(foreign().map(|k| hinge(d(&x[own], &y[i]), d(&x[own], &y[k]))).collect()));
        let mut far = 0f64;
        (0..7).filter(|&j| OWNER[j] == own).for_each(|j| far = far.max(d(&y[i], &y[j])));
        rows[3].push(top(foreign().map(|k| hinge(far, d(&y[i], &y[k]))).collect()));
    }
    for i in 0..5 {
        let neighbours: Vec<usize> = (0..5).filter(|&j| j != i && CLASSES[j] == CLASSES[i]).collect();
        let far = neighbours.iter().map(|&j| d(&x[i], &x[j])).fold(0.0, f64::max);
        let others = (0..5).filter(|&k| CLASSES[k] != CLASSES[i]);
        let hinges = top(others.map(|k| hinge(far, d(&x[i], &x[k]))).collect());
        rows[2].push(if neighbours.is_empty() { 0.0 } else { hinges });
    }
    rows.map(|rows| rows.iter().sum::<f64>() / rows.len() as f64)
}

#[test]
fn terms_are_those_of_all_triplets() {
    for margin in [0.05, 1.5, 10.0] {
        for top_k in [1, 2, 3, 100] {
            let settings = Structure { margin, top_k, ..SETTINGS };
            let (found, expected) = (terms(&inputs(), &settings), brute_force(&inputs(), &settings));
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-12, "{settings:?}: {found} {expected}");
            }
            let loss = 2.0 * expected[0] + 0.7 * expected[1] + 0.3 * expected[2] + 0.4 * expected[3];
            assert!((found[4] - loss).abs() < 1e-12);
        }
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    for top_k in [1, 3, 100] {
        let settings = Structure { top_k, ..SETTINGS };
        assert_gradients(&inputs(), |at| {
            structure_preserving(&at[0], &at[1], &OWNER, Some(&CLASSES), &settings).unwrap().loss
        });
        let unclassed = |at: &[Tensor]| structure_preserving(&at[0], &at[1], &OWNER, None, &settings).unwrap();
        assert_gradients(&inputs(), |at| unclassed(at).loss);
        assert_eq!(scalar(&unclassed(&inputs()).image_structure), 0.0);
    }
}

#[test]
fn a_collapsed_batch_costs_the_margin_in_every_term() {
    let all = |rows: usize| normal("x", 1, 4).broadcast_as((rows, 4)).unwrap().contiguous().unwrap();
    let at = [all(5), all(7)];
    let found = terms(&at, &SETTINGS);
    // Two of five images have no other of their class.
    let expected = [1.5, 1.5, 1.5 * 3.0 / 5.0, 1.5, 2.0 * 1.5 + 0.7 * 1.5 + 0.3 * 0.9 + 0.4 * 1.5];
    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
    let loss = |at: &[Tensor]| structure_preserving(&at[0], &at[1], &OWNER, Some(&CLASSES), &SETTINGS).unwrap().loss;
    assert!(gradients(&at, loss).iter().flatten().all(|&g| g == 0.0));
}

#[test]
fn equal_farthest_neighbours_share_the_gradient() {
    // The first sentence is 2 away from both others of its image.
    let images = Tensor::zeros((2, 1), DType::F64, &Device::Cpu).unwrap();
    let sentences = Tensor::new(&[[0f64], [2.0], [-2.0], [0.5]], &Device::Cpu).unwrap();
    let settings = Structure {
        margin: 0.1,
        image_weight: 0.0,
        sentence_weight: 0.0,
        sentence_structure: 4.0,
        ..Structure::default()
    };
    let loss = |at: &[Tensor]| structure_preserving(&images, &at[0], &[0, 0, 0, 1], None, &settings).unwrap().loss;
    let grad = &gradients(&[sentences], loss)[0];
    // Each of the three rows has one hinge of slope 1; the fourth hinge, [.1 + .01 - .5]+, is met. Moving the second sentence
    // along its own direction changes its half of row 0, all of row 1 (farthest: the third) less its negative, and row 2.
    let (two, four) = (2.0 / 4.0001f64.sqrt(), 4.0 / 16.0001f64.sqrt());
    let expected = 0.5 * two + (four - 1.5 / 2.2501f64.sqrt()) + four;
    assert!((grad[1] - expected).abs() < 1e-12, "{grad:?} {expected}");
}

#[test]
fn the_order_of_the_batch_does_not_count() {
    let (images, sentences) = ([4usize, 2, 0, 1, 3], [6usize, 1, 3, 0, 5, 2, 4]);
    let index = |order: &[usize]| {
        let order: Vec<u32> = order.iter().map(|&i| i as u32).collect();
        Tensor::new(order, &Device::Cpu).unwrap()
    };
    let [x, y] = inputs();
    let (x, y) = (x.index_select(&index(&images), 0).unwrap(), y.index_select(&index(&sentences), 0).unwrap());
    let place = |image: usize| images.iter().position(|&i| i == image).unwrap();
    let owner = sentences.map(|sentence| place(OWNER[sentence]));
    let classes = images.map(|image| CLASSES[image]);
    let permuted = structure_preserving(&x, &y, &owner, Some(&classes), &SETTINGS).unwrap();
    assert!((scalar(&permuted.loss) - terms(&inputs(), &SETTINGS)[4]).abs() < 1e-12);
}

#[test]
fn one_pair_costs_nothing_and_nan_is_not_hidden() {
    let (x, y) = (normal("x", 1, 4), normal("y", 1, 4));
    let one = structure_preserving(&x, &y, &[0], Some(&[3]), &SETTINGS).unwrap();
    assert_eq!(
        [&one.image, &one.sentence, &one.image_structure, &one.sentence_structure, &one.loss].map(scalar),
        [0.0; 5]
    );
    let [x, mut y] = inputs();
    let mut entries = y.to_vec2::<f64>().unwrap();
    entries[4][0] = f64::NAN;
    y = Tensor::new(entries, &Device::Cpu).unwrap();
    let found = terms(&[x, y], &SETTINGS);
    assert!(found[0].is_nan() && found[1].is_nan() && !found[2].is_nan() && found[3].is_nan(), "{found:?}");
}

#[test]
fn single_precision_agrees() {
    let single = inputs().map(|x| x.to_dtype(DType::F32).unwrap());
    for (a, b) in terms(&single, &SETTINGS).iter().zip(terms(&inputs(), &SETTINGS)) {
        assert!((a - b).abs() < 1e-6);
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let [x, y] = inputs();
    let error = |owner: &[usize], classes: Option<&[u32]>, settings: &Structure| {
        structure_preserving(&x, &y, owner, classes, settings).unwrap_err().to_string()
    };
    assert!(error(&[0; 6], None, &SETTINGS).contains("each of 7 sentences, found 6"));
    assert!(error(&[5; 7], None, &SETTINGS).contains("below 5, the number of images, found 5"));
    assert!(error(&OWNER, Some(&[1]), &SETTINGS).contains("each of 5 images, found 1"));
    assert!(error(&OWNER, None, &Structure { top_k: 0, ..SETTINGS }).contains("top_k of at least 1"));
    let wide = structure_preserving(&x, &normal("y", 7, 3), &OWNER, None, &SETTINGS).unwrap_err().to_string();
    assert!(wide.contains("[5, 4] and [7, 3]"), "{wide}");
}
