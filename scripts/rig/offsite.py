"""Media that Synapse has moved to a bucket: real Synapse, the real synapse-s3-storage-provider, a second bucket.

The local originals are deleted after the upload, as its own `s3_media_upload --delete` does; a backup must still be complete, and a
restore must bring every file back.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import shutil
import typing

from homeserver import Homeserver, Installation, plain
from story import Story
from tool import Tool, settings

if typing.TYPE_CHECKING:
    from e2e import Sentences, Stage

MEDIA_BUCKET, REPOSITORY = "matrix-media", "s3://offsite/moved"


def moved_media(stage: Stage, sentences: Sentences) -> None:
    """A homeserver of its own, whose media are in a bucket and nowhere else."""
    from e2e import check

    stage.synapse.stop()
    stage.minio.make_bucket(MEDIA_BUCKET)
    installation = plain(stage.ground, stage.postgres, "moved", database="moved", role="moved_user")
    _use_bucket(stage, installation)
    synapse = Homeserver(stage.ground, installation, "synapse-moved")
    synapse.start()
    story = Story(installation)
    story.begin(5, 12)
    synapse.stop()
    before = _hashes(installation.media_store)
    shutil.rmtree(installation.media_store / "local_content")
    shutil.rmtree(installation.media_store / "local_thumbnails", ignore_errors=True)
    tool = Tool(stage.ground, stage.minio, settings(stage.minio, installation, REPOSITORY), "tool-moved")
    tool.run("init", "--unencrypted")
    with sentences("media that are only in a bucket are backed up from there, without a problem"):
        run = tool.run("backup")
        check(run.report["media"]["files"] == len(before), (run.report["media"], len(before)))
    with sentences("the next backup reads no medium from the bucket again"):
        run = tool.run("backup")
        check(run.report["media"]["new"] == 0, run.report["media"])
    with sentences("a restore brings every one of them back to disk"):
        copy = stage.ground.path / "moved-copy"
        tool.run("restore", "latest", "--to", copy, "--only", "media")
        after = _hashes(pathlib.Path(f"{copy}{installation.media_store}"))
        check(after == before, f"{len(after)} files, not {len(before)}, or other bytes")
    with sentences("a medium that the bucket has lost since is named by the audit"):
        path = next(path for path in before if path.startswith("local_content/"))
        stage.minio.delete(MEDIA_BUCKET, f"media/{path}")
        run = tool.run("backup", "--audit", "100", expect=(3,))
        named = [(problem["kind"], problem["item"]) for problem in run.report["problems"]]
        check(named == [("missing", f"media/{path}")], str(named))


def _use_bucket(stage: Stage, installation: Installation) -> None:
    environment = stage.minio.environment
    provider = {
        "module": "s3_storage_provider.S3StorageProviderBackend",
        "store_local": True,
        "store_remote": True,
        "store_synchronous": True,
        "config": {
            "bucket": MEDIA_BUCKET,
            "prefix": "media/",
            "region_name": "us-east-1",
            "endpoint_url": stage.minio.url,
            "access_key_id": environment["AWS_ACCESS_KEY_ID"],
            "secret_access_key": environment["AWS_SECRET_ACCESS_KEY"],
        },
    }
    (installation.config[1] / "media.yaml").write_text(f"media_storage_providers: {json.dumps([provider])}\n")


def _hashes(store: pathlib.Path) -> dict[str, str]:
    """Local originals and thumbnails by their path in the store."""
    found = {}
    for folder in ("local_content", "local_thumbnails"):
        for path in sorted((store / folder).rglob("*")):
            if path.is_file():
                found[str(path.relative_to(store))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
