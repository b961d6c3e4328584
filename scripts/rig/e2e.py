"""The end-to-end test: sentences that must be true of the tool beside a real Synapse, PostgreSQL and MinIO.

First an awkward installation is backed up, lost and restored, and everything about it must be identical; then come the faults
(faults.py), on the restored server. A sentence that fails is counted and the next one is tried, except for those without
which nothing after them makes sense.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import threading
import time
import traceback
from collections.abc import Iterator

from awkward import awkward
from compare import lost, tree
from ground import ROOT, Ground, RigError
from homeserver import Homeserver, Installation, version
from minio import Minio
from postgres import Postgres, quote_name
from story import Story, differences
from tool import Tool, settings

BUCKET, PREFIX = "offsite", "matrix/main"
ONE_TIME_KEYS = "e2e_one_time_keys_json"
# Large enough for a stream of its own, under a name that needs quoting everywhere; beside it a view that has to be filled again.
BIG_TABLE = """
CREATE SCHEMA "Odd one";
CREATE TABLE "Odd one"."big.table" (id serial PRIMARY KEY, text text, length int GENERATED ALWAYS AS (length(text)) STORED);
INSERT INTO "Odd one"."big.table" (text) SELECT repeat(md5(i::text), 20) FROM generate_series(1, 60000) AS i;
CREATE MATERIALIZED VIEW "Odd one".filled AS SELECT count(*) AS n FROM "Odd one"."big.table";
SELECT lo_from_bytea(0, '\\xdeadbeef');
"""


class Abort(Exception):
    """A sentence failed that the rest depends on."""


class Sentences:
    """Counts the sentences that hold and those that do not."""

    def __init__(self) -> None:
        self.passed = self.failed = 0

    @contextlib.contextmanager
    def __call__(self, sentence: str, essential: bool = False) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        except Exception as error:
            self.failed += 1
            print(f"FAILED  {sentence}\n        {error or traceback.format_exc()}", flush=True)
            if not isinstance(error, (RigError, AssertionError)):
                traceback.print_exc()
            if essential:
                raise Abort(sentence) from error
        else:
            self.passed += 1
            print(f"ok      {sentence} ({time.monotonic() - begun:.1f} s)", flush=True)


def check(truth: object, otherwise: object) -> None:
    """An assertion that also holds under `python -O`."""
    if not truth:
        raise AssertionError(str(otherwise))


class Stage:
    """Everything the sentences talk about."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.postgres, self.minio = Postgres(ground), Minio(ground)
        self.minio.make_bucket(BUCKET)
        self.installation: Installation = awkward(ground, self.postgres)
        self.postgres.sql(f"SET ROLE {quote_name(self.installation.role)};{BIG_TABLE}", self.installation.database)
        self.synapse = Homeserver(ground, self.installation)
        self.synapse.start()
        self.story = Story(self.installation)
        self.tool = Tool(ground, self.minio, self.settings())

    def settings(self, repository: str = f"s3://{BUCKET}/{PREFIX}") -> str:
        """The settings of this stage, perhaps with another repository."""
        return settings(self.minio, self.installation, repository)

    def snapshots(self) -> list[dict]:
        """The listed snapshots, without their ages, so that two lists can be compared."""
        listed = self.tool.run("snapshots").report["snapshots"]
        for snapshot in listed:
            del snapshot["age_seconds"]
        return listed

    def nothing_left_over(self) -> None:
        """No upload is open and no child of the tool lives."""
        check(self.minio.open_uploads(BUCKET) == 0, "a multipart upload was left open")
        left = _processes_of(self.tool.sessions)
        check(not left, f"a child of the tool is still running: {left}")


def e2e(messages: int, files: int, keep: bool) -> int:
    """Runs every sentence; the exit code is 1 if one failed."""
    import drills
    import faults
    import offsite
    import planted
    import rescue

    sentences = Sentences()
    with Ground("e2e", keep) as ground:
        try:
            stage = Stage(ground)
            stage.story.begin(messages, files)
            stage.synapse.settle(stage.postgres)
            round_trip(stage, sentences)
            drills.all_drills(stage, sentences)
            rescue.all_rescues(stage, sentences, BUCKET, PREFIX)
            faults.all_faults(stage, sentences)
            planted.all_planted(stage, sentences, BUCKET)
            offsite.moved_media(stage, sentences)
        except Abort as error:
            print(f"nothing after this makes sense: {error}")
        except Exception:  # between two sentences: counted like one, so that the summary is always printed
            sentences.failed += 1
            traceback.print_exc()
        if sentences.failed:
            ground.keep = True
    print(f"{sentences.passed} passed, {sentences.failed} failed")
    return 1 if sentences.failed else 0


def round_trip(stage: Stage, sentences: Sentences) -> None:
    """Backs up, looks, destroys, restores, compares."""
    import sealed

    first_backups(stage, sentences)
    stage.story.another_day()
    stage.synapse.stop()  # from here on nothing may change, so that digests can be compared
    with sentences("the last backup before the loss has no problems", essential=True):
        run = stage.tool.run("backup")
        check(run.report["media"]["new"] > 0 and run.report["media"]["unchanged"] > 0, run.report["media"])
    looking(stage, sentences)
    refusals(stage, sentences)
    by_hand(stage, sentences)
    sealed.sealed_repository(stage, sentences, BUCKET)
    loss_and_restore(stage, sentences)


def first_backups(stage: Stage, sentences: Sentences) -> None:
    """init, the first backup, and the second with nothing new."""
    tool = stage.tool
    with sentences("doctor finds nothing wrong before the first backup, but credentials that may delete"):
        tool.run("init", "--unencrypted")
        checks = tool.run("doctor", expect=(3,)).report["checks"]
        warned = [check["name"] for check in checks if check["verdict"] != "ok"]
        assert warned == ["rights"], checks
    with sentences("a second init is refused"):
        tool.run("init", "--unencrypted", expect=(1,))
    with sentences("the first backup of a running server has no problems", essential=True):
        talker = threading.Thread(target=stage.story.talk, args=(30,))
        talker.start()
        run = tool.run("backup", expect=(0, 1))
        if run.exit_code == 1 and "locked" in run.explain():
            # Synapse was changing a table just then; exit code 1 means that a scheduler tries again.
            run = tool.run("backup")
        talker.join()
        check(run.exit_code == 0, run.explain())
        check(not run.problems(), run.problems())
        check(run.report["media"]["files"] >= len(stage.story.media), run.report["media"])
        check(run.report["snapshot"], "no snapshot id")
        check(run.report["databases"][0]["streams"] == 3, f"schema, main and one big table: {run.report['databases']}")
        stage.nothing_left_over()
    with sentences("a dry run writes nothing"):
        before = stage.minio.list(BUCKET)
        tool.run("backup", "--dry-run")
        check(stage.minio.list(BUCKET) == before, "objects appeared")
    with sentences("a second backup with nothing new opens no media file and needs at most 30 requests"):
        originals = [path for path in stage.installation.media_store.rglob("*") if path.is_file()]
        for path in originals:
            os.utime(path, ns=(0, path.stat().st_mtime_ns))
        run = tool.run("backup")
        opened = [path.name for path in originals if path.stat().st_atime_ns != 0]
        check(not opened, f"{len(opened)} media files were read")
        check(_access_times_work(originals[0]), "this file system keeps no access times: the sentence proves nothing here")
        check(run.requests <= 30, f"{run.requests} requests: {run.report['requests']}")
        check(run.report["media"]["new"] == 0, run.report["media"])
    with sentences("what the report says was sent and asked is what MinIO saw"):
        before = stage.minio.settled_traffic()
        run = tool.run("backup")
        after = stage.minio.settled_traffic()
        check(after["requests"] - before["requests"] == run.requests, f"{before} {after} {run.report['requests']}")
        seen = after["received_bytes"] - before["received_bytes"]
        check(abs(seen - run.report["sent_bytes"]) <= 0.05 * seen + 4096, f"MinIO got {seen}, reported {run.report['sent_bytes']}")
    with sentences("snapshots know which Synapse ran"):
        # It has two seconds to answer, and may be too busy for that while it is talked to: one of the quiet nights must know.
        shown = [tool.run("show", line["id"]).report["snapshot"] for line in stage.snapshots()]
        told = {snapshot.get("synapse_version") for snapshot in shown}
        check(version() in told and told <= {version(), None}, f"the snapshots say Synapse {told}")


def looking(stage: Stage, sentences: Sentences) -> None:
    """snapshots, show, ls, cat, verify."""
    tool, installation = stage.tool, stage.installation
    with sentences("snapshots names every backup and the server"):
        listed = stage.snapshots()
        check(len(listed) == 4, f"{len(listed)} snapshots")
        check({line["server_name"] for line in listed} == {installation.server_name}, listed)
        tool.run("show", "latest")
        tool.run("show", f"latest:{installation.server_name}")
    with sentences("ls names every media file with the hash of its bytes, and the signing key"):
        items = {line["name"]: line for line in tool.run("ls", "latest").lines if line["type"] == "item"}
        for media_id, digest in stage.story.media.items():
            name = f"media/local_content/{media_id[:2]}/{media_id[2:4]}/{media_id[4:]}"
            check(items[name]["sha256"] == digest, items.get(name))
        check(f"config{installation.signing_key}" in items, "no signing key")
    with sentences("cat gives the very bytes of a file, a medium by its mxc address, and a dump that pg_restore lists"):
        config = installation.config[0]
        check(tool.cat("latest", f"config{config}") == config.read_bytes(), "homeserver.yaml differs")
        media_id = next(iter(stage.story.media))
        path = installation.media_store / "local_content" / media_id[:2] / media_id[2:4] / media_id[4:]
        check(tool.cat("latest", f"mxc://{installation.server_name}/{media_id}") == path.read_bytes(), "media differ")
        stream = next(name for name in items if name.startswith("database/"))
        dump = stage.ground.path / "stream.dump"
        dump.write_bytes(tool.cat("latest", stream))
        check("local_media_repository" in stage.postgres.client("pg_restore", "--list", str(dump)), "the dump lists no tables")
    with sentences("verify opens and hashes every byte"):
        tool.run("verify")
        tool.run("verify", "--read-data")
    with sentences("no log and no object carries a secret"):
        secrets = [installation.registration_secret.encode(), stage.minio.secret_key.encode(), installation.signing_key.read_bytes().split()[2]]
        for path in stage.ground.logs.glob("tool-*"):
            if "-cat" not in path.name:
                check(not any(secret in path.read_bytes() for secret in secrets), f"a secret stands in {path}")


def refusals(stage: Stage, sentences: Sentences) -> None:
    """What restore must not touch."""
    tool, installation = stage.tool, stage.installation
    untouched = tree(installation.root, owners=True), stage.postgres.digest(installation.database)
    with sentences("a restore over a living server is refused and changes nothing"):
        tool.run("restore", "latest", expect=(1,))
        tool.run("restore", "latest", "--only", "media", expect=(1,))
        tool.run("restore", "latest", "--only", "config", expect=(1,))
        tool.run("restore", "latest", "--only", "database", expect=(1,))
        check((tree(installation.root, owners=True), stage.postgres.digest(installation.database)) == untouched, "something changed")
    copy = stage.ground.path / "copy"
    with sentences("--to without --database is a usage error and makes nothing"):
        tool.run("restore", "latest", "--to", copy, expect=(2,))
        check(not copy.exists(), "the folder exists")
    with sentences("--to with the database left out gives an identical tree beside the old one"):
        tool.run("restore", "latest", "--to", copy, "--database", "synapse=skip")
        copied = tree(pathlib.Path(f"{copy}{installation.root}"), owners=os.getuid() == 0)
        missing = lost(tree(installation.root, owners=os.getuid() == 0), copied, installation.loose)
        check(not missing, "\n".join(missing[:10]))
        tool.run("restore", "latest", "--to", copy, "--database", "synapse=skip", expect=(1,))
        shutil.rmtree(copy)
    with sentences("a copy of the database beside the old one is identical, but for the one-time keys"):
        stage.postgres.create_database("beside", installation.role)
        target = f"postgres=dbname=beside host={stage.postgres.socket} port={stage.postgres.port} user=postgres"
        tool.run("restore", "latest", "--to", copy, "--only", "database", "--database", target.replace("postgres=", "synapse=", 1))
        same_database(stage, untouched[1], "beside")
        tool.run("restore", "latest", "--to", copy, "--only", "database", "--database", target.replace("postgres=", "synapse=", 1), expect=(1,))
        stage.postgres.drop_database("beside")
        shutil.rmtree(copy, ignore_errors=True)


def by_hand(stage: Stage, sentences: Sentences) -> None:
    """What docs/loading-by-hand.md says, word for word."""
    with sentences("the database is loaded by hand, by the lines of docs/loading-by-hand.md, and is identical"):
        text = (ROOT / "docs" / "loading-by-hand.md").read_text()
        lines = text.split("```sh\n")[1].split("```")[0].replace("DATABASE=synapse_restored", "DATABASE=by_hand")
        check(len(lines.splitlines()) == 5, "these are not five lines")
        folder = stage.ground.folder("by-hand")
        (folder / "synapse-backup").symlink_to(stage.tool.binary)
        postgres, tool = stage.postgres, stage.tool
        postgres.create_database("by_hand", stage.installation.role)
        environment = {**tool.environment, **postgres.environment, "SYNAPSE_BACKUP_CONFIG": str(tool.config)}
        environment["PATH"] = f"{folder}:{environment['PATH']}"
        done = subprocess.run(["bash", "-eu", "-o", "pipefail", "-c", lines], cwd=folder, env=environment, capture_output=True, text=True)
        check(done.returncode == 0, done.stderr[-2000:])
        same_database(stage, postgres.digest(stage.installation.database), "by_hand")
        postgres.drop_database("by_hand")


def loss_and_restore(stage: Stage, sentences: Sentences) -> None:
    """The heart: everything is lost, everything comes back."""
    installation, postgres = stage.installation, stage.postgres
    files = tree(installation.root, owners=os.getuid() == 0)
    tables = postgres.digest(installation.database)
    stage.synapse.start()
    before = stage.story.observe()
    keys = stage.story.one_time_keys()
    stage.synapse.stop()
    check(all(keys.values()), keys)
    installation.destroy(postgres)
    with sentences("a restore without its database fails before it writes a file"):
        stage.tool.run("restore", "latest", expect=(1,))
        check(not installation.root.exists(), "files were written")
    with sentences("everything that was lost is restored in place", essential=True):
        postgres.create_database(installation.database, installation.role)
        stage.tool.run("restore", "latest")
    with sentences("every file is back with its bytes, mode, link target and owner"):
        missing = lost(files, tree(installation.root, owners=os.getuid() == 0), installation.loose)
        check(not missing, "\n".join(missing[:10]))
    with sentences("every table and sequence is identical, and there are no one-time keys"):
        same_database(stage, tables, installation.database)
    with sentences("Synapse starts and clients see what they saw before", essential=True):
        stage.synapse.start()
        changed = differences(before, stage.story.observe())
        check(not changed, "\n".join(changed[:10]))
        check(not any(stage.story.one_time_keys().values()), stage.story.one_time_keys())
        stage.story.talk(10)
    with sentences("the backup after a restore sends hardly anything"):
        run = stage.tool.run("backup")
        check(run.report["media"]["new"] <= run.report["media"]["files"] // 10, run.report["media"])


def same_database(stage: Stage, expected: dict[str, str], database: str) -> None:
    """Every table and sequence of the database has the expected digest, but for the one-time keys, of which there are none."""
    found = stage.postgres.digest(database)
    check(found.get(ONE_TIME_KEYS) == "0:0:0", f"one-time keys: {found.get(ONE_TIME_KEYS)}")
    wrong = [name for name in {*expected, *found} - {ONE_TIME_KEYS} if expected.get(name) != found.get(name)]
    check(not wrong, f"these differ: {wrong}")


def _access_times_work(path: pathlib.Path) -> bool:
    os.utime(path, ns=(0, path.stat().st_mtime_ns))
    path.read_bytes()
    return path.stat().st_atime_ns != 0


def _processes_of(sessions: set[int]) -> list[bytes]:
    """Command lines of the processes in these sessions: each run of the tool has one of its own, which its children inherit."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getsid(int(path.name)) in sessions:
                found.append((path / "cmdline").read_bytes().replace(b"\0", b" "))
    return found
