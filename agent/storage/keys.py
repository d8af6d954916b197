"""Which keys there are: one rule for all drivers, so that a repository can move between them.

A key is a relative path of non-empty parts. No part may lead out of the repository, and none may
have a name that a file system or the filesystem driver uses for itself: those are never listed.
No object's key is the directory of another's (`a` beside `a/b`).
"""

from __future__ import annotations

from typing import Final

from agent.errors import Permanent

MAX_KEY_BYTES: Final = 900
"""Object stores allow 1,024 with the prefix of the repository."""
MAX_PART_BYTES: Final = 255

TEMPORARY_PREFIX: Final = ".tmp-"
_RESERVED: Final = frozenset({".", "..", "lost+found", ".snapshot", ".snapshots", ".zfs"})
_RESERVED_PREFIXES: Final = (TEMPORARY_PREFIX, ".nfs")


class InvalidKey(Permanent):
    """No object can have this key."""


def is_reserved(part: str) -> bool:
    """Whether a name belongs to the file system or to a write that is under way."""
    return part in _RESERVED or part.startswith(_RESERVED_PREFIXES)


def check_key(key: str) -> str:
    """The key, if it is one. Raises `InvalidKey`."""
    if not key:
        raise InvalidKey("an object key is empty")
    size = _encoded_size(key)
    if size > MAX_KEY_BYTES:
        raise InvalidKey(f"the object key {key[:40]!r}… has {size} bytes, over {MAX_KEY_BYTES}")
    for part in key.split("/"):
        _check_part(part, key)
    return key


def check_prefix(prefix: str) -> str:
    """The prefix of a listing, whose last part may be empty or partial. Raises `InvalidKey`."""
    _encoded_size(prefix)
    for part in prefix.split("/")[:-1]:
        _check_part(part, prefix)
    return prefix


def _encoded_size(key: str) -> int:
    try:
        size = len(key.encode())
    except UnicodeEncodeError as error:
        raise InvalidKey(f"the object key {key!r} is no valid Unicode") from error
    if any(ord(character) < 0x20 or character == "\x7f" for character in key):
        raise InvalidKey(f"the object key {key!r} has a control character")
    if "\ufffe" in key or "\uffff" in key:
        # Object stores list in XML, which cannot hold these: Azure answers 500 for the whole list.
        raise InvalidKey(f"the object key {key!r} has a character that no listing can hold")
    return size


def _check_part(part: str, key: str) -> None:
    if not part:
        raise InvalidKey(f"the object key {key!r} has an empty part")
    if is_reserved(part):
        raise InvalidKey(f"the object key {key!r} has the reserved part {part!r}")
    if len(part.encode()) > MAX_PART_BYTES:
        raise InvalidKey(f"the object key {key!r} has a part of over {MAX_PART_BYTES} bytes")
