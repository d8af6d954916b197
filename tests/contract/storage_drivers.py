"""The storages that the contract suite runs on; a further driver is one line in `DRIVERS`."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from unittest.mock import patch
from urllib.parse import quote

import aiohttp
from yarl import URL

from agent.storage.azure import listing as azure_listing
from agent.storage.base import Storage
from agent.storage.filesystem import FilesystemStorage
from agent.storage.gcs import listing as gcs_listing
from agent.storage.memory import MemoryObjects, MemoryStorage
from agent.storage.registry import StorageOptions, open_storage, wrap
from agent.wire.storage_settings import FilesystemSettings, StorageSettings
from tests.support.faulty_storage import FaultyStorage
from tests.support.servers.aliyun.server import shared_aliyun
from tests.support.servers.azurite import shared_azurite
from tests.support.servers.fake_gcs import Front, shared_fake_gcs
from tests.support.servers.seaweedfs import BUCKET, shared_seaweedfs


@dataclass(frozen=True)
class Place:
    """One empty repository, and what only the test may do to it behind the driver's back."""

    open: Callable[[], Awaitable[Storage]]
    """One more client of the same repository."""
    leftovers: Callable[[], Awaitable[list[str]]]
    """What is stored that is no object: temporary files, parts of uploads."""
    flip: Callable[[str, int], Awaitable[None]]
    """Flip the bits of one byte of an object."""
    is_streaming: bool = True
    """Memory does not depend on the size of objects."""
    refuses_nested_keys: bool = True
    """`put` of `a/b` beside `a` raises `ObjectExists`."""
    keeps_backslashes: bool = True
    """A server that takes them for slashes is no fault of its driver."""
    many: int = 10_000
    """How many objects make a long listing here; each is a request to a server."""
    plant: Callable[[list[str]], None] | None = None
    """Make objects of one byte, faster than by the driver."""


OpenPlace = Callable[[Path], AbstractAsyncContextManager[Place]]


def _memory(wrapped: Callable[[Storage], Storage]) -> OpenPlace:
    @asynccontextmanager
    async def place(directory: Path) -> AsyncIterator[Place]:
        objects = MemoryObjects()

        async def open_client() -> Storage:
            return wrapped(await MemoryStorage.open(objects))

        async def leftovers() -> list[str]:
            return []

        async def flip(key: str, offset: int) -> None:
            objects.bodies[key] = _flipped(objects.bodies[key], offset)

        yield Place(open_client, leftovers, flip, is_streaming=False)

    return place


def _filesystem(open_client: Callable[[Path], Awaitable[Storage]]) -> OpenPlace:
    @asynccontextmanager
    async def place(directory: Path) -> AsyncIterator[Place]:
        root = directory / "a repository"
        root.mkdir()

        async def leftovers() -> list[str]:
            """Temporary files, and directories with nothing in them."""
            paths = [path for path in root.rglob("*") if path.name.startswith(".")]
            paths += [path for path in root.rglob("*") if path.is_dir() and not any(path.iterdir())]
            return [str(path.relative_to(root)) for path in paths]

        async def flip(key: str, offset: int) -> None:
            (root / key).write_bytes(_flipped((root / key).read_bytes(), offset))

        def plant(keys: list[str]) -> None:
            for key in keys:
                (root / key).parent.mkdir(parents=True, exist_ok=True)
                (root / key).write_bytes(b"x")

        yield Place(lambda: open_client(root), leftovers, flip, plant=plant)

    return place


def _flipped(body: bytes, offset: int) -> bytes:
    return body[:offset] + bytes([body[offset] ^ 0xFF]) + body[offset + 1 :]


async def _configured(root: Path) -> Storage:
    """As agents get it: from settings, through the registry, in all wrappers."""
    filesystem = FilesystemSettings(path=str(root))
    return await open_storage(StorageSettings(type="filesystem", filesystem=filesystem))


def _s3(**more: object) -> OpenPlace:
    """A prefix of its own on the SeaweedFS of this run, through the registry, in all wrappers."""

    @asynccontextmanager
    async def place(directory: Path) -> AsyncIterator[Place]:
        server = shared_seaweedfs()
        prefix = f"contract/{secrets.token_hex(4)} x"
        small = {"uploadPartSize": "5MiB", "uploadConcurrency": 2}
        settings = server.settings(prefix, **small, **more)
        storage = StorageSettings(type="s3", s3=settings)

        async with server.client() as client:

            async def leftovers() -> list[str]:
                found = await client.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix)
                return [each["Key"] for each in found.get("Uploads", [])]

            async def flip(key: str, offset: int) -> None:
                where = {"Bucket": BUCKET, "Key": f"{prefix}/{key}"}
                body = await (await client.get_object(**where))["Body"].read()
                await client.put_object(**where, Body=_flipped(body, offset))

            yield Place(
                lambda: open_storage(storage),
                leftovers,
                flip,
                refuses_nested_keys=False,
                keeps_backslashes=False,  # SeaweedFS
                many=1_200,
            )

    return place


@asynccontextmanager
async def _oss(directory: Path) -> AsyncIterator[Place]:
    """A prefix of its own on the stand-in of this run, through the registry, in all wrappers."""
    server = shared_aliyun()
    prefix = f"contract/{secrets.token_hex(4)} x"
    settings = server.settings(prefix, uploadPartSize="5MiB", uploadConcurrency=2)

    async def leftovers() -> list[str]:
        return list(server.tell("uploads", prefix=prefix))

    async def flip(key: str, offset: int) -> None:
        server.tell("object", name=f"{prefix}/{key}", flip=offset)

    yield Place(
        lambda: open_storage(StorageSettings(type="oss", oss=settings)),
        leftovers,
        flip,
        refuses_nested_keys=False,
        many=1_200,
    )


FEW_A_PAGE: Final = 100
"""Instead of thousands: Azurite and the front of GCS take 20 ms for each object that is listed."""


def _azure() -> OpenPlace:
    """A prefix of its own on the Azurite of this run."""

    @asynccontextmanager
    async def place(directory: Path) -> AsyncIterator[Place]:
        server = shared_azurite()
        prefix = f"contract/{secrets.token_hex(4)} x"
        settings = server.settings(prefix, uploadPartSize="4MiB", uploadConcurrency=2)
        storage = StorageSettings(type="azure", azure=settings)

        async with server.client() as client:

            async def leftovers() -> list[str]:
                found = client.list_blobs(prefix, include=["uncommittedblobs"])
                return [blob.name async for blob in found if not await _is_there(blob.name)]

            async def _is_there(name: str) -> bool:
                return await client.get_blob_client(name).exists()

            async def flip(key: str, offset: int) -> None:
                blob = client.get_blob_client(f"{prefix}/{key}")
                body = await (await blob.download_blob()).readall()
                await blob.upload_blob(_flipped(body, offset), overwrite=True)

            with patch.object(azure_listing, "PAGE", FEW_A_PAGE):
                yield Place(
                    lambda: open_storage(storage),
                    leftovers,
                    flip,
                    refuses_nested_keys=False,
                    keeps_backslashes=False,  # Azure takes them for slashes
                    many=350,
                )

    return place


def _gcs() -> OpenPlace:
    """A prefix of its own on the fake GCS of this run, behind a front that heeds conditions."""

    @asynccontextmanager
    async def place(directory: Path) -> AsyncIterator[Place]:
        server = shared_fake_gcs()
        prefix = f"contract/{secrets.token_hex(4)} x"
        async with Front(server.url) as front:
            settings = server.settings(
                prefix, endpointUrl=front.url, uploadPartSize="4MiB", uploadConcurrency=2
            )
            storage = StorageSettings(type="gcs", gcs=settings)
            options = StorageOptions(environment={"STORAGE_EMULATOR_HOST": front.url})

            async def leftovers() -> list[str]:
                return list(front.sessions)

            async def flip(key: str, offset: int) -> None:
                path = server.settings().bucket, quote(f"{prefix}/{key}", safe="")
                async with aiohttp.ClientSession() as client:
                    url = f"{server.url}/storage/v1/b/{path[0]}/o/{path[1]}?alt=media"
                    async with client.get(URL(url, encoded=True)) as answer:
                        body = await answer.read()
                    url = f"{server.url}/upload/storage/v1/b/{path[0]}/o"
                    asked = f"?uploadType=media&name={path[1]}"
                    data = _flipped(body, offset)
                    async with client.post(URL(url + asked, encoded=True), data=data) as answer:
                        answer.raise_for_status()

            with patch.object(gcs_listing, "PAGE", FEW_A_PAGE):
                yield Place(
                    lambda: open_storage(storage, options),
                    leftovers,
                    flip,
                    is_streaming=False,  # the front is in this process: see test_cloud_faults.py
                    refuses_nested_keys=False,
                    many=350,
                )

    return place


DRIVERS: Final[dict[str, OpenPlace]] = {
    "memory": _memory(lambda driver: driver),
    "memory-wrapped": _memory(wrap),
    "memory-faulty": _memory(FaultyStorage),
    "filesystem": _filesystem(FilesystemStorage.open),
    "filesystem-configured": _filesystem(_configured),
    "s3": _s3(),
    "oss": _oss,
    "azure": _azure(),
    "gcs": _gcs(),
}
