//! Draws the curves of a report as SVG files. The plots are legible on light and dark pages and without colour: each
//! server has its own shade of grey and its own mark.

use std::{fs, ops::Range, path::Path};

use anyhow::{Context, Result, anyhow};
use plotters::{
    coord::{Shift, ranged1d::ValueFormatter},
    prelude::*,
};

use crate::{kind::Kind, report::Curve};

/// The fixed properties of a plot.
struct Plot {
    /// Name of the plot's curves, and of the file.
    name: &'static str,
    title: &'static str,
    /// Text of the two axes, with units.
    axes: (&'static str, &'static str),
    scale: Axis,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Axis {
    /// Both axes begin at 0.
    Linear,
    /// A logarithmic horizontal axis, and a vertical axis from 0 to 100.
    Distribution,
    /// Both axes are logarithmic.
    Powers,
}

const PLOTS: &[Plot] = &[
    Plot {
        name: "memory",
        title: "Memory of parked polls",
        axes: ("parked polls", "memory (PSS) for them, MiB"),
        scale: Axis::Linear,
    },
    Plot {
        name: "last",
        title: "From a publish to the last of its deliveries",
        axes: ("parked polls", "time, ms"),
        scale: Axis::Powers,
    },
    Plot {
        name: "touch",
        title: "From a touch to the client, beside idle polls",
        axes: ("time, µs", "deliveries within it, %"),
        scale: Axis::Distribution,
    },
    Plot {
        name: "post",
        title: "From an HTTP publish to the client, beside idle polls",
        axes: ("time, µs", "deliveries within it, %"),
        scale: Axis::Distribution,
    },
    Plot {
        name: "stream",
        title: "From a publish to each of its SSE subscribers",
        axes: ("time, µs", "deliveries within it, %"),
        scale: Axis::Distribution,
    },
];

const SIZE: (u32, u32) = (860, 440);
/// Width in pixels of the legend on the right.
const LEGEND: u32 = 200;
const FONT: &str = "sans-serif";

/// Lines with more points than this have marks at some points only.
const MANY: usize = 20;

/// Writes an SVG file for each plot that has at least one curve.
pub(crate) fn write(curves: &[Curve], dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for plot in PLOTS {
        let curves: Vec<&Curve> = curves
            .iter()
            .filter(|curve| curve.plot == plot.name)
            .collect();
        if curves.iter().any(|curve| !curve.points.is_empty()) {
            let path = dir.join(plot.name).with_extension("svg");
            let svg = plot.svg(&curves)?;
            fs::write(&path, svg).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    match curves
        .iter()
        .find(|curve| PLOTS.iter().all(|plot| plot.name != curve.plot))
    {
        Some(curve) => Err(anyhow!("nobody knows how to plot {:?}", curve.plot)),
        None => Ok(()),
    }
}

impl Plot {
    fn svg(&self, curves: &[&Curve]) -> Result<String> {
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            // The background is not transparent, because the page may be dark.
            area.fill(&WHITE)?;
            let mut builder = ChartBuilder::on(&area);
            builder
                .caption(self.title, (FONT, 20))
                .margin(12)
                .margin_right(LEGEND)
                .x_label_area_size(46)
                .y_label_area_size(68);
            let (x, y) = (
                bounds(curves, |point| point.0),
                bounds(curves, |point| point.1),
            );
            match self.scale {
                Axis::Linear => {
                    let mut chart = builder.build_cartesian_2d(from_zero(&x), from_zero(&y))?;
                    self.draw(&mut chart, curves)?;
                }
                Axis::Distribution => {
                    let mut chart =
                        builder.build_cartesian_2d(powers(&x).log_scale(), 0.0..100.0)?;
                    self.draw(&mut chart, curves)?;
                }
                Axis::Powers => {
                    let (x, y) = (powers(&x).log_scale(), powers(&y).log_scale());
                    let mut chart = builder.build_cartesian_2d(x, y)?;
                    self.draw(&mut chart, curves)?;
                }
            }
            legend(&area, curves.iter().map(|curve| curve.server))?;
            area.present()?;
        }
        Ok(svg)
    }

    fn draw<X, Y>(&self, chart: &mut Chart<'_, X, Y>, curves: &[&Curve]) -> Result<()>
    where
        X: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        chart
            .configure_mesh()
            .x_desc(self.axes.0)
            .y_desc(self.axes.1)
            .x_labels(8)
            .y_labels(6)
            .x_label_formatter(&|value| number(*value))
            .y_label_formatter(&|value| number(*value))
            .label_style((FONT, 14))
            .axis_desc_style((FONT, 15))
            .bold_line_style(BLACK.mix(0.15))
            .light_line_style(BLACK.mix(0.05))
            .draw()?;
        // Comet is the first server and is drawn last, above the others.
        for curve in curves.iter().rev() {
            let server = curve.server;
            let points = curve.points.iter().copied();
            chart.draw_series(LineSeries::new(points, line(server)))?;
            let marks = marked(&curve.points).map(|&point| {
                EmptyElement::at(point) + Polygon::new(shape(server, 0), colour(server).filled())
            });
            chart.draw_series(marks)?;
        }
        Ok(())
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, X, Y> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>;

/// Draws the legend beside the plot, where it covers no line.
fn legend(area: &Area<'_>, servers: impl Iterator<Item = Kind>) -> Result<()> {
    const LENGTH: i32 = 30;
    let left = (SIZE.0 - LEGEND) as i32 + 18;
    for (i, server) in servers.enumerate() {
        let at = (left, 60 + 24 * i as i32);
        let mark = Polygon::new(shape(server, LENGTH / 2), colour(server).filled());
        let line = PathElement::new([(0, 0), (LENGTH, 0)], line(server));
        let label = Text::new(server.label(), (LENGTH + 8, -8), (FONT, 15));
        area.draw(&(EmptyElement::at(at) + line + mark + label))?;
    }
    Ok(())
}

fn line(server: Kind) -> ShapeStyle {
    let width = if server == Kind::Comet { 3 } else { 2 };
    colour(server).stroke_width(width)
}

/// Colours from dark to light in this order, so that they differ in print without colour.
fn colour(server: Kind) -> RGBColor {
    match server {
        Kind::Comet => RGBColor(8, 48, 107),
        Kind::Nchan => RGBColor(192, 40, 30),
        Kind::Pushpin => RGBColor(35, 139, 69),
        Kind::Php => RGBColor(230, 140, 20),
        Kind::Floor => RGBColor(170, 170, 170),
    }
}

/// Corners of a server's mark in pixels. `right` moves the mark to the right.
fn shape(server: Kind, right: i32) -> Vec<(i32, i32)> {
    let corners: &[(i32, i32)] = match server {
        Kind::Comet => &[
            (-2, -5),
            (2, -5),
            (5, -2),
            (5, 2),
            (2, 5),
            (-2, 5),
            (-5, 2),
            (-5, -2),
        ],
        Kind::Nchan => &[(-4, -4), (4, -4), (4, 4), (-4, 4)],
        Kind::Pushpin => &[(0, -6), (6, 4), (-6, 4)],
        Kind::Php => &[(0, -6), (6, 0), (0, 6), (-6, 0)],
        Kind::Floor => &[(-6, -4), (6, -4), (0, 6)],
    };
    corners.iter().map(|(x, y)| (x + right, *y)).collect()
}

/// The points of a line that get a mark: all of them, or some if there are many.
fn marked(points: &[(f64, f64)]) -> impl Iterator<Item = &(f64, f64)> {
    let every = if points.len() > MANY {
        points.len() / 6
    } else {
        1
    };
    points.iter().skip(every / 2).step_by(every)
}

fn bounds(curves: &[&Curve], of: impl Fn(&(f64, f64)) -> f64) -> Range<f64> {
    let values = || curves.iter().flat_map(|curve| curve.points.iter().map(&of));
    values().fold(f64::INFINITY, f64::min)..values().fold(f64::NEG_INFINITY, f64::max)
}

/// An axis from 0 with some room above the largest value.
fn from_zero(bounds: &Range<f64>) -> Range<f64> {
    0.0..(bounds.end * 1.08).max(f64::MIN_POSITIVE)
}

/// An axis of whole powers of ten around all values above 0, with one power at least.
fn powers(bounds: &Range<f64>) -> Range<f64> {
    let start = bounds.start.max(1e-3).log10().floor();
    let end = bounds.end.max(1e-3).log10().ceil().max(start + 1.0);
    10f64.powf(start)..10f64.powf(end)
}

/// Formats a number as short as possible: `15,000`, `0.5`.
fn number(value: f64) -> String {
    if value.abs() < 10.0 {
        let text = format!("{value:.3}");
        return text.trim_end_matches('0').trim_end_matches('.').into();
    }
    let digits = format!("{value:.0}");
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .filter_map(|group| str::from_utf8(group).ok())
        .collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(plot: &'static str, server: Kind, points: &[(f64, f64)]) -> Curve {
        Curve {
            plot,
            server,
            points: points.to_vec(),
        }
    }

    #[test]
    fn each_plot_with_curves_becomes_a_file_that_names_its_servers() {
        let dir = tempfile::tempdir().unwrap();
        let curves = [
            curve("memory", Kind::Comet, &[(1000.0, 1.0), (15_000.0, 15.0)]),
            curve("memory", Kind::Nchan, &[(1000.0, 10.0), (15_000.0, 150.0)]),
            curve("touch", Kind::Comet, &[(20.0, 1.0), (300.0, 100.0)]),
        ];
        write(&curves, dir.path()).unwrap();
        let memory = fs::read_to_string(dir.path().join("memory.svg")).unwrap();
        for text in [
            "<svg",
            "Memory of parked polls",
            "(PSS)",
            "nginx + nchan",
            "15,000",
        ] {
            assert!(memory.contains(text), "{text}");
        }
        assert!(dir.path().join("touch.svg").exists());
        assert!(!dir.path().join("last.svg").exists(), "it has no curve");
    }

    #[test]
    fn a_curve_that_nobody_can_plot_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        write(&[curve("x", Kind::Comet, &[])], dir.path()).unwrap_err();
    }

    #[test]
    fn odd_values_do_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        for plot in PLOTS {
            for points in [
                &[(0.0, 0.0)][..],
                &[(5.0, 5.0)],
                &[(1e9, 1e-9), (1e-9, 1e9)],
            ] {
                write(&[curve(plot.name, Kind::Php, points)], dir.path()).unwrap();
            }
        }
    }

    #[test]
    fn numbers_are_short() {
        let numbers = [0.0, 0.5, 0.001, 3.0, 10.0, 999.6, 15_000.0, 1e6].map(number);
        let texts = [
            "0",
            "0.5",
            "0.001",
            "3",
            "10",
            "1,000",
            "15,000",
            "1,000,000",
        ];
        assert_eq!(numbers, texts);
    }

    #[test]
    fn powers_of_ten_enclose_what_is_shown() {
        assert_eq!(powers(&(20.0..300.0)), 10.0..1000.0);
        assert_eq!(powers(&(100.0..100.0)), 100.0..1000.0);
    }
}
