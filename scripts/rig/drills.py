"""The drill beside a real Synapse: the newest snapshot is brought back, a second Synapse is started on it, and nothing of both remains.

Then the drill itself is ended in the two ways that it cannot choose, by Ctrl-C and by `kill -9`.
"""

from __future__ import annotations

import os
import pathlib
import signal
import time
from typing import TYPE_CHECKING

from ground import RigError
from homeserver import PYTHON

if TYPE_CHECKING:
    from e2e import Sentences, Stage

WAIT_SECONDS = 60


def all_drills(stage: Stage, sentences: Sentences) -> None:
    """A whole drill, and two that are ended."""
    scratch = stage.ground.folder("scratch", mode=0o711)
    words = ("drill", "--to", scratch)
    with sentences("a drill restores the newest snapshot, starts a Synapse on it, and every check is good"):
        run = stage.tool.run(*words, "--start-synapse", f"{PYTHON} -m synapse.app.homeserver")
        checks = {check["name"]: check for check in run.report["checks"]}
        wanted = {"synapse: rows", "synapse: sequences", "synapse: one-time keys", "configuration", "signing key", "media"}
        wanted |= {"start: health", "start: versions", "start: keys", "start: old event", "start: medium"}
        _check(wanted <= set(checks), f"checks are missing: {wanted - set(checks)}")
        _check(run.report["passed"] and run.report["recorded"], run.report)
        _nothing(scratch)
    with sentences("snapshots and show tell when the snapshot was drilled"):
        newest = stage.snapshots()[-1]
        _check(newest["drilled"]["passed"], newest)
        _check(stage.tool.run("show", "latest").report["drilled"] == newest["drilled"], newest)
    with sentences("a drill into a scratch database of the same server drops it again"):
        postgres = stage.postgres
        target = f"synapse=dbname=drill host={postgres.socket} port={postgres.port} user=postgres"
        stage.tool.run(*words, "--media=hash-only", "--database", target)
        _check("drill" not in postgres.sql("SELECT datname FROM pg_database").split(), "the scratch database is still there")
        _nothing(scratch)
    with sentences("Ctrl-C ends a drill, its PostgreSQL, and its scratch folder"):
        running = stage.tool.begin(*words)
        _wait(lambda: _servers(scratch), "no private PostgreSQL was started")
        running.signal(signal.SIGINT)
        running.finish((130,), WAIT_SECONDS)
        _wait(lambda: not _servers(scratch), "the private PostgreSQL is still running")
        _nothing(scratch)
    with sentences("after kill -9 the private PostgreSQL ends by itself, and the next drill sweeps the folder"):
        running = stage.tool.begin(*words)
        _wait(lambda: _servers(scratch), "no private PostgreSQL was started")
        running.signal(signal.SIGKILL)
        running.finish((-signal.SIGKILL,), WAIT_SECONDS)
        _wait(lambda: not _servers(scratch), "the private PostgreSQL is still running")
        _check(len(list(scratch.iterdir())) == 1, "a killed drill cannot have removed its folder")
        stage.tool.run(*words, "--media=sample:50")
        _nothing(scratch)


def _servers(scratch: pathlib.Path) -> list[str]:
    """Processes whose arguments name a ready cluster below the folder."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            arguments = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if os.fsencode(scratch) + b"/synapse-backup-drill-" in arguments and b"-D" in arguments.split(b"\0"):
            found.append(entry.name)
    return found


def _nothing(scratch: pathlib.Path) -> None:
    _check(not list(scratch.iterdir()), f"left over: {[path.name for path in scratch.iterdir()]}")
    _check(not _servers(scratch), "a server is still running")


def _wait(condition, otherwise: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        _check(time.monotonic() < deadline, otherwise)
        time.sleep(0.02)


def _check(truth: object, otherwise: object) -> None:
    if not truth:
        raise RigError(str(otherwise))
