"""The checksum of OSS, and how that of a whole follows from those of its parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.storage.oss.checksum import crc64_joined, crc64_of

pytestmark = pytest.mark.unit


def test_the_checksum_is_the_one_of_the_catalogue() -> None:
    """CRC-64/XZ: what its definition says of `123456789`."""
    assert crc64_of(b"123456789") == 0x995DC9BBDF1939FA


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_parts_give_the_checksum_of_the_whole(parts: list[bytes]) -> None:
    joined = crc64_joined((crc64_of(part), len(part)) for part in parts)
    assert joined == crc64_of(b"".join(parts))


def test_parts_may_be_longer_than_the_zeros_at_hand() -> None:
    parts = [bytes([number]) * ((1 << 20) * number + 7) for number in range(4)]
    joined = crc64_joined((crc64_of(part), len(part)) for part in parts)
    assert joined == crc64_of(b"".join(parts))
