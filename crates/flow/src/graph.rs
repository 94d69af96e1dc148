//! A matter's graph as a picture (SVG): what comes after what, who does it, and where nothing goes back.

use crate::package::{Package, Step, StepKind};
use model::{DepartmentId, Language, StepId};
use std::{collections::BTreeMap, fmt::Write as _};

/// A box, and the room between boxes, in pixels.
const WIDTH: usize = 168;
const HEIGHT: usize = 46;
const GAP_X: usize = 44;
const GAP_Y: usize = 12;
const MARGIN: usize = 16;

/// Draws a package; `states` are the words of [`crate::simulate::status`] by step, for a run that is shown in it, and `name` says
/// what people call a department. Of a repeated role only the first is drawn, and those that a run took.
pub fn svg(
    package: &Package,
    language: Language,
    states: &BTreeMap<StepId, &'static str>,
    name: &dyn Fn(&DepartmentId) -> String,
) -> String {
    let taken = |s: &Step| states.get(&s.id).is_some_and(|state| *state != "skipped");
    let whole = |s: &Step| s.undoes.is_none() && s.of.as_ref().is_none_or(|of| *of == s.id);
    let drawn = |s: &&Step| whole(s) || taken(s);
    let steps: Vec<_> = package.steps.iter().filter(drawn).collect();
    let mut ranks: BTreeMap<&StepId, usize> = BTreeMap::new();
    let mut columns: Vec<Vec<&Step>> = Vec::new();
    for step in &steps {
        let rank = step.after.iter().map(|b| ranks.get(b).map_or(0, |r| r + 1)).max().unwrap_or(0);
        ranks.insert(&step.id, rank);
        columns.resize(columns.len().max(rank + 1), Vec::new());
        columns[rank].push(step);
    }
    let tallest = columns.iter().map(Vec::len).max().unwrap_or(0);
    let (width, height) = (
        2 * MARGIN + columns.len() * (WIDTH + GAP_X) - GAP_X.min(columns.len() * GAP_X),
        2 * MARGIN + tallest * (HEIGHT + GAP_Y),
    );
    let mut at: BTreeMap<&StepId, (usize, usize)> = BTreeMap::new();
    for (x, column) in columns.iter().enumerate() {
        let above = (tallest - column.len()) * (HEIGHT + GAP_Y) / 2;
        for (y, step) in column.iter().enumerate() {
            at.insert(&step.id, (MARGIN + x * (WIDTH + GAP_X), MARGIN + above + y * (HEIGHT + GAP_Y)));
        }
    }
    let title = escape(package.title.get(language));
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\" lang=\"{}\"><title>{title}</title><style>{STYLE}</style>\n",
        language.tag()
    );
    for step in &steps {
        let (x, y) = at[&step.id];
        for (from_x, from_y) in step.after.iter().filter_map(|b| at.get(b)) {
            let (x1, y1, y2) = (from_x + WIDTH, from_y + HEIGHT / 2, y + HEIGHT / 2);
            let bend = GAP_X / 2;
            let _ = writeln!(
                out,
                "<path class=\"edge\" d=\"M{x1} {y1}C{} {y1} {} {y2} {x} {y2}\"/>",
                x1 + bend,
                x - bend
            );
        }
    }
    for step in &steps {
        let (x, y) = at[&step.id];
        let state = states.get(&step.id).copied().unwrap_or("");
        let pivot = if step.pivot { " pivot" } else { "" };
        let who = step.holder.as_ref().or(step.performer.as_ref()).unwrap_or(&package.handler);
        let who = escape(&short(&name(who), 24));
        let title = step.title.get(language);
        let _ = writeln!(
            out,
            "<g class=\"{} {state}{pivot}\"><title>{} · {who} · {}</title><rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" rx=\"6\"/><text x=\"{}\" y=\"{}\">{}</text><text class=\"who\" x=\"{}\" y=\"{}\">{} {who}</text></g>",
            step.kind.as_str(),
            escape(title),
            step.kind.as_str(),
            x + 10,
            y + 19,
            escape(&short(title, 22)),
            x + 10,
            y + 36,
            mark(step.kind),
        );
    }
    out.push_str("</svg>\n");
    out
}

const STYLE: &str = "rect{fill:#fff;stroke:#5b6b7a;stroke-width:1.2}text{font:13px system-ui,sans-serif;fill:#16202a}\
    .who{font-size:11px;fill:#51606e}.edge{fill:none;stroke:#9aa7b3}.pivot rect{stroke:#8a4b00;stroke-width:3}\
    .sign rect{fill:#eef6ff}.decide rect{fill:#fff8e6}.act rect{fill:#eefaf0}.failed rect{fill:#fdecec;stroke:#a61b1b}\
    .done rect{stroke:#1c7a3c}.skipped{opacity:.45}.not_started rect{stroke-dasharray:4 3}";

/// A letter for what a step is, so that colour is not the only way to tell.
fn mark(kind: StepKind) -> char {
    match kind {
        StepKind::Identify => '☺',
        StepKind::Sign => '✍',
        StepKind::Call => '?',
        StepKind::Decide => '◇',
        StepKind::Act => '✓',
    }
}

/// A name that fits into the room of so many letters: a Chinese character takes that of two.
fn short(name: &str, mut room: usize) -> String {
    let mut out = String::new();
    for c in name.chars() {
        let takes = if c.is_ascii() { 1 } else { 2 };
        if room < takes {
            out.push('…');
            break;
        }
        room -= takes;
        out.push(c);
    }
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
