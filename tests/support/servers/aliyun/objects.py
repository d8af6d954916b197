"""The objects of OSS, in files of one directory, and uploads in parts."""

from __future__ import annotations

import hashlib
import secrets
from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from fastcrc import crc64

KEPT = ("content-type", "x-oss-storage-class", "x-oss-server-side-encryption")
KEPT_PREFIXES = ("x-oss-meta-", "x-oss-server-side-")
PIECE = 1 << 20


@dataclass
class Stored:
    """A body in a file, with what is told of it."""

    path: Path
    size: int
    crc64: int
    etag: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Upload:
    """An upload in parts that is under way."""

    name: str
    headers: dict[str, str]
    begun: datetime = field(default_factory=partial(datetime.now, UTC))
    parts: dict[int, Stored] = field(default_factory=dict)


class Objects:
    """One bucket."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.by_name: dict[str, Stored] = {}
        self.names: list[bytes] = []
        """Sorted."""
        self.uploads: dict[str, Upload] = {}
        self.is_versioned = False

    def new_file(self) -> Path:
        """Where a body goes."""
        return self._directory / secrets.token_hex(12)

    def put(self, name: str, stored: Stored) -> None:
        """Make it visible."""
        replaced = self.by_name.get(name)
        if replaced is None:
            insort(self.names, name.encode())
        else:
            replaced.path.unlink(missing_ok=True)
        self.by_name[name] = stored

    def remove(self, name: str) -> None:
        """Absent is no error."""
        stored = self.by_name.pop(name, None)
        if stored is not None:
            stored.path.unlink(missing_ok=True)
            self.names.remove(name.encode())

    def page(self, prefix: str, after: str, most: int) -> tuple[list[str], bool]:
        """Names in byte order behind `after`, and whether there are more."""
        start = bisect_left(self.names, prefix.encode())
        if after:
            start = max(start, bisect_right(self.names, after.encode()))
        found: list[str] = []
        for raw in self.names[start:]:
            if not raw.startswith(prefix.encode()):
                break
            if len(found) == most:
                return found, True
            found.append(raw.decode())
        return found, False

    def join(self, upload: Upload, numbers: list[int]) -> Stored:
        """The object of these parts."""
        path = self.new_file()
        checksum, size = crc64.xz(b""), 0
        with path.open("wb") as target:
            for number in numbers:
                part = upload.parts[number]
                with part.path.open("rb") as source:
                    while piece := source.read(PIECE):
                        target.write(piece)
                        checksum = crc64.xz(piece, checksum)
                        size += len(piece)
        etag = f'"{hashlib.md5(path.name.encode()).hexdigest().upper()}-{len(numbers)}"'
        return Stored(path, size, checksum, etag, upload.headers)

    def drop(self, upload_id: str) -> None:
        """Forget an upload and its parts."""
        for part in self.uploads.pop(upload_id).parts.values():
            part.path.unlink(missing_ok=True)


def kept(headers: dict[str, str]) -> dict[str, str]:
    """The headers of a request that belong to the object."""
    return {
        name: value
        for name, value in headers.items()
        if name in KEPT or name.startswith(KEPT_PREFIXES)
    }
