//! An error and all its causes, told once: what happened, why, and what to do.
//!
//! `Display` of our errors never prints its source, so that the chain reads line by line. The hint is that of the
//! innermost error that has one: it knows most. A new door's error gets its hint shown by one line in `ops::hint_of`.

use super::text::{Colour, escaped};
use crate::ops;

/// An error as the report and the terminal show it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Told {
    /// The outermost line.
    pub(crate) message: String,
    /// What lies below it, outermost first, in one text; a line each.
    pub(crate) cause: Option<String>,
    /// What to do.
    pub(crate) hint: Option<String>,
}

/// Walk the chain.
pub(crate) fn tell(error: &anyhow::Error) -> Told {
    let message = error.to_string();
    let mut causes: Vec<String> = Vec::new();
    for cause in error.chain().skip(1) {
        let line = cause.to_string();
        // Some libraries repeat their source in their own words; once is enough.
        let last = causes.last().unwrap_or(&message);
        if !line.is_empty() && !last.contains(&line) {
            causes.push(line);
        }
    }
    Told {
        message,
        cause: (!causes.is_empty()).then(|| causes.join("\n")),
        // A context is no link of the chain by itself: `downcast_ref` is the way to see it.
        hint: ops::hint_of(error).or_else(|| error.downcast_ref().and_then(|context: &ops::Error| context.hint.clone())),
    }
}

/// The lines for standard error.
pub(crate) fn lines(told: &Told, colour: bool) -> String {
    let mut out = String::new();
    labelled(&mut out, &Colour::Red.paint("error:", colour), "       ", &told.message);
    for cause in told.cause.iter().flat_map(|cause| cause.lines()) {
        out.push_str("  cause: ");
        out.push_str(&escaped(cause));
        out.push('\n');
    }
    if let Some(hint) = &told.hint {
        out.push('\n');
        labelled(&mut out, &Colour::Cyan.paint("hint:", colour), "      ", hint);
    }
    out
}

/// A label before the first line, and further lines below its text.
fn labelled(out: &mut String, label: &str, indent: &str, text: &str) {
    for (at, line) in text.lines().enumerate() {
        if at == 0 {
            out.push_str(label);
            out.push(' ');
        } else {
            out.push_str(indent);
        }
        out.push_str(&escaped(line));
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_chain_is_told_once_and_the_innermost_hint_wins() {
        let inner = ops::Error::failed("database `synapse` has 162 tables", "restore into a new database");
        let outer: anyhow::Result<()> = Err(inner).context(ops::Error::failed("restore database `synapse`", "outer hint"));
        let told = outer.map_err(|error| tell(&error)).err();
        let wanted = Told {
            message: "restore database `synapse`".into(),
            cause: Some("database `synapse` has 162 tables".into()),
            hint: Some("restore into a new database".into()),
        };
        assert_eq!(told.as_ref(), Some(&wanted));
        assert_eq!(
            lines(&wanted, false),
            "error: restore database `synapse`\n  cause: database `synapse` has 162 tables\n\nhint: restore into a new database\n"
        );
    }

    #[test]
    fn a_hint_of_a_context_is_not_lost() {
        let error = anyhow::anyhow!("no such file").context(ops::Error::failed("read `x`", "create it"));
        assert_eq!(tell(&error).hint.as_deref(), Some("create it"));
    }

    #[test]
    fn every_door_has_its_hints_told() {
        for error in [
            anyhow::Error::from(crate::synapse::postgres::Error::Pooler),
            crate::synapse::Error::NoConfig.into(),
            crate::repo::Error::NoKey {
                what: "x".into(),
                needs: crate::repo::keyring::Needs::AnyKey,
            }
            .into(),
            crate::store::Error::NoBucket { url: "s3://x".into() }.into(),
        ] {
            let told = tell(&error.context("restore database `synapse`"));
            assert!(told.hint.is_some(), "{told:?}");
        }
    }

    #[test]
    fn what_a_child_said_stays_on_its_lines_and_cannot_paint() {
        let told = Told {
            message: "pg_dump exited with 1\npg_dump: error: \x1b[2Joops".into(),
            cause: None,
            hint: None,
        };
        assert_eq!(
            lines(&told, false),
            "error: pg_dump exited with 1\n       pg_dump: error: \\u{1b}[2Joops\n"
        );
    }

    #[test]
    fn a_source_that_its_error_already_prints_is_not_repeated() {
        let error = anyhow::anyhow!("no such file").context("open `x`: no such file");
        assert_eq!(tell(&error).cause, None);
    }
}
