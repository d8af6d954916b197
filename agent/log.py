"""How the agent speaks: structured lines on standard error, and a copy in the control database.

An event is a dotted lower-case name, past tense for facts; everything variable is a key. The names
are listed in `EVENTS`, and a test holds the code to the list. Secrets never get here; as a second
line of defence, what looks like the credentials of a connection string is cut out of every value.

The copy (`EventSink`) takes what `ctl logs` shows, info and graver. It never blocks, never fails
its caller and is bounded: what does not fit is dropped and counted.
"""

from __future__ import annotations

import logging
import re
import sys
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final

import structlog

from agent.clock import Clock
from agent.errors import TidelogError, Transient
from agent.wire.events import Event

EVENTS: Final = {
    "agent.started": "the agent serves its node",
    "agent.stopping": "it was asked to stop",
    "agent.stopped": "it has left",
    "agent.failed": "it ends because of an error",
    "agent.reloaded": "the local settings were read again",
    "agent.reload_failed": "they could not be, and the old ones stay",
    "balancer.not_looked_at": "whether the balancer must be put back could not be found out now",
    "balancer.paused": "ranges stay where they are for an operation",
    "balancer.put_back": "the balancer is as it was before",
    "balancer.still_moving": "ranges are still being moved, and the operation goes on all the same",
    "backup.journals_kept": "a published backup's journals could not be deleted; they harm nobody",
    "backup.listed_again": "backups that storage publishes and nobody listed are in the list again",
    "backup.not_listed": "a backup that storage publishes cannot be listed, with the reason",
    "backup.copy_lost": "a backup goes on without one of its storages, which failed",
    "aside.failed": "the page or the webhooks failed for a reason nobody thought of; begun anew",
    "backup.deleted": "a backup and what only it needed is gone, with the reason",
    "backup.held": "a backup must not be deleted",
    "backup.released": "it may be again",
    "commands.wake_failed": "other agents could not be woken; they poll",
    "commands.watch_broken": "the watch for commands broke off and is begun anew",
    "http.listening": "the page, health and metrics are served at an address",
    "http.not_listening": "they cannot be served there; tried again, and backups go on",
    "notify.delivered": "a webhook took a notice",
    "notify.failed": "a webhook did not take a notice; sent again later",
    "notify.given_up": "a notice was not taken for a day and is dropped",
    "notify.interrupted": "the sender of notices was interrupted; it goes on",
    "control.unreachable": "the control database does not answer",
    "control.write_retried": "a control write is made again, e.g. after a change of primary",
    "encryption.enabled": "a repository is encrypted from now on",
    "encryption.foreign_slices": "slices in clear, in an encrypted repository",
    "encryption.foreign_wrap": "a data key is wrapped under a key that no policy names: left alone",
    "encryption.key_in_danger": "a data key cannot be unwrapped, or soon may not be",
    "encryption.key_unusable": "this agent cannot use a key of the encryption",
    "encryption.policy_unproven": "no key can be used to prove a new policy; readers go on",
    "encryption.probe_failed": "the keys could not be looked at; tried again later",
    "encryption.probed": "the keys of all that is kept were unwrapped",
    "encryption.rotated": "data keys are wrapped under a new key, too",
    "encryption.wrap_missing": "a data key could not be wrapped under one of several keys",
    "governor.changed": "another pace holds from now on, by ctl limit or its windows",
    "governor.not_read": "the limits could not be read now; those of before hold",
    "governor.paused": "a backup waits for the node that it reads from to catch up",
    "lease.acquired": "this agent has the right to act",
    "lease.release_failed": "a lease could not be given back; it lapses",
    "lease.renewal_failed": "a renewal failed and is tried again",
    "node.awaited": "another agent's claim on the node must lapse first",
    "node.copied_by_unknown": "who copies from the node cannot be read; the choice goes without",
    "node.goodbye_failed": "the registry could not be told",
    "node.lease_lost": "the claim on the node could not be renewed in time",
    "node.role_changed": "the node became primary, secondary, …",
    "node.shard_not_read": "whether the replica set became a shard could not be found out now",
    "object.read_again": "an object was not what was written, and is read once more",
    "oplog.gap_recorded": "a hole in what can be restored, with its cause",
    "oplog.note_failed": "an idle replica set could not be moved on now; it is tried again",
    "oplog.slice_gone": "a slice is listed that was deleted: the list is behind",
    "oplog.slice_unreadable": "a slice's header cannot be read; it counts as missing",
    "oplog.unknown_command": "a slice holds a command that no replay of this version understands",
    "oplog.window_low": "slicing is so far behind that the oplog may soon not hold what it needs",
    "operation.attempt_failed": "leading failed, and is tried again by whoever wins the next bid",
    "operation.failed": "an operation ended badly",
    "operation.finished": "an operation is done or was cancelled",
    "operation.hand_over_failed": "the lead could not be given back; its lease lapses",
    "operation.handed_over": "the lead is given back in good order",
    "operation.led": "this agent leads an operation",
    "operation.transitioned": "an operation moved on",
    "operation.unknown": "an operation of a newer version was found",
    "part.attempt_failed": "working failed, and is tried again by whoever wins the next bid",
    "part.cancelled": "the work was stopped because somebody cancelled it",
    "part.done": "the work of this replica set is done",
    "part.failed": "the work of this replica set failed for good",
    "part.hand_over_failed": "the part could not be given back; its lease lapses",
    "part.handed_over": "the part is given back in good order",
    "part.progress_not_written": "progress will be written later",
    "part.role_unknown": "the node does not say whether it is the primary; it is asked again",
    "part.taken": "this agent works for its replica set",
    "resync.unreadable": "a backup is left out: its document is harmed or forged",
    "restore.leftovers_kept": "what a restore left behind could not be dropped now; tried again",
    "restore.leftovers_removed": "what a restore left behind that failed or died is dropped",
    "restore.not_mirrored": "the state of a restore could not be copied to the repository",
    "restore.transactions_decided": "what became of transactions prepared at that moment is known",
    "restore.writes_awaited": "the server still works on what another worker sent; waited for",
    "restore.stage_done": "a stage of a restore is done",
    "runner.look_failed": "the operations could not be read; tried again in a second",
    "schedule.began": "a schedule is new: it runs at its next moment",
    "schedule.failed": "the schedules could not be looked after; tried again",
    "schedule.held_up": "the schedules wait for the database",
    "schedule.led": "this agent looks after schedules and retention",
    "schedule.missed": "moments of a schedule passed while no agent was there",
    "schedule.skipped": "a schedule's run was left out, with the reason",
    "schedule.submitted": "a schedule asked for a backup",
    "schedule.superseded": "another agent looks after the schedules now",
    "retention.due": "the policy asks for a cleanup",
    "session.broken": "leading or working broke off; the operation waits for the next bid",
    "session.crashed": "the same, for a reason nobody thought of",
    "session.superseded": "somebody else leads or works on",
    "settings.not_read": "the settings of the cluster could not be read",
    "slicer.error_not_noted": "why slicing stands still could not be written down",
    "slicer.failed": "slicing failed, and is tried again",
    "slicer.handed_over": "a node that is preferred archives the oplog from now on",
    "slicer.held_up": "slicing waits for the storage or the database",
    "slicer.started": "this agent archives the oplog of its replica set",
    "slices.deleted": "archived oplog is gone, with the reason",
    "slicer.superseded": "another agent archives it now",
    "sweep.failed": "a storage beside the main one could not be swept; the next sweep tries again",
    "sweep.removed": "leftovers of one writer are gone",
    "sweep.waiting": "leftovers are seen and wait for their grace",
    "storage.check_failed": "this agent cannot use the storage of the settings",
    "storage.retry": "a request to the storage is made again",
    "storage.uploads_not_swept": "what killed writers left of uploads cannot be looked for",
    "storage.uploads_swept": "uploads in parts that a killed writer left behind were aborted",
    "storage.worry": "the storage works, and soon will not: its credentials end",
    "export.written": "a backup lies as a mongodump directory on the agent's host",
    "scratch.leftover_removed": "what a proof left that did not end by itself was removed",
    "verify.proved": "a backup was restored into a scratch mongod, which found it sound",
    "verify.not_remembered": "what a verification read could not be noted; the next reads it again",
    "verify.harmed": "a backup is not what was written any more; ctl verify says what",
    "verify.deleted_meanwhile": "what a verification missed was being deleted; it harms nothing",
    "verify.slices_harmed": "archived oplog is not what was written any more",
}

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_SEVERITIES: Final = {"debug": "D", "info": "I", "warning": "W", "error": "E", "critical": "F"}
_CREDENTIALS: Final = re.compile(r"(mongodb(?:\+srv)?://)[^@/\s]*@")
_KEPT: Final = frozenset({"event", "level", "timestamp", "node", "replset"})
_NAMED: Final = ("op_id", "kind", "name")
_TEXT_LIMIT: Final = 2000

Entry = MutableMapping[str, Any]


class EventSink:
    """A structlog processor that keeps copies, and the task that writes them."""

    LIMIT: Final = 1000
    BATCH: Final = 200
    WRITE_EVERY_S: Final = 1.0

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: deque[tuple[float, Event]] = deque(maxlen=self.LIMIT)
        self.dropped = 0
        self.counts = dict.fromkeys(EVENTS, 0)
        """How often each event was logged."""

    def __call__(self, logger: Any, method: str, entry: Entry) -> Entry:
        """Keep a copy of what people ask about."""
        name = str(entry.get("event"))
        if name in self.counts:
            self.counts[name] += 1
        if LEVELS.get(str(entry.get("level")), 0) >= LEVELS["info"]:
            self.dropped += len(self._waiting) == self.LIMIT
            self._waiting.append((self._clock.monotonic(), _event(entry)))
        return entry

    async def run(self, write: Callable[[Sequence[Event]], Awaitable[None]]) -> None:
        """Write the copies every second, for ever."""
        while True:
            await self._clock.sleep(self.WRITE_EVERY_S)
            await self.flush(write)

    async def flush(self, write: Callable[[Sequence[Event]], Awaitable[None]]) -> None:
        """Write what waits now; what cannot be written waits on, as long as there is room, or
        goes where trying again is of no use: nobody stops for that."""
        while self._waiting:
            taken = [self._waiting.popleft() for _ in range(min(self.BATCH, len(self._waiting)))]
            now = self._clock.monotonic()
            try:
                await write(
                    [event.model_copy(update={"age_s": now - then}) for then, event in taken]
                )
            except Transient:
                room = self.LIMIT - len(self._waiting)
                self.dropped += max(0, len(taken) - room)
                self._waiting.extendleft(reversed(taken[-room:] if room else []))
                return
            except TidelogError:
                self.dropped += len(taken)
                return


def configure(*, level: str = "info", style: str = "auto", sink: EventSink | None = None) -> None:
    """Set logging up for this process; may be called again."""
    console = sys.stderr.isatty() if style == "auto" else style == "console"
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info if not console else _keep,
        redact,
    ]
    renderer: Any = (
        structlog.dev.ConsoleRenderer()
        if console
        else structlog.processors.JSONRenderer(default=str, ensure_ascii=False)
    )
    structlog.configure(
        processors=[*shared, sink or _keep, _at_least(level), renderer],
        wrapper_class=structlog.make_filtering_bound_logger(min(LEVELS[level], LEVELS["info"])),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    _configure_libraries(shared, renderer)


def _configure_libraries(shared: Sequence[Any], renderer: Any) -> None:
    """What libraries say by way of the standard library, in the same shape; warnings and worse."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(logging.WARNING)


def redact(logger: Any, method: str, entry: Entry) -> Entry:
    """Cut the credentials out of anything that looks like a connection string."""
    for key, value in entry.items():
        if isinstance(value, str) and "mongodb" in value:
            entry[key] = _CREDENTIALS.sub(r"\1***@", value)
    return entry


def _at_least(level: str) -> Callable[[Any, str, Entry], Entry]:
    """The sink sees more than what is printed."""

    def drop(logger: Any, method: str, entry: Entry) -> Entry:
        if LEVELS.get(str(entry.get("level")), 0) < LEVELS[level]:
            raise structlog.DropEvent
        return entry

    return drop


def _keep(logger: Any, method: str, entry: Entry) -> Entry:
    return entry


def _event(entry: Entry) -> Event:
    named = {key: str(entry[key]) for key in _NAMED if entry.get(key) is not None}
    return Event(
        severity=_SEVERITIES.get(str(entry.get("level")), "I"),
        node=str(entry.get("node", "")),
        replset=str(entry.get("replset", "")),
        event=str(entry.get("event", ""))[:_TEXT_LIMIT],
        fields={
            key: _plain(value)
            for key, value in entry.items()
            if key not in _KEPT and key not in _NAMED and value is not None
        },
        **named,
    )


def _plain(value: Any) -> Any:
    """What any database and any JSON can hold."""
    if isinstance(value, bool | float) or value is None:
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 63 else str(value)
    return str(value)[:_TEXT_LIMIT]
