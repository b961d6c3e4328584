"""A small Matrix client: JSON over one kept-open connection, with an access token.

Only what the rig needs of the client-server API, named as the specification names it. What to do with it stands in story.py.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import itertools
import json
import urllib.parse
from typing import Any

from ground import RigError

Json = dict[str, Any]


class Client:
    """One device of one user (or nobody yet)."""

    _transactions = itertools.count()

    def __init__(self, url: str, token: str | None = None, user_id: str = "", device_id: str = "") -> None:
        self.url, self.token, self.user_id, self.device_id = url, token, user_id, device_id
        self._connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=60)

    def raw(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> tuple[int, bytes]:
        """One request; the status and the body, whatever they are."""
        headers = {"Content-Type": kind} if body is not None else {}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        for attempt in (1, 2):
            try:
                self._connection.request(method, path, body, headers)
                answer = self._connection.getresponse()
                return answer.status, answer.read()
            except (OSError, http.client.HTTPException) as error:
                # The kept-open connection may be one to a Synapse that has been restarted since.
                self._connection.close()
                if attempt == 2 or not isinstance(error, (ConnectionError, http.client.CannotSendRequest)):
                    raise RigError(f"{method} {path}: {error!r}") from error
        raise AssertionError("unreachable")

    def call(self, method: str, path: str, body: Json | None = None) -> Json:
        """One request that must succeed, JSON in and out."""
        status, answer = self.raw(method, path, None if body is None else json.dumps(body).encode())
        if status != 200:
            raise RigError(f"{method} {path}: {status} {answer[:400].decode(errors='replace')}")
        return json.loads(answer)

    def get(self, path: str) -> Json:
        """GET below the client API."""
        return self.call("GET", f"/_matrix/client/{path}")

    def get_list(self, path: str) -> list[Json]:
        """GET below the client API, where the answer is a list."""
        return self.get(path)  # type: ignore[return-value]

    def put(self, path: str, body: Json) -> Json:
        """PUT below the client API."""
        return self.call("PUT", f"/_matrix/client/{path}", body)

    def post(self, path: str, body: Json) -> Json:
        """POST below the client API."""
        return self.call("POST", f"/_matrix/client/{path}", body)

    def send(self, room: str, kind: str, content: Json) -> str:
        """Sends an event into a room and returns its id."""
        transaction = f"rig{next(self._transactions)}-{self.device_id}"
        return self.put(f"v3/rooms/{part(room)}/send/{kind}/{transaction}", content)["event_id"]

    def messages(self, room: str) -> list[Json]:
        """Every event of a room, oldest first."""
        found: list[Json] = []
        token = ""
        while True:
            page = self.get(f"v3/rooms/{part(room)}/messages?dir=b&limit=500" + (f"&from={part(token)}" if token else ""))
            found += page["chunk"]
            token = page.get("end", "")
            if not token or not page["chunk"]:
                return list(reversed(found))

    def upload(self, body: bytes, kind: str, name: str) -> str:
        """Uploads media and returns the media id."""
        path = f"/_matrix/media/v3/upload?filename={part(name)}"
        status, answer = self.raw("POST", path, body, kind)
        if status != 200:
            raise RigError(f"upload of {len(body)} bytes: {status} {answer[:400]!r}")
        return json.loads(answer)["content_uri"].rpartition("/")[2]

    def download(self, server_name: str, media_id: str) -> tuple[int, bytes]:
        """The status and the bytes of a media file."""
        return self.raw("GET", f"/_matrix/client/v1/media/download/{server_name}/{media_id}")

    def thumbnail(self, server_name: str, media_id: str, width: int, height: int) -> tuple[int, bytes]:
        """The status and the bytes of a thumbnail."""
        query = f"width={width}&height={height}&method=scale"
        return self.raw("GET", f"/_matrix/client/v1/media/thumbnail/{server_name}/{media_id}?{query}")


def register(url: str, secret: str, name: str, password: str, admin: bool = False) -> None:
    """Makes a user with the shared secret, as `register_new_matrix_user` does."""
    nobody = Client(url)
    nonce = nobody.call("GET", "/_synapse/admin/v1/register")["nonce"]
    signed = "\x00".join([nonce, name, password, "admin" if admin else "notadmin"])
    mac = hmac.new(secret.encode(), signed.encode(), hashlib.sha1).hexdigest()
    body = {"nonce": nonce, "username": name, "password": password, "admin": admin, "mac": mac}
    nobody.call("POST", "/_synapse/admin/v1/register", body)


def login(url: str, name: str, password: str, device_id: str) -> Client:
    """Logs in with a device id of our choice."""
    body = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": name}, "password": password, "device_id": device_id}
    answer = Client(url).post("v3/login", body)
    return Client(url, answer["access_token"], answer["user_id"], answer["device_id"])


def part(text: str) -> str:
    """Text as one part of a path."""
    return urllib.parse.quote(text, safe="")
