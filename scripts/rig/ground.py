"""The ground everything stands on: one temporary folder, the processes started in it, and their end.

A `Ground` is a context manager. Whatever happens inside it (an error, Ctrl-C, SIGTERM), its processes are ended, newest first, and
its folder is removed; after an error the folder is kept and its path printed, because the logs are in it. Nothing here knows
PostgreSQL, MinIO or Synapse.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(
    os.environ.get("SYNAPSE_BACKUP_CACHE")
    or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "synapse-backup"
)
PR_SET_PDEATHSIG = 1
STOP_SECONDS = 20
# SIGINT is ignored in background jobs of a shell unless somebody asks for it.
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class RigError(Exception):
    """Something the rig needs did not work; the text says what and where the log is."""


def free_port() -> int:
    """A TCP port of the loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def server_user() -> str | None:
    """Who runs PostgreSQL, which refuses root: None is ourselves, else the first of these users that exists."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise RigError("running as root, and neither the user postgres nor nobody exists to run PostgreSQL")


def wait_for(what: str, ready: Callable[[], bool], seconds: float, process: subprocess.Popen[bytes] | None, log: pathlib.Path) -> None:
    """Polls until `ready`, and fails with the end of the log when the process dies or the time is over."""
    deadline = time.monotonic() + seconds
    while not ready():
        dead = process is not None and process.poll() is not None
        if dead or time.monotonic() > deadline:
            tail = log.read_text(errors="replace").splitlines()[-15:] if log.exists() else []
            reason = "ended" if dead else f"was not ready after {seconds:.0f} s"
            raise RigError(f"{what} {reason}; the end of {log}:\n  " + "\n  ".join(tail))
        time.sleep(0.05)


def _die_with_parent() -> None:
    # A killed rig must not leave servers behind: the kernel ends them with the thread that started them.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Ground:
    """A temporary folder and the processes that live in it."""

    def __init__(self, name: str, keep: bool = False) -> None:
        self.path = pathlib.Path(tempfile.mkdtemp(prefix=f"synapse-backup-{name}-"))
        self.path.chmod(0o711)  # the user of PostgreSQL must get through
        self.logs = self.path / "logs"
        self.logs.mkdir()
        self.keep = keep
        self._processes: list[tuple[str, subprocess.Popen[bytes], int]] = []

    def __enter__(self) -> Ground:
        self._handlers = {number: signal.signal(number, self._interrupt) for number in ENDINGS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        for number in ENDINGS:
            signal.signal(number, signal.SIG_IGN)
        try:
            for _, process, stop_signal in reversed(self._processes):
                stop(process, stop_signal)
            interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
            if self.keep or (kind is not None and not interrupted and not issubclass(kind, SystemExit)):
                print(f"logs and data are kept in {self.path}", file=sys.stderr)
            else:
                shutil.rmtree(self.path, ignore_errors=True)
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    @staticmethod
    def _interrupt(number: int, _frame: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    def folder(self, name: str, owner: str | None = None, mode: int = 0o755) -> pathlib.Path:
        """A new folder below the ground, owned by `owner` if given."""
        path = self.path / name
        path.mkdir(parents=True)
        path.chmod(mode)
        if owner is not None:
            shutil.chown(path, owner, pwd.getpwnam(owner).pw_gid)
        return path

    def start(
        self,
        name: str,
        argv: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str] | None = None,
        cwd: pathlib.Path | None = None,
        user: str | None = None,
        stop_signal: int = signal.SIGTERM,
    ) -> subprocess.Popen[bytes]:
        """Starts a server in its own session (so that Ctrl-C reaches us first), its output in logs/<name>.log."""
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=cwd or self.path,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                preexec_fn=_die_with_parent,
                **as_user(user),
            )
        self._processes.append((name, process, stop_signal))
        return process

    def log(self, name: str) -> pathlib.Path:
        """Where the output of the process `name` goes."""
        return self.logs / f"{name}.log"


def as_user(user: str | None) -> dict[str, object]:
    """The arguments of `subprocess` that run a command as another user."""
    if user is None:
        return {}
    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def stop(process: subprocess.Popen[bytes], stop_signal: int = signal.SIGTERM) -> None:
    """Ends a process and waits for it; kills it if it will not go."""
    if process.poll() is not None:
        return
    process.send_signal(stop_signal)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
