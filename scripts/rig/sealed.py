"""A sealed repository beside the real Synapse: who can read it, by the tool, by age and zstd alone, and by scripts/rescue.

Synapse stands still, so that what comes back can be compared with what is there. The server has a recipient and a writer key; the identity
lies in a file that only some calls are told about, as if it came out of a safe.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
from typing import TYPE_CHECKING

from compare import lost, tree
from ground import RigError
from rescue import mirror, rescue
from tool import Tool, settings

if TYPE_CHECKING:
    from e2e import Sentences, Stage

PREFIX = "matrix/sealed"
NO_KEY = 12


def sealed_repository(stage: Stage, sentences: Sentences, bucket: str) -> None:
    """From `init` to the rescue of its mirror."""
    from e2e import check, same_database

    folder, installation, postgres = stage.ground.folder("sealed"), stage.installation, stage.postgres
    identity = folder / "identity.txt"
    recipient = _keys(identity)
    more = f"encryption: {{recipients: [{recipient}], writer_key_file: {folder / 'writer.key'}}}\n"
    tool = Tool(stage.ground, stage.minio, settings(stage.minio, installation, f"s3://{bucket}/{PREFIX}", more), "tool-sealed")
    key = f"--identity={identity}"
    with sentences("a sealed repository takes two backups, and the second sends hardly anything", essential=True):
        tool.run("init")
        first, second = tool.run("backup"), tool.run("backup")
        check(second.report["media"]["new"] == 0 and second.requests <= 30, second.report)
        check(second.report["sent_bytes"] < first.report["sent_bytes"] / 10, (first.report["sent_bytes"], second.report["sent_bytes"]))
        names = [name for name in stage.minio.list(bucket, f"{PREFIX}/") if not name.endswith("/repository.json")]
        check(all(name.endswith(".age") for name in names), [name for name in names if not name.endswith(".age")])
    copy, restored = stage.ground.path / "sealed-copy", stage.ground.path / "sealed-restored"
    conninfo = f"host={postgres.socket} port={postgres.port} user=postgres dbname="
    with sentences("without the identity, restore, cat, drill and verify --read-data end with 12 and write nothing"):
        tool.run("restore", "latest", "--to", copy, "--database", "synapse=skip", expect=(NO_KEY,))
        tool.run("verify", "--read-data", expect=(NO_KEY,))
        tool.run("drill", "--to", stage.ground.folder("sealed-scratch", mode=0o711), "--media=hash-only", expect=(NO_KEY,))
        refused = tool.begin("cat", "latest", f"config{installation.signing_key}", json_lines=False)
        refused.finish((NO_KEY,), 60)
        check(not refused.stdout.read_bytes() and not copy.exists(), "something was written")
        tool.run("snapshots")
        tool.run("verify")
    with sentences("with the identity every byte is whole, and a restore is identical: files, owners, tables"):
        tool.run("verify", "--read-data", key)
        postgres.create_database("by_restore", installation.role)
        tool.run("restore", "latest", key, "--to", restored, "--database", f"synapse={conninfo}by_restore")
        owners = os.getuid() == 0
        missing = lost(tree(installation.root, owners), tree(pathlib.Path(f"{restored}{installation.root}"), owners), installation.loose)
        check(not missing, "\n".join(missing[:10]))
        same_database(stage, postgres.digest(installation.database), "by_restore")
    with sentences("a drill of it passes, and a prune that has no identity condemns what nobody needs"):
        tool.run("drill", key, "--to", stage.ground.path / "sealed-scratch", "--media=hash-only")
        report = tool.run("prune", "--keep-last", "1", "--yes-really").report
        check(len(tool.run("snapshots").report["snapshots"]) == 1, report)
        tool.run("verify", "--read-data", key)
    _by_hand(stage, sentences, bucket, identity)
    with sentences("scripts/rescue gives of its mirror what restore gives"):
        there = mirror(stage.minio, bucket, PREFIX, stage.ground.path / "sealed-mirror")
        rescued = stage.ground.path / "sealed-rescued"
        postgres.create_database("by_rescue", installation.role)
        rescue(stage, there, "restore", "latest", "--to", rescued, "--database", f"synapse={conninfo}by_rescue", before=("--identity", identity))
        wrong = lost(tree(restored, owners), tree(rescued, owners)) + lost(tree(rescued, owners), tree(restored, owners))
        check(not wrong, "\n".join(wrong[:10]))
        check(postgres.digest("by_restore") == postgres.digest("by_rescue"), "the databases differ")
        rescue(stage, there, "list", expect=2)
    for database in ("by_restore", "by_rescue"):
        postgres.drop_database(database)
    for leftover in (copy, restored, rescued, there):
        shutil.rmtree(leftover, ignore_errors=True)


def _keys(identity: pathlib.Path) -> str:
    """A new identity in this file; gives its recipient."""
    subprocess.run(["age-keygen", "-o", identity], check=True, capture_output=True)
    return subprocess.run(["age-keygen", "-y", identity], check=True, capture_output=True, text=True).stdout.strip()


def _by_hand(stage: Stage, sentences: Sentences, bucket: str, identity: pathlib.Path) -> None:
    with sentences("age -d | zstd -d opens every pack by hand, and the writer key opens those of metadata alone"):
        packs = [name for name in stage.minio.list(bucket, f"{PREFIX}/packs/")]
        there, opened = stage.ground.path / "pack.age", {"identity": 0, "writer key": 0}
        signing_key = stage.installation.signing_key.read_bytes()
        found = False
        for name in packs:
            there.write_bytes(stage.minio.get(bucket, name))
            for what, key in (("identity", identity), ("writer key", identity.parent / "writer.key")):
                plain = subprocess.run(["age", "-d", "-i", key, there], capture_output=True, check=False)
                if plain.returncode:
                    continue
                blobs = subprocess.run(["zstd", "-dc"], input=plain.stdout, capture_output=True, check=True).stdout
                opened[what] += 1
                found |= what == "identity" and signing_key in blobs
                if what == "writer key" and signing_key in blobs:
                    raise RigError(f"the writer key opens content: {name}")
        there.unlink()
        if opened["identity"] != len(packs) or not 0 < opened["writer key"] < len(packs) or not found:
            raise RigError(f"{opened} of {len(packs)} packs; the signing key was {'' if found else 'not '}found")
