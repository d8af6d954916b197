"""Entries are taken apart without decoding them, whatever their shape."""

from __future__ import annotations

from typing import Any

import bson
import pytest
from bson import Binary, Decimal128, Int64, ObjectId
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import IntegrityError
from agent.replay.entries import (
    COMMAND,
    NO_UUID,
    NOOP,
    command_name,
    count_operations,
    entries,
    id_document,
    id_hash,
    id_key,
    inner_operations,
    scan,
)
from tests.unit.replay import oplog

UI = oplog.uuid(7)


def test_a_plain_entry_is_found_by_its_places() -> None:
    found = scan(oplog.insert(5, UI, 1, ns="db.ü.x", a="x"), 0)
    assert chr(found.op) == "i"
    assert found.ns.decode() == "db.ü.x"
    assert found.ui == bytes(UI)
    assert found.ts == oplog.packed(5)
    assert bson.decode(_document(found.body)) == {"o": {"_id": 1, "a": "x"}, "o2": {"_id": 1}}


def test_an_entry_of_a_session_is_found_too() -> None:
    found = scan(oplog.applied(6, [], txn=3), 0)
    assert found.op == COMMAND
    assert command_name(found) == b"applyOps"
    assert found.ui == NO_UUID
    assert found.ts == oplog.packed(6)


@pytest.mark.parametrize("extra", [{"fromMigrate": True}, {"stmtId": 0}, {"needsRetryImage": "x"}])
def test_fields_between_document_and_time_do_not_hide_the_time(extra: dict[str, Any]) -> None:
    body = {**oplog.operation("u", "db.c", UI, {"a": 1}, {"_id": 1}), **extra}
    found = scan(oplog.entry(9, body), 0)
    assert found.ts == oplog.packed(9)
    assert bson.decode(_document(found.body)) == {"o": {"a": 1}, "o2": {"_id": 1}}


FIELDS = {
    **oplog.operation("u", "db.c", UI, {"$v": 2, "diff": {}}, {"_id": 1}),
    "ts": oplog.ts(3),
    "t": Int64(1),
    "wall": bson.DatetimeMS(1),
}


@given(st.permutations(list(FIELDS)), st.binary(max_size=3))
def test_the_order_of_the_fields_does_not_matter(order: list[str], before: bytes) -> None:
    data = before + bson.encode({name: FIELDS[name] for name in order})
    found = scan(data, len(before))
    assert (chr(found.op), found.ns, found.ui) == ("u", b"db.c", bytes(UI))
    assert found.ts == oplog.packed(3)
    assert bson.decode(_document(found.body)) == {"o": FIELDS["o"], "o2": FIELDS["o2"]}
    assert id_key(found) == (10, 1, 1)


def test_an_entry_that_lacks_its_operation_is_refused() -> None:
    with pytest.raises(IntegrityError):
        scan(bson.encode({"ns": "db.c", "o": {}}), 0)


def test_concatenated_entries_come_one_by_one() -> None:
    data = oplog.noop(1) + oplog.insert(2, UI, 1) + oplog.delete(3, UI, 1)
    assert [found.ts for found in entries(data)] == [oplog.packed(n) for n in (1, 2, 3)]
    assert next(entries(data)).op == NOOP


def test_operations_of_a_transaction_are_found_in_its_array() -> None:
    inner = [oplog.operation("i", "db.c", UI, {"_id": n}, {"_id": n}) for n in range(120)]
    found = scan(oplog.applied(1, inner), 0)
    array = bson.encode({"": inner})[6:-1]
    assert count_operations(array) == 120
    assert [bson.decode(id_document(op).raw)["_id"] for op in inner_operations(array, 0)] == list(
        range(120)
    )
    assert all(op.ts == 0 for op in inner_operations(array, 0))
    assert command_name(found) == b"applyOps"


IDENTITIES = st.one_of(
    st.integers(-5, 5),
    st.integers(-5, 5).map(Int64),
    st.integers(-5, 5).map(float),
    st.integers(-5, 5).map(lambda n: Decimal128(str(n))),
    st.sampled_from([0.5, Decimal128("0.5"), "a", "b", b"a", ObjectId("0" * 24), None, True]),
    st.integers(-2, 2).map(lambda n: {"a": n}),
    st.integers(-2, 2).map(lambda n: {"a": float(n)}),
    st.just(Binary(bytes(16), 4)),
)


@given(IDENTITIES, IDENTITIES, st.sampled_from(["i", "u", "d"]), st.sampled_from(["i", "u", "d"]))
def test_equal_identities_go_the_same_way(a: Any, b: Any, op_a: str, op_b: str) -> None:
    first, second = _touching(op_a, a), _touching(op_b, b)
    if id_key(first) == id_key(second):
        assert id_hash(first) == id_hash(second)


def test_an_insert_without_its_key_beside_it_has_one_all_the_same() -> None:
    data = oplog.entry(1, oplog.operation("i", "db.c", UI, {"a": 1, "_id": "x"}))
    assert id_key(scan(data, 0)) == (15, b"x")


def test_an_operation_without_an_identity_is_refused() -> None:
    data = oplog.entry(1, oplog.operation("d", "db.c", UI, {"a": 1}))
    with pytest.raises(IntegrityError, match=r"db\.c"):
        id_hash(scan(data, 0))


def _touching(op: str, identity: Any) -> Any:
    made = {"i": oplog.insert, "u": oplog.update, "d": oplog.delete}[op]
    return scan(made(1, UI, identity), 0)


def _document(body: bytes) -> bytes:
    return (len(body) + 5).to_bytes(4, "little") + body + b"\0"
