"""Replaying any history over any base reaches the state that the history reached.

The histories hold creates, drops, renames over each other and transactions; the base's catalogue is
of one moment and its collections were read at later ones; writes of different documents are applied
in any order between barriers; workers die anywhere and others go on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from bson import Int64
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.archive.manifest import Manifest
from agent.errors import IntegrityError, RestoreFailed
from agent.operations.restore.catalogue import base_catalogue
from agent.replay.interpreter import Barrier, Interpreter, Span, Write
from agent.replay.resumption import Resumption
from agent.replay.scope import Scope
from agent.replay.transactions import Transactions
from tests.unit.replay import oplog
from tests.unit.replay.history import Author, Collection, History, Server, manifest_of

LANES = 3


def interpreter(
    manifest: Manifest,
    until: int,
    *,
    applied_until: int = 0,
    actual: dict[bytes, str] | None = None,
    marker: int = 0,
) -> Interpreter:
    catalogue = base_catalogue(manifest, Scope())
    return Interpreter(
        catalogue,
        Span(manifest.catalogue_at.pack(), oplog.packed(until), applied_until),
        transactions=Transactions(),
        resumption=None if actual is None else Resumption(catalogue, actual, marker),
    )


class Worker:
    """Applies items through lanes; may stop after so many steps."""

    def __init__(self, server: Server, rng: random.Random, steps: int | None = None) -> None:
        self._server = server
        self._rng = rng
        self._left = steps
        self._lanes: list[list[Write]] = [[] for _ in range(LANES)]
        self.checkpoint = 0

    def run(self, replay: Interpreter, data: bytes) -> bool:
        """Whether it came to the end."""
        for item in replay.interpret(data):
            if isinstance(item, Barrier):
                if not self._drain() or not self._carry_out(item):
                    return False
            elif item[0] is None:
                raise AssertionError("there are no views here")
            else:
                self._lanes[item[0] % LANES].append(item)
            if self._rng.random() < 0.2:
                if not self._drain():
                    return False
                # Everything before this item is on the target, and it may be too.
                self.checkpoint = replay.position
        return self._drain()

    def _may(self) -> bool:
        if self._left is not None:
            self._left -= 1
            return self._left >= 0
        return True

    def _drain(self) -> bool:
        while busy := [lane for lane in self._lanes if lane]:
            if not self._may():
                return False
            self._server.write(self._rng.choice(busy).pop(0))
        return True

    def _carry_out(self, barrier: Barrier) -> bool:
        if not self._may():
            return False
        # The marker is written after the commands: a worker may die between the two.
        is_noted = self._may()
        self._server.carry_out(barrier, is_noted=is_noted)
        return is_noted


@st.composite
def backups(draw: st.DrawFn) -> tuple[History, Manifest, int, random.Random]:
    rng = random.Random(draw(st.integers(0, 2**32)))
    history = Author(rng).write(draw(st.integers(5, 60)))
    catalogue_at = draw(st.integers(0, history.last))
    latest = draw(st.integers(catalogue_at, history.last))
    read_at = {u: rng.randint(catalogue_at, latest) for u in history.states[catalogue_at]}
    until = draw(st.integers(latest, history.last))
    return history, manifest_of(history, catalogue_at, read_at), until, rng


def is_explained(history: History, manifest: Manifest, until: int) -> bool:
    """Whether what vanished while it was read was dropped by the moment restored to, as backups
    make sure of before they are published."""
    return all(bytes.fromhex(uuid) not in history.states[until] for uuid in manifest.dropped)


@settings(max_examples=300, deadline=None)
@given(backups())
def test_replay_reaches_the_state_at_any_moment(
    backup: tuple[History, Manifest, int, random.Random],
) -> None:
    history, manifest, until, rng = backup
    if not is_explained(history, manifest, until):
        return
    server = Server.loaded(history, manifest)
    replay = interpreter(manifest, until)
    assert Worker(server, rng).run(replay, b"".join(history.entries))
    assert replay.finish() == []
    assert server.state == history.states[until]


@settings(max_examples=600, deadline=None)
@given(backups(), st.lists(st.integers(0, 60), min_size=1, max_size=4))
def test_another_worker_goes_on_wherever_one_dies(
    backup: tuple[History, Manifest, int, random.Random], lives: list[int]
) -> None:
    history, manifest, until, rng = backup
    if not is_explained(history, manifest, until):
        return
    server = Server.loaded(history, manifest)
    data = b"".join(history.entries)
    checkpoint, is_first = 0, True
    for steps in [*lives, None]:
        actual = None if is_first else server.names()
        replay = interpreter(
            manifest, until, applied_until=checkpoint, actual=actual, marker=server.marker
        )
        worker = Worker(server, rng, steps)
        ended = worker.run(replay, data)
        checkpoint, is_first = max(checkpoint, worker.checkpoint), False
        if ended:
            replay.finish()
            break
    assert server.state == history.states[until]


@settings(deadline=None)
@given(backups())
def test_nothing_is_asked_for_twice_where_slices_overlap(
    backup: tuple[History, Manifest, int, random.Random],
) -> None:
    history, manifest, until, _ = backup
    once, twice = interpreter(manifest, until), interpreter(manifest, until)
    entries = history.entries
    list(once.interpret(b"".join(entries)))
    middle = len(entries) // 2
    for data in (entries[: middle + 3], entries[middle:]):
        list(twice.interpret(b"".join(data)))
    assert (once.applied, once.skipped) == (twice.applied, twice.skipped)


def base(*collections: tuple[int, str], catalogue_at: int = 10) -> Manifest:
    """An empty base with these collections."""
    history = History(states=[{}])
    state = {bytes(oplog.uuid(n)): Collection(ns) for n, ns in collections}
    history.states += [state] * catalogue_at
    return manifest_of(history, catalogue_at, {})


def items(replay: Interpreter, *entries: bytes) -> list[Write | Barrier]:
    return list(replay.interpret(b"".join(entries)))


UI = oplog.uuid(1)


def test_a_transaction_begun_before_the_slices_is_refused_only_if_it_is_needed() -> None:
    def tail(at: int) -> bytes:
        inner = [oplog.operation("i", "db.a", UI, {"_id": 1}, {"_id": 1})]
        return oplog.applied(at, inner, previous=1, count=Int64(5))

    assert items(interpreter(base((1, "db.a")), 20), tail(9)) == []
    with pytest.raises(IntegrityError, match="before the first slice"):
        items(interpreter(base((1, "db.a")), 20), tail(11))


def test_a_commit_after_the_end_counts_if_it_is_visible_before() -> None:
    inner = [oplog.operation("i", "db.a", UI, {"_id": 1}, {"_id": 1})]
    prepare = oplog.applied(12, inner, prepare=True)

    def commit(at: int, visible: int) -> bytes:
        o = {"commitTransaction": 1, "commitTimestamp": oplog.ts(visible)}
        return oplog.decided(at, txn=1, previous=12, **o)

    later = oplog.insert(14, UI, 7, ns="db.a")
    assert len(items(interpreter(base((1, "db.a")), 13), prepare, later, commit(15, 13))) == 1
    assert len(items(interpreter(base((1, "db.a")), 13), prepare, later, commit(15, 14))) == 0


def test_transactions_without_a_decision_are_left_out_and_told() -> None:
    inner = [oplog.operation("i", "db.a", UI, {"_id": 1}, {"_id": 1})]
    replay = interpreter(base((1, "db.a")), 20)
    assert items(replay, oplog.applied(12, inner, prepare=True)) == []
    assert "neither committed nor aborted" in replay.finish()[0]


def test_a_collection_that_the_backup_does_not_hold_is_told() -> None:
    replay = interpreter(base((1, "db.a")), 20)
    assert items(replay, oplog.insert(9, oplog.uuid(2), 1, ns="db.gone")) == []
    assert items(replay, oplog.insert(11, oplog.uuid(3), 1, ns="config.x")) == []
    with pytest.raises(RestoreFailed, match=r"db\.b"):
        items(replay, oplog.insert(12, oplog.uuid(2), 1, ns="db.b"))


def test_an_unknown_command_is_told() -> None:
    with pytest.raises(RestoreFailed, match="frobnicate"):
        items(interpreter(base((1, "db.a")), 20), oplog.command(11, UI, {"frobnicate": 1}))


def test_what_lets_documents_expire_is_held_back() -> None:
    create = {"create": "ts", "clusteredIndex": True, "expireAfterSeconds": 5, "temp": True}
    replay = interpreter(base(), 20)
    (found,) = items(replay, oplog.command(11, UI, create))
    assert isinstance(found, Barrier)
    assert found.commands[0].document["o"] == {"create": "ts", "clusteredIndex": True}
    change = oplog.command(12, UI, {"collMod": "ts", "expireAfterSeconds": 9})
    assert items(replay, change) == []


def test_capped_collections_are_written_in_one_order() -> None:
    replay = interpreter(base(), 40)
    create = oplog.command(11, UI, {"create": "log", "capped": True, "size": 4096})
    inserts = [oplog.insert(12 + n, UI, n, ns="db.log") for n in range(9)]
    _, *writes = items(replay, create, *inserts)
    assert len({item[0] for item in _writes(writes)}) == 1


def _writes(found: list[Write | Barrier]) -> Iterator[Write]:
    for item in found:
        assert not isinstance(item, Barrier)
        yield item


def test_a_view_that_is_gone_by_now_may_be_written_again_by_the_next_worker() -> None:
    manifest = base((1, "db.system.views"))
    name = {"_id": "db.v"}
    o = oplog.operation("u", "db.system.views", UI, {**name, "viewOn": "a", "pipeline": []}, name)
    entry = oplog.entry(11, o)
    for actual, is_again in ((None, False), ({bytes(UI): "db.system.views"}, True)):
        (write,) = _writes(items(interpreter(manifest, 20, actual=actual), entry))
        assert (write[0], write[2]) == (None, is_again)


def test_a_target_that_others_changed_is_told() -> None:
    manifest = base((1, "db.a"))
    replay = interpreter(manifest, 20, actual={})
    items(replay, oplog.insert(11, UI, 1, ns="db.a"))
    with pytest.raises(RestoreFailed, match="vanished"):
        replay.finish()
