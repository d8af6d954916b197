"""What this server can do, tried once on a probe object: servers that speak S3 differ.

Asked before the first `put` of a process, three or four small requests. Settings that say it
themselves save the asking.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from fastcrc import crc32

from agent.errors import ObjectExists, Permanent, PermissionDenied, TidelogError
from agent.storage.probe import PROBE_PREFIX
from agent.storage.s3.connection import Connection

CRC32: Final = "crc32"
MD5: Final = "md5"
NONE: Final = "none"


def checksum(mode: str, body: bytes) -> dict[str, Any]:
    """What a writing request carries for the server to check the body by."""
    if mode == CRC32:
        return {"ChecksumCRC32": base64.b64encode(crc32.iso_hdlc(body).to_bytes(4, "big")).decode()}
    if mode == MD5:
        digest = hashlib.md5(body, usedforsecurity=False).digest()
        return {"ContentMD5": base64.b64encode(digest).decode()}
    return {}


@dataclass
class Manners:
    """Found out once, then known."""

    connection: Connection
    checksum: str = CRC32
    conditional: bool = True
    """Whether `If-None-Match: *` is heeded."""
    ordered: bool = True
    """Whether listings are in byte order, as S3 itself promises."""
    is_settled: bool = False
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    def __post_init__(self) -> None:
        settings = self.connection.settings
        if settings.checksum != "auto":
            self.checksum = settings.checksum
        if settings.conditional_writes != "auto":
            self.conditional = settings.conditional_writes == "on"
        self.is_settled = settings.checksum != "auto" and settings.conditional_writes != "auto"

    async def settle(self) -> None:
        """Find out, unless it is known. Raises what a `put` would raise."""
        if self.is_settled:
            return
        async with self._turn:
            if not self.is_settled:
                await self.connection.attempts("put", PROBE_PREFIX).run(self._probe)
                self.is_settled = True

    async def _probe(self) -> None:
        key = f"{PROBE_PREFIX}{secrets.token_hex(8)}"
        try:
            if self.connection.settings.checksum == "auto":
                self.checksum = await self._find_checksum(key)
            else:
                await self._put(key, self.checksum)
            if self.connection.settings.conditional_writes == "auto":
                self.conditional = await self._is_refused_twice(key)
        finally:
            with suppress(TidelogError):  # a few bytes that anyone may delete
                name = self.connection.name(key)
                await self.connection.call("delete_object", "delete", key, Key=name)

    async def _find_checksum(self, key: str) -> str:
        for mode in (CRC32, MD5):
            try:
                answer = await self._put(key, mode)
            except (PermissionDenied, ObjectExists):
                raise
            except Permanent:
                continue  # refused for its header, or for something the next try will say
            # A server that knows the header repeats it; one that ignores it checks nothing.
            if mode == MD5 or "ChecksumCRC32" in answer:
                return mode
        await self._put(key, NONE)
        return NONE

    async def _is_refused_twice(self, key: str) -> bool:
        try:
            await self._put(key, self.checksum, IfNoneMatch="*")
        except ObjectExists:
            return True
        except PermissionDenied:
            raise
        except Permanent:
            return False
        return False

    async def _put(self, key: str, mode: str, **more: Any) -> dict[str, Any]:
        body = secrets.token_bytes(8)
        return await self.connection.call(
            "put_object",
            "write",
            key,
            Key=self.connection.name(key),
            Body=body,
            **checksum(mode, body),
            **self.connection.encryption.new_object(),
            **more,
        )
