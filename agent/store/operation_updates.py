"""The updates that change an operation document, as aggregation pipelines.

Pipelines because only they know the server's time (`$$NOW`). Values that come from outside are
always literals: a text that begins with `$` must stay a text.
"""

from __future__ import annotations

from typing import Any, Final

from agent.wire.operations import ErrorRecord, Progress, State

HISTORY_LIMIT: Final = 200
TERMINAL: Final = [state.value for state in State if state.is_terminal]
UNFINISHED: Final = [state.value for state in State if not state.is_terminal]

Document = dict[str, Any]
Pipeline = list[Document]


def literal(value: Any) -> Document:
    """A value that the server must not interpret."""
    return {"$literal": value}


def merged(field: str, fields: Document) -> Document:
    """A sub-document with some of its fields replaced."""
    return {"$mergeObjects": [field, literal(fields)]}


def with_history(
    state: State | str,
    *,
    node: Any = "$lead_node",
    epoch: int | str = "$lead_epoch",
    replset: str | None = None,
    note: str | None = None,
) -> Document:
    """The history with one more entry at the server's time, the oldest dropped beyond the limit."""
    entry: Document = {"at": "$$NOW", "state": literal(str(state)), "node": node, "epoch": epoch}
    if replset is not None:
        entry["replset"] = literal(replset)
    if note is not None:
        entry["note"] = literal(note[:500])
    whole = {"$concatArrays": [{"$ifNull": ["$history", []]}, [entry]]}
    return {"$slice": [whole, -HISTORY_LIMIT]}


def each_part(replset: str, changes: Document) -> Document:
    """The parts, with one of them changed. `$$part` is the part as it was."""
    changed = {"$mergeObjects": ["$$part", changes]}
    chosen = {"$cond": [{"$eq": ["$$part.replset", literal(replset)]}, changed, "$$part"]}
    return {"$map": {"input": "$parts", "as": "part", "in": chosen}}


def ended_parts(after: State) -> Document:
    """The parts of an operation that ends: those under way end the same way, which fences their
    workers."""
    running = {"$not": [{"$in": ["$$part.state", TERMINAL]}]}
    ended = {"$mergeObjects": ["$$part", {"state": literal(after.value)}]}
    chosen = {"$cond": [running, ended, "$$part"]}
    return {"$map": {"input": "$parts", "as": "part", "in": chosen}}


def transition(
    after: State, *, result: Document | None, error: ErrorRecord | None, note: str | None
) -> Pipeline:
    """Move the whole operation on."""
    change: Document = {
        "state": literal(after.value),
        "updated_at": "$$NOW",
        "history": with_history(after, note=note),
    }
    if result:
        change["result"] = merged("$result", result)
    if error is not None:
        change["error"] = literal(error.to_document())
    if not after.is_terminal:
        return [{"$set": change}]
    change |= {"finished_at": "$$NOW", "queued": False, "parts": ended_parts(after)}
    return [{"$set": change}, {"$unset": "slot"}]


def part_change(
    replset: str,
    *,
    state: State | None,
    progress: Progress | None,
    result: Document | None,
    error: ErrorRecord | None,
    attempts: int | Document | None = None,
    node: Any = None,
    epoch: int | str = "$lead_epoch",
    note: str | None = None,
    extra: Document | None = None,
) -> Pipeline:
    """Change one part; only changes worth remembering enter the history."""
    changes: Document = dict(extra or {})
    if state is not None:
        changes["state"] = literal(state.value)
    if progress is not None:
        changes["progress"] = literal(progress.to_document())
    if result:
        changes["result"] = merged("$$part.result", result)
    if error is not None:
        changes["error"] = literal(error.to_document())
    if attempts is not None:
        changes["attempts"] = attempts
    change: Document = {"parts": each_part(replset, changes), "updated_at": "$$NOW"}
    if state is not None or note is not None:
        change["history"] = with_history(
            state or "noted", node=node, epoch=epoch, replset=replset, note=note
        )
    return [{"$set": change}]
