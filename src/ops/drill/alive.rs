//! A Synapse started on what came back (`--start-synapse`), and what it answers.
//!
//! How it is kept from everything outside stands in `synapse::trial`. It is asked as an administrator, by an account and
//! a token that are made in the scratch database for this and die with it.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;

use super::checks::{Checks, Found, counted};
use super::databases::{Loaded, no_room, speaks_of_room};
use super::files::{discovery, inside, share};
use super::{Media, Trial};
use crate::format::BlobId;
use crate::format::snapshot::ProblemKind;
use crate::ops::Error;
use crate::ops::connect::LOCK_SECONDS;
use crate::ops::restore::media_root;
use crate::synapse::config::discover;
use crate::synapse::postgres::facts::SynapseFacts;
use crate::synapse::postgres::session::Purpose;
use crate::synapse::postgres::{Session, sql};
use crate::synapse::trial::{self, Answer, Copy, Running};
use crate::synapse::{DatabaseConfig, Homeserver};

/// How long a start may take: a newer Synapse upgrades the schema first.
const START_WAIT: Duration = Duration::from_mins(10);
/// How often it is asked whether it is up.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// An answer in JSON is not longer.
const JSON_BYTES_MAX: usize = 1 << 20;
/// The medium that is asked for is not larger.
const MEDIUM_BYTES_MAX: usize = 8 << 20;

/// What is asked for, from the restored database.
struct Questions {
    token: String,
    event: Option<Event>,
    medium: Option<Medium>,
}

#[derive(Deserialize)]
struct Event {
    event_id: String,
    room_id: String,
}

#[derive(Deserialize)]
struct Medium {
    media_id: String,
    sha256: Option<String>,
}

/// Start it, ask it, end it.
pub(super) async fn check(trial: &Trial<'_>, loaded: &[Loaded<'_>], checks: &mut Checks) -> anyhow::Result<()> {
    let Some(command) = &trial.options.start_synapse else {
        return Ok(());
    };
    let Some(main) = loaded.iter().find(|one| one.database.name == "synapse") else {
        return Err(Error::usage(
            "--start-synapse without Synapse's own database",
            "leave out `--database synapse=skip`",
        )
        .into());
    };
    let mut refused = Found::default();
    if !loaded.iter().all(|one| one.whole) || !checks.all_ok() {
        refused.add(
            ProblemKind::Damaged,
            "database/synapse",
            "Synapse was not started, since what came back is not whole",
        );
        checks.add("start", "not tried", refused);
        return Ok(());
    }
    let files = trial.folder.files();
    let options = discovery(trial, &files);
    let homeserver = tokio::task::spawn_blocking(move || discover(&options)).await??;
    let (mut running, port) = start(trial, command, &homeserver, loaded)?;
    trial.run.progress.stage("start Synapse", None, None);
    let up = tokio::select! {
        up = tokio::time::timeout(START_WAIT, is_up(port)) => up.is_ok(),
        () = running.ended() => false,
    };
    let mut found = Found::default();
    if up {
        checks.add("start: health", "it answers", found);
        // Its tables are those of its own version now.
        let questions = prepare(trial, main).await;
        match questions {
            Ok(questions) => ask(trial, &questions, port, checks).await,
            Err(error) => {
                running.stop().await;
                return Err(error);
            }
        }
    } else {
        let words = running.last_words();
        if speaks_of_room(&words) {
            running.stop().await;
            return Err(no_room(&anyhow::anyhow!(words), &trial.options.folder));
        }
        let message = format!("Synapse does not start on what came back: {words}");
        found.add(ProblemKind::Damaged, "database/synapse", message);
        checks.add("start: health", "no answer", found);
    }
    running.stop().await;
    trial.run.progress.done("start Synapse");
    Ok(())
}

/// Write its configuration and start it.
fn start(trial: &Trial<'_>, command: &str, homeserver: &Homeserver, loaded: &[Loaded<'_>]) -> anyhow::Result<(Running, u16)> {
    let folder = trial.folder.synapse();
    std::fs::create_dir(&folder).context("make a folder for Synapse")?;
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700))?;
    let Some(signing_key) = homeserver.signing_keys.iter().find_map(|key| key.path.clone()) else {
        let hint = "the key stands in homeserver.yaml itself (`signing_key`): the drill does all but start such a server";
        return Err(Error::failed("Synapse cannot be started without a file of its signing key", hint).into());
    };
    let media = match &trial.snapshot.media {
        Some(media) => inside(&trial.folder.files(), &media_root(trial.snapshot, media)),
        None => folder.join("media"),
    };
    let mut environment = Vec::new();
    let mut databases = Vec::new();
    for one in loaded {
        // Those of other services are not Synapse's.
        let Some(DatabaseConfig { label, data_stores, .. }) = homeserver.databases.iter().find(|config| config.name == one.database.name)
        else {
            continue;
        };
        environment.extend(one.info.variables());
        databases.push((label.clone(), data_stores.clone(), one.info.to_argument()));
    }
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let copy = Copy {
        server_name: homeserver.server_name.clone(),
        signing_key,
        media,
        databases,
        port,
    };
    let config = folder.join("homeserver.yaml");
    write(&config, &trial::configuration(&copy, &folder))?;
    write(&folder.join("log.yaml"), trial::LOG_CONFIG)?;
    let running = Running::start(command, &config, &folder, &environment).context("start Synapse")?;
    Ok((running, port))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes()).with_context(|| format!("write {}", path.display()))
}

async fn is_up(port: u16) {
    while !trial::get(port, "/health", None, JSON_BYTES_MAX)
        .await
        .is_ok_and(|answer| answer.status == 200)
    {
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// An administrator with a token, and what to ask for; all in the scratch database.
async fn prepare(trial: &Trial<'_>, main: &Loaded<'_>) -> anyhow::Result<Questions> {
    let mut session = Session::open(&main.info, &main.tools, Purpose::Write, LOCK_SECONDS).await?;
    let schema = SynapseFacts::read(&mut session)
        .await?
        .context("there are no tables of Synapse")?
        .schema;
    let table = |name: &str| sql::qualified(&schema, name);
    let ids = trial.repository.ids();
    let token = format!("drill_{}{}", ids.object(), ids.object());
    let user = sql::literal(&format!("@synapse-backup-drill:{}", trial.snapshot.server_name));
    let (users, tokens) = (table("users"), table("access_tokens"));
    let what = "making an account for the drill";
    session
        .execute(
            what,
            &format!("INSERT INTO {users} (name, creation_ts, admin) VALUES ({user}, 0, 1)"),
        )
        .await?;
    let insert = format!(
        "INSERT INTO {tokens} (id, user_id, token) SELECT COALESCE(pg_catalog.max(id), 0) + 1, {user}, {} FROM {tokens}",
        sql::literal(&token)
    );
    session.execute(what, &insert).await?;
    let query = format!(
        "SELECT event_id, room_id FROM {} WHERE NOT outlier AND rejection_reason IS NULL AND stream_ordering > 0 ORDER BY stream_ordering LIMIT 1",
        table("events")
    );
    let event = session.query("the look for an old event", &query).await?.pop();
    let medium = medium(trial, &mut session, &table("local_media_repository")).await?;
    session.close().await;
    Ok(Questions { token, event, medium })
}

/// A medium that was written.
async fn medium(trial: &Trial<'_>, session: &mut Session, table: &str) -> anyhow::Result<Option<Medium>> {
    if trial.options.media == Media::HashOnly || trial.snapshot.media.is_none() {
        return Ok(None);
    }
    let query = format!(
        "SELECT media_id, pg_catalog.to_jsonb(m) ->> 'sha256' AS sha256 FROM {table} AS m WHERE media_length BETWEEN 1 AND {MEDIUM_BYTES_MAX} \
         AND quarantined_by IS NULL AND (pg_catalog.to_jsonb(m) ->> 'url_cache') IS NULL ORDER BY created_ts DESC LIMIT 2000"
    );
    let media: Vec<Medium> = session.query("the look for a medium", &query).await?;
    let share = share(trial);
    let is_there = |medium: &Medium| {
        let Some(path) = path_of(&medium.media_id) else { return false };
        share.as_ref().is_none_or(|share| share.has(path.as_bytes())) && file_of(trial, &path).is_some_and(|file| file.is_file())
    };
    Ok(media.into_iter().find(is_there))
}

fn path_of(id: &str) -> Option<String> {
    Some(format!("local_content/{}/{}/{}", id.get(..2)?, id.get(2..4)?, id.get(4..)?))
}

fn file_of(trial: &Trial<'_>, path: &str) -> Option<std::path::PathBuf> {
    let media = trial.snapshot.media.as_ref()?;
    Some(inside(&trial.folder.files(), &media_root(trial.snapshot, media)).join(path))
}

/// What it was asked: each a check.
async fn ask(trial: &Trial<'_>, questions: &Questions, port: u16, checks: &mut Checks) {
    let get = |path: String, bytes_max: usize| async move { trial::get(port, &path, Some(&questions.token), bytes_max).await };
    let answer = get("/_matrix/client/versions".into(), JSON_BYTES_MAX).await;
    let versions = answer
        .as_ref()
        .ok()
        .and_then(|answer| answer.json()["versions"].as_array().map(Vec::len));
    let figure = counted(versions.unwrap_or(0) as u64, "version");
    told(
        checks,
        "start: versions",
        &figure,
        versions.is_some_and(|count| count > 0),
        "config",
        "it tells no versions of its API",
        answer.as_ref(),
    );

    let answer = get("/_matrix/key/v2/server".into(), JSON_BYTES_MAX).await;
    let keys = answer.as_ref().map(Answer::json).unwrap_or_default();
    let same = trial
        .snapshot
        .signing_keys
        .iter()
        .all(|key| keys["verify_keys"][&key.id]["key"].as_str() == Some(&key.public_key));
    let figure = counted(trial.snapshot.signing_keys.len() as u64, "key");
    told(
        checks,
        "start: keys",
        &figure,
        same,
        "config",
        "it signs with another key than the snapshot's",
        answer.as_ref(),
    );

    if let Some(event) = &questions.event {
        let path = format!(
            "/_synapse/admin/v1/rooms/{}/context/{}?limit=0",
            escaped(&event.room_id),
            escaped(&event.event_id)
        );
        let answer = get(path, JSON_BYTES_MAX).await;
        let same = answer
            .as_ref()
            .is_ok_and(|answer| answer.json()["event"]["event_id"].as_str() == Some(&event.event_id));
        told(
            checks,
            "start: old event",
            &event.event_id,
            same,
            "database/synapse",
            "it does not find its oldest event",
            answer.as_ref(),
        );
    }
    if let Some(medium) = &questions.medium {
        let path = format!("{}/{}", escaped(&trial.snapshot.server_name), escaped(&medium.media_id));
        let mut answer = get(format!("/_matrix/client/v1/media/download/{path}"), MEDIUM_BYTES_MAX).await;
        if answer.as_ref().is_ok_and(|answer| answer.status == 404) {
            // Before Synapse 1.112.
            answer = get(format!("/_matrix/media/v3/download/{path}"), MEDIUM_BYTES_MAX).await;
        }
        let of_file = || {
            let bytes = std::fs::read(file_of(trial, &path_of(&medium.media_id)?)?).ok()?;
            Some(BlobId::of(&bytes).to_string())
        };
        let wanted = medium.sha256.clone().or_else(of_file);
        let same = answer
            .as_ref()
            .is_ok_and(|answer| answer.status == 200 && Some(BlobId::of(&answer.body).to_string()) == wanted);
        let item = path_of(&medium.media_id).map_or_else(|| "media".to_owned(), |path| format!("media/{path}"));
        let figure = format!("mxc://{}/{}", trial.snapshot.server_name, medium.media_id);
        told(
            checks,
            "start: medium",
            &figure,
            same,
            &item,
            "it does not give the bytes of a medium",
            answer.as_ref(),
        );
    }
}

fn told(checks: &mut Checks, name: &str, figure: &str, good: bool, item: &str, otherwise: &str, answer: Result<&Answer, &std::io::Error>) {
    let mut found = Found::default();
    if !good {
        let why = match answer {
            Ok(answer) => format!(
                "status {}: {}",
                answer.status,
                String::from_utf8_lossy(&answer.body[..answer.body.len().min(200)])
            ),
            Err(error) => error.to_string(),
        };
        found.add(ProblemKind::Damaged, item, format!("{otherwise} ({why})"));
    }
    checks.add(name, figure, found);
}

/// For a part of a path.
fn escaped(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matrix_puts_into_paths_is_escaped() {
        assert_eq!(escaped("$a/b+c:d.org"), "%24a%2Fb%2Bc%3Ad.org");
        assert_eq!(path_of("abcdefgh").as_deref(), Some("local_content/ab/cd/efgh"));
        assert_eq!(path_of("abc"), None);
    }
}
