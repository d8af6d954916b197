"""The form of stored objects: what is assembled comes back, and zstd reads it without us."""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.archive.codec import Compression, open_object
from agent.archive.framing import assemble, dissect, raw_frame
from agent.errors import IntegrityError
from tests.unit.archive.strategies import FRAMES

Frames = Any
_BLOCK = 128 * 1024


@given(
    header=st.dictionaries(st.text(), st.integers() | st.text() | st.none(), max_size=4),
    frames=FRAMES,
)
def test_what_is_assembled_is_dissected(header: dict[str, Any], frames: Frames) -> None:
    data = b"".join(assemble(header, frames))
    found, cut = dissect(data, "some/key")
    assert [(bytes(stored), size) for stored, size in cut] == [
        (frame.stored, frame.plain_bytes) for frame in frames
    ]
    del found["frames"]
    header.pop("frames", None)
    assert found == header


@pytest.mark.parametrize("kind", ["zstd", "none"])
@settings(deadline=None, max_examples=30)
@given(blocks=st.lists(st.binary(max_size=300), max_size=4))
async def test_content_comes_back(kind: Any, blocks: list[bytes]) -> None:
    frames = [await Compression(kind).frame(block) for block in blocks]
    header, plain = open_object(b"".join(assemble({"kind": "chunk"}, frames)), "k")
    assert plain == blocks
    assert header["kind"] == "chunk"


@pytest.mark.parametrize("kind", ["zstd", "none"])
async def test_any_zstd_decoder_reads_an_object_and_skips_its_header(kind: Any) -> None:
    blocks = [b"first" * 100, b"", b"third" * 70_000]
    frames = [await Compression(kind).frame(block) for block in blocks]
    data = b"".join(assemble({"kind": "chunk"}, frames))
    reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True)
    assert reader.read() == b"".join(blocks)


@pytest.mark.parametrize(
    "size",
    [0, 1, 2, 255, 256, _BLOCK - 1, _BLOCK, _BLOCK + 1, 2 * _BLOCK, 3 * _BLOCK + 7, 20 << 20],
)
def test_raw_frame_is_valid_zstd(size: int) -> None:
    plain = (bytes(range(256)) * (size // 256 + 1))[:size]
    frame = raw_frame(plain)
    assert zstandard.frame_content_size(frame) == size
    assert zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False) == plain
    assert len(frame) <= size + 13 + 3 * (size // _BLOCK + 1)


@given(plain=st.binary(max_size=2000))
def test_raw_frame_of_any_bytes_is_valid_zstd(plain: bytes) -> None:
    decoder = zstandard.ZstdDecompressor()
    assert decoder.decompress(raw_frame(plain), allow_extra_data=False) == plain


@settings(max_examples=300)
@given(data=st.data())
def test_a_harmed_object_is_refused_or_still_says_its_sizes(data: st.DataObject) -> None:
    """Without a digest not every change can be seen; but nothing but `IntegrityError` comes out."""
    frames = [
        Compression().frame_of(b"some documents " * 20),
        Compression("none").frame_of(b"more"),
    ]
    whole = bytearray(b"".join(assemble({"kind": "chunk", "count": 3}, frames)))
    position = data.draw(st.integers(0, len(whole) - 1))
    whole[position] = data.draw(st.integers(0, 255))
    try:
        header, plain = open_object(bytes(whole), "chunks/x")
    except IntegrityError as error:
        refusal = str(error)
    else:
        assert [len(block) for block in plain] == [size for _, size in header["frames"]]
        return
    assert "chunks/x" in refusal


@given(cut=st.integers(0, 10_000), longer=st.booleans())
def test_an_object_of_another_length_is_refused(cut: int, longer: bool) -> None:
    whole = b"".join(assemble({"kind": "chunk"}, [Compression().frame_of(b"abc" * 99)]))
    harmed = whole + bytes(cut % 50 + 1) if longer else whole[: cut % len(whole)]
    with pytest.raises(IntegrityError, match="chunks/x"):
        open_object(harmed, "chunks/x")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe",
        b"[1]",
        b'"text"',
        b"{}",
        b'{"frames":7}',
        b'{"frames":[[1]]}',
        b'{"frames":[["x",1]]}',
        b'{"frames":[[null,1]]}',
        b'{"frames":[[Infinity,1]]}',
        b"[" * 100_000,
    ],
)
def test_a_header_that_makes_no_sense_is_refused_by_name(text: bytes) -> None:
    data = struct.pack("<II", 0x184D2A5D, len(text)) + text
    with pytest.raises(IntegrityError, match="slices/rs0/x"):
        open_object(data, "slices/rs0/x")


def test_a_header_that_lies_about_a_frame_is_refused() -> None:
    frame = Compression().frame_of(b"0123456789" * 10)
    (prefix, text, stored) = assemble({}, [frame])
    lying = json.loads(text)
    lying["frames"][0][1] += 1
    changed = json.dumps(lying, separators=(",", ":")).encode()
    data = struct.pack("<II", 0x184D2A5D, len(changed)) + changed + stored
    assert len(prefix) == 8
    with pytest.raises(IntegrityError, match="holds 100 bytes and not 101"):
        open_object(data, "k")
