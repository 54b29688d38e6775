//! The figures as bars, with the spread of the runs.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Report;
use crate::error::Error;

const SIZE: (u32, u32) = (900, 420);
const BAR: RGBColor = RGBColor(214, 92, 40);

/// Draws `report` into the SVG file `path`.
pub(super) fn draw(report: &Report, path: &Path) -> Result<(), Error> {
    plot(report, path).map_err(|e| Error::Plot { path: path.to_path_buf(), reason: e.to_string() })
}

fn plot(report: &Report, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let top = report.rows.iter().map(|row| row.max).fold(1.0, f64::max) * 1.1;
    let labels: Vec<String> = report.rows.iter().map(super::Row::label).collect();
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let title = format!("{}, {}", report.model, report.device);
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(36)
        .y_label_area_size(80)
        .build_cartesian_2d(0.0..labels.len() as f64, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .max_light_lines(0)
        .x_labels(2 * labels.len() + 1)
        .x_label_formatter(&|x| {
            // a label under the middle of each bar
            let middle = (x.fract() - 0.5).abs() < 1e-6;
            labels.get(*x as usize).filter(|_| middle).cloned().unwrap_or_default()
        })
        .y_desc("tokens a second")
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()?;
    for (i, row) in report.rows.iter().enumerate() {
        let x = i as f64;
        let bar = [(x + 0.25, 0.0), (x + 0.75, row.median)];
        chart.draw_series([Rectangle::new(bar, BAR.filled())])?;
        let spread = [(x + 0.5, row.min), (x + 0.5, row.max)];
        chart.draw_series([PathElement::new(spread, BLACK.stroke_width(1))])?;
        let above =
            ("sans-serif", 15).into_font().into_text_style(&root).pos(Pos::new(HPos::Center, VPos::Bottom));
        let text = Text::new(format!("{:.0}", row.median), (x + 0.5, row.max + top * 0.01), above);
        chart.draw_series([text])?;
    }
    root.present()?;
    Ok(())
}
