"""An installation with everything that makes configurations hard to read, all of it legal, all of it running.

Several files and conf.d with values that YAML 1.1 alone reads in its way, relative paths against a working directory, a signing key at
its default place, secrets in files, application services by bare name, templates with links and names that hurt, a module with a
file of its own, and a database behind a unix socket whose password is written `0123` and is 83.
"""

from __future__ import annotations

import os
import pathlib
import pwd
import secrets

from ground import Ground, free_port
from homeserver import LOG_CONFIG, OPEN_LIMITS, Installation, generate
from postgres import Postgres

DATABASE = "synapse's db"
ROLE, PASSWORD = "1000", "83"

MAIN = """\
# A byte order mark is before this line.
server_name: "not.this.one"
report_stats: no
pid_file: run/homeserver.pid
media_store_path: "media/the store"
log_config: ../etc/logging/log.yaml
signing_key_path: null
database:                          # replaced as a whole by conf.d
  name: sqlite3
  args: {{database: "nowhere.db"}}
max_upload_size: 100M
enable_registration: off
templates: {{custom_template_directory: templates}}
"""

SERVER = """\
server_name: "twice.example"
server_name: &name "awkward.example"   # the last one wins
public_baseurl: "http://127.0.0.1/"
x-unused: *name
listeners:
- bind_addresses: ["127.0.0.1"]
  port: {port}
  type: http
  resources: [{{names: [client, keys, consent], compress: false}}]
"""

DATABASE_YAML = """\
x-libpq: &libpq
  host: {socket}
  port: {port}
  connect_timeout: 0b1010      # 10
  keepalives_idle: 1:30        # 90
  application_name: synapse
  password: wrong
database:
  name: psycopg2
  txn_limit: 10_000
  args:
    <<: *libpq
    user: 1_000                # 1000
    password: 0123             # octal: 83
    dbname: "synapse's db"
    cp_min: 1
    cp_max: 0x5
"""

SECRETS = """\
registration_shared_secret_path: secrets/registration
macaroon_secret_key_path: secrets/macaroon
form_secret_path: "./secrets/form secret"
turn_shared_secret_path: {absolute}/turn
password_config: {{pepper: "ÄÖ # not a comment"}}
app_service_config_files:
  - bridge_1.yaml
  - "bridges/brücke 2.yaml"
oembed: {{disable_default_list: true, additional_providers: [oembed.json]}}
user_consent: {{template_dir: consent, version: 1.0}}
modules:
  - module: rig_module.Words
    config: {{words_file: {absolute}/words.txt, limit: 5, colour: no}}
"""

BRIDGE = """\
id: {id}
url: null
as_token: {as_token}
hs_token: {hs_token}
sender_localpart: {id}_bot
namespaces: {{users: [{{exclusive: true, regex: "@{id}_.*"}}]}}
"""

MODULE = """\
class Words:
    def __init__(self, config, api):
        with open(config["words_file"], encoding="utf-8") as file:
            self.words = file.read().split()

    @staticmethod
    def parse_config(config):
        return config
"""


def awkward(ground: Ground, postgres: Postgres, name: str = "awkward") -> Installation:
    """The awkward installation; its keys are made by Synapse itself."""
    root = ground.folder(name)
    etc, work = root / "etc", root / "var lib"
    port = free_port()
    for folder in (etc / "conf.d" / "not-read", etc / "logging", work / "secrets", work / "run", work / "bridges", work / "media"):
        folder.mkdir(parents=True)
    postgres.create_role(ROLE, PASSWORD)
    postgres.create_database(DATABASE, ROLE)
    registration = secrets.token_urlsafe(24)
    _write(etc / "homeserver.yaml", "\ufeff" + MAIN.format(), 0o640)
    _write(etc / "conf.d" / "10-sërver.yaml", SERVER.format(port=port))
    _write(etc / "conf.d" / "20-database.yaml", DATABASE_YAML.format(socket=postgres.socket, port=postgres.port), 0o600)
    _write(etc / "conf.d" / "30-secrets.yaml", SECRETS.format(absolute=work / "secrets"), 0o640)
    _write(etc / "conf.d" / "40-limits.yaml", OPEN_LIMITS)
    _write(etc / "conf.d" / "50-ignored.yml", "server_name: ignored.example\n")
    _write(etc / "conf.d" / "not-read" / "60.yaml", "server_name: ignored.example\n")
    _write(etc / "logging" / "log.yaml", LOG_CONFIG)
    for file, text in (("registration", registration), ("macaroon", secrets.token_hex()), ("form secret", "f\u00f6rm\n"), ("turn", "t")):
        _write(work / "secrets" / file, text + "\n", 0o600)
    _write(work / "secrets" / "words.txt", "some words\n")
    _write(work / "oembed.json", "[]\n")
    for file, id in (("bridge_1.yaml", "one"), ("bridges/brücke 2.yaml", "two")):
        _write(work / file, BRIDGE.format(id=id, as_token=secrets.token_hex(), hs_token=secrets.token_hex()), 0o600)
    _templates(work)
    modules = ground.folder(f"{name}-python")  # installed software: not part of what a backup brings back
    _write(modules / "rig_module.py", MODULE)
    config = [etc / "homeserver.yaml", etc / "conf.d"]
    os.environ["PYTHONPATH"] = str(modules)
    try:
        generate("--generate-keys", "-c", config[0], "-c", config[1], cwd=work)
    finally:
        del os.environ["PYTHONPATH"]
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        for path in root.rglob("*"):
            os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
    return Installation(
        root=root,
        server_name="awkward.example",
        config=config,
        working_directory=work,
        media_store=work / "media" / "the store",
        signing_key=etc / "conf.d" / "awkward.example.signing.key",
        database=DATABASE,
        role=ROLE,
        port=port,
        registration_secret=registration,
        environment={"PYTHONPATH": str(modules)},
        loose=frozenset({"etc/conf.d/50-ignored.yml", "etc/conf.d/not-read/60.yaml"}),
    )


def _templates(work: pathlib.Path) -> None:
    folder = work / "templates"
    (folder / "parts").mkdir(parents=True)
    _write(folder / "parts" / "head.html", "<title>{{ app_name }}</title>\n")
    _write(folder / "empty.html", "")
    (folder / "notif_mail.html").symlink_to("parts/head.html")
    (folder / "nowhere.html").symlink_to("../does/not/exist")
    (folder / "all parts").symlink_to("parts", target_is_directory=True)
    for name in ("new\nline.html", "quote\"'`$(id).html", "snow ☃.html", " leading and trailing ", "-rf", "x" * 250 + ".html", "back\\slash"):
        _write(folder / name, f"<p>{name!r}</p>\n")
    with open(os.fsencode(folder) + b"/caf\xe9.html", "wb") as file:
        file.write(b"not UTF-8: \xff\xfe\n")
    (work / "consent" / "en").mkdir(parents=True)
    _write(work / "consent" / "en" / "1.0.html", "<p>{{ user }}, do you agree?</p>\n")
    _write(work / "consent" / "en" / "success.html", "<p>Thanks</p>\n")


def _write(path: pathlib.Path, text: str, mode: int = 0o644) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
