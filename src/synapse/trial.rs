//! A Synapse started on a restored copy, kept from everything outside.
//!
//! It does not get the restored homeserver.yaml, whose paths, listeners, mail servers and application services are those
//! of the living server, but a configuration of our own: what is not in it cannot happen. Only the name, the key, the media
//! and the databases are taken over. A small shell stands between us and it and ends everything when its standard input ends,
//! which comes however we end.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

pub use super::http::{Answer, get};

/// What the copy is made of.
#[derive(Debug, Clone)]
pub struct Copy {
    /// `server_name`.
    pub server_name: String,
    /// The file of the private signing key.
    pub signing_key: PathBuf,
    /// The media store.
    pub media: PathBuf,
    /// Label, data stores and libpq keywords of each database.
    pub databases: Vec<(String, Vec<String>, String)>,
    /// On 127.0.0.1.
    pub port: u16,
}

/// The whole configuration: JSON, which is YAML too.
pub fn configuration(copy: &Copy, folder: &Path) -> String {
    let databases: serde_json::Map<String, serde_json::Value> = copy
        .databases
        .iter()
        .map(|(label, stores, keywords)| {
            let args = serde_json::json!({ "dsn": keywords, "cp_min": 1, "cp_max": 5 });
            let database = serde_json::json!({ "name": "psycopg2", "data_stores": stores, "args": args });
            (label.clone(), database)
        })
        .collect();
    let options = serde_json::json!({
        "server_name": copy.server_name,
        "signing_key_path": copy.signing_key,
        "media_store_path": copy.media,
        "databases": databases,
        "pid_file": folder.join("homeserver.pid"),
        "log_config": folder.join("log.yaml"),
        // Nobody but this machine can ask it, and nobody by federation.
        "listeners": [{
            "port": copy.port,
            "type": "http",
            "bind_addresses": ["127.0.0.1"],
            "resources": [{ "names": ["client", "keys"], "compress": false }],
        }],
        // It asks and tells nobody: no federation, no key servers, no previews, no push, no statistics.
        "federation_domain_whitelist": [],
        "trusted_key_servers": [],
        "suppress_key_server_warning": true,
        "url_preview_enabled": false,
        "push": { "enabled": false },
        "report_stats": false,
        "enable_metrics": false,
        "enable_registration": false,
        "presence": { "enabled": false },
        // What Synapse does by the clock (retention, clean-up of caches, mails about expiry) is done by an instance that is not there.
        "run_background_tasks_on": "nobody",
    });
    format!("{options:#}\n")
}

/// Warnings and worse, to the standard error that we keep.
pub const LOG_CONFIG: &str = "version: 1\nformatters: { plain: { format: '%(levelname)s %(name)s: %(message)s' } }\n\
    handlers: { console: { class: logging.StreamHandler, formatter: plain } }\nroot: { level: WARNING, handlers: [console] }\n";

/// Starts it, says when it has ended, and ends it with everything that it has started when its own input ends.
const SUPERVISOR: &str = "trap '' INT TERM HUP PIPE\n\
    { sh -c \"exec $1 \\\"\\$@\\\"\" synapse -c \"$2\" </dev/null >\"$3\" 2>&1; echo ended; } &\n\
    read -r nothing\nkill -KILL 0";

/// A started Synapse. Dropping it ends it.
#[derive(Debug)]
pub struct Running {
    supervisor: Child,
    log: PathBuf,
}

impl Running {
    /// `command` is a shell's words, as in `/opt/synapse/bin/python -m synapse.app.homeserver`. `environment` is what libpq may see.
    pub fn start(command: &str, config: &Path, folder: &Path, environment: &[(String, String)]) -> std::io::Result<Self> {
        let log = folder.join("synapse.log");
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", SUPERVISOR, "synapse-backup-drill", command])
            .arg(config)
            .arg(&log)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .envs(environment.iter().map(|(key, value)| (key, value)))
            .current_dir(folder)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        Ok(Self {
            supervisor: shell.spawn()?,
            log,
        })
    }

    /// Wait until it has ended by itself.
    pub async fn ended(&mut self) {
        let mut word = [0; 6];
        if let Some(stdout) = &mut self.supervisor.stdout {
            let _ = stdout.read_exact(&mut word).await;
        }
    }

    /// The end of what it said.
    pub fn last_words(&self) -> String {
        let said = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&said[said.len().saturating_sub(4096)..]).into_owned();
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(3)..].join(" | ")
    }

    /// End it and wait until it is gone.
    pub async fn stop(mut self) {
        self.supervisor.stdin = None;
        let _ = self.supervisor.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_reaches_out_is_in_the_configuration() {
        let copy = Copy {
            server_name: "example.org".into(),
            signing_key: "/scratch/key".into(),
            media: "/scratch/media".into(),
            databases: vec![("master".into(), vec!["main".into(), "state".into()], "dbname=x".into())],
            port: 4,
        };
        let text = configuration(&copy, Path::new("/scratch"));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        assert_eq!(value["listeners"][0]["bind_addresses"], serde_json::json!(["127.0.0.1"]));
        assert_eq!(value["federation_domain_whitelist"], serde_json::json!([]));
        assert_eq!(value["push"]["enabled"], serde_json::json!(false));
        for option in [
            "email",
            "app_service_config_files",
            "modules",
            "oidc_providers",
            "redis",
            "instance_map",
            "sentry",
        ] {
            assert!(value.get(option).is_none(), "{option}");
        }
        assert!(!text.contains("federation\""), "no federation listener");
    }
}
