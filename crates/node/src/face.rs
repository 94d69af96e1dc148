//! The part of the API about faces: a challenge for a party of a case, and its answer, which this node judges before it lets a
//! terminal's assertion go to the ledger. Pictures live for one judgement and are nowhere kept.

use crate::api::{Problem, Shared, bad, canonical, now_ms, parse, signature};
use ::face::{
    Calibration, Challenge, FaceDesk, FaceError, FaceModel, FaceRefusal, Frame, LivenessModel, Networks,
    OnnxLiveness, PICTURE_BYTES_MAX, POSES, SettingsError, Why,
};
use axum::{
    Json,
    extract::{Multipart, Path, State},
    http::StatusCode,
};
use flow::CaseView;
use identity::{FaceShown, face_binding};
use model::*;
use serde::Serialize;
use std::{path::Path as FilePath, sync::Arc};
use utoipa::ToSchema;

/// Under this age a guardian consents, at the counter (Measures for the Security Management of the Application of Facial Recognition
/// Technology, in force 2025-06-01; PIPL article 31).
const AGE_MIN: u32 = 14;

/// How many answers may wait for their turn.
const WAITING_MAX: usize = 8;

/// Where this node judges faces, one at a time: the ledger comes first.
pub struct Booth {
    desk: Arc<FaceDesk>,
    /// What it was calibrated on.
    pub(crate) calibration: Calibration,
    turn: Arc<tokio::sync::Semaphore>,
    waiting: tokio::sync::Semaphore,
}

/// What a terminal sent.
#[derive(Default)]
pub(crate) struct Answer {
    /// The number on the document.
    pub(crate) number: String,
    /// The photograph on the document, as a file.
    pub(crate) document: Vec<u8>,
    /// The frames, as files.
    pub(crate) frames: Vec<Frame>,
    fields: std::collections::HashMap<String, String>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        let frames = self.frames.iter_mut().map(|f| &mut f.bytes);
        frames.chain([&mut self.document]).for_each(|bytes| bytes.fill(0));
    }
}

impl Answer {
    /// Reads a multipart body: texts, `document`, and as many `frame`s as `at` names times for, in milliseconds since the first.
    pub(crate) async fn read(mut body: Multipart) -> Option<Self> {
        let mut answer = Self::default();
        let mut files = Vec::new();
        while let Some(field) = body.next_field().await.ok()? {
            let name = field.name().unwrap_or_default().to_owned();
            let bytes = field.bytes().await.ok()?;
            match name.as_str() {
                "document" | "frame" if bytes.len() > PICTURE_BYTES_MAX => return None,
                "document" => answer.document = bytes.to_vec(),
                "frame" if files.len() < POSES => files.push(bytes.to_vec()),
                "frame" => return None,
                _ if answer.fields.len() < 16 && bytes.len() <= 4096 => {
                    answer.fields.insert(name, String::from_utf8(bytes.to_vec()).ok()?);
                }
                _ => return None,
            }
        }
        let times = answer.text("at").split(',').map(|t| t.trim().parse::<u64>().ok());
        let times = times.collect::<Option<Vec<_>>>()?;
        if times.len() != files.len() {
            return None;
        }
        answer.frames = files.into_iter().zip(times).map(|(bytes, at_ms)| Frame { bytes, at_ms }).collect();
        answer.number = answer.text("number").trim().to_ascii_uppercase();
        Some(answer)
    }

    /// A text that was sent; empty where it was not.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.fields.get(name).map(String::as_str).unwrap_or_default()
    }

    /// What the terminal signs.
    pub(crate) fn shown<'a>(&'a self, challenge: &'a str) -> FaceShown<'a> {
        FaceShown {
            challenge,
            number: &self.number,
            document: &self.document,
            frames: self.frames.iter().map(|f| (f.at_ms, f.bytes.as_slice())).collect(),
        }
    }
}

/// Whose face is asked for.
pub(crate) struct Asked {
    case: CaseId,
    role: RoleId,
    bound: Digest,
    number: String,
}

impl Asked {
    /// A party of a case who is not yet identified and may be by face.
    pub(crate) fn of(chain: ChainId, view: &CaseView, role: &RoleId) -> Result<Self, Refused> {
        let party = view.case.parties.iter().find(|p| &p.role == role).ok_or(Refused::Unknown)?;
        if view.case.identified.contains_key(role) {
            return Err(Refused::Identified);
        }
        let number = view.case.value(&format!("{role}.id")).cloned().unwrap_or_default();
        let born = identifier::born(&number).ok_or(Refused::NoPerson)?;
        if identifier::age(&born, &Day::of(now_ms()).to_string()).is_none_or(|age| age < AGE_MIN) {
            return Err(Refused::Minor);
        }
        let bound = encode(&(chain, view.case.id, role.clone(), party.subject));
        let bound = crypto::digest(Suite::International, &[b"tongban/face-party/1\0", &bound]);
        Ok(Self { case: view.case.id, role: role.clone(), bound, number })
    }
}

/// Why a face does not identify a party.
#[derive(Clone, Copy)]
pub(crate) enum Refused {
    /// There is no such party.
    Unknown,
    /// They are identified already.
    Identified,
    /// The party is not a person with a resident identity number.
    NoPerson,
    /// They are too young.
    Minor,
    /// The document is of somebody else than the party.
    OtherNumber,
    /// The assertion or the terminal's signature over the frames does not fit.
    Terminal,
    /// The face itself.
    Face(FaceRefusal),
}

impl From<FaceRefusal> for Refused {
    fn from(refusal: FaceRefusal) -> Self {
        Self::Face(refusal)
    }
}

impl Refused {
    /// The stable code.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Unknown => "not_found",
            Self::Identified => "already_used",
            Self::NoPerson => "face_no_person",
            Self::Minor => "face_minor",
            Self::OtherNumber => "face_other_number",
            Self::Terminal => "face_terminal",
            Self::Face(refusal) => refusal.why.code(),
        }
    }

    /// Which frame, from 0, where one is to blame.
    pub(crate) fn frame(self) -> Option<usize> {
        match self {
            Self::Face(refusal) => refusal.frame,
            _ => None,
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let status = match refused {
            Refused::Unknown => StatusCode::NOT_FOUND,
            Refused::Identified => StatusCode::CONFLICT,
            Refused::Face(FaceRefusal { why: Why::Busy, .. }) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        let frame = refused.frame().map(|i| format!("frame {}: ", i + 1)).unwrap_or_default();
        Self::new(
            status,
            refused.code(),
            format!(
                "{frame}the face was not taken for proof; try again while tries are left, or identify at the counter"
            ),
        )
    }
}

impl crate::api::Served {
    /// Where faces are judged, where this node was calibrated for it and the ledger's rules know of faces.
    pub(crate) fn booth(&self) -> Option<&Booth> {
        let known = self.flow.chain().roster().1.protocol >= FACE_PROTOCOL;
        self.booth.as_ref().filter(|_| known)
    }
}

impl Booth {
    /// Opens the booth a calibration file describes.
    ///
    /// # Errors
    /// Where the file or a model cannot be used, or the model is not the one that was calibrated.
    pub fn open(path: &FilePath) -> Result<Self, SettingsError> {
        let calibration = Calibration::read(path)?;
        let name = path.display().to_string();
        let folder = path.parent().unwrap_or(FilePath::new("."));
        let wrong = |e: FaceError| SettingsError::File(name.clone(), e.to_string());
        let model = match &calibration.model_folder {
            Some(models) => Networks::read(&folder.join(models)),
            None => Networks::shipped(),
        };
        let model = model.map_err(wrong)?;
        if model.pins() != calibration.model {
            return Err(SettingsError::OtherModel(name));
        }
        let liveness = match &calibration.liveness {
            Some(settings) => {
                let model = OnnxLiveness::read(folder, settings).map_err(wrong)?;
                Some((Box::new(model) as Box<dyn LivenessModel>, settings.threshold))
            }
            None => None,
        };
        let desk = Arc::new(FaceDesk::new(Box::new(model), liveness, calibration.chosen.threshold as f32));
        Ok(Self {
            desk,
            calibration,
            turn: Arc::new(tokio::sync::Semaphore::new(1)),
            waiting: tokio::sync::Semaphore::new(WAITING_MAX),
        })
    }

    /// A challenge for a party.
    pub(crate) fn challenge(&self, asked: &Asked) -> Result<Challenge, Refused> {
        Ok(self.desk.challenge(asked.bound, now_ms())?)
    }

    /// An open challenge of a party.
    pub(crate) fn open_challenge(&self, asked: &Asked, id: &str) -> Result<Challenge, Refused> {
        let open = self.desk.open(id, asked.bound, now_ms());
        open.ok_or(Refused::Face(Why::NoChallenge.into()))
    }

    /// How many tries a party has left.
    pub(crate) fn attempts_left(&self, asked: &Asked) -> u8 {
        self.desk.attempts_left(asked.bound, now_ms())
    }

    /// Whether an answer, with a terminal's assertion over it, shows the party: the assertion is of this challenge, the terminal took
    /// these frames, the document has the party's number, and the face is live and the document's.
    pub(crate) async fn judge(
        &self,
        asked: &Asked,
        challenge: &str,
        answer: Answer,
        assertion: &Assertion,
        binding: &[u8; 64],
    ) -> Result<(), Refused> {
        let busy = Refused::Face(Why::Busy.into());
        let _waiting = self.waiting.try_acquire().map_err(|_| busy)?;
        // used up now, so that a wait for one's turn is not held against the person
        let challenge = self.desk.take(challenge, asked.bound, now_ms())?;
        let fits = assertion.case == asked.case
            && assertion.role == asked.role
            && assertion.method == IdentityMethod::Face
            && assertion.level == AssuranceLevel::Substantial
            && assertion.signer == assertion.terminal
            && assertion.nonce == challenge.nonce;
        let bound = face_binding(assertion, &answer.shown(&challenge.id));
        if !fits || !crypto::verify(&assertion.terminal, &bound, binding) {
            return Err(Refused::Terminal);
        }
        let number = identifier::renewed(&answer.number).unwrap_or_else(|| answer.number.clone());
        if number != asked.number {
            return Err(Refused::OtherNumber);
        }
        let turn = self.turn.clone().acquire_owned().await.map_err(|_| busy)?;
        let desk = self.desk.clone();
        let judged = tokio::task::spawn_blocking(move || {
            // also where nobody waits for it any more, the next begins only after it
            let _turn = turn;
            desk.judge_taken(&challenge, &answer.document, &answer.frames)
        });
        judged.await.map_err(|_| Refused::Face(Why::Model.into()))??;
        Ok(())
    }
}

/// What a person is asked to do before a terminal's camera.
#[derive(Serialize, ToSchema)]
pub(crate) struct FaceChallenge {
    /// Its name.
    pub(crate) challenge: String,
    /// What the assertion carries as `nonce`, in decimal.
    nonce: String,
    /// The poses, each to be shown in one frame: `straight`, `turn_left`, `turn_right`, `open_mouth`.
    pub(crate) poses: Vec<String>,
    /// When its time is over, in milliseconds since 1970.
    expires_ms: u64,
    /// How many tries are left after this one.
    attempts_left: u8,
}

impl From<Challenge> for FaceChallenge {
    fn from(c: Challenge) -> Self {
        Self {
            challenge: c.id,
            nonce: c.nonce.to_string(),
            poses: c.poses.iter().map(|p| p.as_str().to_owned()).collect(),
            expires_ms: c.expires_ms,
            attempts_left: c.attempts_left,
        }
    }
}

/// A terminal's answer, as a multipart form.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only its form is described; the parts are read one by one")]
pub(crate) struct FaceAnswer {
    /// The number on the document.
    number: String,
    /// The photograph on the document: JPEG or PNG, at most 4 MiB.
    #[schema(format = Binary, value_type = String)]
    document: Vec<u8>,
    /// One frame for each pose, in order: JPEG or PNG.
    #[schema(value_type = Vec<String>)]
    frame: Vec<Vec<u8>>,
    /// When each frame was taken, in milliseconds since the first, divided by commas.
    at: String,
    /// The assertion's canonical bytes, in hexadecimal.
    assertion: String,
    /// The terminal's signature of the assertion, in hexadecimal.
    signature: String,
    /// The terminal's signature over the frames, in hexadecimal.
    binding: String,
}

fn off() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "face_off",
        "this node does not compare faces: `face` in node.toml names no calibration file",
    )
}

fn asked(served: &crate::api::Served, id: &str, role: &str) -> Result<Asked, Problem> {
    let view = served.flow.case(parse(id)?).ok_or(flow::CaseError::Unknown("case"))?;
    Ok(Asked::of(served.flow.chain().rules().chain, &view, &parse(role)?)?)
}

#[utoipa::path(post, path = "/api/v1/cases/{id}/face/{role}", params(("id" = String, Path), ("role" = String, Path)),
    responses((status = 201, body = FaceChallenge), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn challenge(
    State(served): Shared,
    Path((id, role)): Path<(String, String)>,
) -> Result<(StatusCode, Json<FaceChallenge>), Problem> {
    let booth = served.booth().ok_or_else(off)?;
    let challenge = booth.challenge(&asked(&served, &id, &role)?)?;
    Ok((StatusCode::CREATED, Json(challenge.into())))
}

/// Identifies a party by their face, where the terminal that signs is enrolled and the node finds the face live and the document's.
#[utoipa::path(post, path = "/api/v1/cases/{id}/face/{role}/{challenge}",
    params(("id" = String, Path), ("role" = String, Path), ("challenge" = String, Path)),
    request_body(content = FaceAnswer, content_type = "multipart/form-data"),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn answer(
    State(served): Shared,
    Path((id, role, challenge)): Path<(String, String, String)>,
    body: Multipart,
) -> Result<StatusCode, Problem> {
    let booth = served.booth().ok_or_else(off)?;
    let asked = asked(&served, &id, &role)?;
    let answer = Answer::read(body).await;
    let answer = answer.ok_or_else(|| bad("the form cannot be read; docs/face.md describes it"))?;
    let assertion: Assertion = canonical(answer.text("assertion"))?;
    let (signed, binding) = (signature(answer.text("signature"))?, signature(answer.text("binding"))?);
    booth.judge(&asked, &challenge, answer, &assertion, &binding).await?;
    served.identify(assertion, signed).await?;
    Ok(StatusCode::NO_CONTENT)
}
