use super::*;

#[test]
fn every_piece_of_work_is_timed() {
    let sizes = Sizes {
        widths: vec![4, 6],
        batch: 8,
        features: 5,
        vocabulary: 20,
        // More than a block of both.
        scored: [130, 140],
        searched: [3, 50],
        dim: 8,
    };
    let mut heard = Vec::new();
    let device = (&Device::Cpu, "here");
    let rows = measure(device, &sizes, Duration::from_millis(5), |row| heard.push(row.work.clone())).unwrap();
    assert_eq!(heard, rows.iter().map(|row| row.work.clone()).collect::<Vec<_>>());
    let said: Vec<_> = rows.iter().map(|row| (row.work.as_str(), row.device.as_str(), row.items)).collect();
    assert_eq!(
        said,
        [
            ("VSE++ training step, 8 pairs, BiGRU, d = 4", "here", 8),
            ("VSE++ training step, 8 pairs, BiGRU, d = 6", "here", 8),
            ("SCAN scoring, 130 x 140, as a matcher", "cpu", 18_200),
            ("SCAN scoring, 130 x 140, as in training", "here", 18_200),
            ("dense top-10, 3 queries in 50 x 8", "cpu", 3),
            ("matrix product, 3 queries by 50 x 8", "here", 3),
        ]
    );
    for row in rows {
        assert!(!row.samples.is_empty() && row.samples.iter().all(|&seconds| seconds > 0.0), "{row:?}");
        assert!(row.quartiles[0] <= row.median && row.median <= row.quartiles[1], "{row:?}");
    }
}

#[test]
fn tables_show_milliseconds_and_rates() {
    // Quantiles of five values lie on them.
    let row = Row::new("a step".into(), "cuda:0", (128, "pairs"), vec![0.004, 0.002, 0.003, 0.005, 0.001]);
    assert_eq!(line(&row), "| a step | cuda:0 | 3.00 | 2.00 to 4.00 | 42 700 pairs | 5 |");
    let columns = |line: &str| line.matches('|').count();
    assert!(HEAD.lines().all(|head| columns(head) == columns(&line(&row))));
}
