use std::collections::BTreeMap;

use candle_core::{DType, Var};
use xmbench_datasets::random::Seed;

use super::*;
use crate::nn::checks::{counted, distance, draw_f32, fill, flat, follows_differences, on_threads};

#[test]
fn outputs_are_those_of_pytorch() {
    let mut weights = Weights::new(Seed(0), &Device::Cpu);
    let transformer = Transformer::new(&mut weights, "t", 6, 2, 1).unwrap();
    fill(&weights);
    let y = transformer.forward(&counted(20, &[5, 6], 10.0), &Lengths::new([3, 2]).unwrap()).unwrap();
    // TransformerEncoderLayer(6, 2, 24, dropout=0, norm_first=True) then LayerNorm(6), torch 2.15 in f64, sequence by
    // sequence; matrices transposed, (1) in numpy.
    let expected = [
        [-0.094057082, -0.478464408, 0.10714286, -0.393815557, -1.191331929, -1.371161479],
        [-0.161926629, -0.369962611, 0.075890233, -0.317738965, -1.167593605, -1.366911231],
        [0.159683855, 0.243631526, 0.529572173, 0.457903407, 0.711108665, 0.006776619],
        [-0.106655384, -0.436752765, 0.025383191, -0.390827603, -1.204863682, -1.414516489],
        [0.396527243, 0.634104794, -0.730634541, -1.153729298, -0.074721936, -0.888261163],
    ];
    for (found, expected) in flat(&y).iter().zip(expected.as_flattened()) {
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    }
}

/// The layer with its weights in f64, as variables in the order of their names, after the input.
fn wide(lengths: Lengths) -> (Vec<Var>, impl Fn(&[Var]) -> Tensor) {
    let mut weights = Weights::new(Seed(3), &Device::Cpu);
    Transformer::new(&mut weights, "t", 4, 2, 2).unwrap();
    let names: Vec<String> = weights.iter().map(|(name, _)| name.to_string()).collect();
    let to_f64 = |t: &Tensor| Var::from_tensor(&t.to_dtype(DType::F64).unwrap()).unwrap();
    let x = to_f64(&draw_f32("x", &[lengths.total(), 4]));
    let arguments = std::iter::once(x).chain(weights.iter().map(|(_, var)| to_f64(var))).collect();
    let loss = move |a: &[Var]| {
        let mut at: BTreeMap<&str, Tensor> =
            names.iter().map(String::as_str).zip(a[1..].iter().map(|v| v.as_tensor().clone())).collect();
        let mut take = |name: &str| at.remove(name).unwrap();
        let mut dense = |at: &str, activation| {
            Dense::from_parts(take(&format!("{at}.weight")), take(&format!("{at}.bias")), activation)
        };
        let mut parts: Vec<[Dense; 4]> = (0..2)
            .map(|l| {
                [
                    dense(&format!("t.{l}.attention"), Activation::Identity),
                    dense(&format!("t.{l}.output"), Activation::Identity),
                    dense(&format!("t.{l}.wide"), Activation::Relu),
                    dense(&format!("t.{l}.narrow"), Activation::Identity),
                ]
            })
            .collect();
        let mut norm = |at: &str| Norm { scale: take(&format!("{at}.scale")), shift: take(&format!("{at}.shift")) };
        let layers = (0..2)
            .map(|l| {
                let [attention, output, wide, narrow] = parts.remove(0);
                let norms = [norm(&format!("t.{l}.norm_1")), norm(&format!("t.{l}.norm_2"))];
                Layer { attention, output, wide, narrow, norms }
            })
            .collect();
        let transformer = Transformer { layers, norm: norm("t.norm"), width: 4, heads: 2 };
        transformer.forward(&a[0], &lengths).unwrap().powf(3.0).unwrap().sum_all().unwrap()
    };
    (arguments, loss)
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let (arguments, loss) = wide(Lengths::new([3, 1, 2]).unwrap());
    follows_differences(&arguments, loss);
}

#[test]
fn company_and_threads_change_nothing() {
    let mut weights = Weights::new(Seed(1), &Device::Cpu);
    let transformer = Transformer::new(&mut weights, "t", 128, 2, 2).unwrap();
    let lengths = Lengths::new([2, 9, 4]).unwrap();
    let x = draw_f32("x", &[15, 128]);
    let compute = |threads| {
        on_threads(threads, || {
            let y = transformer.forward(&x, &lengths).unwrap();
            let grad = y.powf(3.0).unwrap().sum_all().unwrap().backward().unwrap();
            (flat(&y), flat(grad.get(&x).unwrap()))
        })
    };
    let one = compute(1);
    assert!(compute(2) == one && compute(4) == one);
    let all = transformer.forward(&x, &lengths).unwrap();
    for b in 0..3 {
        let range = lengths.range(b);
        let rows = |t: &Tensor| t.narrow(0, range.start, range.len()).unwrap();
        let alone = transformer.forward(&rows(&x), &Lengths::new([range.len()]).unwrap()).unwrap();
        assert!(distance(&rows(&all), &alone) < 2e-6);
    }
}

#[test]
fn heads_that_do_not_divide_the_width_are_an_error() {
    let mut weights = Weights::new(Seed(1), &Device::Cpu);
    for heads in [0, 3] {
        let error = Transformer::new(&mut weights, "t", 8, heads, 1).err().unwrap().to_string();
        assert!(error.contains(&format!("divides the width 8, found {heads}")), "{error}");
    }
    let transformer = Transformer::new(&mut weights, "t", 8, 2, 1).unwrap();
    assert!(transformer.forward(&draw_f32("x", &[3, 6]), &Lengths::new([3]).unwrap()).is_err());
}
