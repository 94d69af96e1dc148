//! `tongban face`: thresholds on local data, and one comparison.

use crate::say;
use ::face::{
    Calibration, FORMAT, FaceModel, Networks, Photograph, Picture, Report, UNCALIBRATED_THRESHOLD, calibrate,
    compare,
};
use anyhow::{Context as _, Result, bail, ensure};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use model::Day;
use serde_json::json;
use std::path::{Path, PathBuf};

/// What `tongban face` can do.
#[derive(Subcommand)]
pub enum FaceCommand {
    /// Draw the curve of false acceptance and false rejection from labelled photographs, and set the threshold for a wished rate.
    ///
    /// The folder holds one folder for each person, or files named PERSON_anything.jpg. Nothing of a photograph is kept. A rate of one in
    /// a thousand takes 78 people at least; the more of them are like those who come to your windows, the more it says.
    ///
    /// Examples: tongban face calibrate photographs --out nodes/bureau/face.json
    ///           tongban face calibrate photographs --false-accept 0.01 --json
    Calibrate {
        /// The folder of photographs.
        folder: PathBuf,
        /// The rate of false acceptance that may not be exceeded, with 95 % confidence.
        #[arg(long, default_value_t = 0.001)]
        false_accept: f64,
        /// The calibration file to write, for `face` in node.toml; nothing is written without it.
        #[arg(long)]
        out: Option<PathBuf>,
        /// A folder with detector.onnx, landmarks.onnx and embedder.onnx, instead of the shipped model.
        #[arg(long)]
        models: Option<PathBuf>,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Compare the faces of two photographs.
    ///
    /// Example: tongban face compare document.jpg window.jpg
    Compare {
        /// A photograph.
        a: PathBuf,
        /// Another.
        b: PathBuf,
        /// The calibration file whose threshold and model decide; without it the conservative one of docs/face.md.
        #[arg(long)]
        calibration: Option<PathBuf>,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
}

impl FaceCommand {
    /// Whether one JSON document is wanted.
    pub fn json(&self) -> bool {
        let (Self::Calibrate { json, .. } | Self::Compare { json, .. }) = self;
        *json
    }
}

fn networks(folder: Option<&Path>) -> Result<Networks> {
    Ok(match folder {
        Some(folder) => Networks::read(folder)?,
        None => Networks::shipped()?,
    })
}

fn read(path: &Path) -> Result<Picture> {
    let name = path.display();
    let bytes = std::fs::read(path).with_context(|| format!("{name}"))?;
    Picture::decode(&bytes).with_context(|| format!("{name}"))
}

/// Runs a command.
///
/// # Errors
/// Where a file cannot be read, has no face, or the photographs do not bear the wished rate.
pub fn run(command: FaceCommand) -> Result<()> {
    match command {
        FaceCommand::Compare { a, b, calibration, json } => compared(&a, &b, calibration.as_deref(), json),
        FaceCommand::Calibrate { folder, false_accept, out, models, json } => {
            calibrated(&folder, false_accept, out.as_deref(), models, json)
        }
    }
}

fn compared(a: &Path, b: &Path, calibration: Option<&Path>, json: bool) -> Result<()> {
    let (model, threshold) = match calibration {
        None => (networks(None)?, f64::from(UNCALIBRATED_THRESHOLD)),
        Some(path) => {
            let read = Calibration::read(path)?;
            let folder = path.parent().unwrap_or(Path::new("."));
            let model = networks(read.model_folder.as_ref().map(|f| folder.join(f)).as_deref())?;
            ensure!(
                model.pins() == read.model,
                "{}: it was measured with another face model",
                path.display()
            );
            (model, read.chosen.threshold)
        }
    };
    let (read_a, read_b) = (read(a)?, read(b)?);
    let found = compare(&model, read_a, read_b)?;
    let distance = f64::from(found.distance);
    let decision = if distance <= threshold { "same" } else { "different" };
    // to the digits that mean something, and the threshold as it is written elsewhere
    let rounded = |x: f64| (x * 10_000.0).round() / 10_000.0;
    if json {
        let body = json!({
            "distance": rounded(distance),
            "threshold": rounded(threshold),
            "decision": decision,
            "calibrated": calibration.is_some(),
            "faces": found.faces,
        });
        say!("{body}");
        return Ok(());
    }
    let people = if decision == "same" { "one person" } else { "two different people" };
    say!("distance {distance:.3}, threshold {threshold:.3}: {people}");
    for (path, count) in [(a, found.faces[0]), (b, found.faces[1])] {
        if count > 1 {
            eprintln!("{}: {count} faces; the largest was compared", path.display());
        }
    }
    if calibration.is_none() {
        eprintln!(
            "the threshold is not calibrated: `tongban face calibrate` sets it for the people who come to your windows"
        );
    }
    Ok(())
}

fn told(report: &Report) {
    say!(
        "{} people, {} photographs: {} pairs of one person, {} pairs of different people",
        report.people,
        report.photographs,
        report.same_pairs,
        report.different_pairs
    );
    let spread = |name: &str, distances: Option<[f64; 3]>| match distances {
        Some([least, median, most]) => say!("{name}: {least:.3} to {most:.3}, median {median:.3}"),
        None => say!("{name}: none"),
    };
    spread("distances of one person   ", report.same_distances);
    spread("nearest of different people", report.different_distances);
    say!("\nthreshold  false accept  (at most)  false reject");
    for point in report.curve.iter().filter(|p| (0.2..=0.9).contains(&p.threshold)).step_by(5) {
        say!(
            "{:9.2}  {:10.2} %  {:7.2} %  {:10.2} %",
            point.threshold,
            point.false_accept * 100.0,
            point.false_accept_at_most * 100.0,
            point.false_reject * 100.0
        );
    }
    for (path, why) in &report.left_out {
        eprintln!("left out: {path}: {why}");
    }
    match report.chosen {
        Some(chosen) => say!(
            "\nthreshold {:.2}: with 95 % confidence at most {:.3} % of pairs of strangers are taken for one another; \
             {:.2} % of pairs of one person are told apart",
            chosen.threshold,
            chosen.false_accept_at_most * 100.0,
            chosen.false_reject * 100.0
        ),
        None => say!(
            "\nno threshold keeps {} % with 95 % confidence on these photographs: it takes at least {} people, some with \
             two photographs",
            report.wished_false_accept * 100.0,
            report.people_needed
        ),
    }
}

fn calibrated(
    folder: &Path,
    wished: f64,
    out: Option<&Path>,
    models: Option<PathBuf>,
    json: bool,
) -> Result<()> {
    ensure!(wished > 0.0 && wished < 1.0, "--false-accept is a rate between 0 and 1, such as 0.001");
    let model = networks(models.as_deref())?;
    let found = Photograph::find(folder).with_context(|| format!("{}", folder.display()))?;
    ensure!(
        !found.is_empty(),
        "{}: no photographs; expected PERSON/anything.jpg or PERSON_anything.jpg",
        folder.display()
    );
    let bar = match json {
        true => ProgressBar::hidden(),
        false => ProgressBar::new(found.len() as u64).with_style(
            ProgressStyle::with_template("{bar:30} {pos}/{len} photographs {eta}").expect("a valid template"),
        ),
    };
    let report = calibrate(&model, &found, wished, |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    if json {
        say!("{}", serde_json::to_string(&report)?);
    } else {
        told(&report);
    }
    let Some(out) = out else { return Ok(()) };
    let Some(chosen) = report.chosen else {
        bail!(
            "nothing was written: these photographs do not show a rate of {wished}; take at least {} people, or wish for less",
            report.people_needed
        );
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let calibration = Calibration {
        format: FORMAT,
        model: model.pins(),
        model_folder: models.map(std::path::absolute).transpose()?,
        liveness: None,
        wished_false_accept: wished,
        chosen,
        people: report.people,
        photographs: report.photographs,
        day: Day::of(now.as_millis() as u64).to_string(),
    };
    let mut text = serde_json::to_string_pretty(&calibration)?;
    text.push('\n');
    std::fs::write(out, text).with_context(|| format!("{}", out.display()))?;
    if !json {
        say!("written to {}; name it as `face` in node.toml", out.display());
    }
    Ok(())
}
