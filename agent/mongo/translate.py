"""Driver errors of the data path, turned into our tree at the edge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
)

from agent.errors import NodeUnavailable, Permanent, PermissionDenied, TidelogError
from agent.store.translate import LOGIN_REFUSED, brief, refused_login

UNAUTHORIZED = 13
NAMESPACE_NOT_FOUND = 26
QUERY_PLAN_KILLED = 175
SNAPSHOT_TOO_OLD = 239
SNAPSHOT_UNAVAILABLE = 246
CAPPED_POSITION_LOST = 136
CURSOR_NOT_FOUND = 43
DROP_PENDING = 215

_TRANSIENT_CODES = frozenset(
    {
        6,  # HostUnreachable
        7,  # HostNotFound
        11600,  # InterruptedAtShutdown
        11602,  # InterruptedDueToReplStateChange
        10107,  # NotWritablePrimary
        13435,  # NotPrimaryNoSecondaryOk
        13436,  # NotPrimaryOrSecondary
        189,  # PrimarySteppedDown
        91,  # ShutdownInProgress
        50,  # MaxTimeMSExpired
        262,  # ExceededTimeLimit
        64,  # WriteConcernFailed
        CURSOR_NOT_FOUND,
        134,  # ReadConcernMajorityNotAvailableYet
        112,  # WriteConflict
        24,  # LockTimeout
    }
)


class CommandFailed(Permanent):
    """mongod refused a command; `code` is the server's error code."""

    def __init__(self, message: str, *, code: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class DropPending(NodeUnavailable):
    """The database is in the process of being dropped: nothing can be made in it yet."""


@contextmanager
def translated(action: str) -> Iterator[None]:
    """Turn what the driver raises inside into `NodeUnavailable`, `PermissionDenied` or
    `CommandFailed`; `action` says what was being done, e.g. `reading shop.orders`."""
    try:
        yield
    except TidelogError:
        raise
    except OperationFailure as error:
        raise _refused(action, error) from error
    except (ConnectionFailure, ExecutionTimeout) as error:
        raise NodeUnavailable(
            f"{action}: the node does not answer ({brief(error)})",
            hint="check that mongod runs and that the agent can reach it",
        ) from error
    except ConfigurationError as error:
        # What the driver says of a server that tells of no sessions is "not supported".
        is_alone = "Sessions are not supported" in str(error)
        reason = "the node is in no replica set now, or just starts" if is_alone else brief(error)
        raise NodeUnavailable(f"{action}: {reason}") from error
    except PyMongoError as error:
        raise NodeUnavailable(f"{action}: {brief(error)}") from error


def _refused(action: str, error: OperationFailure) -> TidelogError:
    code = error.code or 0
    if code in LOGIN_REFUSED:
        return refused_login(action, error)
    is_transient = error.has_error_label("RetryableWriteError")
    return _by_code(code, f"{action}: {brief(error)}", is_transient=is_transient)


def refused_write(action: str, error: Mapping[str, Any]) -> TidelogError:
    """The same for one of a reply's `writeErrors`. A node that steps down between two writes of one
    command says so there, and that the command as a whole went well."""
    code = int(error.get("code", 0))
    return _by_code(code, f"{action}: {error.get('errmsg') or code}", is_transient=False)


def _by_code(code: int, text: str, *, is_transient: bool) -> TidelogError:
    if is_transient or code in _TRANSIENT_CODES:
        return NodeUnavailable(text)
    if code == DROP_PENDING:
        return DropPending(text)
    if code == UNAUTHORIZED:
        return PermissionDenied(
            text, hint="give the agent's user the role that 'ctl db-role' prints"
        )
    return CommandFailed(text, code=code)
