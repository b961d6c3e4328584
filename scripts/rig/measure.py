"""A stopwatch for pipelines: wall time, and CPU and memory of each process of its own.

The kernel's own numbers, not samples, where there are any: a process that has ended is looked at before it is waited for, when
/proc still tells its CPU time and that of its children. Peak memory is gone by then, hence sampled (the kernel's high-water mark, so
that only what happens after the last look is missed). Nothing here knows the contestants.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence

from ground import RigError

TICKS = os.sysconf("SC_CLK_TCK")
SAMPLE_SECONDS = 0.02


@dataclasses.dataclass
class Usage:
    """What the processes of one or several pipelines took."""

    wall: float = 0.0
    own_cpu: float = 0.0  # of the program that is measured, user and system
    helper_cpu: float = 0.0  # of what it started or was fed by: pg_dump, pg_restore, psql
    own_memory: int = 0  # the largest resident set of the program itself
    all_memory: int = 0  # the largest sum of the resident sets of all processes at one moment

    def __add__(self, other: Usage) -> Usage:
        """One after the other."""
        return Usage(
            self.wall + other.wall,
            self.own_cpu + other.own_cpu,
            self.helper_cpu + other.helper_cpu,
            max(self.own_memory, other.own_memory),
            max(self.all_memory, other.all_memory),
        )


def pipeline(commands: Sequence[Sequence[str | os.PathLike[str]]], own: int, env: Mapping[str, str], log: pathlib.Path) -> Usage:
    """Runs commands as a pipeline; `own` is the place of the program that is measured. All must succeed."""
    with log.open("ab") as output:
        output.write(f"$ {' | '.join(' '.join(map(str, command)) for command in commands)}\n".encode())
        output.flush()
        begun = time.monotonic()
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for place, command in enumerate(commands):
                upstream = processes[-1].stdout if processes else subprocess.DEVNULL
                last = place == len(commands) - 1
                processes.append(subprocess.Popen(command, stdin=upstream, stdout=output if last else subprocess.PIPE, stderr=output, env=env))
                if place:
                    upstream.close()
            usage = _wait(processes, own)
        except BaseException:
            for process in processes:
                process.kill()
                process.wait()
            raise
    usage.wall = time.monotonic() - begun
    failed = [str(command[0]) for command, process in zip(commands, processes, strict=True) if process.returncode != 0]
    if failed:
        raise RigError(f"failed: {', '.join(failed)} (log: {log})")
    return usage


def _wait(processes: Sequence[subprocess.Popen[bytes]], own: int) -> Usage:
    with _Memory([process.pid for process in processes], processes[own].pid) as memory:
        usage = Usage()
        for place, process in enumerate(processes):
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            itself, children = _cpu(process.pid)
            process.wait()
            usage.own_cpu += itself if place == own else 0.0
            usage.helper_cpu += children if place == own else itself + children
    usage.own_memory, usage.all_memory = memory.own, memory.all
    return usage


def _cpu(pid: int) -> tuple[float, float]:
    """CPU seconds of an ended process, and of its children that it waited for."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system, children_user, children_system = (int(field) / TICKS for field in fields[11:15])
    return user + system, children_user + children_system


class _Memory:
    """Samples resident memory while it is open."""

    def __init__(self, pids: Sequence[int], own: int) -> None:
        self._pids, self._own = pids, own
        self.own = self.all = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> _Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            self.own = max(self.own, _status(self._own, "VmHWM:"))
            self.all = max(self.all, sum(_status(pid, "VmRSS:") for pid in _family(self._pids)))


def _family(pids: Sequence[int]) -> list[int]:
    found = list(pids)
    for pid in pids:
        for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += _family([int(child) for child in task.read_text().split()])
    return found


def _status(pid: int, key: str) -> int:
    with contextlib.suppress(OSError):
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1]) * 1024
    return 0
