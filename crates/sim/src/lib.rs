//! Runs a whole consortium from a seed – consensus, ledger, gateways, cases, people – in one deterministic process, with
//! crashes, partitions, rough networks, wrong clocks and liars, and checks what must hold.

pub mod check;
pub mod disk;
mod people;
pub mod plan;
pub mod run;
pub mod wires;
pub mod world;

pub use run::{Report, run};

/// The planted bugs: each switches one rule off, and every one must be caught.
pub const BUGS: [(&str, &str); 18] = [
    ("action_twice", "a department's system forgets which actions it has done"),
    ("release_before_final", "a holder releases its payload before the answer is final"),
    ("answer_after_withdrawal", "the ledger takes answers under a withdrawn consent"),
    ("skip_subject_check", "a holder does not check whom a call is about (with a handler that lies)"),
    ("confirm_lost", "an asker that crashed never confirms what it had opened"),
    ("revocation_ignored", "the ledger goes on granting calls under a basis its holder took back"),
    ("duplicate_case", "the ledger opens the same application twice"),
    ("undo_after_pivot", "the ledger lets a case be withdrawn after something was done"),
    ("left_standing", "a case is withdrawn and what was done before its pivot stays"),
    ("unlisted", "a handler asks outside of an agreed list, and the ledger lets it"),
    ("number_reused", "the ledger gives a number twice"),
    ("skip_signatures", "a validator does not check signatures (with an intruder)"),
    ("one_approval", "the ledger adopts a change that a single department approved"),
    ("uncounted_call", "the ledger does not count every call granted in a case"),
    ("false_statement", "a holder leaves an answer out of its statement"),
    ("amnesia", "a validator that lost its votes votes again in the same epoch"),
    ("half_past", "a handler that lost its ledger acts on the blocks it reads again"),
    ("any_time", "a validator votes for blocks of any time (with a wrong clock)"),
];
