//! Charts and maps as SVG, with the numbers beside them.

use super::plan::{ChartKind, Entry, Role};
use crate::lookup::text;
use arrow::array::{Array as _, RecordBatch};
use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 48.0;
/// Bars, points of a line, and points of a map or scatter, at most.
const BARS: usize = 24;
const POINTS: usize = 2000;

/// A drawing and its numbers.
pub struct Drawing {
    /// The SVG.
    pub svg: String,
    /// The numbers: label and value.
    pub numbers: Vec<(String, String)>,
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn short(n: f64) -> String {
    let size = n.abs();
    if size >= 1e9 {
        format!("{:.1}G", n / 1e9)
    } else if size >= 1e6 {
        format!("{:.1}M", n / 1e6)
    } else if size >= 1e4 {
        format!("{:.0}k", n / 1e3)
    } else if size >= 100.0 || n.fract() == 0.0 {
        format!("{n:.0}")
    } else {
        format!("{n:.2}")
    }
}

/// Pairs of label and number.
fn pairs(rows: &[RecordBatch], x: &str, y: &str) -> Vec<(String, f64)> {
    let mut pairs = Vec::new();
    for batch in rows {
        let (Some(xs), Some(ys)) = (batch.column_by_name(x), batch.column_by_name(y)) else { continue };
        for row in 0..batch.num_rows() {
            if xs.is_null(row) || ys.is_null(row) {
                continue;
            }
            if let Ok(n) = text(ys, row).parse::<f64>() {
                pairs.push((text(xs, row), n));
            }
        }
    }
    pairs
}

/// As many of a list as there is room for, evenly.
fn thinned<T: Clone>(list: Vec<T>, most: usize) -> Vec<T> {
    if list.len() <= most {
        return list;
    }
    (0..most).map(|at| list[at * list.len() / most].clone()).collect()
}

struct Frame {
    out: String,
    low: f64,
    high: f64,
}

impl Frame {
    fn new(label: &str, low: f64, high: f64) -> Self {
        let (low, high) = if low < high { (low, high) } else { (low - 1.0, high + 1.0) };
        let mut out = format!(
            "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escaped(label)
        );
        for at in 0..=4 {
            let value = low + (high - low) * f64::from(at) / 4.0;
            let y = (HEIGHT - BOTTOM) - (HEIGHT - BOTTOM - 12.0) * f64::from(at) / 4.0;
            let _ = write!(
                out,
                "<line class=\"rule\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
            );
            let _ = write!(
                out,
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                short(value)
            );
        }
        Self { out, low, high }
    }

    fn y(&self, value: f64) -> f64 {
        (HEIGHT - BOTTOM) - (value - self.low) / (self.high - self.low) * (HEIGHT - BOTTOM - 12.0)
    }

    fn label(&mut self, x: f64, text: &str) {
        let shortened: String = text.chars().take(12).collect();
        let _ = write!(
            self.out,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            HEIGHT - BOTTOM + 18.0,
            escaped(&shortened)
        );
    }

    fn end(mut self) -> String {
        self.out += "</svg>";
        self.out
    }
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)))
}

/// The declared chart of a publication; none where there is nothing to draw.
pub fn chart(entry: &Entry, rows: &[RecordBatch], label: &str) -> Option<Drawing> {
    let declared = entry.plan.chart.as_ref()?;
    let mut pairs = pairs(rows, declared.x.as_str(), declared.y.as_str());
    if pairs.is_empty() {
        return None;
    }
    let room = WIDTH - LEFT - 16.0;
    match declared.kind {
        ChartKind::Bar => {
            let mut means: Vec<(String, f64, f64)> = Vec::new();
            for (x, y) in pairs {
                match means.iter().position(|(name, ..)| *name == x) {
                    Some(at) => (means[at].1, means[at].2) = (means[at].1 + y, means[at].2 + 1.0),
                    None if means.len() < BARS => means.push((x, y, 1.0)),
                    None => {}
                }
            }
            let bars: Vec<(String, f64)> = means.into_iter().map(|(x, sum, n)| (x, sum / n)).collect();
            let (low, high) = bounds(bars.iter().map(|b| b.1));
            let mut frame = Frame::new(label, low.min(0.0), high.max(0.0));
            let step = room / bars.len() as f64;
            for (at, (x, y)) in bars.iter().enumerate() {
                let left = LEFT + 8.0 + step * at as f64;
                let (top, base) = (frame.y(y.max(0.0)), frame.y(y.min(0.0)));
                let _ = write!(
                    frame.out,
                    "<rect class=\"bar\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                    step * 0.7,
                    (base - top).max(1.0)
                );
                if bars.len() <= 12 || at % 2 == 0 {
                    frame.label(left + step * 0.35, x);
                }
            }
            let numbers = bars.into_iter().map(|(x, y)| (x, short(y))).collect();
            Some(Drawing { svg: frame.end(), numbers })
        }
        ChartKind::Line => {
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            let points = thinned(pairs, POINTS / 4);
            let (low, high) = bounds(points.iter().map(|p| p.1));
            let mut frame = Frame::new(label, low, high);
            let mut path = String::new();
            for (at, (_, y)) in points.iter().enumerate() {
                let x = LEFT + 8.0 + room * at as f64 / (points.len() - 1).max(1) as f64;
                let _ = write!(path, "{}{x:.1} {:.1}", if at == 0 { "M" } else { "L" }, frame.y(*y));
            }
            let _ = write!(frame.out, "<path class=\"line\" d=\"{path}\"/>");
            for at in 0..5 {
                let point = &points[(points.len() - 1) * at / 4];
                frame.label(LEFT + 32.0 + (room - 64.0) * at as f64 / 4.0, &point.0);
            }
            let numbers = thinned(points, BARS).into_iter().map(|(x, y)| (x, short(y))).collect();
            Some(Drawing { svg: frame.end(), numbers })
        }
        ChartKind::Scatter => {
            let points: Vec<(f64, f64)> =
                pairs.iter().filter_map(|(x, y)| Some((x.parse().ok()?, *y))).collect();
            let points = thinned(points, POINTS);
            let ((left, right), (low, high)) =
                (bounds(points.iter().map(|p| p.0)), bounds(points.iter().map(|p| p.1)));
            let width = if right > left { right - left } else { 1.0 };
            let mut frame = Frame::new(label, low, high);
            for (x, y) in &points {
                let x = LEFT + 12.0 + (x - left) / width * (room - 8.0);
                let _ = write!(
                    frame.out,
                    "<circle class=\"point\" cx=\"{x:.1}\" cy=\"{:.1}\" r=\"3\"/>",
                    frame.y(*y)
                );
            }
            for at in 0..5 {
                let share = f64::from(at) / 4.0;
                frame.label(LEFT + 12.0 + share * (room - 30.0) + 8.0, &short(left + width * share));
            }
            let numbers = thinned(points, BARS).into_iter().map(|(x, y)| (short(x), short(y))).collect();
            Some(Drawing { svg: frame.end(), numbers })
        }
    }
}

/// Rows as points by longitude and latitude; none where the publication has none.
pub fn map(entry: &Entry, rows: &[RecordBatch], label: &str) -> Option<Drawing> {
    let of = |role: Role| entry.plan.columns.iter().find(|c| c.role == role).map(|c| c.id.as_str());
    let (latitude, longitude) = (of(Role::Latitude)?, of(Role::Longitude)?);
    let points: Vec<(f64, f64)> = pairs(rows, longitude, latitude)
        .into_iter()
        .filter_map(|(x, y)| Some((x.parse().ok()?, y)))
        .collect();
    let points: Vec<(f64, f64)> = points
        .into_iter()
        .filter(|(x, y)| (-180.0..=180.0).contains(x) && (-90.0..=90.0).contains(y))
        .collect();
    if points.is_empty() {
        return None;
    }
    let points = thinned(points, POINTS);
    let ((west, east), (south, north)) =
        (bounds(points.iter().map(|p| p.0)), bounds(points.iter().map(|p| p.1)));
    // degrees of longitude are shorter the further north
    let squeeze = ((south + north) / 2.0).to_radians().cos().max(0.1);
    let (across, up) = (((east - west) * squeeze).max(0.01), (north - south).max(0.01));
    let height = (WIDTH * up / across).clamp(160.0, 480.0);
    let scale = ((WIDTH - 32.0) / across).min((height - 32.0) / up);
    let mut svg = format!(
        "<svg class=\"map\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{}\">",
        escaped(label)
    );
    let _ = write!(svg, "<rect class=\"sea\" width=\"{WIDTH}\" height=\"{height:.0}\"/>");
    for (x, y) in &points {
        let cx = WIDTH / 2.0 + (x - (west + east) / 2.0) * squeeze * scale;
        let cy = height / 2.0 - (y - (south + north) / 2.0) * scale;
        let _ = write!(svg, "<circle class=\"point\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"2\"/>");
    }
    svg += "</svg>";
    Some(Drawing { svg, numbers: vec![] })
}
