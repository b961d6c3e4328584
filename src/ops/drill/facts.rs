//! What a database that was brought back says of itself, beside what was true when it was dumped.
//!
//! Counts, positions and versions are asked of the database anew; nothing is taken from `restore`'s own comparison.

use std::collections::BTreeMap;

use super::checks::{Checks, Found, counted};
use super::databases::Loaded;
use crate::format::snapshot::ProblemKind;
use crate::ops::connect::LOCK_SECONDS;
use crate::ops::restore;
use crate::synapse::postgres::facts::SynapseFacts;
use crate::synapse::postgres::session::Purpose;
use crate::synapse::postgres::{Session, check, positions, target};

/// All checks of one database.
pub(super) async fn check(loaded: &Loaded<'_>, checks: &mut Checks) -> anyhow::Result<()> {
    let mut session = Session::open(&loaded.info, &loaded.tools, Purpose::Read, LOCK_SECONDS).await?;
    rows(loaded, &mut session, checks).await?;
    // A load that ended half way has told its cause; what it has not reached would only be said again.
    if is_complete(loaded, &mut session).await? {
        sequences(loaded, &mut session, checks).await?;
        synapse(loaded, &mut session, checks).await?;
        one_time_keys(loaded, &mut session, checks).await?;
    }
    session.close().await;
    Ok(())
}

/// Whole, or at least all of it was loaded before the comparison found a difference.
async fn is_complete(loaded: &Loaded<'_>, session: &mut Session) -> anyhow::Result<bool> {
    if loaded.whole {
        return Ok(true);
    }
    let expected = restore::expected(loaded.database);
    let missing = check::row_differences(session, &expected.rows).await?;
    Ok(!missing.iter().any(|sentence| sentence.ends_with("is missing")))
}

fn item(loaded: &Loaded<'_>) -> String {
    format!("database/{}", loaded.database.name)
}

fn name(loaded: &Loaded<'_>, what: &str) -> String {
    format!("{}: {what}", loaded.database.name)
}

async fn rows(loaded: &Loaded<'_>, session: &mut Session, checks: &mut Checks) -> anyhow::Result<()> {
    let expected = restore::expected(loaded.database);
    let mut found = Found::default();
    for sentence in check::row_differences(session, &expected.rows).await? {
        found.add(ProblemKind::Damaged, item(loaded), sentence);
    }
    let rows = expected.rows.values().sum();
    let mut figure = format!("{} in {}", counted(rows, "row"), counted(expected.rows.len() as u64, "table"));
    let uncounted = loaded.database.facts.tables.values().filter(|fact| fact.rows.is_none()).count();
    if uncounted > 0 {
        figure = format!("{figure}; {uncounted} too large to be counted when they were dumped");
    }
    checks.add(name(loaded, "rows"), figure, found);
    Ok(())
}

async fn sequences(loaded: &Loaded<'_>, session: &mut Session, checks: &mut Checks) -> anyhow::Result<()> {
    let expected = restore::expected(loaded.database).sequences;
    let mut found = Found::default();
    for sentence in check::sequence_differences(session, &expected).await? {
        found.add(ProblemKind::Damaged, item(loaded), sentence);
    }
    let (columns, behind) = positions::behind_their_tables(session).await?;
    for sentence in behind {
        found.add(ProblemKind::Damaged, item(loaded), sentence);
    }
    let figure = format!(
        "{} as dumped, {} not ahead of theirs",
        counted(expected.len() as u64, "sequence"),
        counted(columns as u64, "column")
    );
    checks.add(name(loaded, "sequences"), figure, found);
    Ok(())
}

/// Schema version, background updates, stream positions.
async fn synapse(loaded: &Loaded<'_>, session: &mut Session, checks: &mut Checks) -> anyhow::Result<()> {
    let facts = &loaded.database.facts;
    if facts.schema_version.is_none() {
        return Ok(());
    }
    let now = SynapseFacts::read(session).await?.unwrap_or_default();
    let mut found = Found::default();
    let shown = |version: Option<i64>| version.map_or_else(|| "none".to_owned(), |version| version.to_string());
    for (what, then, now) in [
        ("schema version", facts.schema_version, now.schema_version),
        (
            "oldest compatible schema version",
            facts.schema_compat_version,
            now.schema_compat_version,
        ),
    ] {
        if then != now {
            let sentence = format!("the {what} is {}, not {}", shown(now), shown(then));
            found.add(ProblemKind::Damaged, item(loaded), sentence);
        }
    }
    if facts.background_updates != now.background_updates {
        let sentence = "the unfinished background updates are not those of the dump";
        found.add(ProblemKind::Damaged, item(loaded), sentence);
    }
    let figure = format!(
        "version {}, compatible with {}",
        shown(facts.schema_version),
        shown(facts.schema_compat_version)
    );
    checks.add(name(loaded, "schema"), figure, found);
    let mut found = Found::default();
    for sentence in moved(&facts.stream_positions, &now.stream_positions) {
        found.add(ProblemKind::Damaged, item(loaded), sentence);
    }
    let figure = counted(facts.stream_positions.len() as u64, "position");
    checks.add(name(loaded, "streams"), figure, found);
    Ok(())
}

/// Positions that are not where they were.
fn moved(then: &BTreeMap<String, i64>, now: &BTreeMap<String, i64>) -> Vec<String> {
    let all: std::collections::BTreeSet<&String> = then.keys().chain(now.keys()).collect();
    let sentence = |stream: &String| {
        let shown = |position: Option<&i64>| position.map_or_else(|| "nowhere".to_owned(), |position| format!("at {position}"));
        let (then, now) = (then.get(stream), now.get(stream));
        (then != now).then(|| format!("the stream {stream} is {}, not {}", shown(now), shown(then)))
    };
    all.into_iter().filter_map(sentence).collect()
}

async fn one_time_keys(loaded: &Loaded<'_>, session: &mut Session, checks: &mut Checks) -> anyhow::Result<()> {
    let (tables, keys) = target::one_time_keys(session).await?;
    let mut found = Found::default();
    let keys = keys + loaded.one_time_keys;
    if keys > 0 {
        let sentence = format!(
            "the dump has {}: a key that was handed out could be handed out again",
            counted(keys, "one-time key")
        );
        found.add(ProblemKind::Damaged, item(loaded), sentence);
    }
    let figure = format!("{} in {}", counted(keys, "key"), counted(tables.len() as u64, "table"));
    checks.add(name(loaded, "one-time keys"), figure, found);
    Ok(())
}
