//! Changing `encryption.recipients` in the settings file: a line or a word more or less, everything else as a person wrote it.
//!
//! The place is found by the YAML reader, the change is made in the text, and the reader then says whether the new text means
//! what was wanted and nothing else. Where that is not so, nothing is written, and the lines to write by hand are told.

use std::io::Write as _;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use serde_yaml::{Location, Spanned};

use crate::format::seal::Recipient;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) enum Change {
    /// One recipient more.
    Add(Recipient),
    /// One less.
    Remove(Recipient),
}

/// What is read of the file, each recipient with its place.
#[derive(Default, Deserialize)]
struct Outline {
    encryption: Option<Section>,
}

#[derive(Default, Deserialize)]
struct Section {
    recipients: Option<Vec<Spanned<String>>>,
}

/// The new text; `None` where the layout is not understood.
pub(in crate::cli) fn edit(text: &str, change: &Change) -> Option<String> {
    let items = items(text)?;
    let edited = match change {
        Change::Add(new) => match items.last() {
            Some(last) => add_behind(text, *last, &new.to_string()),
            None => add_first(text, &new.to_string())?,
        },
        Change::Remove(old) => {
            let old = old.to_string();
            let at = items.iter().find(|(from, to)| text[*from..*to].contains(&old))?;
            remove(text, *at)
        }
    };
    means(text, &edited, change).then_some(edited)
}

/// Where each recipient stands, quotes included.
fn items(text: &str) -> Option<Vec<(usize, usize)>> {
    if text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    {
        return Some(Vec::new());
    }
    let outline: Outline = serde_yaml::from_str(text).ok()?;
    let recipients = outline.encryption.and_then(|section| section.recipients).unwrap_or_default();
    recipients.iter().map(|item| place(text, item)).collect()
}

fn place(text: &str, item: &Spanned<String>) -> Option<(usize, usize)> {
    let from = offset(text, &item.referenced)?;
    let rest = &text[from..];
    let quote = rest.starts_with(['"', '\'']).into();
    let word: usize = item.value.len();
    (rest.get(quote..quote + word)? == item.value).then_some((from, from + word + 2 * quote))
}

/// Lines and columns count from 1.
fn offset(text: &str, at: &Location) -> Option<usize> {
    let line = usize::try_from(at.line()).ok()?.checked_sub(1)?;
    let column = usize::try_from(at.column()).ok()?.checked_sub(1)?;
    let begin: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let within = text[begin..].char_indices().nth(column)?.0;
    Some(begin + within)
}

/// The line around a place, with its end.
fn line_around(text: &str, (from, to): (usize, usize)) -> (usize, usize) {
    let begin = text[..from].rfind('\n').map_or(0, |at| at + 1);
    let end = text[to..].find('\n').map_or(text.len(), |at| to + at + 1);
    (begin, end)
}

/// `- age1…` on a line of its own?
fn is_block(text: &str, item: (usize, usize)) -> bool {
    let (begin, _) = line_around(text, item);
    text[begin..item.0].trim() == "-"
}

fn add_behind(text: &str, last: (usize, usize), new: &str) -> String {
    if !is_block(text, last) {
        return format!("{}, {new}{}", &text[..last.1], &text[last.1..]);
    }
    let (begin, end) = line_around(text, last);
    let lead = &text[begin..last.0];
    let line_end = if text[begin..end].ends_with("\r\n") { "\r\n" } else { "\n" };
    let missing = if text[..end].ends_with('\n') { "" } else { line_end };
    format!("{}{missing}{lead}{new}{line_end}{}", &text[..end], &text[end..])
}

/// Below `encryption:` where that stands alone on its line, else at the end of the file.
fn add_first(text: &str, new: &str) -> Option<String> {
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        end += line.len();
        let Some(rest) = line.strip_prefix("encryption:") else { continue };
        let rest = rest.trim();
        if !(rest.is_empty() || rest.starts_with('#')) || !line.ends_with('\n') {
            return None;
        }
        let next = text[end..].lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let indent = next.len() - next.trim_start_matches(' ').len();
        let indent = " ".repeat(if indent == 0 { 2 } else { indent });
        return Some(format!("{}{indent}recipients: [{new}]\n{}", &text[..end], &text[end..]));
    }
    let missing = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    Some(format!("{text}{missing}encryption:\n  recipients:\n    - {new}\n"))
}

fn remove(text: &str, item: (usize, usize)) -> String {
    let (mut from, mut to) = item;
    if is_block(text, item) {
        (from, to) = line_around(text, item);
    } else {
        let behind = text[to..].len() - text[to..].trim_start().len();
        if text[to + behind..].starts_with(',') {
            to += behind + 1;
            to += text[to..].len() - text[to..].trim_start_matches(' ').len();
        } else if let Some(comma) = text[..from].trim_end().strip_suffix(',') {
            from = comma.len();
        }
        let (begin, end) = line_around(text, (from, to));
        if text[begin..from].trim().is_empty() && text[to..end].trim().is_empty() && begin > 0 {
            (from, to) = (begin, end);
        }
    }
    format!("{}{}", &text[..from], &text[to..])
}

/// Does the new text mean the old one with this change, and nothing else?
fn means(old: &str, new: &str, change: &Change) -> bool {
    let value = |text: &str| match serde_yaml::from_str::<Value>(text) {
        Ok(Value::Null) | Err(_) => Value::Object(serde_json::Map::new()),
        Ok(value) => value,
    };
    let (mut wanted, found) = (value(old), value(new));
    let Some(document) = wanted.as_object_mut() else { return false };
    let section = document.entry("encryption").or_insert(Value::Null);
    if section.is_null() {
        *section = Value::Object(serde_json::Map::new());
    }
    let Some(section) = section.as_object_mut() else { return false };
    let list = section.entry("recipients").or_insert(Value::Null);
    if list.is_null() {
        *list = Value::Array(Vec::new());
    }
    let Some(list) = list.as_array_mut() else { return false };
    match change {
        Change::Add(new) => list.push(new.to_string().into()),
        Change::Remove(old) => list.retain(|item| item.as_str() != Some(&old.to_string())),
    }
    wanted == found && super::parse(new, "").is_ok()
}

/// The whole file at once: a new file with the old one's mode and owner takes its place.
pub(in crate::cli) fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    // A link stays one: what it leads to is replaced.
    let file = file.canonicalize()?;
    let folder = file.parent().unwrap_or(Path::new("/"));
    let old = std::fs::metadata(&file)?;
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(text.as_bytes())?;
    new.as_file().set_permissions(old.permissions())?;
    let (user, group) = {
        use std::os::unix::fs::MetadataExt as _;
        (old.uid(), old.gid())
    };
    std::os::unix::fs::fchown(new.as_file(), Some(user), Some(group))?;
    new.as_file().sync_all()?;
    new.persist(&file).map_err(|error| error.error)?;
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::format::seal::Identity;

    fn recipients() -> [Recipient; 3] {
        [(); 3].map(|()| Identity::generate().recipient())
    }

    #[test]
    fn one_line_or_word_changes_and_nothing_else() {
        let keys = recipients();
        let [a, b, c] = keys.each_ref().map(ToString::to_string);
        let block = format!(
            "# mine\nrepository: file:///srv   # here\nencryption:\n  # two\n  recipients:\n    - {a}  # desk\n    - \"{b}\"  # safe\nkeep: {{ last: 3 }}\n"
        );
        let flow = format!("encryption: {{ recipients: [{a}, '{b}'], writer_key_file: /k }} # x\nfiles: [/etc/ä]\n");
        let lines = format!("encryption:\n    recipients: [\n        {a},\n        {b},\n    ]\n");
        let cases = [
            (
                &block,
                Change::Add(keys[2].clone()),
                block.replace("# safe\n", &format!("# safe\n    - {c}\n")),
            ),
            (
                &block,
                Change::Remove(keys[0].clone()),
                block.replace(&format!("    - {a}  # desk\n"), ""),
            ),
            (
                &block,
                Change::Remove(keys[1].clone()),
                block.replace(&format!("    - \"{b}\"  # safe\n"), ""),
            ),
            (&flow, Change::Add(keys[2].clone()), flow.replace("'],", &format!("', {c}],"))),
            (&flow, Change::Remove(keys[0].clone()), flow.replace(&format!("{a}, "), "")),
            (&flow, Change::Remove(keys[1].clone()), flow.replace(&format!(", '{b}'"), "")),
            (
                &lines,
                Change::Add(keys[2].clone()),
                lines.replace(&format!("{b},"), &format!("{b}, {c},")),
            ),
            (
                &lines,
                Change::Remove(keys[0].clone()),
                lines.replace(&format!("        {a},\n"), ""),
            ),
        ];
        for (text, change, wanted) in cases {
            assert_eq!(edit(text, &change).as_deref(), Some(wanted.as_str()), "{change:?} in\n{text}");
        }
    }

    #[test]
    fn the_first_recipient_gets_a_section() {
        let [key, ..] = recipients();
        let cases = [
            ("", format!("encryption:\n  recipients:\n    - {key}\n")),
            (
                "# nothing yet\n",
                format!("# nothing yet\nencryption:\n  recipients:\n    - {key}\n"),
            ),
            (
                "repository: file:///x",
                format!("repository: file:///x\nencryption:\n  recipients:\n    - {key}\n"),
            ),
            (
                "encryption: # keys\n   writer_key_file: /k\n",
                format!("encryption: # keys\n   recipients: [{key}]\n   writer_key_file: /k\n"),
            ),
        ];
        for (text, wanted) in cases {
            assert_eq!(edit(text, &Change::Add(key.clone())), Some(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_not_changed() {
        let keys = recipients();
        let a = keys[0].to_string();
        for text in [
            format!("x: &k {a}\nencryption: {{ recipients: [*k] }}\n"),
            format!("encryption: {{ writer_key_file: /k, recipients: &r [{a}] }}\nfiles: *r\n"),
            "encryption: { writer_key_file: /k }\n".to_owned(),
            "encryption: [".to_owned(),
        ] {
            assert_eq!(edit(&text, &Change::Add(keys[1].clone())), None, "{text}");
        }
    }

    #[test]
    fn a_file_that_is_replaced_keeps_its_mode_and_its_link() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("config.yaml"), folder.path().join("link.yaml"));
        std::fs::write(&file, "a: 1\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        replace(&link, "a: 2\n").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "a: 2\n");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
