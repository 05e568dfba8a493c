use super::Lengths;

/// In which order the rows of packed sequences are walked.
#[derive(Debug)]
pub(crate) struct Steps {
    pub(super) lengths: Lengths,
    /// Sequences, longest first.
    pub(super) order: Vec<usize>,
    /// Number of sequences that reach each step.
    pub(super) active: Vec<usize>,
    /// Rows before each step when rows are kept step by step, and the number of all rows.
    pub(super) offsets: Vec<usize>,
    reverse: bool,
}

impl Steps {
    /// The walk from the first row of each sequence to its last; if `reverse`, the other way round.
    pub(crate) fn new(lengths: &Lengths, reverse: bool) -> Self {
        let each = lengths.as_slice();
        let mut order: Vec<usize> = (0..each.len()).collect();
        order.sort_by_key(|&b| std::cmp::Reverse(each[b]));
        let active: Vec<usize> = (0..lengths.longest()).map(|t| order.partition_point(|&b| each[b] > t)).collect();
        let mut offsets = vec![0];
        offsets.extend(active.iter().scan(0, |sum, n| {
            *sum += n;
            Some(*sum)
        }));
        Self { lengths: lengths.clone(), order, active, offsets, reverse }
    }

    /// Step `t` of sequence `order[k]`, counted in the rows of that sequence.
    pub(super) fn position(&self, k: usize, t: usize) -> usize {
        if self.reverse { self.lengths.as_slice()[self.order[k]] - 1 - t } else { t }
    }

    /// Step `t` of sequence `order[k]`, counted in all rows.
    pub(super) fn row(&self, k: usize, t: usize) -> usize {
        self.lengths.range(self.order[k]).start + self.position(k, t)
    }

    /// One slice a sequence, longest first.
    pub(super) fn split<'a, T>(&self, mut data: &'a mut [T], width: usize) -> Vec<&'a mut [T]> {
        let mut slices: Vec<Option<&mut [T]>> = Vec::with_capacity(self.order.len());
        for &length in self.lengths.as_slice() {
            let (head, tail) = data.split_at_mut(length * width);
            slices.push(Some(head));
            data = tail;
        }
        self.order.iter().map(|&b| slices[b].take().expect("each sequence stands once in the order")).collect()
    }
}
