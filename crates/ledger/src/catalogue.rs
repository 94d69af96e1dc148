//! Publishing resources and matters, and approving statutory bases.

use crate::{
    apply::Scene,
    sharing,
    state::{Decision, Key, MatterRecord, Stop, ensure},
};
use model::*;

/// The most fields and predicates of a resource, and names in all needs of a matter: bounds what one call costs to decide.
pub(crate) const NAMES_MAX: usize = 512;
/// The most data needs, and the most actions, of a matter.
const STEPS_MAX: usize = 128;

/// A holder publishes its own entries, each version following the last, without repeated names.
pub(crate) fn publish_resource(
    scene: &Scene<'_>,
    state: &mut Decision<'_>,
    new: &Resource,
) -> Result<Fact, Stop> {
    ensure(&new.holder == scene.signer, Refusal::NotYours)?;
    let key = Key::Resource(new.id.clone());
    let old: Option<Resource> = state.get(&key)?;
    if let Some(old) = &old {
        ensure(&old.holder == scene.signer, Refusal::NotYours)?;
    }
    ensure(new.version == old.map_or(1, |o| o.version + 1), Refusal::WrongVersion)?;
    let mut names: Vec<_> =
        new.fields.iter().map(|f| &f.id).chain(new.predicates.iter().map(|p| &p.id)).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    ensure(count > 0 && names.len() == count, Refusal::WrongShape)?;
    ensure(count <= NAMES_MAX, Refusal::Oversized)?;
    state.put(&key, new);
    Ok(Fact::Recorded)
}

/// The most keywords, and the most related resources, of a description.
const WORDS_MAX: usize = 64;
/// The longest code, in bytes.
const CODE_BYTES_MAX: usize = 128;

/// A holder describes its own entry, each version following the last. A description is public, and names no person.
pub(crate) fn describe_resource(
    scene: &Scene<'_>,
    state: &mut Decision<'_>,
    new: &DescribeResource,
) -> Result<Fact, Stop> {
    let resource: Resource = state.need(&Key::Resource(new.resource.clone()), Refusal::UnknownResource)?;
    ensure(&resource.holder == scene.signer, Refusal::NotYours)?;
    let key = Key::Description(new.resource.clone());
    let old: Option<DescribeResource> = state.get(&key)?;
    ensure(new.version == old.map_or(1, |o| o.version + 1), Refusal::WrongVersion)?;
    let Description { about, keywords, category, code, process, scope, format, open, related } =
        &new.description;
    ensure(keywords.len() <= WORDS_MAX && related.len() <= WORDS_MAX, Refusal::Oversized)?;
    for text in keywords.iter().chain([about, process, scope, &category.name]) {
        ensure(!text.zh.trim().is_empty(), Refusal::WrongShape)?;
        sharing::plain(&text.zh)?;
        sharing::plain(&text.en)?;
    }
    // open to everybody on no condition: nothing is said
    for text in [&category.scheme, format].into_iter().chain(open.iter().filter(|o| !o.is_empty())) {
        sharing::plain(text)?;
    }
    // codes have many digits; but no part of one is as long as a telephone or identity number and of its form
    let somebodys = |run: &str| {
        let digits = run.bytes().all(|b| b.is_ascii_digit());
        digits && (run.len() == 11 && run.starts_with('1') || run.len() == 15)
            || identifier::resident(run).is_ok()
    };
    let plain = |code: &String| {
        let known = |b: u8| b.is_ascii_alphanumeric() || b"/._-".contains(&b);
        let parts = || code.split(|c: char| !c.is_ascii_alphanumeric());
        code.len() <= CODE_BYTES_MAX && code.bytes().all(known) && !parts().any(somebodys)
    };
    ensure([code, &category.code].into_iter().chain(related).all(plain), Refusal::UnfitText)?;
    ensure(!code.is_empty(), Refusal::WrongShape)?;
    state.put(&key, new);
    Ok(Fact::Recorded)
}

/// The handler publishes a matter; every version follows the last of the same handler.
pub(crate) fn publish_matter(
    scene: &Scene<'_>,
    state: &mut Decision<'_>,
    new: &PublishMatter,
) -> Result<Fact, Stop> {
    let newest = Key::MatterVersion(new.id.clone());
    let version: u32 = state.get(&newest)?.unwrap_or(0);
    if version > 0 {
        let old: MatterRecord = state.need(&Key::Matter(new.id.clone(), version), Refusal::UnknownMatter)?;
        ensure(&old.handler == scene.signer, Refusal::NotYours)?;
    }
    ensure(new.version == version + 1, Refusal::WrongVersion)?;
    let names: usize = new.needs.iter().map(|n| n.what.names().len()).sum();
    let fits = new.needs.len() <= STEPS_MAX && new.actions.len() <= STEPS_MAX && names <= NAMES_MAX;
    ensure(fits, Refusal::Oversized)?;
    let mut steps: Vec<_> =
        new.needs.iter().map(|n| &n.step).chain(new.actions.iter().map(|a| &a.0)).collect();
    let count = steps.len();
    steps.sort();
    steps.dedup();
    ensure(steps.len() == count, Refusal::WrongShape)?;
    let member = |id: &DepartmentId| scene.block.roster.member(id).is_some();
    let known = new.needs.iter().all(|n| member(&n.recipient) && member(&n.holder))
        && new.actions.iter().all(|a| member(&a.1));
    ensure(known, Refusal::NotYours)?;
    state.put(&newest, &new.version);
    let record = MatterRecord { handler: scene.signer.clone(), published: new.clone() };
    state.put(&Key::Matter(new.id.clone(), new.version), &record);
    Ok(Fact::Recorded)
}

/// A holder approves beforehand that an asker may use its resource under a cited duty; never for itself.
pub(crate) fn approve_basis(
    scene: &Scene<'_>,
    state: &mut Decision<'_>,
    new: &ApproveBasis,
) -> Result<Fact, Stop> {
    ensure(new.names.len() <= NAMES_MAX, Refusal::Oversized)?;
    let resource: Resource = state.need(&Key::Resource(new.resource.clone()), Refusal::UnknownResource)?;
    ensure(&resource.holder == scene.signer && &new.asker != scene.signer, Refusal::NotYours)?;
    ensure(!matches!(resource.share, ShareClass::NotShared { .. }), Refusal::NotShared)?;
    ensure(new.names.iter().all(|n| has_name(&resource, n)), Refusal::UnknownField)?;
    ensure(!new.citation.trim().is_empty(), Refusal::WrongShape)?;
    if scene.block.roster.protocol >= SHARING_PROTOCOL {
        sharing::grant(scene, state, new)?;
    }
    state.put(&Key::Approval(scene.signer.clone(), new.id.clone()), new);
    Ok(Fact::Recorded)
}

/// Whether a resource has a field or predicate of this name.
pub(crate) fn has_name(resource: &Resource, name: &FieldId) -> bool {
    resource.fields.iter().any(|f| &f.id == name) || resource.predicates.iter().any(|p| &p.id == name)
}
