"""What scripts/rescue gives back from a mirror on disk must be what `restore` gives back, byte for byte.

The mirror is made as a user would make it, with a plain S3 client; from then on neither the tool nor the bucket takes part.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from compare import lost, tree
from ground import ROOT, RigError
from minio import Minio

if TYPE_CHECKING:
    from e2e import Sentences, Stage


def mirror(minio: Minio, bucket: str, prefix: str, folder: pathlib.Path) -> pathlib.Path:
    """Every object below the prefix as a file below the folder."""
    for key in minio.list(bucket, f"{prefix}/"):
        path = folder / key[len(prefix) + 1 :]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(minio.get(bucket, key))
    return folder


def rescue(
    stage: Stage, folder: pathlib.Path, *words: str | os.PathLike[str], before: tuple[str | os.PathLike[str], ...] = (), expect: int = 0
) -> subprocess.CompletedProcess[bytes]:
    """Runs scripts/rescue with nothing but PostgreSQL's programs and the system's in reach; `before` stands before the folder."""
    command = [sys.executable, ROOT / "scripts" / "rescue", "--scratch", stage.ground.path, *before, folder, *words]
    environment = {**stage.tool.environment, **stage.postgres.environment}
    done = subprocess.run([str(word) for word in command], env=environment, capture_output=True, check=False)
    if done.returncode != expect:
        raise RigError(f"rescue ended with {done.returncode}, not {expect}: {done.stderr.decode(errors='replace')[-2000:]}")
    return done


def all_rescues(stage: Stage, sentences: Sentences, bucket: str, prefix: str) -> None:
    """The newest snapshot, by restore and by rescue; then with one index and one hint gone."""
    folder = stage.ground.path / "mirror"
    restored, rescued = stage.ground.path / "restored", stage.ground.path / "rescued"
    postgres, role = stage.postgres, stage.installation.role
    owners = os.getuid() == 0
    with sentences("the rescue script lists the snapshots of a mirror"):
        mirror(stage.minio, bucket, prefix, folder)
        newest = stage.snapshots()[-1]["id"]
        listed = rescue(stage, folder, "list").stdout.decode()
        if not listed.strip().splitlines()[-1].startswith(newest):
            raise RigError(f"the last line should be {newest}: {listed}")
    with sentences("the rescue script gives what restore gives: files, modes, owners, and every table"):
        for name in ("by_restore", "by_rescue"):
            postgres.create_database(name, role)
        conninfo = f"host={postgres.socket} port={postgres.port} user=postgres dbname="
        stage.tool.run("restore", newest, "--to", restored, "--database", f"synapse={conninfo}by_restore", expect=(0, 3))
        rescue(stage, folder, "restore", newest, "--to", rescued, "--database", f"synapse={conninfo}by_rescue")
        wrong = lost(tree(restored, owners), tree(rescued, owners)) + lost(tree(rescued, owners), tree(restored, owners))
        if wrong:
            raise RigError("\n".join(wrong[:10]))
        expected, found = postgres.digest("by_restore"), postgres.digest("by_rescue")
        if expected != found:
            raise RigError(f"these differ: {[name for name in {*expected, *found} if expected.get(name) != found.get(name)]}")
        postgres.drop_database("by_rescue")
        shutil.rmtree(rescued)
    with sentences("the rescue script needs no index"):
        shutil.rmtree(folder / "index")
        rescue(stage, folder, "restore", newest, "--to", rescued, "--only", "config,media")
        wrong = lost(tree(restored, owners), tree(rescued, owners))
        if wrong:
            raise RigError("\n".join(wrong[:10]))
        shutil.rmtree(rescued)
    with sentences("the rescue script names what a damaged pack takes with it, and brings back the rest"):
        pack = max((folder / "packs").rglob("*.zst*"), key=lambda path: path.stat().st_size)
        body = bytearray(pack.read_bytes())
        body[len(body) // 3] ^= 1
        pack.write_bytes(body)
        done = rescue(stage, folder, "restore", newest, "--to", rescued, "--only", "config,media", expect=3)
        left = len(lost(tree(restored, owners), tree(rescued, owners)))
        named = done.stderr.count(b"problem: ")
        if not 0 < left <= named:
            raise RigError(f"{left} files differ, {named} are named")
    postgres.drop_database("by_restore")
    shutil.rmtree(rescued, ignore_errors=True)
    shutil.rmtree(restored, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
