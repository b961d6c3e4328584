"""A private MinIO.

`traffic` reads its own counters, so that what the tool reports can be held against what the store saw.
"""

from __future__ import annotations

import re
import secrets
import shutil
import time
import urllib.request

from ground import CACHE, Ground, RigError, free_port, wait_for
from s3 import S3

METRIC = re.compile(r'^(minio_s3_\w+)\{(.*)\} (\S+)$')


class Minio(S3):
    """A running private MinIO."""

    def __init__(self, ground: Ground, name: str = "minio") -> None:
        binary = CACHE / "bin" / "minio"
        found = str(binary) if binary.exists() else shutil.which("minio")
        if not found:
            raise RigError("no MinIO found: run scripts/setup minio")
        self.ground = ground
        self.data = ground.folder(name)
        super().__init__(free_port(), "rig", secrets.token_hex(16))
        self._argv = [found, "server", "--quiet", "--address", f"127.0.0.1:{self.port}", "--console-address", f"127.0.0.1:{free_port()}"]
        self._env = {
            "MINIO_ROOT_USER": self.access_key,
            "MINIO_ROOT_PASSWORD": self.secret_key,
            "MINIO_PROMETHEUS_AUTH_TYPE": "public",
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
            "HOME": str(self.data),
        }
        self.name = name
        self.start()

    def start(self) -> None:
        """Starts the server (again) on its port."""
        self.process = self.ground.start(self.name, [*self._argv, self.data], env=self._env)
        wait_for("MinIO", self.answers, 60, self.process, self.ground.log(self.name))

    def open_uploads(self, bucket: str, prefix: str = "") -> int:
        """How many multipart uploads were begun and neither completed nor aborted.

        MinIO lists uploads by exact key only, so this looks into its folder of unfinished uploads.
        """
        del bucket, prefix
        return sum(1 for _ in (self.data / ".minio.sys" / "multipart").glob("*/*/xl.meta"))

    def traffic(self) -> dict[str, int]:
        """Requests and bytes as MinIO counted them since it started (its counters lag by up to ten seconds)."""
        with urllib.request.urlopen(f"{self.url}/minio/v2/metrics/cluster", timeout=30) as answer:
            text = answer.read().decode()
        total = {"requests": 0, "received_bytes": 0, "sent_bytes": 0}
        for line in text.splitlines():
            match = METRIC.match(line)
            if not match:
                continue
            name, value = match[1], int(float(match[3]))
            if name == "minio_s3_requests_total":
                total["requests"] += value
            elif name == "minio_s3_traffic_received_bytes":
                total["received_bytes"] += value
            elif name == "minio_s3_traffic_sent_bytes":
                total["sent_bytes"] += value
        return total

    def settled_traffic(self) -> dict[str, int]:
        """`traffic` once it no longer moves."""
        last = self.traffic()
        while True:
            time.sleep(11)
            now = self.traffic()
            if now == last:
                return now
            last = now
