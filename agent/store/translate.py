"""Driver errors of the control database, turned into our tree at the edge."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    DuplicateKeyError,
    InvalidURI,
    OperationFailure,
    PyMongoError,
)

from agent.errors import ConfigError, Permanent, PermissionDenied, StoreUnavailable, TidelogError

_DENIED = frozenset({13})  # Unauthorized
LOGIN_REFUSED = frozenset({11, 18, 8000})  # UserNotFound, AuthenticationFailed, AtlasError
_TRANSIENT = frozenset(
    {
        6,  # HostUnreachable
        7,  # HostNotFound
        24,  # LockTimeout
        43,  # CursorNotFound
        50,  # MaxTimeMSExpired
        64,  # WriteConcernFailed: wtimeout
        89,  # NetworkTimeout
        91,  # ShutdownInProgress
        112,  # WriteConflict
        134,  # ReadConcernMajorityNotAvailableYet
        136,  # CappedPositionLost
        175,  # QueryPlanKilled
        189,  # PrimarySteppedDown
        262,  # ExceededTimeLimit
        9001,  # SocketException
        10107,  # NotWritablePrimary
        11600,  # InterruptedAtShutdown
        11602,  # InterruptedDueToReplStateChange
        13435,  # NotPrimaryNoSecondaryOk
        13436,  # NotPrimaryOrSecondary
    }
)
_UNTRUSTED = re.compile(r"certificate verify failed: (.*?) \(_ssl")
_NO_LOGIN = "requires authentication"
_NO_PRIMARY = 'No replica set members match selector "Primary()"'
_REPEATED = re.compile(r"execute command \{ (\w+):.*", re.DOTALL)


@contextmanager
def translated(action: str) -> Iterator[None]:
    """Turn what the driver raises inside into `StoreUnavailable`, `PermissionDenied`,
    `ConfigError` or `Permanent`; `action` says what was being done, e.g. `reading the settings`.
    A duplicate key passes: it is an answer, which the repository that asked knows to read."""
    try:
        yield
    except (TidelogError, DuplicateKeyError):
        raise
    except BulkWriteError as error:
        raise _refused(action, _first_of(error)) from error
    except OperationFailure as error:
        raise _refused(action, error) from error
    except (InvalidURI, ConfigurationError) as error:
        # The driver's text may repeat a part of the connection string, and so of the password.
        raise ConfigError(
            f"{action}: the connection string or a file it names is not usable"
            f" ({type(error).__name__})",
            hint="check the options, and percent-encode special characters in user and password",
        ) from None
    except PyMongoError as error:
        raise StoreUnavailable(f"{action}: {brief(error)}") from error


def brief(error: BaseException) -> str:
    """The first sentence of a driver's message, which may go on for a screen."""
    text = str(error).split(", full error:")[0].split(", Timeout:")[0].split("(configured")[0]
    text = text.replace(_NO_PRIMARY, "no member that answers is primary")
    # The server repeats the whole command, documents, users and all.
    text = _REPEATED.sub(r"execute \1", text)
    return text.strip()[:300] or type(error).__name__


def refused_login(action: str, error: OperationFailure) -> ConfigError:
    """The error of a login that the server does not take."""
    return ConfigError(
        f"{action}: the login was refused ({brief(error).rstrip('.')})",
        hint="check user, password and authSource of the connection string; with x509, that the"
        " certificate's subject is a user of $external",
    )


def _first_of(error: BulkWriteError) -> OperationFailure:
    """Of several writes in one, the first that failed: it says why."""
    failed = [*error.details.get("writeErrors", ()), *error.details.get("writeConcernErrors", ())]
    if not failed:
        return error
    return OperationFailure(failed[0].get("errmsg", str(error)), failed[0].get("code"))


def _refused(action: str, error: OperationFailure) -> TidelogError:
    code = error.code or 0
    if code in LOGIN_REFUSED:
        return refused_login(action, error)
    text = f"{action}: {brief(error)}"
    if code in _DENIED and _NO_LOGIN in text:
        return ConfigError(
            f"{action}: the server wants a login",
            hint="write mongodb://user:password@host:port/?authSource=admin",
        )
    if code in _DENIED:
        return PermissionDenied(text, hint="give the user the role that 'ctl db-role' prints")
    if code in _TRANSIENT or error.has_error_label("RetryableWriteError"):
        return StoreUnavailable(text)
    return Permanent(text)
