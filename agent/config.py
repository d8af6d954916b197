"""The settings of this agent alone: one YAML file, then the environment, then the command line.

What concerns the whole cluster (storage, PITR, priorities) lives in the control database and is set
with `ctl config`. An environment variable is named `TIDELOG_SECTION__FIELD` after the key it sets
(`TIDELOG_LOG__LEVEL`); `TIDELOG_MONGODB_URI` and `PBM_MONGODB_URI` are accepted too.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, SecretStr, field_validator, model_validator
from pydantic.alias_generators import to_camel

from agent.errors import ConfigError
from agent.wire import keys
from agent.wire.units import Duration, Size

PREFIX: Final = "TIDELOG_"
URI_VARIABLES: Final = ("TIDELOG_MONGODB_URI", "PBM_MONGODB_URI")

Overrides = Mapping[str, Any]


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, alias_generator=to_camel
    )


class MongodbConfig(_Section):
    """How to reach the node that this agent serves."""

    uri: SecretStr | None = None
    """Of the mongod on this machine, and no other."""
    uri_file: Path | None = None
    """A file that holds the connection string, e.g. a systemd credential."""
    deadline: Duration = 60.0
    """The agent ends when the database has not answered for so long: a supervisor starts it again,
    and everybody sees that it is not there."""


class LogConfig(_Section):
    """What this agent says of itself, on standard error."""

    format: Literal["auto", "json", "console"] = "auto"
    """`auto`: console on a terminal, JSON elsewhere."""
    level: Literal["debug", "info", "warning", "error"] = "info"


class MemoryConfig(_Section):
    """What one running operation may hold in memory."""

    budget: Size = 256 << 20


class WebConfig(_Section):
    """Who may read the page, health and metrics that the agent serves at `listen`."""

    token: SecretStr | None = None
    """What a reader must show, as `Authorization: Bearer …` or as the password of a browser. Needed
    where `listen` is not on loopback."""
    token_file: Path | None = None
    """A file that holds it, read again when it changes."""
    tls_certificate_file: Path | None = None
    """PEM; serves HTTPS. Read when the agent starts."""
    tls_key_file: Path | None = None
    """PEM, without a passphrase."""


class VerifyConfig(_Section):
    """What `ctl verify --restore` may use on this host."""

    mongod: Path | None = None
    """The server to start; without it the one on `PATH`. Of the version of the backups."""
    scratch_dir: Path | None = None
    """Where a backup is restored to for a proof and removed afterwards: a directory of the agent's
    user, with room for all data. Without it this agent proves nothing."""


class ExportConfig(_Section):
    """What `ctl export` may write on this host."""

    directory: Path | None = None
    """Exports are written below it. Without it this agent writes none. Needs `verify.scratchDir`
    too."""


class StopConfig(_Section):
    """How the agent ends."""

    grace: Duration = 3.0
    """What is almost done may end within this time; the rest is handed over."""


class Config(_Section):
    """All of them."""

    mongodb: MongodbConfig = MongodbConfig()
    log: LogConfig = LogConfig()
    memory: MemoryConfig = MemoryConfig()
    stop: StopConfig = StopConfig()
    verify: VerifyConfig = VerifyConfig()
    export: ExportConfig = ExportConfig()
    listen: str | None = None
    """`HOST:PORT` of the page, health and metrics; without it nothing is served."""
    web: WebConfig = WebConfig()

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, value: str | None) -> str | None:
        host, _, port = (value or "").rpartition(":")
        if value is None or (host and port.isascii() and port.isdigit() and int(port) < 1 << 16):
            return value
        raise ValueError(f"{value!r} is not HOST:PORT, such as 127.0.0.1:9360")

    @model_validator(mode="after")
    def _check_web(self) -> Self:
        web = self.web
        if self.listen is None:
            return self
        if (web.tls_certificate_file is None) != (web.tls_key_file is None):
            raise ValueError("web.tlsCertificateFile and web.tlsKeyFile need each other")
        if not is_loopback(self.listen_address()[0]) and not (web.token or web.token_file):
            raise ValueError(
                f"listen is {self.listen}, which others can reach, and there is no token: set"
                " web.tokenFile, or listen on 127.0.0.1"
            )
        return self

    def listen_address(self) -> tuple[str, int]:
        """Host and port to serve at."""
        host, _, port = (self.listen or "").rpartition(":")
        return host.strip("[]"), int(port)

    def uri(self) -> str:
        """The connection string. Raises `ConfigError` when none is given."""
        if self.mongodb.uri is not None:
            return self.mongodb.uri.get_secret_value()
        if self.mongodb.uri_file is not None:
            text = _read(self.mongodb.uri_file, "the connection string").strip()
            if text:
                return text
        raise ConfigError(
            "no connection string is given",
            hint="set TIDELOG_MONGODB_URI=mongodb://user:password@host:port/, or mongodb.uri or"
            " mongodb.uriFile in the file given with --config",
        )


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load(
    path: Path | None, environment: Mapping[str, str], overrides: Overrides | None = None
) -> Config:
    """The settings of this agent. `overrides` are dotted keys of the command line, which win.
    Raises `ConfigError` that names the file, the variable or the key."""
    data: dict[str, Any] = {}
    if path is not None:
        data = keys.canonical(Config, keys.parse_yaml(_read(path, "the settings"), str(path)))
    for name, value in _from_environment(environment).items():
        data = _put(data, name, value)
    for name, value in (overrides or {}).items():
        if value is not None:
            data = _put(data, name, value)
    return keys.validate(Config, data)


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for variable in reversed(URI_VARIABLES):
        if environment.get(variable):
            found["mongodb.uri"] = environment[variable]
    for variable, value in environment.items():
        if variable.startswith(PREFIX) and "__" in variable:
            found[variable.removeprefix(PREFIX).replace("__", ".").lower()] = value
    if environment.get(f"{PREFIX}LISTEN"):
        found["listen"] = environment[f"{PREFIX}LISTEN"]
    return found


def _put(data: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    return keys.set_path(data, keys.resolve(Config, name), value)


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(f"{what} cannot be read from {path}: {reason}") from error
