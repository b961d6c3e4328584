//! Paths of Synapse and paths here: the working directory and the map of a container's paths.
//!
//! Cleaning (`.`, `..`, doubled slashes) happens in the text alone, since a path of Synapse's may not exist here; only a
//! `..` behind a link asks the disk.

use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::Options;
use crate::synapse::Error;

/// Turns what stands in the configuration into a path on this host.
#[derive(Debug)]
pub(super) struct Paths<'a> {
    options: &'a Options,
}

impl<'a> Paths<'a> {
    /// Checks our own settings: what is named here is absolute.
    pub(super) fn new(options: &'a Options) -> Result<Self, Error> {
        let map = options.path_map.iter().flat_map(|(from, to)| [from, to]);
        let own = options
            .config
            .iter()
            .chain(&options.files)
            .chain(&options.home)
            .chain(&options.working_directory)
            .chain(map);
        match own.into_iter().find(|path| !path.is_absolute()) {
            Some(path) => Err(Error::NotAbsolute { path: path.clone() }),
            None => Ok(Self { options }),
        }
    }

    /// `text` from the option `option`: joined to the working directory if it is relative, then mapped.
    pub(super) fn resolve(&self, option: &str, text: &str) -> Result<PathBuf, Error> {
        let path = Path::new(text);
        let joined = match &self.options.working_directory {
            _ if path.is_absolute() => path.to_path_buf(),
            Some(directory) => directory.join(path),
            None => {
                return Err(Error::Relative {
                    option: option.to_owned(),
                    path: path.to_path_buf(),
                });
            }
        };
        let here = self.map(&normalize(&joined));
        Ok(if here == normalize(&joined) { settle(&joined) } else { here })
    }

    /// The path on this host of a path that Synapse sees: the longest entry that matches whole components.
    pub(super) fn map(&self, path: &Path) -> PathBuf {
        let matching = self
            .options
            .path_map
            .iter()
            .filter_map(|(from, to)| path.strip_prefix(normalize(from)).ok().map(|rest| (from, to, rest)));
        match matching.max_by_key(|(from, ..)| normalize(from).components().count()) {
            Some((_, to, rest)) => normalize(&to.join(rest)),
            None => path.to_path_buf(),
        }
    }
}

/// Without `.`, `..` and doubled slashes, as Python's `os.path.normpath`.
pub(super) fn normalize(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// [`normalize`], unless a `..` behind a link makes that another file: then where it really lies.
pub(super) fn settle(path: &Path) -> PathBuf {
    let clean = normalize(path);
    if !path.components().any(|component| component == Component::ParentDir) {
        return clean;
    }
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    match identity(path) {
        Some(real) if identity(&clean) != Some(real) => path.canonicalize().unwrap_or(clean),
        _ => clean,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn the_longest_entry_of_the_map_counts_and_only_whole_components() {
        let options = Options {
            working_directory: Some("/data".into()),
            path_map: vec![
                ("/data".into(), "/srv/synapse".into()),
                ("/data/media/".into(), "/big".into()),
                ("/".into(), "/root-of-it".into()),
            ],
            ..Options::default()
        };
        let paths = Paths::new(&options).unwrap();
        let cases = [
            ("/data/homeserver.yaml", "/srv/synapse/homeserver.yaml"),
            ("/data/media/x", "/big/x"),
            ("/data/mediant", "/srv/synapse/mediant"),
            ("/database", "/root-of-it/database"),
            ("as.yaml", "/srv/synapse/as.yaml"),
            ("./as//x/../y.yaml", "/srv/synapse/as/y.yaml"),
            ("media", "/big"),
            ("../etc/x", "/root-of-it/etc/x"),
            ("/data/../../data/k", "/srv/synapse/k"),
        ];
        for (text, here) in cases {
            assert_eq!(paths.resolve("x", text).unwrap(), Path::new(here), "{text}");
        }
    }

    #[test]
    fn a_relative_path_needs_a_working_directory() {
        let options = Options::default();
        let error = Paths::new(&options).unwrap().resolve("log_config", "log.yaml").unwrap_err();
        assert_eq!(error.to_string(), "the Synapse option `log_config` is the relative path `log.yaml`");
        assert!(error.hint().unwrap().contains("synapse.working_directory"));
    }

    #[test]
    fn two_dots_behind_a_link_lead_where_the_kernel_goes() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("far/away")).unwrap();
        std::os::unix::fs::symlink(root.join("far/away"), root.join("link")).unwrap();
        std::fs::write(root.join("far/key"), "real").unwrap();
        std::fs::write(root.join("key"), "other").unwrap();
        assert_eq!(settle(&root.join("link/../key")), root.join("far/key"));
        assert_eq!(settle(&root.join("far/../key")), root.join("key"));
        assert_eq!(settle(&root.join("link/../gone")), root.join("gone"));
    }
}
