"""Values that may be given by reference: in clear, or as where an agent finds them.

    secretAccessKey: {env: AWS_KEY}                 the agent's environment, read when it is used
    secretAccessKey: {file: /etc/tidelog/aws-key}   a file, read again when it changes
    secretAccessKey: {name: aws-creds, key: SECRET} <secrets directory>/aws-creds/SECRET
    secretAccessKey: {credential: aws-key}          a systemd credential of the agent's unit
    secretAccessKey: wJalrXUtn…                     a literal

A `Secret` prints as `***` however it is printed; a literal one is never serialised, so it cannot be
stored by mistake: `agent.wire.sealing` refuses or seals it first. A `Plain` is no secret (the id of
an access key, a certificate) but may be given by reference all the same. Who resolves references:
`agent.storage.secrets`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

MASK: Final = "***"
LITERAL: Final = "literal"
ENV: Final = "env"
FILE: Final = "file"
CREDENTIAL: Final = "credential"
SEALED: Final = "sealed"
MOUNTED: Final = "mounted"
_FORMS: Final = "write {env: NAME} or {file: /PATH}"


@dataclass(frozen=True, slots=True, repr=False)
class Plain:
    """A text in clear or by reference."""

    kind: str
    value: str

    @classmethod
    def parse(cls, written: Any) -> Self:
        """Raises `ValueError` that never repeats what was written."""
        if isinstance(written, cls):
            return written
        if isinstance(written, str):
            if written == MASK:
                raise ValueError(f"{MASK} only stands for a secret when shown; {_FORMS}")
            if not written:
                raise ValueError(f"is empty; {_FORMS}, or leave the key out")
            return cls(LITERAL, written)
        if isinstance(written, Mapping):
            return cls._of_mapping({str(key): value for key, value in written.items()})
        raise ValueError(f"is no text; write it in quotes, or {_FORMS}")

    @classmethod
    def _of_mapping(cls, written: Mapping[str, Any]) -> Self:
        if not all(isinstance(value, str) and value for value in written.values()):
            raise ValueError(f"is no reference; {_FORMS}")
        if set(written) == {"name", "key"}:
            parts = (written["name"], written["key"])
            if any("/" in part or part.startswith(".") for part in parts):
                raise ValueError("name and key of a mounted secret must be plain file names")
            return cls(MOUNTED, "/".join(parts))
        if len(written) == 1:
            ((kind, value),) = written.items()
            if kind == FILE and not value.startswith("/"):
                raise ValueError("the file of a reference must be an absolute path")
            if kind == CREDENTIAL and ("/" in value or value.startswith(".")):
                raise ValueError("the name of a systemd credential must be a plain file name")
            if kind in (ENV, FILE, CREDENTIAL, SEALED):
                return cls(kind, value)
        raise ValueError(f"is no reference; {_FORMS}")

    @property
    def is_literal(self) -> bool:
        """Whether the value itself is held."""
        return self.kind == LITERAL

    @property
    def source(self) -> str:
        """Where the value comes from, for people; never the value."""
        if self.kind == ENV:
            return f"environment variable {self.value}"
        if self.kind == FILE:
            return f"file {self.value}"
        if self.kind == CREDENTIAL:
            return f"systemd credential {self.value}"
        if self.kind == MOUNTED:
            return f"mounted secret {self.value}"
        return "the settings, sealed" if self.kind == SEALED else "the settings"

    def to_plain(self) -> Any:
        """As stored and shown."""
        if self.kind == MOUNTED:
            name, _, key = self.value.partition("/")
            return {"name": name, "key": key}
        return self.value if self.is_literal else {self.kind: self.value}

    def __str__(self) -> str:
        return str(self.to_plain())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse,
            serialization=core_schema.plain_serializer_function_ser_schema(cls.to_plain),
        )


@dataclass(frozen=True, slots=True, repr=False)
class Secret(Plain):
    """A `Plain` that nobody may see."""

    def to_plain(self) -> Any:
        """A reference as it is, `***` for a literal: it has to be sealed to be stored."""
        return MASK if self.is_literal else Plain.to_plain(self)

    def __str__(self) -> str:
        return MASK if self.kind in (LITERAL, SEALED) else Plain.__str__(self)
