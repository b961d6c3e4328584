//! A throw-away cluster: made with `initdb`, on a unix socket only, and gone when whoever started it is.
//!
//! It is tuned for that: nothing is synced, nothing is archived, no address is listened on. A small shell stands between
//! us and the server and waits for the end of its standard input, which comes however we end, also by `kill -9`; then it
//! stops the server. PostgreSQL refuses root, so root names the account that the server runs as.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::child::RunAs;
use super::conninfo::{ConnInfo, Surroundings};
use super::tools::Tool;
use super::{Error, sql};

/// The superuser of the cluster.
const SUPERUSER: &str = "postgres";
/// How long a start or a stop may take.
const WAIT: Duration = Duration::from_mins(1);
/// The path of a socket is longer than this on no system.
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// Nothing here outlives the drill, so nothing has to survive a crash. Compiled queries would want memory that a hardened unit forbids.
const SETTINGS: &str = "\nlisten_addresses = ''\nunix_socket_permissions = 0700\nfsync = off\nfull_page_writes = off\nsynchronous_commit = off\n\
    wal_level = minimal\nmax_wal_senders = 0\nmax_wal_size = 1GB\nshared_buffers = 128MB\nautovacuum = off\njit = off\nmax_connections = 50\n\
    lc_messages = 'C'\nlogging_collector = off\n";

/// Starts the server, says so, waits for the end of its input, stops the server.
const SUPERVISOR: &str = "trap '' INT TERM HUP PIPE\n\
    \"$1/pg_ctl\" start --wait --silent --timeout=60 --log=\"$2/log\" --pgdata=\"$2/data\" </dev/null >/dev/null 2>&1 \
        || { tail -n 5 \"$2/log\" >&2; exit 1; }\n\
    echo up\nread -r nothing\n\
    \"$1/pg_ctl\" stop --mode=immediate --silent --pgdata=\"$2/data\" </dev/null >/dev/null 2>&1";

/// A cluster. Dropping it stops the server; [`PrivateCluster::stop`] waits for that.
#[derive(Debug)]
pub struct PrivateCluster {
    folder: PathBuf,
    supervisor: Child,
}

impl PrivateCluster {
    /// Make a cluster in `folder`, which must not exist yet, with the `initdb` of `server`, and begin to start it. Whoever has it must
    /// stop it, also one that is not up yet: a folder that is taken away from under a start leaves a server behind for a minute.
    pub async fn begin(folder: &Path, server: &Tool, account: Option<&RunAs>) -> Result<Self, Error> {
        if folder.as_os_str().len() + "/.s.PGSQL.5432".len() > SOCKET_PATH_BYTES_MAX {
            return Err(Error::ConnInfo {
                reason: format!("the folder {} is too long for a socket in it", folder.display()),
            });
        }
        let made = fs::create_dir(folder)
            .and_then(|()| fs::set_permissions(folder, Permissions::from_mode(0o700)))
            .and_then(|()| account.map_or(Ok(()), |account| chown(folder, Some(account.uid), Some(account.gid))));
        made.map_err(|source| pipe("initdb", source))?;
        let data = folder.join("data");
        let mut command = as_account(&server.path, folder, account);
        command
            .args([
                "--encoding=UTF8",
                "--locale=C",
                "--auth-local=trust",
                "--auth-host=reject",
                "--no-sync",
            ])
            .arg(format!("--username={SUPERUSER}"))
            .arg(format!("--pgdata={}", data.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let initdb = command.spawn().map_err(|source| spawn(&server.path, source))?;
        let mut group = Group(initdb.id());
        let output = initdb.wait_with_output().await.map_err(|source| spawn(&server.path, source))?;
        group.0 = None;
        if !output.status.success() {
            return Err(failed("initdb", &output));
        }
        let settings = format!(
            "{SETTINGS}unix_socket_directories = {}\n",
            sql::literal(&folder.display().to_string())
        );
        let appended = OpenOptions::new()
            .append(true)
            .open(data.join("postgresql.conf"))
            .and_then(|mut file| file.write_all(settings.as_bytes()));
        appended.map_err(|source| pipe("initdb", source))?;
        Self::launch(folder, server, account)
    }

    fn launch(folder: &Path, server: &Tool, account: Option<&RunAs>) -> Result<Self, Error> {
        let programs = server.path.parent().unwrap_or_else(|| Path::new("/usr/bin"));
        let shell = Path::new("/bin/sh");
        let mut command = as_account(shell, folder, account);
        command.args(["-c", SUPERVISOR, "synapse-backup-drill"]).arg(programs).arg(folder);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Not killed when dropped: it stops the server when its input ends, which dropping does.
        let supervisor = command.spawn().map_err(|source| spawn(shell, source))?;
        Ok(Self {
            folder: folder.to_owned(),
            supervisor,
        })
    }

    /// Wait until it takes connections.
    pub async fn up(&mut self) -> Result<(), Error> {
        if let Some(stdout) = &mut self.supervisor.stdout {
            let mut word = [0; 3];
            let read = timeout(WAIT, stdout.read_exact(&mut word)).await;
            if matches!(read, Ok(Ok(_))) && word == *b"up\n" {
                return Ok(());
            }
        }
        self.supervisor.stdin = None;
        let mut said = String::new();
        if let Some(stderr) = &mut self.supervisor.stderr {
            let _ = timeout(WAIT, stderr.read_to_string(&mut said)).await;
        }
        Err(Error::Child {
            program: "postgres",
            status: "did not start".into(),
            message: said.lines().map(str::trim).collect::<Vec<_>>().join(" | "),
        })
    }

    /// How to reach a database of this name in it, as its superuser.
    pub fn info(&self, database: &str) -> Result<ConnInfo, Error> {
        let words = [
            ("host", self.folder.display().to_string()),
            ("port", "5432".into()),
            ("user", SUPERUSER.into()),
            ("dbname", database.into()),
        ];
        let arguments = words.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        ConnInfo::from_arguments(&arguments, &Surroundings::default())
    }

    /// Stop the server and wait until it is gone.
    pub async fn stop(mut self) {
        self.supervisor.stdin = None;
        let _ = timeout(WAIT, self.supervisor.wait()).await;
    }
}

/// `initdb` and the servers that it starts, whose leader is `initdb`: all of them end when this is dropped.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let leader = self
            .0
            .and_then(|id| i32::try_from(id).ok())
            .and_then(rustix::process::Pid::from_raw);
        if let Some(leader) = leader {
            let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }
}

/// Stop what a supervisor that was killed has left running in this folder of a cluster.
pub fn end_leftover(folder: &Path) {
    let data = folder.join("data");
    let Ok(text) = fs::read_to_string(data.join("postmaster.pid")) else {
        return;
    };
    let Some(pid) = text.lines().next().and_then(|line| line.trim().parse().ok()) else {
        return;
    };
    // The number may be another process's by now: ours names its folder in its arguments.
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let named = String::from_utf8_lossy(&arguments).contains(&*data.to_string_lossy());
    if let (true, Some(pid)) = (named, rustix::process::Pid::from_raw(pid)) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
    }
}

fn as_account(program: &Path, folder: &Path, account: Option<&RunAs>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/local/bin:/usr/bin:/bin");
    // A group of its own: Ctrl-C in the terminal is for us, and we stop it in order.
    command.current_dir(folder).process_group(0);
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
    }
    command
}

fn failed(program: &'static str, output: &Output) -> Error {
    let said = String::from_utf8_lossy(&output.stderr);
    Error::Child {
        program,
        status: output.status.to_string(),
        message: said
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join(" | "),
    }
}

fn pipe(program: &'static str, source: std::io::Error) -> Error {
    Error::Pipe { program, source }
}

fn spawn(program: &Path, source: std::io::Error) -> Error {
    Error::Spawn {
        program: program.to_owned(),
        source,
    }
}
