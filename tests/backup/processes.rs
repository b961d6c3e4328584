//! The programs of PostgreSQL that run on behalf of a database, as the system knows them.

use std::fs;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) id: i32,
    /// `pg_dump`, `pg_restore` or `psql`.
    pub(crate) program: String,
}

/// Those whose arguments name this database. Server processes have other names.
pub(crate) fn of_database(database: &str) -> Vec<Process> {
    let process = |entry: fs::DirEntry| {
        let id: i32 = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let program = words.next()?.rsplit('/').next()?.to_owned();
        let ours = ["pg_dump", "pg_restore", "psql"].contains(&program.as_str());
        // Of several databases with numbers at their ends, only this one.
        let names = |word: &str| {
            word.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .any(|name| name == database)
        };
        (ours && words.any(|word| names(&word))).then_some(Process { id, program })
    };
    fs::read_dir("/proc").unwrap().filter_map(Result::ok).filter_map(process).collect()
}

/// As the out-of-memory killer does.
pub(crate) fn kill(process: &Process) {
    let id = rustix::process::Pid::from_raw(process.id).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
}
