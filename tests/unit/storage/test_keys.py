"""Which keys there are; the contract suite tries the odd ones on every driver."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Permanent
from agent.storage.keys import (
    MAX_KEY_BYTES,
    MAX_PART_BYTES,
    InvalidKey,
    check_key,
    check_prefix,
    is_reserved,
)

pytestmark = pytest.mark.unit


@given(st.text())
def test_a_key_that_passes_stays_below_its_directory(key: str) -> None:
    try:
        check_key(key)
    except InvalidKey:
        return
    parts = key.split("/")
    assert all(part and part not in (".", "..") and not is_reserved(part) for part in parts)
    assert "\0" not in key
    assert len(key.encode()) <= MAX_KEY_BYTES
    assert max(len(part.encode()) for part in parts) <= MAX_PART_BYTES


@given(st.lists(st.text("abc.-é ", min_size=1, max_size=8), min_size=1, max_size=5))
def test_every_prefix_of_a_key_is_a_prefix(parts: list[str]) -> None:
    key = "/".join(parts)
    try:
        check_key(key)
    except InvalidKey:
        return
    for size in range(len(key) + 1):
        assert check_prefix(key[:size]) == key[:size]


def test_the_longest_key_passes() -> None:
    longest = "/".join(["x" * 224] * 4)[:MAX_KEY_BYTES]
    assert check_key(longest) == longest
    with pytest.raises(InvalidKey):
        check_key("é" + "/".join(["x" * 224] * 4))


def test_an_impossible_key_is_permanent() -> None:
    assert issubclass(InvalidKey, Permanent)
