//! Throughput and latencies over the load.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::Report;
use super::load::Load;
use super::stats::{Level, Percentiles};
use crate::error::Error;

const SIZE: (u32, u32) = (1080, 400);
const TITLE: u32 = 44;
const COLOURS: [RGBColor; 3] = [RGBColor(214, 92, 40), RGBColor(56, 112, 158), RGBColor(110, 110, 110)];

type Drawn = Result<(), Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws `report` into the SVG file `path`.
pub(super) fn draw(report: &Report, path: &Path) -> Result<(), Error> {
    plot(report, path).map_err(|e| Error::Plot { path: path.to_path_buf(), reason: e.to_string() })
}

fn plot(report: &Report, path: &Path) -> Drawn {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let title = format!(
        "{}: prompts of {} tokens, texts of {}",
        report.model,
        report.prompt_tokens.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "),
        report.max_tokens
    );
    root.draw_text(&title, &("sans-serif", 20).into_text_style(&root), (20, 14))?;
    let (_, below) = root.split_vertically(TITLE);
    let panels = below.split_evenly((1, 3));
    let levels = &report.levels;
    let rate = |level: &Level| Some(level.tokens_per_second);
    lines(&panels[0], levels, "tokens a second", Scale::FromZero, &[("", &rate)])?;
    latencies(&panels[1], levels, "time to the first token, ms", |level| level.first_token)?;
    latencies(&panels[2], levels, "between tokens, ms", |level| level.inter_token)?;
    root.present()?;
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Scale {
    FromZero,
    Logarithmic,
}

/// A value of a level, if it has one.
type Value<'a> = &'a dyn Fn(&Level) -> Option<f64>;

fn latencies(
    area: &Area<'_>,
    levels: &[Level],
    what: &str,
    of: impl Fn(&Level) -> Option<Percentiles>,
) -> Drawn {
    let p50 = |level: &Level| of(level).map(|p| p.p50 * 1e3);
    let p90 = |level: &Level| of(level).map(|p| p.p90 * 1e3);
    let p99 = |level: &Level| of(level).map(|p| p.p99 * 1e3);
    lines(area, levels, what, Scale::Logarithmic, &[("p50", &p50), ("p90", &p90), ("p99", &p99)])
}

/// A panel: a line for each of `series` over the loads.
fn lines(area: &Area<'_>, levels: &[Level], what: &str, scale: Scale, series: &[(&str, Value<'_>)]) -> Drawn {
    let xs = levels.iter().map(|level| level.load.value());
    let (left, right) = xs.fold((f64::MAX, f64::MIN), |(low, high), x| (low.min(x), high.max(x)));
    let ys = series.iter().flat_map(|(_, of)| levels.iter().filter_map(of));
    let (low, high) = ys.fold((f64::MAX, f64::MIN), |(low, high), y| (low.min(y), high.max(y)));
    if left > right || low > high {
        return Ok(());
    }
    let x_label = match levels.first().map(|level| level.load) {
        Some(Load::Rate(_)) => "requests a second",
        _ => "requests at a time",
    };
    let mut builder = ChartBuilder::on(area);
    builder.margin(12).caption(what, ("sans-serif", 16)).x_label_area_size(40).y_label_area_size(58);
    let x_axis = (left * 0.9..right * 1.1).log_scale().base(2.0);
    macro_rules! draw {
        ($y_axis:expr) => {{
            let mut chart = builder.build_cartesian_2d(x_axis, $y_axis)?;
            chart
                .configure_mesh()
                .max_light_lines(0)
                .x_desc(x_label)
                .x_label_formatter(&|x| number(*x))
                .y_label_formatter(&|y| number(*y))
                .draw()?;
            for ((name, of), colour) in series.iter().zip(COLOURS) {
                let points: Vec<_> =
                    levels.iter().filter_map(|level| Some((level.load.value(), of(level)?))).collect();
                let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
                let drawn = chart.draw_series(line)?;
                if !name.is_empty() {
                    drawn.label(*name).legend(move |(x, y)| {
                        PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2))
                    });
                }
                chart.draw_series(points.into_iter().map(|point| Circle::new(point, 3, colour.filled())))?;
            }
            if series.len() > 1 {
                chart
                    .configure_series_labels()
                    .position(SeriesLabelPosition::UpperLeft)
                    .background_style(WHITE.mix(0.8))
                    .draw()?;
            }
        }};
    }
    match scale {
        Scale::FromZero => draw!(0.0..high * 1.1),
        Scale::Logarithmic => draw!((low * 0.7..high * 1.5).log_scale()),
    }
    Ok(())
}

fn number(value: f64) -> String {
    match value {
        v if v >= 1000.0 && v % 1000.0 == 0.0 => format!("{:.0}k", v / 1000.0),
        v if v >= 10.0 || v.fract() == 0.0 => format!("{v:.0}"),
        v => format!("{v:.2}"),
    }
}
