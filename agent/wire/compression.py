"""How blocks may be compressed, as people name it."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

Compression = Literal["zstd", "none", "gzip", "pgzip", "s2", "snappy", "lz4"]
"""PBM's names; all but `none` mean zstd."""
LOWEST_LEVEL: Final = -7
HIGHEST_LEVEL: Final = 22
"""Of zstd itself; every level of PBM's other compressions is one of zstd's, too."""
CompressionLevel = Annotated[int, Field(ge=LOWEST_LEVEL, le=HIGHEST_LEVEL)]


def stored_compression(name: Compression | None) -> Literal["zstd", "none"]:
    """What is written for a configured compression: Tidelog's objects are zstd frames, so every
    other algorithm a PBM file may name means zstd."""
    return "none" if name == "none" else "zstd"
