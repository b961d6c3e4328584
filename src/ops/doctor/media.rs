//! Where this homeserver's media are, and whether a backup can reach all of it.
//!
//! The store and its storage providers are looked at here without walking them (`walk` does that); a bucket is asked for one page. A Synapse whose own media
//! repository is switched off is explained: somebody else serves the media, and that may be a program with a database of its own.

use super::{Report, Verdict};
use crate::ops::backup::offsite;
use crate::synapse::{Homeserver, ProviderKind};

pub(super) async fn check_media(homeserver: &Homeserver, report: &mut Report) {
    let media = &homeserver.media;
    match std::fs::read_dir(&media.path) {
        Ok(_) => report.ok("media store", media.path.display().to_string()),
        Err(error) if media.enable_local_media_storage && media.enable_media_repo => report.fail(
            "media store",
            format!("{}: {error}", media.path.display()),
            "set `synapse.working_directory` or `synapse.path_map`, and run as a user who may read it",
        ),
        Err(_) => report.ok("media store", "nothing is stored locally"),
    }
    if !media.enable_media_repo {
        report.warn("media repository", SWITCHED_OFF, SOMEBODY_ELSE);
    }
    for provider in &media.providers {
        match &provider.kind {
            ProviderKind::FileSystem { directory } => match std::fs::read_dir(directory) {
                Ok(_) => report.ok(PROVIDER, directory.display().to_string()),
                Err(error) => report.warn(PROVIDER, format!("{}: {error}", directory.display()), NOT_MOUNTED),
            },
            ProviderKind::S3(s3) => match Box::pin(offsite::reach(s3)).await {
                Ok(true) => report.ok(
                    PROVIDER,
                    format!("bucket {}: media that are in no folder here are read from there", s3.bucket),
                ),
                Ok(false) => report.ok(
                    PROVIDER,
                    format!(
                        "bucket {}: it answers, and its objects cannot be listed; whether they can be read is not known",
                        s3.bucket
                    ),
                ),
                Err(error) => {
                    let error = anyhow::Error::from(error).context(format!("the media bucket {} of homeserver.yaml", s3.bucket));
                    report.error(PROVIDER, &error);
                }
            },
            ProviderKind::Other { module } => report.add(PROVIDER, Verdict::Warning, module, Some(UNKNOWN.into())),
        }
    }
}

const PROVIDER: &str = "media provider";

const NOT_MOUNTED: &str = "mount it, or set `synapse.path_map`: media that are only there would be recorded as missing";

const UNKNOWN: &str = "this version does not know the module: media that are only there are recorded as missing";

const SWITCHED_OFF: &str = "`enable_media_repo` is false: somebody else than the main process serves the media";

const SOMEBODY_ELSE: &str = "a media repository worker of Synapse: its rows and store are those above, and are saved; name its file in `files` if its\n\
     `media_store_path` is another, and let `synapse.config` have it.\n\
     matrix-media-repo: Synapse's rows are not its media. List its database under `databases`, its configuration and file\n\
     datastores under `files`; what it keeps in a bucket of its own, that bucket must protect (versioning, replication)";
