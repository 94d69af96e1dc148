//! Compares faces, and tells a person before a camera from a picture of one (M13).
//!
//! Nothing here is stored: pictures and embeddings live for one comparison and are overwritten after it. What remains is a verdict,
//! which a terminal's assertion carries on. A face is never the only way to be identified, and stays off until an operator has
//! [calibrated](calibrate) it on local data. It is not certified under ISO/IEC 30107-3; `docs/face.md` says what was measured and
//! what was not.

mod challenge;
mod networks;
mod picture;
mod pose;
mod settings;

pub use challenge::{CHALLENGE_MS, Challenge, FaceDesk, FaceRefusal, Frame, POSES, Verdict, Why};
pub use networks::{
    Embedding, Face, FaceModel, LivenessModel, LivenessSettings, Networks, OnnxLiveness, Pins, Point,
};
pub use picture::{PICTURE_BYTES_MAX, Picture};
pub use pose::{Measures, Pose};
pub use settings::{
    Calibration, CurvePoint, FORMAT, Photograph, Report, SettingsError, calibrate, needed_people,
};

/// The threshold before anything was calibrated: two pictures further apart are of different people.
///
/// Conservative: on the photographs of `docs/face.md` two of eleven pairs of one person lie beyond it, and the nearest pair of
/// different people at 1.9 times it. That is far too small a set to rest on, so nobody is identified with it, only compared.
pub const UNCALIBRATED_THRESHOLD: f32 = 0.40;

/// Why a picture or a network cannot be used. Says nothing of who is in it.
#[derive(Debug, thiserror::Error)]
pub enum FaceError {
    /// No picture.
    #[error("this is no JPEG or PNG of at least 64 pixels a side, at most 4 MiB and 16 megapixels")]
    Unreadable,
    /// No face.
    #[error("no face is found; it should look at the camera, upright and well lit")]
    NoFace,
    /// A network does not load or run.
    #[error("the face model cannot be used: {0}")]
    Model(String),
}

/// How two pictures compare.
pub struct Comparison {
    /// The Euclidean distance of their embeddings.
    pub distance: f32,
    /// How many faces were found in each; the largest was taken.
    pub faces: [usize; 2],
}

/// The largest face of a picture, which may lie on its side (a photograph whose turn was not written down), with the picture
/// upright, and how many faces there are.
///
/// # Errors
/// [`FaceError::NoFace`], or a network that does not run.
pub fn upright(model: &dyn FaceModel, picture: Picture) -> Result<(Picture, Face, usize), FaceError> {
    let mut picture = picture;
    for quarter in 0..4 {
        let faces = model.faces(&picture)?;
        let count = faces.len();
        let size = |f: &Face| f.area[2] * f.area[3];
        if let Some(face) = faces.into_iter().max_by(|a, b| size(a).total_cmp(&size(b))) {
            return Ok((picture, face, count));
        }
        if quarter < 3 {
            picture = picture.turned(1);
        }
    }
    Err(FaceError::NoFace)
}

/// Compares the largest faces of two pictures.
///
/// # Errors
/// Where one has no face, or a network does not run.
pub fn compare(model: &dyn FaceModel, a: Picture, b: Picture) -> Result<Comparison, FaceError> {
    let (a, face_a, count_a) = upright(model, a)?;
    let (b, face_b, count_b) = upright(model, b)?;
    let distance = model.embedding(&a, &face_a)?.distance(&model.embedding(&b, &face_b)?);
    Ok(Comparison { distance, faces: [count_a, count_b] })
}
