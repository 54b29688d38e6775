//! The figures under the roof: operations a second over operations a byte, both logarithmic.

use std::path::Path;

use plotters::prelude::*;
use thermite_device::launched::bench::{Ceilings, Figure};

use crate::error::Error;

const SIZE: (u32, u32) = (900, 560);
/// Operations a byte.
const INTENSITY: std::ops::Range<f64> = 0.05..20_000.0;

/// Kernels whose names begin so are drawn alike.
const FAMILIES: &[(&str, &[&str], RGBColor)] = &[
    ("norms", &["layernorm", "rmsnorm", "residual_layernorm", "residual_rmsnorm"], RGBColor(31, 119, 180)),
    ("softmax", &["softmax"], RGBColor(148, 103, 189)),
    (
        "elementwise",
        &["gelu", "silu", "relu", "sigmoid", "swiglu", "geglu", "residual_add"],
        RGBColor(44, 160, 44),
    ),
    ("sampling", &["argmax", "draw", "topk"], RGBColor(127, 127, 127)),
    ("matrix-vector", &["matvec"], RGBColor(214, 92, 40)),
    ("attention", &["flash"], RGBColor(200, 30, 60)),
];

/// Draws the figures into the SVG file `path`.
pub(super) fn draw(device: &str, ceilings: &Ceilings, figures: &[Figure], path: &Path) -> Result<(), Error> {
    plot(device, ceilings, figures, path)
        .map_err(|e| Error::Plot { path: path.to_path_buf(), reason: e.to_string() })
}

fn plot(
    device: &str,
    ceilings: &Ceilings,
    figures: &[Figure],
    path: &Path,
) -> Result<(), Box<dyn std::error::Error>> {
    let bandwidth = ceilings.add.max(ceilings.read);
    let fastest = figures.iter().map(Figure::rate).fold(0.0, f64::max);
    let top = ceilings.product.unwrap_or(fastest).max(fastest);
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(device, ("sans-serif", 18))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d(
            INTENSITY.log_scale(),
            (INTENSITY.start * bandwidth * 0.02..top * 2.0).log_scale(),
        )?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .x_desc("operations a byte")
        .y_desc("TFLOP/s")
        .x_label_formatter(&|x| format!("{x}"))
        .y_label_formatter(&|y| format!("{}", y / 1e12))
        .draw()?;
    let roof = |x: f64| (x * bandwidth).min(top);
    let corner = top / bandwidth;
    let line = [INTENSITY.start, corner, INTENSITY.end].map(|x| (x, roof(x)));
    chart
        .draw_series(LineSeries::new(line, BLACK.stroke_width(2)))?
        .label(format!("{:.2} TB/s, {:.0} TFLOP/s", bandwidth / 1e12, top / 1e12))
        .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], BLACK.stroke_width(2)));
    for &(name, prefixes, colour) in FAMILIES {
        let of_family = |figure: &&Figure| prefixes.iter().any(|p| figure.work.kernel.starts_with(p));
        let point = |figure: &Figure| {
            let bytes = (figure.read + figure.written) as f64;
            Circle::new((figure.work.operations / bytes, figure.rate()), 4, colour.filled())
        };
        let points: Vec<_> = figures.iter().filter(of_family).map(point).collect();
        if points.is_empty() {
            continue;
        }
        chart
            .draw_series(points)?
            .label(name)
            .legend(move |(x, y)| Circle::new((x + 8, y), 4, colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .border_style(BLACK.mix(0.3))
        .background_style(WHITE.filled())
        .label_font(("sans-serif", 14))
        .draw()?;
    root.present()?;
    Ok(())
}
