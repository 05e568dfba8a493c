//! Keys of past steps as negatives (He et al., CVPR 2020): a ring of a fixed number of unit vectors for each kind of key.

use candle_core::{DType, Tensor, Var};

use crate::{
    Result,
    nn::{Weights, unit},
};

/// Kinds of key that are kept.
pub(super) const LANES: usize = 4;

/// The rings, one a lane, in step with each other; state of a head.
pub(super) struct Queue {
    lanes: [Var; LANES],
    /// Training positions of image and text of each entry; -1 for one that was drawn at the start.
    ids: Var,
    /// Where the next keys go.
    next: Var,
}

/// `ring [n, d]` with `keys [m, d]` written from row `at` on, around its end; of more keys than rows the last stay. Also where the
/// next ones go.
///
/// # Errors
/// If the widths differ.
pub(super) fn enqueue(ring: &Tensor, keys: &Tensor, at: usize) -> Result<(Tensor, usize)> {
    let (n, m) = (ring.dim(0)?, keys.dim(0)?);
    let next = (at + m) % n;
    let keys = if m > n { keys.narrow(0, m - n, n)? } else { keys.clone() };
    let kept = keys.dim(0)?;
    // The last key goes before `next`.
    let first = (next + n - kept) % n;
    let mut source: Vec<u32> = (0..n as u32).collect();
    (0..kept).for_each(|k| source[(first + k) % n] = (n + k) as u32);
    let rows = Tensor::from_vec(source, n, ring.device())?;
    Ok((Tensor::cat(&[ring, &keys], 0)?.index_select(&rows, 0)?, next))
}

impl Queue {
    /// Rings of `entries` unit vectors that are drawn where training begins; widths and names of lanes are given.
    pub fn new(weights: &mut Weights, lanes: [(&str, usize); LANES], entries: usize, fresh: bool) -> Result<Self> {
        let device = weights.device().clone();
        let mut ring = |(name, width): (&str, usize)| -> Result<Var> {
            let name = format!("queue.{name}");
            weights.normal(&name, &[entries, width], 1.0)?;
            let var = weights.var(&name).expect("it was just made").clone();
            if fresh {
                var.set(&unit(&var.as_detached_tensor())?)?;
            }
            Ok(var)
        };
        let [a, b, c, d] = lanes;
        let lanes = [ring(a)?, ring(b)?, ring(c)?, ring(d)?];
        let ids = weights.state("queue.ids", Tensor::full(-1f32, (entries, 2), &device)?)?;
        let next = weights.state("queue.next", Tensor::zeros(1, DType::F32, &device)?)?;
        Ok(Self { lanes, ids, next })
    }

    /// The keys of a lane, `[entries, d]`, without gradient.
    pub fn keys(&self, lane: usize) -> Tensor {
        self.lanes[lane].as_detached_tensor()
    }

    /// Image and text of each entry, if it is a key of this training.
    pub fn ids(&self) -> Result<Vec<Option<[usize; 2]>>> {
        let ids = self.ids.as_detached_tensor().to_vec2::<f32>()?;
        Ok(ids.into_iter().map(|id| (id[0] >= 0.0).then(|| [id[0] as usize, id[1] as usize])).collect())
    }

    /// Writes the keys of a step, `[b, d]` a lane, and their images and texts; a lane without keys stays as it is.
    pub fn push(&self, keys: &[Option<Tensor>; LANES], ids: &[[usize; 2]]) -> Result<()> {
        // Exact up to 2^24.
        let rows: Vec<f32> = ids.iter().flatten().map(|&id| id as f32).collect();
        let ids = Tensor::from_vec(rows, (ids.len(), 2), self.ids.device())?;
        let at = self.next.as_detached_tensor().to_vec1::<f32>()?[0] as usize;
        for (lane, keys) in self.lanes.iter().zip(keys) {
            let Some(keys) = keys else { continue };
            lane.set(&enqueue(&lane.as_detached_tensor(), &keys.detach(), at)?.0)?;
        }
        let (ids, next) = enqueue(&self.ids.as_detached_tensor(), &ids, at)?;
        self.ids.set(&ids)?;
        Ok(self.next.set(&Tensor::new(&[next as f32], self.next.device())?)?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use xmbench_datasets::random::Seed;

    use super::*;

    fn column(values: &[f32]) -> Tensor {
        Tensor::from_vec(values.to_vec(), (values.len(), 1), &Device::Cpu).unwrap()
    }

    #[test]
    fn keys_go_around_and_of_too_many_the_last_stay() {
        let ring = column(&[0.0, 1.0, 2.0, 3.0]);
        let after = |keys: &[f32], at| {
            let (ring, next) = enqueue(&ring, &column(keys), at).unwrap();
            (ring.flatten_all().unwrap().to_vec1::<f32>().unwrap(), next)
        };
        assert_eq!(after(&[7.0, 8.0], 0), (vec![7.0, 8.0, 2.0, 3.0], 2));
        assert_eq!(after(&[7.0, 8.0], 3), (vec![8.0, 1.0, 2.0, 7.0], 1));
        assert_eq!(after(&[5.0, 6.0, 7.0, 8.0], 1), (vec![8.0, 5.0, 6.0, 7.0], 1));
        // Six keys in four places from 1 on: the last, 9, stands before 3.
        assert_eq!(after(&[4.0, 5.0, 6.0, 7.0, 8.0, 9.0], 1), (vec![7.0, 8.0, 9.0, 6.0], 3));
    }

    #[test]
    fn rings_begin_with_drawn_unit_vectors_that_are_nobody() {
        let mut weights = Weights::new(Seed(1), &Device::Cpu);
        let queue = Queue::new(&mut weights, [("a", 3), ("b", 3), ("c", 2), ("d", 2)], 5, true).unwrap();
        let norms = queue.keys(0).sqr().unwrap().sum(1).unwrap().to_vec1::<f32>().unwrap();
        assert!(norms.iter().all(|norm| (norm - 1.0).abs() < 1e-6) && queue.ids().unwrap() == [None; 5]);
        let drawn = queue.keys(2).to_vec2::<f32>().unwrap();
        let keys = [Some(3), Some(3), None, Some(2)]
            .map(|d| d.map(|d| Tensor::ones((2, d), DType::F32, &Device::Cpu).unwrap()));
        queue.push(&keys, &[[4, 9], [0, 1]]).unwrap();
        assert_eq!(queue.keys(2).to_vec2::<f32>().unwrap(), drawn);
        assert_eq!(queue.ids().unwrap(), [Some([4, 9]), Some([0, 1]), None, None, None]);
        assert_eq!(queue.keys(3).to_vec2::<f32>().unwrap()[1], [1.0, 1.0]);
        assert_ne!(queue.keys(3).to_vec2::<f32>().unwrap()[2], [1.0, 1.0]);
    }
}
