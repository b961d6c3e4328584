"""Are two folders the same? Every file, link and special file below a folder, with what a restore must bring back.

The database has its own digest in postgres.py, what clients see is in story.py.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import stat
from collections.abc import Iterable

LOGS_AND_PIDS = (".log", ".pid")


def tree(root: pathlib.Path, owners: bool) -> dict[str, str]:
    """Path below `root` -> kind, mode, (owner,) and content. Folders count only through what is in them."""
    found: dict[str, str] = {}
    for folder, _, names in os.walk(os.fsencode(root)):
        for name in names:
            path = os.path.join(folder, name)
            found[os.fsdecode(os.path.relpath(path, os.fsencode(root)))] = _describe(path, owners)
    for folder, names, _ in os.walk(os.fsencode(root)):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                found[os.fsdecode(os.path.relpath(path, os.fsencode(root)))] = _describe(path, owners)
    return {name: text for name, text in found.items() if not name.endswith(LOGS_AND_PIDS)}


def _describe(path: bytes, owners: bool) -> str:
    info = os.lstat(path)
    owner = f" {info.st_uid}:{info.st_gid}" if owners else ""
    if stat.S_ISLNK(info.st_mode):
        return f"link to {os.readlink(path)!r}"
    if not stat.S_ISREG(info.st_mode):
        return f"special {stat.S_IFMT(info.st_mode):o}"
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"file {stat.S_IMODE(info.st_mode):04o}{owner} {info.st_size} {digest}"


def lost(before: dict[str, str], after: dict[str, str], may_be_missing: Iterable[str] = ()) -> list[str]:
    """What was there before and is not, or is different, after."""
    allowed = set(may_be_missing)
    return [
        f"{name!r}: {text} became {after.get(name, 'nothing')}"
        for name, text in sorted(before.items())
        if after.get(name) != text and not (name in allowed and name not in after)
    ]
