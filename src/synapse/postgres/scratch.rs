//! A scratch database on a server that was given to us: made and dropped, or lent empty and emptied again.
//!
//! A comment on the database says that it is ours, and a session stays open in it for as long as we work: what carries the
//! comment and has no session is left over from a run that was killed, and the next one cleans it. Nothing without
//! that comment is ever dropped or emptied.

use std::time::Duration;

use serde::Deserialize;

use super::conninfo::ConnInfo;
use super::session::{Purpose, Session};
use super::tools::Tools;
use super::{Error, sql, target};

/// On a database that we made: it may be dropped.
const MADE: &str = "synapse-backup drill: made for it, and dropped after it";
/// On a database that was there and empty: it may be emptied.
const LENT: &str = "synapse-backup drill: lent to it, and emptied after it";
const LOCK_SECONDS: u64 = 60;
/// How often it is asked whether the last session of a database has ended, and how long between.
const SETTLE_TRIES: usize = 50;
const SETTLE_PAUSE: Duration = Duration::from_millis(100);

#[derive(Deserialize)]
struct Known {
    name: String,
    comment: Option<String>,
    sessions: u64,
}

/// A database to load into, until [`Scratch::clean`].
#[derive(Debug)]
pub struct Scratch {
    info: ConnInfo,
    made: bool,
    /// Says that somebody is at work.
    keeper: Session,
}

impl Scratch {
    /// The database that `info` names: made, or found empty. Left-overs of killed runs on this server are cleaned first.
    pub async fn take(info: &ConnInfo, tools: &Tools) -> Result<Self, Error> {
        let Some(database) = info.database().map(str::to_owned) else {
            return Err(Error::ConnInfo {
                reason: "a scratch database needs a name (`dbname`)".into(),
            });
        };
        sweep(info, tools, &database).await?;
        let made = target::create_database(info, tools, None).await?;
        let mut keeper = Session::open(info, tools, Purpose::Write, LOCK_SECONDS).await?;
        if !made {
            let name = keeper.server().database.clone();
            let known = settled(&mut keeper, &name, 1).await?;
            let ours = known.iter().find(|one| one.name == name);
            let refused = match ours {
                Some(one) if one.sessions > 1 => Some("is in use"),
                Some(one) if one.comment.as_deref().is_some_and(|comment| comment != LENT) => Some("has a comment of somebody else's"),
                _ => None,
            };
            if let Some(reason) = refused {
                return Err(Error::NotScratch { database, reason });
            }
            target::refuse_unless_empty(&mut keeper).await?;
        }
        let comment = sql::literal(if made { MADE } else { LENT });
        let statement = format!("COMMENT ON DATABASE {} IS {comment}", sql::name(&keeper.server().database.clone()));
        keeper.execute("marking the scratch database", &statement).await?;
        Ok(Self {
            info: info.clone(),
            made,
            keeper,
        })
    }

    /// How to reach it.
    pub fn info(&self) -> &ConnInfo {
        &self.info
    }

    /// Drop it, or empty it if it was lent.
    pub async fn clean(mut self, tools: &Tools) -> Result<(), Error> {
        let database = self.keeper.server().database.clone();
        if !self.made {
            empty(&mut self.keeper).await?;
            self.keeper.close().await;
            return Ok(());
        }
        self.keeper.close().await;
        let mut session = target::maintenance(&self.info, tools, Purpose::Write).await?;
        drop_database(&mut session, &database).await?;
        session.close().await;
        Ok(())
    }
}

/// Drop every database of the server that a killed run has made, and empty the wanted one if such a run had been lent it.
async fn sweep(info: &ConnInfo, tools: &Tools, wanted: &str) -> Result<(), Error> {
    let mut session = target::maintenance(info, tools, Purpose::Write).await?;
    let known = settled(&mut session, wanted, 0).await?;
    let idle: Vec<Known> = known.into_iter().filter(|one| one.sessions == 0).collect();
    for one in &idle {
        match one.comment.as_deref() {
            Some(MADE) => match drop_database(&mut session, &one.name).await {
                // Another role's: that role's next drill drops it.
                Err(Error::Statement { .. }) if one.name != wanted => {}
                other => other?,
            },
            Some(LENT) if one.name == wanted => {
                let mut lent = Session::open(info, tools, Purpose::Write, LOCK_SECONDS).await?;
                empty(&mut lent).await?;
                lent.close().await;
            }
            _ => {}
        }
    }
    session.close().await;
    Ok(())
}

/// The databases, as soon as no more than so many sessions are in this one. A session that was just closed, one of ours too, is there
/// for a moment more; one that stays is somebody's.
async fn settled(session: &mut Session, database: &str, sessions_max: u64) -> Result<Vec<Known>, Error> {
    let mut tries = 0;
    loop {
        let known = known(session).await?;
        let is_settled = known.iter().all(|one| one.name != database || one.sessions <= sessions_max);
        tries += 1;
        if is_settled || tries == SETTLE_TRIES {
            return Ok(known);
        }
        tokio::time::sleep(SETTLE_PAUSE).await;
    }
}

async fn known(session: &mut Session) -> Result<Vec<Known>, Error> {
    let query = "SELECT d.datname AS name, pg_catalog.shobj_description(d.oid, 'pg_database') AS comment, \
        (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity AS a WHERE a.datid = d.oid \
            AND coalesce(a.backend_type, 'client backend') = 'client backend') AS sessions FROM pg_catalog.pg_database AS d";
    session.query("the look for scratch databases", query).await
}

async fn drop_database(session: &mut Session, database: &str) -> Result<(), Error> {
    // A session that was just closed may still be counted for a moment.
    let force = if session.server().version().major >= 13 {
        " WITH (FORCE)"
    } else {
        ""
    };
    let statement = format!("DROP DATABASE IF EXISTS {}{force}", sql::name(database));
    session.execute("dropping the scratch database", &statement).await
}

#[derive(Deserialize)]
struct Right {
    is_ours: bool,
}

/// Before 15 `public` belongs to the server's superuser, not to the owner of the database.
const MAY_DROP_PUBLIC: &str = "SELECT coalesce(pg_catalog.bool_and(pg_catalog.pg_has_role(current_user, nspowner, 'USAGE')), true) AS is_ours \
    FROM pg_catalog.pg_namespace WHERE nspname = 'public'";

/// What is in `public`, but not the schema, nor what goes with its owner: an extension's, the sequence of an identity column. The statements are made before the first of them runs, since each
/// may take others' objects away with it.
const EMPTY_PUBLIC: &str = "DO $$ DECLARE one text; BEGIN FOREACH one IN ARRAY ARRAY( \
    SELECT statement FROM ( \
    SELECT 1, pg_catalog.format('DROP EXTENSION IF EXISTS %I CASCADE', e.extname) FROM pg_catalog.pg_extension AS e \
        WHERE e.extnamespace = 'public'::pg_catalog.regnamespace AND pg_catalog.pg_has_role(current_user, e.extowner, 'USAGE') \
    UNION ALL SELECT 2, pg_catalog.format('DROP %s IF EXISTS public.%I CASCADE', CASE c.relkind WHEN 'v' THEN 'VIEW' \
            WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END, c.relname) \
        FROM pg_catalog.pg_class AS c WHERE c.relnamespace = 'public'::pg_catalog.regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') \
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND (d.deptype = 'e' OR (d.deptype = 'i' AND c.relkind = 'S'))) \
    UNION ALL SELECT 3, pg_catalog.format('DROP ROUTINE IF EXISTS %s CASCADE', p.oid::pg_catalog.regprocedure) FROM pg_catalog.pg_proc AS p \
        WHERE p.pronamespace = 'public'::pg_catalog.regnamespace \
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype IN ('e', 'i')) \
    UNION ALL SELECT 4, pg_catalog.format('DROP TYPE IF EXISTS public.%I CASCADE', t.typname) FROM pg_catalog.pg_type AS t \
        LEFT JOIN pg_catalog.pg_class AS c ON c.oid = t.typrelid \
        WHERE t.typnamespace = 'public'::pg_catalog.regnamespace AND (t.typtype IN ('d', 'e', 'r') OR (t.typtype = 'c' AND c.relkind = 'c')) \
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.objid = t.oid AND d.deptype = 'e') \
    ) AS made(rank, statement) ORDER BY rank) LOOP EXECUTE one; END LOOP; END $$";

/// Everything that a load puts into a database that was empty.
async fn empty(session: &mut Session) -> Result<(), Error> {
    let what = "emptying the scratch database";
    for statement in [
        "DO $$ DECLARE one text; BEGIN FOR one IN SELECT pg_catalog.quote_ident(nspname) FROM pg_catalog.pg_namespace \
            WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public') LOOP EXECUTE 'DROP SCHEMA ' || one || ' CASCADE'; END LOOP; \
            PERFORM pg_catalog.lo_unlink(oid) FROM pg_catalog.pg_largeobject_metadata; END $$",
    ] {
        session.execute(what, statement).await?;
    }
    let is_ours = session.one::<Right>(what, MAY_DROP_PUBLIC).await?.is_ours;
    let public: &[&str] = if is_ours {
        &[
            "DROP SCHEMA IF EXISTS public CASCADE",
            "CREATE SCHEMA public",
            "GRANT USAGE ON SCHEMA public TO PUBLIC",
        ]
    } else {
        &[EMPTY_PUBLIC]
    };
    for statement in public {
        session.execute(what, statement).await?;
    }
    let statement = format!("COMMENT ON DATABASE {} IS NULL", sql::name(&session.server().database.clone()));
    session.execute(what, &statement).await
}
