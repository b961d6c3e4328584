//! `show SNAPSHOT --losses`: the media that are lost, as the file that `media.accepted_losses` names.
//!
//! One item a line. A name that a line cannot hold as it is (a control character, space at an end, a quotation mark or `#` at its
//! begin) is written as a JSON string, and read back as one.

use super::Session;
use crate::cli::args;
use crate::cli::exit::Outcome;
use crate::format::snapshot::Problem;
use crate::ops;

pub(super) async fn losses(words: &args::Show, session: &Session<'_>) -> anyhow::Result<Outcome> {
    let repository = session.open_past(words.past).await?;
    let limits = session.given().limits()?;
    let screen = session.screen;
    let each = |problem: Problem| {
        let line = if screen.for_program() {
            let kind = problem.kind;
            serde_json::json!({ "type": "item", "name": problem.item, "kind": kind }).to_string()
        } else {
            line_of_item(&problem.item)
        };
        screen.data(&format!("{line}\n"))
    };
    ops::inspect::losses(&repository, &words.snapshot, limits, &session.run, each).await?;
    Ok(Outcome::Printed)
}

/// As a line of the file.
fn line_of_item(item: &str) -> String {
    if item.chars().any(char::is_control) || item.trim() != item {
        serde_json::Value::from(item).to_string()
    } else {
        item.to_owned()
    }
}

/// The item that a line names; `media/` at its begin may be left out.
pub(in crate::cli) fn item_of_line(line: &str) -> String {
    let quoted = line.starts_with('"').then(|| serde_json::from_str::<String>(line).ok()).flatten();
    let item = quoted.unwrap_or_else(|| line.to_owned());
    if item.starts_with("media/") {
        item
    } else {
        format!("media/{item}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_that_is_written_is_read_back() {
        for item in [
            "media/local_content/aa/bb/c",
            "media/local_content/../../etc/passwd",
            "media/local_content/ne/w\nline",
            "media/local_content/aa/bb/ends ",
            "media/\"quoted\"",
            "media/# no comment",
            "media/\u{1}ü",
        ] {
            let line = line_of_item(item);
            assert!(!line.contains('\n') && line.trim() == line && !line.starts_with('#'), "{line:?}");
            assert_eq!(item_of_line(&line), item);
        }
        assert_eq!(item_of_line("local_content/aa/bb/c"), "media/local_content/aa/bb/c");
    }
}
