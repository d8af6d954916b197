"""What can be chosen about a replica set."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote_plus

from tests.support.mongod.certificates import Certificates
from tests.support.mongod.machine import HERE, Machine


@dataclass(frozen=True)
class Member:
    """One member. A delayed one is hidden and cannot be elected, as the server demands."""

    priority: float = 1
    hidden: bool = False
    delay_s: int = 0
    arbiter: bool = False
    votes: int = 1
    tags: Mapping[str, str] = field(default_factory=dict)

    def config(self, index: int, host: str) -> dict[str, Any]:
        """Its entry in the configuration of the set."""
        passive = self.hidden or self.delay_s > 0 or self.votes == 0
        config: dict[str, Any] = {
            "_id": index,
            "host": host,
            "priority": 0 if passive else self.priority,
            "votes": self.votes,
        }
        if self.arbiter:
            config["arbiterOnly"] = True
        if self.hidden or self.delay_s > 0:
            config["hidden"] = True
        if self.delay_s > 0:
            config["secondaryDelaySecs"] = self.delay_s
        if self.tags:
            config["tags"] = dict(self.tags)
        return config


@dataclass(frozen=True)
class Auth:
    """Who logs in as root, and the secret the members share."""

    user: str = "root"
    password: str = "s3cret/p@ss"
    key: str = field(default_factory=lambda: base64.b64encode(secrets.token_bytes(96)).decode())

    def write_key(self, directory: Path) -> Path:
        """Write the key file as the server wants it."""
        path = directory / "keyfile"
        path.write_text(self.key)
        path.chmod(0o400)
        return path

    @property
    def credentials(self) -> str:
        """The part of a connection string before the hosts."""
        return f"{quote_plus(self.user)}:{quote_plus(self.password)}@"


@dataclass(frozen=True)
class SetOptions:
    """Everything about a set; the default is the smallest one that behaves like a real one."""

    name: str = "rs0"
    members: tuple[Member, ...] = (Member(),)
    auth: Auth | None = None
    tls: bool = False
    tls_demands_certificates: bool = False
    """Whether a client without a certificate is turned away; else it may log in by a password."""
    oplog_mb: int = 64
    cache_gb: float = 0.5
    election_timeout_ms: int = 2_000
    parameters: Mapping[str, str | int | float] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    machine: Callable[[], Machine] = lambda: HERE
    """Where its next node runs."""
    cluster_role: Literal["", "configsvr", "shardsvr"] = ""
    """What it is in a sharded cluster; nothing of a cluster where empty."""


def server_arguments(
    options: SetOptions, keyfile: Path | None, certificates: Certificates | None
) -> list[str]:
    """The part of mongod's command line that all members share."""
    parameters = {
        "enableTestCommands": 1,
        "diagnosticDataCollectionEnabled": "false",
        # How long a server that was asked to stop lets its clients go: 15 s unless told.
        "shutdownTimeoutMillisForSignaledShutdown": 100,
        **options.parameters,
    }
    arguments = ["--replSet", options.name, "--oplogSize", str(options.oplog_mb)]
    arguments += ["--wiredTigerCacheSizeGB", str(options.cache_gb)]
    for key, value in parameters.items():
        arguments += ["--setParameter", f"{key}={value}"]
    if keyfile is not None:
        arguments += ["--keyFile", str(keyfile)]
    if certificates is not None:
        arguments += ["--tlsMode", "requireTLS"]
        if not options.tls_demands_certificates:
            arguments += ["--tlsAllowConnectionsWithoutCertificates"]
        arguments += ["--tlsCAFile", str(certificates.ca)]
        arguments += ["--tlsCertificateKeyFile", str(certificates.server)]
    if options.cluster_role:
        arguments += [f"--{options.cluster_role}"]
    return [*arguments, *options.arguments]
