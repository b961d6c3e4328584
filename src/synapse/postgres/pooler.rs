//! Is there a pooler between us and the server that gives each transaction another connection (pgbouncer's usual mode)?
//!
//! Behind one, settings of ours would stay on connections that Synapse gets next (`pg_dump` empties the search path), and
//! an exported snapshot would be nobody's. So every session is looked at before anything is set in it. Two clients of a
//! server never share a process and never change it; clients of such a pooler do, as soon as one of them holds a
//! transaction open. A pooler in session mode is not noticed and does no harm.

use serde::Deserialize;

use super::{Error, Session};

/// How often the two clients take turns: on a busy pooler another client may take the connection that would tell.
const ROUNDS: usize = 3;
const WHAT: &str = "the look for a pooler";

#[derive(Deserialize)]
struct Pid {
    pid: i64,
}

/// Two open sessions, in which nothing has been set, through the same settings.
pub(super) async fn refuse(one: &mut Session, other: &mut Session) -> Result<(), Error> {
    if one.server().pid == other.server().pid {
        return Err(Error::Pooler);
    }
    for _ in 0..ROUNDS {
        // While `one` holds its server process, `other` must be given a second one, and may be given the first afterwards.
        one.execute(WHAT, "BEGIN").await?;
        unchanged(one).await?;
        unchanged(other).await?;
        one.execute(WHAT, "COMMIT").await?;
        unchanged(other).await?;
        unchanged(one).await?;
    }
    Ok(())
}

async fn unchanged(session: &mut Session) -> Result<(), Error> {
    let known = session.server().pid;
    let now: Pid = session.one(WHAT, "SELECT pg_catalog.pg_backend_pid() AS pid").await?;
    if now.pid == known { Ok(()) } else { Err(Error::Pooler) }
}
