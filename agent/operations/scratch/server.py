"""One scratch server: started, made a replica set of one, and gone afterwards whatever happens.

It listens on loopback only, wants a key that nobody else on the host can read, does not expire
documents (what a proof hashes must not change by itself), and keeps a small cache: it runs beside
a server that people use.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from agent.errors import NodeUnavailable
from agent.mongo.node import Node
from agent.mongo.scratch import initiate, scratch_uri
from agent.operations.machine import watched
from agent.operations.scratch.place import Place, remove

KILLED_WITHIN_S: Final = 30.0
START_WITHIN_S: Final = 120.0
CACHE_GB: Final = 0.5
OPLOG_MB: Final = 990
_TRIES: Final = 3
_LOG_LINES: Final = 3


@asynccontextmanager
async def scratch_server(place: Place, name: str, replset: str) -> AsyncIterator[Node]:
    """A fresh, empty server as the replica set `replset`. Raises `ConfigError`, `Refused`,
    `NodeUnavailable`."""
    program = place.program()
    await asyncio.to_thread(place.sweep)
    with place.made(name) as path:
        try:
            key = secrets.token_hex(32)
            _write_key(path / "key", key)
            (path / "data").mkdir(mode=0o700)
            async with _running(program, path, replset, key) as uri:
                node = await Node.open(uri)
                try:
                    yield node
                finally:
                    await node.aclose()
        finally:
            # To its end also when we are cancelled: files of a restored database must not stay.
            await asyncio.shield(asyncio.to_thread(remove, path))


@asynccontextmanager
async def _running(program: Path, path: Path, replset: str, key: str) -> AsyncIterator[str]:
    port = _free_port()
    process = await asyncio.create_subprocess_exec(
        str(program), *_arguments(path, replset, port),
        stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        uri = scratch_uri(port, key)
        await _started(process, uri, replset, port, path)
        yield uri
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        with suppress(TimeoutError):  # its files are removed all the same
            async with asyncio.timeout(KILLED_WITHIN_S):
                await process.wait()


async def _started(process: Process, uri: str, replset: str, port: int, path: Path) -> None:
    """Wait until it takes writes, or say why it does not."""

    async def ended() -> None:
        status = await process.wait()
        words = await asyncio.to_thread(_last_words, path)
        raise NodeUnavailable(f"the scratch mongod ended with status {status}: {words}")

    await watched(
        lambda: initiate(uri, replset, port, within_s=START_WITHIN_S),
        ended,
        within_s=2 * START_WITHIN_S,
        what="starting the scratch mongod",
    )


def _arguments(path: Path, replset: str, port: int) -> list[str]:
    return [
        *("--dbpath", str(path / "data"), "--port", str(port), "--bind_ip", "127.0.0.1"),
        *("--replSet", replset, "--oplogSize", str(OPLOG_MB), "--keyFile", str(path / "key")),
        *("--logpath", str(path / "mongod.log"), "--nounixsocket"),
        *("--wiredTigerCacheSizeGB", str(CACHE_GB)),
        *("--setParameter", "ttlMonitorEnabled=false"),
        *("--setParameter", "diagnosticDataCollectionEnabled=false"),
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _write_key(path: Path, key: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(key)


def _last_words(path: Path) -> str:
    try:
        lines = (path / "mongod.log").read_text(errors="replace").splitlines()
    except OSError:
        return "it wrote no log"
    return " ".join(lines[-_LOG_LINES:])[:600]
