"""What a driver may add to a storage check, beside what can be tried on any storage.

Both protocols are optional: a driver that has the methods answers, of another it is said that
nothing is known. What a store does not tell, or does not allow to be asked, is an answer in words
too (`not allowed to ask (s3:GetBucketVersioning)`); these methods raise nothing for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from agent.errors import PermissionDenied, TidelogError


@dataclass(frozen=True, slots=True)
class Description:
    """Facts for people; None where a store has no such thing or does not say."""

    identity: str | None = None
    """As whom the store sees this agent. Never a secret."""
    credentials: str | None = None
    """Which link of the credential chain won."""
    tls: str | None = None
    region: str | None = None
    clock_skew_s: float | None = None
    """The host's clock minus the store's."""
    versioning: str | None = None
    object_lock: str | None = None
    encryption: str | None = None
    """How the probe object was encrypted by the server, and the default of the bucket."""
    public: str | None = None
    free_bytes: int | None = None
    warnings: tuple[str, ...] = ()


@runtime_checkable
class Describing(Protocol):
    """A driver that knows more of its store."""

    async def describe(self, probe: str) -> Description:
        """Look around; `probe` is the key of an object that was just written, or could not be."""


@runtime_checkable
class UploadsInParts(Protocol):
    """A driver whose larger uploads need rights of their own."""

    async def try_parts(self, key: str) -> tuple[TidelogError | None, TidelogError | None]:
        """Begin an upload in parts, store one, and abort it: what went wrong with the upload, and
        with the abort."""


async def asked(ask: Callable[[], Awaitable[str | None]], right: str) -> str | None:
    """An answer, or why there is none; `right` is what it would take."""
    try:
        return await ask()
    except PermissionDenied:
        return f"not allowed to ask ({right})"
    except TidelogError:
        return "this server does not say"
