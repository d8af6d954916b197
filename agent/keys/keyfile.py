"""`keyfile`: a key of 256 bits in a file, as 64 hexadecimal characters (`ctl genkey`)."""

from __future__ import annotations

import re
from typing import Any, Final

from agent.errors import ConfigError
from agent.keys.base import KeyProvider, LocalProvider, Options, ProviderOptions, parsed
from agent.storage.surroundings import Surroundings
from agent.wire.secrets import Secret

NAME: Final = "keyfile"
_HEX_KEY: Final = re.compile(r"[0-9a-fA-F]{64}")


class KeyfileOptions(ProviderOptions):
    """Options of this provider."""

    keyfile: Secret
    """A reference: `{file: /PATH}`, `{env: NAME}` or `{credential: NAME}`."""


class KeyfileProvider(LocalProvider):
    """See the module."""

    name = NAME

    def __init__(self, options: Options, surroundings: Surroundings) -> None:
        super().__init__(options, surroundings)
        self._options = parsed(KeyfileOptions, options, NAME)
        if self._options.keyfile.is_literal:
            raise ConfigError(
                "keyfile: the key itself would be stored",
                hint="write {file: /PATH}, {env: NAME} or {credential: NAME}",
            )
        self.label = f"from {self._options.keyfile.source}"

    def kept_options(self) -> dict[str, Any]:
        """Where the key is read."""
        return self._options.to_options()

    async def key(self) -> bytes:
        """The bytes of the file's text."""
        text = self.surroundings.secrets.text(self._options.keyfile).strip()
        if not _HEX_KEY.fullmatch(text):
            raise ConfigError(
                f"the key {self.label} is not 64 hexadecimal characters",
                hint="'ctl genkey' makes one",
            )
        return bytes.fromhex(text)


def open_provider(options: Options, surroundings: Surroundings) -> KeyProvider:
    """See `agent.keys.base`."""
    return KeyfileProvider(options, surroundings)
