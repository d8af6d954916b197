"""SeaweedFS: S3 over http and https with scoped identities, STS and server-side encryption.

One for the whole test run; each test takes a prefix or a bucket of its own. It is killed at the
end: it takes 20 s to stop by itself.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError

from agent.storage.s3.sessions import new_session
from agent.wire.storage_s3 import S3Settings
from tests.support.mongod.certificates import Certificates
from tests.support.mongod.ports import free_port
from tests.support.servers.oidc import Issuer
from tests.support.servers.process import ServerFailedError, ServerProcess, program

BUCKET: Final = "tidelog-tests"
DOMAIN: Final = "s3.test"
"""Buckets are hosts of it, too; no name service knows it."""
READY_WITHIN_S: Final = 60.0
_PORTS: Final = 5
_TURNS: Final = 3


@dataclass(frozen=True)
class Identity:
    """An access key."""

    access_key: str
    secret_key: str

    def written(self) -> dict[str, str]:
        """As in settings."""
        return {"accessKeyId": self.access_key, "secretAccessKey": self.secret_key}


ADMIN: Final = Identity("AKADMIN", secrets.token_hex(16))
AGENT: Final = Identity("AKAGENT", secrets.token_hex(16))
"""May read, list and write in the bucket of the tests."""
READER: Final = Identity("AKREADER", secrets.token_hex(16))
"""May read and list there."""
ROLE: Final = "arn:aws:iam::role/BackupRole"
WEB_ROLE: Final = "arn:aws:iam::role/WebRole"


class SeaweedFS:
    """A running server."""

    def __init__(self) -> None:
        self.issuer = Issuer()
        """Of the web identities that `WEB_ROLE` trusts."""
        self._process = ServerProcess("seaweedfs")
        self.certificates = Certificates.create(self._process.directory)
        self.http = ""
        self.https = ""

    def start(self) -> None:
        """Start it and wait until it stores something. Ports 10,000 above its own must be free,
        too, and may be taken meanwhile: then it is started once more."""
        for turn in range(_TURNS):
            try:
                self._start()
            except ServerFailedError:
                if turn == _TURNS - 1:
                    raise
                self._process.stop()
                self._process = ServerProcess("seaweedfs")
                self.certificates = Certificates.create(self._process.directory)
            else:
                return

    def _start(self) -> None:
        ports = [free_port() for _ in range(_PORTS)]
        directory = self._process.directory
        (directory / "data").mkdir()
        (directory / "s3.json").write_text(json.dumps(_identities()))
        (directory / "iam.json").write_text(json.dumps(_iam(self.issuer.url)))
        self.http = f"http://127.0.0.1:{ports[3]}"
        self.https = f"https://127.0.0.1:{ports[4]}"
        self._process.start(
            [program("weed"), *_arguments(ports), *_files(directory, self.certificates)],
            {"WEED_S3_SSE_KEY": secrets.token_hex(16), "GOMEMLIMIT": "600MiB"},
        )
        with ThreadPoolExecutor(1) as own_loop:
            own_loop.submit(lambda: asyncio.run(self._wait())).result()

    def stop(self) -> None:
        """Kill it."""
        self._process.stop()

    def settings(self, prefix: str = "", **more: Any) -> S3Settings:
        """Of the agent's identity (None: whatever is found), over http."""
        identity = more.pop("identity", AGENT)
        given: dict[str, Any] = {
            "bucket": BUCKET,
            "prefix": prefix,
            "region": "us-east-1",
            "endpointUrl": self.http,
        }
        if identity is not None:
            given["credentials"] = identity.written()
        return S3Settings.model_validate(given | more)

    def client(self, identity: Identity = ADMIN, *, url: str | None = None) -> Any:
        """A bare aiobotocore client, as a context."""
        return new_session().create_client(
            "s3",
            endpoint_url=url or self.http,
            region_name="us-east-1",
            aws_access_key_id=identity.access_key,
            aws_secret_access_key=identity.secret_key,
            config=AioConfig(
                s3={"addressing_style": "path"},
                signature_version="s3v4",
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                retries={"total_max_attempts": 1},
                max_pool_connections=16,
            ),
        )

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + READY_WITHIN_S
        async with self.client() as client:
            while True:
                self._process.check()
                try:
                    await client.create_bucket(Bucket=BUCKET)
                    await client.put_object(Bucket=BUCKET, Key="ready", Body=b"")
                    await client.delete_object(Bucket=BUCKET, Key="ready")
                    return
                except (ClientError, BotoCoreError, OSError) as error:
                    if "BucketAlready" in str(error):
                        await client.put_object(Bucket=BUCKET, Key="ready", Body=b"")
                        return
                    if loop.time() > end:
                        raise ServerFailedError(f"SeaweedFS does not answer: {error}") from error
                await asyncio.sleep(0.2)


@cache
def shared_seaweedfs() -> SeaweedFS:
    """The one of this test run, started when it is first asked for."""
    server = SeaweedFS()
    server.start()
    return server


def _arguments(ports: list[int]) -> list[str]:
    master, volume, filer, s3, https = ports
    return [
        "-logtostderr=true",
        "server",
        *("-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"),
        *("-master.volumeSizeLimitMB=256", "-master.electionTimeout=1s"),
        *("-master.heartbeatInterval=200ms", f"-master.port={master}", f"-volume.port={volume}"),
        *("-volume.max=0", "-volume.preStopSeconds=0", "-filer", f"-filer.port={filer}"),
        *("-s3", f"-s3.port={s3}", f"-s3.port.https={https}"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.domainName={DOMAIN}"),
    ]


def _files(directory: Any, certificates: Certificates) -> list[str]:
    return [
        f"-s3.config={directory / 's3.json'}",
        f"-s3.iam.config={directory / 'iam.json'}",
        f"-s3.cert.file={certificates.server}",
        f"-s3.key.file={certificates.server}",
    ]


def _identities() -> dict[str, Any]:
    def identity(name: str, keys: Identity, *actions: str) -> dict[str, Any]:
        pair = {"accessKey": keys.access_key, "secretKey": keys.secret_key}
        return {"name": name, "credentials": [pair], "actions": list(actions)}

    scoped = [f"{action}:{BUCKET}" for action in ("Read", "List", "Tagging", "Write")]
    return {
        "identities": [
            identity("admin", ADMIN, "Admin", "Read", "List", "Tagging", "Write"),
            identity("agent", AGENT, *scoped),
            identity("reader", READER, *scoped[:2]),
        ]
    }


def _iam(issuer: str) -> dict[str, Any]:
    def trust(principal: dict[str, str], action: str) -> dict[str, Any]:
        statement = {"Effect": "Allow", "Principal": principal, "Action": [action]}
        return {"Version": "2012-10-17", "Statement": [statement]}

    def role(arn: str, trusted: dict[str, Any]) -> dict[str, Any]:
        return {
            "roleName": arn.rpartition("/")[2],
            "roleArn": arn,
            "trustPolicy": trusted,
            "attachedPolicies": ["BackupRW"],
        }

    resources = [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]
    statements = [
        {"Effect": "Allow", "Action": ["s3:*"], "Resource": resources},
        {"Effect": "Allow", "Action": ["sts:ValidateSession"], "Resource": ["*"]},
    ]
    provider = {"issuer": issuer, "clientId": "sts.amazonaws.com", "jwksUri": f"{issuer}/keys"}
    return {
        "sts": {
            "tokenDuration": "1h",
            "maxSessionLength": "12h",
            "issuer": "seaweedfs-sts",
            "signingKey": base64.b64encode(secrets.token_bytes(32)).decode(),
        },
        "providers": [{"name": "local-oidc", "type": "oidc", "enabled": True, "config": provider}],
        "policy": {"defaultEffect": "Deny", "storeType": "memory"},
        "roles": [
            role(ROLE, trust({"AWS": "*"}, "sts:AssumeRole")),
            role(WEB_ROLE, trust({"Federated": "local-oidc"}, "sts:AssumeRoleWithWebIdentity")),
        ],
        "policies": [
            {"name": "BackupRW", "document": {"Version": "2012-10-17", "Statement": statements}}
        ],
    }
