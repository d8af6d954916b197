"""What the answers of all stores have in common, on their way to errors of `agent.errors`.

The drivers' own `errors.py` know the codes of their vendors; how a header is read, an exception
unwrapped and a missing right named is the same for all.
"""

from __future__ import annotations

import ssl
from typing import Any, Final

import aiohttp

from agent.errors import ConfigError, Permanent, StorageUnavailable, TidelogError

_LONGEST_PAUSE_S = 60.0


class NoSuchUpload(Permanent):
    """The upload in parts is gone: completed, or aborted."""


class Unsupported(Permanent):
    """The server does not know what was asked for."""


class CredentialsExpired(StorageUnavailable):
    """The credentials are not good any more; the next attempt has new ones."""


def pause_asked_s(retry_after: str | None) -> float:
    """Seconds in a `Retry-After` header; a second where it says nothing of use."""
    try:
        return min(max(float(retry_after or 1.0), 0.1), _LONGEST_PAUSE_S)
    except ValueError:
        return 1.0


def first_line(error: BaseException) -> str:
    """What an exception says, without its full stop, and without the query of an address: that may
    hold a token."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].partition("?")[0].rstrip(". ")


def with_right(hint: str | None, right: str) -> str | None:
    """A hint that begins with the right that is missing: `allow s3:PutObject; …`."""
    return "; ".join(filter(None, (f"allow {right}" if right else "", hint))) or None


LOOK_AT: Final = "look at the endpoint of the settings, at the network, and at proxies on the way"


def unreached(error: BaseException, what: str) -> TidelogError:
    """For what was not answered at all: `ConfigError` where the certificate is not trusted, else
    `StorageUnavailable`."""
    problem = _certificate_problem(error)
    if problem is not None:
        return ConfigError(
            f"{what}: the certificate of the server is not trusted: {problem}",
            hint="give the certificate of its authority as endpointCA",
        )
    if isinstance(error, TimeoutError):
        return StorageUnavailable(f"{what}: no answer in time", hint=LOOK_AT)
    return StorageUnavailable(f"{what}: {first_line(error)}", hint=LOOK_AT)


def _certificate_problem(error: BaseException | None) -> str | None:
    """What is wrong with the server's certificate, somewhere inside of what libraries wrapped."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            error = error.certificate_error
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = _inner(error) or error.__cause__ or error.__context__
    return None


def _inner(error: Any) -> BaseException | None:
    """Where botocore and azure-core keep what happened."""
    kept = getattr(error, "kwargs", None)
    found = kept.get("error") if isinstance(kept, dict) else None
    found = found or getattr(error, "inner_exception", None)
    return found if isinstance(found, BaseException) else None


def was_reached(error: TidelogError | None) -> bool:
    """Whether a server said what is wrong, if anything is; not where `unreached` did."""
    return not isinstance(error, StorageUnavailable) and "certificate of the" not in str(error)
