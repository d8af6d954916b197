"""Encrypted objects: what comes back, what is seen in clear, and that no change goes unseen."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from agent.archive.codec import Compression
from agent.archive.framing import assemble
from agent.archive.layout import chunk_key, manifest_key, slice_key
from agent.archive.objects import (
    fetch_framed,
    get_json,
    get_public_json,
    opened,
    put_framed,
    put_json,
    put_text,
)
from agent.archive.vault import VaultStorage, stored_name
from agent.errors import IntegrityError
from agent.wire.optime import OpTime
from ctl.decryptor import decrypt
from tests.support.vaults import FIRST, Vaults

SECRET = b"a tide that nobody may know of"
HEADER = {
    "kind": "chunk",
    "format_version": 1,
    "op_id": "0123456789abcdef01234567",
    "replset": "rs0",
    "segments": [{"uuid": "00" * 16, "min": "SECRETBOUND"}],
}
CHUNK = chunk_key("rs0", "00" * 16, "0123456789abcdef01234567", 1, 1)
OTHER_CHUNK = chunk_key("rs0", "00" * 16, "0123456789abcdef01234567", 1, 2)
SLICE = slice_key("rs0", OpTime(T=1, I=1), OpTime(T=2, I=1), 1, 1)
MANIFEST = manifest_key("2026", "rs0", 1)
RECORD = "restores/2026/rs0-00000001-00000000.json"


async def fill(vaults: Vaults) -> tuple[VaultStorage, dict[str, bytes]]:
    """One object of each kind; answers them as stored."""
    await vaults.policy()
    storage = await vaults.writing()
    frames = [await Compression().frame(SECRET * 3), await Compression("none").frame(SECRET)]
    for key in (CHUNK, OTHER_CHUNK):
        await put_framed(storage, stored_name(storage, key), HEADER, list(frames))
    await put_framed(storage, stored_name(storage, SLICE), {"kind": "slice", "count": 2}, [])
    public = json.dumps({"objects": ["k"]})
    text = json.dumps({"objects": ["k"], "ns": "hidden.names"})
    await put_json(storage, stored_name(storage, MANIFEST), text, public=public)
    await put_text(storage, stored_name(storage, RECORD), SECRET.decode())
    return storage, {k: v for k, v in vaults.objects.bodies.items() if k.endswith(".enc")}


async def is_refused(storage: VaultStorage, data: bytes, key: str) -> bool:
    """Whether an object does not open; nothing but `IntegrityError` may come out."""
    try:
        (await opened(storage, data, key)).plain()
    except IntegrityError:
        return True
    return False


async def test_an_object_comes_back_as_it_was() -> None:
    storage, stored = await fill(Vaults())
    key = CHUNK + ".enc"
    frames = [await Compression().frame(SECRET * 3), await Compression("none").frame(SECRET)]
    plain = b"".join((await opened(storage, stored[key], key)).plain())
    assert plain == b"".join(assemble(HEADER, frames))
    again = await put_framed(storage, "chunks/rs0/x/1-1-3.bson.zst.enc", HEADER, frames)
    header, found = await fetch_framed(
        storage, again[0].key, size_bytes=again[0].size_bytes, sha256=again[1]
    )
    assert (header["segments"], found) == (HEADER["segments"], [SECRET * 3, SECRET])


async def test_documents_say_in_clear_what_they_should_and_no_more() -> None:
    storage, stored = await fill(Vaults())
    key = MANIFEST + ".enc"
    assert json.loads(await get_json(storage, key))["ns"] == "hidden.names"
    assert json.loads(await get_public_json(storage, key)) == {"objects": ["k"]}
    whole = b"".join(stored.values())
    for hidden in (SECRET[:12], b"SECRETBOUND", b"hidden.names", bytes.fromhex(FIRST)):
        assert hidden not in whole


async def test_every_single_changed_bit_is_found() -> None:
    storage, stored = await fill(Vaults())
    tried = 0
    for key, data in stored.items():
        for position in range(len(data) * 8):
            changed = bytearray(data)
            changed[position // 8] ^= 1 << position % 8
            assert await is_refused(storage, bytes(changed), key), (key, position)
            tried += 1
    sys.stdout.write(f"{tried} changed bits, all found\n")
    assert tried > 15_000


async def test_every_truncation_and_every_growth_is_found() -> None:
    storage, stored = await fill(Vaults())
    for key, data in stored.items():
        for length in range(len(data)):
            assert await is_refused(storage, data[:length], key), (key, length)
        assert await is_refused(storage, data + b"\0", key)
        assert await is_refused(storage, data + data, key)


async def test_no_object_can_be_passed_off_as_another() -> None:
    storage, stored = await fill(Vaults())
    for key in stored:
        for other, data in stored.items():
            assert await is_refused(storage, data, key) == (key != other)


async def test_frames_cannot_change_places_nor_come_from_another_object() -> None:
    storage, stored = await fill(Vaults())
    key = CHUNK + ".enc"
    first, second = stored[key], stored[OTHER_CHUNK + ".enc"]
    header_bytes = 8 + int.from_bytes(first[4:8], "little")
    header = json.loads(first[8:header_bytes])
    (one, _), (two, _) = header["frames"]
    start = header_bytes + header["encryption"]["private_bytes"]
    head, a, b = first[:start], first[start : start + one], first[start + one :]
    assert len(b) == two
    header["frames"].reverse()
    text = json.dumps(header, separators=(",", ":")).encode()
    swapped = first[:4] + len(text).to_bytes(4, "little") + text + first[header_bytes:start] + b + a
    assert await is_refused(storage, swapped, key)
    assert await is_refused(storage, head + a + second[-two:], key)
    assert await is_refused(storage, head + second[-one - two :], key)


async def test_the_decryptor_without_tidelog_agrees(tmp_path: Path) -> None:
    vaults = Vaults()
    storage, stored = await fill(vaults)
    for key, data in vaults.objects.bodies.items():
        path = tmp_path / "copy" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    keyfile = tmp_path / "keyfile"
    keyfile.write_text(FIRST)
    arguments = ["--keyfile", str(keyfile), "--to", str(tmp_path / "to")]
    assert decrypt([*arguments, str(tmp_path / "copy")])["failed"] == 0
    for key, data in stored.items():
        plain = b"".join((await opened(storage, data, key)).plain())
        assert (tmp_path / "to" / key.removesuffix(".enc")).read_bytes() == plain
    path = tmp_path / "copy" / (CHUNK + ".enc")
    for position in range(0, len(stored[CHUNK + ".enc"]), 7):
        changed = bytearray(stored[CHUNK + ".enc"])
        changed[position] ^= 0x10
        path.write_bytes(bytes(changed))
        assert decrypt([*arguments, str(path)])["failed"] == 1, position
    path.write_bytes(stored[OTHER_CHUNK + ".enc"])
    assert decrypt([*arguments, str(path)])["failed"] == 1
    keyfile.write_text("cd" * 32)
    assert decrypt([*arguments, str(tmp_path / "copy" / (SLICE + ".enc"))])["failed"] == 1
