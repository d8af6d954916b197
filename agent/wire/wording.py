"""How values are written for people: sizes, counts, durations, moments. The same everywhere."""

from __future__ import annotations

from datetime import UTC, datetime

from agent.wire.optime import OpTime


def size(count: float | None) -> str:
    """`12.3 MiB`."""
    if count is None:
        return "-"
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(amount) < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} PiB"


def number(count: int | None) -> str:
    """`1,234,567`."""
    return "-" if count is None else f"{count:,}"


def duration(seconds: float | None) -> str:
    """`0.4 s`, `42 s`, `3m05s`, `2h07m`, `4d03h`."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    for long, short, names in ((86400, 3600, "dh"), (3600, 60, "hm"), (60, 1, "ms")):
        if whole >= long:
            return f"{whole // long}{names[0]}{whole % long // short:02d}{names[1]}"
    return f"{whole} s"


def moment(at: datetime | None) -> str:
    """`2026-11-22T03:08:36Z`."""
    if at is None:
        return "-"
    aware = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return aware.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def optime(at: OpTime | None) -> str:
    """`2026-11-22T03:08:36Z (1795316916,3)`."""
    return "-" if at is None else at.in_words()


def epoch(at: datetime | None) -> int | None:
    """Seconds since 1970."""
    if at is None:
        return None
    return int((at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp())
