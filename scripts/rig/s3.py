"""A small S3 client (signature version 4, standard library only) to look into a private store and to damage it.

It is for the rig's own needs: making buckets, listing what the tool under test wrote, and planting faults. Which server answers
is told in minio.py and seaweedfs.py.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import http.client
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ElementTree

from ground import RigError

REGION = "us-east-1"


class S3:
    """A store on the loopback, seen by whoever has this key."""

    def __init__(self, port: int, access_key: str, secret_key: str) -> None:
        self.port, self.access_key, self.secret_key = port, access_key, secret_key
        self.url = f"http://127.0.0.1:{port}"

    def answers(self) -> bool:
        """It can answer requests: a listing of the buckets is the better question than a page of health."""
        try:
            self.request("GET", "/")
        except RigError:
            return False
        return True

    @property
    def environment(self) -> dict[str, str]:
        """Credentials as the AWS chain reads them from the environment."""
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key, "AWS_EC2_METADATA_DISABLED": "true"}

    def request(
        self, method: str, path: str, query: dict[str, str] | None = None, body: bytes = b"", more: dict[str, str] | None = None
    ) -> bytes:
        """One signed request, with more headers if given (in lower case); raises `RigError` on anything but success."""
        when = datetime.datetime.now(datetime.timezone.utc)
        date, stamp = when.strftime("%Y%m%d"), when.strftime("%Y%m%dT%H%M%SZ")
        path = urllib.parse.quote(path)
        asked = "&".join(f"{_escape(k)}={_escape(v)}" for k, v in sorted((query or {}).items()))
        digest = hashlib.sha256(body).hexdigest()
        headers = {"host": f"127.0.0.1:{self.port}", "x-amz-content-sha256": digest, "x-amz-date": stamp, **(more or {})}
        headers = dict(sorted(headers.items()))
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

    def make_bucket(self, bucket: str, lock: bool = False) -> None:
        """A new bucket, with Object Lock (and so with versions) if asked."""
        self.request("PUT", f"/{bucket}", more={"x-amz-bucket-object-lock-enabled": "true"} if lock else None)

    def get(self, bucket: str, key: str) -> bytes:
        """The bytes of an object."""
        return self.request("GET", f"/{bucket}/{key}")

    def put(self, bucket: str, key: str, body: bytes) -> None:
        """Writes an object, over another if it is there."""
        self.request("PUT", f"/{bucket}/{key}", body=body)

    def delete(self, bucket: str, key: str) -> None:
        """Removes an object."""
        self.request("DELETE", f"/{bucket}/{key}")

    def delete_version(self, bucket: str, key: str, version: str, more: dict[str, str] | None = None) -> None:
        """Removes one version for good."""
        self.request("DELETE", f"/{bucket}/{key}", {"versionId": version}, more=more)

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

    def versions(self, bucket: str, prefix: str) -> list[tuple[str, str]]:
        """Key and id of every version below the prefix, delete markers left out."""
        found: list[tuple[str, str]] = []
        query = {"versions": "", "prefix": prefix}
        while True:
            page = ElementTree.fromstring(self.request("GET", f"/{bucket}", query))
            space = page.tag.partition("}")[0] + "}"
            for entry in page.iter(f"{space}Version"):
                found.append((entry.findtext(f"{space}Key") or "", entry.findtext(f"{space}VersionId") or ""))
            if page.findtext(f"{space}IsTruncated") != "true":
                return found
            query["key-marker"] = page.findtext(f"{space}NextKeyMarker") or ""
            query["version-id-marker"] = page.findtext(f"{space}NextVersionIdMarker") or ""


def _escape(text: str) -> str:
    return urllib.parse.quote(text, safe="-_.~")
