"""Azure and GCS when requests are refused, cut and answered wrongly."""

from __future__ import annotations

import gc
import random
import secrets
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from agent.errors import (
    ConfigError,
    IntegrityError,
    Permanent,
    PermissionDenied,
    StorageUnavailable,
)
from agent.storage.base import Storage, get_bytes, put_bytes
from agent.storage.registry import StorageOptions, open_storage
from agent.storage.retrying import RetryPolicy
from agent.wire.storage_settings import StorageSettings
from tests.support.servers.azurite import ACCOUNT, shared_azurite
from tests.support.servers.fake_gcs import Front, shared_fake_gcs
from tests.support.servers.proxy import Action, Cut, Flip, Proxy, Refuse, Seen

pytestmark = pytest.mark.contract

MIB = 1 << 20
POLICY = RetryPolicy(max_attempts=12, base_delay_s=0.01, max_backoff_s=0.05)


@asynccontextmanager
async def azure(**more: str) -> AsyncIterator[tuple[Storage, Proxy]]:
    server = shared_azurite()
    async with server.client(), Proxy(server.url.removesuffix(f"/{ACCOUNT}")) as proxy:
        settings = server.settings(
            secrets.token_hex(4),
            endpointUrl=f"{proxy.url}/{ACCOUNT}",
            uploadPartSize="1MiB",
            **more,
        )
        storage = await open_storage(
            StorageSettings(type="azure", azure=settings), StorageOptions(policy=POLICY)
        )
        yield storage, proxy
        await storage.aclose()


@asynccontextmanager
async def gcs(**more: str) -> AsyncIterator[tuple[Storage, Proxy]]:
    server = shared_fake_gcs()
    async with Front(server.url) as front:
        settings = server.settings(
            secrets.token_hex(4), endpointUrl=front.url, uploadPartSize="1MiB", **more
        )
        options = StorageOptions(policy=POLICY, environment={"STORAGE_EMULATOR_HOST": front.url})
        storage = await open_storage(StorageSettings(type="gcs", gcs=settings), options)
        yield storage, front
        await storage.aclose()


@pytest.fixture(params=[azure, gcs])
async def cloud(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Storage, Proxy]]:
    async with request.param() as cloud:
        yield cloud


async def body_of(seed: int, mebibytes: int) -> AsyncIterator[bytes]:
    rng = random.Random(seed)
    for _ in range(mebibytes):
        yield rng.randbytes(MIB)


async def whole(seed: int, mebibytes: int) -> bytes:
    return b"".join([block async for block in body_of(seed, mebibytes)])


@pytest.mark.parametrize(
    "absent", [lambda: azure(container="not-there"), lambda: gcs(bucket="not-there")]
)
async def test_a_bucket_that_is_not_there_is_a_matter_of_settings(
    absent: Callable[[], AbstractAsyncContextManager[tuple[Storage, Proxy]]],
) -> None:
    async with absent() as (storage, _):
        for ask in (put_bytes(storage, "key", b"x"), anext(storage.list("")), storage.verify()):
            with pytest.raises(ConfigError) as told:
                await ask
            assert "first; it is never created here" in told.value.hint
    async with absent() as (storage, _):
        with pytest.raises(ConfigError):
            await storage.put("long", body_of(1, 3))


async def test_a_storm_that_refuses_a_third_is_ridden_out(cloud: tuple[Storage, Proxy]) -> None:
    storage, proxy = cloud
    rng = random.Random(3)

    def storm(request: Seen) -> Action:
        refused = rng.random() < 0.3
        return Refuse(503, "ServerBusy", {"Retry-After": "0.1"}) if refused else None

    proxy.script(storm)
    await storage.put("key", body_of(1, 5))
    assert await get_bytes(storage, "key") == await whole(1, 5)


async def test_a_fifth_of_all_requests_cut_before_or_behind_changes_nothing(
    cloud: tuple[Storage, Proxy],
) -> None:
    storage, proxy = cloud
    rng = random.Random(5)

    def cut(request: Seen) -> Action:
        return Cut(answered=rng.random() < 0.5) if rng.random() < 0.2 else None

    proxy.script(cut)
    await storage.put("long", body_of(2, 5))
    await put_bytes(storage, "short", b"body")
    assert await get_bytes(storage, "long") == await whole(2, 5)
    assert await get_bytes(storage, "short") == b"body"
    assert [found.key async for found in storage.list("")] == ["long", "short"]


async def test_bytes_that_change_on_the_way_are_refused_and_sent_again(
    cloud: tuple[Storage, Proxy],
) -> None:
    storage, proxy = cloud
    changed = iter([Flip()])

    def change(request: Seen) -> Action:
        return next(changed, None) if request.method in ("PUT", "POST") else None

    proxy.script(change)
    await put_bytes(storage, "key", b"body" * 100)
    assert next(changed, None) is None
    assert await get_bytes(storage, "key") == b"body" * 100


async def test_of_a_long_upload_no_changed_byte_is_kept(cloud: tuple[Storage, Proxy]) -> None:
    """Azure looks at each block; Google tells the checksum of the whole, and then it is removed."""
    storage, proxy = cloud
    changed = iter([Flip()])

    def change(request: Seen) -> Action:
        return next(changed, None) if request.method == "PUT" else None

    proxy.script(change)
    failed: IntegrityError | None = None
    try:
        await storage.put("key", body_of(7, 5))
    except IntegrityError as error:
        failed = error
    if failed is None:
        assert await get_bytes(storage, "key") == await whole(7, 5)
    else:
        assert storage.address.startswith("gs://")
        assert "are stored" in str(failed)
        assert [found.key async for found in storage.list("")] == []
    assert next(changed, None) is None


async def test_a_read_that_is_cut_at_a_byte_goes_on_there(cloud: tuple[Storage, Proxy]) -> None:
    storage, proxy = cloud
    await storage.put("key", body_of(4, 3))
    cuts = iter([300_000, 700_001, 1])

    def cut(request: Seen) -> Action:
        after = next(cuts, None) if request.method == "GET" else None
        return None if after is None else Cut(after=after)

    proxy.script(cut)
    assert await get_bytes(storage, "key") == await whole(4, 3)


@pytest.mark.parametrize(("status", "kind"), [(400, Permanent), (403, PermissionDenied)])
async def test_what_cannot_get_better_is_asked_once(
    cloud: tuple[Storage, Proxy], status: int, kind: type[Exception]
) -> None:
    storage, proxy = cloud
    proxy.script(lambda request: Refuse(status, ""))
    with pytest.raises(kind, match="cannot write 'key' in"):
        await put_bytes(storage, "key", b"body")
    assert len(proxy.requests) == 1


async def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoints are names that only the proxy knows."""
    azurite, fake = shared_azurite(), shared_fake_gcs()
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with (
        azurite.client(),
        Proxy(azurite.url.removesuffix(f"/{ACCOUNT}")) as before_azure,
        Proxy(fake.url) as before_gcs,
    ):
        sections = {
            "azure": (
                before_azure,
                azurite.settings("p", endpointUrl=f"http://azure-afar/{ACCOUNT}"),
            ),
            "gcs": (before_gcs, fake.settings("p", endpointUrl="http://gcs-afar")),
        }
        for kind, (proxy, section) in sections.items():
            monkeypatch.setenv("http_proxy", proxy.url)
            options = StorageOptions(environment={"STORAGE_EMULATOR_HOST": "http://gcs-afar"})
            settings = StorageSettings.model_validate({"type": kind, kind: section})
            storage = await open_storage(settings, options)
            await put_bytes(storage, key := secrets.token_hex(4), b"body")
            assert await get_bytes(storage, key) == b"body"
            await storage.aclose()
            hosts = {seen.headers["host"] for seen in proxy.requests}
            assert hosts == {f"{kind}-afar"}


@pytest.mark.story("F2", "PBM-1605")
async def test_who_gives_up_says_so_and_leaves_nothing(cloud: tuple[Storage, Proxy]) -> None:
    storage, proxy = cloud

    def broken(request: Seen) -> Action:
        return Refuse(500, "InternalError") if request.method in ("PUT", "POST") else None

    proxy.script(broken)
    with pytest.raises(StorageUnavailable) as raised:
        await put_bytes(storage, "key", b"body")
    assert any("gave up after 12 attempts" in note for note in raised.value.__notes__)
    proxy.script(lambda request: None)
    assert [found.key async for found in storage.list("")] == []


async def test_a_long_upload_to_gcs_needs_the_memory_of_a_few_chunks() -> None:
    """Without the front, which holds whole requests in this process."""
    server = shared_fake_gcs()
    settings = server.settings(secrets.token_hex(4), uploadPartSize="1MiB")
    options = StorageOptions(environment={"STORAGE_EMULATOR_HOST": server.url})
    storage = await open_storage(StorageSettings(type="gcs", gcs=settings), options)
    await storage.verify()
    gc.collect()
    tracemalloc.start()
    try:
        stored = await storage.put("long", body_of(6, 32))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        await storage.aclose()
    assert stored.size_bytes == 32 * MIB
    assert peak < 10 * MIB
