//! Which snapshots stay: flags over settings, key by key, checked.
//!
//! No rule at all is a choice (nothing is forgotten); rules that are all zero are a mistake.

use super::{Error, Given};
use crate::cli::args;
use crate::cli::settings::{Count, TagWord, Zone};
use crate::ops::retention::Keep;

impl Given<'_> {
    /// For `prune`.
    pub(in crate::cli) fn keep(&self, words: &args::Keep) -> Result<Keep, Error> {
        let settings = &self.settings.keep;
        let count = |flag: Option<Count>, key: Option<Count>| flag.or(key).map(|Count(number)| number);
        let zone = words.time_zone.as_ref().or(settings.time_zone.as_ref());
        let mut keep = Keep {
            last: count(words.last, settings.last),
            daily: count(words.daily, settings.daily),
            weekly: count(words.weekly, settings.weekly),
            monthly: count(words.monthly, settings.monthly),
            yearly: count(words.yearly, settings.yearly),
            within: words.within.or(settings.within).map(|span| span.0),
            tags: words.tags.iter().cloned().collect(),
            ..Keep::everything()
        };
        if let Some(Zone(zone)) = zone {
            keep.time_zone = zone.clone();
        }
        keep.tags.extend(settings.tags.iter().flatten().map(|TagWord(tag)| tag.clone()));
        if keep.keeps_nothing() {
            return Err(Error::usage(
                "all rules of `keep` are zero: nothing would stay",
                "say what stays, as in keep: { last: 3, daily: 7, weekly: 5, monthly: 12 }; without any rule nothing is forgotten",
            ));
        }
        Ok(keep)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::cli::environment::Environment;
    use crate::cli::settings::Settings;

    fn keep(settings: &Settings, words: &args::Keep) -> Result<Keep, Error> {
        let environment = Environment::default();
        Given {
            settings,
            environment: &environment,
        }
        .keep(words)
    }

    #[test]
    fn a_flag_wins_over_its_key_and_leaves_the_others() {
        let mut settings = Settings::default();
        settings.keep.last = Some(Count(3));
        settings.keep.monthly = Some(Count(12));
        settings.keep.tags = Some(vec![TagWord("forever".into())]);
        settings.keep.time_zone = Some("Europe/Berlin".parse().unwrap());
        let words = args::Keep {
            last: Some(Count(1)),
            tags: vec!["upgrade".into()],
            ..args::Keep::default()
        };
        let got = keep(&settings, &words).unwrap();
        assert_eq!((got.last, got.daily, got.monthly), (Some(1), None, Some(12)));
        assert_eq!(got.tags.into_iter().collect::<Vec<_>>(), ["forever", "upgrade"]);
        assert_eq!(got.time_zone.iana_name(), Some("Europe/Berlin"));
    }

    #[test]
    fn all_rules_zero_is_refused_and_no_rule_is_not() {
        let zero = Some(Count(0));
        for (last, daily, good) in [
            (None, None, true),
            (zero, None, false),
            (zero, zero, false),
            (zero, Some(Count(1)), true),
        ] {
            let words = args::Keep {
                last,
                daily,
                ..args::Keep::default()
            };
            assert_eq!(keep(&Settings::default(), &words).is_ok(), good, "{last:?} {daily:?}");
        }
    }
}
