//! The networks: where faces are, their landmarks, and where a face lies among all faces.
//!
//! After tinyFaceDetector (YOLO v2 with separable convolutions), a 68-point landmark network (dense blocks), and dlib's face
//! recognition network (a ResNet with 29 convolutions), as npm's `@vladmandic/face-api` ships them; `models/face/README.md`
//! has their licence and provenance.

use crate::{
    FaceError,
    picture::{Picture, Similarity},
};
use model::{Digest, Suite};
use rten::{Model, RunOptions, ThreadPool};
use rten_tensor::{AsView as _, NdTensor};
use serde::{Deserialize, Serialize};
use std::{path::Path, sync::Arc};
use zeroize::Zeroize;

/// A point in a picture, in pixels from its upper left corner.
pub type Point = (f32, f32);

/// A face in a picture.
#[derive(Clone, Debug)]
pub struct Face {
    /// How sure the detector is, 0 to 1.
    pub score: f32,
    /// Left edge, top edge, width and height, in pixels; may reach over the picture's edge.
    pub area: [f32; 4],
    /// 68 landmarks in the order of iBUG 300-W: jaw 0–16, brows 17–26, nose 27–35, eyes 36–47, mouth 48–67.
    pub landmarks: Vec<Point>,
}

/// Where a face lies: 128 numbers. The Euclidean distance of two says how unlike they are. Wiped when dropped.
pub struct Embedding(Vec<f32>);

impl Embedding {
    /// The distance to another.
    pub fn distance(&self, other: &Self) -> f32 {
        self.0.iter().zip(&other.0).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt()
    }
}

impl Drop for Embedding {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Which files a model was made of: SHA-256 of each, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pins {
    /// The detector.
    pub detector: String,
    /// The landmark network.
    pub landmarks: String,
    /// The embedding network.
    pub embedder: String,
}

/// What finds faces and places them. Swappable; a threshold is only good for the model it was measured with.
pub trait FaceModel: Send + Sync {
    /// The faces in a picture, the surest first.
    ///
    /// # Errors
    /// [`FaceError::Model`] where a network does not run.
    fn faces(&self, picture: &Picture) -> Result<Vec<Face>, FaceError>;

    /// Where a face of a picture lies.
    ///
    /// # Errors
    /// [`FaceError::Model`] where the network does not run.
    fn embedding(&self, picture: &Picture, face: &Face) -> Result<Embedding, FaceError>;

    /// The files it was made of.
    fn pins(&self) -> Pins;
}

/// What tells a live face from a print or a screen in one picture. None is shipped: an operator who has one names it.
pub trait LivenessModel: Send + Sync {
    /// How live a face looks; more is more.
    ///
    /// # Errors
    /// [`FaceError::Model`] where the network does not run.
    fn score(&self, picture: &Picture, face: &Face) -> Result<f32, FaceError>;
}

/// One network in a file of ONNX: a picture `[1, 3, size, size]` in, numbers out.
struct Network {
    model: Model,
    size: usize,
    options: RunOptions,
    pin: String,
}

fn pin(bytes: &[u8]) -> String {
    let Digest(hash) = crypto::digest(Suite::International, &[bytes]);
    hex::encode(hash)
}

impl Network {
    fn load(bytes: Vec<u8>, size: usize, name: &str) -> Result<Self, FaceError> {
        let pin = pin(&bytes);
        let model = Model::load(bytes).map_err(|e| FaceError::Model(format!("{name}: {e}")))?;
        // one thread: on a node the ledger comes first
        let pool = Arc::new(ThreadPool::with_num_threads(1));
        let options = RunOptions::default().with_thread_pool(Some(pool));
        Ok(Self { model, size, options, pin })
    }

    fn run(&self, picture: &Picture, map: Similarity, length: usize) -> Result<Vec<f32>, FaceError> {
        let patch = picture.patch(self.size, map);
        let image = NdTensor::from_data([1, 3, self.size, self.size], patch);
        let failed = |e: &dyn std::fmt::Display| FaceError::Model(e.to_string());
        let out =
            self.model.run_one(image.view().into(), Some(self.options.clone())).map_err(|e| failed(&e))?;
        let out = out.into_tensor::<f32>().ok_or_else(|| failed(&"the network gives no numbers"))?.to_vec();
        let fits = out.len() == length || length == 0;
        if fits && out.iter().all(|x| x.is_finite()) {
            Ok(out)
        } else {
            Err(failed(&"the network's answer has another shape"))
        }
    }
}

/// The width and height of the detector's input.
const DETECTOR_SIZE: usize = 416;
/// Cells along a side of the detector's answer.
const CELLS: usize = 13;
/// The detector's anchors, in cells.
const ANCHORS: [(f32, f32); 5] = [
    (1.603_231, 2.094_468),
    (6.041_143, 7.080_126),
    (2.882_459, 3.518_061),
    (4.266_906, 5.178_857),
    (9.041_765, 10.663_08),
];
/// Less sure than this is no face.
const SCORE_MIN: f32 = 0.5;
/// Two areas that share more of their union than this are one face.
const OVERLAP_MAX: f32 = 0.4;
/// The most faces of one picture that are looked at.
const FACES_MAX: usize = 8;
/// Numbers of an embedding.
const EMBEDDING: usize = 128;

/// Five landmarks as dlib aligns a face, as parts of the chip's inner square (`shape_predictor_5_face_landmarks`): outer and inner
/// corner of the left eye, of the right eye, and the base of the nose.
const ALIGNED: [(usize, Point); 5] = [
    (45, (0.859_567_5, 0.213_498_15)),
    (42, (0.646_060_5, 0.228_967_44)),
    (36, (0.120_575_06, 0.213_727_41)),
    (39, (0.334_085_06, 0.229_064_24)),
    (33, (0.490_112_3, 0.627_797_53)),
];
/// The margin of a chip around its inner square, as a part of that (dlib's default).
const CHIP_MARGIN: f32 = 0.25;

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let side = |i: usize| {
        let end = (a[i] + a[i + 2]).min(b[i] + b[i + 2]);
        (end - a[i].max(b[i])).max(0.0)
    };
    let shared = side(0) * side(1);
    shared / (a[2] * a[3] + b[2] * b[3] - shared)
}

/// Detector, landmarks and embedding, each an ONNX file.
pub struct Networks {
    detector: Network,
    landmarks: Network,
    embedder: Network,
}

impl Networks {
    /// The networks that are part of this program.
    ///
    /// # Errors
    /// [`FaceError::Model`] where one cannot be loaded.
    pub fn shipped() -> Result<Self, FaceError> {
        Self::of([
            include_bytes!("../../../models/face/detector.onnx").to_vec(),
            include_bytes!("../../../models/face/landmarks.onnx").to_vec(),
            include_bytes!("../../../models/face/embedder.onnx").to_vec(),
        ])
    }

    /// Networks of a folder's `detector.onnx`, `landmarks.onnx` and `embedder.onnx`, with inputs and outputs as the shipped ones.
    ///
    /// # Errors
    /// [`FaceError::Model`] where one is missing or cannot be loaded.
    pub fn read(folder: &Path) -> Result<Self, FaceError> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(|e| FaceError::Model(format!("{}: {e}", path.display())))
        };
        Self::of([read("detector.onnx")?, read("landmarks.onnx")?, read("embedder.onnx")?])
    }

    fn of([detector, landmarks, embedder]: [Vec<u8>; 3]) -> Result<Self, FaceError> {
        Ok(Self {
            detector: Network::load(detector, DETECTOR_SIZE, "detector")?,
            landmarks: Network::load(landmarks, 112, "landmarks")?,
            embedder: Network::load(embedder, 150, "embedder")?,
        })
    }

    fn landmarks(&self, picture: &Picture, area: &[f32; 4]) -> Result<Vec<Point>, FaceError> {
        // what of the area lies in the picture, in the middle of a square
        let (left, top) = (area[0].max(0.0).floor(), area[1].max(0.0).floor());
        let right = (area[0] + area[2]).min(picture.width() as f32).floor();
        let bottom = (area[1] + area[3]).min(picture.height() as f32).floor();
        let side = (right - left).max(bottom - top).max(1.0);
        let map = Similarity {
            a: side / self.landmarks.size as f32,
            b: 0.0,
            x: left - (side - (right - left)) / 2.0,
            y: top - (side - (bottom - top)) / 2.0,
        };
        let out = self.landmarks.run(picture, map, 136)?;
        Ok(out.chunks_exact(2).map(|p| (p[0] * side + map.x, p[1] * side + map.y)).collect())
    }
}

impl FaceModel for Networks {
    fn faces(&self, picture: &Picture) -> Result<Vec<Face>, FaceError> {
        let side = picture.width().max(picture.height()) as f32;
        let map = Similarity { a: side / DETECTOR_SIZE as f32, b: 0.0, x: 0.0, y: 0.0 };
        let out = self.detector.run(picture, map, ANCHORS.len() * 5 * CELLS * CELLS)?;
        let at = |plane: usize, cell: usize| out[plane * CELLS * CELLS + cell];
        let mut found: Vec<(f32, [f32; 4])> = Vec::new();
        for (i, anchor) in ANCHORS.iter().enumerate() {
            for cell in 0..CELLS * CELLS {
                let score = sigmoid(at(i * 5 + 4, cell));
                if score <= SCORE_MIN {
                    continue;
                }
                let unit = side / CELLS as f32;
                let x = ((cell % CELLS) as f32 + sigmoid(at(i * 5, cell))) * unit;
                let y = ((cell / CELLS) as f32 + sigmoid(at(i * 5 + 1, cell))) * unit;
                let width = at(i * 5 + 2, cell).exp() * anchor.0 * unit;
                let height = at(i * 5 + 3, cell).exp() * anchor.1 * unit;
                found.push((score, [x - width / 2.0, y - height / 2.0, width, height]));
            }
        }
        found.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut faces: Vec<Face> = Vec::new();
        for (score, area) in found {
            if faces.len() < FACES_MAX && faces.iter().all(|f| overlap(&f.area, &area) <= OVERLAP_MAX) {
                faces.push(Face { score, area, landmarks: self.landmarks(picture, &area)? });
            }
        }
        Ok(faces)
    }

    fn embedding(&self, picture: &Picture, face: &Face) -> Result<Embedding, FaceError> {
        let size = self.embedder.size as f32;
        let chip = |p: f32| (CHIP_MARGIN + p) / (2.0 * CHIP_MARGIN + 1.0) * size;
        let from = ALIGNED.map(|(_, (x, y))| (chip(x), chip(y)));
        let to = ALIGNED.map(|(i, _)| face.landmarks[i]);
        self.embedder.run(picture, Similarity::fit(&from, &to), EMBEDDING).map(Embedding)
    }

    fn pins(&self) -> Pins {
        Pins {
            detector: self.detector.pin.clone(),
            landmarks: self.landmarks.pin.clone(),
            embedder: self.embedder.pin.clone(),
        }
    }
}

/// A liveness model in an ONNX file: of the square around a face, one number of its answer says how live it looks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LivenessSettings {
    /// The file; relative to the calibration file's folder.
    pub file: std::path::PathBuf,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// The width and height of its input, RGB from 0 to 255.
    pub size: usize,
    /// How much larger than the face the square is.
    pub scale: f32,
    /// Which number of its answer, from 0.
    pub output: usize,
    /// From which value on a face is taken to be live.
    pub threshold: f32,
}

/// See [`LivenessSettings`].
pub struct OnnxLiveness {
    network: Network,
    settings: LivenessSettings,
}

impl OnnxLiveness {
    /// Loads it and checks its hash.
    ///
    /// # Errors
    /// [`FaceError::Model`] where it is missing, another file, or cannot be loaded.
    pub fn read(folder: &Path, settings: &LivenessSettings) -> Result<Self, FaceError> {
        let path = folder.join(&settings.file);
        let wrong = |e: String| FaceError::Model(format!("{}: {e}", path.display()));
        let bytes = std::fs::read(&path).map_err(|e| wrong(e.to_string()))?;
        if pin(&bytes) != settings.sha256 {
            return Err(wrong("it is another file than the settings name".into()));
        }
        if !(16..=1024).contains(&settings.size) || !(0.5..=8.0).contains(&settings.scale) {
            return Err(wrong("size is from 16 to 1024 and scale from 0.5 to 8".into()));
        }
        let network = Network::load(bytes, settings.size, "liveness")?;
        Ok(Self { network, settings: settings.clone() })
    }
}

impl LivenessModel for OnnxLiveness {
    fn score(&self, picture: &Picture, face: &Face) -> Result<f32, FaceError> {
        let [left, top, width, height] = face.area;
        let side = width.max(height) * self.settings.scale;
        let map = Similarity {
            a: side / self.settings.size as f32,
            b: 0.0,
            x: left + (width - side) / 2.0,
            y: top + (height - side) / 2.0,
        };
        let out = self.network.run(picture, map, 0)?;
        let value = out.get(self.settings.output).copied();
        value.ok_or_else(|| {
            FaceError::Model("the liveness model gives fewer numbers than its settings say".into())
        })
    }
}
