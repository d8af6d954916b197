"""Each object store as agents are told of it: the section `storage:`, and the secret in it.

Credentials lie in files of the given directory. Requests may go through a proxy that lets a share
of them fail: answered with 503, or cut before they are carried out or behind.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.servers.aliyun import oss as aliyun
from tests.support.servers.aliyun.server import AGENT as ALIYUN_AGENT
from tests.support.servers.aliyun.server import shared_aliyun
from tests.support.servers.azurite import ACCOUNT, CONTAINER, KEY, shared_azurite
from tests.support.servers.background import Background
from tests.support.servers.fake_gcs import BUCKET as GCS_BUCKET
from tests.support.servers.fake_gcs import Front, shared_fake_gcs
from tests.support.servers.proxy import Action, Cut, LateLists, Proxy, Refuse, Seen
from tests.support.servers.seaweedfs import AGENT, BUCKET, shared_seaweedfs
from tests.support.servers.tokens import TokenService, private_key


@dataclass(frozen=True)
class Cloud:
    """What `ctl config` is given, and what nobody may ever see."""

    storage: dict[str, Any]
    secret: str
    proxy: Proxy | None = None
    """Where its requests pass, if some of them are to fail."""

    def fail(self, share: float) -> None:
        """Let that share of all requests fail from now on."""
        assert self.proxy is not None, "its requests pass by no proxy"
        self.proxy.script(failing(share, random.Random(11)))


@dataclass(frozen=True)
class Around:
    """Where secrets lie, and the loop that servers of this process run in."""

    directory: Path
    background: Background
    by_proxy: bool = False

    def secret(self, text: str) -> dict[str, str]:
        """A reference to a file that holds it."""
        path = self.directory / f"secret-{secrets.token_hex(4)}"
        path.write_text(text)
        return {"file": str(path)}

    def proxy(self, url: str, kind: type[Proxy] = Proxy) -> Proxy | None:
        """One before a server, if there is to be one."""
        return self.background.enter(kind(url)) if self.by_proxy else None


def failing(share: float, rng: random.Random) -> Callable[[Seen], Action]:
    """Refuse that share of requests with 503, or cut them before or after they are carried out."""

    def decide(request: Seen) -> Action:
        if rng.random() >= share:
            return None
        kind = rng.random()
        if kind < 0.5:
            return Refuse(503, "SlowDown", {"Retry-After": "0.1"})
        return Cut(answered=kind < 0.75)

    return decide


def s3(around: Around) -> Cloud:
    """SeaweedFS, by a key that may write in its bucket only."""
    server = shared_seaweedfs()
    proxy = around.proxy(server.http, LateLists)
    section = {
        "region": "us-east-1",
        "endpointUrl": proxy.url if proxy else server.http,
        "credentials": {
            "accessKeyID": AGENT.access_key,
            "secret-access-key": around.secret(AGENT.secret_key),
        },
    }
    return Cloud({"url": f"s3://{BUCKET}/{_prefix()}", "s3": section}, AGENT.secret_key, proxy)


def azure(around: Around) -> Cloud:
    """Azurite, by the key of the account."""
    server = shared_azurite()

    async def make_container() -> None:
        async with server.client():
            pass

    asyncio.run(make_container())
    proxy = around.proxy(server.url.removesuffix(f"/{ACCOUNT}"))
    endpoint = f"{proxy.url}/{ACCOUNT}" if proxy else server.url
    section = {"credentials": {"key": around.secret(KEY)}}
    return Cloud({"url": f"{endpoint}/{CONTAINER}/{_prefix()}", "azure": section}, KEY, proxy)


def gcs(around: Around) -> Cloud:
    """fake-gcs-server, by the JSON of a service account; its tokens end again and again."""
    server = shared_fake_gcs()
    service = around.background.enter(TokenService())
    service.lifetime_s = 4
    proxy = around.proxy(server.url, Front)
    account = service.google_account()
    section = {
        "endpointUrl": proxy.url if proxy else server.url,
        "credentials": {"applicationCredentials": around.secret(account)},
    }
    url = f"gs://{GCS_BUCKET}/{_prefix()}"
    return Cloud({"url": url, "gcs": section}, private_key().splitlines()[1], proxy)


def oss(around: Around) -> Cloud:
    """The stand-in for OSS, by a permanent key."""
    server = shared_aliyun()
    proxy = around.proxy(server.url)
    section = {
        "region": aliyun.REGION,
        "endpointUrl": proxy.url if proxy else server.url,
        "credentials": {
            "accessKeyID": ALIYUN_AGENT.access_key,
            "accessKeySecret": around.secret(ALIYUN_AGENT.secret_key),
        },
    }
    url = f"oss://{aliyun.BUCKET}/{_prefix()}"
    return Cloud({"url": url, "oss": section}, ALIYUN_AGENT.secret_key, proxy)


def filesystem(around: Around) -> Cloud:
    """A directory; it cannot be made to fail this way."""
    path = around.directory / "repository"
    path.mkdir()
    return Cloud({"type": "filesystem", "filesystem": {"path": str(path)}}, "-")


CLOUDS: Final[Mapping[str, Callable[[Around], Cloud]]] = {
    "s3": s3,
    "azure": azure,
    "gcs": gcs,
    "oss": oss,
}


def _prefix() -> str:
    return f"cloud/{secrets.token_hex(4)}"
