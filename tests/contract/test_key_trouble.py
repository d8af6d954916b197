"""A key of a service is disabled, about to be deleted, deleted, or denied: what still works, what
says so, and what goes on when the key is back. Each claim against each service in each state."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final

import pytest
from aiohttp import web

from agent.keys.aws_kms import AwsKmsProvider
from agent.storage.surroundings import Surroundings
from tests.support.key_trouble import STATES, KeyService, get_through
from tests.support.servers.aliyun.server import AGENT, NOBODY, AliyunServer, shared_aliyun
from tests.support.servers.moto import shared_moto
from tests.support.servers.proxy import Proxy
from tests.support.vaults import Vaults


class AwsFront(Proxy):
    """Refuses uses of the key as AWS does in each state; moto goes on using some of them."""

    CODES: Final = {
        "disabled": "DisabledException",
        "pending deletion": "KMSInvalidStateException",
        "deleted": "NotFoundException",
        "denied": "AccessDeniedException",
    }
    state = "enabled"

    async def check(self, request: web.Request, body: bytes) -> web.StreamResponse | None:
        """The service's own answer, where it is one."""
        told = self.CODES.get(self.state)
        is_asked = request.headers["x-amz-target"].endswith("DescribeKey")
        if told is None or (is_asked and self.state in ("disabled", "pending deletion")):
            return None
        text = json.dumps({"__type": told, "message": "as AWS says it"})
        return web.Response(status=400, text=text, content_type="application/x-amz-json-1.1")


class Aws:
    """AWS KMS by moto, behind a front that knows the states better."""

    name = "aws-kms"

    def __init__(self, front: AwsFront) -> None:
        self.environment = {"ID": "test", "SECRET": "test"}
        self._front = front
        self.options: dict[str, Any] = {
            "keyId": "auto",
            "region": "eu-central-1",
            "endpointUrl": front.url,
            "credentials": {"accessKeyId": {"env": "ID"}, "secretAccessKey": {"env": "SECRET"}},
        }
        self.key_id = ""

    async def make(self) -> None:
        """The key."""
        async with aclosing(self._provider()) as provider:
            self.key_id = (await provider.kek()).key.rpartition("/")[2]
        self.options["keyId"] = self.key_id

    def _provider(self) -> AwsKmsProvider:
        return AwsKmsProvider(self.options, Surroundings(environment=self.environment))

    async def trouble(self, state: str) -> None:
        """See `KeyService`."""
        self._front.state = "enabled"
        async with aclosing(self._provider()) as owner:
            if state == "disabled":
                await owner._ask("disable_key", KeyId=self.key_id)
            elif state == "pending deletion":
                await owner._ask("schedule_key_deletion", KeyId=self.key_id, PendingWindowInDays=7)
            elif state == "enabled":
                await owner._ask("cancel_key_deletion", KeyId=self.key_id)
                await owner._ask("enable_key", KeyId=self.key_id)
        self._front.state = state


class Aliyun:
    """Alibaba Cloud KMS by a stand-in that checks signatures."""

    name = "aliyun-kms"
    STATES: Final = {
        "enabled": "Enabled",
        "disabled": "Disabled",
        "pending deletion": "PendingDeletion",
        "deleted": "deleted",
    }

    def __init__(self, server: AliyunServer) -> None:
        self._server = server
        self.key_id = server.tell("key")
        self.environment = {"ID": AGENT.access_key, "SECRET": AGENT.secret_key}
        self.options: dict[str, Any] = {
            "keyId": self.key_id,
            "region": "eu-central-1",
            "endpointUrl": server.url,
            "credentials": {"accessKeyID": {"env": "ID"}, "accessKeySecret": {"env": "SECRET"}},
        }

    async def trouble(self, state: str) -> None:
        """See `KeyService`. Denied is somebody who is known and may nothing."""
        account = NOBODY if state == "denied" else AGENT
        self.environment |= {"ID": account.access_key, "SECRET": account.secret_key}
        if state != "denied":
            self._server.tell("key-state", id=self.key_id, state=self.STATES[state])


@pytest.fixture(params=["aws-kms", "aliyun-kms"])
async def service(request: pytest.FixtureRequest) -> AsyncIterator[KeyService]:
    if request.param == "aliyun-kms":
        yield Aliyun(shared_aliyun())
        return
    async with AwsFront(shared_moto().url) as front:
        aws = Aws(front)
        await aws.make()
        yield aws


@pytest.mark.parametrize("state", STATES)
async def test_trouble_with_a_key_is_loud_early_and_passes(service: KeyService, state: str) -> None:
    """D15–D19."""
    async with aclosing(Vaults(environment=service.environment)) as vaults:
        await get_through(vaults, service, state)
