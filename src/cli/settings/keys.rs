//! The table of keys: which exist, which belong to a later version, and which one a typing mistake meant.
//!
//! The file's structs, the environment's names and the suggestions all hang on this one table; tests hold that the
//! structs have exactly these keys.

/// Keys with one value or a list of words: the file and the environment may set them.
pub(super) const SINGLE: [&str; 36] = [
    "repository",
    "s3.endpoint",
    "s3.region",
    "s3.path_style",
    "s3.ca_file",
    "s3.profile",
    "s3.provider",
    "s3.storage_class",
    "synapse.config",
    "synapse.working_directory",
    "media.thumbnails",
    "media.remote",
    "media.url_cache",
    "media.accepted_losses",
    "files",
    "keep.last",
    "keep.daily",
    "keep.weekly",
    "keep.monthly",
    "keep.yearly",
    "keep.within",
    "keep.time_zone",
    "keep.tags",
    "limits.memory",
    "limits.connections",
    "limits.dump_jobs",
    "limits.load_jobs",
    "limits.media_time",
    "postgres.pg_dump",
    "object_lock.mode",
    "object_lock.days",
    "encryption.recipients",
    "encryption.writer_key_file",
    "encryption.signers",
    "metrics.textfile",
    "metrics.ping_url",
];

/// Keys that only the file can hold: maps, and lists of maps.
pub(super) const FILE_ONLY: [&str; 2] = ["synapse.path_map", "databases"];

/// Fields of one entry of `databases`.
const DATABASE_FIELDS: [&str; 2] = ["name", "url"];

/// Keys of DESIGN that this version refuses, and what they would be for.
const LATER: [(&str, &str); 1] = [("limits.upload_rate", "a limit of the upload rate")];

/// What is to be said about a key that no struct knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unknown {
    /// A later version has this feature.
    Later(&'static str),
    /// Perhaps this key was meant.
    Perhaps(&'static str),
    /// Nothing is like it.
    No,
}

/// The section that has exactly these keys: how an error of the YAML reader tells where it was.
pub(super) fn section_with(fields: &[&str]) -> Option<&'static str> {
    let same = |keys: &[&str]| keys.len() == fields.len() && keys.iter().all(|key| fields.contains(key));
    if same(&DATABASE_FIELDS) {
        return Some("databases");
    }
    sections().into_iter().find(|section| same(&keys_of(section)))
}

/// The keys directly in a section; `""` is the top.
pub(super) fn keys_of(section: &str) -> Vec<&'static str> {
    if section == "databases" {
        return DATABASE_FIELDS.to_vec();
    }
    let mut keys = Vec::new();
    for path in SINGLE.iter().chain(&FILE_ONLY) {
        let (parent, key) = path.split_once('.').unwrap_or(("", path));
        if parent == section {
            keys.push(key);
        } else if section.is_empty() && !keys.contains(&parent) {
            keys.push(parent);
        }
    }
    keys
}

/// What is to be said about this key (a whole path, as in `s3.endpont`).
pub(super) fn unknown(path: &str) -> Unknown {
    let inside = |later: &str| path == later || path.strip_prefix(later).is_some_and(|rest| rest.starts_with('.'));
    if let Some((_, feature)) = LATER.iter().find(|(later, _)| inside(later)) {
        return Unknown::Later(feature);
    }
    nearest(path).map_or(Unknown::No, Unknown::Perhaps)
}

/// What is to be said about a variable of the environment (without `SYNAPSE_BACKUP_`).
pub(super) fn unknown_variable(name: &str) -> Unknown {
    let inside = |later: &str| {
        let variable = variable_of(later);
        name == variable || name.strip_prefix(&variable).is_some_and(|rest| rest.starts_with('_'))
    };
    if let Some((_, feature)) = LATER.iter().find(|(later, _)| inside(later)) {
        return Unknown::Later(feature);
    }
    let paths = SINGLE.iter().copied();
    let best = paths
        .map(|path| (strsim::damerau_levenshtein(name, &variable_of(path)), path))
        .min();
    match best {
        Some((distance, path)) if distance <= slips(name) => Unknown::Perhaps(path),
        _ => Unknown::No,
    }
}

/// `s3.path_style` as `S3_PATH_STYLE`.
pub(super) fn variable_of(path: &str) -> String {
    path.replace('.', "_").to_ascii_uppercase()
}

/// The key that was meant: a slip of the fingers in the same section, or the right word in the wrong section.
fn nearest(path: &str) -> Option<&'static str> {
    let key = path.rsplit('.').next().unwrap_or(path);
    let section = path.rsplit_once('.').map_or("", |(section, _)| section);
    let mut best: Option<(usize, &'static str)> = None;
    for candidate in all_paths() {
        let (parent, word) = candidate.rsplit_once('.').unwrap_or(("", candidate));
        let distance = strsim::damerau_levenshtein(key, word) + usize::from(parent != section);
        if distance <= slips(key) && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, path)| path)
}

/// How many slips still make it likely that a known word was meant.
fn slips(word: &str) -> usize {
    (word.chars().count() / 3).clamp(1, 3)
}

fn sections() -> Vec<&'static str> {
    let mut sections = vec![""];
    for path in SINGLE {
        if let Some((section, _)) = path.split_once('.')
            && !sections.contains(&section)
        {
            sections.push(section);
        }
    }
    sections
}

/// Sections, keys and fields.
fn all_paths() -> impl Iterator<Item = &'static str> {
    let fields = ["databases.name", "databases.url"];
    sections().into_iter().skip(1).chain(SINGLE).chain(FILE_ONLY).chain(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_the_key_that_was_meant() {
        for (typed, wanted) in [
            ("medai", Unknown::Perhaps("media")),
            ("repositry", Unknown::Perhaps("repository")),
            ("s3.endpont", Unknown::Perhaps("s3.endpoint")),
            ("endpoint", Unknown::Perhaps("s3.endpoint")),
            ("media.thumbnail", Unknown::Perhaps("media.thumbnails")),
            ("database", Unknown::Perhaps("databases")),
            ("databases.nam", Unknown::Perhaps("databases.name")),
            ("synapse.memory", Unknown::Perhaps("limits.memory")),
            ("s3.x", Unknown::No),
            ("telephone", Unknown::No),
            ("keep.hourly", Unknown::No),
            ("keep.montly", Unknown::Perhaps("keep.monthly")),
            ("limits.upload_rate", Unknown::Later("a limit of the upload rate")),
            ("limits.dump_job", Unknown::Perhaps("limits.dump_jobs")),
            ("metric", Unknown::Perhaps("metrics")),
        ] {
            assert_eq!(unknown(typed), wanted, "{typed}");
        }
    }

    #[test]
    fn variables_are_told_apart_like_keys() {
        for (typed, wanted) in [
            ("S3_ENDPONT", Unknown::Perhaps("s3.endpoint")),
            ("REPO", Unknown::No),
            ("METRICS_PNG_URL", Unknown::Perhaps("metrics.ping_url")),
            ("METRICAL", Unknown::No),
            ("KEEP_LATS", Unknown::Perhaps("keep.last")),
            ("LIMITS_UPLOAD_RATE", Unknown::Later("a limit of the upload rate")),
        ] {
            assert_eq!(unknown_variable(typed), wanted, "{typed}");
        }
    }

    #[test]
    fn a_section_is_known_by_its_keys() {
        for section in sections().into_iter().chain(["databases"]) {
            assert_eq!(section_with(&keys_of(section)), Some(section));
        }
    }
}
