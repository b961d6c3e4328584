//! The rules of the house (DESIGN §5), as tests: which floor may see which, how large a file may be, that every file
//! says at its top what it is for, who may print, and that the tests which `ARCHITECTURE.md` and the threat model name exist.
//!
//! The rules are data. A new arrow between floors is a line in `ARROWS`, in the same commit as its first use, with the
//! reason in the commit's message.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Each floor or room, and what it may see. `main` sees the library by its name.
const ARROWS: [(&str, &[&str]); 8] = [
    // The ground floor: no room sees another.
    ("progress", &[]),
    ("format", &[]),
    ("store", &[]),
    ("synapse", &[]),
    // Values on one side, objects on the other. It has never heard of Matrix.
    ("repo", &["format", "store", "progress"]),
    // The verbs: the only place where both wings meet.
    ("ops", &["repo", "format", "store", "synapse", "progress"]),
    ("cli", &["ops", "repo", "format", "store", "synapse", "progress"]),
    ("main", &["cli"]),
];

/// Rows of the table of invariants in `ARCHITECTURE.md`.
const INVARIANTS: usize = 13;
/// Lines of code a file may have before its tests.
const CODE_LINES_MAX: usize = 400;
/// Lines of prose at the top of a file.
const HEAD_LINES: std::ops::RangeInclusive<usize> = 3..=15;

/// What only `cli` may do, and what it is called in the message.
const ONLY_CLI: [(&str, &str); 15] = [
    ("println!", "prints"),
    ("print!", "prints"),
    ("eprintln!", "prints"),
    ("eprint!", "prints"),
    ("dbg!", "prints"),
    ("io::stdout(", "writes to standard output"),
    ("io::stderr(", "writes to standard error"),
    ("io::stdin(", "reads standard input"),
    ("env::var", "reads the environment"),
    ("env::set_var", "changes the environment"),
    ("env::args", "reads the arguments"),
    ("env::current_", "asks where the process stands"),
    ("env::temp_dir", "reads the environment"),
    ("env::home_dir", "reads the environment"),
    ("process::exit", "ends the process"),
];

/// One file of `src/`, with its comments cut away.
struct Source {
    /// Relative to `src/`.
    path: PathBuf,
    /// As it stands.
    text: String,
    /// Line number and code of what stands before the tests.
    code: Vec<(usize, String)>,
    /// The same for the tests.
    tests: Vec<(usize, String)>,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let lines: Vec<(usize, String)> = text.lines().enumerate().map(|(at, line)| (at + 1, without_comment(line))).collect();
        let is_test_file = path.ends_with("tests.rs") || path.contains("/tests/");
        let tests_begin = if is_test_file { 0 } else { tests_begin(&lines) };
        let (code, tests) = lines.split_at(tests_begin);
        let kept = |lines: &[(usize, String)]| lines.iter().filter(|(_, line)| !line.is_empty()).cloned().collect();
        Self {
            path: path.into(),
            text: text.to_owned(),
            code: kept(code),
            tests: kept(tests),
        }
    }

    /// `ops` for `ops/backup.rs`, `main` for `main.rs`.
    fn floor(&self) -> String {
        let first = self.path.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
        first.trim_end_matches(".rs").to_owned()
    }

    /// How many modules lie between the crate's root and this file's items.
    fn depth(&self) -> usize {
        let parts = self.path.components().count();
        if self.path.ends_with("mod.rs") { parts - 1 } else { parts }
    }
}

/// Where `#[cfg(test)]` and a module stand on neighbouring lines (attributes may lie between them).
fn tests_begin(lines: &[(usize, String)]) -> usize {
    for (at, (_, line)) in lines.iter().enumerate() {
        if line.starts_with("#[cfg(test)]") {
            let next = lines[at + 1..].iter().find(|(_, line)| !line.is_empty() && !line.starts_with('#'));
            // `mod tests;` only names another file: what follows it is code again.
            if next.is_some_and(|(_, line)| line.starts_with("mod ") && line.ends_with('{')) {
                return at;
            }
        }
    }
    lines.len()
}

/// The line without surrounding space and without a comment. A `//` inside of quotes, as in an URL, is none.
fn without_comment(line: &str) -> String {
    let line = line.trim();
    let mut quoted = false;
    let mut previous = ' ';
    for (at, c) in line.char_indices() {
        match c {
            '"' if previous != '\\' && previous != '\'' => quoted = !quoted,
            '/' if !quoted && previous == '/' => return line[..at - 1].trim_end().to_owned(),
            _ => {}
        }
        previous = c;
    }
    line.to_owned()
}

fn sources_in(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                sources.push(Source::new(&relative, &fs::read_to_string(&path).unwrap()));
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!sources.is_empty(), "no sources in {folder}");
    sources
}

/// Every broken rule on a line of its own.
fn refuse(broken: &[String], rule: &str) {
    assert!(broken.is_empty(), "{rule}\n  {}\n", broken.join("\n  "));
}

/// The floors that a line of code names, by `crate::`, by the library's name, or by climbing with `super::`.
fn floors_named(line: &str, depth: usize) -> Vec<String> {
    let mut found = Vec::new();
    for start in ["crate::", "synapse_backup::"] {
        for (at, _) in line.match_indices(start) {
            // `$crate::` in a macro and `my_crate::` are other words.
            if line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                continue;
            }
            found.extend(first_names(&line[at + start.len()..]));
        }
    }
    let mut rest = line;
    while let Some(at) = rest.find("super::") {
        let climbed = &rest[at..];
        let steps = climbed.split("super::").take_while(|between| between.is_empty()).count();
        let after = &climbed[steps * "super::".len()..];
        if steps >= depth {
            found.extend(first_names(after));
        }
        rest = after;
    }
    found
}

/// `store::Error` names `store`; `{ops, repo::Error}` names `ops` and `repo`.
fn first_names(path: &str) -> Vec<String> {
    let word = |text: &str| {
        text.trim()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect::<String>()
    };
    let Some(group) = path.strip_prefix('{') else {
        return vec![word(path)];
    };
    let mut names = Vec::new();
    let mut nested = 0;
    let mut start = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => nested += 1,
            '}' if nested == 0 => {
                names.push(word(&group[start..at]));
                return names;
            }
            '}' => nested -= 1,
            ',' if nested == 0 => {
                names.push(word(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    names.push(word(&group[start..]));
    names
}

fn broken_arrows(source: &Source) -> Vec<String> {
    let floor = source.floor();
    if floor == "lib" {
        return Vec::new();
    }
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == floor) else {
        return vec![format!("src/{}: `{floor}` is not a floor of the house", source.path.display())];
    };
    let mut broken = Vec::new();
    let tests = source.tests.iter().map(|(at, line)| (at, line, source.depth() + 1));
    let code = source.code.iter().map(|(at, line)| (at, line, source.depth()));
    for (at, line, depth) in joined(code.chain(tests)) {
        for named in floors_named(&line, depth) {
            let is_floor = ARROWS.iter().any(|(name, _)| *name == named);
            if is_floor && named != floor && !allowed.contains(&named.as_str()) {
                broken.push(format!("src/{}:{at}: `{floor}` must not see `{named}`", source.path.display()));
            }
        }
    }
    broken
}

/// `use` statements over several lines as one line.
fn joined<'a>(lines: impl Iterator<Item = (&'a usize, &'a String, usize)>) -> Vec<(usize, String, usize)> {
    let mut out: Vec<(usize, String, usize)> = Vec::new();
    let mut open = false;
    for (at, line, depth) in lines {
        match out.last_mut() {
            Some((_, statement, _)) if open => statement.push_str(line),
            _ => out.push((*at, line.clone(), depth)),
        }
        let is_use = out
            .last()
            .is_some_and(|(_, statement, _)| statement.starts_with("use ") || statement.starts_with("pub use "));
        open = is_use && !line.ends_with(';');
    }
    out
}

#[test]
fn arrows_only_go_down() {
    let broken: Vec<String> = sources_in("src").iter().flat_map(broken_arrows).collect();
    refuse(
        &broken,
        "Arrows only go down and never through a wall (DESIGN §5). Move what is shared to a floor that both may see, or pass it as a value:",
    );
}

#[test]
fn no_file_becomes_a_hall() {
    let mut broken = Vec::new();
    for source in sources_in("src") {
        let lines = source.code.len();
        if lines > CODE_LINES_MAX {
            broken.push(format!("src/{}: {lines} lines of code", source.path.display()));
        }
    }
    refuse(
        &broken,
        &format!(
            "A file has at most {CODE_LINES_MAX} lines of code before its tests, without blank lines and comments. Split it by what it does:"
        ),
    );
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut broken = Vec::new();
    for (folder, source) in ["src", "tests"]
        .into_iter()
        .flat_map(|folder| sources_in(folder).into_iter().map(move |source| (folder, source)))
    {
        let head = source.text.lines().take_while(|line| line.starts_with("//!")).count();
        // The map of the house in `lib.rs` is a picture; a file of tests needs no more than a sentence.
        let is_test = folder == "tests" || !source.tests.is_empty() && source.code.is_empty();
        let good = match source.floor().as_str() {
            "lib" => head > 0,
            _ if is_test => head > 0,
            _ => HEAD_LINES.contains(&head),
        };
        if !good {
            broken.push(format!("{folder}/{}: {head} lines", source.path.display()));
        }
    }
    refuse(
        &broken,
        "Every file begins with 3 to 15 lines of `//!`: what lives here and what does not:",
    );
}

#[test]
fn the_roof_defines_nothing() {
    let sources = sources_in("src");
    let roof = sources.iter().find(|source| source.floor() == "lib").unwrap();
    let broken: Vec<String> = roof
        .code
        .iter()
        .filter(|(_, line)| !(line.starts_with("pub mod ") && line.ends_with(';') || line.starts_with("#![")))
        .map(|(at, line)| format!("src/lib.rs:{at}: {line}"))
        .collect();
    refuse(&broken, "`lib.rs` declares modules in reading order and defines nothing:");
}

#[test]
fn nothing_is_imported_by_the_bagful() {
    let mut broken = Vec::new();
    for source in sources_in("src") {
        for (at, line) in &source.code {
            if (line.starts_with("use ") || line.starts_with("pub use ")) && line.contains('*') {
                broken.push(format!("src/{}:{at}: {line}", source.path.display()));
            }
        }
    }
    refuse(
        &broken,
        "No `use …::*` outside of tests: a reader must see where a name comes from:",
    );
}

#[test]
fn nobody_below_cli_prints_exits_or_reads_the_environment() {
    let mut broken = Vec::new();
    for source in sources_in("src").iter().filter(|source| source.floor() != "cli") {
        for (at, line) in &source.code {
            if let Some((_, what)) = ONLY_CLI.iter().find(|(call, _)| mentions(line, call)) {
                broken.push(format!("src/{}:{at}: {what}: {line}", source.path.display()));
            }
        }
    }
    refuse(
        &broken,
        "Only `cli` prints, exits, and reads the environment or the arguments. Pass it down as a value:",
    );
}

/// The call stands in the line as a word of its own (`eprintln!` does not mention `println!`).
fn mentions(line: &str, call: &str) -> bool {
    line.match_indices(call)
        .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// The invariants' tests, as `ARCHITECTURE.md` lists them: words in backquotes in the last column of the table.
fn tests_of_the_invariants(text: &str) -> Vec<(String, String)> {
    let rows = text
        .lines()
        .skip_while(|line| !line.starts_with("| # "))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let mut named = Vec::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let number = cells.first().copied().unwrap_or_default();
        let last = cells.last().copied().unwrap_or_default();
        for name in last.split('`').skip(1).step_by(2) {
            named.push((number.to_owned(), name.to_owned()));
        }
    }
    named
}

/// Those of these tests that stand in no file, each with where it is named.
fn missing_tests(named: &[(String, String)]) -> Vec<String> {
    let sources: Vec<Source> = ["src", "tests"].into_iter().flat_map(sources_in).collect();
    let exists = |name: &str| {
        let head = format!("fn {name}(");
        let is_test = |lines: &[(usize, String)]| lines.iter().any(|(_, line)| line.contains(&head));
        sources.iter().any(|source| is_test(&source.tests) || is_test(&source.code))
    };
    let missing = named.iter().filter(|(_, name)| !exists(name));
    missing.map(|(place, name)| format!("{place}: `{name}`")).collect()
}

#[test]
fn every_test_that_the_architecture_names_exists() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    let named = tests_of_the_invariants(&text);
    let bare = (1..=INVARIANTS).filter(|number| !named.iter().any(|(of, _)| *of == number.to_string()));
    let bare: Vec<String> = bare.map(|number| format!("invariant {number}")).collect();
    refuse(&bare, "An invariant without a test is a wish. Which one holds it?");
    refuse(
        &missing_tests(&named),
        "ARCHITECTURE.md names tests that do not exist. Was one renamed?",
    );
}

#[test]
fn every_promise_of_the_threat_model_names_its_tests_and_they_exist() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/threat-model.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.ends_with("| held by |"));
    let (mut named, mut bare) = (Vec::new(), Vec::new());
    for row in rows {
        let mut cells = row.trim_matches('|').split('|').map(str::trim);
        let promise: String = cells.next().unwrap_or_default().chars().take(60).collect();
        let tests: Vec<&str> = cells.next_back().unwrap_or_default().split('`').skip(1).step_by(2).collect();
        if tests.is_empty() {
            bare.push(promise.clone());
        }
        named.extend(tests.into_iter().map(|test| (promise.clone(), test.to_owned())));
    }
    assert!(named.len() > 20, "the tables of docs/threat-model.md are gone");
    refuse(&bare, "docs/threat-model.md promises what no test holds:");
    refuse(
        &missing_tests(&named),
        "docs/threat-model.md names tests that do not exist. Was one renamed?",
    );
}

/// `B4`, `G1`, and `B4a` as `B4`: the names of the protocol's rules in a text.
fn rules_named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    let rule = |word: &str| match word.as_bytes() {
        [b'G' | b'B' | b'R' | b'P' | b'C', b'0'..=b'9'] | [b'G' | b'B' | b'R' | b'P' | b'C', b'0'..=b'9', b'a'..=b'c'] => {
            Some(word[..2].to_owned())
        }
        _ => None,
    };
    words.filter_map(rule).collect()
}

#[test]
fn every_rule_that_the_code_names_stands_in_the_protocol() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.md")).unwrap();
    let heads = text.lines().filter_map(|line| line.strip_prefix("**")?.split([' ', '.']).next());
    let rules: BTreeSet<String> = heads.flat_map(rules_named).collect();
    let named: BTreeSet<String> = sources_in("src").iter().flat_map(|source| rules_named(&source.text)).collect();
    let unknown: Vec<String> = named.difference(&rules).cloned().collect();
    refuse(&unknown, "The code names rules that docs/protocol.md does not have:");
    let nowhere: Vec<String> = rules.difference(&named).cloned().collect();
    refuse(&nowhere, "docs/protocol.md says that these rules are kept, but no code names them:");
    assert!(rules.len() >= 26, "a rule's head is not recognised: {rules:?}");
}

// The rules themselves are held by planted breaks: a rule that finds nothing would look like a clean house.

#[test]
fn a_planted_arrow_is_found() {
    for (path, text, breaks) in [
        ("format/x.rs", "use crate::store::Store;", 1),
        ("format/x.rs", "use super::ids::BlobId;", 0),
        ("format/x.rs", "use super::super::store::Store;", 1),
        ("store/mod.rs", "use super::format::BlobId;", 1),
        ("store/s3/mod.rs", "use super::super::format::BlobId;", 1),
        ("store/s3/mod.rs", "use super::counters::Kind;", 0),
        ("synapse/x.rs", "fn f(p: &dyn crate::progress::Progress) {}", 1),
        (
            "repo/x.rs",
            "use crate::{\n    format::BlobId,\n    synapse::{Homeserver, config},\n    store,\n};",
            1,
        ),
        ("repo/x.rs", "// use crate::ops;\nuse crate::format::ids;", 0),
        ("ops/x.rs", "use crate::cli::run;", 1),
        (
            "ops/x.rs",
            "#[cfg(test)]\nmod tests {\n    use super::super::cli;\n    use crate::cli;\n}",
            1,
        ),
        ("cli/x.rs", "use crate::{ops, repo, store};", 0),
        ("main.rs", "use synapse_backup::ops;", 1),
        ("main.rs", "use synapse_backup::cli;", 0),
        ("attic/x.rs", "", 1),
    ] {
        let broken = broken_arrows(&Source::new(path, text));
        assert_eq!(broken.len(), breaks, "{path}: {text}: {broken:?}");
    }
}

#[test]
fn lines_are_counted_up_to_the_tests() {
    let mut text = String::from("//! Head.\n\n/// Doc.\nfn a() {}\n#[cfg(test)]\nuse std::fs;\nconst URL: &str = \"http://x\"; // why\n\n");
    write!(
        text,
        "#[cfg(test)]\n#[expect(clippy::unwrap_used)]\nmod tests {{\n    fn b() {{}}\n}}\n"
    )
    .unwrap();
    let source = Source::new("format/x.rs", &text);
    let code: Vec<&str> = source.code.iter().map(|(_, line)| line.as_str()).collect();
    assert_eq!(
        code,
        ["fn a() {}", "#[cfg(test)]", "use std::fs;", "const URL: &str = \"http://x\";"]
    );
    assert_eq!(source.tests.len(), 5);
    let named_only = Source::new("format/x.rs", "fn a() {}\n#[cfg(test)]\nmod tests;\nfn b() {}\n");
    assert_eq!(named_only.code.len(), 4);
}

#[test]
fn a_planted_print_is_found_and_a_lookalike_is_not() {
    for (line, found) in [
        ("println!(\"x\");", true),
        ("let x = std::env::var(\"HOME\");", true),
        ("let folders = std::env::split_paths(&options.path);", false),
        ("command.env(\"PGPASSWORD\", secret);", false),
        ("command.stdout(Stdio::piped());", false),
        ("let version = env!(\"CARGO_PKG_VERSION\");", false),
        ("my_println!(\"x\");", false),
    ] {
        assert_eq!(ONLY_CLI.iter().any(|(call, _)| mentions(line, call)), found, "{line}");
    }
}

#[test]
fn names_of_rules_are_found_and_lookalikes_are_not() {
    for (text, found) in [
        ("/// B4: check, as (G1) says", vec!["B4", "G1"]),
        ("B4a to B6.", vec!["B4", "B6"]),
        ("PG15 b4 B44 R2_KEY xB4 4B", vec![]),
    ] {
        assert_eq!(rules_named(text).into_iter().collect::<Vec<_>>(), found, "{text}");
    }
}
