use super::Lengths;

/// Sequences that are walked side by side.
const TOGETHER: usize = 64;

/// In which order the rows of some packed sequences are walked.
#[derive(Debug)]
pub(crate) struct Steps {
    /// Number of sequences that reach each step.
    pub(super) active: Vec<usize>,
    /// Rows before each step when rows are kept step by step, and the number of all rows.
    pub(super) offsets: Vec<usize>,
    /// The packed row behind each of those.
    pub(super) rows: Vec<usize>,
}

impl Steps {
    /// All sequences at once, from the first row of each to its last; if `reverse`, the other way round.
    pub(crate) fn new(lengths: &Lengths, reverse: bool) -> Self {
        Self::of((0..lengths.len()).collect(), lengths, reverse)
    }

    /// Groups of at most [`TOGETHER`] sequences, which do not depend on the number of threads. Long and short ones are
    /// spread evenly.
    pub(crate) fn groups(lengths: &Lengths, reverse: bool) -> Vec<Self> {
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by_key(|&b| std::cmp::Reverse(lengths.as_slice()[b]));
        let groups = lengths.len().div_ceil(TOGETHER);
        (0..groups)
            .map(|g| Self::of(order.iter().skip(g).step_by(groups).copied().collect(), lengths, reverse))
            .collect()
    }

    fn of(mut order: Vec<usize>, lengths: &Lengths, reverse: bool) -> Self {
        let each = lengths.as_slice();
        // Longest first: the sequences that reach a step are a prefix.
        order.sort_by_key(|&b| std::cmp::Reverse(each[b]));
        let longest = order.first().map_or(0, |&b| each[b]);
        let active: Vec<usize> = (0..longest).map(|t| order.partition_point(|&b| each[b] > t)).collect();
        let mut offsets = vec![0];
        let mut rows = Vec::new();
        for (t, &active) in active.iter().enumerate() {
            rows.extend(order[..active].iter().map(|&b| {
                let range = lengths.range(b);
                if reverse { range.end - 1 - t } else { range.start + t }
            }));
            offsets.push(rows.len());
        }
        Self { active, offsets, rows }
    }
}
