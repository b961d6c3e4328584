//! The rules of the protocol, each with the mistake that turns it off: the simulation must find every one of them.
//!
//! The product asks [`planted`] at the place where it keeps a rule, in lines that exist under `cfg(test)` only. A bug is
//! planted for one thread, since a simulated world runs on one; all other tests go on with the rules. The worlds stand in
//! `ops::simulation`.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::format::PackId;
use crate::format::repository::RepositoryInfo;
use crate::repo::Repository;
use crate::repo::catalog::Presence;

/// One mistake in the code. (No grace, a window longer than it, stamps that lag too much, and writes that land again much later are
/// mistakes of the world: see `ops::simulation::tests`.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// B4: no check before the commit.
    NoCheck,
    /// B4a: the Date is taken after the lists.
    DateAfterLists,
    /// B4c: packs are not listed.
    PacksNotListed,
    /// B4: packs are listed before the markers.
    PacksBeforeMarkers,
    /// B5: no fence, `not_after` is ignored.
    NoFence,
    /// B4: the check comes only after the commit, and takes it back.
    CheckAfterCommit,
    /// B2: the snapshot does not wait for its index segment.
    SnapshotBeforeSegment,
    /// B2: the segment does not wait for its pack.
    SegmentBeforePack,
    /// B6: success is told without the HEAD.
    NoHead,
    /// B6: success is told of a snapshot that the same PUT, landing once more, can make late.
    CountsAnyhow,
    /// B4b: the marks of an earlier look are used again.
    MarksReused,
    /// B4b: markers are not looked at.
    MarkersIgnored,
    /// B3: a copy does not remember packs that the destination had.
    CopyForgets,
    /// P8: the marker is deleted before its pack.
    MarkerBeforePack,
    /// P8: a marker is taken back because its pack is live again.
    MarkerTakenBack,
    /// P7: copies count that are condemned.
    CondemnedCopies,
    /// P7: copies count in packs that are not there (or, to the same effect, that no segment names).
    AbsentCopies,
    /// C4: segments are deleted before others are written.
    CompactDeletesFirst,
    /// C4: segments are deleted that were not read.
    CompactDeletesUnread,
    /// C2: packs are listed before the index is read.
    CompactPacksFirst,
    /// C3: when a segment shrinks, lines of marked packs are left out as well.
    ShrinkDropsMarked,
    /// C4: what was to shrink is deleted, whether it was read or not.
    ShrinkDeletesUnread,
    /// R3: a restore keeps its first index.
    FirstIndexKept,
    /// P0: what was chosen is deleted only after packs.
    PacksBeforeSnapshots,
    /// C3, C4: a segment is deleted before it is written anew.
    ResealDeletesFirst,
    /// A snapshot is deleted before it is committed again.
    RekeyDeletesFirst,
    /// B3: what is committed again relies on nothing.
    RekeyForgets,
}

/// Markers that were seen, by the address of a repository's information, which is kept so that the address is not used again.
type Marks = HashMap<usize, (Arc<RepositoryInfo>, HashSet<PackId>)>;

thread_local! {
    static SIMULATING: Cell<bool> = const { Cell::new(false) };
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    /// By the address of a process's own `repository.json`, which is kept: addresses that come back would not repeat.
    static MARKS: RefCell<Marks> = RefCell::default();
}

/// Does this thread simulate? Then nothing waits for a real clock: the scheduler decides what comes late.
pub(crate) fn simulating() -> bool {
    SIMULATING.get()
}

/// From now on, on this thread.
pub(crate) fn simulate(yes: bool) {
    SIMULATING.set(yes);
}

/// Is this mistake to be made?
pub(crate) fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// From now on, on this thread.
pub(crate) fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
    MARKS.take();
}

/// [`Bug::MarksReused`]: the first marks that a process saw stand for those that were read now.
pub(crate) fn reuse_marks(repository: &Repository, presence: &mut Presence) {
    if planted(Bug::MarksReused) {
        let process = Arc::as_ptr(&repository.info) as usize;
        MARKS.with_borrow_mut(|marks| {
            let now = || (Arc::clone(&repository.info), presence.condemned.clone());
            let (_, first) = marks.entry(process).or_insert_with(now);
            presence.condemned.clone_from(first);
        });
    }
}
