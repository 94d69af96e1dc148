//! The page with the camera: a person is identified by their face at a terminal, or goes another way.

use super::{
    cases::own_role,
    visit::{Posted, Seen, Visit},
};
use crate::{
    api::now_ms,
    face::{Answer, Asked, Booth, FaceChallenge, Refused},
};
use askama::Template;
use axum::{
    Json,
    extract::{FromRequest as _, Multipart, Path, Request},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use identity::Identified;
use model::RoleId;
use serde_json::json;

#[derive(Template)]
#[template(path = "face.html")]
struct FacePage<'a> {
    v: &'a Visit,
    at: &'static str,
    id: String,
    role: String,
    left: u8,
    measured: String,
    texts: Vec<(&'static str, String)>,
}

/// What the page's script says.
const SAID: [&str; 9] = [
    "straight",
    "turn_left",
    "turn_right",
    "open_mouth",
    "sending",
    "passed",
    "no_camera",
    "offline",
    "left",
];

/// Whether a party may still be identified by face here.
pub(super) fn may(seen: &Seen, role: &RoleId) -> bool {
    let visit = &seen.visit;
    let asked = Asked::of(visit.served.flow.chain().rules().chain, &seen.view, role);
    let left = |booth: &Booth| asked.as_ref().is_ok_and(|asked| booth.attempts_left(asked) > 0);
    visit.served.door.is_some() && visit.served.booth().is_some_and(left)
}

fn asked<'a>(seen: &'a Seen, role: &RoleId) -> Result<(&'a Booth, Asked), Refused> {
    let booth = seen.visit.served.booth().ok_or(Refused::Unknown)?;
    Ok((booth, Asked::of(seen.visit.served.flow.chain().rules().chain, &seen.view, role)?))
}

pub(super) async fn page(seen: Seen, Path((_, role)): Path<(String, String)>) -> Response {
    let Some(role) = own_role(&seen, &role) else { return seen.visit.sign_in_first() };
    let t = &seen.visit.t;
    match asked(&seen, &role) {
        Ok((booth, asked)) => {
            let c = &booth.calibration;
            let at_most = format!("{:.4}", c.chosen.false_accept_at_most);
            let measured = t.with(
                "face-measured",
                &[("people", c.people.to_string()), ("day", c.day.clone()), ("rate", at_most)],
            );
            seen.visit.show(&FacePage {
                v: &seen.visit,
                at: if seen.by_clerk() { "desk" } else { "home" },
                id: seen.view.case.id.to_string(),
                role: role.to_string(),
                left: booth.attempts_left(&asked),
                measured,
                texts: SAID
                    .iter()
                    .map(|key| (*key, t.get(&format!("face-{}", key.replace('_', "-")))))
                    .collect(),
            })
        }
        Err(refused) => seen.visit.error(StatusCode::CONFLICT, &key(refused)),
    }
}

/// The text of a refusal.
fn key(refused: Refused) -> String {
    match refused {
        Refused::Unknown => "error-unknown".into(),
        Refused::Identified => "error-changed".into(),
        refused => refused.code().replace('_', "-"),
    }
}

fn refused(seen: &Seen, role: &RoleId, why: Refused) -> Response {
    let left = asked(seen, role).map(|(booth, asked)| booth.attempts_left(&asked)).unwrap_or_default();
    let body = json!({ "message": seen.visit.t.get(&key(why)), "code": why.code(), "left": left });
    (StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response()
}

pub(super) async fn challenge(seen: Seen, Path((_, role)): Path<(String, String)>, _: Posted) -> Response {
    let Some(role) = own_role(&seen, &role) else { return seen.visit.sign_in_first() };
    match asked(&seen, &role).and_then(|(booth, asked)| booth.challenge(&asked)) {
        Ok(challenge) => Json(FaceChallenge::from(challenge)).into_response(),
        Err(why) => refused(&seen, &role, why),
    }
}

pub(super) async fn answer(
    seen: Seen,
    Path((_, role, challenge)): Path<(String, String, String)>,
    request: Request,
) -> Response {
    let (visit, Some(role)) = (&seen.visit, own_role(&seen, &role)) else {
        return seen.visit.sign_in_first();
    };
    let body = match Multipart::from_request(request, &visit.served).await {
        Ok(body) => Answer::read(body).await,
        Err(_) => None,
    };
    let Some(answer) = body else { return visit.error(StatusCode::BAD_REQUEST, "error-invalid") };
    let (true, Some(door)) = (visit.owns(answer.text("csrf")), visit.served.door.as_ref()) else {
        return visit.sign_in_first();
    };
    let judged = async {
        let (booth, asked) = asked(&seen, &role)?;
        let nonce = booth.open_challenge(&asked, &challenge)?.nonce;
        let party = seen.view.case.parties.iter().find(|p| p.role == role).ok_or(Refused::Unknown)?;
        let chain = visit.served.flow.chain().rules().chain;
        let who = Identified {
            chain,
            case: seen.view.case.id,
            role: &role,
            subject: party.subject,
            at_ms: now_ms(),
        };
        let (assertion, signature, binding) =
            door.terminal.vouch_for_face(&who, nonce, &answer.shown(&challenge));
        booth.judge(&asked, &challenge, answer, &assertion, &binding).await?;
        Ok((assertion, signature))
    };
    match judged.await {
        Ok((assertion, signature)) => match visit.served.identify(assertion, signature).await {
            Ok(()) => Json(json!({ "to": format!("/case/{}", seen.view.case.id) })).into_response(),
            Err(e) => visit.failed(&e),
        },
        Err(why) => refused(&seen, &role, why),
    }
}
