"""Waiting for an operation: progress, what hinders it, and its end. The operation needs none of
this: whoever stops following leaves it running."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agent.errors import StoreUnavailable
from agent.wire.operations import Kind, Operation, State
from ctl.exit_codes import OperationFailed, WaitRanOut
from ctl.hindrance import Hindrance, find_hindrance
from ctl.progress import Reporter, open_reporter
from ctl.render import duration

if TYPE_CHECKING:
    from ctl.session import Session

POLL_EVERY_S: Final = 0.25
POLL_FIRST_S: Final = 0.0625
SOON_S: Final = 1.0
"""What is over within so long is told sooner."""
LOOK_AROUND_EVERY_S: Final = 2.0
PATIENCE_S: Final = 120.0
"""How long nobody may be there to carry the operation out, or to tell of it, before we give up."""

_WORDS: Final = {
    Kind.ADOPT: "adoption",
    Kind.DELETE_BACKUP: "deletion",
    Kind.DELETE_PITR: "deletion of slices",
    Kind.RESYNC: "resync",
    Kind.VERIFY: "verification",
    Kind.PROVE: "proof",
}


def label(operation: Operation) -> str:
    """How a person calls it: `backup 2026-11-22T03:08:36Z`."""
    return f"{_WORDS.get(operation.kind, operation.kind.value)} {operation.name}"


def headline(operation: Operation) -> str:
    """The same, to begin a sentence with."""
    words = label(operation)
    return words[0].upper() + words[1:]


async def follow(session: Session, operation: Operation, wait_time_s: float | None) -> Operation:
    """Wait until it is over and answer its last state. Raises `OperationFailed` when it ended
    badly, `WaitRanOut` when the time did, or when no agent has been alive for long."""
    session.invocation.followed = label(operation)
    with open_reporter(session.output, label(operation), session.clock.monotonic) as reporter:
        last = await _Watch(session, reporter, operation, wait_time_s).run()
    session.invocation.followed = None
    check_outcome(last)
    return last


def check_outcome(operation: Operation) -> None:
    """Raises `OperationFailed` for an operation that is over and not done."""
    if operation.state is State.CANCELLED:
        raise OperationFailed(f"the {label(operation)} was cancelled", hint="")
    if operation.state is not State.FAILED:
        return
    error = operation.error
    if error is None:
        raise OperationFailed(f"the {label(operation)} failed and left no reason")
    where = f" on {error.node}" if error.node else ""
    raise OperationFailed(
        f"the {label(operation)} failed{where}: {error.message}",
        cause=error.type,
        hint=error.hint or f"'ctl logs -i {operation.id}' shows what led to it",
    )


@dataclass
class _Watch:
    session: Session
    reporter: Reporter
    operation: Operation
    wait_time_s: float | None
    silent_since: float | None = None
    looked_at: float = 0.0
    hindrance: Hindrance | None = None
    hindered_since: float = 0.0

    async def run(self) -> Operation:
        clock = self.session.clock
        started = clock.monotonic()
        while True:
            await self._poll()
            if self.operation.state.is_terminal:
                return self.operation
            now = clock.monotonic()
            await self._look_around(now)
            if self.wait_time_s is not None and now - started >= self.wait_time_s:
                raise WaitRanOut(
                    f"the {label(self.operation)} is not over after {duration(now - started)}"
                    f" ({self.operation.state.value})"
                )
            await clock.sleep(POLL_FIRST_S if now - started < SOON_S else POLL_EVERY_S)

    async def _poll(self) -> None:
        try:
            found = await self.session.operations.get(self.operation.id)
        except StoreUnavailable as error:
            self._bear(error)
            return
        self.silent_since = None
        self.operation = found
        self.reporter.show(found)

    def _bear(self, error: StoreUnavailable) -> None:
        # A primary that steps down is back in seconds, and the operation does not mind.
        now = self.session.clock.monotonic()
        if self.silent_since is None:
            self.silent_since = now
            self.reporter.say(f"{error}; trying on")
        if now - self.silent_since >= PATIENCE_S:
            raise error

    async def _look_around(self, now: float) -> None:
        if self.silent_since is not None or now - self.looked_at < LOOK_AROUND_EVERY_S:
            return
        self.looked_at = now
        try:
            nodes = await self.session.nodes.all()
            held = await self.session.leases.held()
        except StoreUnavailable:
            return  # the next poll meets it again, and counts
        scopes = frozenset(held)
        self._notice(find_hindrance(self.operation, tuple(nodes), scopes), now)

    def _notice(self, found: Hindrance | None, now: float) -> None:
        if found is None:
            if self.hindrance is not None:
                self.reporter.hinder(None)
            self.hindrance = None
            return
        if self.hindrance is None or self.hindrance.kind != found.kind:
            self.hindered_since = now
        self.hindrance = found
        lasted = now - self.hindered_since
        if lasted >= found.grace_s:
            self.reporter.hinder(f"{found.sentence} ({duration(lasted)})")
        if found.is_fatal and lasted >= PATIENCE_S:
            raise WaitRanOut(
                f"{found.sentence}; gave up waiting for the {label(self.operation)}",
                hint="it goes on as soon as an agent is back; see 'ctl status'",
            )
