use faer::Mat;

use crate::{
    Result,
    golden::{Answer, Case},
    linalg::{
        cca::Components,
        kernel::{
            Kernel,
            cca::{self as exact, Penalty},
        },
    },
};

/// Golden operation `cca.kernel`.
pub fn kernel(case: &Case) -> Result<Answer> {
    case.only(&["c", "coef0", "degree", "eps", "gamma", "k", "kernel", "reg", "sval_thresh", "variant"])?;
    let (x, y) = (case.get("in.x")?.matrix(), case.get("in.y")?.matrix());
    let kernel = match case.config::<String>("kernel")?.as_str() {
        "linear" => Kernel::Linear,
        "rbf" => Kernel::Rbf { gamma: case.config("gamma")? },
        "poly" => Kernel::Polynomial {
            gamma: case.config("gamma")?,
            offset: case.config("coef0")?,
            degree: case.config("degree")?,
        },
        _ => return Err(case.unsupported("kernel", "linear, rbf or poly")),
    };
    let zoo = match case.config["variant"].as_str() {
        Some("cca-zoo") => true,
        None => false,
        _ => return Err(case.unsupported("variant", "cca-zoo or absent")),
    };
    let n = x.rows.min(y.rows);
    let pairs: Vec<(u32, u32)> = (0..n as u32).map(|i| (i, i)).collect();
    let (kx, ky) = (kernel.gram(&x, &x)?, kernel.gram(&y, &y)?);
    let wanted: usize = case.config("k")?;
    let penalty = match zoo {
        true => Penalty::Covariance { mix: case.config("c")?, shift: case.config("eps")? },
        false => {
            let reg: f64 = case.config("reg")?;
            Penalty::Symmetric { square: 1.0 - reg, linear: reg, threshold: case.config("sval_thresh")? }
        }
    };
    let mut fitted = exact::fit(&kx, &ky, &pairs, penalty, Components::Exactly(wanted))?;
    if zoo {
        // That library leaves the means in.
        fitted.x.offset.fill(0.0);
        fitted.y.offset.fill(0.0);
    }
    let (u, v) = (fitted.x.apply(kx.as_ref()), fitted.y.apply(ky.as_ref()));
    let signs = signs(&u, case);
    let signed = |matrix: &Mat<f64>| -> Vec<f64> {
        rows(matrix).enumerate().map(|(at, value)| signs[at % wanted] * value).collect()
    };
    let answer = Answer::default()
        .with("out.x_proj", signed(&u))
        .with("out.y_proj", signed(&v))
        .with("out.correlations", fitted.correlations);
    if zoo {
        return Ok(answer.with("out.eigenvalues", fitted.singular_values));
    }
    let reg: f64 = case.config("reg")?;
    let hardoon = exact::fit(&kx, &ky, &pairs, Penalty::kappa(reg / (1.0 - reg)), Components::Exactly(wanted))?;
    let once = vec![1.0; n];
    Ok(answer
        .with("out.singular_values", fitted.singular_values)
        .with("out.x_dual", signed(&fitted.x.weights))
        .with("out.y_dual", signed(&fitted.y.weights))
        .with("out.kernel_x_centered", rows(&exact::centred(&kx, &once)))
        .with("out.kernel_y_centered", rows(&exact::centred(&ky, &once)))
        .with("out.hardoon_singular_values", hardoon.singular_values))
}

/// Row after row.
fn rows(matrix: &Mat<f64>) -> impl Iterator<Item = f64> + '_ {
    (0..matrix.nrows()).flat_map(move |i| (0..matrix.ncols()).map(move |j| matrix[(i, j)]))
}

/// Components are known up to sign: takes the file's.
fn signs(projections: &Mat<f64>, case: &Case) -> Vec<f64> {
    let d = projections.ncols();
    let theirs = case.get("out.x_proj").ok().filter(|array| array.data.len() == projections.nrows() * d);
    let dot = |j: usize| {
        theirs.map_or(1.0, |array| (0..projections.nrows()).map(|i| projections[(i, j)] * array.data[i * d + j]).sum())
    };
    (0..d).map(|j| if dot(j) < 0.0 { -1.0 } else { 1.0 }).collect()
}
