//! Which YAML files make the configuration, and what they say together.
//!
//! As `find_config_files` and `read_config_files` of `synapse/config/_base.py`: a directory stands for its own `*.yaml`
//! files sorted by path, the order of `-c` is kept, and a later file replaces whole top-level keys.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Options;
use super::collect::{self, Collector};
use super::paths::normalize;
use crate::synapse::yaml::{self, Kind, Mapping, Value, YAML_BYTES_MAX};
use crate::synapse::{Error, FindingKind, Role};

/// The merged configuration.
pub(super) struct Loaded {
    /// The files, in order.
    pub(super) sources: Vec<PathBuf>,
    /// All of them together.
    pub(super) map: Mapping,
    /// `server_name`.
    pub(super) server_name: String,
    /// Where Synapse looks for what has no option: the directory of the last file.
    pub(super) config_dir: PathBuf,
}

/// Reads what `options.config` names and puts every file read into `collector`.
pub(super) fn load(options: &Options, collector: &mut Collector) -> Result<Loaded, Error> {
    let mut sources = Vec::new();
    for path in &options.config {
        let path = normalize(path);
        let metadata = fs::metadata(&path).map_err(|source| Error::ConfigUnreadable {
            path: path.clone(),
            source,
        })?;
        if metadata.is_dir() {
            sources.extend(yaml_files(&path).map_err(|source| Error::ConfigUnreadable {
                path: path.clone(),
                source,
            })?);
            collector.config_directory(&path)?;
        } else {
            sources.push(path);
        }
    }
    let config_dir = sources.last().and_then(|path| path.parent()).ok_or(Error::NoConfig)?.to_path_buf();
    let mut map = Mapping::default();
    for path in &sources {
        collector.file(path, Role::Config, true, "configuration")?;
        match read_yaml(path)?.kind {
            Kind::Map(file) => map.update(file),
            _ => collector.finding(FindingKind::Ignored, path, "it is empty or not a map, so Synapse passes over it"),
        }
    }
    let server_name = match map.get("server_name") {
        None => return Err(Error::NoServerName),
        Some(name) => name.as_text().filter(|name| is_server_name(name)).map(str::to_owned),
    };
    let server_name = server_name.ok_or_else(|| Error::Option {
        option: "server_name".into(),
        problem: "is not a host name with an optional port".into(),
    })?;
    Ok(Loaded {
        sources,
        map,
        server_name,
        config_dir,
    })
}

/// The `*.yaml` files that lie in `directory` itself, links to files included, sorted by path.
pub(super) fn yaml_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let is_yaml = path.file_name().is_some_and(|name| name.as_bytes().ends_with(b".yaml"));
        if is_yaml && path.is_file() {
            files.push(path);
        }
    }
    files.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    Ok(files)
}

/// The one document in a file, which must be a regular file of bounded size.
pub(super) fn read_yaml(path: &Path) -> Result<Value, Error> {
    let bytes = read_bounded(path, YAML_BYTES_MAX as u64).map_err(|source| Error::ConfigUnreadable {
        path: path.to_path_buf(),
        source,
    })?;
    yaml::parse(&bytes).map_err(|problem| Error::Yaml {
        path: path.to_path_buf(),
        problem,
    })
}

/// All bytes of a file of at most `bytes_max`; follows links, never waits at a FIFO.
pub(super) fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    collect::open_following(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("larger than {} MiB", bytes_max >> 20),
        ));
    }
    Ok(bytes)
}

/// Host name, IPv4 or `[IPv6]`, and a port. It becomes part of a file name, so nothing else may be in it.
fn is_server_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || b".-_:[]".contains(&c)) && !matches!(name, "." | "..")
}
