//! What `keys list` prints: public halves only, what they open, and who signed.
//!
//! Where the numbers do not fit the settings, that is said with what to do about it.

use std::fmt::Write as _;

use super::table::{Side, Table};
use super::text::{count, counted, escaped};
use crate::ops::keys::{Report, Sealed};

pub(super) fn keys(report: &Report, colour: bool) -> String {
    let mut out = String::new();
    let mut table = Table::new(&[("key", Side::Left), ("what it is", Side::Left)]);
    for recipient in &report.recipients {
        table.row(vec![
            recipient.clone(),
            "recipient: opens everything that is written from now on".into(),
        ]);
    }
    if let Some(writer) = &report.writer {
        table.row(vec![
            writer.clone(),
            "writer key: opens names and lists, stays on the server".into(),
        ]);
    }
    for identity in report.identities.iter().filter(|one| !report.recipients.contains(one)) {
        table.row(vec![identity.clone(), "identity at hand; not a recipient of the settings".into()]);
    }
    if let Some(signer) = &report.signer {
        table.row(vec![signer.clone(), "signer: the writer key's own".into()]);
    }
    for signer in &report.signers {
        table.row(vec![signer.clone(), "signer that is pinned".into()]);
    }
    if report.recipients.is_empty() && report.writer.is_none() && report.identities.is_empty() && report.signers.is_empty() {
        let is_sealed = !report.sealed.is_empty();
        out.push_str(if is_sealed {
            "no keys at hand\n"
        } else {
            "no keys: nothing is sealed\n"
        });
    } else {
        out.push_str(&table.print(colour));
    }
    sealed(&mut out, report);
    signed(&mut out, report);
    out
}

fn sealed(out: &mut String, report: &Report) {
    for one in report.sealed.iter().filter(|one| one.objects > 0) {
        let numbers: Vec<String> = one
            .by_recipients
            .iter()
            .map(|(keys, objects)| format!("{} to {}", count(*objects), counted(*keys as u64, "key")))
            .collect();
        let numbers = match one.by_recipients.iter().next() {
            Some((keys, _)) if numbers.len() == 1 => format!("each to {}", counted(*keys as u64, "key")),
            _ => numbers.join(", "),
        };
        let _ = writeln!(out, "\n{}: {} sealed, {numbers}", one.kind, count(one.objects));
        for (key, objects) in &one.opened_by {
            let _ = writeln!(out, "  {} opened by {}", count(*objects), escaped(key));
        }
        if one.unopened > 0 {
            let _ = writeln!(out, "  {} opened by no key at hand", count(one.unopened));
        }
        if let Some(due) = due(one, report) {
            let _ = writeln!(out, "  {due}");
        }
    }
}

/// The number of recipients shows what was surely sealed to others; of the rest only an old identity can tell.
fn due(one: &Sealed, report: &Report) -> Option<String> {
    let recipients = report.recipients.len();
    let fits = |found: usize| found == recipients + 1 || one.kind == "packs" && found == recipients;
    if recipients > 0 && one.by_recipients.keys().any(|found| !fits(*found)) {
        let packs = if one.kind == "packs" { " --packs" } else { "" };
        return Some(format!(
            "not all are sealed to the {recipients} of the settings: `rekey{packs}` does it"
        ));
    }
    let old = one
        .opened_by
        .keys()
        .find(|key| !report.recipients.contains(key) && report.writer.as_ref() != Some(key));
    let packs = if one.kind == "packs" { " --packs" } else { "" };
    old.filter(|_| recipients > 0)
        .map(|key| format!("{} is not in the settings and opens some: `rekey{packs}` ends that", escaped(key)))
}

fn signed(out: &mut String, report: &Report) {
    if report.signed.is_empty() {
        return;
    }
    out.push('\n');
    for one in &report.signed {
        let who = one.signer.as_deref().unwrap_or("nobody");
        let known = if one.known { "" } else { ", not known here" };
        let _ = writeln!(out, "{} signed by {}{known}", counted(one.snapshots, "snapshot"), escaped(who));
    }
    let unknown: Vec<String> = report
        .signed
        .iter()
        .filter(|one| !one.known)
        .filter_map(|one| one.signer.clone())
        .collect();
    if !unknown.is_empty() && report.signed.len() > 1 {
        let _ = writeln!(
            out,
            "several have signed: pin those that are yours by `encryption.signers` or --signer, the others are then refused"
        );
    }
}
