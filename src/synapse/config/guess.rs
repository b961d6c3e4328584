//! Files that no list can know: paths in the free configuration of modules, and in options younger than this program.
//!
//! A guess is saved if it is there, and nothing is said if it is not. The Python code of modules is never saved, nor is
//! what belongs to the operating system.

use std::path::{Path, PathBuf};

use super::paths::{Paths, normalize};
use super::table::{TABLE, select};
use crate::synapse::yaml::{Kind, Mapping, Value};

/// A guessed file is not larger than this; larger ones are data, not configuration.
pub const GUESS_BYTES_MAX: u64 = 16 << 20;

/// Where modules and providers keep what only they understand.
const FREE: &[&str] = &[
    "modules[].config",
    "password_providers[].config",
    "ldap_config",
    "spam_checker.config",
    "spam_checker[].config",
    "third_party_event_rules.config",
    "oidc_providers[].user_mapping_provider.config",
    "oidc_config.user_mapping_provider.config",
    "saml2_config.user_mapping_provider.config",
    "saml2_config.sp_config",
    "media_storage_providers[].config",
];

/// Options whose name ends like a file's and that name none, or none to save.
const NOT_SAVED: &[&str] = &[
    "pid_file",
    "worker_pid_file",
    "log_file",
    "media_store_path",
    "backup_media_store_path",
    "database_path",
];

/// The system brings these itself, and a restore must not be stopped by them.
const SYSTEM: &[&str] = &[
    "/bin", "/boot", "/dev", "/lib", "/lib32", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr",
];

/// Whether `path` belongs to the operating system and not to the admin.
pub(super) fn is_system(path: &Path) -> bool {
    SYSTEM.iter().any(|system| path.starts_with(system)) && !path.starts_with("/usr/local/etc")
}

/// Candidates, as paths here. Whether they are regular files is for the caller to see.
pub(super) fn candidates(map: &Mapping, paths: &Paths<'_>, home: Option<&Path>) -> Vec<PathBuf> {
    let mut texts = Vec::new();
    for pattern in FREE {
        for (_, value) in select(map, pattern) {
            all_texts(value, &mut texts);
        }
    }
    texts.retain(|text| ["/", "./", "../", "~/"].iter().any(|start| text.starts_with(start)));
    for (key, value) in map.iter() {
        unknown_options(key.as_text().unwrap_or_default(), value, &mut texts);
    }
    let mut found: Vec<PathBuf> = texts
        .into_iter()
        .filter_map(|text| place(text, paths, home))
        .filter(|path| !is_system(path))
        .collect();
    found.sort();
    found.dedup();
    found
}

fn place(text: &str, paths: &Paths<'_>, home: Option<&Path>) -> Option<PathBuf> {
    match text.strip_prefix("~/") {
        Some(rest) => home.map(|home| normalize(&home.join(rest))),
        None => paths.resolve("", text).ok(),
    }
}

fn all_texts<'v>(value: &'v Value, texts: &mut Vec<&'v str>) {
    match &value.kind {
        Kind::Text(text) => texts.push(text),
        Kind::List(items) => items.iter().for_each(|item| all_texts(item, texts)),
        Kind::Map(map) => map.iter().for_each(|(_, item)| all_texts(item, texts)),
        _ => {}
    }
}

/// `…_path` and `…_file` anywhere that the table does not know.
fn unknown_options<'v>(name: &str, value: &'v Value, texts: &mut Vec<&'v str>) {
    match &value.kind {
        Kind::Text(text) => {
            let last = name.rsplit('.').next().unwrap_or_default();
            let known = TABLE.iter().any(|row| row.option == name) || NOT_SAVED.contains(&last);
            if !known && !text.is_empty() && (last.ends_with("_path") || last.ends_with("_file")) {
                texts.push(text);
            }
        }
        Kind::List(items) => items.iter().for_each(|item| unknown_options(&format!("{name}[]"), item, texts)),
        Kind::Map(map) => {
            for (key, item) in map.iter() {
                unknown_options(&format!("{name}.{}", key.as_text().unwrap_or_default()), item, texts);
            }
        }
        _ => {}
    }
}
