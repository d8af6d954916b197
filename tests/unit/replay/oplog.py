"""Entries as mongod writes them, for tests."""

from __future__ import annotations

from typing import Any

import bson
from bson import Binary, Int64, Timestamp

LSID = {"id": Binary(bytes(range(16)), 4), "uid": b"u" * 32}
_WALL = bson.DatetimeMS(1_700_000_000_000)


def uuid(number: int) -> Binary:
    """A collection's UUID."""
    return Binary(number.to_bytes(16, "big"), 4)


def ts(number: int) -> Timestamp:
    """The moment with this number."""
    return Timestamp(1000, number)


def packed(number: int) -> int:
    """The same, packed."""
    return 1000 << 32 | number


def operation(op: str, ns: str, ui: Binary | None, o: Any, o2: Any = None) -> dict[str, Any]:
    """What is the same in entries and inside transactions."""
    made: dict[str, Any] = {"op": op, "ns": ns}
    if ui is not None:
        made["ui"] = ui
    made["o"] = o
    if o2 is not None:
        made["o2"] = o2
    return made


def entry(at: int, body: dict[str, Any], *, txn: int | None = None, previous: int = 0) -> bytes:
    """A whole entry, of a session's transaction if it has a number."""
    whole: dict[str, Any] = {}
    if txn is not None:
        whole |= {"lsid": LSID, "txnNumber": Int64(txn)}
    whole |= body
    whole |= {"ts": ts(at), "t": Int64(1), "v": Int64(2), "wall": _WALL}
    if txn is not None:
        before = Timestamp(0, 0) if not previous else ts(previous)
        whole["prevOpTime"] = {"ts": before, "t": Int64(1)}
    return bson.encode(whole)


def insert(at: int, ui: Binary, identity: Any, ns: str = "db.c", **fields: Any) -> bytes:
    """An insert."""
    o = {"_id": identity, **fields}
    return entry(at, operation("i", ns, ui, o, {"_id": identity}))


def update(at: int, ui: Binary, identity: Any, ns: str = "db.c", **fields: Any) -> bytes:
    """An update by a diff."""
    o = {"$v": 2, "diff": {"u": fields}}
    return entry(at, operation("u", ns, ui, o, {"_id": identity}))


def delete(at: int, ui: Binary, identity: Any, ns: str = "db.c") -> bytes:
    """A delete."""
    return entry(at, operation("d", ns, ui, {"_id": identity}))


def command(at: int, ui: Binary | None, o: dict[str, Any], database: str = "db") -> bytes:
    """A command."""
    return entry(at, operation("c", f"{database}.$cmd", ui, o))


def applied(
    at: int, operations: list[dict[str, Any]], *, txn: int | None = 1, previous: int = 0, **o: Any
) -> bytes:
    """An `applyOps` entry of a transaction."""
    body = operation("c", "admin.$cmd", None, {"applyOps": operations, **o})
    return entry(at, body, txn=txn, previous=previous)


def decided(at: int, *, txn: int, previous: int, **o: Any) -> bytes:
    """`commitTransaction` or `abortTransaction`."""
    return entry(at, operation("c", "admin.$cmd", None, o), txn=txn, previous=previous)


def noop(at: int) -> bytes:
    """A no-op."""
    return entry(at, operation("n", "", None, {"msg": "periodic noop"}))
