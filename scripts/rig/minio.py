"""A private MinIO and a small S3 client (signature version 4, standard library only) to look into it and to damage it.

The client is for the rig's own needs: making buckets, listing what the tool under test wrote, and planting faults. `traffic` reads
MinIO's own counters, so that what the tool reports can be held against what the store saw.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import http.client
import re
import secrets
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ElementTree

from ground import CACHE, Ground, RigError, free_port, wait_for

REGION = "us-east-1"
METRIC = re.compile(r'^(minio_s3_\w+)\{(.*)\} (\S+)$')


class Minio:
    """A running private MinIO."""

    def __init__(self, ground: Ground, name: str = "minio") -> None:
        binary = CACHE / "bin" / "minio"
        found = str(binary) if binary.exists() else shutil.which("minio")
        if not found:
            raise RigError("no MinIO found: run scripts/setup minio")
        self.ground = ground
        self.data = ground.folder(name)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.access_key = "rig"
        self.secret_key = secrets.token_hex(16)
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
        wait_for("MinIO", self._ready, 60, self.process, self.ground.log(self.name))

    def _ready(self) -> bool:
        # Its health page says ready before it can answer requests: a listing of the buckets is the better question.
        try:
            self.request("GET", "/")
        except RigError:
            return False
        return True

    @property
    def environment(self) -> dict[str, str]:
        """Credentials as the AWS chain reads them from the environment."""
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key, "AWS_EC2_METADATA_DISABLED": "true"}

    def request(self, method: str, path: str, query: dict[str, str] | None = None, body: bytes = b"") -> bytes:
        """One signed request; raises `RigError` on anything but success."""
        when = datetime.datetime.now(datetime.timezone.utc)
        date, stamp = when.strftime("%Y%m%d"), when.strftime("%Y%m%dT%H%M%SZ")
        path = urllib.parse.quote(path)
        asked = "&".join(f"{_escape(k)}={_escape(v)}" for k, v in sorted((query or {}).items()))
        digest = hashlib.sha256(body).hexdigest()
        headers = {"host": f"127.0.0.1:{self.port}", "x-amz-content-sha256": digest, "x-amz-date": stamp}
        names = ";".join(headers)
        canonical = "\n".join([method, path, asked, *(f"{k}:{v}" for k, v in headers.items()), "", names, digest])
        scope = f"{date}/{REGION}/s3/aws4_request"
        to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = f"AWS4{self.secret_key}".encode()
        for word in (date, REGION, "s3", "aws4_request"):
            key = hmac.digest(key, word.encode(), "sha256")
        signature = hmac.new(key, to_sign.encode(), "sha256").hexdigest()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        target = f"{self.url}{path}" + (f"?{asked}" if asked else "")
        try:
            with urllib.request.urlopen(urllib.request.Request(target, body or None, headers, method=method), timeout=60) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise RigError(f"S3 {method} {path}: {error.code} {error.read()[:300]!r}") from error
        except (OSError, http.client.HTTPException) as error:
            raise RigError(f"S3 {method} {path}: {error}") from error

    def make_bucket(self, bucket: str) -> None:
        """A new bucket."""
        self.request("PUT", f"/{bucket}")

    def get(self, bucket: str, key: str) -> bytes:
        """The bytes of an object."""
        return self.request("GET", f"/{bucket}/{key}")

    def put(self, bucket: str, key: str, body: bytes) -> None:
        """Writes an object, over another if it is there."""
        self.request("PUT", f"/{bucket}/{key}", body=body)

    def delete(self, bucket: str, key: str) -> None:
        """Removes an object."""
        self.request("DELETE", f"/{bucket}/{key}")

    def list(self, bucket: str, prefix: str = "") -> dict[str, int]:
        """Key and size of every object below the prefix."""
        found: dict[str, int] = {}
        query = {"list-type": "2", "prefix": prefix}
        while True:
            page = ElementTree.fromstring(self.request("GET", f"/{bucket}", query))
            space = page.tag.partition("}")[0] + "}"
            for entry in page.iter(f"{space}Contents"):
                found[entry.findtext(f"{space}Key") or ""] = int(entry.findtext(f"{space}Size") or 0)
            token = page.findtext(f"{space}NextContinuationToken")
            if not token:
                return found
            query["continuation-token"] = token

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


def _escape(text: str) -> str:
    return urllib.parse.quote(text, safe="-_.~")
