"""Literal secrets are sealed before they are stored, or refused: none lies in clear in a database.

Sealed with AES-256-GCM under a key that every agent and whoever runs `ctl config` reads from a file
of its own (`TIDELOG_SECRET_KEY_FILE`); see docs/decisions/0007. Pure functions: who calls them has
read the file.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, TypeVar

from pydantic import BaseModel

from agent.errors import ConfigError
from agent.wire.secrets import LITERAL, SEALED, Plain, Secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_FILE_VARIABLE: Final = "TIDELOG_SECRET_KEY_FILE"
MIN_KEY_CHARACTERS: Final = 32
_PURPOSE: Final = b"tidelog sealed setting v1"
_NONCE_BYTES: Final = 12

Record = TypeVar("Record", bound=BaseModel)


class SealingKey:
    """The key of a cluster's sealed settings, made of the text in a file."""

    def __init__(self, text: str) -> None:
        stripped = text.strip()
        if len(stripped) < MIN_KEY_CHARACTERS:
            raise ConfigError(
                f"the key for sealed secrets has {len(stripped)} characters, fewer than "
                f"{MIN_KEY_CHARACTERS}",
                hint="make one with: openssl rand -base64 32",
            )
        self._key = hashlib.blake2b(stripped.encode(), key=_PURPOSE, digest_size=32).digest()
        self.fingerprint = hashlib.sha256(b"fingerprint" + self._key).hexdigest()[:12]

    def __repr__(self) -> str:
        return f"SealingKey({self.fingerprint})"

    def seal(self, secret: Secret, nonce: bytes) -> Secret:
        """A literal as it may be stored; anything else as it is. A nonce is used once."""
        if not secret.is_literal:
            return secret
        box = self._cipher().encrypt(nonce, secret.value.encode(), _PURPOSE)
        text = base64.b64encode(nonce + box).decode()
        return Secret(SEALED, f"v1:{self.fingerprint}:{text}")

    def open(self, secret: Plain) -> str:
        """What was sealed. Raises `ConfigError` for another key or a changed text."""
        from cryptography.exceptions import InvalidTag

        version, _, rest = secret.value.partition(":")
        fingerprint, _, text = rest.partition(":")
        if version != "v1":
            raise ConfigError("a secret of the settings is sealed in an unknown way")
        if fingerprint != self.fingerprint:
            raise ConfigError(
                f"a secret of the settings is sealed with key {fingerprint}, and this host has "
                f"key {self.fingerprint}",
                hint=f"give all agents the same {KEY_FILE_VARIABLE}",
            )
        try:
            data = base64.b64decode(text, validate=True)
            plain = self._cipher().decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], _PURPOSE)
        except (ValueError, InvalidTag) as error:
            raise ConfigError("a sealed secret of the settings was changed or cut") from error
        return plain.decode()

    def _cipher(self) -> AESGCM:
        # Imported when it is needed: it is heavy, and most settings hold references only.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self._key)


def storable(record: Record, key: SealingKey | None, random: Callable[[int], bytes]) -> Record:
    """The settings with every literal secret sealed. Raises `ConfigError` where there is no key."""
    found = [path for path, secret in secrets_of(record) if secret.kind == LITERAL]
    if not found:
        return record
    if key is None:
        raise ConfigError(
            f"{found[0]} is a secret in clear, which is never stored in the database",
            hint="write {file: /PATH} or {env: NAME}, to be read on each agent's host; or set "
            f"{KEY_FILE_VARIABLE} here and for every agent to a file of 'ctl genkey', to have it "
            "sealed",
        )
    return _replaced(record, lambda secret: key.seal(secret, random(_NONCE_BYTES)))


def secrets_of(record: BaseModel, path: str = "") -> Iterator[tuple[str, Secret]]:
    """Every secret with its dotted path."""
    for name, field in type(record).model_fields.items():
        value = getattr(record, name)
        here = f"{path}.{field.alias or name}" if path else field.alias or name
        if isinstance(value, Secret):
            yield here, value
        elif isinstance(value, BaseModel):
            yield from secrets_of(value, here)
        elif isinstance(value, dict):
            for key, inner in value.items():
                if isinstance(inner, BaseModel):
                    yield from secrets_of(inner, f"{here}.{key}")


def _replaced(record: Record, change: Callable[[Secret], Secret]) -> Record:
    updates: dict[str, object] = {}
    for name in record.model_fields_set:
        value = getattr(record, name)
        if isinstance(value, Secret):
            updates[name] = change(value)
        elif isinstance(value, BaseModel):
            updates[name] = _replaced(value, change)
        elif isinstance(value, dict):
            updates[name] = {
                key: _replaced(inner, change) if isinstance(inner, BaseModel) else inner
                for key, inner in value.items()
            }
    return record.model_copy(update=updates)
