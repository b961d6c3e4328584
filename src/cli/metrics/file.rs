//! The text file on disk: made beside itself and renamed, so that its reader never sees half of it.
//!
//! Two commands that end at once wait for each other, by a lock on the folder that ends with the process. Everything here
//! blocks, and is called where it may.

use std::fs::{File, Permissions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// What we write is some kilobytes; a larger file is not ours, and its text is not looked at.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// `node_exporter` runs as another user.
const MODE: u32 = 0o644;

/// Replace the file by what `merge` makes of its text.
pub(super) fn update(path: &Path, merge: impl FnOnce(&str) -> String) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    let lock = File::open(folder)?;
    lock.lock()?;
    let text = merge(&standing(path)?);
    let mut file = tempfile::Builder::new()
        .prefix(".synapse-backup.")
        .suffix(".tmp")
        .tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(Permissions::from_mode(MODE))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// The text that is there. What is no text is replaced.
fn standing(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => Ok(String::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_can_be_read_by_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("synapse-backup.prom");
        update(&path, |standing| format!("{standing}one\n")).unwrap();
        update(&path, |standing| format!("{standing}two\n")).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, MODE);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        std::fs::write(&path, b"\xff\n").unwrap();
        update(&path, |standing| format!("{standing}three\n")).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
        assert!(update(&folder.path().join("missing/x.prom"), |_| String::new()).is_err());
    }

    #[test]
    fn commands_that_end_at_once_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.prom");
        std::thread::scope(|scope| {
            for number in 0..8 {
                let path = &path;
                scope.spawn(move || update(path, |standing| format!("{standing}{number}\n")).unwrap());
            }
        });
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 8);
    }
}
