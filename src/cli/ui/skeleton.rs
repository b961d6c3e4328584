//! The settings of this program after a disaster: no snapshot has them, so a restore ends with what to write.
//!
//! Only what it knows: where the repository is, and what Synapse is started with. Credentials are no settings.

use std::borrow::Cow;

use crate::cli::settings::{DEFAULT_FILE, Settings};
use crate::ops::restore;

/// The step, with the lines of the file.
pub(crate) fn skeleton(url: &str, is_sealed: bool, settings: &Settings, report: &restore::Report) -> String {
    let mut lines = vec![
        format!("take backups again: the settings of this program are in no snapshot; write {DEFAULT_FILE}, and what else it had"),
        format!("repository: {}", word(url)),
    ];
    let s3 = &settings.s3;
    let texts = [
        ("endpoint", &s3.endpoint),
        ("region", &s3.region),
        ("profile", &s3.profile),
        ("provider", &s3.provider),
    ];
    let mut of_s3: Vec<String> = texts
        .into_iter()
        .filter_map(|(key, text)| Some(format!("{key}: {}", word(text.as_ref()?))))
        .collect();
    of_s3.extend(s3.path_style.map(|path_style| format!("path_style: {path_style}")));
    if !of_s3.is_empty() {
        lines.push(format!("s3: {{ {} }}", of_s3.join(", ")));
    }
    let config: Vec<Cow<'_, str>> = report.synapse_config.iter().map(|path| word(path)).collect();
    let folder = report.working_directory.as_deref();
    let folder = folder.map_or_else(String::new, |folder| format!(", working_directory: {}", word(folder)));
    lines.push(format!("synapse: {{ config: [{}]{folder} }}", config.join(", ")));
    let databases: Vec<String> = report
        .databases
        .iter()
        .chain(&report.databases_kept)
        .filter(|name| !name.starts_with("synapse"))
        .map(|name| format!("{{ name: {}, url: \"postgres://…\" }}", word(name)))
        .collect();
    if !databases.is_empty() {
        lines.push(format!("databases: [{}]", databases.join(", ")));
    }
    if is_sealed {
        lines.push("encryption: { recipients: [ age1… ] }".to_owned());
    }
    lines.join("\n")
}

/// As YAML takes it for one text, inside of brackets too.
fn word(text: &str) -> Cow<'_, str> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-:".contains(letter);
    let begins_plain = text.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '/');
    if begins_plain && !text.ends_with(':') && text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    // A JSON text is a YAML text.
    Cow::Owned(serde_json::Value::from(text).to_string())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_settings_that_say_what_was_known() {
        let mut settings = Settings::default();
        settings.s3.endpoint = Some("http://127.0.0.1:9000".into());
        settings.s3.path_style = Some(true);
        let report = restore::Report {
            synapse_config: vec!["/etc/synapse/homeserver.yaml".into(), "/etc/my synapse, and: more/conf.d".into()],
            working_directory: Some("/var/lib/synapse".into()),
            databases: vec!["synapse".into(), "mas".into()],
            ..restore::Report::default()
        };
        let step = skeleton("s3://offsite/matrix", true, &settings, &report);
        let (first, file) = step.split_once('\n').unwrap();
        assert!(first.contains(DEFAULT_FILE), "{first}");
        let again: Settings = serde_yaml::from_str(&file.replace("age1…", "")).unwrap();
        assert_eq!(again.repository.as_deref(), Some("s3://offsite/matrix"));
        assert_eq!(again.s3.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
        assert_eq!(again.s3.path_style, Some(true));
        let config: Vec<String> = again
            .synapse
            .config
            .unwrap()
            .iter()
            .map(|path| path.0.display().to_string())
            .collect();
        assert_eq!(config, report.synapse_config);
        assert_eq!(again.synapse.working_directory.unwrap().0.display().to_string(), "/var/lib/synapse");
        assert_eq!(again.databases.unwrap()[0].name.value, "mas");
    }
}
