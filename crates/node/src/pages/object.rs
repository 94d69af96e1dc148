//! What a person does about a value that is wrong: object to it, and see what came of it.

use super::visit::{Posted, Seen};
use crate::sharing::wrong_of;
use askama::Template;
use axum::{
    extract::Path,
    http::StatusCode,
    response::{IntoResponse as _, Redirect, Response},
};
use ledger::{Key, ObjectionRecord};
use model::{CallId, Day, FieldId, StepId};

/// A value of the call.
struct ValueRow {
    id: String,
    title: String,
    /// What came of an objection; empty where there is none.
    state: String,
    class: &'static str,
    /// Whether it may be objected to now.
    free: bool,
}

#[derive(Template)]
#[template(path = "object.html")]
struct ObjectPage<'a> {
    seen: &'a Seen,
    v: &'a super::visit::Visit,
    at: &'static str,
    step: String,
    from: String,
    values: Vec<ValueRow>,
    wrongs: [(&'static str, String); 4],
    free: bool,
}

/// The step, where its newest call gave something and is about the visitor; a clerk may act for anybody at the window.
fn own(seen: &Seen, step: &str) -> Option<(StepId, CallId)> {
    let id: StepId = step.parse().ok()?;
    let declared = seen.view.package.step(&id)?;
    if !seen.by_clerk() && !declared.party.as_ref().is_some_and(|party| seen.roles.contains(party)) {
        return None;
    }
    Some((id.clone(), seen.visit.served.flow.answered_call(seen.view.case.id, &id)?))
}

pub(super) async fn page(seen: Seen, Path((_, step)): Path<(String, String)>) -> Response {
    let Some((step, call)) = own(&seen, &step) else {
        return seen.visit.error(StatusCode::NOT_FOUND, "error-unknown");
    };
    let (visit, t) = (&seen.visit, &seen.visit.t);
    let Some(declared) = seen.view.package.step(&step) else {
        return visit.error(StatusCode::NOT_FOUND, "error-unknown");
    };
    let resource = declared.resource.as_ref().and_then(|r| visit.served.flow.resource(r));
    let title = |name: &FieldId| {
        let resource = resource.as_ref()?;
        let field = resource.fields.iter().find(|f| &f.id == name).map(|f| &f.title);
        let title = field.or(resource.predicates.iter().find(|p| &p.id == name).map(|p| &p.title))?;
        Some(t.pick(title).to_owned())
    };
    let mut values = Vec::new();
    for name in declared.what.as_ref().map(|w| w.names()).unwrap_or_default() {
        let key = Key::Objection(call, name.clone());
        let record = match visit.served.flow.chain().record::<ObjectionRecord>(&key).await {
            Ok(record) => record,
            Err(_) => return visit.error(StatusCode::SERVICE_UNAVAILABLE, "error-other"),
        };
        let free = record.as_ref().is_none_or(|r| r.answer.is_some());
        let (state, class) = match record {
            None => (String::new(), ""),
            Some(ObjectionRecord { answer: None, due_ms, wrong, .. }) => {
                let (wrong, open) = (t.get(&format!("wrong-{}", wrong.as_str())), t.get("objection-open"));
                (format!("{wrong} – {open} – {} {}", t.get("sharing-due"), Day::of(due_ms)), "waiting")
            }
            Some(ObjectionRecord { answer: Some((_, verdict)), .. }) => {
                (t.get(&format!("objection-{}", verdict.as_str())), "done")
            }
        };
        let title = title(&name).unwrap_or_else(|| name.to_string());
        values.push(ValueRow { id: name.to_string(), title, state, class, free });
    }
    let wrong = |word: &'static str| (word, t.get(&format!("wrong-{word}")));
    visit.show(&ObjectPage {
        seen: &seen,
        v: visit,
        at: "mine",
        step: step.to_string(),
        from: declared.holder.as_ref().map(|h| visit.department(h.as_str())).unwrap_or_default(),
        free: values.iter().any(|v| v.free),
        values,
        wrongs: ["untrue", "outdated", "incomplete", "another_person"].map(wrong),
    })
}

pub(super) async fn object(seen: Seen, Path((_, step)): Path<(String, String)>, posted: Posted) -> Response {
    let Some((step, _)) = own(&seen, &step) else {
        return seen.visit.error(StatusCode::NOT_FOUND, "error-unknown");
    };
    let (Ok(name), Some(wrong)) = (posted.get("name").parse(), wrong_of(posted.get("wrong"))) else {
        return seen.visit.error(StatusCode::UNPROCESSABLE_ENTITY, "error-invalid");
    };
    let case = seen.view.case.id;
    match seen.visit.served.flow.object(case, &step, name, wrong).await {
        Ok(_) => Redirect::to(&format!("/case/{case}/object/{step}")).into_response(),
        Err(e) => seen.visit.failed(&e),
    }
}
