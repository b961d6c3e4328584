"""The tool under test: where its binary is, how it is run, and what it reported, measured from outside as well.

Every run is made with `--json`; standard output must be JSON lines with exactly one report, the last (docs: exit codes and JSON),
and a run that breaks this rule is an error of its own.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Sequence

import postgres
from ground import ROOT, Ground, RigError
from homeserver import Installation
from s3 import S3

TOOL_SECONDS = 900


def binary() -> pathlib.Path:
    """The release binary, or the one that SYNAPSE_BACKUP names."""
    if os.environ.get("SYNAPSE_BACKUP"):
        return pathlib.Path(os.environ["SYNAPSE_BACKUP"]).resolve()
    return ROOT / (os.environ.get("CARGO_TARGET_DIR") or "target") / "release" / "synapse-backup"


def settings(minio: S3, installation: Installation, repository: str, more: str = "") -> str:
    """The settings file for an installation and a repository in a store."""
    return (
        f"repository: {repository}\n"
        f"s3: {{endpoint: '{minio.url}', region: us-east-1, path_style: true}}\n"
        f"synapse:\n  config: {json.dumps([str(path) for path in installation.config])}\n"
        f"  working_directory: {json.dumps(str(installation.working_directory))}\n{more}"
    )


@dataclasses.dataclass
class Run:
    """What one run of the tool did."""

    command: str
    exit_code: int
    report: dict
    lines: list[dict]  # everything on standard output but the report
    stderr: str
    seconds: float
    cpu_seconds: float  # the tool and its children, not the servers
    peak_bytes: int  # the largest resident set of the tool or one of its children

    @property
    def requests(self) -> int:
        """Requests to the store, of all kinds."""
        return sum(self.report.get("requests", {}).values())

    def problems(self) -> dict[str, str]:
        """Item -> kind of the problem."""
        return {problem["item"]: problem["kind"] for problem in self.report.get("problems", [])}

    def explain(self) -> str:
        """Why it failed, for a person."""
        error = self.report.get("error") or {}
        words = [str(error[key]) for key in ("message", "cause", "hint") if error.get(key)]
        words += [f"{kind}: {item}" for item, kind in list(self.problems().items())[:10]]
        return "; ".join(words) or self.stderr.strip()[-1000:] or "it said nothing"


class Tool:
    """The binary with its settings file and credentials."""

    def __init__(self, ground: Ground, minio: S3, config: str, name: str = "tool") -> None:
        self.ground, self.name = ground, name
        self.binary = binary()
        if not self.binary.exists():
            raise RigError(f"{self.binary} does not exist: cargo build --release, or name a binary in SYNAPSE_BACKUP")
        self.folder = ground.folder(name)
        self.config = self.folder / "config.yaml"
        self.config.write_text(config)
        # Nothing of the caller's environment may choose another repository or another database.
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "PG", "SYNAPSE_BACKUP_"))}
        path = f"{clean.get('PATH', '/usr/bin:/bin')}:{postgres.binaries()}"
        self.environment = {**clean, **minio.environment, "HOME": str(self.folder), "PATH": path}
        self.count = 0
        self.sessions: set[int] = set()  # of every run so far; a session bears the number of the process that began it

    def begin(self, *arguments: str | os.PathLike[str], json_lines: bool = True) -> Running:
        """Starts the tool and does not wait."""
        self.count += 1
        word = next((str(a) for a in arguments if not str(a).startswith("-")), "run")
        base = self.ground.logs / f"{self.name}-{self.count:02}-{word}"
        argv = [self.binary, "-c", self.config, *(["--json"] if json_lines else []), *arguments]
        running = Running(argv, base, self.environment, str(self.folder), json_lines, word)
        self.sessions.add(running.process.pid)
        return running

    def run(self, *arguments: str | os.PathLike[str], expect: Sequence[int] = (0,), seconds: float = TOOL_SECONDS) -> Run:
        """Runs the tool to its end; an exit code that is not expected is an error."""
        return self.begin(*arguments).finish(expect, seconds)

    def cat(self, snapshot: str, item: str) -> bytes:
        """The bytes of one item."""
        running = self.begin("cat", snapshot, item, json_lines=False)
        running.finish((0,), TOOL_SECONDS)
        return running.stdout.read_bytes()


class Running:
    """A run of the tool that has not ended yet."""

    def __init__(self, argv: list, base: pathlib.Path, environment: dict[str, str], cwd: str, json_lines: bool, word: str) -> None:
        self.word, self.json_lines = word, json_lines
        self.argv = [str(a) for a in argv]
        self.stdout, self.stderr = base.with_suffix(".json"), base.with_suffix(".log")
        self.begun = time.monotonic()
        with self.stdout.open("wb") as out, self.stderr.open("wb") as log:
            self.process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=log, env=environment, cwd=cwd, start_new_session=True
            )

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the tool alone."""
        self.process.send_signal(number)

    def finish(self, expect: Sequence[int], seconds: float) -> Run:
        """Waits for the end and reads the report."""
        try:
            status, usage = self._wait(seconds)
        except BaseException:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise
        took = time.monotonic() - self.begun
        code = os.waitstatus_to_exitcode(status)
        self.process.returncode = code  # reaped by us
        stderr = self.stderr.read_text(errors="replace")
        lines = self._lines() if self.json_lines and code >= 0 else []
        report = lines.pop() if lines else {}
        done = Run(self.word, code, report, lines, stderr, took, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
        if code not in expect:
            raise RigError(f"{self.word}: exit code {code}, not {' or '.join(map(str, expect))}: {done.explain()} (log: {self.stderr})")
        if self.json_lines and code >= 0 and report.get("exit_code") != code:
            raise RigError(f"{self.word}: exit code {code}, but the report says {report.get('exit_code')}")
        return done

    def _wait(self, seconds: float) -> tuple[int, object]:
        while True:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                return status, usage
            if time.monotonic() - self.begun > seconds:
                raise RigError(f"{self.word}: still running after {seconds:.0f} s (log: {self.stderr})")
            time.sleep(0.005)

    def _lines(self) -> list[dict]:
        text = self.stdout.read_text(errors="surrogateescape")
        try:
            lines = [json.loads(line) for line in text.splitlines()]
        except ValueError as error:
            raise RigError(f"{self.word}: standard output is not JSON lines: {error} (see {self.stdout})") from error
        reports = [number for number, line in enumerate(lines) if line.get("type") == "report"]
        if reports != [len(lines) - 1]:
            raise RigError(f"{self.word}: one report as the last line was promised, got {len(reports)} (see {self.stdout})")
        return lines
