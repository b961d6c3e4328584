"""A real Synapse, from the venv of scripts/setup: where its files are, how it starts and stops.

An `Installation` is what an administrator has: a folder of configuration, a working directory, a media store, a database. `plain`
makes one as Synapse's own generator does, with the database in conf.d; the awkward one is in awkward.py. The servers listen
on the loopback only and federate with nobody.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import secrets
import shutil
import subprocess
import time
import urllib.request

from ground import CACHE, Ground, RigError, free_port, stop, wait_for
from postgres import Postgres

PYTHON = CACHE / "synapse" / "bin" / "python"
SETTLE_SECONDS = 100
START_SECONDS = 90

# No limits for the rig's own haste, no pauses between the hundred changes of a fresh database, no other servers.
OPEN_LIMITS = """\
background_updates: {sleep_enabled: false}
federation_domain_whitelist: []
trusted_key_servers: []
rc_message: {per_second: 10000, burst_count: 10000}
rc_registration: {per_second: 10000, burst_count: 10000}
rc_login:
  address: {per_second: 10000, burst_count: 10000}
  account: {per_second: 10000, burst_count: 10000}
rc_joins:
  local: {per_second: 10000, burst_count: 10000}
rc_invites:
  per_room: {per_second: 10000, burst_count: 10000}
  per_user: {per_second: 10000, burst_count: 10000}
  per_issuer: {per_second: 10000, burst_count: 10000}
rc_media_create: {per_second: 10000, burst_count: 10000}
rc_room_creation: {per_second: 10000, burst_count: 10000}
"""


@dataclasses.dataclass
class Installation:
    """Everything of one Synapse that is on disk, and the names by which it reaches its database."""

    root: pathlib.Path  # all of it is below this folder
    server_name: str
    config: list[pathlib.Path]  # what goes behind -c, in order
    working_directory: pathlib.Path
    media_store: pathlib.Path
    signing_key: pathlib.Path
    database: str
    role: str
    port: int
    registration_secret: str
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    loose: frozenset[str] = frozenset()  # files of no meaning to Synapse: a restore may bring them back, or not

    @property
    def url(self) -> str:
        """Where its client API listens."""
        return f"http://127.0.0.1:{self.port}"

    def destroy(self, postgres: Postgres) -> None:
        """Loses everything: the database, the media, the configuration and the keys."""
        postgres.drop_database(self.database)
        shutil.rmtree(self.root)


class Homeserver:
    """A Synapse process of an installation; it can be started and stopped again and again."""

    def __init__(self, ground: Ground, installation: Installation, name: str = "synapse") -> None:
        self.ground, self.installation, self.name = ground, installation, name
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts Synapse and waits until it answers."""
        argv: list[str | os.PathLike[str]] = [PYTHON, "-m", "synapse.app.homeserver"]
        for path in self.installation.config:
            argv += ["-c", path]
        cwd = self.installation.working_directory
        cwd.mkdir(parents=True, exist_ok=True)  # an empty folder is nothing that a backup could bring back
        self.process = self.ground.start(self.name, argv, cwd=cwd, env={"PYTHONDONTWRITEBYTECODE": "1", **self.installation.environment})
        wait_for("Synapse", self._ready, START_SECONDS, self.process, self.ground.log(self.name))

    def settle(self, postgres: Postgres) -> None:
        """Waits until a fresh Synapse has changed its tables as it does in the background, with locks that no backup can get past.

        Not for ever: what is left then is work on rows, which does not disturb anybody.
        """
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            if postgres.sql("SELECT count(*) FROM background_updates", self.installation.database) == "0":
                return
            time.sleep(0.5)

    def stop(self) -> None:
        """Stops Synapse in an orderly way."""
        if self.process is not None:
            stop(self.process)
            self.process = None

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.installation.url}/health", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False


def generate(*arguments: str | os.PathLike[str], cwd: pathlib.Path) -> None:
    """Runs Synapse in one of its modes that generate files."""
    if not PYTHON.exists():
        raise RigError("no Synapse found: run scripts/setup synapse")
    made = subprocess.run([PYTHON, "-m", "synapse.app.homeserver", *arguments], cwd=cwd, capture_output=True, text=True)
    if made.returncode != 0:
        raise RigError(f"Synapse could not generate its configuration: {made.stderr.strip()[-2000:]}")


def version() -> str:
    """Of the Synapse in the venv, as it says itself."""
    asked = "from synapse.util import SYNAPSE_VERSION; print(SYNAPSE_VERSION.split(' ')[0])"
    return subprocess.run([PYTHON, "-c", asked], check=True, capture_output=True, text=True).stdout.strip()


def plain(ground: Ground, postgres: Postgres, name: str = "synapse", database: str = "synapse", role: str = "synapse_user") -> Installation:
    """An installation as the generator makes it, plus conf.d with PostgreSQL and a loopback listener."""
    root = ground.folder(name)
    etc, work = root / "etc", root / "var"
    (etc / "conf.d").mkdir(parents=True)
    work.mkdir()
    server_name = "rig.example"
    password = secrets.token_urlsafe(12)
    port, secret = free_port(), secrets.token_urlsafe(24)
    main = etc / "homeserver.yaml"
    generate("--generate-config", "-H", server_name, "--report-stats", "no", "-c", main, "--data-directory", work, cwd=work)
    postgres.create_role(role, password)
    postgres.create_database(database, role)
    args = {"user": role, "password": password, "database": database, "host": "127.0.0.1", "port": postgres.port, "cp_min": 1, "cp_max": 5}
    (etc / "conf.d" / "rig.yaml").write_text(
        f"database: {{name: psycopg2, args: {json.dumps(args)}}}\n"
        f"registration_shared_secret: {json.dumps(secret)}\n"
        "listeners:\n"
        f"  - {{port: {port}, type: http, bind_addresses: ['127.0.0.1'], resources: [{{names: [client, keys]}}]}}\n" + OPEN_LIMITS
    )
    # The generated log configuration writes a file of its own; ours is the captured output.
    (etc / f"{server_name}.log.config").write_text(LOG_CONFIG)
    return Installation(
        root=root,
        server_name=server_name,
        config=[main, etc / "conf.d"],
        working_directory=work,
        media_store=work / "media_store",
        signing_key=etc / f"{server_name}.signing.key",
        database=database,
        role=role,
        port=port,
        registration_secret=secret,
    )


LOG_CONFIG = """\
version: 1
formatters:
  precise: {format: '%(asctime)s - %(name)s - %(levelname)s - %(message)s'}
handlers:
  console: {class: logging.StreamHandler, formatter: precise}
root: {level: WARNING, handlers: [console]}
disable_existing_loggers: false
"""
