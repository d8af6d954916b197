"""Durations and sizes as people write them: `30s`, `1m30s`, `32MiB`. Bare: seconds, bytes.

Parsed once, at the edge; inside they are plain numbers. Printed, they always carry a unit.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, PlainSerializer

_NUMBER: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")

_COMPOUND: Final = re.compile(r"\s*(?:[0-9]+(?:\.[0-9]+)?[a-zµ]+)+\s*")
_COMPONENT: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([a-zµ]+)")

_SECONDS: Final = {
    "": 1.0,
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 0.001,
    "s": 1.0,
    "sec": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 7 * 86400.0,
}
_BYTES: Final = {
    "": 1,
    "b": 1,
    "k": 1 << 10,
    "kb": 1000,
    "kib": 1 << 10,
    "m": 1 << 20,
    "mb": 1000**2,
    "mib": 1 << 20,
    "g": 1 << 30,
    "gb": 1000**3,
    "gib": 1 << 30,
    "t": 1 << 40,
    "tb": 1000**4,
    "tib": 1 << 40,
}
_PRINTED_SECONDS: Final = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
_PRINTED_BYTES: Final = (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


def parse_duration(value: Any) -> float:
    """Seconds of `30s`, `1.5h`, `250ms`, `5m30s` or a bare number. Raises `ValueError`."""
    if isinstance(value, str) and _COMPOUND.fullmatch(value.lower()):
        parts = _COMPONENT.findall(value.lower())
        return sum(parse_duration(number) * _factor(unit, value) for number, unit in parts)
    number, unit = _split(value, "a duration like 30s, 10m or 1h")
    return number * _factor(unit, value)


def _factor(unit: str, value: Any) -> float:
    factor = _SECONDS.get(unit.lower())
    if factor is None:
        raise ValueError(f"{value!r} has an unknown unit of time; write ms, s, m, h, d or w")
    return factor


def format_duration(seconds: float) -> str:
    """The shortest exact text with one unit: 600 → `10m`, 0.25 → `250ms`."""
    if seconds and seconds < 1:
        return f"{seconds * 1000:g}ms"
    for unit, factor in _PRINTED_SECONDS:
        if seconds and seconds % factor == 0:
            return f"{int(seconds // factor)}{unit}"
    return f"{seconds:g}s"


def parse_size(value: Any) -> int:
    """Bytes of `32MiB`, `1.5GB`, `512k` or a bare number. Raises `ValueError`."""
    number, unit = _split(value, "a size like 32MiB or 1GB")
    factor = _BYTES.get(unit.lower())
    if factor is None:
        raise ValueError(
            f"{value!r} has an unknown unit of size; write KiB, MiB, GiB, KB, MB or GB"
        )
    return int(number * factor)


def format_size(size_bytes: int) -> str:
    """The shortest exact text with one binary unit: 33554432 → `32MiB`."""
    for unit, factor in _PRINTED_BYTES:
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return f"{size_bytes}B"


def _split(value: Any, wanted: str) -> tuple[float, str]:
    if isinstance(value, bool) or value is None:
        raise ValueError(f"{value!r} is not {wanted}")
    if isinstance(value, int | float):
        if value < 0:
            raise ValueError(f"{value!r} is negative; write {wanted}")
        return float(value), ""
    found = _NUMBER.fullmatch(str(value))
    if found is None:
        raise ValueError(f"{value!r} is not {wanted}")
    return float(found[1]), found[2]


Duration = Annotated[float, BeforeValidator(parse_duration), PlainSerializer(format_duration)]
"""A field in seconds; stored and printed with its unit."""

Size = Annotated[int, BeforeValidator(parse_size), PlainSerializer(format_size)]
"""A field in bytes; stored and printed with its unit."""
