//! A private `MinIO` on a free port of the loopback interface, with a directory of its own.
//!
//! [`shared`] starts one for all tests of a binary; [`Minio::start`] one of one's own (with TLS, with a region). The server
//! is a child of a small shell that waits for the end of its input, which is the end of the test process, however
//! that ends: then it kills the server and removes the directory. Nothing is skipped: without the binary, tests fail.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::operation::create_bucket::CreateBucketError;
use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use synapse_backup::store::s3::{AccessKey, Provider, S3Options};

/// The pair every server of these tests is started with.
pub const ACCESS_KEY: &str = "test-access-key";
/// Its secret.
pub const SECRET_KEY: &str = "test-secret-key";

/// Kills the server when its input ends.
const KEEPER: &str = r#"
minio=$1; data=$2; shift 2
"$minio" server --quiet "$@" "$data" </dev/null >"$data.log" 2>&1 &
server=$!
trap '' INT TERM
cat >/dev/null
kill -9 "$server" 2>/dev/null
wait "$server" 2>/dev/null
rm -rf "${data%/data}"
"#;

/// A running server.
pub struct Minio {
    /// Where it listens.
    pub address: SocketAddr,
    /// `http://127.0.0.1:PORT`, or `https://localhost:PORT`.
    pub endpoint: String,
    keeper: Child,
}

/// How to start one.
#[derive(Default)]
pub struct How<'a> {
    /// A directory with `public.crt` and `private.key`.
    pub certificates: Option<&'a Path>,
    /// A region it insists on.
    pub region: Option<&'a str>,
    /// Buckets that are there from the beginning: to `MinIO` on one drive, a directory is a bucket.
    pub buckets: &'a [&'a str],
}

/// The one of this test binary.
pub fn shared() -> &'static Minio {
    static SHARED: OnceLock<Minio> = OnceLock::new();
    SHARED.get_or_init(|| Minio::start(&How::default()))
}

/// The binary that `scripts/setup` builds.
///
/// # Panics
/// When it is not there.
pub fn binary() -> PathBuf {
    let home = || PathBuf::from(variable("HOME").expect("HOME is not set")).join(".cache");
    let of_user = || variable("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("synapse-backup");
    let cache = variable("SYNAPSE_BACKUP_CACHE").map_or_else(of_user, PathBuf::from);
    let binary = cache.join("bin/minio");
    assert!(
        binary.is_file(),
        "MinIO is missing at {}: `scripts/setup` gets it",
        binary.display()
    );
    binary
}

/// `mc`, which alone makes users and policies: beside the server.
fn admin() -> PathBuf {
    let mc = binary().with_file_name("mc");
    assert!(mc.is_file(), "mc is missing at {}: `scripts/setup` gets it", mc.display());
    mc
}

#[expect(clippy::disallowed_methods, reason = "a test finds its tools by the environment")]
fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

impl Minio {
    /// Start one and wait until it is ready.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(how: &How<'_>) -> Self {
        for _ in 0..5 {
            // Another process may take the port between our look and the server's start.
            if let Some(minio) = Self::try_start(how) {
                return minio;
            }
        }
        panic!("MinIO does not become ready: {}", binary().display());
    }

    fn try_start(how: &How<'_>) -> Option<Self> {
        let directory = tempfile::Builder::new()
            .prefix("synapse-backup-minio-")
            .tempdir()
            .expect("a temporary directory")
            .keep();
        let data = directory.join("data");
        for bucket in how.buckets {
            std::fs::create_dir_all(data.join(bucket)).expect("a directory for a bucket");
        }
        let address = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port");
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "minio-keeper"]).arg(binary()).arg(&data);
        command.args(["--address", &address.to_string(), "--console-address", "127.0.0.1:0"]);
        match how.certificates {
            Some(folder) => command.arg("--certs-dir").arg(folder),
            None => command.arg("--certs-dir").arg(directory.join("no-certificates")),
        };
        command.env("MINIO_ROOT_USER", ACCESS_KEY).env("MINIO_ROOT_PASSWORD", SECRET_KEY);
        command
            .env("MINIO_BROWSER", "off")
            .env("MINIO_UPDATE", "off")
            .env("MINIO_CALLHOME_ENABLE", "off");
        if let Some(region) = how.region {
            command.env("MINIO_SITE_REGION", region);
        }
        let keeper = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh starts");
        let endpoint = if how.certificates.is_some() {
            format!("https://localhost:{}", address.port())
        } else {
            format!("http://{address}")
        };
        let minio = Self { address, endpoint, keeper };
        let until = Instant::now() + Duration::from_secs(30);
        while Instant::now() < until {
            let has_tls = how.certificates.is_some();
            if minio.is_ready(has_tls) && (!has_tls || minio.serves()) {
                return Some(minio);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        None
    }

    fn is_ready(&self, has_tls: bool) -> bool {
        let Ok(mut stream) = TcpStream::connect_timeout(&self.address, Duration::from_secs(1)) else {
            return false;
        };
        // A client that does not speak TLS is told so, but only by a server that is up.
        let wanted: &[u8] = if has_tls { b" 400" } else { b" 200" };
        let mut answer = [0; 16];
        stream.set_read_timeout(Some(Duration::from_secs(2))).is_ok()
            && stream
                .write_all(b"GET /minio/health/ready HTTP/1.0\r\nHost: localhost\r\n\r\n")
                .is_ok()
            && stream
                .read(&mut answer)
                .is_ok_and(|read| answer[..read].windows(4).any(|four| four == wanted))
    }

    /// Does it list buckets? Over TLS the look above tells only that somebody listens, which MinIO does before it serves.
    fn serves(&self) -> bool {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let listed = self.mc(folder.path()).args(["ls", "test"]).output().expect("mc starts");
        listed.status.success()
    }

    /// `mc` for this server, called `test`, whatever certificate it has; it keeps its things in a folder.
    fn mc(&self, folder: &Path) -> Command {
        let host = self.endpoint.replace("://", &format!("://{ACCESS_KEY}:{SECRET_KEY}@"));
        let mut command = Command::new(admin());
        command
            .arg("--config-dir")
            .arg(folder)
            .args(["--insecure", "--json"])
            .env("MC_HOST_test", host);
        command
    }

    /// Settings for a bucket of this server, without patience for what cannot work.
    pub fn options(&self, bucket: &str) -> S3Options {
        S3Options {
            bucket: bucket.to_owned(),
            endpoint: Some(self.endpoint.clone()),
            access_key: Some(AccessKey {
                id: ACCESS_KEY.to_owned(),
                secret: SECRET_KEY.to_owned(),
                session_token: None,
            }),
            provider: Some(Provider::Minio),
            ..S3Options::default()
        }
    }

    /// The same for a user that [`Minio::add_user`] made, below a prefix.
    pub fn options_as(&self, user: &str, bucket: &str, prefix: &str) -> S3Options {
        S3Options {
            prefix: prefix.to_owned(),
            access_key: Some(AccessKey {
                id: user.to_owned(),
                secret: secret_of(user),
                session_token: None,
            }),
            ..self.options(bucket)
        }
    }

    /// Write an object under a customer's key (SSE-C), which `mc` can and we cannot: we only read them.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn put_under_key(&self, bucket: &str, key: &str, body: &[u8], customer_key_base64: &str) {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let file = folder.path().join("body");
        std::fs::write(&file, body).expect("a file for the object");
        let done = self
            .mc(folder.path())
            .args(["cp", "--enc-c"])
            .arg(format!("test/{bucket}/={}", customer_key_base64.trim_end_matches('=')))
            .arg(&file)
            .arg(format!("test/{bucket}/{key}"))
            .output()
            .expect("mc starts");
        assert!(
            done.status.success(),
            "mc cp: {}{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        );
    }

    /// Make a user who may do what this policy says and nothing else.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn add_user(&self, user: &str, policy: &str) {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let file = folder.path().join("policy.json");
        std::fs::write(&file, policy).expect("a file for the policy");
        let run = |arguments: &[&str]| {
            let mut command = Command::new(admin());
            command
                .arg("--config-dir")
                .arg(folder.path())
                .args(["--json", "admin"])
                .args(arguments);
            let host = self.endpoint.replace("://", &format!("://{ACCESS_KEY}:{SECRET_KEY}@"));
            let done = command.env("MC_HOST_test", host).output().expect("mc starts");
            assert!(
                done.status.success(),
                "mc admin {arguments:?}: {}",
                String::from_utf8_lossy(&done.stdout)
            );
        };
        run(&["user", "add", "test", user, &secret_of(user)]);
        run(&["policy", "create", "test", user, &file.display().to_string()]);
        run(&["policy", "attach", "test", user, "--user", user]);
    }

    /// Make a bucket that keeps versions.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn create_versioned_bucket(&self, bucket: &str) {
        self.create_bucket(bucket).await;
        let on = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        let request = self.client().put_bucket_versioning().bucket(bucket).versioning_configuration(on);
        request.send().await.expect("the bucket keeps versions");
    }

    /// Make a bucket with Object Lock.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn create_locked_bucket(&self, bucket: &str) {
        let request = self.client().create_bucket().bucket(bucket).object_lock_enabled_for_bucket(true);
        request.send().await.expect("a bucket with Object Lock");
    }

    /// Make a bucket; one that is there already is fine. (Plain http only.)
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn create_bucket(&self, bucket: &str) {
        match self.client().create_bucket().bucket(bucket).send().await {
            Ok(_) => {}
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(CreateBucketError::is_bucket_already_owned_by_you) => {}
            Err(error) => panic!("no bucket {bucket}: {error:?}"),
        }
    }

    /// A plain client, to look at the server from another side.
    pub fn client(&self) -> aws_sdk_s3::Client {
        self.client_with(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test"))
    }

    /// The same as a user that [`Minio::add_user`] made.
    pub fn client_as(&self, user: &str) -> aws_sdk_s3::Client {
        self.client_with(Credentials::new(user, secret_of(user), None, None, "test"))
    }

    fn client_with(&self, credentials: Credentials) -> aws_sdk_s3::Client {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .endpoint_url(&self.endpoint)
            .region(Region::new("us-east-1"))
            .force_path_style(true)
            .credentials_provider(credentials)
            .build();
        aws_sdk_s3::Client::from_conf(config)
    }
}

fn secret_of(user: &str) -> String {
    format!("secret-of-{user}")
}

impl Drop for Minio {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
