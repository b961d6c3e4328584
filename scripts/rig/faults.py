"""Faults, one after another, on the stage of the end-to-end test: of the media, of the settings, of the database, of the store.

After each the same must hold: the exit code says what happened, the report names the item, nothing incomplete is listed, nothing is
left behind, and no wrong byte is ever restored.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator

from e2e import BUCKET, PREFIX, Sentences, Stage, check
from ground import ROOT, RigError, free_port
from tool import Run, Tool

QUICK_SECONDS = 45  # "within seconds, not after minutes of retries"


def all_faults(stage: Stage, sentences: Sentences) -> None:
    """Every family of faults."""
    media(stage, sentences)
    bad_settings(stage, sentences)
    stage.synapse.stop()
    database(stage, sentences)
    interruptions(stage, sentences)
    damaged_objects(stage, sentences)


def media(stage: Stage, sentences: Sentences) -> None:
    """New media that are not as their rows say."""
    story, store = stage.story, stage.installation.media_store
    known = set(story.media)
    story.share(12)
    new = [media_id for media_id in story.media if media_id not in known]
    paths = [store / "local_content" / media_id[:2] / media_id[2:4] / media_id[4:] for media_id in new]
    kept = [path.read_bytes() for path in paths]
    paths[0].unlink()
    paths[1].write_bytes(kept[1][: len(kept[1]) // 2])
    paths[2].write_bytes(bytes(len(kept[2])))
    paths[3].unlink()
    paths[3].mkdir()
    paths[4].unlink()
    os.mkfifo(paths[4])
    expected = dict(zip(paths[:5], ("missing", "short", "hash_differs", "not_a_file", "not_a_file")))
    with sentences("media that are missing, short, changed or no files are problems by kind, and the backup is committed"):
        run = stage.tool.run("backup", expect=(3,))
        found = {item: kind for item, kind in run.problems().items() if item.startswith("media/")}
        wanted = {f"media/{path.relative_to(store)}": kind for path, kind in expected.items()}
        check(found == wanted, f"reported {found}, planted {wanted}")
        check(run.report["snapshot"] in [line["id"] for line in stage.snapshots()], "not listed")
    paths[3].rmdir()
    paths[4].unlink()
    for path, body in zip(paths, kept):
        path.write_bytes(body)
    with sentences("once the media are whole again, so is the next backup"):
        run = stage.tool.run("backup")
        check(not run.problems(), run.problems())


def bad_settings(stage: Stage, sentences: Sentences) -> None:
    """Settings, credentials and places that are wrong."""
    good = stage.settings()

    def tool(name: str, text: str) -> Tool:
        return Tool(stage.ground, stage.minio, text, name)

    with sentences("a wrong key in the settings is exit 2 with file, line and the nearest key"):
        run = tool("wrong-key", good + "limit: {memory: 1GiB}\n").run("snapshots", expect=(2,))
        said = run.explain() + run.stderr
        check("config.yaml:" in said and "limits" in said, said)
    with sentences("settings that are no YAML are exit 2"):
        tool("no-yaml", good + "keep: [1, 2\n").run("snapshots", expect=(2,))
    with sentences("the settings that are shipped for Kubernetes and the compose file are accepted"):
        for number, text in enumerate(_shipped_settings()):
            one = tool(f"shipped-{number}", text)
            one.environment["SYNAPSE_BACKUP_REPOSITORY"] = f"file://{stage.ground.path}/no-repository-here"
            one.run("snapshots", expect=(10,), seconds=QUICK_SECONDS)
    cases = {
        "a bucket that does not exist": (stage.settings("s3://no-such-bucket/x"), {}, (10,)),
        "a prefix without a repository": (stage.settings(f"s3://{BUCKET}/elsewhere"), {}, (10,)),
        "a wrong secret key": (good, {"AWS_SECRET_ACCESS_KEY": "wrong"}, (1, 10)),
        "a wrong access key": (good, {"AWS_ACCESS_KEY_ID": "nobody"}, (1, 10)),
        "an endpoint where nothing listens": (good.replace(str(stage.minio.port), str(free_port())), {}, (1, 10)),
    }
    for number, (case, (text, environment, codes)) in enumerate(cases.items()):
        with sentences(f"{case} is told within seconds, with a hint"):
            one = tool(f"place-{number}", text)
            one.environment |= environment
            run = one.run("backup", expect=codes, seconds=QUICK_SECONDS)
            error = run.report["error"]
            check(error and error["message"] and error["hint"], error)


def _shipped_settings() -> list[str]:
    import yaml  # comes with Synapse

    chart = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "configmap.yaml").read_text())
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return [chart["data"]["config.yaml"], compose["configs"]["settings"]["content"]]


@contextlib.contextmanager
def locked_table(stage: Stage, table: str = "events") -> Iterator[None]:
    """Somebody holds a table so that every reader waits, as during a schema upgrade."""
    psql = [stage.postgres.bin / "psql", "-XqAt", "-d", stage.installation.database]
    environment = {**os.environ, **stage.postgres.environment}
    holder = subprocess.Popen(psql, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        holder.stdin.write(f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE; SELECT 'held';\n")
        holder.stdin.flush()
        check(holder.stdout.readline() == "held\n", "the lock was not granted")
        yield
    finally:
        holder.kill()
        holder.communicate()


def wait_for_waiter(stage: Stage) -> int:
    """The backend of the tool that waits for the lock."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        waiting = stage.postgres.sql("SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND backend_type = 'client backend'")
        if waiting:
            return int(waiting.splitlines()[0])
        time.sleep(0.05)
    raise RigError("nobody waited for the locked table")


def database(stage: Stage, sentences: Sentences) -> None:
    """Connections that are lost, and a server that is not there."""
    with sentences("a connection killed by the server fails the backup: nothing is committed, nothing left over"):
        before = stage.snapshots()
        with locked_table(stage):
            running = stage.tool.begin("backup")
            stage.postgres.sql(f"SELECT pg_terminate_backend({wait_for_waiter(stage)})")
            running.finish((1,), 120)
        check(stage.snapshots() == before, "a snapshot was listed")
        stage.nothing_left_over()
    with sentences("a database that is gone fails the backup with its name in the message"):
        name = stage.installation.database
        stage.postgres.sql(f'ALTER DATABASE "{name}" RENAME TO moved')
        try:
            run = stage.tool.run("backup", expect=(1,))
            check(name in run.explain() + run.stderr, run.explain())
        finally:
            stage.postgres.sql(f'ALTER DATABASE moved RENAME TO "{name}"')


def interruptions(stage: Stage, sentences: Sentences) -> None:
    """SIGINT, SIGTERM and SIGKILL in the middle of a backup."""
    for number in (signal.SIGINT, signal.SIGTERM):
        with sentences(f"{number.name} ends a backup with 130 within 5 s: nothing listed, no child, no open upload"):
            before = stage.snapshots()
            with locked_table(stage):
                running = stage.tool.begin("backup")
                wait_for_waiter(stage)
                sent = time.monotonic()
                running.signal(number)
                running.finish((130,), 60)
                check(time.monotonic() - sent < 5, f"it took {time.monotonic() - sent:.1f} s")
                stage.nothing_left_over()
            check(stage.snapshots() == before, "a snapshot was listed")
    with sentences("after a kill -9 in the middle, the next backup simply works"):
        with locked_table(stage):
            running = stage.tool.begin("backup")
            wait_for_waiter(stage)
            running.signal(signal.SIGKILL)
            running.finish((-signal.SIGKILL,), 60)
        stage.tool.run("backup")


def damaged_objects(stage: Stage, sentences: Sentences) -> None:
    """Objects deleted, cut short and flipped: verify names them, restore writes no wrong byte."""
    stage.tool.run("verify", "--read-data")
    truth = _hashes(stage.installation.root)
    listed = stage.minio.list(BUCKET, PREFIX)
    packs = sorted((key for key in listed if "/packs/" in key), key=lambda key: -listed[key])
    newest = sorted(key for key in listed if "/snapshots/" in key)[-1]
    victims = {"the largest pack": packs[0], "the smallest pack": packs[-1], "the newest snapshot": newest}
    victims["a segment of the index"] = max((key for key in listed if "/index/" in key), key=lambda key: listed[key])
    for what, key in victims.items():
        body = stage.minio.get(BUCKET, key)
        middle = len(body) // 2
        damages = {"deleted": None, "cut in half": body[:middle], "flipped in one bit": body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]}
        for how, damaged in damages.items():
            if what == "the newest snapshot" and how == "deleted":
                continue  # that is what `forget` does
            if damaged is None:
                stage.minio.delete(BUCKET, key)
            else:
                stage.minio.put(BUCKET, key, damaged)
            try:
                with sentences(f"{what}, {how}: verify names it"):
                    run = stage.tool.run("verify", "--read-data", expect=(1,))
                    name = pathlib.PurePosixPath(key).name.split(".")[0]
                    if what == "a segment of the index" and damaged is None:
                        name = "no index segment names it"  # nothing else knows its name: the packs it named are told
                    check(name in str(run.report) + run.stderr, f"{key} is not named: {run.explain()}")
                with sentences(f"{what}, {how}: no wrong byte is restored"):
                    _restores_no_wrong_byte(stage, truth)
            finally:
                stage.minio.put(BUCKET, key, body)
    with sentences(f"any one of {len(packs)} packs, deleted: no wrong byte is restored, and nothing is missing in silence"):
        for key in packs:
            body = stage.minio.get(BUCKET, key)
            stage.minio.delete(BUCKET, key)
            try:
                _restores_no_wrong_byte(stage, truth)
            finally:
                stage.minio.put(BUCKET, key, body)
    with sentences("with the objects put back, verify finds nothing"):
        stage.tool.run("verify", "--read-data")


def _restores_no_wrong_byte(stage: Stage, truth: dict[str, str]) -> None:
    copy = stage.ground.path / "damaged-copy"
    try:
        run: Run = stage.tool.run("restore", "latest", "--to", copy, "--database", "synapse=skip", expect=(0, 1, 3))
        written = _hashes(pathlib.Path(f"{copy}{stage.installation.root}"))
        named = " ".join([*run.problems(), *_of_lost_lists(stage, run)])
        wrong = [name for name, digest in written.items() if truth.get(name) != digest]
        check(not wrong, f"wrong bytes in {wrong[:5]}")
        if run.exit_code != 1:
            lost = [name for name in truth if name not in written and name not in stage.installation.loose]
            silent = [name for name in lost if _as_shown(pathlib.PurePosixPath(name).name) not in named]
            check(not silent, f"neither restored nor named: {silent[:5]}")
        check(run.exit_code != 0 or not run.problems(), "problems, and yet exit 0")
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _of_lost_lists(stage: Stage, run: Run) -> Iterator[str]:
    """The files in lists of media that are lost: such a problem gives the first and how many there are, as nothing else can."""
    media = sorted((path for path in (stage.installation.media_store).rglob("*") if path.is_file()), key=os.fsencode)
    names = [_as_shown(f"media/{path.relative_to(stage.installation.media_store)}") for path in media]
    for problem in run.report.get("problems", []):
        told = re.match(r"the list of (\d+) media files from here on is lost", problem["message"])
        if told:
            first = names.index(problem["item"])
            yield from names[first : first + int(told[1])]


def _as_shown(name: str) -> str:
    """A file name as a text for people: bytes that are not UTF-8 are replaced."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


def _hashes(root: pathlib.Path) -> dict[str, str]:
    found = {}
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.suffix not in (".log", ".pid"):
            found[str(path.relative_to(root))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
