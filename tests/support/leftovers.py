"""What nothing may leave behind: leases, operations, collections, objects, a paused balancer.

Asked after every crash, every soak and every storm, once all is quiet. Objects are asked for after
a sweep; a day passes for it in the control database, since the product waits so long.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import zstandard

from tests.support.ctl import Ctl
from tests.support.eventually import eventually
from tests.support.mongod.replset import Client
from tests.support.s3_repository import S3Repository

TERMINAL: Final = frozenset({"done", "failed", "cancelled"})
QUIET_WITHIN_S: Final = 20.0
_PASSED_MS: Final = 2 * 24 * 3600 * 1000
_OF_OPERATIONS: Final = "^(lead|work)/"


def left_in_control(admin: Any) -> list[str]:
    """Leases of operations that somebody holds, operations that are not over, and a balancer that
    is paused for one."""
    held = admin.tidelogLeases.find({"owner": {"$ne": None}, "_id": {"$regex": _OF_OPERATIONS}})
    unfinished = admin.tidelogOperations.find({"state": {"$nin": sorted(TERMINAL)}})
    paused = admin.tidelogConfig.find_one({"_id": "balancer"})
    return [
        *(f"the lease {one['_id']} of {one['owner']}" for one in held),
        *(f"the {one['kind']} {one['name']}, {one['state']}" for one in unfinished),
        *([f"the balancer's setting {paused}"] if paused is not None else []),
    ]


def temporary(client: Client) -> list[str]:
    """Collections that only a restore needs, while it runs."""
    names = [
        f"{database}.{name}"
        for database in client.list_database_names()
        for name in client[database].list_collection_names()
    ]
    return [name for name in names if "tidelogTmp" in name or ".tmp" in name]


def check_quiet(admin: Any, clients: Iterable[Client], within_s: float = QUIET_WITHIN_S) -> None:
    """Nothing is held, under way or set aside any more, or within so long."""
    everywhere = list(clients)

    def left() -> list[str]:
        return [*left_in_control(admin), *(name for one in everywhere for name in temporary(one))]

    eventually(lambda: not left(), within_s, describe=lambda: f"left behind: {left()}")


def sweep(admin: Any, ctl: Ctl, repository: Path | None) -> dict[str, Any]:
    """Let two days pass for what is over or was never finished, and clean up; what that did."""
    long_ago = time.time() - _PASSED_MS / 1000
    for path in repository.rglob(".tmp-*") if repository is not None else ():
        os.utime(path, (long_ago, long_ago))
    admin.tidelogOperations.update_many(
        {"state": {"$in": sorted(TERMINAL)}},
        [{"$set": {"finished_at": {"$subtract": ["$finished_at", _PASSED_MS]}}}],
    )
    done: dict[str, Any] = ctl.ok("cleanup", "-y", "--wait", within_s=120)
    return done


def unnamed(repository: Path, *, with_slices: bool) -> list[str]:
    """Objects of a repository on a filesystem that no published backup names, and files that were
    never finished. Slices count only where nothing else archives the oplog. Of repositories that
    are not encrypted."""
    named: set[str] = set()
    for published in repository.glob("backups/*/backup.json"):
        named.add(published.relative_to(repository).as_posix())
        for share in json.loads(published.read_text())["replsets"]:
            named.add(share["manifest_key"])
            manifest = read_compressed(repository / share["manifest_key"])
            named.update(item["key"] for item in (*manifest["objects"], *manifest["slices"]))
    roots = ("backups", "chunks", *(("slices",) if with_slices else ()))
    found = []
    for path in sorted(path for path in repository.rglob("*") if path.is_file()):
        key = path.relative_to(repository).as_posix()
        is_lost = key.split("/")[0] in roots and key not in named and "/hold" not in key
        if is_lost or path.name.startswith(".tmp-"):
            found.append(key)
    return found


def check_nothing_left(
    admin: Any,
    clients: Iterable[Client],
    ctl: Ctl,
    repository: Path,
    within_s: float = 90.0,
    *,
    s3: S3Repository | None = None,
) -> None:
    """After a storm: stop slicing, wait until all is quiet, sweep, and look at the storage: at the
    directory `repository`, or at what lies on S3, uploads that nobody ended included."""
    ctl.ok("config", "--set", "pitr.enabled=false")
    check_quiet(admin, clients, within_s)
    if s3 is not None:
        s3.sweep_uploads()
    sweep(admin, ctl, repository if s3 is None else None)
    left = unnamed(repository if s3 is None else s3.copy_to(repository), with_slices=False)
    left += [f"an upload of {key}" for key in (s3.uploads() if s3 is not None else ())]
    assert not left, f"left behind after a sweep: {left}"


def read_compressed(path: Path) -> dict[str, Any]:
    """A compressed JSON object of a repository."""
    with path.open("rb") as source:
        decoder = zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True)
        found: dict[str, Any] = json.loads(decoder.read())
        return found
