"""What holds slicing up is noted with what is left of the oplog's window."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.errors import (
    LeaseLost,
    NodeUnavailable,
    PermissionDenied,
    StorageUnavailable,
    TidelogError,
)
from agent.operations import arrears
from agent.operations.arrears import STANDSTILL_S, Arrears
from agent.operations.context import Services
from agent.wire.optime import OpTime
from agent.wire.timelines import Run
from tests.support.manual_clock import ManualClock

NODE = "rs0/h1:27017"
AWAY = StorageUnavailable("the storage is away")


class FakeRuns:
    """Remembers what is noted."""

    def __init__(self, *runs: Run) -> None:
        self.known = list(runs)
        self.troubles: list[str | None] = []
        self.refusal: TidelogError | None = None

    async def runs(self, replset: str) -> list[Run]:
        return [run for run in self.known if run.replset == replset]

    async def save(self, run: Run) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.known[-1] = run

    async def note_trouble(self, replset: str, error: str | None) -> None:
        self.troubles.append(error)


def run(**given: Any) -> Run:
    """A run that this agent writes."""
    at = OpTime(T=1000, I=1)
    whole = {"id": "r", "replset": "rs0", "start": at, "end": at, "covered_until": at, "epoch": 1}
    return Run(**{"node": NODE, **whole, **given})


def arrears_of(monkeypatch: pytest.MonkeyPatch, runs: FakeRuns, left: float | Exception) -> Arrears:
    """Those of an agent of whose oplog's window so much is left."""

    async def window_left(node: object, position: OpTime) -> float:
        if isinstance(left, Exception):
            raise left
        return left

    monkeypatch.setattr(arrears, "window_left", window_left)
    node = SimpleNamespace(id=NODE, replset="rs0")
    return Arrears(cast(Services, SimpleNamespace(node=node, runs=runs, clock=ManualClock())))


async def test_an_error_of_the_run_says_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = FakeRuns(run())
    await arrears_of(monkeypatch, runs, 0.63).note(AWAY, is_of_run=True)
    assert runs.known[-1].error == "the storage is away; 63% of the oplog's window is left"
    assert runs.troubles == []


async def test_what_keeps_slicing_from_beginning_says_it_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = FakeRuns(run())
    await arrears_of(monkeypatch, runs, 0.0).note(AWAY, is_of_run=False)
    assert runs.troubles == ["the storage is away; 0% of the oplog's window is left"]
    assert runs.known[-1].error is None


@pytest.mark.parametrize(
    ("runs", "left"),
    [
        (FakeRuns(), 0.5),
        (FakeRuns(run(sealed=True)), 0.5),
        (FakeRuns(run()), NodeUnavailable("the node does not answer")),
        (FakeRuns(run()), PermissionDenied("not authorized on local.oplog.rs")),
    ],
    ids=["nothing archived", "restored since", "node away", "oplog not readable"],
)
async def test_where_nothing_is_to_be_continued_only_the_error_is_said(
    monkeypatch: pytest.MonkeyPatch, runs: FakeRuns, left: float | Exception
) -> None:
    await arrears_of(monkeypatch, runs, left).note(AWAY, is_of_run=False)
    assert runs.troubles == ["the storage is away"]


async def test_the_run_of_another_agent_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = FakeRuns(run(node="rs0/h2:27017"))
    await arrears_of(monkeypatch, runs, 0.5).note(AWAY, is_of_run=True)
    assert runs.known[-1].error is None


@pytest.mark.parametrize(
    "refusal", [LeaseLost("another agent slices"), PermissionDenied("not authorized to update")]
)
async def test_what_cannot_be_noted_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, refusal: TidelogError
) -> None:
    runs = FakeRuns(run())
    runs.refusal = refusal
    await arrears_of(monkeypatch, runs, 0.5).note(AWAY, is_of_run=True)
    assert runs.known[-1].error is None


async def test_a_low_window_is_told_though_nothing_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    enough = arrears_of(monkeypatch, FakeRuns(), 0.5)
    assert await enough.low_window(run()) is None
    low = arrears_of(monkeypatch, FakeRuns(), 0.49)
    told = await low.low_window(run())
    assert told == "archiving is behind: 49% of the oplog's window is left"


async def test_a_standstill_is_told_once_and_taken_back_when_it_gets_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs, gate = FakeRuns(run()), asyncio.Event()
    told = arrears_of(monkeypatch, runs, 0.9)
    clock = cast(ManualClock, told._services.clock)

    async def step() -> None:
        await gate.wait()

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(told.in_step(step))
        await clock.advance(STANDSTILL_S - 1)
        await told.got_on()  # a slice was stored, another is under way
        await clock.advance(STANDSTILL_S - 1)
        assert runs.troubles == []
        await clock.advance(2)
        (words,) = runs.troubles
        assert "stood still for 15 s" in str(words)
        await clock.advance(10 * STANDSTILL_S)
        assert runs.troubles == [words]
        gate.set()
    assert runs.troubles == [words, None]


async def test_a_step_raises_what_it_met(monkeypatch: pytest.MonkeyPatch) -> None:
    async def step() -> None:
        raise AWAY

    with pytest.raises(StorageUnavailable, match="is away"):
        await arrears_of(monkeypatch, FakeRuns(), 0.9).in_step(step)
