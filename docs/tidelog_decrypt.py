"""Decrypts what Tidelog encrypted, without Tidelog and without MongoDB.

Needs Python 3.10 or later and `cryptography`; for --dump the program `zstd`, too. Give it copies of
the repository's objects, files or directories, and the key (docs/encryption.md, step by step):

    tidelog_decrypt.py (--passphrase-file F | --keyfile F | --data-keys DIR | --key-hex K) PATH…

Each `X.enc` becomes `X` beside itself, or below --to, only if every byte proved to be what was
written. With --data-keys (files `<key id>.hex`), objects under other keys are skipped. With --dump,
each backup becomes a directory for `mongorestore`.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import struct
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class NotEncrypted(Exception):
    """A file that is nothing Tidelog encrypted."""


def data_key(key_id: str, given: argparse.Namespace, near: Path) -> bytes:
    """The data key of an object: given, or unwrapped from its file under keys/."""
    if given.key_hex:
        return bytes.fromhex(given.key_hex)
    if given.data_keys:
        with suppress(FileNotFoundError):
            return bytes.fromhex((given.data_keys / f"{key_id}.hex").read_text().strip())
        raise LookupError
    for place in [given.keys] if given.keys else [p / "keys" for p in near.resolve().parents]:
        for record in [json.loads(f.read_text()) for f in sorted(place.glob(key_id + ".*json"))]:
            context = {"tidelog-key": key_id, "tidelog-repository": record["repository_id"]}
            associated = b"tidelog wrapped data key v1" + json.dumps(context).encode()
            for wrap in record["wraps"]:
                kek, sealed = kek_of(wrap["kek"], given), base64.b64decode(wrap["ciphertext"])
                with suppress(InvalidTag):
                    if kek is not None:
                        return AESGCM(kek).decrypt(sealed[:12], sealed[12:], associated)
    raise ValueError(f"no data key {key_id}: give --keys DIR/keys, or it is another key")


def kek_of(kek: dict[str, Any], given: argparse.Namespace) -> bytes | None:
    """The key that a wrap was made with, if it is of the kind that was given."""
    if kek["provider"] == "keyfile" and given.keyfile:
        return bytes.fromhex(given.keyfile.read_text().strip())
    if kek["provider"] == "passphrase" and given.passphrase_file:
        return stretched(given.passphrase_file, *(kek["options"][k] for k in ("salt", *"nrp")))
    return None


@cache
def stretched(file: Path, salt: str, n: int, r: int, p: int) -> bytes:
    """A passphrase made a key, which takes a while: once for all objects."""
    text, memory = file.read_text().strip().encode(), 128 * r * (n + p) + (1 << 20)
    return hashlib.scrypt(text, salt=bytes.fromhex(salt), n=n, r=r, p=p, maxmem=memory, dklen=32)


def head_of(data: bytes, path: Path) -> tuple[int, int, dict[str, Any]]:
    """The clear header, its length, and the number that it begins with."""
    with suppress(struct.error, ValueError, TypeError, KeyError):
        magic, length = struct.unpack_from("<II", data)
        head: dict[str, Any] = json.loads(data[8 : 8 + length])
        if magic == 0x184D2A5D and head["encryption"] is not None:
            return magic, length, head
    raise NotEncrypted(
        f"{path} does not begin as an object that Tidelog encrypted: give whole copies of the"
        " repository's *.enc, or directories of them"
    )


def decrypted(data: bytes, path: Path, given: argparse.Namespace) -> tuple[str, bytes]:
    """The key of an object, and the object as it would be if it were not encrypted."""
    magic, length, head = head_of(data, path)
    how = head["encryption"]
    start = 8 + length + how["clear_bytes"]
    sizes = [how["private_bytes"], *(stored for stored, _ in head["frames"])]
    salt, key = bytes.fromhex(how["salt"]), how["key"]
    parts, tail = path.resolve().parts, tuple(key.split("/"))
    wanted = tail if tail[0] in parts else tail[-1:]
    if parts[-len(wanted) :] != wanted:
        raise ValueError(f"it is another object: it was written as {key}")
    if how["algorithm"] != "AES-256-GCM" or start + sum(sizes) != len(data) or min(sizes) < 16:
        raise ValueError("it is not as long as its header says, or of an unknown kind")
    kdf = HKDF(SHA256(), 32, salt, b"tidelog object v2\0" + key.encode())
    cipher = AESGCM(kdf.derive(data_key(how["key_id"], given, path)))
    digest, found = hashlib.sha256(data[:start]).digest(), []
    for number, size in enumerate(sizes):
        nonce = struct.pack(">7xIB", number, number == len(sizes) - 1)
        found.append(cipher.decrypt(nonce, data[start : start + size], digest))
        start += size
    private, *frames = found
    if private:
        sizes_now = [[len(f), old[1]] for f, old in zip(frames, head["frames"], strict=True)]
        header = json.dumps({**json.loads(private), "frames": sizes_now}, separators=(",", ":"))
        private = struct.pack("<II", magic, len(header.encode())) + header.encode()
    return key.removesuffix(".enc"), b"".join([private, *frames])


def expanded(path: Path) -> bytes:
    """What a zstd file holds."""
    return subprocess.run(["zstd", "-dcq", str(path)], check=True, stdout=subprocess.PIPE).stdout


def dump(manifest: dict[str, Any], root: Path, to: Path) -> None:
    """One replica set's decrypted objects as mongodump would have written them."""
    written: dict[str, Path] = {}
    for c in manifest["catalogue"]:
        database, _, name = c["ns"].partition(".")
        written[c["uuid"]] = bson = to / database / (name.replace("/", "%2F") + ".bson")
        bson.parent.mkdir(parents=True, exist_ok=True)
        bson.write_bytes(b"")
        described = json.dumps({key: c[key] for key in ("options", "indexes", "uuid")})
        bson.with_suffix(".metadata.json").write_text(described)
    for item in manifest["objects"]:
        plain = expanded(root / item["key"].removesuffix(".enc"))
        for s in item["segments"]:
            with written[s["uuid"]].open("ab") as out:
                out.write(plain[s["offset"] : s["offset"] + s["length"]])
    with (to / "oplog.bson").open("ab") as oplog:
        for item in manifest["slices"]:
            oplog.write(expanded(root / item["key"].removesuffix(".enc")))


def decrypt(arguments: list[str] | None = None) -> dict[str, int]:
    """Decrypt all that is named; how many objects were, were skipped and failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    parser.add_argument("--key-hex", help="the data key; ps shows it: better a file")
    for name in ("data-keys", "passphrase-file", "keyfile", "keys", "to", "dump"):
        parser.add_argument(f"--{name}", type=Path)
    given, failed, skipped, done = parser.parse_args(arguments), 0, 0, []
    for path in (p for one in given.paths for p in (sorted(one.rglob("*.enc")) or [one])):
        try:
            if path.is_dir():
                raise NotEncrypted(f"{path} holds no *.enc: nothing in it is encrypted")
            key, plain = decrypted(path.read_bytes(), path, given)
            to = given.to / key if given.to else path.with_suffix("")
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(plain)
            done.append(to)
        except NotEncrypted as error:
            failed += 1
            sys.stderr.write(f"{error}\n")
        except (InvalidTag, OSError, ValueError, KeyError, TypeError, struct.error) as error:
            failed += 1
            sys.stderr.write(f"{path} is not what was written, or not for this key: {error!r}\n")
        except LookupError:
            skipped += 1
    for to in (to for to in done if given.dump and to.name.startswith("manifest-") and not failed):
        below = given.dump / to.parents[1].name / to.parent.name
        dump(json.loads(expanded(to)), to.parents[3], below)
    return {"decrypted": len(done), "skipped": skipped, "failed": failed}


def main() -> int:
    """The program; the exit status is 1 if anything failed."""
    found = decrypt()
    sys.stdout.write(", ".join(f"{count} {what}" for what, count in found.items()) + "\n")
    return 1 if found["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
