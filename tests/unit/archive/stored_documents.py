"""What a manifest says is stored, read by the product object by object."""

from __future__ import annotations

from agent.archive.manifest import Manifest
from agent.archive.objects import fetch_framed
from agent.storage.base import Storage
from tests.unit.archive.foreign_reader import documents


async def stored_documents(storage: Storage, manifest: Manifest) -> dict[str, list[bytes]]:
    """The documents of each collection, by its UUID."""
    found: dict[str, list[bytes]] = {}
    for item in manifest.objects:
        _, frames = await fetch_framed(
            storage, item.key, size_bytes=item.size_bytes, sha256=item.sha256
        )
        plain = b"".join(frames)
        for segment in item.segments:
            own = plain[segment.offset : segment.offset + segment.length]
            found.setdefault(segment.uuid, []).extend(documents(own))
    return found
