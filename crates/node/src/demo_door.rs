//! The demo's door: people sign in by choosing who they are. It exists in no other mode.

use crypto::SigningKey;
use flow::Person;
use identity::Terminal;
use model::{FieldId, MatterId, RoleId};
use std::{collections::BTreeMap, sync::Arc};

/// Somebody one can be in the demo, with an application that waits for them. All are invented.
#[derive(Clone, Debug)]
pub struct Persona {
    /// Who.
    pub who: Person,
    /// The matter they have in mind.
    pub matter: MatterId,
    /// Their role in it.
    pub role: RoleId,
    /// What they would fill in.
    pub form: BTreeMap<FieldId, String>,
    /// Everybody by role, themselves too.
    pub parties: BTreeMap<RoleId, Person>,
}

/// What the demo's pages may do that a real portal may not: vouch and sign for an invented person.
#[derive(Clone)]
pub struct DemoDoor {
    /// The people to choose from.
    pub personas: Arc<Vec<Persona>>,
    /// The counter terminal.
    pub terminal: Arc<Terminal>,
    /// The seed of the personas' device keys.
    pub device_seed: [u8; 32],
}

impl DemoDoor {
    /// The key on a persona's device.
    pub fn device(&self, id: &str) -> SigningKey {
        let suite = self.terminal.public().suite();
        let seed = crypto::keyed_hash(suite, &self.device_seed, "tongban/demo-device/1", id.as_bytes());
        SigningKey::from_seed(suite, seed.0).expect("none in about 2^32 is no key")
    }
}
