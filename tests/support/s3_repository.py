"""A repository on a real S3 server behind a proxy that fails on demand, and what it holds.

What is there is copied into a directory, so that whoever looks for leftovers of a repository on a
filesystem finds those of this one; uploads in parts that were neither finished nor aborted are
looked for in the bucket, where no listing of objects shows them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from agent.storage.s3.driver import S3Storage
from tests.support.clouds import Around, failing
from tests.support.clouds import s3 as cloud_of
from tests.support.ctl import Ctl
from tests.support.servers.background import Background
from tests.support.servers.proxy import Action, LateLists, Refuse, Seen
from tests.support.servers.seaweedfs import BUCKET, shared_seaweedfs

PART_SIZE = "5MiB"
"""The least that S3 takes: what is larger is uploaded in parts."""
OUT_OF_ORDER = Refuse(503, "ServiceUnavailable")


class S3Repository:
    """One prefix of the bucket of the tests."""

    def __init__(self, background: Background, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._cloud = cloud_of(Around(directory, background, by_proxy=True))
        self._cloud.storage["s3"]["uploadPartSize"] = PART_SIZE
        self.prefix = str(self._cloud.storage["url"]).partition(f"{BUCKET}/")[2] + "/"
        assert isinstance(self._cloud.proxy, LateLists)
        self._proxy = self._cloud.proxy

    def configure(self, ctl: Ctl) -> None:
        """Make it the cluster's storage."""
        ctl.ok("config", "--file", "-", stdin=yaml.safe_dump({"storage": self._cloud.storage}))

    def script(self, decide: Callable[[Seen], Action]) -> None:
        """What happens to each request from now on."""
        self._proxy.script(decide)

    def storm(self, share: float, seed: int = 11) -> None:
        """Let that share of all requests fail from now on: refused with 503, or cut."""
        self.script(failing(share, random.Random(seed)))

    def heal(self) -> None:
        """Let all pass, and lists be what they are."""
        self.script(lambda request: None)
        self._proxy.is_frozen = False

    def freeze_lists(self) -> None:
        """Lists that were asked for once stay as they were then."""
        self._proxy.is_frozen = True

    @property
    def late_lists(self) -> int:
        """How many were answered so."""
        return self._proxy.late

    @contextmanager
    def away(self, after: float = 0.0) -> Iterator[None]:
        """Every request is refused inside, and that share of them behind."""
        self.script(lambda request: OUT_OF_ORDER)
        try:
            yield
        finally:
            self.storm(after)

    def uploads(self) -> list[str]:
        """The keys of uploads that nobody finished or aborted."""
        return asyncio.run(_uploads(self.prefix))

    def sweep_uploads(self) -> int:
        """As an agent that tries the storage after a day; how many uploads it aborts."""
        return asyncio.run(_swept(self.prefix))

    def copy_to(self, directory: Path) -> Path:
        """All objects as files below a directory."""
        asyncio.run(_copied(self.prefix, directory))
        return directory


async def _uploads(prefix: str) -> list[str]:
    async with shared_seaweedfs().client() as client:
        found = await client.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix)
    return [each["Key"] for each in found.get("Uploads", [])]


async def _swept(prefix: str) -> int:
    settings = shared_seaweedfs().settings(prefix.rstrip("/"))
    storage = await S3Storage.open(settings)
    try:
        return await storage.abort_stale_uploads(older_than_s=0.0)
    finally:
        await storage.aclose()


async def _copied(prefix: str, directory: Path) -> None:
    async with shared_seaweedfs().client() as client:
        pages = client.get_paginator("list_objects_v2")
        async for page in pages.paginate(Bucket=BUCKET, Prefix=prefix):
            for each in page.get("Contents", []):
                answer = await client.get_object(Bucket=BUCKET, Key=each["Key"])
                path = directory / each["Key"].removeprefix(prefix)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(await answer["Body"].read())
