//! The canvas that every plot draws on: shapes are collected in points of the page and then played to plotters' SVG and
//! bitmap backends, so that both pictures are the same; the PDF is made of the SVG.

use std::sync::{Arc, LazyLock, Once};

use anyhow::{Context, Result, anyhow};
use base64::Engine;
use plotters::backend::{BitMapBackend, DrawingBackend, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontDesc, FontFamily, FontStyle, FontTransform, RGBAColor, ShapeStyle, TextStyle};
use svg2pdf::{
    ConversionOptions, PageOptions,
    usvg::{Options, Tree, fontdb::Database},
};
use xmbench_datasets::Picture;

use crate::output::plain;

/// Backends count in whole pixels: a point has this many of them, so that curves stay smooth.
const FINE: f64 = 4.0;
/// Pixels of the PNG file for each point.
const SHARP: usize = 2;

/// The bundled font.
const FONT: [(FontStyle, fn() -> &'static [u8]); 2] =
    [(FontStyle::Normal, dejavu::sans::regular), (FontStyle::Bold, dejavu::sans::bold)];

/// How much too high the bitmap backend centres a text, in sizes of the type.
const DROP: f64 = 0.13;

/// A place in points from the upper left corner.
pub type Point = (f64, f64);

/// A colour with its opacity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Colour(pub u8, pub u8, pub u8, pub f64);

/// Text and axes.
pub const INK: Colour = Colour(0x22, 0x22, 0x22, 1.0);
/// Secondary text and controls.
pub const GREY: Colour = Colour(0x6b, 0x6b, 0x6b, 1.0);
/// Grid.
pub const FAINT: Colour = Colour(0xe2, 0xe2, 0xe2, 1.0);
/// Paper.
pub const WHITE: Colour = Colour(0xff, 0xff, 0xff, 1.0);

impl Colour {
    /// The same colour, less opaque.
    pub fn alpha(self, alpha: f64) -> Self {
        Self(self.0, self.1, self.2, alpha)
    }

    /// Towards white by `share` in `[0, 1]`.
    pub fn tint(self, share: f64) -> Self {
        let mix = |part: u8| (f64::from(part) + (255.0 - f64::from(part)) * share).round() as u8;
        Self(mix(self.0), mix(self.1), mix(self.2), self.3)
    }
}

impl From<Colour> for RGBAColor {
    fn from(Colour(r, g, b, alpha): Colour) -> Self {
        Self(r, g, b, alpha)
    }
}

/// Which part of a text stands at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Its beginning.
    Left,
    /// Its middle.
    Centre,
    /// Its end.
    Right,
    /// Its middle, running upwards.
    Upwards,
}

/// Lettering.
#[derive(Debug, Clone, Copy)]
pub struct Type {
    /// Size in points.
    pub size: f64,
    /// Whether it is bold.
    pub bold: bool,
    /// Its colour.
    pub colour: Colour,
}

/// Lettering of ticks, labels and legends.
pub const BODY: Type = Type { size: 13.0, bold: false, colour: INK };
/// Lettering of titles.
pub const TITLE: Type = Type { size: 17.0, bold: true, colour: INK };
/// Lettering of the protocol line.
pub const SMALL: Type = Type { size: 10.5, bold: false, colour: GREY };

#[derive(Debug)]
enum Shape {
    Line { points: Vec<Point>, colour: Colour, width: f64 },
    Fill { points: Vec<Point>, colour: Colour },
    Disc { centre: Point, radius: f64, colour: Colour },
    Text { at: Point, text: String, lettering: Type, align: Align },
    Picture { corner: Point, size: Point, picture: Picture },
    Note { at: Point, radius: f64, text: String },
}

/// A shape, and the row of the table that it belongs to, if any.
#[derive(Debug)]
struct Mark {
    row: Option<Arc<str>>,
    shape: Shape,
}

/// What is played beside shapes.
#[derive(Clone, Copy)]
struct Draws {
    /// The white below everything.
    paper: bool,
    pictures: bool,
}

/// A picture in the making.
#[derive(Debug)]
pub struct Canvas {
    size: Point,
    marks: Vec<Mark>,
    /// Of what is drawn from here on.
    row: Option<Arc<str>>,
}

impl Canvas {
    /// An empty canvas of so many points.
    pub fn new(width: f64, height: f64) -> Self {
        Self { size: (width, height), marks: Vec::new(), row: None }
    }

    /// What is drawn from here on belongs to this row of the table, or to none: a reader of the page may leave rows out.
    pub fn row(&mut self, name: Option<&str>) {
        self.row = name.map(|name| plain(name).into());
    }

    /// Where a text stands.
    #[cfg(test)]
    pub fn place_of(&self, wanted: &str) -> Option<Point> {
        self.marks.iter().find_map(|mark| match &mark.shape {
            Shape::Text { at, text, .. } if text == wanted => Some(*at),
            _ => None,
        })
    }

    fn push(&mut self, shape: Shape) {
        self.marks.push(Mark { row: self.row.clone(), shape });
    }

    /// A line through points.
    pub fn line(&mut self, points: &[Point], colour: Colour, width: f64) {
        if points.len() > 1 {
            self.push(Shape::Line { points: points.to_vec(), colour, width });
        }
    }

    /// A dashed line through points; strokes and gaps run on through the corners.
    pub fn dashed(&mut self, points: &[Point], colour: Colour, width: f64, (stroke, gap): Point) {
        let mut left = stroke;
        let mut drawing = true;
        let mut part: Vec<Point> = points.first().copied().into_iter().collect();
        for pair in points.windows(2) {
            let ((mut x, mut y), (to_x, to_y)) = (pair[0], pair[1]);
            loop {
                let length = (to_x - x).hypot(to_y - y);
                if length <= left {
                    left -= length;
                    part.push((to_x, to_y));
                    break;
                }
                x += (to_x - x) * left / length;
                y += (to_y - y) * left / length;
                part.push((x, y));
                if drawing {
                    self.line(&part, colour, width);
                }
                part = vec![(x, y)];
                drawing = !drawing;
                left = if drawing { stroke } else { gap };
            }
        }
        if drawing {
            self.line(&part, colour, width);
        }
    }

    /// A filled polygon.
    pub fn fill(&mut self, points: &[Point], colour: Colour) {
        self.push(Shape::Fill { points: points.to_vec(), colour });
    }

    /// A filled rectangle between two corners.
    pub fn bar(&mut self, (x0, y0): Point, (x1, y1): Point, colour: Colour) {
        self.fill(&[(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour);
    }

    /// A filled circle.
    pub fn disc(&mut self, centre: Point, radius: f64, colour: Colour) {
        self.push(Shape::Disc { centre, radius, colour });
    }

    /// A picture, its pixels as squares of a rectangle from its upper left corner.
    pub fn picture(&mut self, corner: Point, size: Point, picture: Picture) {
        self.push(Shape::Picture { corner, size, picture });
    }

    /// What a reader sees who points at this place of the SVG, so many points around it.
    pub fn note(&mut self, at: Point, radius: f64, text: &str) {
        self.push(Shape::Note { at, radius, text: plain(text).into_owned() });
    }

    /// A text, centred on the height of its place. Plotters escapes what is special to XML, and not what XML forbids.
    pub fn text(&mut self, at: Point, text: &str, lettering: Type, align: Align) {
        if !text.is_empty() {
            self.push(Shape::Text { at, text: plain(text).into_owned(), lettering, align });
        }
    }

    /// The picture as SVG of its size in points, described by `title` to those who do not see it. What belongs to a row of the table
    /// is a group whose `data-row` names it.
    pub fn svg(&self, title: &str) -> Result<String> {
        let (width, height) = (self.size.0 * FINE, self.size.1 * FINE);
        let played = |marks: &[Mark], paper: bool| -> Result<(String, String)> {
            let mut text = String::new();
            let backend = SVGBackend::with_string(&mut text, (width as u32, height as u32));
            self.play(marks, backend, FINE, 0.0, Draws { paper, pictures: false })?;
            let (head, rest) = text.split_once(">\n").context("plotters wrote no SVG")?;
            let (body, _) = rest.rsplit_once("</svg>").context("plotters ended no SVG")?;
            Ok((head.to_string(), body.to_string()))
        };
        let (head, paper) = played(&[], true)?;
        let (was, is) = (
            format!("<svg width=\"{width}\" height=\"{height}\""),
            format!("<svg role=\"img\" width=\"{}\" height=\"{}\"", self.size.0, self.size.1),
        );
        let title = crate::report::export::escape(title);
        let mut out = format!("{}>\n<title>{title}</title>\n{paper}", head.replacen(&was, &is, 1));
        // Under everything else.
        out += &self.embedded()?;
        for run in self.marks.chunk_by(|a, b| a.row == b.row) {
            let (_, body) = played(run, false)?;
            match &run[0].row {
                Some(row) if !body.is_empty() => {
                    out += &format!("<g data-row=\"{}\">\n{body}</g>\n", crate::report::export::escape(row));
                }
                _ => out += &body,
            }
        }
        // Above everything else, or the pointer would not reach them.
        Ok(out + &self.notes() + "</svg>\n")
    }

    /// An SVG of it as a page of PDF of its size, its text as text.
    pub fn pdf(svg: &str) -> Result<Vec<u8>> {
        static FONTS: LazyLock<Arc<Database>> = LazyLock::new(|| {
            let mut fonts = Database::new();
            FONT.into_iter().for_each(|(_, bytes)| fonts.load_font_data(bytes().to_vec()));
            let family = fonts.faces().next().and_then(|face| face.families.first()).map(|(name, _)| name.clone());
            fonts.set_sans_serif_family(family.expect("the bundled font has a name"));
            Arc::new(fonts)
        });
        let options = Options { fontdb: FONTS.clone(), ..Options::default() };
        let tree = Tree::from_str(svg, &options).context("cannot read a plot again")?;
        // A point of the picture is one of the page.
        let page = PageOptions { dpi: 72.0 };
        svg2pdf::to_pdf(&tree, ConversionOptions::default(), page)
            .map_err(|error| anyhow!("cannot write a plot as PDF: {error}"))
    }

    fn notes(&self) -> String {
        let note = |Mark { row, shape }: &Mark| {
            let Shape::Note { at, radius, text } = shape else { return None };
            let row = row.as_ref().map(|row| format!(" data-row=\"{}\"", crate::report::export::escape(row)));
            let row = row.unwrap_or_default();
            let [x, y, radius] = [at.0, at.1, *radius].map(|points| points * FINE);
            let text = crate::report::export::escape(text);
            Some(format!(
                "<circle cx=\"{x:.0}\" cy=\"{y:.0}\" r=\"{radius:.0}\" fill-opacity=\"0\"{row}><title>{text}</title></circle>\n"
            ))
        };
        self.marks.iter().filter_map(note).collect()
    }

    /// The pictures on it as elements of an SVG; plotters would draw a rectangle a pixel.
    fn embedded(&self) -> Result<String> {
        let mut text = String::new();
        for mark in &self.marks {
            let Shape::Picture { corner, size, picture } = &mark.shape else { continue };
            let [x, y, width, height] = [corner.0, corner.1, size.0, size.1].map(|points| points * FINE);
            let bytes = encoded(picture.width, picture.height, picture.rgb.clone())?;
            let data = base64::engine::general_purpose::STANDARD.encode(bytes);
            text += &format!(
                "<image x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" preserveAspectRatio=\"none\" \
                 image-rendering=\"pixelated\" href=\"data:image/png;base64,{data}\"/>\n"
            );
        }
        Ok(text)
    }

    /// The picture as PNG with [`SHARP`] pixels a point.
    pub fn png(&self) -> Result<Vec<u8>> {
        let scale = FINE as usize;
        let (width, height) = (self.size.0 as usize * scale, self.size.1 as usize * scale);
        let mut fine = vec![255; width * height * 3];
        let backend = BitMapBackend::with_buffer(&mut fine, (width as u32, height as u32));
        self.play(&self.marks, backend, FINE, DROP, Draws { paper: true, pictures: true })?;
        // The mean over squares of pixels smooths the edges that the backend leaves jagged.
        let side = scale / SHARP;
        let (columns, rows) = (width / side, height / side);
        let mut coarse = Vec::with_capacity(columns * rows * 3);
        for at in 0..columns * rows * 3 {
            let (row, column, channel) = (at / 3 / columns, at / 3 % columns, at % 3);
            let pixel = |i: usize| (row * side + i / side) * width + column * side + i % side;
            let sum: usize = (0..side * side).map(|i| usize::from(fine[pixel(i) * 3 + channel])).sum();
            coarse.push(((sum + side * side / 2) / (side * side)) as u8);
        }
        encoded(columns, rows, coarse)
    }

    fn play<B: DrawingBackend>(
        &self,
        marks: &[Mark],
        mut backend: B,
        scale: f64,
        drop: f64,
        draws: Draws,
    ) -> Result<()> {
        fonts();
        // A loss that ran away lies far outside: a backend walks along a line pixel by pixel, also where nobody sees it.
        let far = 4.0 * self.size.0.max(self.size.1) * scale;
        let near = |at: f64| if at.is_nan() { 0 } else { (at * scale).clamp(-far, far).round() as i32 };
        let place = |(x, y): Point| -> (i32, i32) { (near(x), near(y)) };
        let stroke = |colour: Colour, width: f64| ShapeStyle {
            color: colour.into(),
            filled: true,
            stroke_width: (width * scale).round().max(1.0) as u32,
        };
        backend.ensure_prepared().map_err(failed)?;
        let corner = (self.size.0, self.size.1);
        if draws.paper {
            backend.draw_rect((0, 0), place(corner), &stroke(WHITE, 0.0), true).map_err(failed)?;
        }
        for mark in marks {
            match &mark.shape {
                Shape::Line { points, colour, width } => {
                    backend
                        .draw_path(points.iter().map(|point| place(*point)), &stroke(*colour, *width))
                        .map_err(failed)?;
                }
                Shape::Fill { points, colour } => {
                    backend
                        .fill_polygon(points.iter().map(|point| place(*point)), &stroke(*colour, 0.0))
                        .map_err(failed)?;
                }
                Shape::Disc { centre, radius, colour } => {
                    let radius = (radius * scale).round() as u32;
                    backend.draw_circle(place(*centre), radius, &stroke(*colour, 0.0), true).map_err(failed)?;
                }
                Shape::Picture { .. } if !draws.pictures => {}
                Shape::Note { .. } => {}
                Shape::Picture { corner, size, picture } => {
                    let ((left, top), (width, height)) = (place(*corner), place(*size));
                    let from = |at: i32, of: i32, pixels: usize| at as usize * pixels / of.max(1) as usize;
                    let pixels = (0..height * width).flat_map(|at| {
                        let row = from(at / width, height, picture.height);
                        let pixel = 3 * (row * picture.width + from(at % width, width, picture.width));
                        [0, 1, 2].map(|channel| picture.rgb[pixel + channel])
                    });
                    let pixels: Vec<u8> = pixels.collect();
                    backend.blit_bitmap((left, top), (width as u32, height as u32), &pixels).map_err(failed)?;
                }
                Shape::Text { at, text, lettering, align } => {
                    let h = match align {
                        Align::Left => HPos::Left,
                        Align::Right => HPos::Right,
                        Align::Centre | Align::Upwards => HPos::Center,
                    };
                    let turn = if *align == Align::Upwards { FontTransform::Rotate270 } else { FontTransform::None };
                    let colour = RGBAColor::from(lettering.colour);
                    let style = TextStyle::from(font(*lettering, scale).transform(turn))
                        .pos(Pos::new(h, VPos::Center))
                        .color(&colour);
                    let drop = drop * lettering.size;
                    let at = match align {
                        Align::Upwards => (at.0 + drop, at.1),
                        _ => (at.0, at.1 + drop),
                    };
                    backend.draw_text(text, &style, place(at)).map_err(failed)?;
                }
            }
        }
        backend.present().map_err(failed)
    }
}

/// RGB pixels as PNG.
fn encoded(width: usize, height: usize, rgb: Vec<u8>) -> Result<Vec<u8>> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_raw(width as u32, height as u32, rgb)
        .context("a picture has another size than its pixels")?
        .write_to(&mut bytes, image::ImageFormat::Png)
        .context("cannot encode a PNG")?;
    Ok(bytes.into_inner())
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw a plot: {error}")
}

/// Width of a text in points.
pub fn measure(text: &str, lettering: Type) -> f64 {
    fonts();
    // Measured large, because the answer is in whole pixels.
    font(lettering, 16.0).box_size(text).map_or(0.0, |(width, _)| f64::from(width) / 16.0)
}

/// The text, or as much of it as is no wider than so many points, with dots behind.
pub fn clipped(text: &str, lettering: Type, width: f64) -> String {
    if measure(text, lettering) <= width {
        return text.to_string();
    }
    let mut kept = text.to_string();
    while !kept.is_empty() && measure(&format!("{kept}…"), lettering) > width {
        kept.pop();
    }
    kept + "…"
}

/// Cuts a text into lines that are no wider than so many points.
pub fn wrap(text: &str, lettering: Type, width: f64) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("there is always a line");
        let joined = if last.is_empty() { word.to_string() } else { format!("{last} {word}") };
        if last.is_empty() || measure(&joined, lettering) <= width {
            *last = joined;
        } else {
            lines.push(word.to_string());
        }
    }
    lines
}

fn font(lettering: Type, scale: f64) -> FontDesc<'static> {
    let style = if lettering.bold { FontStyle::Bold } else { FontStyle::Normal };
    FontDesc::new(FontFamily::SansSerif, lettering.size * scale, style)
}

/// Registers the font, once.
fn fonts() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for (style, bytes) in FONT {
            let known = plotters::style::register_font("sans-serif", style, bytes());
            assert!(known.is_ok(), "the bundled font is a font");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_too_wide_end_with_dots() {
        assert_eq!(clipped("VSE++", BODY, 200.0), "VSE++");
        let cut = clipped(&"w".repeat(100), BODY, 100.0);
        assert!(cut.ends_with("w…") && measure(&cut, BODY) <= 100.0, "{cut}");
    }
}
