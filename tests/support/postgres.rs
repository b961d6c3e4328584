//! A private PostgreSQL cluster for tests: real, on loopback and a socket of its own, gone when the test program is.
//!
//! One cluster serves all tests of a binary ([`shared`]); each test makes its own databases and roles in it. The socket
//! trusts everybody, TCP asks for a password (SCRAM), the database `peer_only` asks for the operating system's user. The
//! cluster is stopped and removed by a small watcher that notices the end of the test program, whatever ends it. Missing
//! programs make the tests fail: nothing is skipped. Without root it runs as the current user, else as `postgres` or
//! `nobody`.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of this")]

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The superuser of the cluster.
pub const SUPERUSER: &str = "postgres";

/// How long a server gets to listen.
const LISTENING_WAIT: Duration = Duration::from_secs(30);

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Folder of the clients; the server's programs are there as well, but for [`Cluster::of_version`].
    pub bin: PathBuf,
    /// Folder of the socket.
    pub socket: PathBuf,
    /// On 127.0.0.1, and of the socket.
    pub port: u16,
    /// Who the server runs as.
    pub owner: Account,
    next: AtomicU32,
    /// Its standard input is the pipe whose end stops the cluster.
    watcher: Child,
}

/// An account of the operating system.
#[derive(Debug, Clone)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// The cluster of this test binary.
pub fn shared() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::start(""))
}

/// Are the tests run by root?
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Cluster {
    /// Make and start one of your own, which ends when it is dropped, with further lines for postgresql.conf.
    pub fn start(settings: &str) -> Self {
        let owner = owner();
        let directory = directory(&owner);
        Self::start_in(directory, &find_bin(), owner, settings)
    }

    /// One of another major version, which `scripts/setup versions` has got; the clients are those of all other tests.
    pub fn of_version(major: u32) -> Self {
        let kept = cache().join(format!("postgres/{major}"));
        assert!(
            kept.join("bin/initdb").is_file(),
            "no PostgreSQL {major} in {}: run scripts/setup versions",
            kept.display()
        );
        let owner = owner();
        let directory = directory(&owner);
        // Not every user may look into the cache.
        let copy = directory.join("server");
        run(Command::new("cp").arg("-rL").arg(kept).arg(&copy));
        Self::start_in(directory, &copy.join("bin"), owner, "")
    }

    /// A replica of this one, with further lines for its postgresql.conf.
    pub fn replica(&self, settings: &str) -> Self {
        let owner = owner();
        let directory = directory(&owner);
        run(as_owner(&self.bin.join("pg_basebackup"), &owner, &directory)
            .env("PGHOST", &self.socket)
            .args(["--username", SUPERUSER, "--port", &self.port.to_string()])
            .args([
                "--write-recovery-conf",
                "--wal-method=stream",
                "--checkpoint=fast",
                "--no-sync",
                "--pgdata",
            ])
            .arg(directory.join("data")));
        Self::launch(directory, &find_bin(), owner, settings)
    }

    /// A pgbouncer in transaction mode before it, on the same folder for sockets; its port. It ends with the cluster's watcher.
    pub fn pooler(&self) -> u16 {
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"];
        let program = program.iter().map(Path::new).find(|path| path.is_file());
        let program = program.expect("no pgbouncer: run scripts/setup pgbouncer");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = self.socket.display();
        let users = self.socket.join("users.txt");
        fs::write(&users, format!("\"{SUPERUSER}\" \"\"\n")).unwrap();
        let text = format!(
            "[databases]\n* = host={folder} port={}\n[pgbouncer]\nlisten_port = {port}\nunix_socket_dir = {folder}\n\
             auth_type = trust\nauth_file = {}\npool_mode = transaction\ndefault_pool_size = 5\n\
             pidfile = {folder}/pgbouncer.pid\nlogfile = {folder}/pgbouncer.log\n",
            self.port,
            users.display()
        );
        let config = self.socket.join("pgbouncer.ini");
        fs::write(&config, text).unwrap();
        if is_root() {
            chown(&config, Some(self.owner.uid), Some(self.owner.gid)).unwrap();
        }
        run(as_owner(program, &self.owner, &self.socket).arg("--daemon").arg(&config));
        // It goes into the background before it listens.
        let door = self.socket.join(format!(".s.PGSQL.{port}"));
        let begun = Instant::now();
        while let Err(error) = UnixStream::connect(&door) {
            assert!(
                begun.elapsed() < LISTENING_WAIT,
                "pgbouncer does not listen at {}: {error}",
                door.display()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        port
    }

    fn start_in(directory: PathBuf, bin: &Path, owner: Account, settings: &str) -> Self {
        let data = directory.join("data");
        run(as_owner(&bin.join("initdb"), &owner, &directory)
            .args([
                "--username",
                SUPERUSER,
                "--encoding=UTF8",
                "--locale=C",
                "--auth=trust",
                "--no-sync",
                "--pgdata",
            ])
            .arg(&data));
        let hba = "local peer_only all peer\nlocal all,replication all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        fs::write(data.join("pg_hba.conf"), hba).unwrap();
        let cluster = Self::launch(directory, bin, owner, settings);
        cluster.psql("postgres", "CREATE DATABASE peer_only");
        cluster
    }

    #[expect(clippy::zombie_processes, reason = "a test that cannot start its cluster ends here")]
    #[expect(clippy::needless_pass_by_value, reason = "the cluster takes the folder over and removes it")]
    fn launch(directory: PathBuf, bin: &Path, owner: Account, settings: &str) -> Self {
        let watcher = watch(bin, &directory, &owner);
        let data = directory.join("data");
        let socket = directory.clone();
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut text = fs::read_to_string(data.join("postgresql.conf")).unwrap();
            let folder = socket.display();
            write!(
                text,
                "\nlisten_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{folder}'\nfsync = off\n\
                 shared_buffers = 64MB\nmax_wal_size = 256MB\nautovacuum = off\nlc_messages = 'C'\nmax_prepared_transactions = 4\n{settings}\n"
            )
            .unwrap();
            fs::write(data.join("postgresql.conf"), text).unwrap();
            let mut start = as_owner(&bin.join("pg_ctl"), &owner, &directory);
            start
                .args(["start", "--wait", "--silent", "--log"])
                .arg(directory.join("log"))
                .arg("--pgdata")
                .arg(&data);
            if start.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap().success() {
                return Self {
                    bin: find_bin(),
                    socket,
                    port,
                    owner,
                    next: AtomicU32::new(0),
                    watcher,
                };
            }
        }
        panic!(
            "the test cluster does not start: {}",
            fs::read_to_string(directory.join("log")).unwrap_or_default()
        );
    }

    /// Stop the server as `pg_ctl stop --mode=immediate` does: no client is told, nothing is finished.
    pub fn stop_immediately(&self) {
        let text = fs::read_to_string(self.socket.join("data/postmaster.pid")).unwrap();
        let pid = text.lines().next().and_then(|line| line.trim().parse().ok()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::QUIT).unwrap();
    }

    /// Run SQL as the superuser; what it prints, trimmed. Panics when it fails.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        let output = self
            .client("psql", database)
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql])
            .output()
            .unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Run a script with many statements as the superuser.
    pub fn script(&self, database: &str, sql: &str) {
        let path = self.socket.join(format!("script-{}.sql", self.number()));
        fs::write(&path, sql).unwrap();
        let output = self
            .client("psql", database)
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f"])
            .arg(&path)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// A client program of this cluster, over the socket as the superuser.
    pub fn client(&self, program: &str, database: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.env_clear().env("PGHOST", &self.socket).env("PGPORT", self.port.to_string());
        command.env("PGUSER", SUPERUSER).env("PGDATABASE", database).env("LC_ALL", "C");
        command
    }

    /// A new database, as Synapse wants it; the name begins with `prefix` and is new in this cluster.
    pub fn database(&self, prefix: &str) -> String {
        let name = format!("{prefix}_{}", self.number());
        self.psql(
            "postgres",
            &format!(
                "CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'",
                quoted(&name)
            ),
        );
        name
    }

    /// A new ordinary role that may log in; the name begins with `prefix`.
    pub fn role(&self, prefix: &str, password: &str) -> String {
        let name = format!("{prefix}_{}", self.number());
        self.psql(
            "postgres",
            &format!("CREATE ROLE {} LOGIN PASSWORD '{}'", quoted(&name), password.replace('\'', "''")),
        );
        name
    }

    fn number(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.watcher.stdin.take());
        let _ = self.watcher.wait();
    }
}

/// A name in double quotes.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[expect(clippy::disallowed_methods, reason = "a test may be told where the server is")]
fn find_bin() -> PathBuf {
    if let Some(given) = std::env::var_os("SYNAPSE_BACKUP_TEST_PG_BIN") {
        let given = PathBuf::from(given);
        assert!(
            given.join("initdb").is_file(),
            "SYNAPSE_BACKUP_TEST_PG_BIN has no initdb: {}",
            given.display()
        );
        return given;
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    let number = |path: &PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.parse::<u32>().ok())
    };
    let newest = versions
        .map(|entry| entry.path())
        .filter(|path| path.join("bin/initdb").is_file())
        .max_by_key(number);
    newest
        .expect("no PostgreSQL server is installed: run scripts/setup, or set SYNAPSE_BACKUP_TEST_PG_BIN")
        .join("bin")
}

/// Where `scripts/setup` keeps things.
#[expect(clippy::disallowed_methods, reason = "a test may be told where the cache is")]
fn cache() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("SYNAPSE_BACKUP_CACHE").unwrap_or_else(|| {
        let caches = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
        caches.expect("HOME is not set").join("synapse-backup")
    })
}

fn owner() -> Account {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let accounts = passwd.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        Some(Account {
            name: fields.first()?.to_string(),
            uid: fields.get(2)?.parse().ok()?,
            gid: fields.get(3)?.parse().ok()?,
        })
    });
    let accounts: Vec<Account> = accounts.collect();
    let named = |name: &str| accounts.iter().find(|account| account.name == name).cloned();
    if uid == 0 {
        return named("postgres").or_else(|| named("nobody")).expect("an account that is not root");
    }
    accounts.iter().find(|account| account.uid == uid).cloned().unwrap_or(Account {
        name: "me".into(),
        uid,
        gid,
    })
}

/// Short, since the path of a socket is limited to some hundred bytes.
fn directory(owner: &Account) -> PathBuf {
    let directory = tempfile::Builder::new().prefix("pg-test-").tempdir().unwrap().keep();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    if is_root() {
        chown(&directory, Some(owner.uid), Some(owner.gid)).unwrap();
    }
    directory
}

fn as_owner(program: &Path, owner: &Account, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("LC_ALL", "C")
        .env("PATH", "/usr/bin:/bin")
        .current_dir(directory);
    if is_root() {
        command.uid(owner.uid).gid(owner.gid);
    }
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Waits for the end of the test program, which closes the pipe, then stops the server and removes everything.
fn watch(bin: &Path, directory: &Path, owner: &Account) -> Child {
    let script = "trap '' INT TERM HUP; read nothing; [ -f \"$1/pgbouncer.pid\" ] && kill \"$(cat \"$1/pgbouncer.pid\")\"; \"$0\" stop --mode=immediate --silent --pgdata=\"$1/data\" >/dev/null 2>&1; rm -rf \"$1\"";
    let mut command = as_owner(Path::new("/bin/sh"), owner, Path::new("/"));
    command
        .arg("-c")
        .arg(script)
        .arg(bin.join("pg_ctl"))
        .arg(directory)
        .process_group(0);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}
