"""Every object key of a repository, built in one place.

    tidelog.json                                             marker
    owners/<n>.json                                          a cluster that adopted the repository
    backups/<name>/backup.json                               published last
    backups/<name>/<replset>/manifest-<epoch>.json.zst
    backups/<name>/hold-<n>.json                             a later hold or release
    backups/<name>/<replset>/journal/<epoch>-<n>.json.zst
    chunks/<replset>/<collection uuid | bundles>/<op>-<epoch>-<n>.bson.zst
    slices/<replset>/<yyyymmdd>/<from>_<to>_<term>_<epoch>.bson.zst
    verified/<name>/<n>.json.zst                             which objects were read and found right
    restores/<name>/<replset>-<epoch>-<n>.json               what a restore did; outlives its target
    restores/<name>/touched/<replset>-<epoch>-<optime>.json  from when on it changed its target
    encryption/<number>.json                                 encryption policies
    census/<digest>.json.zst                                 what was in clear when they began
    keys/<key id>.json                                       a data key, wrapped
    keys/<key id>.<KEK id>.json                              the same, wrapped by a rotation

What is encrypted ends in `.enc`; the builders here give the keys without it.

Keys of work that is not published yet carry the operation and the epoch of their writer, so that no
two writers ever share a key.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from agent.wire.optime import OpTime

MARKER: Final = "tidelog.json"
FORMAT_VERSION: Final = 1
"""Of objects that are not encrypted."""
ENCRYPTED_VERSION: Final = 2
"""Of those that are: an older reader would misread them."""
READABLE_VERSION: Final = ENCRYPTED_VERSION
ENCRYPTED: Final = ".enc"
"""How the key of an encrypted object ends."""
VERIFIED: Final = "verified/"
BUNDLES: Final = "bundles"


OWNERS: Final = "owners/"
"""Adoptions; the last of them says whose the repository is, and the marker where there is none."""


def owner_key(number: int) -> str:
    """One adoption; they sort in the order in which they were made."""
    return f"{OWNERS}{number:08d}.json"


def backup_root(name: str) -> str:
    """Prefix of everything that belongs to one backup alone."""
    return f"backups/{name}/"


def backup_key(name: str) -> str:
    """The document whose presence makes a backup."""
    return f"{backup_root(name)}backup.json"


def hold_prefix(name: str) -> str:
    """Where later holds and releases of a backup lie."""
    return f"{backup_root(name)}hold-"


def hold_key(name: str, number: int) -> str:
    """One of them; they sort in their order."""
    return f"{hold_prefix(name)}{number:08d}.json"


def manifest_key(name: str, replset: str, epoch: int) -> str:
    """One replica set's catalogue and chunk table."""
    return f"{backup_root(name)}{replset}/manifest-{epoch:08d}.json.zst"


def journal_prefix(name: str, replset: str) -> str:
    """Where the journal of one replica set's part lies."""
    return f"{backup_root(name)}{replset}/journal/"


def journal_key(name: str, replset: str, epoch: int, number: int) -> str:
    """One entry; entries sort in the order in which they were written."""
    return f"{journal_prefix(name, replset)}{epoch:08d}-{number:08d}.json.zst"


def chunk_key(replset: str, owner: str, op_id: str, epoch: int, number: int) -> str:
    """One chunk object; `owner` is a collection's UUID or `BUNDLES`."""
    return f"chunks/{replset}/{owner}/{op_id}-{epoch:08d}-{number:08d}.bson.zst"


_CHUNK = re.compile(r"chunks/[^/]+/[^/]+/([^/]+)-\d{8}-\d+\.bson\.zst[^/]*")


def chunk_writer_of(key: str) -> str | None:
    """The operation that wrote the chunk with this key; None for other keys."""
    found = _CHUNK.fullmatch(key)
    return found[1] if found else None


SLICES: Final = "slices/"
"""Where the slices of all replica sets lie."""


def slices_prefix(replset: str) -> str:
    """Where the slices of one replica set lie."""
    return f"{SLICES}{replset}/"


def slice_key(replset: str, start: OpTime, end: OpTime, term: int, epoch: int) -> str:
    """One oplog slice with the entries in `(start, end]`; `term` is the last entry's. Slices of
    one timeline sort in its order."""
    day = end.wall().strftime("%Y%m%d")
    name = f"{start.key}_{end.key}_{term:06d}_{epoch:08d}"
    return f"{slices_prefix(replset)}{day}/{name}.bson.zst"


_SLICE = re.compile(
    r"slices/[^/]+/\d{8}/(\d{10})-(\d{10})_(\d{10})-(\d{10})_(\d{6})_(\d{8})\.bson\.zst(?:\.enc)?"
)


def slice_span_of(key: str) -> tuple[OpTime, OpTime] | None:
    """`(start, end]` of the slice with this key; None for other keys."""
    found = _SLICE.fullmatch(key)
    if found is None:
        return None
    numbers = [int(number) for number in found.groups()]
    return OpTime(T=numbers[0], I=numbers[1]), OpTime(T=numbers[2], I=numbers[3])


def verified_key(name: str, number: int) -> str:
    """What one verification, in one of its attempts, read and found right."""
    return f"{VERIFIED}{name}/{number:04d}.json.zst"


def restore_key(name: str, replset: str, epoch: int, number: int) -> str:
    """One record of a restore's progress."""
    return f"restores/{name}/{replset}-{epoch:08d}-{number:08d}.json"


def touched_key(name: str, replset: str, epoch: int, at: OpTime) -> str:
    """From when on a restore has changed its target."""
    return f"restores/{name}/touched/{replset}-{epoch:08d}-{at.key}.json"


def replay_base_key(name: str, replset: str) -> str:
    """What the target of an `oplog-replay` looked like before it."""
    return f"restores/{name}/{replset}-base.json.zst"


_BACKUP = re.compile(r"backups/([^/]+)/backup\.json")


def backup_name_of(key: str) -> str | None:
    """The name of the backup that a `backup.json` key publishes; None for other keys."""
    found = _BACKUP.fullmatch(key)
    return found[1] if found else None


def backup_of_key(key: str) -> str | None:
    """The backup to whose folder a key belongs; None for other keys."""
    steps = key.split("/")
    return steps[1] if len(steps) > 2 and steps[0] == "backups" else None


_RESTORE = re.compile(
    r"restores/(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)[^/]*/([^/]+)-\d{8}-\d{8}\.json(?:\.enc)?"
)
_TOUCHED = re.compile(r"restores/[^/]+/touched/([^/]+)-\d{8}-(\d{10})-\d{10}\.json(?:\.enc)?")


def restore_moment_of(key: str, replset: str) -> int | None:
    """By the key of a record of it, when a restore of this replica set was asked for or began to
    change it (it may have waited in line), in seconds; None for other keys."""
    touched = _TOUCHED.fullmatch(key)
    if touched is not None and touched[1] == replset:
        return int(touched[2])
    found = _RESTORE.fullmatch(key)
    if found is None or found[2] != replset:
        return None
    return int(datetime.fromisoformat(found[1]).timestamp())


POLICIES: Final = "encryption/"
KEYS: Final = "keys/"


def policy_key(number: int) -> str:
    """One policy; they are numbered from 1."""
    return f"{POLICIES}{number:08d}.json"


def census_key(digest: str) -> str:
    """The list of what was in clear when a repository was encrypted, by the digest of its text."""
    return f"census/{digest[:32]}.json.zst"


def data_key_key(key_id: str, kek_id: str | None = None) -> str:
    """A wrapped data key; with `kek_id`, a wrap that was added later."""
    return f"{KEYS}{key_id}.json" if kek_id is None else f"{KEYS}{key_id}.{kek_id}.json"


def data_key_prefix(key_id: str) -> str:
    """How the keys of all wraps of a data key begin."""
    return f"{KEYS}{key_id}."


def key_id_of(key: str) -> str | None:
    """The data key that an object under `keys/` wraps; None for other keys."""
    name = key.removeprefix(KEYS)
    return name.partition(".")[0] if key.startswith(KEYS) and name.endswith(".json") else None


def slice_day_of(key: str) -> str | None:
    """`yyyymmdd` of a slice's key, encrypted or not; None for other keys."""
    return key.split("/")[2] if slice_span_of(key) is not None else None
