"""`passphrase`: a text that people know, stretched by scrypt to a key.

scrypt (RFC 7914) costs 64 MiB and half a second for each guess, so that a passphrase
of a person's stands against whoever has copied the storage. The salt is made when encryption is
enabled and lies in the policy; the passphrase never does.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import Any, Final, Self

from pydantic import Field, model_validator

from agent.errors import ConfigError
from agent.keys.base import KeyProvider, LocalProvider, Options, ProviderOptions, parsed
from agent.storage.surroundings import Surroundings
from agent.wire.encryption import KEY_BYTES
from agent.wire.secrets import Secret

NAME: Final = "passphrase"
MIN_CHARACTERS: Final = 12
MAX_MEMORY_BYTES: Final = 256 << 20
"""What stretching may take; the parameters of a policy are obeyed, but not into the ground."""
_SALT_BYTES: Final = 16
_MEMORY_MARGIN: Final = 1 << 20

_stretched: dict[tuple[str, str, int, int, int], bytes] = {}
"""Of this process: what takes a while is done once for a passphrase."""
_STRETCHED_AT_MOST: Final = 16


class PassphraseOptions(ProviderOptions):
    """Options of this provider."""

    passphrase: Secret
    """A reference: `{file: /PATH}`, `{env: NAME}` or `{credential: NAME}`."""
    salt: str | None = Field(default=None, pattern=r"^[0-9a-f]{32,}$")
    n: int = Field(default=1 << 16, ge=1 << 14, le=1 << 20)
    r: int = Field(default=8, ge=8, le=32)
    p: int = Field(default=2, ge=1, le=16)

    @model_validator(mode="after")
    def _is_bounded(self) -> Self:
        if 128 * self.n * self.r > MAX_MEMORY_BYTES:
            raise ValueError(f"n and r take more than {MAX_MEMORY_BYTES >> 20} MiB")
        return self


class PassphraseProvider(LocalProvider):
    """See the module."""

    name = NAME

    def __init__(self, options: Options, surroundings: Surroundings) -> None:
        super().__init__(options, surroundings)
        given = parsed(PassphraseOptions, options, NAME)
        if given.passphrase.is_literal:
            raise ConfigError(
                "passphrase: the passphrase itself would be stored",
                hint="write {file: /PATH}, {env: NAME} or {credential: NAME}",
            )
        salt = given.salt or os.urandom(_SALT_BYTES).hex()
        self._options = given.model_copy(update={"salt": salt})
        self._salt = salt
        self.label = f"from {given.passphrase.source}"

    def kept_options(self) -> dict[str, Any]:
        """With the salt."""
        return self._options.to_options()

    async def key(self) -> bytes:
        """The stretched passphrase."""
        text = self.surroundings.secrets.text(self._options.passphrase).strip()
        if len(text) < MIN_CHARACTERS:
            raise ConfigError(
                f"the passphrase {self.label} has {len(text)} characters, fewer than "
                f"{MIN_CHARACTERS}",
                hint="'ctl genkey' makes one",
            )
        options = self._options
        known = (text, self._salt, options.n, options.r, options.p)
        if known not in _stretched:
            made = await asyncio.to_thread(_stretch, *known)
            if len(_stretched) >= _STRETCHED_AT_MOST:
                _stretched.clear()
            _stretched[known] = made
        return _stretched[known]


def _stretch(text: str, salt: str, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(
        text.encode(),
        salt=bytes.fromhex(salt),
        n=n,
        r=r,
        p=p,
        maxmem=128 * r * (n + p) + _MEMORY_MARGIN,
        dklen=KEY_BYTES,
    )


def open_provider(options: Options, surroundings: Surroundings) -> KeyProvider:
    """See `agent.keys.base`."""
    return PassphraseProvider(options, surroundings)
