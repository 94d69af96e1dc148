//! A challenge: poses in a random order before the camera, each frame checked, each answer taken once.

use crate::{Embedding, Face, FaceError, FaceModel, LivenessModel, Measures, Picture, Pose, picture};
use model::{Digest, Suite};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// How long a challenge may be answered, in milliseconds.
pub const CHALLENGE_MS: u64 = 20_000;
/// How many frames an answer has: straight, three poses, straight.
pub const POSES: usize = 5;
/// How often one party of one case may try; then another way of identification is taken.
const ATTEMPTS_MAX: u8 = 3;
/// After this long attempts are forgotten, in milliseconds.
const ATTEMPTS_KEPT_MS: u64 = 24 * 3_600_000;
/// The most challenges that are open at once.
const OPEN_MAX: usize = 4096;
/// The most parties whose attempts are remembered.
const PARTIES_MAX: usize = 100_000;
/// How many frames are remembered, so that none is taken twice.
const SEEN_MAX: usize = 100_000;
/// The shortest time between two frames, in milliseconds.
const BETWEEN_MS_MIN: u64 = 200;
/// The smallest distance between the eyes, in pixels.
const EYES_MIN: f32 = 40.0;
/// How far the head may be tilted, in degrees.
const TILT_MAX: f32 = 25.0;
/// A second face this large, as a part of the first's area, is somebody else before the camera.
const SECOND_FACE: f32 = 0.35;
/// The darkest and the brightest a face may be on average, and the least its brightness may vary, from 0 to 255.
const LIGHT: (f32, f32, f32) = (35.0, 235.0, 10.0);
/// How much further apart than the threshold two frames of one answer may be: a turned head is less like itself.
const LINK: f32 = 0.10;
/// Cells along a side of the thumbnails by which scenes are compared.
const SCENE: usize = 24;
/// How much the surroundings of the face may differ between two frames on average, from 0 to 255.
const SCENE_MAX: f32 = 28.0;
/// Two frames that differ less than this everywhere are one and the same, from 0 to 255.
const STILL_MIN: f32 = 0.4;

/// Why a face was not taken for proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// There is no such challenge, it was answered before, it is another party's, or its time is over.
    NoChallenge,
    /// The tries are used up.
    Attempts,
    /// Too many challenges are open.
    Busy,
    /// Not as many frames as poses, or not in the order of time.
    Frames,
    /// No picture, or one too large.
    Unreadable,
    /// A frame that was sent before, or the same one twice.
    Replayed,
    /// The frames come from different cameras or places.
    Scene,
    /// No face.
    NoFace,
    /// More than one person.
    SeveralFaces,
    /// Part of the face is outside the picture, or it is too small or tilted.
    Position,
    /// Too dark, too bright, or without contrast.
    Light,
    /// The pose that was asked for is not seen.
    Pose(Pose),
    /// The liveness model takes it for a picture.
    NotLive,
    /// The frames do not show one and the same person.
    OnePerson,
    /// No face on the document's photograph.
    Document,
    /// The face is not the document's.
    NotTheDocument,
    /// The model does not run.
    Model,
}

impl Why {
    /// The stable code.
    pub fn code(self) -> &'static str {
        match self {
            Self::NoChallenge => "face_no_challenge",
            Self::Attempts => "face_attempts",
            Self::Busy => "face_busy",
            Self::Frames => "face_frames",
            Self::Unreadable => "face_unreadable",
            Self::Replayed => "face_replayed",
            Self::Scene => "face_scene",
            Self::NoFace => "face_no_face",
            Self::SeveralFaces => "face_several",
            Self::Position => "face_position",
            Self::Light => "face_light",
            Self::Pose(Pose::Straight) => "face_not_straight",
            Self::Pose(Pose::TurnLeft) => "face_not_turned_left",
            Self::Pose(Pose::TurnRight) => "face_not_turned_right",
            Self::Pose(Pose::OpenMouth) => "face_mouth_not_open",
            Self::NotLive => "face_not_live",
            Self::OnePerson => "face_one_person",
            Self::Document => "face_document",
            Self::NotTheDocument => "face_not_the_document",
            Self::Model => "face_model",
        }
    }
}

/// A face that was not taken for proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaceRefusal {
    /// Why.
    pub why: Why,
    /// Which frame, from 0, where one is to blame.
    pub frame: Option<usize>,
}

impl From<Why> for FaceRefusal {
    fn from(why: Why) -> Self {
        Self { why, frame: None }
    }
}

/// What a person is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Its name: 32 hexadecimal digits.
    pub id: String,
    /// What the terminal's assertion carries, so that it stands for this challenge and no other.
    pub nonce: u64,
    /// The poses in their order.
    pub poses: [Pose; POSES],
    /// When its time is over, in milliseconds since 1970.
    pub expires_ms: u64,
    /// How many tries are left after this one.
    pub attempts_left: u8,
}

/// One frame from the camera: a JPEG or PNG file, and when it was taken in milliseconds since the first.
pub struct Frame {
    /// The file.
    pub bytes: Vec<u8>,
    /// When.
    pub at_ms: u64,
}

/// A face that was taken for proof.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// The larger of the distances between the straight frames and the document's photograph.
    pub distance: f32,
    /// What it had to be within.
    pub threshold: f32,
}

struct Open {
    challenge: Challenge,
    bound: Digest,
}

#[derive(Default)]
struct State {
    open: HashMap<String, Open>,
    attempts: HashMap<Digest, (u8, u64)>,
    seen: HashSet<Digest>,
    seen_in_order: VecDeque<Digest>,
}

/// Where faces are asked for and judged. What it remembers is gone when the program ends: open challenges, attempts, and the hashes
/// of frames.
pub struct FaceDesk {
    model: Box<dyn FaceModel>,
    liveness: Option<(Box<dyn LivenessModel>, f32)>,
    threshold: f32,
    state: Mutex<State>,
}

/// One frame, looked at.
struct Look {
    picture: Picture,
    face: Face,
    measures: Measures,
}

fn random_poses() -> [Pose; POSES] {
    const ALL: [Pose; 3] = [Pose::TurnLeft, Pose::TurnRight, Pose::OpenMouth];
    let mut poses = [Pose::Straight; POSES];
    for i in 1..POSES - 1 {
        // never the same twice in a row: a head that is held still would answer it
        let left: Vec<_> = ALL.into_iter().filter(|p| poses[i - 1] != *p).collect();
        let draw = u64::from_le_bytes(crypto::random());
        poses[i] = left[(draw % left.len() as u64) as usize];
    }
    poses
}

impl FaceDesk {
    /// A desk with a model, a liveness model with its threshold where there is one, and the calibrated threshold.
    pub fn new(
        model: Box<dyn FaceModel>,
        liveness: Option<(Box<dyn LivenessModel>, f32)>,
        threshold: f32,
    ) -> Self {
        Self { model, liveness, threshold, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // whoever panicked while holding it left whole entries
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A challenge for a party: `bound` names the ledger, the case, the role and the commitment to who they are. Each is one try.
    ///
    /// # Errors
    /// [`Why::Attempts`] after three tries, [`Why::Busy`] where too many are open.
    pub fn challenge(&self, bound: Digest, now_ms: u64) -> Result<Challenge, FaceRefusal> {
        let mut state = self.state();
        state.open.retain(|_, open| open.challenge.expires_ms > now_ms);
        state.attempts.retain(|_, (_, since)| *since + ATTEMPTS_KEPT_MS > now_ms);
        if state.open.len() >= OPEN_MAX || state.attempts.len() >= PARTIES_MAX {
            return Err(Why::Busy.into());
        }
        let (attempts, _) = state.attempts.entry(bound).or_insert((0, now_ms));
        if *attempts >= ATTEMPTS_MAX {
            return Err(Why::Attempts.into());
        }
        *attempts += 1;
        let challenge = Challenge {
            id: hex::encode(crypto::random::<16>()),
            nonce: u64::from_le_bytes(crypto::random()),
            poses: random_poses(),
            expires_ms: now_ms + CHALLENGE_MS,
            attempts_left: ATTEMPTS_MAX - *attempts,
        };
        state.open.retain(|_, open| open.bound != bound);
        state.open.insert(challenge.id.clone(), Open { challenge: challenge.clone(), bound });
        Ok(challenge)
    }

    /// How many tries a party has left.
    pub fn attempts_left(&self, bound: Digest, now_ms: u64) -> u8 {
        let state = self.state();
        let used = state.attempts.get(&bound).filter(|(_, since)| since + ATTEMPTS_KEPT_MS > now_ms);
        ATTEMPTS_MAX - used.map_or(0, |(n, _)| *n)
    }

    /// An open challenge of a party.
    pub fn open(&self, id: &str, bound: Digest, now_ms: u64) -> Option<Challenge> {
        let state = self.state();
        let open = state.open.get(id).filter(|o| o.bound == bound && o.challenge.expires_ms > now_ms)?;
        Some(open.challenge.clone())
    }

    /// Judges an answer, with the photograph of the document. The challenge is used up, whatever comes of it.
    ///
    /// Takes about a second of one core.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn judge(
        &self,
        id: &str,
        bound: Digest,
        document: &[u8],
        frames: &[Frame],
        now_ms: u64,
    ) -> Result<Verdict, FaceRefusal> {
        let challenge = self.take(id, bound, now_ms)?;
        self.judge_taken(&challenge, document, frames)
    }

    /// Takes an open challenge of a party: whoever comes second with an answer to it finds none.
    ///
    /// # Errors
    /// [`Why::NoChallenge`].
    pub fn take(&self, id: &str, bound: Digest, now_ms: u64) -> Result<Challenge, FaceRefusal> {
        let challenge = self.open(id, bound, now_ms).ok_or(Why::NoChallenge)?;
        self.state().open.remove(id).ok_or(Why::NoChallenge)?;
        Ok(challenge)
    }

    /// Judges an answer to a challenge that was taken, whenever that was.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn judge_taken(
        &self,
        challenge: &Challenge,
        document: &[u8],
        frames: &[Frame],
    ) -> Result<Verdict, FaceRefusal> {
        let within = frames.iter().all(|f| f.at_ms <= CHALLENGE_MS);
        let in_order = || frames.windows(2).all(|w| w[1].at_ms >= w[0].at_ms + BETWEEN_MS_MIN);
        if frames.len() != POSES || !within || !in_order() {
            return Err(Why::Frames.into());
        }
        let document = Picture::decode(document).map_err(|_| Why::Document)?;
        let pictures = frames
            .iter()
            .enumerate()
            .map(|(i, f)| {
                Picture::decode(&f.bytes).map_err(|_| FaceRefusal { why: Why::Unreadable, frame: Some(i) })
            })
            .collect::<Result<Vec<_>, _>>()?;
        self.remember(&pictures)?;
        let looks = pictures
            .into_iter()
            .enumerate()
            .map(|(i, picture)| self.look(picture).map_err(|why| FaceRefusal { why, frame: Some(i) }))
            .collect::<Result<Vec<_>, _>>()?;
        same_scene(&looks)?;
        let before = looks[0].measures;
        for (i, (look, pose)) in looks.iter().zip(challenge.poses).enumerate() {
            if !look.measures.shows(pose, &before) {
                return Err(FaceRefusal { why: Why::Pose(pose), frame: Some(i) });
            }
        }
        self.one_person(&looks, document)
    }

    /// Takes each frame once, by its pixels: another file of the same pixels is the same frame.
    fn remember(&self, pictures: &[Picture]) -> Result<(), FaceRefusal> {
        let mut state = self.state();
        for (i, picture) in pictures.iter().enumerate() {
            let hash = picture.digest();
            if !state.seen.insert(hash) {
                return Err(FaceRefusal { why: Why::Replayed, frame: Some(i) });
            }
            state.seen_in_order.push_back(hash);
            if state.seen_in_order.len() > SEEN_MAX
                && let Some(oldest) = state.seen_in_order.pop_front()
            {
                state.seen.remove(&oldest);
            }
        }
        Ok(())
    }

    fn look(&self, picture: Picture) -> Result<Look, Why> {
        let mut faces = self.model.faces(&picture).map_err(|_| Why::Model)?;
        let size = |f: &Face| f.area[2] * f.area[3];
        faces.sort_by(|a, b| size(b).total_cmp(&size(a)));
        let face = faces.first().ok_or(Why::NoFace)?.clone();
        if faces.get(1).is_some_and(|second| size(second) > SECOND_FACE * size(&face)) {
            return Err(Why::SeveralFaces);
        }
        let measures = Measures::of(&face);
        let [left, top, width, height] = face.area;
        let inside = left + 0.1 * width >= 0.0
            && top + 0.1 * height >= 0.0
            && left + 0.9 * width <= picture.width() as f32
            && top + 0.9 * height <= picture.height() as f32;
        if !inside || measures.eyes < EYES_MIN || measures.tilt.abs() > TILT_MAX {
            return Err(Why::Position);
        }
        let (mean, spread) = picture.light(&face);
        if mean < LIGHT.0 || mean > LIGHT.1 || spread < LIGHT.2 {
            return Err(Why::Light);
        }
        if let Some((model, threshold)) = &self.liveness
            && model.score(&picture, &face).map_err(|_| Why::Model)? < *threshold
        {
            return Err(Why::NotLive);
        }
        Ok(Look { picture, face, measures })
    }

    /// All frames show one person, and the straight ones the document's.
    fn one_person(&self, looks: &[Look], document: Picture) -> Result<Verdict, FaceRefusal> {
        let failed = |e: FaceError| if matches!(e, FaceError::NoFace) { Why::Document } else { Why::Model };
        let (document, face, _) = crate::upright(self.model.as_ref(), document).map_err(failed)?;
        let document = self.model.embedding(&document, &face).map_err(failed)?;
        let embed = |look: &Look| self.model.embedding(&look.picture, &look.face).map_err(failed);
        let placed = looks.iter().map(embed).collect::<Result<Vec<Embedding>, _>>()?;
        let first = &placed[0];
        for (i, other) in placed.iter().enumerate().skip(1) {
            let last = i + 1 == placed.len();
            if first.distance(other) > self.threshold + if last { 0.0 } else { LINK } {
                return Err(FaceRefusal { why: Why::OnePerson, frame: Some(i) });
            }
        }
        let distance = first.distance(&document).max(placed[POSES - 1].distance(&document));
        if distance > self.threshold {
            return Err(Why::NotTheDocument.into());
        }
        Ok(Verdict { distance, threshold: self.threshold })
    }
}

/// The frames come from one camera in one place: equally large, with the same surroundings, and none stands still.
fn same_scene(looks: &[Look]) -> Result<(), FaceRefusal> {
    let thumbs: Vec<_> = looks.iter().map(|look| look.picture.thumbnail(SCENE)).collect();
    let covered = |look: &Look, cell: usize| {
        // the head with hair and shoulders: twice as wide as the face, and everything below it
        let [left, top, width, height] = look.face.area;
        let x = (cell % SCENE) as f32 / SCENE as f32 * look.picture.width() as f32;
        let y = (cell / SCENE) as f32 / SCENE as f32 * look.picture.height() as f32;
        let beside = (x - left - width / 2.0).abs() > width * 1.1;
        let above = y < top - height * 0.5;
        !(above || beside && y < top + height * 1.2)
    };
    for i in 1..looks.len() {
        let refused = |why| Err(FaceRefusal { why, frame: Some(i) });
        let (one, other) = (&looks[i - 1], &looks[i]);
        if (one.picture.width(), one.picture.height()) != (other.picture.width(), other.picture.height()) {
            return refused(Why::Scene);
        }
        let differ = |cell: usize| (thumbs[i - 1][cell] - thumbs[i][cell]).abs();
        let whole = (0..SCENE * SCENE).map(differ).sum::<f32>() / (SCENE * SCENE) as f32;
        if whole < STILL_MIN {
            return refused(Why::Replayed);
        }
        let around: Vec<_> =
            (0..SCENE * SCENE).filter(|c| !covered(one, *c) && !covered(other, *c)).map(differ).collect();
        // a face that fills the picture leaves nothing to compare
        if around.len() >= SCENE && around.iter().sum::<f32>() / around.len() as f32 > SCENE_MAX {
            return refused(Why::Scene);
        }
    }
    Ok(())
}

impl Picture {
    /// A hash of the pixels.
    fn digest(&self) -> Digest {
        let size = [self.width(), self.height()].map(|n| (n as u64).to_le_bytes());
        crypto::digest(Suite::International, &[&size[0], &size[1], self.bytes()])
    }

    /// Brightness of `size` by `size` cells.
    fn thumbnail(&self, size: usize) -> Vec<f32> {
        let (w, h) = (self.width() as f32 / size as f32, self.height() as f32 / size as f32);
        (0..size * size)
            .map(|cell| {
                let (mut sum, mut n) = (0.0, 0.0f32);
                for i in 0..16 {
                    let x = ((cell % size) as f32 + (i % 4) as f32 / 4.0 + 0.125) * w;
                    let y = ((cell / size) as f32 + (i / 4) as f32 / 4.0 + 0.125) * h;
                    sum += picture::brightness(self.pixel(x as isize, y as isize));
                    n += 1.0;
                }
                sum / n
            })
            .collect()
    }

    /// Mean and standard deviation of the brightness of a face.
    fn light(&self, face: &Face) -> (f32, f32) {
        let [left, top, width, height] = face.area;
        let values: Vec<_> = (0..32 * 32)
            .map(|i| {
                let x = left + width * (0.2 + 0.6 * (i % 32) as f32 / 32.0);
                let y = top + height * (0.2 + 0.6 * (i / 32) as f32 / 32.0);
                picture::brightness(self.pixel(x as isize, y as isize))
            })
            .collect();
        let n = values.len() as f32;
        let mean = values.iter().sum::<f32>() / n;
        (mean, (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / n).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model that finds nothing, for what needs none.
    struct Blind;

    impl FaceModel for Blind {
        fn faces(&self, _: &Picture) -> Result<Vec<Face>, FaceError> {
            Ok(vec![])
        }

        fn embedding(&self, _: &Picture, _: &Face) -> Result<Embedding, FaceError> {
            Err(FaceError::NoFace)
        }

        fn pins(&self) -> crate::Pins {
            crate::Pins { detector: String::new(), landmarks: String::new(), embedder: String::new() }
        }
    }

    fn desk() -> FaceDesk {
        FaceDesk::new(Box::new(Blind), None, 0.4)
    }

    fn frame(shade: u8, at_ms: u64) -> Frame {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 64, 64);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.write_header().unwrap().write_image_data(&[shade; 64 * 64]).unwrap();
        Frame { bytes, at_ms }
    }

    fn frames(shade: u8) -> Vec<Frame> {
        (0..POSES as u8).map(|i| frame(shade + i, u64::from(i) * 1000)).collect()
    }

    fn why(result: Result<Verdict, FaceRefusal>) -> Why {
        result.unwrap_err().why
    }

    #[test]
    fn three_tries_and_then_another_way() {
        let (desk, me, other) = (desk(), Digest([1; 32]), Digest([2; 32]));
        for left in [2, 1, 0] {
            assert_eq!(desk.challenge(me, 5).unwrap().attempts_left, left);
        }
        assert_eq!(desk.challenge(me, 6).unwrap_err().why, Why::Attempts);
        assert_eq!((desk.attempts_left(me, 6), desk.attempts_left(other, 6)), (0, 3));
        desk.challenge(other, 6).unwrap();
        assert!(desk.challenge(me, 6 + ATTEMPTS_KEPT_MS).is_ok());
    }

    #[test]
    fn a_challenge_is_one_party_s_once_and_for_twenty_seconds() {
        let (desk, me) = (desk(), Digest([1; 32]));
        let one = desk.challenge(me, 0).unwrap();
        assert_eq!(why(desk.judge(&one.id, Digest([2; 32]), &[], &[], 1)), Why::NoChallenge);
        assert_eq!(why(desk.judge("00", me, &[], &[], 1)), Why::NoChallenge);
        assert_eq!(why(desk.judge(&one.id, me, &[], &[], 1)), Why::Frames);
        assert_eq!(why(desk.judge(&one.id, me, &[], &[], 1)), Why::NoChallenge);
        let two = desk.challenge(me, 0).unwrap();
        assert_eq!(why(desk.judge(&two.id, me, &[], &[], CHALLENGE_MS)), Why::NoChallenge);
        // a newer challenge ends an older one
        let (three, four) = (desk.challenge(other(), 0).unwrap(), desk.challenge(other(), 0).unwrap());
        assert_ne!((&three.id, three.nonce), (&four.id, four.nonce));
        assert!(desk.open(&three.id, other(), 1).is_none() && desk.open(&four.id, other(), 1).is_some());
    }

    fn other() -> Digest {
        Digest([9; 32])
    }

    #[test]
    fn frames_come_in_time_and_once() {
        let desk = desk();
        let document = frame(9, 0).bytes;
        let try_with = |i: u8, document: &[u8], frames: &[Frame]| {
            let me = Digest([i; 32]);
            let challenge = desk.challenge(me, 0).unwrap();
            desk.judge(&challenge.id, me, document, frames, 1).unwrap_err()
        };
        let mut late = frames(1);
        late[4].at_ms = CHALLENGE_MS + 1;
        let mut never = frames(1);
        never[0].at_ms = u64::MAX;
        let mut hasty = frames(1);
        hasty[2].at_ms = hasty[1].at_ms + 1;
        let mut back = frames(1);
        back.swap(1, 2);
        for (i, wrong) in
            [late, never, hasty, back, frames(1).into_iter().take(4).collect()].iter().enumerate()
        {
            assert_eq!(try_with(10 + i as u8, &document, wrong).why, Why::Frames);
        }
        assert_eq!(try_with(20, b"no picture", &frames(1)).why, Why::Document);
        let mut broken = frames(1);
        broken[3].bytes.truncate(40);
        assert_eq!(try_with(21, &document, &broken), FaceRefusal { why: Why::Unreadable, frame: Some(3) });
        assert_eq!(try_with(22, &document, &frames(1)), FaceRefusal { why: Why::NoFace, frame: Some(0) });
        assert_eq!(try_with(23, &document, &frames(1)), FaceRefusal { why: Why::Replayed, frame: Some(0) });
        let mut twice = frames(40);
        twice[4] = Frame { at_ms: 5000, ..frame(43, 0) };
        assert_eq!(try_with(24, &document, &twice), FaceRefusal { why: Why::Replayed, frame: Some(4) });
    }

    #[test]
    fn poses_are_random_and_never_the_same_twice_in_a_row() {
        let all: HashSet<String> = (0..400).map(|_| format!("{:?}", random_poses())).collect();
        assert_eq!(all.len(), 12);
        for _ in 0..100 {
            let poses = random_poses();
            assert_eq!((poses[0], poses[4]), (Pose::Straight, Pose::Straight));
            assert!(poses.windows(2).all(|w| w[0] != w[1]));
            assert!(poses.contains(&Pose::TurnLeft) || poses.contains(&Pose::TurnRight));
        }
    }
}
