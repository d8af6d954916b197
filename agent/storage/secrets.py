"""Where references to secrets lead: the environment, files, mounted secrets, sealed settings.

A file is looked at each time its value is asked for and read again when it changed, so that a
rotated key is used by the next request. What is read stays in memory and goes into no message.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.errors import ConfigError
from agent.wire.sealing import KEY_FILE_VARIABLE, SealingKey
from agent.wire.secrets import CREDENTIAL, ENV, FILE, MOUNTED, SEALED, Plain

DIRECTORY_VARIABLE: Final = "TIDELOG_SECRETS_DIRECTORY"
CREDENTIALS_VARIABLE: Final = "CREDENTIALS_DIRECTORY"
"""Set by systemd for a unit with `LoadCredential=`."""
DEFAULT_DIRECTORY: Final = "/etc/tidelog/secrets"
MAX_BYTES: Final = 1 << 20

_Stamp = tuple[int, int, int]


@dataclass
class SecretReader:
    """Turns references into values, on one host."""

    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    _seen: dict[Path, tuple[_Stamp, str]] = field(default_factory=dict, repr=False)

    def text(self, value: Plain) -> str:
        """The value. Raises `ConfigError` that says where it should have been."""
        if value.kind == ENV:
            found = self.environment.get(value.value, "")
            if not found:
                raise ConfigError(
                    f"the environment variable {value.value} is not set for this agent",
                    hint="set it where the agent is started, and restart the agent",
                )
            return found
        if value.kind == FILE:
            return self.filled(Path(value.value))
        if value.kind == MOUNTED:
            return self.filled(self._directory() / value.value)
        if value.kind == CREDENTIAL:
            return self.filled(self._credentials() / value.value)
        if value.kind == SEALED:
            return self._sealing_key().open(value)
        return value.value

    def optional(self, value: Plain | None) -> str | None:
        """The same where it may be missing."""
        return None if value is None else self.text(value)

    def mounted(self, value: Plain | None) -> str | None:
        """The same of an entry of a mounted secret, which may have no such entry."""
        if value is None or not (self._directory() / value.value).exists():
            return None
        return self.text(value)

    def file(self, path: Path) -> str:
        """A text file without the white space around it, read again when it changed. Raises
        `ConfigError`."""
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            known = self._seen.get(path)
            if known is not None and known[0] == stamp:
                return known[1]
            if status.st_size > MAX_BYTES:
                raise ConfigError(f"the file {path} is too large for a secret")
            text = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise ConfigError(
                f"a secret cannot be read from {path}: {reason}",
                hint="the file must be there, readable by the agent's user, on every agent's host",
            ) from error
        self._seen[path] = (stamp, text)
        return text

    def filled(self, path: Path) -> str:
        """The same of a file that must not be empty."""
        text = self.file(path)
        if not text:
            raise ConfigError(f"the file {path} should hold a secret and is empty")
        return text

    def _directory(self) -> Path:
        return Path(self.environment.get(DIRECTORY_VARIABLE) or DEFAULT_DIRECTORY)

    def _credentials(self) -> Path:
        found = self.environment.get(CREDENTIALS_VARIABLE)
        if not found:
            raise ConfigError(
                f"{CREDENTIALS_VARIABLE} is not set: this agent was given no systemd credentials",
                hint="add LoadCredential=NAME:/PATH to the agent's unit, and restart it",
            )
        return Path(found)

    def _sealing_key(self) -> SealingKey:
        path = self.environment.get(KEY_FILE_VARIABLE)
        if not path:
            raise ConfigError(
                f"the settings hold a sealed secret, and {KEY_FILE_VARIABLE} is not set",
                hint="give this agent the key file that the settings were sealed with",
            )
        return SealingKey(self.file(Path(path)))
