"""One replica set's share of a backup: its manifest on storage, and what its part answers."""

from __future__ import annotations

from typing import Any, Final

from agent.archive.codec import Compression
from agent.archive.layout import manifest_key
from agent.archive.manifest import Manifest
from agent.archive.objects import put_json
from agent.archive.vault import sealed_by, stored_name
from agent.errors import Refused
from agent.faults import fault_point
from agent.operations.backup.snapshot import SnapshotOutcome
from agent.operations.context import PartContext
from agent.storage.base import Storage
from agent.wire.backups import ReplsetPart
from agent.wire.optime import OpTime
from agent.wire.timelines import reshaped_by

LISTED_COLLECTIONS: Final = 5000
LISTED_BYTES: Final = 1 << 20
"""What the lists of all parts together may take in the operation's document."""
_ENTRY_BYTES: Final = 80
"""Of one of them beside its name, in BSON."""


async def write_share(
    part: PartContext, storage: Storage, outcome: SnapshotOutcome, compression: Compression
) -> dict[str, Any]:
    """Write the manifest; answers the part's result. Raises `Refused` where the cluster changed its
    shape while it was read."""
    for ref in outcome.slices:
        cause = reshaped_by(ref.commands)
        if cause is not None:
            raise Refused(f"{cause} while the backup ran", hint="take the backup again")
    operation = await part.refresh()
    last_write = OpTime.from_document(operation.result["last_write"])
    key = stored_name(storage, manifest_key(operation.name, part.replset, part.lease.epoch))
    manifest = Manifest(
        backup=operation.name,
        op_id=operation.id,
        replset=part.replset,
        epoch=part.lease.epoch,
        first_write=outcome.begun.first_write,
        catalogue_at=outcome.begun.catalogue_at,
        read_end=outcome.read_end,
        last_write=last_write,
        catalogue=outcome.begun.catalogue,
        objects=outcome.objects,
        slices=outcome.slices,
        dropped=outcome.gone,
        key_id=sealed_by(storage, key),
    )
    part.lease.check()
    size, digest = await put_json(
        storage,
        key,
        manifest.model_dump_json(exclude_none=True),
        public=manifest.public().model_dump_json(exclude_none=True),
    )
    await fault_point("snapshot.manifest_written")
    await part.services.node.read_versions()
    share = ReplsetPart(
        replset=part.replset,
        shard=part.services.node.shard,
        is_config=part.services.node.is_config,
        manifest_key=key,
        manifest_sha256=digest,
        manifest_size_bytes=size,
        node=part.services.node.id,
        first_write=manifest.first_write,
        read_end=manifest.read_end,
        collections=len(manifest.catalogue),
        documents=manifest.documents,
        objects=len(manifest.objects) + len(manifest.slices),
        size_bytes=manifest.stored_bytes,
        size_uncompressed_bytes=manifest.plain_bytes,
    )
    return {
        "share": share.to_document(),
        "rereads": outcome.tally.rereads,
        "compression": str(compression),
        "mongodb_version": part.services.node.mongodb_version,
        "fcv": part.services.node.fcv,
        "collections": listed(manifest, LISTED_BYTES // max(1, len(operation.parts))),
    }


def listed(manifest: Manifest, most_bytes: int) -> list[dict[str, Any]]:
    """Per collection what `describe-backup --with-collections` shows, of the first so many: a
    document of the control database is bounded, whatever the cluster holds."""
    first = manifest.catalogue[:LISTED_COLLECTIONS]
    documents = dict.fromkeys((entry.uuid for entry in first), 0)
    plain = dict(documents)
    for item in manifest.objects:
        for segment in item.segments:
            if segment.uuid in documents:
                documents[segment.uuid] += segment.count
                plain[segment.uuid] += segment.length
    found = []
    for entry in first:
        most_bytes -= _ENTRY_BYTES + len(entry.ns.encode())
        if most_bytes < 0:
            break
        found.append(
            {
                "ns": entry.ns,
                "documents": documents[entry.uuid],
                "size": plain[entry.uuid],
                "indexes": len(entry.indexes),
            }
        )
    return found
