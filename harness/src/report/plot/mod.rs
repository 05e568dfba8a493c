//! Plots: one file each, all on one canvas.

pub(crate) mod attention;
mod bits;
mod canvas;
mod curves;
mod dots;
mod frame;
mod palette;
mod pareto;
mod recall;
mod rerank;
mod sweep;
mod training;

use anyhow::{Result, bail};

use super::score::Scores;
use crate::{
    record::{PLOTS, Stem, section::Section, words},
    stats,
};
use canvas::Canvas;
use frame::Scale;
pub use palette::Palette;

/// A plot in every format.
#[derive(Debug)]
pub struct Picture {
    /// Name of the files.
    pub stem: Stem,
    /// What it shows.
    pub title: String,
    /// SVG.
    pub svg: String,
    /// PNG.
    pub png: Vec<u8>,
    /// PDF.
    pub pdf: Vec<u8>,
    /// As SVG with a linear axis where the picture's is logarithmic, for the page, where a reader may choose.
    pub linear: Option<String>,
}

impl Picture {
    /// Endings of its files.
    pub const ENDINGS: [&'static str; 3] = ["svg", "png", "pdf"];

    fn of(canvas: &Canvas, stem: Stem, title: String) -> Result<Self> {
        let svg = canvas.svg(&title)?;
        Ok(Self { stem, png: canvas.png()?, pdf: Canvas::pdf(&svg)?, svg, title, linear: None })
    }

    /// Its files: name and content.
    pub fn files(&self) -> [(String, &[u8]); 3] {
        let [svg, png, pdf] = Self::ENDINGS.map(|ending| self.stem.file(ending));
        [(svg, self.svg.as_bytes()), (png, &self.png), (pdf, &self.pdf)]
    }
}

/// What a plot draws from.
struct Scene<'a, 'b> {
    section: &'a Section<'a>,
    scores: &'b mut Scores<'a>,
    palette: &'a Palette,
}

/// Draws a scene, or nothing where the section has no data for the plot.
enum Draw {
    /// One plot.
    One(fn(&mut Scene<'_, '_>, title: &str) -> Option<Canvas>),
    /// One plot, whose axis may have either scale; files have the logarithmic one.
    Scaled(fn(&mut Scene<'_, '_>, title: &str, scale: Scale) -> Option<Canvas>),
    /// One plot for each parameter that the section sweeps.
    Each(fn(&mut Scene<'_, '_>, title: &str, parameter: &str) -> Option<Canvas>),
}

/// What a plot of [`PLOTS`] shows, and how it is drawn.
fn plot(name: &str) -> Option<(&'static str, Draw)> {
    Some(match name {
        "recall" => ("recall at K", Draw::One(recall::draw)),
        "pr" => ("precision and recall", Draw::One(curves::precision_recall)),
        "topn" => ("precision of the first N", Draw::One(curves::top_n)),
        "radius" => ("precision and recall within a Hamming radius", Draw::One(curves::radius)),
        "bits" => ("MAP by code length", Draw::One(bits::draw)),
        "unified" => ("unified codes and others", Draw::One(bits::unified)),
        "ties" => ("what the order of ties moves", Draw::One(bits::ties)),
        "sweep" => ("by", Draw::Each(sweep::draw)),
        "pareto" => ("accuracy against query time", Draw::Scaled(pareto::draw)),
        "years" => ("accuracy by year of publication", Draw::One(pareto::years)),
        "training" => ("training", Draw::One(training::draw)),
        "rerank" => ("by size of the shortlist", Draw::One(rerank::draw)),
        _ => return None,
    })
}

/// The plots that the experiment asks for and that the section has data for.
///
/// # Errors
/// If the experiment names a plot that does not exist, or if a backend fails.
pub fn pictures<'a>(section: &'a Section<'a>, scores: &mut Scores<'a>, palette: &'a Palette) -> Result<Vec<Picture>> {
    let mut pictures = Vec::new();
    for name in &section.note.plots {
        let Some((what, draw)) = plot(name) else {
            let known = PLOTS.join(", ");
            bail!("experiment {}: no plot is called '{name}'; choose from {known}", section.experiment);
        };
        let mut scene = Scene { section, scores, palette };
        let head = format!("{} ({}): {what}", section.title(), section.dataset);
        let mut linear = None;
        let drawn: Vec<(String, String, Option<Canvas>)> = match draw {
            Draw::One(draw) => vec![(name.clone(), head.clone(), draw(&mut scene, &head))],
            Draw::Scaled(draw) => {
                linear = draw(&mut scene, &head, Scale::Linear);
                vec![(name.clone(), head.clone(), draw(&mut scene, &head, Scale::Log))]
            }
            Draw::Each(draw) => sweep::parameters(section)
                .into_iter()
                .map(|parameter| {
                    let title = format!("{head} {}", parameter.replace('_', " "));
                    let canvas = draw(&mut scene, &title, parameter);
                    (format!("{name}-{parameter}"), title, canvas)
                })
                .collect(),
        };
        for (name, title, canvas) in drawn {
            if let Some(canvas) = canvas {
                let stem = section.stem.with(&name);
                let linear = linear.as_ref().map(|linear: &Canvas| linear.svg(&title)).transpose()?;
                pictures.push(Picture { linear, ..Picture::of(&canvas, stem, title)? });
            }
        }
    }
    Ok(pictures)
}

impl Scene<'_, '_> {
    /// What whiskers show.
    fn whiskers(&self) -> &'static str {
        if self.section.is_over_splits() {
            "Whiskers: 95 % interval over splits."
        } else {
            "Whiskers: 95 % interval over images and seeds."
        }
    }

    /// Protocol and seeds, after a remark on what the plot shows.
    fn footer(&self, remark: &str) -> String {
        let seeds = match self.section.seeds.as_slice() {
            [] => "each row's own seeds".to_string(),
            [seed] => format!("seed {seed}"),
            seeds if self.section.is_over_splits() => {
                format!("seeds {}, each with a split of its own", words::seeds(seeds))
            }
            seeds => format!("seeds {}", words::seeds(seeds)),
        };
        format!("{remark} Protocol: {}; {seeds}.", self.section.describe(self.section.protocol))
    }
}

/// The mean of several curves at the places of the first, linear in between. Curves that do not reach a place are left out
/// of its mean.
fn mean_curve(curves: &[&[[f64; 2]]]) -> Vec<(f64, f64)> {
    let places = curves.first().copied().unwrap_or_default().iter().map(|[x, _]| *x);
    let mean = |x: f64| {
        let values: Vec<f64> = curves.iter().filter_map(|curve| interpolate(curve, x)).collect();
        stats::mean(&values).map(|y| (x, y))
    };
    places.filter_map(mean).filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
}

fn interpolate(curve: &[[f64; 2]], x: f64) -> Option<f64> {
    if let Some([_, y]) = curve.iter().find(|[at, _]| *at == x) {
        return Some(*y);
    }
    let pair = curve.windows(2).find(|pair| pair[0][0] < x && x < pair[1][0])?;
    let share = (x - pair[0][0]) / (pair[1][0] - pair[0][0]);
    Some(pair[0][1] + share * (pair[1][1] - pair[0][1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plot_that_an_experiment_may_ask_for_is_drawn() {
        assert!(PLOTS.iter().all(|name| plot(name).is_some()));
        assert!(plot("recal").is_none());
    }

    #[test]
    fn curves_are_averaged_where_the_first_has_points() {
        let (a, b) = ([[0.0, 1.0], [0.5, 0.8], [1.0, 0.2]], [[0.0, 0.6], [1.0, 0.0]]);
        let mean = mean_curve(&[&a, &b]);
        assert_eq!(mean.len(), 3);
        for ((x, y), (expected_x, expected_y)) in mean.into_iter().zip([(0.0, 0.8), (0.5, 0.55), (1.0, 0.1)]) {
            assert!((x - expected_x).abs() < 1e-12 && (y - expected_y).abs() < 1e-12);
        }
    }
}
