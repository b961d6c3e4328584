"""A private PostgreSQL cluster: its own folder, a free port, a unix socket, no durability, gone with the ground.

The superuser comes in over the socket without a password; everybody else needs one, over the socket as well, so that a password that
was read wrongly from a configuration fails here as it would in production. Digests of whole databases live here too: they are
what "the restored database is identical" means in the demo and the tests.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
import shutil
import signal
import subprocess

from ground import Ground, RigError, as_user, free_port, server_user, wait_for

SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "max_connections": "100",
    "autovacuum_naptime": "5s",
    "timezone": "UTC",
}

# Order-independent and sensitive to duplicates: a sum over 128 bits of hash of every row.
DIGEST = """
SELECT count(*)::text || ':' || coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) || ':'
       || coalesce(sum(hashtextextended(t::text, 1)::numeric), 0) FROM {table} AS t"""
TABLES = """
SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = '{kind}' AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_' ORDER BY 1"""


def binaries() -> pathlib.Path:
    """The folder of the newest PostgreSQL on this machine (or POSTGRES_BIN)."""
    found = [pathlib.Path(os.environ["POSTGRES_BIN"])] if os.environ.get("POSTGRES_BIN") else []
    installed = [*pathlib.Path("/usr/lib/postgresql").glob("*/bin"), *pathlib.Path("/").glob("usr/pgsql-*/bin")]
    found += sorted(installed, key=lambda path: int(re.findall(r"\d+", str(path))[-1]), reverse=True)
    if shutil.which("initdb"):
        found.append(pathlib.Path(shutil.which("initdb") or "").parent)
    for path in found:
        if (path / "initdb").exists() and (path / "pg_dump").exists():
            return path
    raise RigError("no PostgreSQL server found: run scripts/setup postgres")


class Postgres:
    """A running private cluster."""

    superuser = "postgres"

    def __init__(self, ground: Ground, name: str = "postgres") -> None:
        self.bin = binaries()
        self.ground = ground
        self.port = free_port()
        user = server_user()
        self.data = ground.folder(name, owner=user, mode=0o700)
        self.socket = ground.folder(f"{name}-run", owner=user, mode=0o755)
        initdb = [self.bin / "initdb", "-D", self.data, "-U", self.superuser, "-A", "trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        made = subprocess.run(initdb, capture_output=True, text=True, cwd="/", **as_user(user))
        if made.returncode != 0:
            raise RigError(f"initdb failed: {made.stderr.strip()}")
        (self.data / "pg_hba.conf").write_text(
            f"local all {self.superuser} trust\nlocal all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n"
        )
        argv: list[str | os.PathLike[str]] = [self.bin / "postgres", "-D", self.data, "-p", str(self.port), "-k", str(self.socket)]
        argv += ["-c", "listen_addresses=127.0.0.1"]
        for key, value in SETTINGS.items():
            argv += ["-c", f"{key}={value}"]
        self.process = ground.start(name, argv, user=user, cwd=pathlib.Path("/"), stop_signal=signal.SIGINT)
        wait_for("PostgreSQL", self._ready, 60, self.process, ground.log(name))

    def _ready(self) -> bool:
        probe = [self.bin / "pg_isready", "-q", "-h", self.socket, "-p", str(self.port)]
        return subprocess.run(probe).returncode == 0

    @property
    def environment(self) -> dict[str, str]:
        """What libpq needs to come in as the superuser."""
        return {"PGHOST": str(self.socket), "PGPORT": str(self.port), "PGUSER": self.superuser}

    def client(self, tool: str, *arguments: str, stdin: str | None = None) -> str:
        """Runs a client program as the superuser and returns what it prints."""
        done = subprocess.run(
            [self.bin / tool, *arguments], input=stdin, capture_output=True, text=True, env={**os.environ, **self.environment}
        )
        if done.returncode != 0:
            raise RigError(f"{tool} failed: {done.stderr.strip()[:2000]}")
        return done.stdout

    def sql(self, statements: str, database: str = "postgres") -> str:
        """Runs SQL and returns its rows, columns separated by a bar."""
        return self.client("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", database, "-f", "-", stdin=statements).rstrip("\n")

    def create_role(self, name: str, password: str) -> None:
        """A role that may log in with a password."""
        self.sql(f"CREATE ROLE {quote_name(name)} LOGIN PASSWORD {quote(password)}")

    def create_database(self, name: str, owner: str) -> None:
        """An empty database as Synapse demands it: UTF8, C, from template0."""
        self.sql(
            f"CREATE DATABASE {quote_name(name)} OWNER {quote_name(owner)} "
            "TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'"
        )

    def drop_database(self, name: str) -> None:
        """Drops a database whoever is connected."""
        self.sql(f"DROP DATABASE {quote_name(name)} WITH (FORCE)")

    def digest(self, database: str, leave_out: tuple[str, ...] = ()) -> dict[str, str]:
        """One digest per table and sequence, and one of the schema; equal digests mean equal contents."""
        tables = [table for table in self.sql(TABLES.format(kind="r"), database).splitlines() if table not in leave_out]
        asked = [f"SELECT {quote(table)} || '|' || ({DIGEST.format(table=table)});" for table in tables]
        for sequence in self.sql(TABLES.format(kind="S"), database).splitlines():
            asked.append(f"SELECT {quote(sequence)} || '|' || last_value || ':' || is_called FROM {sequence};")
        lines = self.sql("\n".join(asked), database).splitlines()
        digests = dict(line.split("|", 1) for line in lines)
        schema = self.client("pg_dump", "--schema-only", "--no-comments", "-d", database)
        # Newer minor versions protect the script with a random word.
        kept = [line for line in schema.splitlines() if line and not line.startswith(("--", "\\restrict", "\\unrestrict"))]
        digests["(schema)"] = hashlib.sha256("\n".join(kept).encode()).hexdigest()
        return digests


def quote(text: str) -> str:
    """An SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def quote_name(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
