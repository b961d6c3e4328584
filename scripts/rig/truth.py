"""What snapshots must bring back: taken of a homeserver that stands still, held against a restore of the snapshot.

A truth is the digest of the database and every file of the media store. `Truths` keeps those of the snapshots that count, restores
a snapshot into a scratch database and an empty folder, and says whether both are the same. One-time keys never travel and are left
out. Also here: a repository with a grace period of seconds, which nothing but a rig ever makes.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import threading

from compare import lost, tree
from ground import Ground, RigError
from homeserver import Installation
from s3 import S3
from postgres import Postgres
from tool import Run, Tool

KEY = "matrix/repository.json"
NEVER_TRAVEL = ("e2e_one_time_keys_json",)


def hasten(minio: S3, bucket: str, grace: int, window: int) -> None:
    """Rewrites repository.json of an empty repository, so that what is marked may go after some seconds."""
    info = json.loads(minio.get(bucket, KEY))
    info["grace_seconds"], info["window_seconds"] = grace, window
    minio.put(bucket, KEY, json.dumps(info).encode())


class Truths:
    """By snapshot id; several threads may restore at once."""

    def __init__(self, ground: Ground, postgres: Postgres, installation: Installation) -> None:
        self.ground, self.postgres, self.installation = ground, postgres, installation
        self.of: dict[str, tuple[dict[str, str], dict[str, str]]] = {}
        self._lock = threading.Lock()
        self._count = 0

    def now(self) -> tuple[dict[str, str], dict[str, str]]:
        """Of the homeserver as it is."""
        return (
            self.postgres.digest(self.installation.database, leave_out=NEVER_TRAVEL),
            tree(self.installation.media_store, owners=False),
        )

    def restore(self, tool: Tool, snapshot: str) -> Run:
        """Restores; whoever restores to compare calls `check`."""
        return self._restored(tool, snapshot, None)

    def check(self, tool: Tool, snapshot: str) -> Run:
        """Restores a snapshot and compares; a difference is an error. A run that failed is given back as it is."""
        return self._restored(tool, snapshot, self.of[snapshot])

    def _restored(self, tool: Tool, snapshot: str, truth: tuple[dict[str, str], dict[str, str]] | None) -> Run:
        with self._lock:
            self._count += 1
            name = f"restored{self._count}"
        folder, postgres = self.ground.path / name, self.postgres
        postgres.create_database(name, self.installation.role)
        try:
            target = f"synapse=dbname={name} host={postgres.socket} port={postgres.port} user={postgres.superuser}"
            run = tool.run("restore", snapshot, "--to", folder, "--database", target, expect=(0, 1))
            if truth is not None and run.exit_code == 0:
                digests, files = truth
                if postgres.digest(name, leave_out=NEVER_TRAVEL) != digests:
                    raise RigError(f"snapshot {snapshot}: the restored database is another")
                media = folder / self.installation.media_store.relative_to("/")
                found = tree(media, owners=False)
                if gone := lost(files, found) + lost(found, files):
                    raise RigError(f"snapshot {snapshot}: restored media differ: {gone[:3]}")
            return run
        finally:
            postgres.drop_database(name)
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder)
