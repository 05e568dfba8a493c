use candle_core::Var;

use super::*;
use crate::{
    Method,
    loss::{
        known,
        support::{assert_gradients, normal, scalar, values},
    },
    trained::planted::{fit, planted, recall},
};

#[test]
fn an_independent_reference_gives_the_same_affinity() {
    let file = known::Known::read();
    let params = Params { order: Order::Sum, ..Params::default() };
    known::assert_known(&file, "hnh_gamma0.9_k2", &params.affinity(&file.features()).unwrap());
    // Divided by the four items, S + 1 is a quarter.
    let mean = (Params::default().affinity(&file.features()).unwrap() + 1.0).unwrap();
    let sum = file.values("hnh_gamma0.9_k2");
    assert!(values(&mean).iter().zip(sum).all(|(mean, sum)| (mean - (sum + 1.0) / 4.0).abs() < 1e-12));
}

#[test]
fn items_all_alike_have_an_affinity_of_one() {
    let ones = Tensor::ones((5, 3), DType::F64, &Device::Cpu).unwrap();
    let found = values(&Params::default().affinity(&[ones.clone(), ones]).unwrap());
    assert!(found.iter().all(|value| (value - 1.0).abs() < 1e-12));
}

#[test]
fn the_common_code_is_the_minimum_given_both_others() {
    let codes = ["x", "y"].map(|label| unit(&normal(label, 5, 3)).unwrap());
    let target = normal("s", 5, 5);
    let (alpha, beta) = (3.0, 2.0);
    let found = common(&codes, &target, beta / alpha).unwrap();
    // Equation (3) with sums: the gradient by U is zero.
    let point = Var::from_tensor(&found).unwrap();
    let square = |x: Tensor| x.sqr().unwrap().sum_all().unwrap();
    let mut sum = Tensor::zeros((), DType::F64, &Device::Cpu).unwrap();
    for code in &codes {
        let near = square((point.as_tensor() - code).unwrap());
        let alike = square((&target - point.matmul(&code.t().unwrap()).unwrap()).unwrap());
        sum = (sum + ((near * alpha).unwrap() + (alike * beta).unwrap()).unwrap()).unwrap();
    }
    let gradients = sum.backward().unwrap();
    let slopes = values(gradients.get(&point).unwrap());
    assert!(slopes.iter().all(|slope| slope.abs() < 1e-9), "{slopes:?}");
}

#[test]
fn without_an_affinity_the_common_code_is_the_mean() {
    let codes = ["x", "y"].map(|label| normal(label, 4, 2));
    let found = values(&common(&codes, &normal("s", 4, 4), 0.0).unwrap());
    let mean = values(&((&codes[0] + &codes[1]).unwrap() / 2.0).unwrap());
    assert!(found.iter().zip(mean).all(|(a, b)| (a - b).abs() < 1e-12));
}

#[test]
fn gradients_are_those_of_finite_differences_and_none_is_of_the_common_code() {
    let (common, target) = (normal("u", 4, 3), normal("s", 4, 4));
    assert_gradients(&[normal("a", 4, 3), normal("b", 4, 3)], |at| {
        let codes = [unit(&at[0]).unwrap(), unit(&at[1]).unwrap()];
        Params::default().total(&codes, &common, &target).unwrap()
    });
    let code = Var::from_tensor(&normal("a", 4, 3)).unwrap();
    let found = super::common(&[code.as_tensor().clone(), code.as_tensor().clone()], &target, 0.5).unwrap();
    assert!(found.sum_all().unwrap().backward().unwrap().get(&code).is_none());
}

#[test]
fn planted_pairs_find_each_other_and_batches_of_two_train() {
    let (train, test) = (planted("train", 200), planted("test", 40));
    let options = toml::toml! { epochs = 20 learning_rate = 0.02 };
    let found = recall(&*fit(&HNH, &train, options).unwrap(), &test);
    assert!(found > 4.0 / 40.0, "{found}, chance is 1 in 40 for each of two texts");
    assert!(fit(&HNH, &train, toml::toml! { batch = 2 epochs = 1 }).is_ok());
    let equal = Tensor::ones((3, 4), DType::F64, &Device::Cpu).unwrap();
    let codes = [unit(&equal).unwrap(), unit(&equal).unwrap()];
    let target = Tensor::ones((3, 3), DType::F64, &Device::Cpu).unwrap();
    let between = common(&codes, &target, 0.025).unwrap();
    assert!(scalar(&Params::default().total(&codes, &between, &target).unwrap()).is_finite());
    let error = HNH.resolve(&toml::toml! { alpha = 0 }).unwrap_err().to_string();
    assert!(error.contains("above 0, which equation (2) divides by"), "{error}");
}
