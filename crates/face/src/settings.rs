//! Calibration: the threshold an operator sets from pictures of people as they come to their own windows.

use crate::{FaceError, FaceModel, LivenessSettings, Picture, Pins, upright};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The version of the calibration file.
pub const FORMAT: u32 = 1;
/// One minus the confidence with which a rate is bounded.
const ALPHA: f64 = 0.05;
/// Thresholds that are tried: from 0 to 1.2 in hundredths.
const STEPS: usize = 120;
/// The most photographs of one run: their pairs are all compared.
const PHOTOGRAPHS_MAX: usize = 20_000;

/// A threshold with the error rates measured at it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CurvePoint {
    /// The largest distance that still counts as the same person.
    pub threshold: f64,
    /// The share of pairs of different people of whom any two photographs come so near.
    pub false_accept: f64,
    /// With 95 % confidence the rate of false acceptance is not above this (Clopper and Pearson 1934, one-sided).
    pub false_accept_at_most: f64,
    /// The share of pairs of photographs of one person that are further apart.
    pub false_reject: f64,
}

/// The file that turns face verification on: a threshold, what it was measured on, and for which model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// The version of this format: 1.
    pub format: u32,
    /// The model it was measured with; a node with another one does not start.
    pub model: Pins,
    /// The folder of the model's files, relative to this file's folder; the shipped ones where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_folder: Option<PathBuf>,
    /// A liveness model of the operator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness: Option<LivenessSettings>,
    /// The rate of false acceptance that was wished for.
    pub wished_false_accept: f64,
    /// The threshold with its rates.
    pub chosen: CurvePoint,
    /// How many people were compared.
    pub people: usize,
    /// How many photographs.
    pub photographs: usize,
    /// The day: `2026-11-27`.
    pub day: String,
}

/// Why a calibration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It cannot be read.
    #[error("{0}: {1}")]
    File(String, String),
    /// It is of another model.
    #[error("{0}: it was measured with another face model; run `tongban face calibrate` again")]
    OtherModel(String),
    /// Its threshold does not hold what was wished.
    #[error("{0}: its threshold does not keep the rate of false acceptance that it names")]
    Unfit(String),
}

impl Calibration {
    /// Reads a file and checks what can be checked without the model.
    ///
    /// # Errors
    /// Where it is missing, of another form, or does not hold what it promises.
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let name = path.display().to_string();
        let wrong = |e: String| SettingsError::File(name.clone(), e);
        let text = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
        let read: Self = serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))?;
        if read.format != FORMAT {
            return Err(wrong(format!("format {} is not known; this program knows {FORMAT}", read.format)));
        }
        let fit = read.chosen.threshold > 0.0
            && read.chosen.threshold <= 1.2
            && read.chosen.false_accept_at_most <= read.wished_false_accept
            && (0.0..=1.0).contains(&read.wished_false_accept);
        if fit { Ok(read) } else { Err(SettingsError::Unfit(name)) }
    }
}

/// One photograph of a calibration folder.
pub struct Photograph {
    /// Whose it is.
    pub person: String,
    /// The file.
    pub path: PathBuf,
}

impl Photograph {
    /// The photographs of a folder: `PERSON/anything.jpg`, or `PERSON_anything.jpg` without folders.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn find(folder: &Path) -> std::io::Result<Vec<Self>> {
        let is_picture = |path: &Path| {
            let end = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
            matches!(end.as_str(), "jpg" | "jpeg" | "png")
        };
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                let person = name(&path);
                for inner in std::fs::read_dir(&path)? {
                    let path = inner?.path();
                    if is_picture(&path) {
                        found.push(Self { person: person.clone(), path });
                    }
                }
            } else if is_picture(&path) {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let person = stem.split_once('_').map_or(stem.clone(), |(person, _)| person.to_owned());
                found.push(Self { person, path });
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }
}

/// What a calibration found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The rate of false acceptance that was wished for.
    pub wished_false_accept: f64,
    /// How many people were compared.
    pub people: usize,
    /// How many photographs with one face.
    pub photographs: usize,
    /// How many pairs of photographs of one person.
    pub same_pairs: usize,
    /// How many pairs of different people; the rate of false acceptance is counted over these, since the photographs of one pair of
    /// people are no independent trials.
    pub different_pairs: usize,
    /// The largest threshold that keeps the wished rate with 95 % confidence; none where there are too few people to tell.
    pub chosen: Option<CurvePoint>,
    /// How many people the wished rate takes at least.
    pub people_needed: usize,
    /// The distances of pairs of one person: smallest, median, largest.
    pub same_distances: Option<[f64; 3]>,
    /// The nearest photographs of different people, pair of people by pair: smallest, median, largest.
    pub different_distances: Option<[f64; 3]>,
    /// Photographs that were left out, with the reason.
    pub left_out: Vec<(String, String)>,
    /// Rates at every threshold.
    pub curve: Vec<CurvePoint>,
}

/// With at most this confidence missing, a rate of which `k` in `n` trials were seen is not above the answer: the `p` at which `k` or
/// fewer in `n` have the chance [`ALPHA`].
fn at_most(k: usize, n: usize) -> f64 {
    if k >= n {
        return 1.0;
    }
    // the chance of k or fewer, summed in logarithms; falls as p rises
    let chance = |p: f64| {
        let (log_p, log_q) = (p.ln(), (-p).ln_1p());
        let mut term = n as f64 * log_q;
        let mut sum = term.exp();
        for i in 0..k {
            term += ((n - i) as f64 / (i + 1) as f64).ln() + log_p - log_q;
            sum += term.exp();
        }
        sum
    };
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if chance(middle) > ALPHA { low = middle } else { high = middle }
    }
    high
}

/// How many people it takes so that no false acceptance among their pairs shows a rate.
pub fn needed_people(rate: f64) -> usize {
    let pairs = (ALPHA.ln() / (-rate).ln_1p()).ceil();
    ((1.0 + (1.0 + 8.0 * pairs).sqrt()) / 2.0).ceil() as usize
}

fn spread(sorted: &[f64]) -> Option<[f64; 3]> {
    Some([*sorted.first()?, sorted[sorted.len() / 2], *sorted.last()?])
}

/// Compares all photographs with each other. `progress` is told after each photograph how many are done.
///
/// # Errors
/// [`FaceError::Model`] where the model does not run, or there are too many photographs. One that cannot be used is left out and named.
pub fn calibrate(
    model: &dyn FaceModel,
    photographs: &[Photograph],
    wished: f64,
    mut progress: impl FnMut(usize),
) -> Result<Report, FaceError> {
    if photographs.len() > PHOTOGRAPHS_MAX {
        return Err(FaceError::Model(format!("more than {PHOTOGRAPHS_MAX} photographs in one run")));
    }
    let mut people: BTreeMap<&str, Vec<crate::Embedding>> = BTreeMap::new();
    let mut left_out = Vec::new();
    for (i, photograph) in photographs.iter().enumerate() {
        let name = photograph.path.display().to_string();
        let bytes = std::fs::read(&photograph.path).map_err(|_| FaceError::Unreadable);
        let found = bytes.and_then(|b| Picture::decode(&b)).and_then(|p| upright(model, p));
        match found {
            Ok((picture, face, 1)) => {
                let embedding = model.embedding(&picture, &face)?;
                people.entry(&photograph.person).or_default().push(embedding);
            }
            Ok((.., faces)) => {
                left_out.push((name, format!("{faces} faces; a photograph of one person is wanted")))
            }
            Err(FaceError::Model(e)) => return Err(FaceError::Model(e)),
            Err(e) => left_out.push((name, e.to_string())),
        }
        progress(i + 1);
    }
    let people: Vec<_> = people.into_values().collect();
    let (mut same, mut different) = (Vec::new(), Vec::new());
    for (i, one) in people.iter().enumerate() {
        for (j, a) in one.iter().enumerate() {
            same.extend(one[j + 1..].iter().map(|b| f64::from(a.distance(b))));
        }
        for other in &people[i + 1..] {
            let near = one.iter().flat_map(|a| other.iter().map(|b| f64::from(a.distance(b))));
            different.extend(near.min_by(f64::total_cmp));
        }
    }
    same.sort_by(f64::total_cmp);
    different.sort_by(f64::total_cmp);
    let share = |k: usize, n: usize| if n == 0 { 0.0 } else { k as f64 / n as f64 };
    let curve: Vec<_> = (0..=STEPS)
        .map(|step| {
            let threshold = step as f64 / 100.0;
            let accepted = different.partition_point(|d| *d <= threshold);
            CurvePoint {
                threshold,
                false_accept: share(accepted, different.len()),
                false_accept_at_most: at_most(accepted, different.len()),
                false_reject: share(same.len() - same.partition_point(|d| *d <= threshold), same.len()),
            }
        })
        .collect();
    let chosen = curve.iter().rev().find(|p| p.threshold > 0.0 && p.false_accept_at_most <= wished).copied();
    Ok(Report {
        wished_false_accept: wished,
        people: people.len(),
        photographs: people.iter().map(Vec::len).sum(),
        same_pairs: same.len(),
        different_pairs: different.len(),
        // no pair of one person says nothing of how many would be sent away
        chosen: chosen.filter(|_| !same.is_empty()),
        people_needed: needed_people(wished),
        same_distances: spread(&same),
        different_distances: spread(&different),
        left_out,
        curve,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_bounded_as_clopper_and_pearson_say() {
        // values of scipy.stats.beta.ppf(0.95, k + 1, n - k)
        let known = [
            (0, 300, 0.009936),
            (0, 3000, 0.000998),
            (1, 100, 0.046560),
            (5, 50, 0.198833),
            (40, 1000, 0.051753),
        ];
        for (k, n, bound) in known {
            assert!((at_most(k, n) - bound).abs() < 1e-6, "{k} of {n}: {}", at_most(k, n));
        }
        assert_eq!((at_most(3, 3), at_most(0, 0)), (1.0, 1.0));
    }

    #[test]
    fn a_small_rate_takes_many_people() {
        for rate in [0.1, 0.01, 0.001, 0.0001] {
            let people = needed_people(rate);
            let pairs = |n: usize| n * (n - 1) / 2;
            assert!(
                at_most(0, pairs(people)) <= rate && at_most(0, pairs(people - 1)) > rate,
                "{rate}: {people}"
            );
        }
    }

    #[test]
    fn a_file_that_promises_what_it_does_not_hold_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("face.json");
        let pins = Pins { detector: "1".into(), landmarks: "2".into(), embedder: "3".into() };
        let point =
            CurvePoint { threshold: 0.4, false_accept: 0.0, false_accept_at_most: 0.0009, false_reject: 0.1 };
        let good = Calibration {
            format: FORMAT,
            model: pins,
            model_folder: None,
            liveness: None,
            wished_false_accept: 0.001,
            chosen: point,
            people: 90,
            photographs: 200,
            day: "2026-11-27".into(),
        };
        let write = |c: &Calibration| std::fs::write(&path, serde_json::to_vec(c).unwrap()).unwrap();
        write(&good);
        assert_eq!(Calibration::read(&path).unwrap(), good);
        write(&Calibration { wished_false_accept: 0.0001, ..good.clone() });
        assert!(matches!(Calibration::read(&path), Err(SettingsError::Unfit(_))));
        write(&Calibration { chosen: CurvePoint { threshold: 3.0, ..point }, ..good.clone() });
        assert!(matches!(Calibration::read(&path), Err(SettingsError::Unfit(_))));
        write(&Calibration { format: 2, ..good });
        assert!(Calibration::read(&path).unwrap_err().to_string().contains("format 2"));
        std::fs::write(&path, "{}").unwrap();
        assert!(matches!(Calibration::read(&path), Err(SettingsError::File(..))));
        assert!(matches!(Calibration::read(&dir.path().join("none")), Err(SettingsError::File(..))));
    }
}
