//! Snapshots that are written again: who deletes the old object must leave another one that counts.
//!
//! A prune may delete any snapshot: so it is forgotten. A rekey forgets nothing: when it asks for the deletion of one that counts, the
//! same snapshot must count under another key, or a prune has forgotten it meanwhile.

use std::collections::{BTreeMap, HashSet};

use super::processes::Role;
use super::truth::{Broken, Truth};
use super::wire::Ask;
use crate::format::ObjectId;

/// Who deletes snapshots that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Prune,
    Rekey,
}

/// What was asked so far.
#[derive(Debug, Default)]
pub(super) struct Again {
    who: BTreeMap<usize, Who>,
    forgotten: HashSet<ObjectId>,
}

impl Again {
    /// A process begins.
    pub(super) fn begins(&mut self, process: usize, role: &Role) {
        let who = match role {
            Role::Prune(_) => Who::Prune,
            Role::Rekey(_) => Who::Rekey,
            _ => return,
        };
        self.who.insert(process, who);
    }

    /// It asks for something.
    pub(super) fn asks(&mut self, process: usize, ask: &Ask, truth: &Truth) -> Result<(), Broken> {
        let Ask::Delete(key) = ask else { return Ok(()) };
        let Some(known) = truth.snapshots.get(key) else { return Ok(()) };
        match self.who.get(&process) {
            Some(Who::Prune) => {
                self.forgotten.insert(known.id);
                Ok(())
            }
            Some(Who::Rekey) if known.listed() && !self.forgotten.contains(&known.id) => {
                let mut others = truth.snapshots.iter().filter(|(other, one)| *other != key && one.id == known.id);
                if others.any(|(_, one)| one.listed()) {
                    return Ok(());
                }
                Err(format!(
                    "process {process} deletes {key}, and that snapshot counts under no other key"
                ))
            }
            _ => Ok(()),
        }
    }
}
