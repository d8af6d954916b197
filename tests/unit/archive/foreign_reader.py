"""A reader of repositories that knows `docs/format.md` and nothing of Tidelog's code.

It stands for one in another language: JSON, base64, SHA-256, zstd, and the lengths of BSON.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import zstandard

Json = dict[str, Any]


class ForeignReader:
    """Reads backups out of a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        marker = json.loads((root / "tidelog.json").read_bytes())
        assert marker["format_version"] == 1

    def names(self) -> list[str]:
        """The backups that exist."""
        return sorted(path.parent.name for path in self.root.glob("backups/*/backup.json"))

    def backup(self, name: str) -> Json:
        """What `backup.json` says."""
        found: Json = json.loads((self.root / f"backups/{name}/backup.json").read_bytes())
        return found

    def manifest(self, part: Json) -> Json:
        """The manifest that an entry of `replsets` names, proven."""
        data = self._proven(
            part["manifest_key"], part["manifest_size_bytes"], part["manifest_sha256"]
        )
        found: Json = json.loads(zstandard.ZstdDecompressor().decompress(data))
        return found

    def object(self, described: Json) -> tuple[Json, bytes]:
        """Header and plain bytes of a chunk or slice, proven."""
        data = self._proven(described["key"], described["size_bytes"], described["sha256"])
        magic, length = struct.unpack_from("<II", data)
        assert magic == 0x184D2A5D
        header: Json = json.loads(data[8 : 8 + length])
        position, plain = 8 + length, []
        for stored, size in header["frames"]:
            frame = data[position : position + stored]
            block = zstandard.ZstdDecompressor().decompress(frame)
            assert len(block) == size
            assert sum(map(len, documents(block))) == size, "a frame ends inside a document"
            plain.append(block)
            position += stored
        assert position == len(data)
        return header, b"".join(plain)

    def collections(self, manifest: Json) -> dict[str, list[bytes]]:
        """The documents of each collection, by the name it has in the catalogue."""
        names = {entry["uuid"]: entry["ns"] for entry in manifest["catalogue"]}
        found: dict[str, list[bytes]] = {ns: [] for ns in names.values()}
        for described in manifest["objects"]:
            header, plain = self.object(described)
            assert header["kind"] == "chunk"
            for segment in described["segments"]:
                start = segment.get("offset", 0)
                own = documents(plain[start : start + segment["length"]])
                assert len(own) == segment["count"]
                found[names[segment["uuid"]]] += own
        return found

    def ranges(self, manifest: Json, uuid: str) -> list[tuple[bytes | None, bytes | None]]:
        """The bounds of a collection's segments, in the order of their links."""
        open_end: str | None = None
        found = {
            segment.get("min"): segment.get("max")
            for described in manifest["objects"]
            for segment in described["segments"]
            if segment["uuid"] == uuid
        }
        low, ordered = open_end, []
        while low in found:
            high = found.pop(low)
            ordered.append((_bound(low), _bound(high)))
            if high is open_end:
                break
            low = high
        assert not found, "ranges do not adjoin"
        return ordered

    def oplog(self, manifest: Json) -> list[bytes]:
        """The entries of the span; the slices link and cover it."""
        end, previous, entries = manifest["first_write"], None, []
        for described in manifest["slices"]:
            assert described["start"] == end
            assert described.get("previous_sha256") == previous
            header, plain = self.object(described)
            assert header["kind"] == "slice"
            assert (header["start"], header["end"]) == (described["start"], described["end"])
            own = documents(plain)
            assert len(own) == described["count"]
            entries += own
            end, previous = described["end"], described["sha256"]
        assert end == manifest["last_write"]
        return entries

    def _proven(self, key: str, size: int, sha256: str) -> bytes:
        data = (self.root / key).read_bytes()
        assert len(data) == size
        assert hashlib.sha256(data).hexdigest() == sha256
        return data


def documents(plain: bytes) -> list[bytes]:
    """Concatenated BSON, told apart by its lengths."""
    found, position = [], 0
    while position < len(plain):
        (length,) = struct.unpack_from("<i", plain, position)
        found.append(plain[position : position + length])
        position += length
    return found


def _bound(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)
