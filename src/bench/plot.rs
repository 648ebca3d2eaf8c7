// SPDX-License-Identifier: MPL-2.0
//! Results as a picture: time and bus bandwidth over sizes, as SVG.
//!
//! `series` says which lines there are, `axis` where values lie; this file puts both on paper. A colour and a mark belong
//! to an algorithm of a source; marks are filled where the call is in place, and hollow where it is not.

use std::path::{Path, PathBuf};

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Results;
use super::axis::Axis;
use super::series::{Point, Series, Shown};
use crate::error::{Error, Result};
use crate::file;

/// In pixels: the picture, a panel, and a line of text below them.
const WIDTH: u32 = 1240;
const PANEL: u32 = 440;
const ROW: u32 = 22;
const MARGIN: u32 = 14;
/// A character of the legend, on average and generously, and what precedes the first.
const CHARACTER: usize = 7;
const SAMPLE: u32 = 50;

/// Seven colours that colour-blind readers tell apart too (M. Okabe and K. Ito, "Color Universal Design").
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
];

/// Corners of the marks, around a point. Five are no multiple of seven, so that 35 combinations differ.
const MARKS: [&[(i32, i32)]; 5] = [
    &[(-4, -4), (4, -4), (4, 4), (-4, 4)],
    &[(0, -6), (5, 4), (-5, 4)],
    &[(0, -6), (6, 0), (0, 6), (-6, 0)],
    &[(0, 6), (5, -4), (-5, -4)],
    &[(-2, -5), (2, -5), (5, -2), (5, 2), (2, 5), (-2, 5), (-5, 2), (-5, -2)],
];

type Paper<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A file for a picture, which is written whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plot {
    path: PathBuf,
}

impl Plot {
    /// A picture that will be written to `path`, which is tried at once: a sweep takes long.
    ///
    /// # Errors
    ///
    /// A sentence naming `path` if no file can be written there.
    pub fn at(path: &Path) -> Result<Self> {
        file::check_writable("plot", path)?;
        Ok(Plot { path: path.to_owned() })
    }

    /// Draws the results and writes the picture.
    ///
    /// # Errors
    ///
    /// Those of [`svg`], and `System` if the file cannot be written. What was there is then as it was.
    pub fn write(&self, results: &[Results]) -> Result<()> {
        file::write_whole("plot", &self.path, svg(results)?.as_bytes())
    }
}

/// The results as an SVG document of two panels, time and bus bandwidth over sizes, with a line for each algorithm and
/// mode of each source. The same results give the same text.
///
/// # Errors
///
/// `InvalidArgument` if no result has a size and a time above 0.
pub fn svg(results: &[Results]) -> Result<String> {
    let shown = Shown::of(results)?;
    let mut text = String::new();
    draw(&shown, &mut text).map_err(|error| Error::system("drawing a plot", error))?;
    Ok(text)
}

fn draw(shown: &Shown, text: &mut String) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let longest = shown.series.iter().map(|series| series.name.chars().count()).max().unwrap_or(0);
    let columns = (WIDTH as usize / (SAMPLE as usize + CHARACTER * longest)).clamp(1, 4);
    // Down the columns, an even number in each, so that the modes of an algorithm stand together.
    let rows = shown.series.len().div_ceil(columns).next_multiple_of(2) as u32;
    let head = MARGIN + 2 * ROW + ROW * shown.machines.len() as u32;
    let size = (WIDTH, head + PANEL + MARGIN + rows * ROW + MARGIN);

    let paper = SVGBackend::with_string(text, size).into_drawing_area();
    paper.fill(&WHITE)?;
    let left = MARGIN as i32;
    write(&paper, &shown.title, (left, MARGIN as i32), 22.0)?;
    for (row, machine) in (1..).zip(&shown.machines) {
        write(&paper, machine, (left, (MARGIN / 2 + row * ROW + ROW / 2) as i32), 15.0)?;
    }

    let points = || shown.series.iter().flat_map(|series| &series.points);
    let sizes = Axis::sizes(points().map(|point| point.bytes));
    let times = Axis::times(points().map(|point| point.time));
    let bandwidths = Axis::bandwidths(points().map(|point| point.busbw));
    let (_, below) = paper.split_vertically(head);
    let (panels, legend) = below.split_vertically(PANEL);
    let (time, bandwidth) = panels.split_horizontally(WIDTH / 2);
    panel(&time, &sizes, &times, shown, |point| point.time.log10())?;
    panel(&bandwidth, &sizes, &bandwidths, shown, |point| point.busbw)?;

    let width = WIDTH / columns as u32;
    for (index, series) in (0..).zip(&shown.series) {
        let (x, y) = ((MARGIN + index / rows * width) as i32, (MARGIN + index % rows * ROW + ROW / 2) as i32);
        line(&legend, series, &[(x, y), (x + 14, y), (x + 28, y)], 1)?;
        write(&legend, &series.name, (x + 36, y - 7), 15.0)?;
    }
    paper.present()?;
    Ok(())
}

/// One panel: axes, and a line for each series.
fn panel(
    paper: &Paper<'_>,
    sizes: &Axis,
    values: &Axis,
    shown: &Shown,
    value: impl Fn(&Point) -> f64,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut chart = ChartBuilder::on(paper)
        .margin(MARGIN)
        .margin_right(2 * MARGIN)
        .x_label_area_size(2 * ROW)
        .y_label_area_size(3 * ROW)
        .build_cartesian_2d(sizes, values)?;
    chart
        .configure_mesh()
        .x_desc(sizes.name)
        .y_desc(values.name)
        .label_style(("sans-serif", 15))
        .axis_desc_style(("sans-serif", 16))
        .bold_line_style(BLACK.mix(0.15))
        .draw()?;
    let (left, top) = paper.get_base_pixel();
    for series in &shown.series {
        let place = |point: &Point| {
            let (x, y) = chart.backend_coord(&((point.bytes as f64).log2(), value(point)));
            (x - left, y - top)
        };
        let places: Vec<(i32, i32)> = series.points.iter().map(place).collect();
        line(paper, series, &places, places.len())?;
    }
    Ok(())
}

/// The line of a series through these places, with `marks` marks: on all of them, or on the middle one.
fn line(
    paper: &Paper<'_>,
    series: &Series,
    places: &[(i32, i32)],
    marks: usize,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let colour = COLOURS[series.kind % COLOURS.len()];
    let corners = MARKS[series.kind % MARKS.len()];
    paper.draw(&PathElement::new(places.to_vec(), colour.stroke_width(if series.in_place { 2 } else { 1 })))?;
    let first = (places.len() - marks) / 2;
    for (x, y) in &places[first..first + marks] {
        let mut outline: Vec<_> = corners.iter().map(|(right, down)| (x + right, y + down)).collect();
        let inside = if series.in_place { colour } else { WHITE };
        paper.draw(&Polygon::new(outline.clone(), inside.filled()))?;
        outline.extend(outline.first().copied());
        paper.draw(&PathElement::new(outline, colour.stroke_width(1)))?;
    }
    Ok(())
}

/// Text with its upper left corner there. What XML cannot hold, as a file's name can, is a replacement character.
fn write(
    paper: &Paper<'_>,
    text: &str,
    at: (i32, i32),
    size: f64,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let allowed = |c: char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}');
    let text: String = text.chars().map(|c| if allowed(c) { c } else { char::REPLACEMENT_CHARACTER }).collect();
    let style = TextStyle::from(("sans-serif", size)).color(&BLACK).pos(Pos::new(HPos::Left, VPos::Top));
    paper.draw(&Text::new(text, at, style))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::measurement::example;
    use super::super::{Machine, Measurement};
    use super::*;

    fn sweep(asked: &str, in_place: bool) -> impl Iterator<Item = Measurement> {
        let asked = asked.to_owned();
        (3..27).map(move |power| {
            let bytes = 1 << power;
            Measurement { asked: asked.clone(), in_place, bytes, time_us: 0.2 + bytes as f64 / 2e4, ..example() }
        })
    }

    fn results(file: Option<&str>, algorithms: &[&str]) -> Results {
        let measurements = algorithms.iter().flat_map(|name| [false, true].map(|mode| sweep(name, mode))).flatten();
        Results { file: file.map(str::to_owned), measurements: measurements.collect(), ..Results::on(Machine::this()) }
    }

    /// The texts of a document, once every tag of it has been seen to close, in order, and every `&` to be an entity.
    fn texts(svg: &str) -> Vec<String> {
        let (mut open, mut texts) = (Vec::new(), Vec::new());
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        for part in svg.split('<').skip(1) {
            let (tag, text) = part.split_once('>').expect(part);
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            for (at, _) in part.match_indices('&') {
                let entity = part[at + 1..].split(';').next().unwrap();
                assert!(["lt", "gt", "amp", "quot", "apos"].contains(&entity), "{part}");
            }
            let name = tag.split([' ', '/']).next().unwrap();
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name));
            } else if !tag.ends_with('/') {
                open.push(name);
            }
            if !text.trim().is_empty() {
                assert_eq!(open.last(), Some(&"text"), "{text}");
                texts.push(text.trim().to_owned());
            }
        }
        assert!(open.is_empty(), "{open:?}");
        texts
    }

    #[test]
    fn every_line_has_its_name_and_every_axis_its_labels() {
        let all = [results(None, &["auto", "ring"]), results(Some("a.jsonl"), &["auto"])];
        let svg = svg(&all).unwrap();
        let texts = texts(&svg);
        for expected in [
            "all_reduce, 4 ranks, threads, plain memory, f32, sum",
            "auto, out of place",
            "auto, in place",
            "ring, out of place",
            "ring, in place",
            "a.jsonl: auto, out of place",
            "a.jsonl: auto, in place",
            "size (bytes)",
            "time (us)",
            "bus bandwidth (GB/s)",
            "8",
            "64",
            "4 Ki",
            "16 Mi",
            "1000",
            &Machine::this().to_string(),
        ] {
            assert!(texts.iter().any(|text| text == expected), "{expected}: {texts:?}");
        }
        // Each line in both panels and in the legend, in three colours.
        let of_colour = |colour: &str| svg.matches(&format!("stroke=\"{colour}\" stroke-width=\"2\"")).count();
        assert_eq!(["#0072B2", "#D55E00", "#009E73"].map(of_colour), [3, 3, 3]);
    }

    #[test]
    fn the_same_results_give_the_same_picture() {
        let all = [results(None, &["direct"]), results(Some("b"), &["staged"])];
        assert_eq!(svg(&all), svg(&all.clone()));
    }

    #[test]
    fn any_file_name_and_any_number_of_lines_can_be_drawn() {
        let names: Vec<String> = (0..50).map(|index| format!("algorithm{index}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let many = texts(&svg(&[results(Some("<a> & \"b\"\u{1}\u{ffff}\n"), &names)]).unwrap());
        let expected = "&lt;a&gt; &amp; &quot;b&quot;\u{fffd}\u{fffd}\u{fffd}: algorithm49, in place";
        assert!(many.iter().any(|text| text == expected), "{many:?}");
        let long = results(Some(&"long/".repeat(100)), &["auto"]);
        let one = Results { measurements: long.measurements[..1].to_vec(), ..long };
        texts(&svg(&[one]).unwrap());
    }

    #[test]
    fn extremes_are_drawn_and_nothing_is_refused() {
        let measured = |bytes, time_us| Measurement { bytes, time_us, ranks: 2, ..example() };
        let far = [measured(1, f64::MAX), measured(usize::MAX, 1e-200), measured(1, 1e-300)];
        texts(&svg(&[Results { measurements: far.to_vec(), ..Results::on(Machine::this()) }]).unwrap());
        for nothing in [&[][..], &[Results::on(Machine::this())]] {
            assert!(matches!(svg(nothing), Err(Error::InvalidArgument(_))));
        }
    }
}
