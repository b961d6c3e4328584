"""Another store: a private SeaweedFS, and the sentences that must be true of the tool beside it (`scripts/e2e seaweedfs`).

MinIO is what every other test runs on. SeaweedFS differs in what matters: it lists unfinished uploads, knows CRC-64/NVME, and has its own
Object Lock and policies. The keys of the three roles are made of the policies in deploy/policies/minio, as they are.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable

from compare import lost, tree
from e2e import ONE_TIME_KEYS, Abort, Sentences, check
from generate import Generator
from ground import CACHE, ROOT, Ground, RigError, free_port, wait_for
from homeserver import Homeserver, plain
from postgres import Postgres
from s3 import S3
from story import Story
from tool import Tool, settings
from truth import hasten

PLAIN, SECOND, LOCKED, OWNED = "offsite", "second", "locked", "owned"
ROLES = ("writer", "pruner", "reader")
GRACE_SECONDS, WINDOW_SECONDS = 10, 8
BYPASS = {"x-amz-bypass-governance-retention": "true"}


class SeaweedFS(S3):
    """A running private SeaweedFS: one process with everything, and keys for its owner and the three roles."""

    def __init__(self, ground: Ground) -> None:
        binary = CACHE / "seaweedfs" / "bin" / "weed"
        if not binary.exists():
            raise RigError("no SeaweedFS found: run scripts/setup seaweedfs")
        super().__init__(free_port(), "rig", secrets.token_hex(16))
        self.roles = {role: S3(self.port, f"rig-{role}", secrets.token_hex(16)) for role in ROLES}
        data = ground.folder("seaweedfs")
        keys = ground.path / "seaweedfs.json"
        keys.write_text(json.dumps(self._keys()))
        argv = [binary, "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", f"-s3.config={keys}"]
        for what in ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc", "s3.port.grpc"):
            argv.append(f"-{what}={free_port()}")
        argv += [f"-s3.port={self.port}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.volumeSizeLimitMB=64", "-volume.max=100"]
        # Told to end in an orderly way, it takes its time; nobody needs its data.
        process = ground.start("seaweedfs", argv, env={"HOME": str(data)}, stop_signal=signal.SIGKILL)
        wait_for("SeaweedFS", self.answers, 90, process, ground.log("seaweedfs"))

    def _keys(self) -> dict:
        """Its owner, and the roles as deploy/policies has them for the bucket with Object Lock."""
        owner = {"name": "owner", "actions": ["Admin", "Read", "Write", "List", "Tagging"], "credentials": [_pair(self)]}
        identities = [{"name": role, "policyNames": [role], "credentials": [_pair(key)]} for role, key in self.roles.items()]
        folder = ROOT / "deploy" / "policies" / "minio"
        texts = {role: (folder / f"{role}.json").read_text() for role in ROLES}
        policies = [{"name": role, "content": text.replace("BUCKET", LOCKED).replace("PREFIX", "matrix")} for role, text in texts.items()]
        return {"identities": [owner, *identities], "policies": policies}


def _pair(key: S3) -> dict[str, str]:
    return {"accessKey": key.access_key, "secretKey": key.secret_key}


def seaweedfs(messages: int, files: int, keep: bool) -> int:
    """Runs every sentence; the exit code is 1 if one failed."""
    sentences = Sentences()
    with Ground("seaweedfs", keep) as ground:
        with contextlib.suppress(Abort):
            play = Play(ground, messages, files)
            a_repository(play, sentences)
            a_prune(play, sentences)
            a_thief(play, sentences)
            an_owner(play, sentences)
        if sentences.failed:
            ground.keep = True
    print(f"{sentences.passed} passed, {sentences.failed} failed")
    return 1 if sentences.failed else 0


class Play:
    """A homeserver with something in it, standing still, and an empty SeaweedFS."""

    def __init__(self, ground: Ground, messages: int, files: int) -> None:
        self.ground, self.postgres, self.store = ground, Postgres(ground), SeaweedFS(ground)
        self.installation = plain(ground, self.postgres)
        synapse = Homeserver(ground, self.installation)
        synapse.start()
        Story(self.installation).begin(messages, files)
        synapse.settle(self.postgres)
        synapse.stop()
        self.generator = Generator(self.postgres, self.installation)
        self.generator.media(40)  # so that packs are sent in parts
        for bucket in (PLAIN, SECOND):
            self.store.make_bucket(bucket)
        for bucket in (LOCKED, OWNED):
            self.store.make_bucket(bucket, lock=True)

    def tool(self, key: S3, bucket: str, name: str, more: str = "") -> Tool:
        """The program with somebody's key."""
        return Tool(self.ground, key, settings(key, self.installation, f"s3://{bucket}/matrix", more), name)

    def keys(self, name: str) -> tuple[pathlib.Path, str]:
        """A new identity, and the settings that seal to it."""
        identity = self.ground.path / f"{name}.identity"
        subprocess.run(["age-keygen", "-o", identity], check=True, capture_output=True)
        recipient = subprocess.run(["age-keygen", "-y", identity], check=True, capture_output=True, text=True).stdout.strip()
        writer_key = self.ground.path / f"{name}.key"
        return identity, f"encryption: {{recipients: [{recipient}], writer_key_file: {writer_key}}}\n"

    def restored(self, tool: Tool, *words: str) -> None:
        """The newest snapshot comes back, and is the homeserver as it stands there."""
        folder, database = self.ground.path / "restored", "restored"
        self.postgres.create_database(database, self.installation.role)
        conninfo = f"host={self.postgres.socket} port={self.postgres.port} user=postgres dbname={database}"
        tool.run("restore", "latest", *words, "--to", folder, "--database", f"synapse={conninfo}")
        owners, root = os.getuid() == 0, self.installation.root
        missing = lost(tree(root, owners), tree(pathlib.Path(f"{folder}{root}"), owners), self.installation.loose)
        check(not missing, "\n".join(missing[:10]))
        before, after = (self.postgres.digest(name, leave_out=(ONE_TIME_KEYS,)) for name in (self.installation.database, database))
        check(before == after, f"these differ: {[name for name in before if after.get(name) != before[name]]}")
        self.postgres.drop_database(database)
        shutil.rmtree(folder)


def a_repository(play: Play, sentences: Sentences) -> None:
    """What every night and every bad day needs."""
    tool = play.tool(play.store, PLAIN, "tool")
    with sentences("two backups, of which the second sends hardly anything", essential=True):
        tool.run("init", "--unencrypted")
        hasten(play.store, PLAIN, GRACE_SECONDS, WINDOW_SECONDS)
        first, second = tool.run("backup"), tool.run("backup")
        check(first.report["requests"]["part"] > 0 and second.report["media"]["new"] == 0, (first.report, second.report))
        check(second.report["sent_bytes"] < first.report["sent_bytes"] / 10, (first.report["sent_bytes"], second.report["sent_bytes"]))
    with sentences("doctor knows the store, and finds checksums and conditions kept"):
        checks = {each["name"]: each for each in tool.run("doctor", expect=(3,)).report["checks"]}
        kept = [checks[name]["verdict"] for name in ("store", "clock", "checksums", "conditional writes")]
        check(kept == ["ok"] * 4 and checks["rights"]["verdict"] == "warning", checks)
    with sentences("every byte is whole, a restore is identical, a drill passes"):
        tool.run("verify", "--read-data")
        play.restored(tool)
        tool.run("drill", "--to", play.ground.folder("scratch", mode=0o711), "--media=hash-only")
    with sentences("all snapshots are copied to another bucket, sealed to somebody else, and come back from there"):
        identity, sealing = play.keys("second")
        there = play.tool(play.store, SECOND, "second", sealing)
        there.run("init")
        tool.run("copy", "--to", f"s3://{SECOND}/matrix", "--to-config", there.config, "--all")
        there.run("verify", "--read-data", f"--identity={identity}")
        play.restored(there, f"--identity={identity}")


def a_prune(play: Play, sentences: Sentences) -> None:
    """Space comes back, and what killed runs left goes."""
    tool = play.tool(play.store, PLAIN, "pruner")
    with sentences("a prune marks what nobody needs, the next one deletes it, and the rest is whole"):
        play.generator.another_day(media_mib=12)
        tool.run("backup", "--tag", "extra")
        tool.run("tag", "latest", "+seen")
        extra = tool.run("snapshots").report["snapshots"][-1]
        check(sorted(extra["tags"]) == ["extra", "seen"], extra)
        tool.run("forget", extra["id"])
        time.sleep(GRACE_SECONDS + 2)
        marked = tool.run("prune", "--keep-last", "1").report["plan"]
        time.sleep(GRACE_SECONDS + 2)
        deleted = tool.run("prune", "--keep-last", "1").report["plan"]
        check(marked["condemn"] and deleted["delete"] and deleted["bytes_now"] > 0, (marked, deleted))
        check(len(tool.run("snapshots").report["snapshots"]) == 1, "not one snapshot is left")
        tool.run("verify", "--read-data")
    with sentences("the upload of a run that was killed long ago is found and given up"):
        key = f"matrix/packs/ab/ab{secrets.token_hex(15)}.zst"
        play.store.request("POST", f"/{PLAIN}/{key}", {"uploads": ""})
        time.sleep(GRACE_SECONDS + 2)
        report = tool.run("prune").report
        check(len(report["plan"]["abort"]) == 1 and not report["problems"], report)
        check(key.encode() not in play.store.request("GET", f"/{PLAIN}", {"uploads": ""}), "it is still there")


def a_thief(play: Play, sentences: Sentences) -> None:
    """Two roles, Object Lock, and a restore from before the break-in."""
    store, lock = play.store, "object_lock: {mode: governance, days: 2}\n"
    tool = play.tool(store.roles["writer"], LOCKED, "writer", lock)
    with sentences("the writer of deploy/policies makes a repository and backs up, and doctor has nothing to say of its rights", essential=True):
        tool.run("init", "--unencrypted")
        for _ in range(2):
            held = tool.run("backup").report["object_lock"]
            check(held["failed"] == 0, held)
        found = {each["name"]: each for each in tool.run("doctor", expect=(0, 3)).report["checks"]}
        check(all(found[name]["verdict"] == "ok" for name in ("rights", "versions", "object lock")), found)
    before, then = _moment(store, LOCKED)
    with sentences("with the writer's key nothing is deleted, by name, by version or past a retention"):
        writer = store.roles["writer"]
        for key, version in before:
            for attempt in (lambda: writer.delete(LOCKED, key), *_by_version(writer, LOCKED, key, version)):
                check(not _succeeds(attempt), f"{key} was deleted")
    with sentences("with the pruner's key everything is hidden, and what is overwritten is garbage; held versions stay"):
        pruner = store.roles["pruner"]
        for key, version in before:
            gone = [_succeeds(attempt) for attempt in _by_version(pruner, LOCKED, key, version)]
            check(not any(gone) or "/probe/" in key, f"{key} was deleted for good")
            store.roles["writer"].put(LOCKED, key, b"garbage")
            pruner.delete(LOCKED, key)
        check(not store.list(LOCKED, "matrix/"), "something is still to be seen")
        play.tool(store, LOCKED, "today").run("snapshots", expect=(10,))
    with sentences("with the reader's key, --at brings everything back from before the break-in"):
        reader = play.tool(store.roles["reader"], LOCKED, "reader")
        check(len(reader.run("snapshots", "--at", then).report["snapshots"]) == 2, "not two snapshots")
        reader.run("verify", "--read-data", "--at", then)
        play.restored(reader, "--at", then)


def an_owner(play: Play, sentences: Sentences) -> None:
    """Compliance, against whoever has every key but the identity."""
    store = play.store
    identity, sealing = play.keys("owned")
    tool = play.tool(store, OWNED, "owner", f"{sealing}object_lock: {{mode: compliance, days: 1}}\n")
    with sentences("in compliance mode its owner deletes nothing that is held, and a sealed repository comes back from before"):
        tool.run("init")
        tool.run("backup")
        before, then = _moment(store, OWNED)
        for key, version in before:
            gone = [_succeeds(attempt) for attempt in _by_version(store, OWNED, key, version)]
            check(not any(gone), f"{key} was deleted for good")
            store.put(OWNED, key, b"garbage")
            store.delete(OWNED, key)
        tool.run("verify", "--read-data", f"--identity={identity}", "--at", then)
        play.restored(tool, f"--identity={identity}", "--at", then)


def _moment(store: S3, bucket: str) -> tuple[list[tuple[str, str]], str]:
    """What is there now, and a time of which the store says the same: its times are whole seconds."""
    before = store.versions(bucket, "matrix/")
    check(len({key.split("/")[1] for key, _ in before} & {"packs", "index", "snapshots"}) == 3, before)
    time.sleep(2)
    then = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    time.sleep(2)
    return before, then


def _by_version(key: S3, bucket: str, name: str, version: str) -> list[Callable[[], None]]:
    return [lambda: key.delete_version(bucket, name, version), lambda: key.delete_version(bucket, name, version, BYPASS)]


def _succeeds(attempt: Callable[[], None]) -> bool:
    try:
        attempt()
    except RigError:
        return False
    return True
