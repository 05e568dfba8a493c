//! What a second stage is worth: the metric against the size of the shortlist, a panel a direction, a line a re-ranked row, and
//! flat lines for the stages alone.

use super::Scene;
use super::canvas::Canvas;
use super::frame::{Axis, Entry, Figure, Kind, Mean, beside};
use super::palette::Look;
use super::sweep::first_of_each_direction;
use crate::record::{
    Control, RERANK,
    section::{Row, Section},
};
use crate::stats::{Interval, metric::Metric};

/// Most sizes that each get a tick of their own.
const TICKS: usize = 8;

/// A re-ranked label: its rows by the size of the shortlist.
struct Line<'a> {
    label: &'a str,
    rows: Vec<(f64, usize)>,
}

/// The data of a panel.
struct Panel {
    metric: Metric,
    /// One a line: size, value, interval.
    lines: Vec<Vec<(f64, f64, Option<Interval>)>>,
    /// Value of each stage alone, where it has one.
    levels: Vec<Option<f64>>,
}

/// A parameter of a re-ranked row.
fn parameter<'a>(row: &Row<'a>, name: &str) -> Option<&'a serde_json::Value> {
    row.trials.first().filter(|trial| trial.method == RERANK)?.params.get(name)
}

/// Draws the plot; `None` where no row is re-ranked.
pub fn draw(scene: &mut Scene<'_, '_>, title: &str) -> Option<Canvas> {
    let rows = &scene.section.rows;
    let mut lines: Vec<Line<'_>> = Vec::new();
    let mut stages: Vec<usize> = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let Some(size) = parameter(row, "shortlist").and_then(serde_json::Value::as_f64) else { continue };
        match lines.iter_mut().find(|line| line.label == row.label) {
            Some(line) => line.rows.push((size, at)),
            None => lines.push(Line { label: row.label, rows: vec![(size, at)] }),
        }
        for name in ["first", "second"].iter().filter_map(|key| parameter(row, key)?.as_str()) {
            let stage = rows.iter().position(|other| other.name == name && other.control == Control::None);
            stages.extend(stage.filter(|stage| !stages.contains(stage)));
        }
    }
    lines.iter_mut().for_each(|line| line.rows.sort_by(|a, b| a.0.total_cmp(&b.0)));
    let panels: Vec<Panel> = metrics(scene.section, &lines)
        .into_iter()
        .map(|metric| {
            let scores = scene.scores.of(&metric).to_vec();
            let value =
                |(size, row): &(f64, usize)| scores[*row].as_ref().map(|score| (*size, score.mean, score.interval));
            Panel {
                lines: lines.iter().map(|line| line.rows.iter().filter_map(value).collect()).collect(),
                levels: stages.iter().map(|row| scores[*row].as_ref().map(|score| score.mean)).collect(),
                metric,
            }
        })
        .filter(|panel| panel.lines.iter().any(|line| !line.is_empty()))
        .collect();
    if panels.is_empty() {
        return None;
    }
    let labels: Vec<&str> =
        lines.iter().map(|line| line.label).chain(stages.iter().map(|row| rows[*row].label)).collect();
    let looks = scene.palette.among(&labels);
    let (own, alone) = looks.split_at(lines.len());
    // Points of one label may be two stages: by their dashes.
    let alone: Vec<Look> =
        alone.iter().enumerate().map(|(i, look)| look.dashed([(6.0, 4.0), (2.5, 3.0), (11.0, 4.0)][i % 3])).collect();
    let mut sizes: Vec<f64> = lines.iter().flat_map(|line| &line.rows).map(|row| row.0).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    let axes = |panel: &Panel| {
        let label = "shortlist (items a query)";
        let x = match sizes.len() <= TICKS {
            true => Axis::log_at(label, &sizes),
            false => Axis::log(label, sizes.iter().copied()),
        };
        (panel.metric.group().to_string(), x, Axis::linear(panel.metric.short(), panel.heights(), false))
    };
    let line = |(line, look): (&Line<'_>, &Look)| Entry { text: line.label.into(), look: *look, kind: Kind::Line };
    // A stage that orders shortlists alone has no level.
    let known = |stage: usize| panels.iter().any(|panel| panel.levels[stage].is_some());
    let level = |stage: usize| Entry { text: rows[stages[stage]].name.clone(), look: alone[stage], kind: Kind::Plain };
    let figure = Figure {
        title,
        footer: &scene.footer("Whiskers: 95 % interval. Without marks: a stage alone."),
        panels: panels.iter().map(axes).collect(),
        stacked: false,
        legend: lines
            .iter()
            .zip(own)
            .map(line)
            .chain((0..stages.len()).filter(|stage| known(*stage)).map(level))
            .collect(),
    };
    let x = beside(&sizes, lines.len());
    let (mut canvas, frames) = figure.frame();
    for (panel, frame) in panels.iter().zip(&frames) {
        let [left, _, width, _] = frame.field;
        for ((level, look), stage) in panel.levels.iter().zip(&alone).zip(&stages) {
            let Some(mean) = level else { continue };
            canvas.row(Some(&rows[*stage].name));
            let (_, y) = frame.at(sizes[0], *mean);
            look.line(&mut canvas, &[(left, y), (left + width, y)], 1.8);
        }
        for (i, (line, look)) in panel.lines.iter().zip(own).enumerate() {
            let mean = |&(size, mean, interval): &(f64, f64, Option<Interval>)| Mean {
                x: x(i, size),
                value: (mean, interval),
                of: format!("{}, {size} items a query", lines[i].label),
            };
            canvas.row(Some(lines[i].label));
            frame.means(&mut canvas, look, true, &line.iter().map(mean).collect::<Vec<_>>());
        }
    }
    Some(canvas)
}

impl Panel {
    /// Everything that the upright axis must hold.
    fn heights(&self) -> Vec<f64> {
        let lines = self.lines.iter().flatten().flat_map(|(_, mean, interval)| {
            [*mean, interval.map_or(*mean, |it| it.low), interval.map_or(*mean, |it| it.high)]
        });
        lines.chain(self.levels.iter().flatten().copied()).collect()
    }
}

/// R@1 of both directions; where it was not recorded, the first metric of the table for each.
fn metrics(section: &Section<'_>, lines: &[Line<'_>]) -> Vec<Metric> {
    let recorded = |name: &&str| {
        let rows = lines.iter().flat_map(|line| &line.rows).map(|(_, row)| &section.rows[*row]);
        rows.flat_map(|row| &row.trials).any(|trial| trial.metrics.contains_key(*name))
    };
    let found: Vec<Metric> =
        ["i2t R@1", "t2i R@1"].iter().filter(|name| recorded(name)).map(|name| Metric::parse(name)).collect();
    if found.is_empty() { first_of_each_direction(section) } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Trial, section, synthetic};
    use crate::report::{plot, score::Scores};

    /// `VSE++` re-ranked by `SCAN t2i` with three shortlists, of which the largest says most.
    fn recording() -> crate::record::Recording {
        let mut recording = synthetic::recording();
        let made: Vec<Trial> = recording
            .trials
            .iter()
            .filter(|trial| trial.label == "VSE++" && trial.control == Control::None)
            .flat_map(|trial| {
                [5, 10, 50].map(|size| {
                    let mut one = trial.clone();
                    (one.label, one.method, one.position) = ("VSE++, then SCAN t2i".into(), RERANK.into(), 7);
                    one.swept = [("shortlist".to_string(), size.to_string())].into();
                    one.params = serde_json::json!({ "first": "VSE++", "second": "SCAN t2i", "shortlist": size });
                    one
                })
            })
            .collect();
        recording.trials.extend(made);
        let note = recording.manifest.experiments.get_mut("01-recall").unwrap();
        note.plots = vec!["rerank".into()];
        recording
    }

    #[test]
    fn a_line_a_label_and_the_stages_alone() {
        let recording = recording();
        let sections = section::sections(&recording);
        let section = sections.iter().find(|section| section.experiment == "01-recall").unwrap();
        let palette = plot::Palette::of(&recording);
        let pictures = plot::pictures(section, &mut Scores::new(section), &palette).unwrap();
        let [picture] = &pictures[..] else { panic!("one plot, found {}", pictures.len()) };
        assert_eq!(picture.stem.as_str(), "01-recall-f8k-rerank");
        let texts = [
            "VSE++, then SCAN t2i",
            "SCAN t2i",
            "image to text",
            "text to image",
            "R@1",
            "\n50\n",
            "\n5\n",
            "a stage alone",
        ];
        for text in texts {
            assert!(picture.svg.contains(text), "`{text}` is not in the plot");
        }
        // Once in the legend: three sizes are one line.
        assert_eq!(picture.svg.matches("VSE++, then SCAN t2i\n").count(), 1);
        // And at each point, for whoever points there.
        assert_eq!(picture.svg.matches("<title>VSE++, then SCAN t2i, ").count(), 6);
    }

    #[test]
    fn without_a_re_ranked_row_there_is_nothing_to_draw() {
        let mut recording = recording();
        recording.trials.retain(|trial| trial.method != RERANK);
        let sections = section::sections(&recording);
        let section = sections.iter().find(|section| section.experiment == "01-recall").unwrap();
        let palette = plot::Palette::of(&recording);
        assert!(plot::pictures(section, &mut Scores::new(section), &palette).unwrap().is_empty());
    }

    #[test]
    fn labels_of_one_plot_have_different_colours() {
        let mut recording = recording();
        // Eight more labels take the other colours, so that the last one's would be the first's.
        for i in 0..8 {
            recording.trials.push(synthetic::trial("01-recall", 10 + i, &format!("row {i}"), "f8k", 0));
        }
        let palette = plot::Palette::of(&recording);
        let all = ["CCA", "VSE++", "SCAN t2i", "VSE++, then SCAN t2i", "row 4", "row 5"];
        let plain: Vec<_> = all.iter().map(|label| format!("{:?}", palette.plain(label).colour)).collect();
        assert!((1..all.len()).any(|i| plain[..i].contains(&plain[i])), "no two labels share a colour to begin with");
        let looks: Vec<_> = palette.among(&all).iter().map(|look| format!("{:?}", look.colour)).collect();
        assert!((1..all.len()).all(|i| !looks[..i].contains(&looks[i])), "{looks:?}");
    }
}
