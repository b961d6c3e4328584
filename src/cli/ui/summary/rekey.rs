//! What a rekey did, and what a change of the recipients means: what opens with which key now, and what does not yet.
//!
//! The part that is easily forgotten is said each time: old objects stay for a while, and a removed key opens them.

use std::fmt::Write as _;

use super::{label, short};
use crate::cli::exit::RecipientsChanged;
use crate::cli::ui::text::{Colour, bytes, count, counted, escaped};
use crate::ops::rekey;

pub(super) fn rekeyed(out: &mut String, report: &rekey::Report, colour: bool) {
    let heading = if report.dry_run {
        "dry run, nothing was touched"
    } else {
        "sealed anew"
    };
    let _ = writeln!(out, "{}", Colour::Bold.paint(heading, colour));
    label(out, "to", &counted(report.recipients.len() as u64, "recipient"));
    if let Some(signer) = &report.signer {
        label(out, "signer", signer);
    }
    let snapshots = &report.snapshots;
    let signed = if snapshots.signed == 0 {
        String::new()
    } else {
        format!(", {} signed by the writer key here", count(snapshots.signed))
    };
    label(out, "snapshots", &format!("{}{signed}", count(snapshots.resealed)));
    for (signer, number) in &snapshots.doubted {
        let who = if signer.is_empty() {
            "by nobody".to_owned()
        } else {
            format!("by {}", escaped(signer))
        };
        label(out, "", &format!("{} of them signed {who}, who is not known here", count(*number)));
    }
    if snapshots.doubted.keys().any(|signer| !signer.is_empty()) {
        label(
            out,
            "",
            "if that is your old writer key: run it again with --signer, and no backup starts from nothing",
        );
    }
    label(out, "index", &counted(report.segments, "segment"));
    if let Some(plan) = &report.plan {
        // Of what was planned, what was done; a dry run has done nothing.
        let left = report
            .applied
            .as_ref()
            .map_or(0, |applied| applied.not_opened.len() + applied.damaged.len());
        let moved = (plan.repack.len() - left) as u64;
        let moved_bytes = report.applied.as_ref().map_or(plan.bytes_moved, |applied| applied.moved_bytes);
        let packs = counted(moved, "pack");
        let what = if report.packs {
            ""
        } else {
            " of metadata; content stays as it is without --packs"
        };
        label(out, "packs", &format!("{} in {packs}{what}", bytes(moved_bytes)));
        if moved > 0 || !plan.condemn.is_empty() {
            label(
                out,
                "later",
                "the old packs are marked: a prune deletes them after the grace period, and until then old keys open them",
            );
        }
    }
}

pub(super) fn changed(out: &mut String, change: &RecipientsChanged) {
    let word = if change.added { "added to" } else { "removed from" };
    let _ = writeln!(out, "{} {word} {}", escaped(&change.recipient), escaped(&change.settings));
    label(out, "now", &counted(change.recipients.len() as u64, "recipient"));
    if change.added {
        label(out, "from now", "what backups write opens with its key as well");
        label(
            out,
            "before",
            "what is there does not: `rekey --packs --identity FILE` seals it anew",
        );
    } else {
        label(out, "from now", "what backups write does not open with its key");
        label(
            out,
            "before",
            "what is there still does, until `rekey --packs --identity FILE` and, a day later, `prune`",
        );
    }
    if change.recipients.len() == 1 {
        let only = change.recipients.first().map(|one| short(one)).unwrap_or_default();
        label(
            out,
            "mind",
            &format!("{only}… is the only one: who loses its key loses everything; keep a second one in a safe"),
        );
    }
}
