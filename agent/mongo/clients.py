"""Clients of the driver, as all connections to a node are made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import PyMongoError

from agent.errors import ConfigError

APP_NAME: Final = "tidelog-agent"
"""What every connection of an agent calls itself."""
CALL_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10.0
LONG_TIMEOUT_S = 7 * 24 * 3600.0
"""Of what takes the longer the more data there are: building, dropping, counting, hashing. A server
that hangs or is gone is not waited for as long: the driver asks each one beside every command
whether it is there, and ends what waits for one that is silent."""
_SOCKET_CALLS = 4
"""A socket waits for so many calls before it is given up."""

Client = AsyncIOMotorClient[dict[str, Any]]


def in_ms(seconds: float) -> int:
    """As the driver and the server want durations."""
    return int(seconds * 1000)


@contextmanager
def readable() -> Iterator[None]:
    """What is wrong with a connection string, as `ConfigError`; it is never repeated."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"the connection string names a file that cannot be read: {error.filename}"
            f" ({error.strerror})"
        ) from None
    except (PyMongoError, ValueError):
        # The driver's text repeats what it could not read, and that may be a secret.
        raise ConfigError(
            "the connection string is wrong: a host, port, option or file cannot be read",
            hint="write mongodb://user:password@host:port/?options",
        ) from None


def open_client(uri: str, **options: Any) -> Client:
    """Connects to nothing yet. Raises `ConfigError`, e.g. for a certificate that is not there."""
    chosen: dict[str, Any] = {
        "appname": APP_NAME,
        "serverSelectionTimeoutMS": in_ms(CONNECT_TIMEOUT_S),
        "connectTimeoutMS": in_ms(CONNECT_TIMEOUT_S),
        "socketTimeoutMS": in_ms(_SOCKET_CALLS * CALL_TIMEOUT_S),
        "uuidRepresentation": "standard",
        "retryReads": True,
        "maxPoolSize": 64,
        # Asking now and then whether a server is there takes one thread and one request in ten
        # seconds; being told at once takes two of each. A refusal or a lost connection makes the
        # driver look at once either way.
        "serverMonitoringMode": "poll",
    }
    with readable():
        return AsyncIOMotorClient(uri, **(chosen | options))
