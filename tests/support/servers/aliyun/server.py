"""The stand-in as a process of its own, and what tests say to it."""

from __future__ import annotations

import json
import secrets
import sys
import time
import urllib.error
import urllib.request
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from agent.wire.storage_oss import OssSettings
from tests.support.mongod.ports import free_port
from tests.support.servers.aliyun.oss import BUCKET, REGION
from tests.support.servers.process import ServerFailedError, ServerProcess

ROLE: Final = "acs:ram::1234567890123456:role/db-backup-role"
READY_WITHIN_S: Final = 60.0
_ROOT: Final = Path(__file__).resolve().parents[4]


class Identity(NamedTuple):
    """A permanent key."""

    access_key: str
    secret_key: str

    def written(self) -> dict[str, str]:
        """As in the settings."""
        return {"accessKeyID": self.access_key, "accessKeySecret": self.secret_key}


AGENT: Final = Identity("LTAI5tTidelogAgent", "oss-secret-of-the-agent-4711")
NOBODY: Final = Identity("LTAI5tNobody", "may-assume-the-role-and-nothing-else")


class AliyunServer:
    """A running stand-in."""

    def __init__(self) -> None:
        self._process = ServerProcess("aliyun")
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, wait until it listens, and make the accounts."""
        objects = self._process.directory / "objects"
        objects.mkdir()
        self._process.start(
            [sys.executable, "-m", __package__ or "", str(self._port), str(objects)],
            {"PYTHONPATH": str(_ROOT)},
        )
        end = time.monotonic() + READY_WITHIN_S
        while True:
            self._process.check()
            try:
                self.tell("role", arn=ROLE)
                break
            except urllib.error.URLError:
                if time.monotonic() > end:
                    raise ServerFailedError("the stand-in does not listen") from None
                time.sleep(0.05)
        self.tell("account", key=AGENT.access_key, secret=AGENT.secret_key)
        denied = ["oss:*", "kms:*"]
        self.tell("account", key=NOBODY.access_key, secret=NOBODY.secret_key, denied=denied)

    def stop(self) -> None:
        """Kill it."""
        self._process.stop()

    def tell(self, what: str, **given: Any) -> Any:
        """A word to the stand-in itself."""
        body = json.dumps(given).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/~control/{what}", body, headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=20) as answer:
            return json.load(answer)

    def settings(
        self, prefix: str | None = None, identity: Identity | None = AGENT, **more: Any
    ) -> OssSettings:
        """Settings of a prefix of its own."""
        given: dict[str, Any] = {
            "region": REGION,
            "bucket": BUCKET,
            "prefix": prefix or f"test/{secrets.token_hex(4)}",
            "endpointUrl": self.url,
            **({"credentials": identity.written()} if identity else {}),
            **more,
        }
        return OssSettings.model_validate(given)


@cache
def shared_aliyun() -> AliyunServer:
    """The one of this test run, started when it is first asked for."""
    server = AliyunServer()
    server.start()
    return server
