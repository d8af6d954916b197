"""Every way to get credentials for Alibaba Cloud, against a stand-in that checks signatures,
tokens and their expiry, for OSS and through the same chain for KMS."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ConfigError, PermissionDenied
from agent.storage.aliyun.credentials import CredentialChain
from agent.storage.base import get_bytes, put_bytes
from agent.storage.oss.driver import OssStorage
from agent.storage.precedence import Choice, Link
from agent.storage.registry import StorageOptions, open_storage
from agent.storage.retrying import RetryPolicy
from agent.storage.surroundings import Surroundings
from agent.wire.storage_oss import OssCredentials, OssSettings
from agent.wire.storage_settings import StorageSettings
from tests.support.servers.aliyun.rpc import TOKEN_OF_IDENTITY
from tests.support.servers.aliyun.server import AGENT, NOBODY, ROLE, AliyunServer, shared_aliyun

pytestmark = pytest.mark.contract

QUICK = RetryPolicy(max_attempts=4, base_delay_s=0.01, max_backoff_s=0.05)
KEY = {
    "ALIBABA_CLOUD_ACCESS_KEY_ID": AGENT.access_key,
    "ALIBABA_CLOUD_ACCESS_KEY_SECRET": AGENT.secret_key,
}
OSS_KEY = {"OSS_ACCESS_KEY_ID": AGENT.access_key, "OSS_ACCESS_KEY_SECRET": AGENT.secret_key}


@pytest.fixture
def server() -> AliyunServer:
    server = shared_aliyun()
    server.tell("seen")
    return server


@pytest.fixture(autouse=True)
def an_instance(server: AliyunServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address of the metadata is one that no test can listen on."""
    monkeypatch.setattr("agent.storage.aliyun.credentials.METADATA_URL", server.url)


def settings(server: AliyunServer, **credentials: Any) -> OssSettings:
    """With these credentials only, and STS where the server is."""
    given = {"stsEndpointUrl": server.url, **credentials}
    return server.settings(identity=None, credentials=given)


async def works(
    given: OssSettings, environment: dict[str, str] | None = None, node: str = ""
) -> Choice:
    """Use the storage; answers which link won."""
    around = Surroundings(node=node, policy=QUICK, environment=environment or {})
    storage = await OssStorage.open(given, around)
    try:
        await storage.verify()
        return storage.credentials
    finally:
        await storage.aclose()


def session_names(server: AliyunServer) -> list[str]:
    calls: list[dict[str, str]] = server.tell("seen")["rpc"]
    return [each["RoleSessionName"] for each in calls if each["Action"].startswith("AssumeRole")]


# The chain, each link for real


async def test_a_key_in_the_settings(server: AliyunServer) -> None:
    """A9."""
    assert await works(settings(server, **AGENT.written())) == Choice(Link.EXPLICIT)


async def test_a_session_in_the_settings(server: AliyunServer) -> None:
    """A temporary key with its token."""
    found = server.tell("session")
    given = {
        "accessKeyID": found["AccessKeyId"],
        "accessKeySecret": found["AccessKeySecret"],
        "securityToken": found["SecurityToken"],
    }
    assert await works(settings(server, **given)) == Choice(Link.EXPLICIT)


@pytest.mark.parametrize("environment", [KEY, OSS_KEY], ids=["ALIBABA_CLOUD", "OSS"])
async def test_a_key_of_the_environment(server: AliyunServer, environment: dict[str, str]) -> None:
    """Both spellings of the vendor."""
    assert await works(settings(server), environment) == Choice(Link.ENVIRONMENT)


@pytest.mark.parametrize(
    ("key", "secret", "token"),
    [
        (*KEY, "ALIBABA_CLOUD_SECURITY_TOKEN"),
        (*OSS_KEY, "OSS_SESSION_TOKEN"),
    ],
    ids=["ALIBABA_CLOUD", "OSS"],
)
async def test_a_session_of_the_environment(
    server: AliyunServer, key: str, secret: str, token: str
) -> None:
    found = server.tell("session")
    environment = {key: found["AccessKeyId"], secret: found["AccessKeySecret"]}
    with_token = environment | {token: found["SecurityToken"]}
    assert await works(settings(server), with_token) == Choice(Link.ENVIRONMENT)
    with pytest.raises(ConfigError, match="STS"):
        await works(settings(server), environment)


async def test_a_profile_of_the_vendors_command_line(server: AliyunServer, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    found = {"name": "backup", "mode": "AK", "access_key_id": AGENT.access_key}
    profiles = [{"name": "other", "mode": "EcsRamRole"}, found]
    path.write_text(
        json.dumps({"profiles": [profiles[0], {**found, "access_key_secret": AGENT.secret_key}]})
    )
    around = {"ALIBABA_CLOUD_CONFIG_FILE": str(path)}
    named = around | {"ALIBABA_CLOUD_PROFILE": "backup"}
    assert await works(settings(server), named) == Choice(Link.PROFILE)
    for name, told in (("other", "EcsRamRole"), ("none", "no profile")):
        with pytest.raises(ConfigError, match=told):
            await works(settings(server), around | {"ALIBABA_CLOUD_PROFILE": name})


async def test_the_role_of_the_instance(server: AliyunServer) -> None:
    assert await works(settings(server)) == Choice(Link.METADATA)


async def test_the_uri_of_a_container(server: AliyunServer) -> None:
    around = {"ALIBABA_CLOUD_CREDENTIALS_URI": f"{server.url}/credentials"}
    assert await works(settings(server), around) == Choice(Link.METADATA)


async def test_an_identity_of_a_pod(server: AliyunServer, tmp_path: Path) -> None:
    """RRSA: a token file that may rotate, exchanged without any key."""
    path = tmp_path / "token"
    path.write_text(TOKEN_OF_IDENTITY + "\n")
    around = {
        "ALIBABA_CLOUD_ROLE_ARN": ROLE,
        "ALIBABA_CLOUD_OIDC_PROVIDER_ARN": "acs:ram::1:oidc-provider/ack-rrsa",
        "ALIBABA_CLOUD_OIDC_TOKEN_FILE": str(path),
        "ALIBABA_CLOUD_ROLE_SESSION_NAME": "pod",
        **KEY,
    }
    assert await works(settings(server), around) == Choice(Link.WEB_IDENTITY)
    assert session_names(server) == ["pod"]
    path.write_text("of somebody else")
    with pytest.raises(PermissionDenied, match="OIDCToken"):
        await works(settings(server), around)


async def test_nothing_at_all_is_told_with_what_to_do(server: AliyunServer) -> None:
    around = {"ALIBABA_CLOUD_ECS_METADATA": "a-role-that-is-not-attached"}
    with pytest.raises(PermissionDenied, match="neither in the settings nor around") as caught:
        await works(settings(server), around)
    assert "ALIBABA_CLOUD_ACCESS_KEY_ID" in caught.value.hint


# Roles


@pytest.mark.parametrize("base", ["key", "session", "environment", "instance"])
async def test_a_role_is_assumed_with_what_is_there(server: AliyunServer, base: str) -> None:
    """A11, A17: permanent keys, temporary ones, and those around."""
    given: dict[str, str] = {"roleArn": ROLE, "sessionName": "pbm-backup-session"}
    environment: dict[str, str] = {}
    if base == "key":
        given |= NOBODY.written()
    elif base == "session":
        found = server.tell("session", denied=["oss:*"])
        given |= {
            "accessKeyID": found["AccessKeyId"],
            "accessKeySecret": found["AccessKeySecret"],
            "securityToken": found["SecurityToken"],
        }
    elif base == "environment":
        environment = KEY
    link = {"environment": Link.ENVIRONMENT, "instance": Link.METADATA}.get(base, Link.EXPLICIT)
    assert await works(settings(server, **given), environment) == Choice(link, ROLE)
    assert session_names(server) == ["pbm-backup-session"]


async def test_without_the_role_the_same_key_may_do_nothing(server: AliyunServer) -> None:
    with pytest.raises(PermissionDenied, match="AccessDenied"):
        await works(settings(server, **NOBODY.written()))


async def test_a_role_of_the_environment_is_for_keys_around_only(server: AliyunServer) -> None:
    around = {"ALIBABA_CLOUD_ROLE_ARN": ROLE}
    assert await works(settings(server), KEY | around) == Choice(Link.ENVIRONMENT, ROLE)
    explicit = settings(server, **AGENT.written())
    assert await works(explicit, around) == Choice(Link.EXPLICIT)


async def test_a_session_is_named_after_the_node(server: AliyunServer) -> None:
    """A19, of the characters that STS takes."""
    given = settings(server, **NOBODY.written(), roleArn=ROLE)
    await works(given, node="db1.example.net:27017")
    assert session_names(server) == ["tidelog-db1.example.net-27017"]


@pytest.mark.parametrize(
    ("change", "told", "hint"),
    [
        ({"roleArn": "acs:ram::1:role/none"}, "EntityNotExist.Role", "no such role"),
        ({"accessKeySecret": "wrong"}, "SignatureDoesNotMatch", "secret"),
        ({"accessKeyID": "LTAI5tUnknown"}, "InvalidAccessKeyId.NotFound", "access key"),
    ],
)
async def test_a_role_that_cannot_be_assumed_is_told(
    server: AliyunServer, change: dict[str, str], told: str, hint: str
) -> None:
    """A18: the role, the session, the code and the request."""
    given = {**NOBODY.written(), "roleArn": ROLE, **change}
    with pytest.raises(PermissionDenied, match=f"cannot assume the role .*{told}") as caught:
        await works(settings(server, **given))
    assert "request" in str(caught.value)
    assert hint in caught.value.hint


async def test_a_role_whose_caller_may_not_assume_it(server: AliyunServer) -> None:
    server.tell("account", key="LTAI5tNoSts", secret="s", denied=["sts:*"])
    given = {"accessKeyID": "LTAI5tNoSts", "accessKeySecret": "s", "roleArn": ROLE}
    with pytest.raises(PermissionDenied, match="NoPermission") as caught:
        await works(settings(server, **given))
    assert "sts:AssumeRole" in caught.value.hint


# What expires


async def test_sessions_that_expire_in_the_middle_of_an_upload_are_renewed(
    server: AliyunServer,
) -> None:
    """A11: an upload that outlives its session three times over."""
    body = random.Random(5).randbytes(5 << 20)

    async def slowly() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 256 << 10):
            await asyncio.sleep(0.25)
            yield body[start : start + (256 << 10)]

    server.tell("lifetime", seconds=2)
    try:
        given = settings(server, **NOBODY.written(), roleArn=ROLE)
        small = given.model_copy(update={"upload_part_size": 1 << 20})
        storage = await OssStorage.open(small, Surroundings(policy=QUICK, environment={}))
        await storage.put("large", slowly())
        assert await get_bytes(storage, "large") == body
        await storage.aclose()
    finally:
        server.tell("lifetime", seconds=3600)
    assert len(session_names(server)) >= 3


async def test_a_session_that_the_server_ends_early_is_replaced(server: AliyunServer) -> None:
    """Its token is refused before its time, as with a role that was changed."""
    given = StorageSettings(type="oss", oss=settings(server, **NOBODY.written(), roleArn=ROLE))
    storage = await open_storage(given, StorageOptions(policy=QUICK, environment={}))
    await put_bytes(storage, "key", b"x")
    server.tell("end-sessions")
    assert await get_bytes(storage, "key") == b"x"
    await storage.aclose()


async def test_a_session_in_the_settings_that_expired_says_so(server: AliyunServer) -> None:
    """Nothing else can be fetched: it is not tried again."""
    found = server.tell("session", lifetime_s=-1)
    given = {
        "accessKeyID": found["AccessKeyId"],
        "accessKeySecret": found["AccessKeySecret"],
        "securityToken": found["SecurityToken"],
    }
    with pytest.raises(PermissionDenied, match="SecurityTokenExpired") as caught:
        await works(settings(server, **given))
    assert "new credentials" in caught.value.hint


async def test_a_temporary_key_without_its_token_is_told_before_anything_is_sent(
    server: AliyunServer,
) -> None:
    """A16: the seed's own example, which OSS would refuse."""
    given = {"accessKeyID": "STS.NUabc", "accessKeySecret": "3dZnabc"}
    for more in ({}, {"roleArn": ROLE}):
        with pytest.raises(ConfigError, match="token is missing") as caught:
            await works(settings(server, **given, **more))
        assert "securityToken" in caught.value.hint
    seen = server.tell("seen")
    assert seen == {"oss": [], "rpc": []}


# The table


IDENTITY = {
    "ALIBABA_CLOUD_OIDC_PROVIDER_ARN": "acs:ram::1:oidc-provider/x",
    "ALIBABA_CLOUD_OIDC_TOKEN_FILE": "/token",
    "ALIBABA_CLOUD_ROLE_ARN": ROLE,
}
OTHER = "acs:ram::2:role/b"
PROFILE = {"ALIBABA_CLOUD_PROFILE": "p"}


@pytest.mark.parametrize(
    ("written", "environment", "wanted"),
    [
        ({}, {}, Choice(Link.METADATA)),
        ({}, PROFILE, Choice(Link.PROFILE)),
        ({}, PROFILE | OSS_KEY, Choice(Link.ENVIRONMENT)),
        ({}, PROFILE | KEY, Choice(Link.ENVIRONMENT)),
        ({}, PROFILE | KEY | IDENTITY, Choice(Link.WEB_IDENTITY)),
        ({}, KEY | {"ALIBABA_CLOUD_ROLE_ARN": ROLE}, Choice(Link.ENVIRONMENT, ROLE)),
        ({}, {"ALIBABA_CLOUD_ROLE_ARN": ROLE}, Choice(Link.METADATA, ROLE)),
        (AGENT.written(), PROFILE | KEY | IDENTITY, Choice(Link.EXPLICIT)),
        (AGENT.written() | {"roleArn": ROLE}, KEY, Choice(Link.EXPLICIT, ROLE)),
        ({"roleArn": ROLE}, IDENTITY, Choice(Link.WEB_IDENTITY)),
        (
            {"roleArn": "acs:ram::2:role/b"},
            IDENTITY,
            Choice(Link.WEB_IDENTITY, "acs:ram::2:role/b"),
        ),
        ({"roleArn": ROLE}, {}, Choice(Link.METADATA, ROLE)),
        ({}, {"OSS_ACCESS_KEY_ID": "half"}, Choice(Link.METADATA)),
    ],
)
def test_what_wins(written: dict[str, str], environment: dict[str, str], wanted: Choice) -> None:
    """The table of `agent.storage.precedence`, for Alibaba Cloud."""
    given = OssCredentials.model_validate(written)
    chain = CredentialChain(given, Surroundings(environment=environment))
    assert chain.choice() == wanted
    assert AGENT.secret_key not in repr(chain.choice())
