"""Other tools, measured beside Tidelog where they are on PATH."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Peer:
    """A pair of commands that dump and restore everything."""

    name: str
    dump: tuple[str, ...]
    restore: tuple[str, ...]

    def steps(self, uri: str, directory: Path) -> Iterator[tuple[str, list[str]]]:
        """Each step's name and command line."""
        given = {"uri": uri, "out": str(directory / f"{self.name}.archive")}
        for step, command in (("backup", self.dump), ("restore", self.restore)):
            yield step, [part.format(**given) for part in command]


_KNOWN = (
    Peer(
        "mongodump",
        ("mongodump", "--uri={uri}", "--archive={out}", "--quiet"),
        ("mongorestore", "--uri={uri}", "--archive={out}", "--drop", "--quiet"),
    ),
    Peer(
        "mongodump gzip",
        ("mongodump", "--uri={uri}", "--archive={out}", "--gzip", "--quiet"),
        ("mongorestore", "--uri={uri}", "--archive={out}", "--gzip", "--drop", "--quiet"),
    ),
)


def peers() -> list[Peer]:
    """Those that can be run here. PBM needs agents of its own: docs/performance.md says how."""
    return [peer for peer in _KNOWN if shutil.which(peer.dump[0]) and shutil.which(peer.restore[0])]
