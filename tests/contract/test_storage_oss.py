"""What is particular to Alibaba Cloud OSS, against the stand-in that checks every signature; what
the requests said is written down by it, and a proxy lets some of them fail."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest

from agent.errors import (
    ConfigError,
    IntegrityError,
    ObjectExists,
    ObjectNotFound,
    PermissionDenied,
    StorageUnavailable,
)
from agent.storage.base import blocks, get_bytes, put_bytes
from agent.storage.oss.driver import OssStorage
from agent.storage.registry import StorageOptions, open_storage
from agent.storage.retrying import RetryPolicy
from agent.storage.surroundings import Surroundings
from agent.wire.storage_oss import OssSettings
from agent.wire.storage_settings import StorageSettings
from tests.support.servers.aliyun.server import AGENT, AliyunServer, shared_aliyun
from tests.support.servers.proxy import Action, Cut, Proxy, Refuse, Seen

pytestmark = pytest.mark.contract

MIB = 1 << 20
BODY = random.Random(7).randbytes(16 * MIB + 12345)
SMALL: dict[str, Any] = {"uploadPartSize": "5MiB", "uploadConcurrency": 2}
QUICK = RetryPolicy(max_attempts=6, base_delay_s=0.01, max_backoff_s=0.1)


@pytest.fixture
def server() -> AliyunServer:
    server = shared_aliyun()
    server.tell("seen")
    return server


@pytest.fixture
async def proxy(server: AliyunServer) -> AsyncIterator[Proxy]:
    async with Proxy(server.url) as proxy:
        yield proxy


@asynccontextmanager
async def opened(
    settings: OssSettings,
    policy: RetryPolicy = QUICK,
    environment: dict[str, str] | None = None,
) -> AsyncIterator[OssStorage]:
    around = Surroundings(policy=policy, environment=environment or {})
    storage = await OssStorage.open(settings, around)
    try:
        yield storage
    finally:
        await storage.aclose()


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 700_000):
        yield body[start : start + 700_000]


def nth(operation: str, *which: int, action: Action) -> Callable[[Seen], Action]:
    """Do this to the nth requests of an operation, from 1 on."""
    counter = count(1)

    def decide(request: Seen) -> Action:
        return action if request.operation == operation and next(counter) in which else None

    return decide


def making(server: AliyunServer) -> list[dict[str, str]]:
    """The requests that make objects, seen by the server."""
    seen: list[dict[str, str]] = server.tell("seen")["oss"]
    return [each for each in seen if "x-oss-meta-tidelog-put" in each]


# What is sent


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"sseAlgorithm": "AES256"}, ("AES256", None, None)),
        ({"sseAlgorithm": "SM4"}, ("SM4", None, None)),
        ({"sseAlgorithm": "KMS"}, ("KMS", None, None)),
        (
            {"sseAlgorithm": "KMS", "kmsMasterKeyID": "key-1", "kmsDataEncryption": "AES256"},
            ("KMS", "key-1", "AES256"),
        ),
        (
            {"sseAlgorithm": "KMS", "kmsMasterKeyID": "key-1", "kmsDataEncryption": "SM4"},
            ("KMS", "key-1", "SM4"),
        ),
        ({}, (None, None, None)),
    ],
    ids=["AES256", "SM4", "KMS", "KMS with a key", "KMS with SM4", "none"],
)
async def test_every_writing_call_carries_the_encryption(
    server: AliyunServer, given: dict[str, str], wanted: tuple[str | None, ...]
) -> None:
    """A23–A28: what is not set is no empty header."""
    async with opened(server.settings(serverSideEncryption=given, **SMALL)) as storage:
        await put_bytes(storage, "small", b"x")
        await storage.put("large", pieces(BODY))
        assert await get_bytes(storage, "large") == BODY
    requests = making(server)
    assert [each[" action"] for each in requests] == ["oss:PutObject"] * 2
    for request in requests:
        assert (
            request.get("x-oss-server-side-encryption"),
            request.get("x-oss-server-side-encryption-key-id"),
            request.get("x-oss-server-side-data-encryption"),
        ) == wanted
        assert "x-oss-object-acl" not in request


async def test_the_storage_class_goes_with_each_object(server: AliyunServer) -> None:
    async with opened(server.settings(storageClass="IA", **SMALL)) as storage:
        await put_bytes(storage, "small", b"x")
        await storage.put("large", pieces(BODY))
    assert [each["x-oss-storage-class"] for each in making(server)] == ["IA", "IA"]


@pytest.mark.parametrize("region", ["eu-central-1", None])
async def test_a_bucket_is_a_host_of_its_own_reached_through_a_proxy(
    server: AliyunServer, monkeypatch: pytest.MonkeyPatch, region: str | None
) -> None:
    """As with the vendor's own endpoints, A14; the region may be left to the endpoint's name."""
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    endpoint = "http://oss-eu-central-1-internal.aliyuncs.com"
    async with opened(server.settings(endpointUrl=endpoint, region=region)) as storage:
        await storage.verify()
        await put_bytes(storage, "a/b c+中 &?%41", b"x")
        assert [found.key async for found in storage.list("a/")] == ["a/b c+中 &?%41"]
    hosts = {each[" host"] for each in server.tell("seen")["oss"]}
    assert hosts == {"tidelog-test.oss-eu-central-1-internal.aliyuncs.com"}


async def test_a_region_that_nothing_names_is_asked_for(server: AliyunServer) -> None:
    with pytest.raises(ConfigError, match="region") as caught:
        await OssStorage.open(server.settings(region=None), Surroundings(environment={}))
    assert "storage.oss.region" in caught.value.hint


async def test_another_region_is_refused_by_the_signature(server: AliyunServer) -> None:
    async with opened(server.settings(region="cn-hangzhou")) as storage:
        with pytest.raises(Exception, match="region"):
            await put_bytes(storage, "key", b"x")


async def test_a_node_may_have_an_endpoint_of_its_own(server: AliyunServer, proxy: Proxy) -> None:
    """A2, A38."""
    section = server.settings(endpointUrlMap={"db1:27017": proxy.url})
    settings = StorageSettings(type="oss", oss=section)
    for node, passed in (("db1:27017", True), ("db2:27017", False)):
        proxy.requests.clear()
        storage = await open_storage(settings, StorageOptions(node=node))
        await storage.verify()
        await storage.aclose()
        assert bool(proxy.requests) is passed


# What is refused


async def test_a_wrong_secret_is_told_apart_from_an_unknown_key(server: AliyunServer) -> None:
    """The server recomputes every signature: a request signed with anything else fails."""
    wrong = AGENT._replace(secret_key="another")
    async with opened(server.settings(identity=wrong)) as storage:
        with pytest.raises(PermissionDenied, match="SignatureDoesNotMatch") as caught:
            await put_bytes(storage, "key", b"x")
        assert "secret" in caught.value.hint
        assert "another" not in str(caught.value) + caught.value.hint
    unknown = AGENT._replace(access_key="LTAI5tUnknown")
    async with opened(server.settings(identity=unknown)) as storage:
        with pytest.raises(PermissionDenied, match="InvalidAccessKeyId"):
            await get_bytes(storage, "key")


@pytest.mark.parametrize(
    ("denied", "verb"),
    [
        ("oss:PutObject", "write"),
        ("oss:GetObject", "write"),  # a key is looked at before it is written
        ("oss:ListObjects", "list"),
        ("oss:DeleteObject", "delete"),
    ],
)
async def test_each_denied_action_is_named(server: AliyunServer, denied: str, verb: str) -> None:
    """A7, A10, A39: store, action, key, request id and what to do; asked once."""
    key, secret = f"LTAI5t{secrets.token_hex(4)}", secrets.token_hex(8)
    server.tell("account", key=key, secret=secret, denied=[denied])
    given = {"accessKeyID": key, "accessKeySecret": secret}
    async with opened(server.settings(credentials=given)) as storage:
        with pytest.raises(PermissionDenied) as caught:
            await storage.verify()
    told = str(caught.value)
    assert f"cannot {verb} 'probes/" in told
    assert "in oss://tidelog-test/test/" in told
    assert "request " in told
    assert denied in told
    assert "docs/storage/oss.md" in caught.value.hint


async def test_a_bucket_that_is_not_there_is_a_matter_of_settings(server: AliyunServer) -> None:
    """A5: it is never created."""
    async with opened(server.settings(bucket="not-there")) as storage:
        with pytest.raises(ConfigError, match="NoSuchBucket"):
            await put_bytes(storage, "key", b"x")


@pytest.mark.parametrize("status", [400, 403, 404])
async def test_what_cannot_get_better_is_not_tried_again(
    proxy: Proxy, server: AliyunServer, status: int
) -> None:
    """A39."""
    async with opened(server.settings(endpointUrl=proxy.url)) as storage:
        await put_bytes(storage, "warm", b"x")
        proxy.script(lambda request: Refuse(status, "SomethingWrong"))
        with pytest.raises(Exception, match=r"cannot write 'key' in oss://.*SomethingWrong"):
            await put_bytes(storage, "key", b"x")
        assert len(proxy.of("put")) == 2


# What is stored is what was sent


async def test_a_part_that_arrives_with_other_bytes_is_sent_again(server: AliyunServer) -> None:
    """The checksum of the service is compared with ours, part by part."""
    async with opened(server.settings(**SMALL)) as storage:
        server.tell("faults", wrong_bodies=2)
        await storage.put("large", pieces(BODY))
        assert await get_bytes(storage, "large") == BODY


async def test_an_object_that_arrives_with_other_bytes_is_refused_and_sent_again(
    server: AliyunServer,
) -> None:
    async with opened(server.settings()) as storage:
        server.tell("faults", wrong_bodies=1)
        await put_bytes(storage, "small", b"what is meant")
        assert await get_bytes(storage, "small") == b"what is meant"


async def test_a_whole_that_differs_is_removed_and_told(
    server: AliyunServer, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(server.settings(**SMALL)) as storage:
        monkeypatch.setattr("agent.storage.oss.writing.crc64_joined", lambda parts: 4711)
        with pytest.raises(IntegrityError, match="CRC-64 4711"):
            await storage.put("large", pieces(BODY))
        with pytest.raises(ObjectNotFound):
            await storage.stat("large")


async def test_a_bucket_with_versioning_is_found_out(server: AliyunServer) -> None:
    """It ignores the condition: a key is looked at before it is written."""
    server.tell("versioning", on=True)
    try:
        async with opened(server.settings(**SMALL)) as storage:
            await put_bytes(storage, "key", b"first")
            assert not storage.capabilities.conditional_put
            for body in (b"second", BODY):
                with pytest.raises(ObjectExists):
                    await storage.put("key", pieces(body))
            assert await get_bytes(storage, "key") == b"first"
    finally:
        server.tell("versioning", on=False)


# Faults


async def test_attempts_are_counted_with_the_first_one(server: AliyunServer, proxy: Proxy) -> None:
    """A34: with maxAttempts N, N-1 failures are survived and N are not."""
    settings = server.settings(
        endpointUrl=proxy.url, retryer={"maxAttempts": 3, "baseDelay": "10ms", "maxBackoff": 30}
    )
    storage = await open_storage(StorageSettings(type="oss", oss=settings))
    await put_bytes(storage, "warm", b"x")
    proxy.script(nth("put", 1, 2, action=Refuse(500, "InternalError")))
    await put_bytes(storage, "good", b"x")
    proxy.script(lambda request: Refuse(500, "InternalError"))
    before = len(proxy.of("put"))
    with pytest.raises(StorageUnavailable, match="InternalError"):
        await put_bytes(storage, "bad", b"x")
    assert len(proxy.of("put")) == before + 3
    await storage.aclose()


@pytest.mark.parametrize("operation", ["put", "create", "part", "complete"])
async def test_a_lost_answer_neither_fails_nor_doubles(
    proxy: Proxy, server: AliyunServer, operation: str
) -> None:
    """The request was carried out; the next attempt must recognise its own work."""
    async with opened(server.settings(endpointUrl=proxy.url, **SMALL)) as storage:
        await put_bytes(storage, "warm", b"x")
        proxy.script(nth(operation, 1, action=Cut(answered=True)))
        body = b"small" if operation == "put" else BODY
        await storage.put("key", pieces(body))
        assert await get_bytes(storage, "key") == body
        with pytest.raises(ObjectExists):
            await storage.put("key", pieces(body))


@pytest.mark.parametrize("fault", ["503 storm", "cut"])
async def test_much_that_fails_ends_done_with_equal_bytes(
    proxy: Proxy, server: AliyunServer, fault: str
) -> None:
    """A37: 30 % of all requests refused, or 20 % cut anywhere; no part of an upload stays."""
    rng = random.Random(8)
    section = server.settings(endpointUrl=proxy.url, **SMALL)
    storage = await open_storage(
        StorageSettings(type="oss", oss=section),
        StorageOptions(policy=RetryPolicy(max_attempts=12, base_delay_s=0.01, max_backoff_s=0.1)),
    )
    await put_bytes(storage, "warm", b"x")

    def storm(request: Seen) -> Action:
        slow_down = Refuse(503, "ServiceUnavailable", {"Retry-After": "0.1"})
        return slow_down if rng.random() < 0.3 else None

    def cut(request: Seen) -> Action:
        if rng.random() >= 0.2:
            return None
        return Cut(after=rng.choice([0, 0, 100, 300_000]), answered=rng.random() < 0.5)

    proxy.script(storm if fault == "503 storm" else cut)
    bodies = {f"key{number}": rng.randbytes(8 * MIB) for number in range(4)}
    async with asyncio.TaskGroup() as group:
        for key, body in bodies.items():
            group.create_task(storage.put(key, blocks(body)))
    for key, body in bodies.items():
        assert await get_bytes(storage, key) == body
    await storage.delete(bodies)
    proxy.script(lambda request: None)
    assert [found.key async for found in storage.list("key")] == []
    await storage.aclose()


async def test_uploads_that_nobody_will_finish_are_aborted_a_day_later(
    server: AliyunServer, proxy: Proxy
) -> None:
    """Those below our prefix, by the server's clock; where that is not allowed nothing fails."""
    settings = server.settings(endpointUrl=proxy.url)
    strays = [f"{settings.prefix}/chunks/{n:02}" for n in range(12)]
    other = f"{settings.prefix}-other/stray"
    async with opened(settings) as storage:
        connection = storage._connection
        for name in (*strays, other):
            await connection.call("POST", "write", name=name, query={"uploads": ""})
        await storage.verify()
        assert uploads(server, settings) == [other, *strays], "they are not old yet"
        proxy.script(lambda seen: Refuse(403, "AccessDenied") if "uploads" in seen.query else None)
        await storage.verify()
        assert await storage.abort_stale_uploads(older_than_s=0.0) == 0
        proxy.script(lambda seen: None)
        server.tell("page-of-uploads", most=5)
        assert await storage.abort_stale_uploads(older_than_s=0.0) == len(strays)
        assert uploads(server, settings) == [other]


def uploads(server: AliyunServer, settings: OssSettings) -> list[str]:
    """The names of those under way, of every prefix that begins like this."""
    return sorted(server.tell("uploads", prefix=settings.prefix))
