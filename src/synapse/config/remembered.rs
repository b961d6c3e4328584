//! The configuration out of a snapshot: its files as bytes, none of them on disk yet.
//!
//! A restore asks here where the databases were, before it has written anything.

use std::path::PathBuf;

use super::Options;
use super::databases;
use super::paths::Paths;
use crate::synapse::yaml::{self, Kind, Mapping};
use crate::synapse::{DatabaseConfig, Error};

/// The databases that these files name, merged in this order as Synapse does.
pub fn databases_of(files: &[(PathBuf, Vec<u8>)], options: &Options) -> Result<Vec<DatabaseConfig>, Error> {
    let mut map = Mapping::default();
    for (path, bytes) in files {
        let value = yaml::parse(bytes).map_err(|problem| Error::Yaml {
            path: path.clone(),
            problem,
        })?;
        if let Kind::Map(file) = value.kind {
            map.update(file);
        }
    }
    databases::read(&map, &Paths::new(options)?, true)
}
