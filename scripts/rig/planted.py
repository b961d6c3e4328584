"""Faults planted into snapshots of the real Synapse, each of which a drill (or `verify`) must fail on, with a sentence that names it.

Two ways to plant: a `pg_dump` that is not honest stands before the real one, so that every hash is right and the rows are wrong; or the
document of a true snapshot is written again with a change, as whoever can write into an unsealed bucket could. What is damaged in the
store itself is in faults.py.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from postgres import binaries
from tool import Tool

if TYPE_CHECKING:
    from e2e import Sentences, Stage

PREFIX = "matrix/planted"
WRAPPER = """\
#!/usr/bin/env python3
import json, subprocess, sys
done = subprocess.run([{pg_dump!r}, *sys.argv[1:], *{words!r}], stdout=subprocess.PIPE)
out = done.stdout
for old, new in json.loads({swaps!r}):
    out = out.replace(old.encode(), new.encode())
sys.stdout.buffer.write(out)
sys.exit(done.returncode)
"""
TABLE = "public.receipts_linearized"
Document = dict[str, Any]


def all_planted(stage: Stage, sentences: Sentences, bucket: str) -> None:
    """Every fault; Synapse stands still, and the homeserver itself is not touched."""
    planter = Planter(stage, bucket)
    planter.tool.run("init", "--unencrypted")
    old = planter.backup()
    sql = lambda query: stage.postgres.sql(query, stage.installation.database)  # noqa: E731
    rows = sql(f"SELECT count(*) FROM {TABLE}")
    last = sql("SELECT last_value FROM events_stream_seq")
    behind = "1" + "0" * (len(last) - 1)
    medium, digest = next(iter(stage.story.media.items()))
    item = f"media/local_content/{medium[:2]}/{medium[2:4]}/{medium[4:]}"
    other = hashlib.sha256(b"another").hexdigest()
    dumps: dict[str, tuple[list[str], list[tuple[str, str]], str]] = {
        "a table emptied in the stream": ([f"--exclude-table-data={TABLE}"], [], f"{TABLE} has 0 rows, not {rows}"),
        "a table left out of the stream": ([f"--exclude-table={TABLE}"], [], f"the table {TABLE} is missing"),
        "a sequence behind": ([], [(f"events_stream_seq', {last}", f"events_stream_seq', {behind}")], f"events_stream_seq is at {behind}"),
        "a stream position changed": ([], [(f"events\tmaster\t{last}\n", f"events\tmaster\t{behind}\n")], f"is at {behind}, not at {last}"),
        "a medium with another hash in its row": ([], [(digest, other)], f"{item}: its row says SHA-256 {other}"),
    }
    for fault, (words, swaps, wanted) in dumps.items():
        with sentences(f"{fault}: the drill names it"):
            planter.names(planter.backup(words, swaps), wanted)
    documents: dict[str, tuple[Callable[[Document], object], str]] = {
        "a key from another server": (_another_key, "does not give the public key"),
        "a snapshot under another server's name": (lambda d: d.update(server_name="elsewhere.example"), "not elsewhere.example"),
        "the signing key left out": (lambda d: _without(d, "signing_key"), "no signing key came back"),
        "a configuration file left out": (lambda d: _without(d, "config"), "named by `log_config`; it is not there"),
        "homeserver.yaml left out": (lambda d: _without(d, "homeserver"), "Synapse could not read its configuration"),
        "the rows left out": (lambda d: d["databases"][0].update(streams=d["databases"][0]["streams"][:1]), f"{TABLE} has 0 rows, not {rows}"),
        "the list of media emptied": (lambda d: d["media"]["shards"].update(entries=[], bytes=0, blobs=0), "the database has a row for it, the snapshot has no file"),
    }
    for fault, (change, wanted) in documents.items():
        with sentences(f"{fault}: the drill names it"):
            planter.names(planter.forge(old, change), wanted)
    with sentences("a pack in the place of another: verify names it"):
        packs = [key for key in stage.minio.list(bucket, f"{PREFIX}/packs/")]
        body = stage.minio.get(bucket, packs[0])
        stage.minio.put(bucket, packs[0], stage.minio.get(bucket, packs[1]))
        run = planter.tool.run("verify", "--read-data", expect=(1,))
        planter.check(pathlib.PurePosixPath(packs[0]).name.split(".")[0] in str(run.report), run.report)
        stage.minio.put(bucket, packs[0], body)
    with sentences("without a fault the same drill passes"):
        planter.tool.run(*planter.words, old)


class Planter:
    """A repository beside the stage's, and a drill of its snapshots."""

    def __init__(self, stage: Stage, bucket: str) -> None:
        self.stage, self.bucket = stage, bucket
        self.folder = stage.ground.folder("planted")
        self.wrapper = self.folder / "pg_dump"
        for name in ("psql", "pg_restore"):  # taken from beside it
            (self.folder / name).symlink_to(binaries() / name)
        self.tool = Tool(stage.ground, stage.minio, stage.settings(f"s3://{bucket}/{PREFIX}"), "tool-planted")
        self.tool.environment["SYNAPSE_BACKUP_POSTGRES_PG_DUMP"] = str(self.wrapper)
        scratch = f"synapse=dbname=planted host={stage.postgres.socket} port={stage.postgres.port} user={stage.postgres.superuser}"
        self.words = ("drill", "--to", stage.ground.folder("planted-scratch"), "--media=hash-only", "--no-record", "--database", scratch)
        self.count = 0

    def backup(self, words: list[str] | None = None, swaps: list[tuple[str, str]] | None = None) -> str:
        """A snapshot whose dumps were taken with these words more, and changed so."""
        text = WRAPPER.format(pg_dump=str(binaries() / "pg_dump"), words=words or [], swaps=json.dumps(swaps or []))
        self.wrapper.unlink(missing_ok=True)
        self.wrapper.write_text(text)
        self.wrapper.chmod(0o755)
        return self.tool.run("backup").report["snapshot"]

    def forge(self, snapshot: str, change: Callable[[Document], object]) -> str:
        """The same snapshot under another id, with a change."""
        key = next(key for key in self.stage.minio.list(self.bucket, f"{PREFIX}/snapshots/") if snapshot in key)
        body = self.stage.minio.get(self.bucket, key)
        document = json.loads(subprocess.run(["zstd", "-dc"], input=body, capture_output=True, check=True).stdout)
        trailer = body[body.rindex(b"\x5c\x2a\x4d\x18") :]
        self.count += 1
        document["id"] = hashlib.sha256(f"{snapshot} {self.count}".encode()).hexdigest()[:32]
        change(document)
        raw = json.dumps(document).encode()
        words = ["zstd", "-qc", "--check", f"--stream-size={len(raw)}"]
        forged = subprocess.run(words, input=raw, capture_output=True, check=True).stdout + trailer[:-32]
        self.stage.minio.put(self.bucket, key.replace(snapshot, document["id"]), forged + hashlib.sha256(forged).digest())
        return document["id"]

    def names(self, snapshot: str, wanted: str) -> None:
        """The drill of it fails, and says so."""
        run = self.tool.run(*self.words, snapshot, expect=(1,))
        said = "\n".join(f"{problem['item']}: {problem['message']}" for problem in run.report["problems"])
        self.check(wanted in said, f"`{wanted}` is not said, but:\n{said[:1500]}{run.explain() if not said else ''}")

    @staticmethod
    def check(truth: object, otherwise: object) -> None:
        """As everywhere."""
        from e2e import check

        check(truth, otherwise)


def _without(document: Document, role: str) -> None:
    document["config"] = [item for item in document["config"] if item["role"] != role]


def _another_key(document: Document) -> None:
    document["signing_keys"][0]["public_key"] = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"
