//! Multi-head attention over packed sequences with a relation between rows added to the logits, fused:
//!
//! ```text
//! p = softmax over j of (q_i . k_j / sqrt(e) + r_ij),  o_i = sum_j m_ij p_ij v_j         each head, e = w / heads        (1)
//! ```
//! (Vaswani et al., NIPS 2017; `r` as in Shaw et al., NAACL 2018, one number a pair for all heads.) `r_ij` of minus infinity hides
//! `j` from `i`. `m` is the mask of dropout, 1 outside training.
//!
//! Rows see the rows of their own sequence, so that nothing is padded. A task takes one head of one sequence; the way back computes
//! `p` again rather than keep it. Backward, with `d = m (do v^T)`: `ds = p (d - sum_j p d)`, `dq = ds k / sqrt(e)`,
//! `dk = ds^T q / sqrt(e)`, `dv = (m p)^T do`, `dr = ds` summed over heads in their order.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Device, Layout, Shape, Tensor};
use rayon::prelude::*;
use xmbench_datasets::random::Stream;

use super::{
    cross::Real as Exp,
    dropped::Kept,
    heads,
    lengths::Lengths,
    real::{Real, contiguous, dispatch, dot, with},
};
use crate::{
    Error, Result,
    linalg::gemm::{Mat, MatMut, gemm_serial},
};

/// Equation (1): `[total, 3w]`, queries, keys and values side by side, to `[total, w]`, the heads one behind the other. A relation
/// `[n, n]` is for one sequence of `n` rows. Dropout with a share and a stream.
///
/// # Errors
/// If `heads` does not divide the width, or the shapes do not fit.
pub(crate) fn attend(
    qkv: &Tensor,
    lengths: &Lengths,
    heads: usize,
    relation: Option<&Tensor>,
    share: f64,
    training: Option<&mut Stream>,
) -> Result<Tensor> {
    let (total, wide) = qkv.dims2()?;
    if total != lengths.total() || heads == 0 || !wide.is_multiple_of(3 * heads) || total == 0 {
        return Err(Error::Numeric(format!(
            "attention: expected rows [{}, 3 w] with w a multiple of {heads} heads, found [{total}, {wide}]",
            lengths.total()
        )));
    }
    if let Some(relation) = relation
        && (relation.dims() != [total, total] || lengths.len() != 1)
    {
        return Err(Error::Numeric(format!(
            "attention: expected a relation [{total}, {total}] of one sequence, found {:?} for {}",
            relation.dims(),
            lengths.len()
        )));
    }
    let squares = lengths.as_slice().iter().map(|n| n * n).sum::<usize>();
    let kept = match training {
        Some(stream) if share > 0.0 => Some(Kept::draw(heads * squares, share, stream)),
        _ => None,
    };
    if !qkv.device().is_cpu() {
        return composed(qkv, lengths, heads, relation, kept.as_ref());
    }
    let op = Op { lengths: lengths.clone(), heads, kept };
    let qkv = qkv.contiguous()?;
    Ok(match relation {
        Some(relation) => qkv.apply_op2(&relation.contiguous()?, op)?,
        None => qkv.apply_op1(op)?,
    })
}

/// The same of tensor operations, for other devices.
pub(super) fn composed(
    qkv: &Tensor,
    lengths: &Lengths,
    heads: usize,
    relation: Option<&Tensor>,
    kept: Option<&Kept>,
) -> Result<Tensor> {
    let (items, steps, each) = (lengths.len(), lengths.longest(), qkv.dim(1)? / 3 / heads);
    let padded = lengths.pad(qkv, steps)?.reshape((items, steps, 3, heads, each))?;
    let part = |which| padded.narrow(2, which, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
    let (q, k, v) = (part(0)?, part(1)?, part(2)?);
    let mut scores = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? * (1.0 / (each as f64).sqrt()))?;
    scores = match relation {
        Some(relation) => scores.broadcast_add(relation)?,
        None => scores.broadcast_add(&heads::hidden(&lengths.mask(steps, qkv.device())?, qkv)?)?,
    };
    let mut p = candle_nn::ops::softmax(&scores, D::Minus1)?;
    if let Some(kept) = kept {
        let mut factors = vec![0f32; items * heads * steps * steps];
        let mut at = 0;
        for (s, &n) in lengths.as_slice().iter().enumerate() {
            for head in 0..heads {
                for i in 0..n {
                    let to = ((s * heads + head) * steps + i) * steps;
                    let keep = kept.range(at..at + n);
                    factors[to..to + n]
                        .iter_mut()
                        .zip(keep)
                        .for_each(|(f, &k)| *f = f32::from(k) * kept.scale::<f32>());
                    at += n;
                }
            }
        }
        let factors = Tensor::from_vec(factors, p.shape(), &Device::Cpu)?;
        p = (p * factors.to_dtype(qkv.dtype())?.to_device(qkv.device())?)?;
    }
    let seen = p.matmul(&v)?.transpose(1, 2)?.contiguous()?.reshape((items, steps, heads * each))?;
    lengths.unpad(&seen)
}

struct Op {
    lengths: Lengths,
    heads: usize,
    kept: Option<Kept>,
}

/// One head of one sequence.
struct Task<'a, T> {
    q: Mat<'a, T>,
    k: Mat<'a, T>,
    v: Mat<'a, T>,
    n: usize,
    e: usize,
    keep: Option<&'a [u8]>,
}

/// Memory that serves one task after another.
struct Room<T> {
    /// Equation (1), with and without what is dropped.
    p: Vec<T>,
    thinned: Vec<T>,
    /// Its gradient.
    d: Vec<T>,
    ones: Vec<T>,
}

impl<T> Room<T> {
    fn new() -> Self {
        Self { p: Vec::new(), thinned: Vec::new(), d: Vec::new(), ones: Vec::new() }
    }
}

impl Op {
    /// Sequence and head of every task, in order.
    fn tasks(&self) -> Vec<(usize, usize)> {
        (0..self.lengths.len()).flat_map(|s| (0..self.heads).map(move |head| (s, head))).collect()
    }

    /// Where the mask of each sequence begins.
    fn starts(&self) -> Vec<usize> {
        let mut at = 0;
        let sizes = self.lengths.as_slice().iter().map(|n| n * n * self.heads);
        sizes
            .map(|size| {
                at += size;
                at - size
            })
            .collect()
    }

    fn task<'a, T: Real>(&'a self, qkv: &'a [T], wide: usize, s: usize, head: usize, starts: &[usize]) -> Task<'a, T> {
        let (range, w) = (self.lengths.range(s), wide / 3);
        let (n, e) = (range.len(), w / self.heads);
        let part = |which: usize| Mat::strided(&qkv[range.start * wide + which * w + head * e..], n, e, wide);
        let keep = self.kept.as_ref().map(|kept| {
            let at = starts[s] + head * n * n;
            kept.range(at..at + n * n)
        });
        Task { q: part(0), k: part(1), v: part(2), n, e, keep }
    }

    fn scale<T: Real>(&self) -> T {
        self.kept.as_ref().map_or(T::ONE, Kept::scale)
    }

    fn forward<T: Real + Exp>(&self, qkv: &[T], relation: Option<&[T]>) -> Vec<T> {
        let wide = qkv.len() / self.lengths.total();
        let starts = self.starts();
        let heads = self.tasks().into_par_iter().map_init(Room::new, |Room { p, ones, .. }, (s, head)| {
            let task = self.task(qkv, wide, s, head, &starts);
            let (n, e) = (task.n, task.e);
            task.weights(relation, p, ones);
            task.thin(p, self.scale());
            let mut out = vec![T::ZERO; n * e];
            gemm_serial(T::ONE, Mat::new(p, n, n), task.v, T::ZERO, MatMut::new(&mut out, n, e));
            out
        });
        let heads: Vec<Vec<T>> = heads.collect();
        self.joined(&heads, wide / 3, 1)
    }

    /// Rows `[total, parts w]` from what each task made, `parts` matrices `[n, e]` one behind the other.
    fn joined<T: Real>(&self, made: &[Vec<T>], w: usize, parts: usize) -> Vec<T> {
        let (row, e) = (parts * w, w / self.heads);
        let mut out = vec![T::ZERO; self.lengths.total() * row];
        let mut rest = &mut out[..];
        let mut blocks = Vec::with_capacity(self.lengths.len());
        for (s, &n) in self.lengths.as_slice().iter().enumerate() {
            let (block, behind) = rest.split_at_mut(n * row);
            rest = behind;
            blocks.push((block, &made[s * self.heads..(s + 1) * self.heads]));
        }
        blocks.into_par_iter().for_each(|(block, heads)| {
            let n = block.len() / row;
            for (head, made) in heads.iter().enumerate() {
                for part in 0..parts {
                    for i in 0..n {
                        let to = i * row + part * w + head * e;
                        block[to..to + e].copy_from_slice(&made[(part * n + i) * e..][..e]);
                    }
                }
            }
        });
        out
    }

    /// Gradients of `qkv`, and of the relation if there is one.
    fn backward<T: Real + Exp>(&self, qkv: &[T], relation: Option<&[T]>, grad: &[T]) -> (Vec<T>, Option<Vec<T>>) {
        let wide = qkv.len() / self.lengths.total();
        let (w, starts) = (wide / 3, self.starts());
        let made = self.tasks().into_par_iter().map_init(Room::new, |Room { p, thinned, d, ones }, (s, head)| {
            let task = self.task(qkv, wide, s, head, &starts);
            let (n, e) = (task.n, task.e);
            let g = Mat::strided(&grad[self.lengths.range(s).start * w + head * e..], n, e, w);
            task.weights(relation, p, ones);
            thinned.clone_from(p);
            task.thin(thinned, self.scale());
            d.resize(n * n, T::ZERO);
            gemm_serial(T::ONE, g, task.v.t(), T::ZERO, MatMut::new(d, n, n));
            task.thin(d, self.scale());
            for (d, p) in d.chunks_exact_mut(n).zip(p.chunks_exact(n)) {
                let mean = dot(d, p);
                d.iter_mut().zip(p).for_each(|(d, &p)| *d = p * (*d - mean));
            }
            let mut out = vec![T::ZERO; 3 * n * e];
            let (dq, rest) = out.split_at_mut(n * e);
            let (dk, dv) = rest.split_at_mut(n * e);
            let scale = T::from_f64(1.0 / (e as f64).sqrt());
            gemm_serial(scale, Mat::new(d, n, n), task.k, T::ZERO, MatMut::new(dq, n, e));
            gemm_serial(scale, Mat::new(d, n, n).t(), task.q, T::ZERO, MatMut::new(dk, n, e));
            gemm_serial(T::ONE, Mat::new(thinned, n, n).t(), g, T::ZERO, MatMut::new(dv, n, e));
            (out, relation.map(|_| d.clone()))
        });
        let (made, relations): (Vec<Vec<T>>, Vec<Option<Vec<T>>>) = made.unzip();
        let sum = |mut sum: Vec<T>, next: Vec<T>| {
            sum.iter_mut().zip(next).for_each(|(sum, next)| *sum += next);
            sum
        };
        (self.joined(&made, w, 3), relations.into_iter().flatten().reduce(sum))
    }
}

impl<T: Real + Exp> Task<'_, T> {
    /// `p` of equation (1), `[n, n]`.
    fn weights(&self, relation: Option<&[T]>, p: &mut Vec<T>, ones: &mut Vec<T>) {
        let (n, hidden) = (self.n, T::from_f64(f64::NEG_INFINITY));
        let scale = T::from_f64(1.0 / (self.e as f64).sqrt());
        p.resize(n * n, T::ZERO);
        ones.resize(n, T::ONE);
        gemm_serial(scale, self.q, self.k.t(), T::ZERO, MatMut::new(p, n, n));
        for (i, p) in p.chunks_exact_mut(n).enumerate() {
            if let Some(relation) = relation {
                p.iter_mut().zip(&relation[i * n..][..n]).for_each(|(p, &r)| *p += r);
            }
            let most = p.iter().fold(hidden, |most, &p| if p > most { p } else { most });
            // The exponential does not reach 0 by itself.
            p.iter_mut().for_each(|p| *p = if *p == hidden { T::ZERO } else { Exp::exp(*p - most) });
            let sum = dot(p, ones);
            p.iter_mut().for_each(|p| *p /= sum);
        }
    }

    fn thin(&self, p: &mut [T], scale: T) {
        if let Some(keep) = self.keep {
            p.iter_mut().zip(keep).for_each(|(p, &keep)| *p = if keep == 0 { T::ZERO } else { *p * scale });
        }
    }
}

impl CustomOp1 for Op {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (total, wide) = layout.shape().dims2()?;
        let out = match qkv {
            CpuStorage::F32(qkv) => CpuStorage::F32(self.forward(contiguous(qkv, layout)?, None)),
            CpuStorage::F64(qkv) => CpuStorage::F64(self.forward(contiguous(qkv, layout)?, None)),
            _ => candle_core::bail!("attention: expected f32 or f64"),
        };
        Ok((out, Shape::from((total, wide / 3))))
    }

    fn bwd(&self, qkv: &Tensor, _out: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        dispatch!(grad.dtype(), T => {
            let (dqkv, _) = with::<T, _>(qkv, |qkv| with::<T, _>(&grad, |grad| Ok(self.backward(qkv, None, grad))))?;
            Ok(Some(Tensor::from_vec(dqkv, qkv.shape(), &Device::Cpu)?))
        })
    }
}

impl CustomOp2 for Op {
    fn name(&self) -> &'static str {
        "attention with a relation"
    }

    fn cpu_fwd(
        &self,
        qkv: &CpuStorage,
        layout: &Layout,
        relation: &CpuStorage,
        relation_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (total, wide) = layout.shape().dims2()?;
        let out = match (qkv, relation) {
            (CpuStorage::F32(qkv), CpuStorage::F32(r)) => {
                CpuStorage::F32(self.forward(contiguous(qkv, layout)?, Some(contiguous(r, relation_layout)?)))
            }
            (CpuStorage::F64(qkv), CpuStorage::F64(r)) => {
                CpuStorage::F64(self.forward(contiguous(qkv, layout)?, Some(contiguous(r, relation_layout)?)))
            }
            _ => candle_core::bail!("attention: expected two tensors of f32 or two of f64"),
        };
        Ok((out, Shape::from((total, wide / 3))))
    }

    fn bwd(
        &self,
        qkv: &Tensor,
        relation: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        dispatch!(grad.dtype(), T => {
            let (dqkv, dr) = with::<T, _>(qkv, |qkv| with::<T, _>(relation, |r| with::<T, _>(&grad, |grad| {
                Ok(self.backward(qkv, Some(r), grad))
            })))?;
            let dr = dr.map(|dr| Tensor::from_vec(dr, relation.shape(), &Device::Cpu)).transpose()?;
            Ok((Some(Tensor::from_vec(dqkv, qkv.shape(), &Device::Cpu)?), dr))
        })
    }
}
