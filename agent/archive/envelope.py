"""Encrypted objects: a clear head that says what an object is, then sealed frames.

    skippable frame   the clear header, JSON; its `encryption` says how to open the rest
    clear part        optional: what deletion must be able to read without a key
    private header    sealed: the header that the object would have if it were not encrypted
    frame …           sealed, one for each zstd frame

Each object has a key of its own: HKDF-SHA256 of the data key, with a random salt and the object's
key (its path) as context. A frame's nonce is its number and whether it is the last; its associated
data is the digest of the clear head. So an object that was cut, put together anew, moved to another
path, or given another head does not open, and nor does a frame with one changed bit. The
construction is STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015, "Online authenticated-encryption
and its nonce-reuse misuse-resistance") over AES-256-GCM.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from agent.archive.framing import Frame, assemble, dissect, skippable
from agent.archive.layout import ENCRYPTED, ENCRYPTED_VERSION
from agent.errors import IntegrityError
from agent.wire.encryption import ALGORITHM, KEY_BYTES

SALT_BYTES: Final = 16
TAG_BYTES: Final = 16
_PURPOSE: Final = b"tidelog object v2\0"
_NONCE: Final = struct.Struct(">7xIB")
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,512}")
_PUBLIC: Final = frozenset(
    {"kind", "op_id", "replset", "start", "start_term", "end", "end_term", "count"}
    | {"previous_sha256", "commands"}
)
"""What of a plain object's header may be read by everybody: no names, no bounds of `_id`."""


@dataclass(frozen=True, slots=True)
class DataKey:
    """A data key in clear, for as long as it is used."""

    id: str
    key: bytes

    def __repr__(self) -> str:
        return f"DataKey({self.id})"


def is_encrypted(key: str) -> bool:
    """Whether an object's key says that it is encrypted."""
    return key.endswith(ENCRYPTED)


def public_header(header: dict[str, Any]) -> dict[str, Any]:
    """What of a header stays in clear."""
    return {name: value for name, value in header.items() if name in _PUBLIC}


class Sealer:
    """Seals the parts of one object, in order: the private header, then each frame."""

    def __init__(
        self,
        data_key: DataKey,
        key: str,
        salt: bytes,
        *,
        public: dict[str, Any],
        private: bytes,
        sizes: Sequence[tuple[int, int]],
        clear: bytes = b"",
    ) -> None:
        described = {
            **public,
            "format_version": ENCRYPTED_VERSION,
            "encryption": {
                "algorithm": ALGORITHM,
                "key_id": data_key.id,
                "key": key,
                "salt": salt.hex(),
                "clear_bytes": len(clear),
                "private_bytes": len(private) + TAG_BYTES,
            },
            "frames": [[stored + TAG_BYTES, plain] for stored, plain in sizes],
        }
        text = json.dumps(described, separators=(",", ":")).encode()
        self.head = [*skippable(text), clear]
        self._cipher = AESGCM(object_key(data_key.key, salt, key))
        self._head_digest = hashlib.sha256(b"".join(self.head)).digest()
        self._last = len(sizes)
        self._number = 0
        self.private = self.seal(private)

    def seal(self, part: bytes) -> bytes:
        """The next part, sealed."""
        number = self._number
        self._number += 1
        return self._cipher.encrypt(nonce(number, number == self._last), part, self._head_digest)


class Opened:
    """An encrypted object whose key is known: parts are opened one by one."""

    def __init__(self, data: bytes, key: str, data_key: bytes) -> None:
        self.key = key
        header, frames = dissect(data, key)
        described = encryption_of(header, key)
        start = struct.unpack_from("<4xI", data)[0] + 8 + described["clear_bytes"]
        salt = bytes.fromhex(described["salt"])
        self._cipher = AESGCM(object_key(data_key, salt, key))
        self._head_digest = hashlib.sha256(memoryview(data)[:start]).digest()
        self._frames = list(frames)
        private = memoryview(data)[start : start + described["private_bytes"]]
        self.private = self._open(0, private)
        """The header as JSON text; empty where the plain object has none."""

    @property
    def sizes(self) -> list[int]:
        """Sizes of the frames, expanded."""
        return [plain for _, plain in self._frames]

    def frame(self, number: int) -> bytes:
        """One zstd frame. Raises `IntegrityError`."""
        return self._open(number + 1, self._frames[number][0])

    def header(self) -> dict[str, Any]:
        """The private header."""
        found: dict[str, Any] = json.loads(self.private)
        return found

    def plain(self) -> list[bytes]:
        """The blocks of the object as it would be if it were not encrypted."""
        frames = [Frame(self.frame(n), size) for n, size in enumerate(self.sizes)]
        if not self.private:
            return [frame.stored for frame in frames]
        return assemble(self.header(), frames)

    def _open(self, number: int, sealed: memoryview) -> bytes:
        try:
            return self._cipher.decrypt(
                nonce(number, number == len(self._frames)), sealed, self._head_digest
            )
        except (InvalidTag, ValueError, OverflowError) as error:
            raise IntegrityError(
                f"{self.key} does not open: part {number} is not what was written, or not there"
            ) from error


def nonce(number: int, is_last: bool) -> bytes:
    """Of one part: 7 zero bytes, its number, 1 for the last one."""
    return _NONCE.pack(number, is_last)


def object_key(data_key: bytes, salt: bytes, key: str) -> bytes:
    """The key of one object."""
    return HKDF(SHA256(), KEY_BYTES, salt, _PURPOSE + key.encode()).derive(data_key)


def encryption_of(header: dict[str, Any], key: str) -> dict[str, Any]:
    """How an object is encrypted, from its clear header. Raises `IntegrityError`, too where the
    header is that of another object."""
    try:
        found: dict[str, Any] = header["encryption"]
        checked: dict[str, Any] = {
            "key_id": str(found["key_id"]),
            "salt": str(found["salt"]),
            "clear_bytes": int(found["clear_bytes"]),
            "private_bytes": int(found["private_bytes"]),
        }
        if not _KEY_ID.fullmatch(checked["key_id"]):
            raise ValueError("no id of a key")
        is_known = found["algorithm"] == ALGORITHM and len(bytes.fromhex(checked["salt"])) > 0
        written = str(found["key"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise IntegrityError(f"{key} does not say how it is encrypted: {error!r}") from error
    if not is_known:
        raise IntegrityError(f"{key} is encrypted in a way that is not known here")
    if written != key:
        raise IntegrityError(f"{key} is another object: it was written as {written}")
    return checked
