"""Documents of the control database stay small, whatever the cluster holds."""

from __future__ import annotations

from datetime import UTC, datetime

import bson
import pytest

from agent.archive.manifest import CollectionEntry, Manifest
from agent.operations.backup.share import LISTED_BYTES, LISTED_COLLECTIONS, listed
from agent.wire.operations import Kind, Operation, Part
from agent.wire.optime import OpTime

MOST_BYTES = 16 << 20
"""What a server takes."""
AT = OpTime(T=1, I=1)


def _manifest(collections: int, name_bytes: int) -> Manifest:
    names = (f"db.{number}".ljust(name_bytes, "x") for number in range(collections))
    return Manifest(
        backup="b",
        op_id="o",
        replset="rs",
        epoch=1,
        first_write=AT,
        catalogue_at=AT,
        read_end=AT,
        last_write=AT,
        catalogue=tuple(CollectionEntry(ns=name, uuid=f"{n:032x}") for n, name in enumerate(names)),
        objects=(),
        slices=(),
    )


@pytest.mark.story("F12", "PBM-1252")
@pytest.mark.parametrize("shards", [1, 3, 64, 500])
def test_the_document_of_a_backup_is_bounded_whatever_the_cluster_holds(shards: int) -> None:
    found = listed(_manifest(20_000, 255), LISTED_BYTES // shards)
    parts = tuple(Part(replset=f"rs{n}", result={"collections": found}) for n in range(shards))
    now = datetime(2026, 1, 1, tzinfo=UTC)
    operation = Operation(
        id="o", kind=Kind.BACKUP, name="b", requested_at=now, updated_at=now, parts=parts
    )
    assert len(bson.encode(operation.to_document())) < MOST_BYTES / 4


def test_what_fits_is_listed_whole() -> None:
    assert len(listed(_manifest(1000, 40), LISTED_BYTES)) == 1000
    assert len(listed(_manifest(LISTED_COLLECTIONS + 1, 40), LISTED_BYTES)) == LISTED_COLLECTIONS
