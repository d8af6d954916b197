"""Random names, identifiers and documents. Everything follows from the random source given."""

from __future__ import annotations

import datetime
import hashlib
import random
from typing import Any, Final

from bson import Binary, Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp

EPOCH: Final = datetime.datetime(2021, 3, 4, 5, 6, 7, 89_000, tzinfo=datetime.UTC)
IDENTIFIERS: Final = 240
"""Documents are chosen among this many identifiers, so that updates and deletes meet something."""

COLLECTION_NAMES: Final = (
    "orders",
    "two words",
    "dotted.name.of.parts",
    "dash-ed",
    "Ünïcode-ß-漢字-😀",
    "UPPER",
    "x",
    'quo"ted',
    "a,b;c",
    "percent%2Fsigned",
    "slash/back\\slash",
    "star*?[x]",
    "l" + "o" * 120 + "ng",
)


def identifier(number: int) -> Any:
    """The identifier with this number: every BSON type that may be an `_id`, in turn."""
    n = number
    choices: tuple[Any, ...] = (
        n,
        f"id-{n}",
        ObjectId(hashlib.md5(str(n).encode()).hexdigest()[:24]),
        n + 0.5,
        Int64((1 << 40) + n),
        Decimal128(f"{n}.125"),
        EPOCH + datetime.timedelta(hours=n),
        Binary(b"bin%d" % n, 0),
        Binary(hashlib.md5(str(n).encode()).digest(), 4),
        Binary(b"user%d" % n, 128),
        {"a": n, "b": {"c": [n]}},
        Timestamp(1_600_000_000 + n, n),
        Code(f"return {n}"),
        Code(f"return x + {n}", {"x": n}),
        n % 32 >= 16,
        (None, MinKey(), MaxKey(), float("nan"), float("inf"), "")[n // 16 % 6],
    )
    return choices[n % len(choices)]


def some_identifier(rng: random.Random) -> Any:
    """One of the identifiers."""
    return identifier(rng.randrange(IDENTIFIERS))


def scalar(rng: random.Random) -> Any:
    """A value of any type that is neither an array nor a document."""
    n = rng.randrange(1_000)
    choices: tuple[Any, ...] = (
        n,
        Int64(n),
        n / 8,
        -0.0,
        f"välue {n}",
        True,
        None,
        Decimal128(f"{n}.00"),
        EPOCH + datetime.timedelta(days=n),
        ObjectId(hashlib.md5(b"%d" % n).hexdigest()[:24]),
        Binary(b"\x00\xff" * (n % 20), 0),
        Regex(f"^a{n}", "i"),
        Timestamp(n + 1, n),
        MinKey(),
        Code("f()"),
    )
    return rng.choice(choices)


def text(rng: random.Random, words: int = 6) -> str:
    """A few words."""
    return " ".join(rng.choice(_WORDS) for _ in range(words))


def document(rng: random.Random, number: int | None = None, padding: int = 400) -> dict[str, Any]:
    """A document with the fields that updates and indexes expect; `u` is unique unless moved."""
    n = rng.randrange(IDENTIFIERS) if number is None else number
    made: dict[str, Any] = {"_id": identifier(n), "u": n, "n": rng.randrange(100)}
    fields: list[tuple[str, Any]] = [
        ("a", scalar(rng)),
        ("b", scalar(rng)),
        ("s", text(rng, 2)),
        ("arr", [rng.randrange(20) for _ in range(rng.randrange(6))]),
        ("items", [{"k": k, "v": scalar(rng)} for k in range(rng.randrange(4))]),
        ("sub", {"x": rng.randrange(10), "y": {"z": scalar(rng)}, "list": [1, {"q": 2}]}),
        ("txt", text(rng)),
        ("geo", point(rng)),
        ("xy", [rng.uniform(-90, 90), rng.uniform(-90, 90)]),
        ("t", EPOCH + datetime.timedelta(minutes=rng.randrange(100_000))),
    ]
    rng.shuffle(fields)
    made.update(field for field in fields if rng.random() < 0.8)
    if padding:
        made["pad"] = rng.randbytes(rng.randrange(padding)).hex()
    return made


def point(rng: random.Random) -> dict[str, Any]:
    """A valid place on the sphere."""
    return {"type": "Point", "coordinates": [rng.uniform(-179, 179), rng.uniform(-85, 85)]}


def measurement(rng: random.Random) -> dict[str, Any]:
    """A document for a time series."""
    return {
        "t": EPOCH + datetime.timedelta(seconds=rng.randrange(20_000)),
        "m": {"sensor": rng.randrange(5), "site": rng.choice(_WORDS)},
        "value": rng.random(),
        "note": text(rng, 2),
    }


_WORDS: Final = (
    "tide",
    "harbour",
    "moon",
    "ebb",
    "current",
    "pier",
    "brücke",
    "ship",
    "salt",
    "anchor",
)
