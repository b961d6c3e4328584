//! The words of the command line, exactly as typed: clap's grammar and the help that goes with it.
//!
//! Nothing is looked up or opened here. `options` makes what the verbs are told out of these words and the settings.
//! Commands and flags whose feature is not built do not exist here, so that clap refuses them (exit code 2).

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args as ClapArgs, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::settings::TagWord;

mod adopt;
mod copy;
mod doctor;
mod drill;
mod forget;
mod keep;
mod keys;
mod past;
mod prune;
mod recipients;
mod tag;
mod uploaded;
mod verify;

pub(super) use adopt::Adopt;
pub(super) use copy::Copy;
pub(super) use doctor::Doctor;
pub(super) use drill::Drill;
pub(super) use forget::Forget;
pub(super) use keep::Keep;
pub(super) use keys::{Init, Keys};
pub(super) use past::Past;
pub(super) use prune::Prune;
pub(super) use recipients::{KeysAction, KeysVerb, Rekey};
pub(super) use tag::{Change, Tag};
pub(super) use uploaded::Uploaded;
pub(super) use verify::Verify;

const HELP: &str = "\
SNAPSHOT is the beginning of an id (as `snapshots` prints it), `latest`, or
`latest:SERVER_NAME` where one repository holds several homeservers.

ITEM is a name as `ls` prints it: config/<absolute path without the leading
slash>, database/<name>/<stream>, media/<path inside the media store>, or
mxc://SERVER/MEDIA_ID.

URL is s3://BUCKET/PREFIX or file:///FOLDER. Credentials come from the usual
AWS chain (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws, the machine's
role).

Settings: a flag wins over the environment (SYNAPSE_BACKUP_ and the key in
capitals, as in SYNAPSE_BACKUP_S3_ENDPOINT), the environment over the file.
Commands that only read need no file when --repository is given.

Exit codes:
    0  done
    1  failed; a failed backup has committed nothing
    2  wrong call or settings; nothing was touched
    3  done, with problems that are listed
   10  no bucket, or no repository in it
   12  sealed, and no key here opens it
  130  interrupted

Examples:
  synapse-backup init
  synapse-backup backup
  synapse-backup snapshots
  synapse-backup restore latest --dry-run
  synapse-backup verify --read-data=10";

const BACKUP_HELP: &str = "\
The database comes first, from one exported snapshot; media that its rows name
are read afterwards. Media files whose rows did not change since the last
snapshot are not opened, unless --full is given.

Examples:
  synapse-backup backup --tag before-upgrade
  synapse-backup backup --only config,database
  synapse-backup backup --dry-run";

const RESTORE_HELP: &str = "\
Without --to, files go back to where they were: the media store must be empty
or missing, and no file that would be written may exist. With --to DIR,
everything goes below DIR with its whole old path, and every database needs
--database (or NAME=skip), so that a copy cannot aim at production by
accident.

CONNINFO is a libpq URL or key=value string. What it leaves out comes from the
PG* variables, as in psql: keep passwords there, or in a password file, where
`ps` does not show them. A database that has tables is refused.
homeserver.yaml and the signing key are written last.

Examples:
  synapse-backup restore latest --dry-run
  synapse-backup restore latest --create-database
  synapse-backup restore latest --to /srv/copy --only config,media
  synapse-backup restore latest --to /srv/copy --database synapse=dbname=copy
  synapse-backup restore latest --to /srv/copy --only media --uploaded-by @alice:example.org
  synapse-backup restore 3f9a --only media --path-map /var/lib/synapse=/srv/synapse";

const DOCTOR_HELP: &str = "\
Exit code 1 when a backup would fail, 3 when somebody should look.";

const EXTEND_HELP: &str = "\
A backup does this by itself for what its own snapshot needs. Run it now and
then (monthly) for older snapshots that are to be kept, once after `object_lock`
was set, and after a break-in.";

const COMPLETIONS_HELP: &str = "\
Example:
  synapse-backup completions bash > /usr/share/bash-completion/completions/synapse-backup";

const MAN_HELP: &str = "\
Example:
  synapse-backup man > /usr/share/man/man1/synapse-backup.1";

/// Back up a Matrix Synapse homeserver into S3-compatible storage, and bring it back.
#[derive(Parser)]
#[command(name = "synapse-backup", version, after_long_help = HELP, max_term_width = 100, disable_help_subcommand = true)]
pub(super) struct Args {
    /// Settings file [default: /etc/synapse-backup/config.yaml].
    #[arg(short, long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(super) config: Option<PathBuf>,
    #[arg(
        long,
        global = true,
        value_name = "URL",
        help = "The repository: s3://BUCKET/PREFIX or file:///FOLDER",
        help_heading = "Global options"
    )]
    pub(super) repository: Option<String>,
    /// One JSON object a line on standard output; the last is the report.
    #[arg(long, global = true, help_heading = "Global options")]
    pub(super) json: bool,
    /// Say nothing but errors and problems.
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    pub(super) quiet: bool,
    /// Log what is being done to standard error.
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub(super) verbose: bool,
    #[command(flatten)]
    pub(super) keys: Keys,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// The verbs. `--database` may hold a password, hence no `Debug`.
#[derive(Subcommand)]
pub(super) enum Command {
    /// Create a repository.
    Init(Init),
    /// Take a snapshot of the homeserver.
    #[command(after_long_help = BACKUP_HELP)]
    Backup(Backup),
    /// List the snapshots, oldest first.
    Snapshots(Past),
    /// Show one snapshot: items, facts, problems, totals.
    Show(Show),
    /// List the items of a snapshot.
    Ls(Ls),
    /// Write one item to standard output.
    Cat(Cat),
    /// Bring a snapshot back.
    #[command(after_long_help = RESTORE_HELP)]
    Restore(Restore),
    /// Check that everything is there and is what it should be.
    #[command(after_long_help = verify::HELP)]
    Verify(Verify),
    /// Take away what no snapshot needs.
    #[command(after_long_help = prune::HELP)]
    Prune(Prune),
    /// Bring a snapshot back on trial, and compare.
    #[command(after_long_help = drill::HELP)]
    Drill(Drill),
    /// Copy snapshots into another repository.
    #[command(after_long_help = copy::HELP)]
    Copy(Copy),
    /// Remove snapshots by hand.
    #[command(after_long_help = forget::HELP)]
    Forget(Forget),
    /// Put tags on a snapshot, or take them off.
    #[command(after_long_help = tag::HELP)]
    Tag(Tag),
    /// Count the bytes: raw, deduplicated, compressed, stored, dead, and what only one snapshot holds.
    Stats,
    /// Make late snapshots count, as after a mirroring.
    #[command(after_long_help = adopt::HELP)]
    Adopt(Adopt),
    /// List the keys, or change to whom backups are sealed.
    #[command(after_long_help = recipients::KEYS_HELP)]
    Keys(KeysVerb),
    /// Seal anew what is there, to the recipients of the settings.
    #[command(after_long_help = recipients::REKEY_HELP)]
    Rekey(Rekey),
    /// Check that everything a backup needs is in place.
    #[command(after_long_help = DOCTOR_HELP)]
    Doctor(Doctor),
    /// Under Object Lock: hold longer whatever the listed snapshots need.
    #[command(after_long_help = EXTEND_HELP)]
    Extend,
    /// Print a completion script for a shell.
    #[command(after_long_help = COMPLETIONS_HELP)]
    Completions(Completions),
    /// Print the manual page.
    #[command(after_long_help = MAN_HELP)]
    Man,
}

impl Command {
    /// As typed, for the report.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Init(_) => "init",
            Self::Backup(_) => "backup",
            Self::Snapshots(_) => "snapshots",
            Self::Show(_) => "show",
            Self::Ls(_) => "ls",
            Self::Cat(_) => "cat",
            Self::Restore(_) => "restore",
            Self::Verify(_) => "verify",
            Self::Prune(_) => "prune",
            Self::Drill(_) => "drill",
            Self::Copy(_) => "copy",
            Self::Forget(_) => "forget",
            Self::Tag(_) => "tag",
            Self::Stats => "stats",
            Self::Adopt(_) => "adopt",
            Self::Keys(_) => "keys",
            Self::Rekey(_) => "rekey",
            Self::Doctor(_) => "doctor",
            Self::Extend => "extend",
            Self::Completions(_) => "completions",
            Self::Man => "man",
        }
    }

    /// Standard output carries bytes or a text of its own, so that JSON lines have no place on it.
    pub(super) const fn owns_stdout(&self) -> bool {
        matches!(self, Self::Cat(_) | Self::Completions(_) | Self::Man)
    }
}

/// What `--only` may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Only {
    /// Everything that is neither database nor media: configuration, keys, templates, extra files
    Config,
    /// The databases
    Database,
    /// The media store
    Media,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Backup {
    /// Mark the snapshot with a tag; may be given several times.
    #[arg(long = "tag", value_name = "TAG", value_parser = tag_word)]
    pub(super) tags: Vec<String>,
    /// Take only these parts.
    #[arg(long, value_delimiter = ',', value_name = "PARTS")]
    pub(super) only: Vec<Only>,
    /// Read every media file again, also those whose rows did not change.
    #[arg(long)]
    pub(super) full: bool,
    /// Look at this share of the unchanged media files (percent, or `none`); all are looked at within a month unless set.
    #[arg(long, value_name = "PERCENT", value_parser = audit)]
    pub(super) audit: Option<f64>,
    /// Find out what would be done; send and commit nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// A share in percent, or `none`.
fn audit(text: &str) -> Result<f64, String> {
    if text == "none" {
        return Ok(0.0);
    }
    match text.trim_end_matches('%').parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("give a number from 0 to 100, or `none`".into()),
    }
}

#[derive(Debug, ClapArgs)]
pub(super) struct Show {
    /// Id prefix, `latest` or `latest:SERVER_NAME`.
    pub(super) snapshot: String,
    /// List every problem, those of single media files too.
    #[arg(long)]
    pub(super) problems: bool,
    /// Print the media that are lost, one a line, as `media.accepted_losses` takes them, and nothing else.
    #[arg(long, conflicts_with = "problems")]
    pub(super) losses: bool,
    /// Print the block for homeserver.yaml that tells the public half of a lost signing key, and nothing else.
    #[arg(long, conflicts_with_all = ["problems", "losses"])]
    pub(super) old_signing_keys: bool,
    #[command(flatten)]
    pub(super) past: Past,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Ls {
    /// Id prefix, `latest` or `latest:SERVER_NAME`.
    pub(super) snapshot: String,
    /// Only items whose name begins so.
    #[arg(default_value = "", hide_default_value = true)]
    pub(super) prefix: String,
    #[command(flatten)]
    pub(super) past: Past,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Cat {
    /// Id prefix, `latest` or `latest:SERVER_NAME`.
    pub(super) snapshot: String,
    #[arg(help = "A name as `ls` prints it, or mxc://SERVER/MEDIA_ID")]
    pub(super) item: String,
    #[command(flatten)]
    pub(super) past: Past,
}

#[derive(ClapArgs)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct Restore {
    /// Id prefix, `latest` or `latest:SERVER_NAME`.
    pub(super) snapshot: String,
    /// Put all files below this folder, which must be empty or missing.
    #[arg(long, value_name = "DIR")]
    pub(super) to: Option<PathBuf>,
    /// Where a database goes, or NAME=skip; may be given several times.
    #[arg(long = "database", value_name = "NAME=CONNINFO")]
    pub(super) databases: Vec<String>,
    /// Create the databases as Synapse wants them (UTF8, collation C).
    #[arg(long)]
    pub(super) create_database: bool,
    /// Bring back only these parts.
    #[arg(long, value_delimiter = ',', value_name = "PARTS")]
    pub(super) only: Vec<Only>,
    /// With `--only media`: only media whose name begins so (as `ls` prints it, or an mxc address).
    #[arg(long, value_name = "PREFIX")]
    pub(super) prefix: Option<String>,
    #[command(flatten)]
    pub(super) uploaded: Uploaded,
    /// Remove the rows of other servers' media from the database if their files are not in the snapshot: Synapse fetches them again.
    /// Done unasked when media are brought back too.
    #[arg(long, conflicts_with = "keep_remote_media_rows")]
    pub(super) forget_remote_media: bool,
    /// Leave the rows of other servers' media although their files are not in the snapshot: Synapse then answers 404 for them.
    #[arg(long)]
    pub(super) keep_remote_media_rows: bool,
    /// Go on with a restore that was interrupted: leave alone what is there with the right bytes and rows.
    #[arg(long)]
    pub(super) resume: bool,
    /// Write what was below OLD below NEW, before --to applies; may be given several times.
    #[arg(long = "path-map", value_name = "OLD=NEW")]
    pub(super) path_map: Vec<String>,
    /// Give all files to this user and group (names or numbers).
    #[arg(long, value_name = "USER:GROUP")]
    pub(super) owner: Option<String>,
    /// Accept a snapshot that landed too late to count.
    #[arg(long)]
    pub(super) late: bool,
    /// Print what would be done; write nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) past: Past,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Completions {
    pub(super) shell: Shell,
}

/// The words of this call, or clap's answer (also to `--help` and `--version`).
pub(super) fn parse(arguments: &[OsString]) -> Result<Args, clap::Error> {
    Args::try_parse_from(arguments)
}

/// Does a call that clap refused ask for JSON, and which command did it mean?
pub(super) fn intention(arguments: &[OsString]) -> (bool, Option<&'static str>) {
    let words = || arguments.iter().skip(1).take_while(|word| *word != "--");
    let json = words().any(|word| word == "--json");
    let command = words().find_map(|word| COMMANDS.iter().find(|name| word == **name)).copied();
    (json, command)
}

/// For completions and the manual page.
pub(super) fn grammar() -> clap::Command {
    Args::command()
}

const COMMANDS: [&str; 21] = [
    "init",
    "backup",
    "snapshots",
    "show",
    "ls",
    "cat",
    "restore",
    "verify",
    "prune",
    "drill",
    "copy",
    "forget",
    "tag",
    "stats",
    "adopt",
    "keys",
    "rekey",
    "doctor",
    "extend",
    "completions",
    "man",
];

/// As in the settings.
fn tag_word(text: &str) -> Result<String, String> {
    text.parse().map(|TagWord(tag)| tag)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::ops::verify::ReadData;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_grammar_is_consistent() {
        grammar().debug_assert();
    }

    #[test]
    fn every_command_is_known_by_its_name() {
        let named: Vec<_> = grammar().get_subcommands().map(|command| command.get_name().to_owned()).collect();
        assert_eq!(named, COMMANDS);
    }

    #[test]
    fn every_command_and_flag_has_help() {
        for command in grammar().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments().filter(|a| a.get_id() != "shell") {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
        }
    }

    #[test]
    fn read_data_takes_its_share_only_after_an_equals_sign() {
        for (line, percent, snapshot) in [
            ("x verify", None, None),
            ("x verify --read-data", Some(ReadData::Percent(100)), None),
            ("x verify --read-data=10", Some(ReadData::Percent(10)), None),
            ("x verify --read-data=1/30", Some(ReadData::OneOf(30)), None),
            ("x verify --read-data latest", Some(ReadData::Percent(100)), Some("latest")),
        ] {
            let Command::Verify(verify) = parse(&words(line)).unwrap().command else {
                panic!("{line}")
            };
            assert_eq!((verify.read_data, verify.snapshot.as_deref()), (percent, snapshot), "{line}");
        }
    }

    #[test]
    fn tags_are_put_on_and_taken_off() {
        use Change::{Off, On};
        for (line, wanted) in [
            ("x tag latest +a", vec![On("a".into())]),
            ("x tag latest -a", vec![Off("a".into())]),
            (
                "x tag 3f +a -b +-c -+d",
                vec![On("a".into()), Off("b".into()), On("-c".into()), Off("+d".into())],
            ),
            ("x tag 3f -quiet -v", vec![Off("quiet".into()), Off("v".into())]),
            ("x tag --json 3f +a", vec![On("a".into())]),
        ] {
            let Command::Tag(tag) = parse(&words(line)).unwrap().command else {
                panic!("{line}")
            };
            assert_eq!(tag.changes, wanted, "{line}");
        }
    }

    #[test]
    fn what_is_not_built_is_refused() {
        for line in [
            "x stats latest",
            "x adopt",
            "x tag latest",
            "x tag latest x",
            "x tag latest --x",
            "x forget",
            "x keys",
            "x keys add",
            "x keys add age1x",
        ] {
            assert_eq!(parse(&words(line)).err().unwrap().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn a_refused_call_still_tells_what_it_meant() {
        assert_eq!(intention(&words("x backup --josn --json")), (true, Some("backup")));
        assert_eq!(intention(&words("x bakup")), (false, None));
        assert_eq!(intention(&words("x cat -- --json")), (false, Some("cat")));
    }
}
