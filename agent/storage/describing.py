"""What a driver may add to a storage check, beside what can be tried on any storage.

Both protocols are optional: a driver that has the methods answers, of another it is said that
nothing is known. What a store does not tell, or does not allow to be asked, is an answer in words
too (`not allowed to ask (s3:GetBucketVersioning)`); these methods raise nothing for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final, Protocol, runtime_checkable

from agent.clock import host_time_s
from agent.errors import PermissionDenied, TidelogError
from agent.wire.wording import duration

LARGEST_SKEW_S: Final = 60.0
"""Stores refuse requests that are signed 15 minutes off."""
CREDENTIALS_END_SOON_S: Final = 7 * 86_400.0
"""From when on credentials that nobody renews by themselves are warned of."""
NOT_BLOCKED: Final = "not blocked"
"""What `public` says where anybody may read, or may be allowed to."""


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


@runtime_checkable
class Ending(Protocol):
    """A driver whose credentials may end, and are not renewed by themselves."""

    @property
    def credentials_left_s(self) -> float | None:
        """For how many seconds they are good, by the store's clock; None: they do not end, or the
        store has not answered yet."""


def ending_in_words(left_s: float | None) -> str | None:
    """That credentials end soon, or have ended; None where that is not so."""
    if left_s is None or left_s > CREDENTIALS_END_SOON_S:
        return None
    when = f"end in {duration(left_s)}" if left_s > 0 else "have ended"
    return f"the credentials of the storage {when}: give new ones"


async def asked(ask: Callable[[], Awaitable[str | None]], right: str) -> str | None:
    """An answer, or why there is none; `right` is what it would take."""
    try:
        return await ask()
    except PermissionDenied:
        return f"not allowed to ask ({right})"
    except TidelogError:
        return "this server does not say"


def skew_s(date: str | None) -> float | None:
    """The host's clock minus that of a store, by the `Date` of an answer that just came."""
    try:
        return None if date is None else host_time_s() - parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None


def tls_in_words(url: str, *, is_unverified: bool, has_authority: bool) -> str:
    """How a connection to an endpoint is secured."""
    if url.startswith("http:"):
        return "no: requests go in clear"
    if is_unverified:
        return "yes, and any certificate is believed (insecureSkipTLSVerify)"
    return "yes, verified with endpointCA" if has_authority else "yes, verified"


def worries(
    clock_skew_s: float | None, public: str | None, credentials_left_s: float | None = None
) -> tuple[str, ...]:
    """What is worth a warning, on every store."""
    found = []
    if clock_skew_s is not None and abs(clock_skew_s) > LARGEST_SKEW_S:
        found.append(
            f"the clock of this host is {abs(clock_skew_s):.0f} s "
            f"{'ahead' if clock_skew_s > 0 else 'behind'}; requests are refused from 15 minutes on"
        )
    if public == NOT_BLOCKED:
        found.append("public access to the bucket is not blocked")
    if (ending := ending_in_words(credentials_left_s)) is not None:
        found.append(ending)
    return tuple(found)
