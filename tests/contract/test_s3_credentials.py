"""Every way to get credentials for S3, against SeaweedFS's STS and moto's instance metadata; what
the requests said is written down by a proxy."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import web

from agent.errors import ConfigError, PermissionDenied, StorageUnavailable
from agent.storage.base import get_bytes, put_bytes
from agent.storage.precedence import Choice, Link
from agent.storage.retrying import RetryPolicy
from agent.storage.s3.credentials import CredentialChain
from agent.storage.s3.driver import S3Storage
from agent.storage.s3.sessions import new_session
from agent.storage.surroundings import Surroundings
from agent.wire.storage_s3 import S3Credentials, S3Settings
from tests.support.servers.moto import shared_moto
from tests.support.servers.proxy import Action, Proxy, Refuse, Seen
from tests.support.servers.seaweedfs import (
    ADMIN,
    AGENT,
    ROLE,
    WEB_ROLE,
    SeaweedFS,
    shared_seaweedfs,
)

pytestmark = pytest.mark.contract

QUICK = RetryPolicy(max_attempts=4, base_delay_s=0.01, max_backoff_s=0.05)
SUBJECT = "system:serviceaccount:backup:agent"


@pytest.fixture(scope="module")
def server() -> SeaweedFS:
    return shared_seaweedfs()


@pytest.fixture(autouse=True)
def nothing_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials of this machine, and no metadata server unless a test names one."""
    for name in ("AWS_PROFILE", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none either"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def settings(server: SeaweedFS, **credentials: Any) -> S3Settings:
    """With these credentials only, and STS where the server is."""
    given = {"stsEndpointUrl": server.http, **credentials}
    return server.settings(f"who/{secrets.token_hex(4)}", identity=None, credentials=given)


async def works(given: S3Settings, node: str = "") -> Choice:
    """Use the storage; answers which link won."""
    storage = await S3Storage.open(given, Surroundings(node=node, policy=QUICK))
    try:
        await storage.verify()
        return storage.credentials
    finally:
        await storage.aclose()


class Sts:
    """Answers AssumeRole with keys of the server itself and writes down what was asked."""

    def __init__(self, lifetime_s: float = 3600.0) -> None:
        self.asked: list[dict[str, str]] = []
        self.lifetime_s = lifetime_s
        self.keys = AGENT
        self.url = ""

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        form = {name: values[0] for name, values in parse_qs(await request.text()).items()}
        form["signed by"] = request.headers.get("Authorization", "")
        self.asked.append(form)
        ends = (datetime.now(UTC) + timedelta(seconds=self.lifetime_s)).isoformat()
        keys = (
            f"<AccessKeyId>{self.keys.access_key}</AccessKeyId>"
            f"<SecretAccessKey>{self.keys.secret_key}</SecretAccessKey>"
            f"<SessionToken></SessionToken><Expiration>{ends}</Expiration>"
        )
        name = form["Action"]
        body = f"<{name}Response><{name}Result><Credentials>{keys}</Credentials></{name}Result>"
        return web.Response(text=f"{body}</{name}Response>", content_type="text/xml")


@pytest.fixture
async def sts() -> AsyncIterator[Sts]:
    answering = Sts()
    await answering.start()
    yield answering
    await answering.stop()


async def session_of(server: SeaweedFS) -> dict[str, str]:
    """Keys and token of a real session."""
    async with new_session().create_client(
        "sts",
        region_name="us-east-1",
        endpoint_url=server.http,
        aws_access_key_id=ADMIN.access_key,
        aws_secret_access_key=ADMIN.secret_key,
    ) as client:
        found = (await client.assume_role(RoleArn=ROLE, RoleSessionName="test"))["Credentials"]
    return {
        "accessKeyId": found["AccessKeyId"],
        "secretAccessKey": found["SecretAccessKey"],
        "sessionToken": found["SessionToken"],
    }


# The chain, each link for real


async def test_a_key_in_the_settings(server: SeaweedFS) -> None:
    assert (await works(settings(server, **AGENT.written()))).link is Link.EXPLICIT


async def test_a_key_by_reference_is_read_again_when_its_file_changes(
    server: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C6, C18: a rotated secret is used by the next request."""
    path = tmp_path / "secret"
    path.write_text("not yet the right one")
    monkeypatch.setenv("THE_ID", AGENT.access_key)
    given = settings(server, accessKeyId={"env": "THE_ID"}, secretAccessKey={"file": str(path)})
    storage = await S3Storage.open(given, Surroundings(policy=QUICK))
    with pytest.raises(PermissionDenied):
        await put_bytes(storage, "key", b"x")
    path.write_text(AGENT.secret_key + "\n")
    await put_bytes(storage, "key", b"x")
    await storage.aclose()


async def test_a_key_with_a_session_token(server: SeaweedFS) -> None:
    """C5."""
    keys = await session_of(server)
    assert (await works(settings(server, **keys))).link is Link.EXPLICIT
    del keys["sessionToken"]
    with pytest.raises(PermissionDenied):
        await works(settings(server, **keys))


async def test_keys_of_the_environment(server: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", AGENT.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", AGENT.secret_key)
    assert (await works(settings(server))).link is Link.ENVIRONMENT


@pytest.mark.parametrize("by_environment", [True, False])
async def test_a_profile_of_the_shared_files(
    server: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_environment: bool
) -> None:
    path = tmp_path / "credentials"
    keys = f"aws_access_key_id={AGENT.access_key}\naws_secret_access_key={AGENT.secret_key}\n"
    path.write_text(f"[backup]\n{keys}")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    if by_environment:
        monkeypatch.setenv("AWS_PROFILE", "backup")
    given = settings(server) if by_environment else settings(server, profile="backup")
    assert (await works(given)).link is Link.PROFILE


@pytest.mark.parametrize("named_by", ["settings", "environment"])
async def test_a_role_is_assumed_with_what_is_around(
    server: SeaweedFS, monkeypatch: pytest.MonkeyPatch, named_by: str
) -> None:
    """B3, B8, B13: also without any token file, which PBM does not do."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ADMIN.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", ADMIN.secret_key)
    if named_by == "environment":
        monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    given = settings(server, **({"roleArn": ROLE} if named_by == "settings" else {}))
    assert await works(given) == Choice(Link.ENVIRONMENT, ROLE)


async def test_a_web_identity_whose_token_rotates(
    server: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B16, B23–B25: the token is checked by the server, and read again for each session."""
    path = tmp_path / "token"
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(path))
    monkeypatch.setenv("AWS_ROLE_ARN", WEB_ROLE)
    path.write_text(server.issuer.token(SUBJECT, lifetime_s=-60))
    with pytest.raises(StorageUnavailable, match=r"cannot assume .*token has expired"):
        await works(settings(server))
    path.write_text(server.issuer.token(SUBJECT))
    assert await works(settings(server)) == Choice(Link.WEB_IDENTITY)
    path.unlink()
    with pytest.raises(ConfigError, match="token"):
        await works(settings(server))


async def test_instance_metadata_are_the_last_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """B1, against moto's IMDSv2: nothing else is there, so the role of the instance signs."""
    moto = shared_moto()
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", moto.url)
    chain = CredentialChain(S3Credentials(), Surroundings(), region=None, verify=None)
    signer = chain.signer()
    assert signer.choice == Choice(Link.METADATA)
    keys = await signer.get_frozen_credentials()
    assert keys.access_key
    assert keys.token
    assert keys.secret_key is not None
    assert keys.secret_key not in repr(keys)


async def test_a_container_gives_credentials_to_who_shows_its_token(
    server: SeaweedFS, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on ECS, and on EKS with Pod Identity, whose token is a file."""
    keys = {"AccessKeyId": AGENT.access_key, "SecretAccessKey": AGENT.secret_key, "Token": ""}
    ends = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")

    async def answer(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "a-token-of-the-container":
            return web.Response(status=403)
        return web.json_response({**keys, "Expiration": ends})

    app = web.Application()
    app.router.add_get("/credentials", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/credentials"
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
        token = tmp_path / "token"
        token.write_text("a-token-of-the-container")
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(token))
        assert (await works(settings(server))).link is Link.METADATA
    finally:
        await runner.cleanup()


async def test_a_role_is_assumed_from_the_instances_own(
    sts: Sts, server: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B3: AWS_ROLE_ARN beside an instance profile."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", shared_moto().url)
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    choice = await works(settings(server, stsEndpointUrl=sts.url))
    assert choice == Choice(Link.METADATA, ROLE)
    assert "AWS4-HMAC-SHA256" in sts.asked[0]["signed by"]


async def test_nothing_at_all_is_told_with_what_to_do(server: SeaweedFS) -> None:
    with pytest.raises(PermissionDenied, match="no credentials for AWS") as raised:
        await works(settings(server))
    assert "must be restarted" in raised.value.hint  # B22


# Who wins, when several are there


async def test_a_key_in_the_settings_wins_over_everything_around(
    sts: Sts, server: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B14, B24: PBM lets a web identity win."""
    (tmp_path / "token").write_text("a token that nobody should see")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", WEB_ROLE)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKNOBODY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    given = settings(server, stsEndpointUrl=sts.url, **AGENT.written())
    assert await works(given) == Choice(Link.EXPLICIT)
    assert sts.asked == []


async def test_a_web_identity_wins_over_keys_of_the_environment(
    sts: Sts, server: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("the token")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", WEB_ROLE)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKNOBODY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    assert (await works(settings(server, stsEndpointUrl=sts.url))).link is Link.WEB_IDENTITY
    asked = sts.asked[0]
    assert (asked["Action"], asked["WebIdentityToken"]) == (
        "AssumeRoleWithWebIdentity",
        "the token",
    )
    assert asked["signed by"] == ""


# What the token service is told


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        (None, "tidelog-db1.example-27017"),
        ("AWS_SESSION_NAME", "pbm-session-db1"),
        ("AWS_ROLE_SESSION_NAME", "pbm-session-db1"),
    ],
)
async def test_the_session_is_named_after_the_node_or_as_asked(
    sts: Sts,
    server: SeaweedFS,
    monkeypatch: pytest.MonkeyPatch,
    variable: str | None,
    name: str,
) -> None:
    """B9, B10."""
    if variable is not None:
        monkeypatch.setenv(variable, "pbm-session-db1")
    role = settings(server, stsEndpointUrl=sts.url, roleArn=ROLE, **AGENT.written())
    await works(role, node="db1.example:27017")
    assert sts.asked[0]["RoleSessionName"] == name


async def test_an_external_id_goes_with_a_role_of_another_account(
    sts: Sts, server: SeaweedFS
) -> None:
    """B26."""
    given = {"roleArn": "arn:aws:iam::999:role/theirs", "externalId": "ours", **AGENT.written()}
    await works(settings(server, stsEndpointUrl=sts.url, **given))
    asked = sts.asked[0]
    assert (asked["RoleArn"], asked["ExternalId"]) == ("arn:aws:iam::999:role/theirs", "ours")
    assert len(sts.asked) == 1


# Expiry


async def test_a_session_that_expires_in_mid_upload_is_renewed(sts: Sts, server: SeaweedFS) -> None:
    """The server says so of the second part; the upload goes on with the next session."""
    body = random.Random(1).randbytes(12 << 20)

    async def source() -> AsyncIterator[bytes]:
        yield body

    async with Proxy(server.http) as proxy:
        refused: list[Seen] = []

        def decide(request: Seen) -> Action:
            if request.operation == "part" and request.query["partNumber"] == "2" and not refused:
                refused.append(request)
                return Refuse(400, "ExpiredToken")
            return None

        proxy.script(decide)
        given = settings(server, stsEndpointUrl=sts.url, roleArn=ROLE, **AGENT.written())
        given = given.model_copy(update={"endpoint_url": proxy.url, "upload_part_size": 5 << 20})
        storage = await S3Storage.open(given, Surroundings(policy=QUICK))
        await storage.put("key", source())
        assert await get_bytes(storage, "key") == body
        await storage.aclose()
    assert len(refused) == 1
    assert len(sts.asked) == 2


async def test_a_short_session_is_renewed_before_it_ends(sts: Sts, server: SeaweedFS) -> None:
    sts.lifetime_s = 1.2
    given = settings(server, stsEndpointUrl=sts.url, roleArn=ROLE, **AGENT.written())
    storage = await S3Storage.open(given, Surroundings(policy=QUICK))
    before = len(sts.asked)
    for number in range(200):
        await put_bytes(storage, f"key{number}", b"x")
        await asyncio.sleep(0.05)
        if len(sts.asked) >= before + 3:
            break
    await storage.aclose()
    assert len(sts.asked) >= before + 3


async def test_an_explicit_token_that_expired_cannot_get_better(server: SeaweedFS) -> None:
    async with Proxy(server.http) as proxy:
        proxy.script(lambda request: Refuse(400, "ExpiredToken"))
        given = server.settings("x", endpointUrl=proxy.url)
        storage = await S3Storage.open(given, Surroundings(policy=QUICK))
        with pytest.raises(PermissionDenied, match="ExpiredToken") as raised:
            await storage.stat("key")
        await storage.aclose()
    assert "new credentials" in raised.value.hint
    assert proxy.requests[-1].method == "GET"  # a HEAD says no code
    assert len(proxy.of("get")) == 1
