"""Logs: every event listed, nothing secret said, the copy bounded and never in the way."""

from __future__ import annotations

import ast
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import structlog

from agent.errors import Permanent, StoreUnavailable
from agent.log import EVENTS, EventSink, configure, redact
from agent.wire.events import Event
from tests.support.manual_clock import ManualClock

ROOT = Path(__file__).resolve().parents[3]
METHODS = {"debug", "info", "warning", "error", "critical", "exception"}


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield lambda: capsys.readouterr().err
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def lines(stream: Callable[[], str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream().splitlines()]


def logged_events() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "agent").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            logger = ast.unparse(node.func.value).split(".")[-1]
            if node.func.attr not in METHODS or logger not in ("log", "_log"):
                continue
            if node.args and isinstance(node.args[0], ast.JoinedStr):
                continue  # one debug line for each call of a storage, named after the verb
            first = node.args[0] if node.args else None
            name = first.value if isinstance(first, ast.Constant) else ast.unparse(node)
            yield str(name), f"{path.relative_to(ROOT)}:{node.lineno}"


def test_every_event_that_is_logged_is_listed() -> None:
    unknown = [f"{where}: {event}" for event, where in logged_events() if event not in EVENTS]
    assert not unknown, "\n".join(unknown)


def test_every_event_that_is_listed_is_logged() -> None:
    assert set(EVENTS) == {event for event, _ in logged_events()}


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_is_a_dotted_name(event: str) -> None:
    scope, _, what = event.partition(".")
    assert scope.islower()
    assert what.replace("_", "").isalpha()


def test_json_lines_hold_what_is_bound(stderr: Callable[[], str]) -> None:
    configure(style="json")
    structlog.contextvars.bind_contextvars(node="rs0/a:1")
    structlog.stdlib.get_logger().info("agent.started", version="1")
    (line,) = lines(stderr)
    assert (line["event"], line["node"], line["version"]) == ("agent.started", "rs0/a:1", "1")
    assert line["level"] == "info"
    assert str(line["timestamp"]).endswith("Z")


def test_a_level_hides_what_is_below_but_not_from_the_copy(stderr: Callable[[], str]) -> None:
    sink = EventSink(ManualClock())
    configure(level="error", style="json", sink=sink)
    log = structlog.stdlib.get_logger()
    log.debug("agent.started")
    log.info("agent.stopping")
    log.error("agent.failed")
    assert [line["event"] for line in lines(stderr)] == ["agent.failed"]
    assert [event.event for _, event in sink._waiting] == ["agent.stopping", "agent.failed"]


def test_what_libraries_say_comes_in_the_same_shape(stderr: Callable[[], str]) -> None:
    configure(style="json")
    logging.getLogger("pymongo").warning("heartbeat to mongodb://u:hunter2@h/ failed")
    (line,) = lines(stderr)
    assert line["logger"] == "pymongo"
    assert "hunter2" not in str(line)


def test_an_exception_is_a_field_of_its_line(stderr: Callable[[], str]) -> None:
    configure(style="json")
    try:
        raise KeyError("bug")
    except KeyError:
        structlog.stdlib.get_logger().exception("session.crashed")
    (line,) = lines(stderr)
    assert "KeyError" in str(line["exception"])


def test_the_console_is_for_people(stderr: Callable[[], str]) -> None:
    configure(style="console")
    structlog.stdlib.get_logger().info("agent.started", version="1")
    assert "agent.started" in stderr()


@pytest.mark.parametrize(
    "text",
    [
        "mongodb://u:hunter2@host:1/",
        "cannot reach mongodb+srv://u:hunter2@host/?x=y now",
        "mongodb://hunter2@a,b/ and mongodb://hunter2@c/",
    ],
)
def test_credentials_are_cut_out_of_every_value(text: str) -> None:
    entry = redact(None, "info", {"event": "x", "error": text})
    assert "hunter2" not in entry["error"]
    assert "***@" in entry["error"]


class Written:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.fails = False

    async def __call__(self, events: Sequence[Event]) -> None:
        if self.fails:
            raise StoreUnavailable("away")
        self.events += events


def say(sink: EventSink, event: str, **fields: object) -> None:
    sink(None, "info", {"event": event, "level": "info", **fields})


async def test_a_copy_holds_who_what_and_how_long_ago() -> None:
    clock, written = ManualClock(), Written()
    sink = EventSink(clock)
    say(sink, "operation.led", node="rs0/a:1", replset="rs0", op_id="1", kind="backup", name="b",
        epoch=3, extra=object(), huge=1 << 70, none=None)  # fmt: skip
    clock.jump(2.5)
    await sink.flush(written)
    (event,) = written.events
    assert (event.node, event.op_id, event.kind, event.name) == ("rs0/a:1", "1", "backup", "b")
    assert event.age_s == 2.5
    assert event.fields["epoch"] == 3
    assert event.fields["huge"] == str(1 << 70)
    assert "none" not in event.fields
    assert isinstance(event.fields["extra"], str)


async def test_what_cannot_be_written_waits_in_order() -> None:
    written = Written()
    sink = EventSink(ManualClock())
    written.fails = True
    for number in range(300):
        say(sink, f"e{number}")
    await sink.flush(written)
    written.fails = False
    await sink.flush(written)
    assert [event.event for event in written.events] == [f"e{number}" for number in range(300)]
    assert sink.dropped == 0


async def test_what_is_refused_for_good_is_dropped_and_stops_nobody() -> None:
    async def refuse(events: Sequence[Event]) -> None:
        raise Permanent("writing events: the collection is a view")

    sink = EventSink(ManualClock())
    for number in range(3):
        say(sink, f"e{number}")
    await sink.flush(refuse)
    assert sink.dropped == 3


async def test_a_flood_is_bounded_and_counted() -> None:
    written = Written()
    sink = EventSink(ManualClock())
    for number in range(EventSink.LIMIT + 50):
        say(sink, f"e{number}")
    await sink.flush(written)
    assert len(written.events) == EventSink.LIMIT
    assert written.events[-1].event == f"e{EventSink.LIMIT + 49}"
    assert sink.dropped == 50
