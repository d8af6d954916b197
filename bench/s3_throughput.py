"""How close the S3 driver comes to aiobotocore called directly, in one run on one server.

    python -m bench.s3_throughput [--mib 256] [--rounds 8]

Both store one object in parts of the same size with the same number under way, then read it back in
the same ranges, on the event loop that agents run on; rounds alternate, the median counts. Wanted:
a ratio of at least 0.9 each way. Seconds of CPU are this process's, and hold on a busy machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from io import BytesIO
from statistics import median
from typing import Any

import uvloop

from agent.storage.s3.driver import S3Storage
from tests.support.servers.seaweedfs import AGENT, BUCKET, SeaweedFS

PART = 8 << 20
IN_FLIGHT = 4
BLOCK = os.urandom(1 << 20)


async def put_bare(client: Any, key: str, mib: int) -> None:
    """The same upload with nothing around it: no checksum, no retries, no conditions."""
    made = await client.create_multipart_upload(Bucket=BUCKET, Key=key)
    slots = asyncio.Semaphore(IN_FLIGHT)
    etags: dict[int, str] = {}
    body = BLOCK * (PART >> 20)

    async def send(number: int) -> None:
        async with slots:
            answer = await client.upload_part(
                Bucket=BUCKET,
                Key=key,
                UploadId=made["UploadId"],
                PartNumber=number,
                Body=BytesIO(body),
            )
            etags[number] = answer["ETag"]

    async with asyncio.TaskGroup() as group:
        for number in range(1, (mib << 20) // PART + 1):
            group.create_task(send(number))
    await client.complete_multipart_upload(
        Bucket=BUCKET,
        Key=key,
        UploadId=made["UploadId"],
        MultipartUpload={
            "Parts": [{"PartNumber": each, "ETag": etags[each]} for each in sorted(etags)]
        },
    )


async def get_bare(client: Any, key: str, mib: int) -> None:
    """Ranges of the same size, as many at once, thrown away."""
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def fetch(start: int) -> None:
        async with slots:
            span = f"bytes={start}-{start + PART - 1}"
            answer = await client.get_object(Bucket=BUCKET, Key=key, Range=span)
            while await answer["Body"].read(1 << 20):
                pass

    async with asyncio.TaskGroup() as group:
        for start in range(0, mib << 20, PART):
            group.create_task(fetch(start))


async def put_driver(storage: S3Storage, key: str, mib: int) -> None:
    """As agents do it."""

    async def source() -> AsyncIterator[bytes]:
        for _ in range(mib):
            yield BLOCK

    await storage.put(key, source(), size_hint=mib << 20)


async def get_driver(storage: S3Storage, key: str) -> None:
    """As agents do it."""
    async with storage.get(key) as stream:
        async for _block in stream:
            pass


async def timed(call: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    """Seconds by the clock, and of CPU."""
    started, used = time.perf_counter(), time.process_time()
    await call()
    return time.perf_counter() - started, time.process_time() - used


async def measure(server: SeaweedFS, mib: int, rounds: int) -> None:
    """Print a line for each way."""
    prefix = f"bench/{secrets.token_hex(4)}"
    settings = server.settings(prefix, uploadPartSize=PART, uploadConcurrency=IN_FLIGHT)
    storage = await S3Storage.open(settings)
    await storage.verify()
    found: dict[str, list[tuple[float, float]]] = {
        name: [] for name in ("put", "put bare", "get", "get bare")
    }
    async with server.client(AGENT) as client:
        for number in range(rounds):
            bare, own = f"{prefix}/bare{number}", f"own{number}"
            found["put bare"].append(await timed(lambda: put_bare(client, bare, mib)))  # noqa: B023
            found["put"].append(await timed(lambda: put_driver(storage, own, mib)))  # noqa: B023
            found["get bare"].append(await timed(lambda: get_bare(client, bare, mib)))  # noqa: B023
            found["get"].append(await timed(lambda: get_driver(storage, own)))  # noqa: B023
            await client.delete_object(Bucket=BUCKET, Key=bare)
            await storage.delete([own])
    await storage.aclose()
    for way in ("put", "get"):
        (own_s, own_cpu_s), (bare_s, bare_cpu_s) = (
            [median(column) for column in zip(*found[name], strict=True)]
            for name in (way, f"{way} bare")
        )
        print(
            f"{way}: driver {mib / own_s:.0f} MiB/s, aiobotocore {mib / bare_s:.0f} MiB/s, "
            f"ratio {bare_s / own_s:.2f}; CPU {own_cpu_s:.2f} s and {bare_cpu_s:.2f} s"
        )


def main() -> None:
    """Start a server and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args()
    server = SeaweedFS()
    server.start()
    try:
        uvloop.run(measure(server, arguments.mib, arguments.rounds))
    finally:
        server.stop()


if __name__ == "__main__":
    main()
