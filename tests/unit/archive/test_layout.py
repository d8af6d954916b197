"""Object keys: they sort like what they name, and no two writers share one."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from agent.archive import layout
from agent.storage.keys import check_key
from agent.wire.optime import OpTime
from tests.unit.archive.strategies import OPTIMES

_EPOCHS = st.integers(0, 10**8 - 1)
_TERMS = st.integers(0, 10**6 - 1)


@given(times=st.lists(OPTIMES, min_size=3, max_size=6, unique=True), epochs=st.data())
def test_slices_of_one_timeline_sort_in_its_order(
    times: list[OpTime], epochs: st.DataObject
) -> None:
    ordered = sorted(times)
    keys = [
        layout.slice_key("rs0", start, end, epochs.draw(_TERMS), epochs.draw(_EPOCHS))
        for start, end in pairwise(ordered)
    ]
    assert keys == sorted(keys)


@given(start=OPTIMES, end=OPTIMES, term=_TERMS, epoch=_EPOCHS)
def test_a_slice_key_says_what_the_slice_covers(
    start: OpTime, end: OpTime, term: int, epoch: int
) -> None:
    key = layout.slice_key("my set", start, end, term, epoch)
    assert layout.slice_span_of(key) == (start, end)
    assert check_key(key) == key


@given(a=OPTIMES, b=OPTIMES)
def test_optimes_in_keys_sort_like_optimes(a: OpTime, b: OpTime) -> None:
    assert (a.key < b.key) == (a < b)


@given(entries=st.lists(st.tuples(_EPOCHS, _EPOCHS), max_size=8))
def test_journal_entries_sort_in_the_order_in_which_they_were_written(
    entries: list[tuple[int, int]],
) -> None:
    keys = [layout.journal_key("b", "rs0", epoch, number) for epoch, number in sorted(entries)]
    assert keys == sorted(keys)
    assert all(key.startswith(layout.journal_prefix("b", "rs0")) for key in keys)


@given(one=st.tuples(_EPOCHS, _EPOCHS), other=st.tuples(_EPOCHS, _EPOCHS))
def test_two_writers_share_no_key(one: tuple[int, int], other: tuple[int, int]) -> None:
    def keys(epoch: int, number: int) -> set[str]:
        moment = OpTime(T=1, I=1)
        return {
            layout.chunk_key("rs0", layout.BUNDLES, "op", epoch, number),
            layout.journal_key("b", "rs0", epoch, number),
            layout.restore_key("r", "rs0", epoch, number),
            layout.slice_key("rs0", moment, moment, number % 10**6, epoch),
        }

    if one[0] != other[0]:
        assert not keys(*one) & keys(*other)


def test_only_the_document_that_publishes_names_a_backup() -> None:
    name = "2026-11-22T03:08:36Z"
    assert layout.backup_name_of(layout.backup_key(name)) == name
    for key in (
        layout.manifest_key(name, "rs0", 1),
        layout.journal_key(name, "rs0", 1, 0),
        f"backups/{name}/rs0/backup.json",
        "backups//backup.json",
        layout.MARKER,
    ):
        assert layout.backup_name_of(key) is None


def test_other_keys_are_no_slices() -> None:
    assert layout.slice_span_of("slices/rs0/20260101/x.bson.zst") is None
    assert layout.slice_span_of(layout.backup_key("b")) is None


def test_everything_of_one_backup_alone_lies_under_its_root() -> None:
    root = layout.backup_root("b")
    for key in (
        layout.backup_key("b"),
        layout.manifest_key("b", "rs0", 1),
        layout.journal_key("b", "rs0", 1, 0),
    ):
        assert key.startswith(root)
    assert not layout.backup_key("b-2").startswith(root)
