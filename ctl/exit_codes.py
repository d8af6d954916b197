"""Exit statuses, and the errors that only the client knows. People's scripts rely on the numbers.

0 done · 1 the operation failed · 2 usage · 3 refused · 4 not found · 5 unreachable
6 --wait-time ran out (the operation goes on) · 130 interrupted (it goes on, too)
"""

from __future__ import annotations

from enum import IntEnum

from agent import errors


class ExitCode(IntEnum):
    """What `ctl` says to the shell."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    NOT_FOUND = 4
    UNREACHABLE = 5
    WAIT_RAN_OUT = 6
    INTERRUPTED = 130


class OperationFailed(errors.TidelogError):
    """The operation that was waited for ended badly; `cause` is the type of its recorded error."""

    def __init__(self, message: str, *, cause: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.cause = cause


class WaitRanOut(errors.TidelogError):
    """The client stops waiting; the operation goes on."""

    hint = "it goes on; 'ctl status' shows how far it is"


_BRANCHES: tuple[tuple[type[errors.TidelogError], ExitCode], ...] = (
    (WaitRanOut, ExitCode.WAIT_RAN_OUT),
    (errors.NotFound, ExitCode.NOT_FOUND),
    (errors.Refused, ExitCode.REFUSED),
    (errors.ConfigError, ExitCode.USAGE),
    (errors.StoreUnavailable, ExitCode.UNREACHABLE),
)


def exit_code(error: errors.TidelogError) -> ExitCode:
    """The status of an error: the most specific branch that is listed, else 1."""
    if isinstance(error, OperationFailed):
        return _code_of_cause(error.cause)
    for branch, code in _BRANCHES:
        if isinstance(error, branch):
            return code
    return ExitCode.FAILED


def _code_of_cause(name: str) -> ExitCode:
    # What the agents refused is refused, as if the client had seen it; all else failed.
    cause = getattr(errors, name, None)
    if not isinstance(cause, type) or not issubclass(cause, errors.TidelogError):
        return ExitCode.FAILED
    if issubclass(cause, errors.NotFound):
        return ExitCode.NOT_FOUND
    if issubclass(cause, errors.Refused | errors.ConfigError):
        return ExitCode.REFUSED
    return ExitCode.FAILED
