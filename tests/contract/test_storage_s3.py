"""What the S3 driver adds to the common contract, against SeaweedFS, alone or behind a proxy that
writes requests down and lets some of them fail."""

from __future__ import annotations

import asyncio
import base64
import os
import random
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
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
    TidelogError,
)
from agent.storage.base import blocks, get_bytes, put_bytes
from agent.storage.registry import StorageOptions, open_storage
from agent.storage.retrying import RetryPolicy
from agent.storage.s3.driver import S3Storage
from agent.storage.s3.sessions import new_session
from agent.storage.surroundings import Surroundings
from agent.wire.storage_s3 import S3Settings
from agent.wire.storage_settings import StorageSettings
from tests.support.servers.moto import shared_moto
from tests.support.servers.proxy import Action, Cut, Proxy, Refuse, Seen
from tests.support.servers.seaweedfs import (
    BUCKET,
    DOMAIN,
    READER,
    Identity,
    SeaweedFS,
    shared_seaweedfs,
)

pytestmark = pytest.mark.contract

MIB = 1024 * 1024
SMALL = {"uploadPartSize": "5MiB", "uploadConcurrency": 3}
QUICK = RetryPolicy(max_attempts=6, base_delay_s=0.01, max_backoff_s=0.05)
BODY = random.Random(5).randbytes(17 * MIB + 3)


@pytest.fixture(scope="module")
def server() -> SeaweedFS:
    return shared_seaweedfs()


@pytest.fixture
async def proxy(server: SeaweedFS) -> AsyncIterator[Proxy]:
    async with Proxy(server.http) as proxy:
        yield proxy


@asynccontextmanager
async def opened(
    settings: S3Settings, policy: RetryPolicy = QUICK, node: str = ""
) -> AsyncIterator[S3Storage]:
    storage = await S3Storage.open(settings, Surroundings(node=node, policy=policy))
    try:
        yield storage
    finally:
        await storage.aclose()


def at(proxy: Proxy, server: SeaweedFS, **more: Any) -> S3Settings:
    return server.settings(f"s3/{secrets.token_hex(4)}", endpointUrl=proxy.url, **SMALL, **more)


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 700_000):
        yield body[start : start + 700_000]


async def uploads(server: SeaweedFS, prefix: str) -> list[str]:
    async with server.client() as client:
        found = await client.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix)
    return sorted(each["Key"] for each in found.get("Uploads", []))


def nth(operation: str, *which: int, action: Action) -> Callable[[Seen], Action]:
    """Do this to the nth requests of an operation, from 1 on."""
    counter = count(1)

    def decide(request: Seen) -> Action:
        return action if request.operation == operation and next(counter) in which else None

    return decide


# What is sent


async def test_every_writing_call_carries_the_encryption_and_no_acl(
    proxy: Proxy, server: SeaweedFS
) -> None:
    """A23–A25 for S3, E2."""
    settings = at(proxy, server, serverSideEncryption={"sseAlgorithm": "AES256"})
    async with opened(settings) as storage:
        await put_bytes(storage, "small", b"x")
        await storage.put("large", pieces(BODY))
        assert await get_bytes(storage, "large") == BODY
    making = [seen for seen in proxy.requests if seen.operation in ("put", "create")]
    assert len(making) == 4  # two of the probe
    for request in making:
        assert request.headers["x-amz-server-side-encryption"] == "AES256"
    assert not [seen for seen in proxy.requests if "x-amz-acl" in seen.headers]


async def test_kms_and_its_key_are_named(proxy: Proxy, server: SeaweedFS) -> None:
    """A26, A28: a key that is not given is no empty header."""
    proxy.script(lambda request: Refuse(403, "AccessDenied"))
    for key in (None, "arn:aws:kms:us-east-1:1:key/abc"):
        given = {"sseAlgorithm": "aws:kms"} | ({"kmsKeyID": key} if key else {})
        async with opened(at(proxy, server, serverSideEncryption=given)) as storage:
            with pytest.raises(PermissionDenied):
                await put_bytes(storage, "key", b"x")
        headers = proxy.requests[-2].headers
        assert headers["x-amz-server-side-encryption"] == "aws:kms"
        assert headers.get("x-amz-server-side-encryption-aws-kms-key-id") == key


@pytest.mark.parametrize(
    "asked",
    [
        {"sseAlgorithm": "AES256"},
        {"sseAlgorithm": "aws:kms"},
        {"sseAlgorithm": "aws:kms", "kmsKeyID": "arn:aws:kms:us-east-1:123456789012:key/one"},
    ],
)
async def test_what_is_stored_says_how_it_is_encrypted(asked: dict[str, str]) -> None:
    """A26–A28, by a server that keeps it with each object: in one piece and in parts."""
    url, login = shared_moto().url, Identity("a", "b").written()
    settings = S3Settings.model_validate(
        {"bucket": "encrypted", "prefix": secrets.token_hex(4), "region": "us-east-1"}
        | {"endpointUrl": url, "credentials": login, "serverSideEncryption": asked}
        | {"forcePathStyle": True, **SMALL}
    )
    client = new_session().create_client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    async with client as bare:
        await bare.create_bucket(Bucket="encrypted")
        async with opened(settings) as storage:
            await put_bytes(storage, "small", b"x")
            await storage.put("large", pieces(BODY))
            assert await get_bytes(storage, "large") == BODY
        for key in ("small", "large"):
            told = await bare.head_object(Bucket="encrypted", Key=f"{settings.prefix}/{key}")
            assert told["ServerSideEncryption"] == asked["sseAlgorithm"]
            assert told.get("SSEKMSKeyId") == asked.get("kmsKeyID")


async def test_a_customers_key_goes_with_each_call_and_is_needed_to_read(
    server: SeaweedFS,
) -> None:
    prefix = f"s3/{secrets.token_hex(4)}"
    key = base64.b64encode(os.urandom(32)).decode()
    tls: dict[str, Any] = {
        "endpointUrl": server.https,
        "endpointCA": {"file": str(server.certificates.ca)},
        **SMALL,
    }
    with_key = tls | {"serverSideEncryption": {"sseCustomerKey": key}}
    async with opened(server.settings(prefix, **with_key)) as storage:
        await put_bytes(storage, "small", b"abc")
        await storage.put("large", pieces(BODY))
        assert await get_bytes(storage, "small") == b"abc"
        assert await get_bytes(storage, "large") == BODY
        assert (await storage.stat("large")).size_bytes == len(BODY)
    async with opened(server.settings(prefix, **tls)) as storage:
        with pytest.raises(TidelogError, match="small"):
            await get_bytes(storage, "small")
    another = base64.b64encode(os.urandom(32)).decode()
    with_another = tls | {"serverSideEncryption": {"sseCustomerKey": another}}
    async with opened(server.settings(prefix, **with_another)) as storage:
        with pytest.raises(TidelogError, match="cannot read 'small' in s3://") as refused:
            await get_bytes(storage, "small")
    assert "sseCustomerKey" in (refused.value.hint or "")
    assert another not in f"{refused.value} {refused.value.hint}"


async def test_a_customers_key_is_never_sent_in_clear(server: SeaweedFS) -> None:
    key = base64.b64encode(bytes(32)).decode()
    with pytest.raises(ConfigError, match="in clear"):
        await S3Storage.open(server.settings(serverSideEncryption={"sseCustomerKey": key}))


async def test_uploads_carry_a_checksum_as_header_and_never_a_trailer(
    proxy: Proxy, server: SeaweedFS
) -> None:
    async with opened(at(proxy, server)) as storage:
        await storage.put("large", pieces(BODY))
    for request in (*proxy.of("part"), *proxy.of("put")):
        assert "x-amz-checksum-crc32" in request.headers
        assert "x-amz-trailer" not in request.headers
        assert "aws-chunked" not in request.headers.get("content-encoding", "")


@pytest.mark.parametrize("status", [400, 501])
async def test_a_server_that_refuses_checksums_is_asked_once_and_served(
    proxy: Proxy, server: SeaweedFS, status: int
) -> None:
    def decide(request: Seen) -> Action:
        is_new = "x-amz-checksum-crc32" in request.headers
        return Refuse(status, "NotImplemented") if is_new else None

    proxy.script(decide)
    async with opened(at(proxy, server)) as storage:
        for number in range(3):
            await put_bytes(storage, f"key{number}", b"x")
        await storage.put("large", pieces(BODY))
        assert await get_bytes(storage, "large") == BODY
    refused = [seen for seen in proxy.requests if "x-amz-checksum-crc32" in seen.headers]
    assert len(refused) == 1
    assert all("content-md5" in seen.headers for seen in proxy.of("part"))


@pytest.mark.parametrize("ignored", [True, False], ids=["ignored", "refused"])
async def test_a_server_without_conditional_writes_is_found_out(
    proxy: Proxy, server: SeaweedFS, ignored: bool
) -> None:
    """Taken keys are refused all the same, as far as a look beforehand can tell."""

    def decide(request: Seen) -> Action:
        if "if-none-match" not in request.headers:
            return None
        if ignored:
            return Refuse(200, "")
        return Refuse(501, "NotImplemented")

    proxy.script(decide)
    async with opened(at(proxy, server)) as storage:
        await put_bytes(storage, "key", b"first")
        assert not storage.capabilities.conditional_put
        with pytest.raises(ObjectExists):
            await put_bytes(storage, "key", b"second")
        assert await get_bytes(storage, "key") == b"first"
    assert len([seen for seen in proxy.requests if "if-none-match" in seen.headers]) == 1


async def test_the_storage_class_and_the_prefix_are_used(proxy: Proxy, server: SeaweedFS) -> None:
    async with opened(at(proxy, server, storageClass="STANDARD_IA")) as storage:
        await put_bytes(storage, "key", b"x")
    last = proxy.of("put")[-1]
    assert last.headers["x-amz-storage-class"] == "STANDARD_IA"
    assert last.path.startswith(f"/{BUCKET}/s3/")


# Faults


async def test_a_part_that_fails_is_sent_again_alone(proxy: Proxy, server: SeaweedFS) -> None:
    """A34, A37: each of these once, and the upload goes on."""
    failures: Iterator[Action] = iter(
        [Cut(answered=False), Refuse(503, "SlowDown"), Refuse(500, "InternalError")]
    )
    counter = count(1)

    def decide(request: Seen) -> Action:
        if request.operation == "part" and next(counter) in (1, 3, 5):
            return next(failures, None)
        return None

    proxy.script(decide)
    async with opened(at(proxy, server)) as storage:
        await storage.put("large", pieces(BODY))
        assert await get_bytes(storage, "large") == BODY
    assert len(proxy.of("part")) == 4 + 3
    assert len(proxy.of("create")) == 1


@pytest.mark.parametrize("operation", ["put", "create", "part", "complete"])
async def test_a_lost_answer_neither_fails_nor_doubles(
    proxy: Proxy, server: SeaweedFS, operation: str
) -> None:
    """The request was carried out; the next attempt must recognise its own work."""
    async with opened(at(proxy, server)) as storage:
        await put_bytes(storage, "warm", b"x")
        proxy.script(nth(operation, 1, action=Cut(answered=True)))
        body = b"small" if operation == "put" else BODY
        await storage.put("key", pieces(body))
        assert await get_bytes(storage, "key") == body
        with pytest.raises(ObjectExists):
            await storage.put("key", pieces(body))


@pytest.mark.parametrize("status", [400, 403, 404])
async def test_what_cannot_get_better_is_not_tried_again(
    proxy: Proxy, server: SeaweedFS, status: int
) -> None:
    """A39."""
    async with opened(at(proxy, server)) as storage:
        await put_bytes(storage, "warm", b"x")
        proxy.script(lambda request: Refuse(status, "SomethingWrong"))
        before = len(proxy.of("put"))
        with pytest.raises(TidelogError, match=r"cannot write 'key' in s3://.*SomethingWrong"):
            await put_bytes(storage, "key", b"x")
        assert len(proxy.of("put")) == before + 1


async def test_attempts_are_counted_with_the_first_one(proxy: Proxy, server: SeaweedFS) -> None:
    """A34: with maxAttempts N, N-1 failures are survived and N are not."""
    settings = at(proxy, server, retryer={"maxAttempts": 3, "baseDelay": "10ms"})
    storage = await open_storage(StorageSettings(type="s3", s3=settings))
    await put_bytes(storage, "warm", b"x")
    proxy.script(nth("put", 1, 2, action=Refuse(500, "InternalError")))
    await put_bytes(storage, "good", b"x")
    proxy.script(lambda request: Refuse(500, "InternalError"))
    before = len(proxy.of("put"))
    with pytest.raises(StorageUnavailable, match="InternalError"):
        await put_bytes(storage, "bad", b"x")
    assert len(proxy.of("put")) == before + 3
    await storage.aclose()


async def test_a_storm_of_503_ends_done_and_slows_down(proxy: Proxy, server: SeaweedFS) -> None:
    """30 % of all requests refused: everything is stored, and there are fewer at once."""
    rng = random.Random(8)
    storage = await open_storage(
        StorageSettings(type="s3", s3=at(proxy, server)),
        StorageOptions(policy=RetryPolicy(max_attempts=12, base_delay_s=0.01, max_backoff_s=0.1)),
    )
    await put_bytes(storage, "warm", b"x")
    storm = Refuse(503, "SlowDown", {"Retry-After": "0.1"})
    proxy.script(lambda request: storm if rng.random() < 0.3 else None)
    bodies = {f"key{number}": rng.randbytes(6 * MIB) for number in range(6)}
    async with asyncio.TaskGroup() as group:
        for key, body in bodies.items():
            group.create_task(storage.put(key, blocks(body)))
    for key, body in bodies.items():
        assert await get_bytes(storage, key) == body
    proxy.script(lambda request: None)
    await storage.aclose()


async def test_a_fifth_of_all_requests_cut_ends_done_with_equal_bytes(
    proxy: Proxy, server: SeaweedFS
) -> None:
    """A37, before the request, after it, or in the middle of the answer."""
    rng = random.Random(9)
    storage = await open_storage(
        StorageSettings(type="s3", s3=at(proxy, server)),
        StorageOptions(policy=RetryPolicy(max_attempts=12, base_delay_s=0.01, max_backoff_s=0.1)),
    )
    await put_bytes(storage, "warm", b"x")

    def decide(request: Seen) -> Action:
        if rng.random() >= 0.2:
            return None
        return Cut(after=rng.choice([0, 0, 100, 300_000]), answered=rng.random() < 0.5)

    proxy.script(decide)
    for number in range(3):
        await storage.put(f"key{number}", pieces(BODY[: 12 * MIB]))
        assert await get_bytes(storage, f"key{number}") == BODY[: 12 * MIB]
    assert [found.size_bytes async for found in storage.list("key")] == [12 * MIB] * 3
    await storage.delete([f"key{number}" for number in range(3)])
    proxy.script(lambda request: None)
    assert [found.key async for found in storage.list("key")] == []
    await storage.aclose()


async def test_an_upload_that_fails_for_good_leaves_no_part(
    proxy: Proxy, server: SeaweedFS
) -> None:
    settings = at(proxy, server)
    async with opened(settings) as storage:
        await put_bytes(storage, "warm", b"x")
        proxy.script(nth("part", 2, action=Refuse(403, "AccessDenied")))
        with pytest.raises(PermissionDenied, match=r"'large'.*AccessDenied"):
            await storage.put("large", pieces(BODY))
        assert await uploads(server, settings.prefix) == []
        with pytest.raises(ObjectNotFound):
            await storage.stat("large")


async def test_an_upload_cancelled_while_it_begins_leaves_none_behind(
    proxy: Proxy, server: SeaweedFS
) -> None:
    """The answer with the id of the upload never arrives: it is found by its key."""
    settings = at(proxy, server)
    async with opened(settings) as storage:
        await put_bytes(storage, "warm", b"x")
        reached = asyncio.Event()

        def decide(request: Seen) -> Action:
            if request.operation != "create":
                return None
            if len(proxy.of("create")) == 1:
                return Cut(answered=True)
            reached.set()  # the first one was carried out by now
            return Refuse(503, "SlowDown")

        proxy.script(decide)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(storage.put("large", pieces(BODY)))
            await reached.wait()
            task.cancel()
        assert task.cancelled()
        assert await uploads(server, settings.prefix) == []


async def test_wrong_bytes_on_the_way_are_noticed(proxy: Proxy, server: SeaweedFS) -> None:
    async with opened(at(proxy, server)) as storage:
        await put_bytes(storage, "warm", b"x")
        proxy.script(nth("put", 1, action=Refuse(400, "BadDigest")))
        await put_bytes(storage, "key", b"x")
        assert await get_bytes(storage, "key") == b"x"
        await put_bytes(storage, "longer", bytes(100))
        with pytest.raises(IntegrityError):
            async with storage.get("longer", offset=50, length=51):
                pytest.fail("opened")


# TLS, addresses, permissions


async def test_a_private_authority_is_trusted_when_given(server: SeaweedFS) -> None:
    """C16, C17."""
    prefix = f"s3/{secrets.token_hex(4)}"
    pem = server.certificates.ca.read_text()
    for authority in ({"file": str(server.certificates.ca)}, pem):
        settings = server.settings(prefix, endpointUrl=server.https, endpointCA=authority)
        async with opened(settings) as storage:
            await storage.verify()
    blind = server.settings(prefix, endpointUrl=server.https, insecureSkipTLSVerify=True)
    async with opened(blind) as storage:
        await storage.verify()


async def test_an_unknown_authority_is_named_and_not_tried_again(server: SeaweedFS) -> None:
    async with opened(server.settings("x", endpointUrl=server.https)) as storage:
        with pytest.raises(ConfigError, match="certificate of the server is not trusted") as raised:
            await storage.stat("key")
    assert "endpointCA" in raised.value.hint


async def test_a_bucket_is_a_host_of_its_own_reached_through_a_proxy(
    proxy: Proxy, server: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C14, C15: the style of Amazon and Linode. Only the environment's proxy knows the name."""
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    prefix = f"s3/{secrets.token_hex(4)}"
    given = server.settings(prefix, endpointUrl=f"http://{DOMAIN}", forcePathStyle=False)
    async with opened(given) as storage:
        await put_bytes(storage, "a/b c", b"body")
        assert await get_bytes(storage, "a/b c") == b"body"
        assert [found.key async for found in storage.list("a/")] == ["a/b c"]
    assert {seen.headers["host"] for seen in proxy.requests} == {f"{BUCKET}.{DOMAIN}"}
    assert not any(seen.path.startswith(f"/{BUCKET}/") for seen in proxy.requests)


async def test_a_node_may_have_an_endpoint_of_its_own(proxy: Proxy, server: SeaweedFS) -> None:
    """A38."""
    settings = server.settings(
        f"s3/{secrets.token_hex(4)}", endpointUrlMap={"one.example:27017": proxy.url}
    )
    for node, seen in (("two.example:27017", False), ("one.example:27017", True)):
        storage = await open_storage(
            StorageSettings(type="s3", s3=settings), StorageOptions(node=node)
        )
        await storage.verify()
        assert bool(proxy.requests) is seen
        await storage.aclose()


async def test_what_is_denied_is_named_with_what_to_do(server: SeaweedFS) -> None:
    async with opened(server.settings("x", identity=READER)) as storage:
        with pytest.raises(
            PermissionDenied, match=r"cannot write .*AccessDenied.*\(request "
        ) as it:
            await put_bytes(storage, "key", b"x")
    assert "docs/storage/s3.md" in it.value.hint


@pytest.mark.parametrize(
    ("identity", "words"),
    [
        (Identity("AKAGENT", "wrong" * 5), "SignatureDoesNotMatch"),
        (Identity("AKNOBODY", "x" * 20), "InvalidAccessKeyId"),
    ],
)
async def test_wrong_keys_are_told_apart_and_shown_nowhere(
    server: SeaweedFS, identity: Identity, words: str
) -> None:
    async with opened(server.settings("x", identity=identity)) as storage:
        with pytest.raises(PermissionDenied, match=words) as raised:
            await put_bytes(storage, "key", b"x")
    shown = f"{raised.value} {raised.value.hint} {raised.value.__cause__!r}"
    assert identity.secret_key not in shown


async def test_a_bucket_that_is_missing_is_named(server: SeaweedFS) -> None:
    async with opened(server.settings("x", bucket="no-such-bucket")) as storage:
        with pytest.raises(TidelogError, match="no-such-bucket"):
            await put_bytes(storage, "key", b"x")


async def test_nobody_at_the_endpoint_is_told_with_the_address(server: SeaweedFS) -> None:
    settings = server.settings("x", endpointUrl="http://127.0.0.1:9")
    async with opened(settings, RetryPolicy(max_attempts=1)) as storage:
        with pytest.raises(StorageUnavailable, match=r"127\.0\.0\.1:9"):
            await storage.stat("key")


async def test_minio_keys_open_the_same_driver(server: SeaweedFS) -> None:
    given = {
        "type": "minio",
        "minio": {
            "endpoint": server.http.removeprefix("http://"),
            "bucket": BUCKET,
            "prefix": f"s3/{secrets.token_hex(4)}",
            "credentials": server.settings().credentials,
        },
    }
    storage = await open_storage(StorageSettings.model_validate(given))
    await storage.verify()
    await storage.aclose()


# What a killed writer leaves


async def test_uploads_that_nobody_will_finish_are_aborted_a_day_later(
    server: SeaweedFS, proxy: Proxy
) -> None:
    """Those below our prefix, by the server's clock; where that is not allowed nothing fails."""
    settings = at(proxy, server)
    async with opened(settings) as storage, server.client() as client:
        stray = {"Bucket": BUCKET, "Key": f"{settings.prefix}/chunks/stray"}
        other = {"Bucket": BUCKET, "Key": f"{settings.prefix}-other/stray"}
        elsewhere = await client.create_multipart_upload(**other)
        await client.create_multipart_upload(**stray)
        await storage.verify()
        assert await uploads(server, settings.prefix) == [other["Key"], stray["Key"]]
        proxy.script(lambda seen: Refuse(403, "AccessDenied") if "uploads" in seen.query else None)
        await storage.verify()
        assert await storage.abort_stale_uploads(older_than_s=0.0) == 0
        proxy.script(lambda seen: None)
        assert await storage.abort_stale_uploads(older_than_s=0.0) == 1
        assert await uploads(server, settings.prefix) == [other["Key"]]
        await client.abort_multipart_upload(**other, UploadId=elsewhere["UploadId"])
