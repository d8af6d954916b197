"""Carries the actions out, in the calling thread or in one of its own."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from bson.timestamp import Timestamp
from pymongo import MongoClient
from pymongo.client_session import ClientSession
from pymongo.errors import ConnectionFailure, ExecutionTimeout, OperationFailure

from tests.support.mongod.node import check_alive
from tests.support.workload.actions import Action, Mode
from tests.support.workload.generator import Generator

DEFAULT_DATABASES: Final = ("tide", "tide-2", "gezeiten_ü")
_JOIN_S: Final = 40.0
_AFTER_LOSS_S: Final = 0.1
_DEADLY: Final = frozenset({"cappedSize", "cappedMax"})
"""Changes for which mongod 6.0.5 looks at the collection behind a view, which there is none."""
_WRITES: Final = frozenset({"insert", "update", "delete", "findAndModify"})


@dataclass
class Stats:
    """What was done: actions by kind, commands that succeeded, errors by (kind, code)."""

    actions: Counter[str] = field(default_factory=Counter)
    succeeded: Counter[str] = field(default_factory=Counter)
    errors: Counter[tuple[str, int]] = field(default_factory=Counter)
    interrupted: int = 0

    @property
    def total(self) -> int:
        """All actions."""
        return self.actions.total()


class Workload:
    """Writes until stopped. `with Workload(client, seed=1): …` runs it in a thread.

    The server's refusals are part of the game and are counted; a lost connection is counted and
    waited out, unless a server has died that nobody killed; that and anything else is raised by
    `stop`.
    """

    def __init__(
        self,
        client: MongoClient[dict[str, Any]],
        seed: int,
        databases: tuple[str, ...] = DEFAULT_DATABASES,
        *,
        weights: Mapping[str, float] | None = None,
        rate: float = 100.0,
        write_concern: Mapping[str, Any] | None = None,
    ) -> None:
        self._client = client
        self.seed = seed
        self._generator = Generator(seed, databases, weights)
        self._interval_s = 1.0 / rate if rate else 0.0
        self._write_concern = dict(write_concern or {"w": 1})
        self._stats = Stats()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._turn = threading.Lock()
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            sys.stderr.write(f"workload: seed {self.seed}, {self._stats.total} actions\n")
        self.stop(quietly=error is not None)

    def start(self) -> Self:
        """Write in a thread from now on."""
        assert self._thread is None, "started already"
        self._stopping.clear()
        self._thread = threading.Thread(target=self._write_on, name="workload", daemon=True)
        self._thread.start()
        return self

    def stop(self, *, quietly: bool = False) -> Stats:
        """Stop after the action under way; raise what went wrong unless `quietly`."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)
            assert not self._thread.is_alive(), "the workload hangs in a command"
            self._thread = None
        if self._failure is not None and not quietly:
            raise self._failure
        return self._stats

    def run(self, actions: int) -> Stats:
        """Carry out so many actions here and now."""
        assert self._thread is None, "it runs in its thread"
        for _ in range(actions):
            self._act(self._generator.next())
        return self._stats

    def stats(self) -> Stats:
        """What was done so far."""
        return self._stats

    @contextmanager
    def quiesced(self) -> Iterator[Timestamp]:
        """Hold the writes; gives a majority-committed cluster time after the last of them."""
        with self._turn:
            yield mark(self._client)

    def _write_on(self) -> None:
        due = time.monotonic()
        try:
            while not self._stopping.is_set():
                with self._turn:
                    self._act(self._generator.next())
                due = max(due + self._interval_s, time.monotonic() - 1.0)
                # A plain lock is not fair: leave a moment in which `quiesced` can take it.
                self._stopping.wait(max(due - time.monotonic(), 0.0005))
        except BaseException as error:
            self._failure = error

    def _act(self, action: Action) -> None:
        self._stats.actions[action.kind] += 1
        try:
            if action.mode is Mode.PLAIN:
                for command in action.commands:
                    self._send(action, command)
            elif action.mode is Mode.RACE:
                self._race(action)
            else:
                self._transact(action)
        except ConnectionFailure:
            self._stats.interrupted += 1
            time.sleep(_AFTER_LOSS_S)
            check_alive()

    def _send(self, action: Action, command: dict[str, Any]) -> None:
        concern = {"writeConcern": self._write_concern}
        if _DEADLY & command.keys() and self._is_view(action.database, command["collMod"]):
            return
        try:
            reply = self._client[action.database].command({**command, **concern})
        except ExecutionTimeout as error:
            self._count(action, error.code)
        except OperationFailure as error:
            self._count(action, error.code)
        else:
            self._settle(action, command, reply)

    def _is_view(self, database: str, name: str) -> bool:
        found = self._client[database].list_collections(filter={"name": name})
        return any(one["type"] == "view" for one in found)

    def _settle(self, action: Action, command: dict[str, Any], reply: Mapping[str, Any]) -> None:
        for error in reply.get("writeErrors", ()):
            self._count(action, error["code"])
        if not reply.get("writeErrors"):
            self._stats.succeeded[next(iter(command))] += 1

    def _count(self, action: Action, code: int | None) -> None:
        self._stats.errors[action.kind, code or 0] += 1

    def _race(self, action: Action) -> None:
        first, *rest = action.commands
        lost: list[ConnectionFailure] = []

        def run() -> None:
            try:
                self._send(action, first)
            except ConnectionFailure as error:
                lost.append(error)

        runner = threading.Thread(target=run, name="workload-race", daemon=True)
        runner.start()
        try:
            time.sleep(0.01)
            for command in rest:
                self._send(action, command)
        finally:
            runner.join(_JOIN_S)
        if lost:
            raise lost[0]

    def _transact(self, action: Action) -> None:
        with self._client.start_session(causal_consistency=False) as session:
            session.start_transaction()
            try:
                for command in action.commands:
                    reply = self._client[action.database].command(dict(command), session=session)
                    if reply.get("writeErrors"):
                        # The server has ended the transaction already.
                        self._settle(action, command, reply)
                        session.abort_transaction()
                        return
                self._finish(action, session)
            except OperationFailure as error:
                self._count(action, error.code)
                if session.in_transaction:
                    session.abort_transaction()
            else:
                self._stats.succeeded[action.mode] += 1

    def _finish(self, action: Action, session: ClientSession) -> None:
        if action.mode is Mode.COMMIT:
            session.commit_transaction()
        elif action.mode is Mode.ABORT:
            session.abort_transaction()
        else:
            prepared = self._client.admin.command(
                {"prepareTransaction": 1, "writeConcern": {"w": "majority"}}, session=session
            )
            if action.mode is Mode.PREPARE_COMMIT:
                at = prepared["prepareTimestamp"]
                command = {"commitTransaction": 1, "commitTimestamp": at}
                self._client.admin.command(command, session=session)
            # For the driver the transaction is open still; the abort of a committed one is refused
            # by the server, and the driver does not mind.
            session.abort_transaction()


def mark(client: MongoClient[dict[str, Any]], *, of_all: int = 0) -> Timestamp:
    """Write a note into the oplog, have a majority (or so many nodes) take it; its cluster time."""
    command = {"appendOplogNote": 1, "data": {"msg": "tests: mark"}}
    concern = {"w": of_all or "majority", "wtimeout": 20_000}
    reply = client.admin.command({**command, "writeConcern": concern})
    at: Timestamp = reply["operationTime"]
    return at
