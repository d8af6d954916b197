"""The catalogue of the base: what the manifest says was there, and what its chunks cover."""

from __future__ import annotations

from collections import defaultdict

from agent.archive.manifest import Manifest, Segment
from agent.replay.catalogue import Catalogue, Collection
from agent.replay.coverage import coverage_of
from agent.replay.scope import Scope


def base_catalogue(manifest: Manifest, scope: Scope) -> Catalogue:
    """The wanted collections as they were when the catalogue was read."""
    segments: dict[str, list[Segment]] = defaultdict(list)
    for item in manifest.objects:
        for segment in item.segments:
            segments[segment.uuid].append(segment)
    catalogue = Catalogue(scope)
    for entry in manifest.catalogue:
        uuid = bytes.fromhex(entry.uuid)
        if not scope.wants(uuid, entry.ns):
            continue
        catalogue.add(
            Collection(
                uuid,
                entry.ns,
                scope,
                options=entry.bson_options(),
                indexes={spec["name"]: spec for spec in entry.bson_indexes()},
                coverage=coverage_of(entry, segments[entry.uuid], manifest.catalogue_at),
            )
        )
    catalogue.ignore(bytes.fromhex(uuid) for uuid in manifest.dropped)
    return catalogue
