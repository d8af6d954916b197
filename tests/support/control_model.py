"""A model of the control documents, for the stores' own updates: one process, a clock of its own.

The stores write conditional updates as aggregation pipelines, and these rules are what fences
agents. So a model check must run those very pipelines; this evaluates the part of the server's
language that they use, and refuses the rest. `fate` decides what becomes of each write: done,
lost, done with the answer lost, or done later, when who sent it has long given up.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from functools import partial
from typing import Any, TypeVar

from pymongo.errors import AutoReconnect

Document = dict[str, Any]
_NEVER = datetime(9999, 1, 1, tzinfo=UTC)
T = TypeVar("T")


class Fate(Enum):
    """What becomes of a write."""

    DONE = auto()
    LOST = auto()
    """Never applied, or rolled back with the primary that had it."""
    ANSWER_LOST = auto()
    LATE = auto()


class ModelServer:
    """The primary of the control database: documents, a clock, writes that are under way."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.collections: dict[str, ModelCollection] = {}
        self.fate = Fate.DONE
        self.writer: Any = None
        """On whose behalf writes are made now, for `audit`; a late write keeps its own."""
        self.late: list[Callable[[], Any]] = []
        self.audit: Callable[[str, Document | None, Document], None] = lambda *_: None

    def collection(self, name: str) -> ModelCollection:
        """As `agent.store.connection.Control` has it."""
        return self.collections.setdefault(name, ModelCollection(self, name))

    loose = collection

    def write(self, act: Callable[[], T]) -> T:
        """Let a write meet its fate, which is used up."""
        fate, self.fate = self.fate, Fate.DONE
        if fate is Fate.LATE:
            self.late.append(partial(self._late, self.writer, act))
        answer = act() if fate in (Fate.DONE, Fate.ANSWER_LOST) else None
        if fate is not Fate.DONE:
            raise AutoReconnect("connection closed")
        assert answer is not None or fate is Fate.DONE
        return answer  # type: ignore[return-value]  # a write's own answer

    def _late(self, writer: Any, act: Callable[[], Any]) -> None:
        self.writer = writer
        act()
        self.writer = None


class ModelCollection:
    """What the stores use of a collection."""

    def __init__(self, server: ModelServer, name: str) -> None:
        self._server = server
        self._name = name
        self.documents: dict[str, Document] = {}

    async def find_one(self, match: Document, _fields: Document | None = None) -> Document | None:
        return next((deepcopy(d) for d in self.documents.values() if self._fits(d, match)), None)

    async def find_one_and_update(
        self, match: Document, pipeline: list[Document], **_: Any
    ) -> Document | None:
        return self._server.write(lambda: self._update(match, pipeline))

    async def update_one(self, match: Document, change: Any, *, upsert: bool = False) -> _Updated:
        def act() -> _Updated:
            if isinstance(change, list):
                self._update(match, change)
                return _Updated(None)
            if match["_id"] in self.documents:
                return _Updated(None)
            assert upsert, "only seeding inserts"
            self.documents[match["_id"]] = {**match, **change["$setOnInsert"]}
            return _Updated(match["_id"])

        return self._server.write(act)

    async def update_many(self, match: Document, pipeline: list[Document]) -> _Matched:
        def act() -> _Matched:
            found = [key for key, one in self.documents.items() if self._fits(one, match)]
            for key in found:
                self._update({"_id": key}, pipeline)
            return _Matched(len(found))

        return self._server.write(act)

    async def insert_one(self, document: Document) -> None:
        """Wake-ups, which tell the model nothing."""

    def aggregate(self, pipeline: list[Document]) -> _Rows:
        rows = [deepcopy(document) for document in self.documents.values()]
        for stage in pipeline:
            ((name, body),) = stage.items()
            if name == "$match":
                rows = [row for row in rows if self._fits(row, body)]
            else:
                rows = [_staged(row, stage, self._server.now) for row in rows]
        return _Rows(rows)

    def _fits(self, document: Document, match: Document) -> bool:
        return fits(document, match, self._server.now)

    def _update(self, match: Document, pipeline: list[Document]) -> Document | None:
        before = next((d for d in self.documents.values() if self._fits(d, match)), None)
        if before is None:
            return None
        after = deepcopy(before)
        for stage in pipeline:
            after = _staged(after, stage, self._server.now)
        self._server.audit(self._name, before, after)
        self.documents[after["_id"]] = after
        return deepcopy(after)


class _Updated:
    def __init__(self, upserted_id: str | None) -> None:
        self.upserted_id = upserted_id


class _Matched:
    def __init__(self, matched_count: int) -> None:
        self.matched_count = matched_count


class _Rows:
    def __init__(self, rows: list[Document]) -> None:
        self._rows = rows

    async def to_list(self, limit: int | None) -> list[Document]:
        return self._rows[:limit]


def finished(call: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits."""
    try:
        call.send(None)
    except StopIteration as end:
        found: T = end.value
        return found
    raise AssertionError("it waits")


def fits(document: Document, match: Document, now: datetime) -> bool:
    """Whether a filter matches."""
    for field, wanted in match.items():
        if field == "$expr":
            if not evaluate(wanted, {"ROOT": document}, now):
                return False
        elif field == "$or":
            if not any(fits(document, one, now) for one in wanted):
                return False
        elif not _holds(document.get(field), wanted):
            return False
    return True


def _holds(value: Any, wanted: Any) -> bool:
    if not (isinstance(wanted, dict) and any(key.startswith("$") for key in wanted)):
        return bool(value == wanted)
    return all(_compared(value, operator, than) for operator, than in wanted.items())


def _compared(value: Any, operator: str, than: Any) -> bool:
    match operator:
        case "$in":
            return value in than
        case "$nin":
            return value not in than
        case "$ne":
            return bool(value != than)
        case "$gt":
            return value is not None and bool(value > than)
        case "$gte":
            return value is not None and bool(value >= than)
        case "$lt":
            return value is not None and bool(value < than)
        case "$not":
            return not _holds(value, than)
        case "$elemMatch":
            return any(fits(item, than, _NEVER) for item in value or ())
    raise NotImplementedError(operator)


def _staged(document: Document, stage: Document, now: datetime) -> Document:
    ((name, body),) = stage.items()
    if name == "$unset":
        return {key: value for key, value in document.items() if key != body}
    assert name == "$set", name
    around = {"ROOT": document}
    return document | {field: evaluate(how, around, now) for field, how in body.items()}


def evaluate(how: Any, around: Document, now: datetime) -> Any:
    """The value of an expression; `around` has the variables."""
    if isinstance(how, str) and how.startswith("$"):
        return _variable(how, around, now)
    if isinstance(how, list):
        return [evaluate(one, around, now) for one in how]
    if not isinstance(how, dict):
        return how
    if len(how) == 1 and next(iter(how)).startswith("$"):
        ((operator, given),) = how.items()
        return _computed(operator, given, around, now)
    return {field: evaluate(one, around, now) for field, one in how.items()}


def _variable(path: str, around: Document, now: datetime) -> Any:
    if path == "$$NOW":
        return now
    if path.startswith("$$"):
        name, _, field = path[2:].partition(".")
        return around[name] if not field else around[name].get(field)
    return around["ROOT"].get(path[1:])


def _computed(operator: str, given: Any, around: Document, now: datetime) -> Any:
    if operator == "$literal":
        return deepcopy(given)
    if operator in ("$map", "$filter"):
        name = given.get("as", "this")
        rows = evaluate(given["input"], around, now)
        body = given["in"] if operator == "$map" else given["cond"]
        found = [(row, evaluate(body, around | {name: row}, now)) for row in rows]
        return [new for _, new in found] if operator == "$map" else [r for r, k in found if k]
    if operator == "$cond":
        chosen = given[1] if evaluate(given[0], around, now) else given[2]
        return evaluate(chosen, around, now)
    values = evaluate(given, around, now)
    match operator:
        case "$add" | "$subtract":
            return _added(values[0], values[1] if operator == "$add" else _negated(values[1]))
        case "$divide":
            return values[0] / values[1]
        case "$max":
            return max(values)
        case "$eq":
            return values[0] == values[1]
        case "$lte":
            return values[0] <= values[1]
        case "$in":
            return values[0] in values[1]
        case "$not":
            return not (values[0] if isinstance(values, list) else values)
        case "$or":
            return any(values)
        case "$ifNull":
            return values[1] if values[0] is None else values[0]
        case "$mergeObjects":
            return {k: v for one in values for k, v in (one or {}).items()}
        case "$concatArrays":
            return [item for one in values for item in one]
        case "$slice":
            return values[0][values[1] :]
        case "$arrayElemAt":
            return values[0][values[1]]
    raise NotImplementedError(operator)


def _negated(value: Any) -> Any:
    return value if isinstance(value, datetime) else -value


def _added(first: Any, second: Any) -> Any:
    """Dates count in milliseconds, as on the server."""
    if isinstance(first, datetime) and isinstance(second, datetime):
        return (first - second) / timedelta(milliseconds=1)
    if isinstance(first, datetime):
        return first + timedelta(milliseconds=second)
    return first + second
