"""Moments as people write them."""

from __future__ import annotations

import pytest

from agent.errors import ConfigError
from agent.wire.optime import OpTime, parse_target

SECOND = 1767323045


@pytest.mark.parametrize(
    "text", ["2026-01-02T03:04:05", "2026-01-02T03:04:05Z", "1767323045", " 1767323045 "]
)
def test_a_second_however_written_means_its_end(text: str) -> None:
    assert parse_target(text) == OpTime.end_of_second(SECOND)


def test_an_increment_makes_it_exact() -> None:
    assert parse_target("1767323045,7") == OpTime(T=SECOND, I=7)
    assert parse_target("1,2") == OpTime(T=1, I=2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026",
        "20260102",
        "1767323045000",  # milliseconds
        "1767323045.5",
        "-1767323045",
        "9999999999",  # more than the server's time can hold
        "9999999999,1",
        "1767323045,4294967296",
        "1767323045,",
        "2026-01-02",
        "\N{ARABIC-INDIC DIGIT ONE}767323045",
    ],
)
def test_what_is_no_moment_is_refused_with_the_ways_to_write_one(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_target(text)
    assert "seconds since 1970" in refused.value.hint
