"""A further key provider, to prove that one takes a file: `one-file`, whose service is a dictionary
of this process. Everything a provider has to say is here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from agent.errors import KeyUnusable
from agent.keys.base import Context, KeyProvider, Options, new_data_key
from agent.keys.base import unwrap_locally as unseal
from agent.keys.base import wrap_locally as seal
from agent.keys.service import ServiceKey, ServiceOptions, ServiceProvider
from agent.storage.surroundings import Surroundings
from agent.wire.encryption import KEY_BYTES, KeyState

NAME: Final = "one-file"


@dataclass
class Held:
    """A key, as the service has it."""

    key: bytes = field(default_factory=lambda: os.urandom(KEY_BYTES))
    state: KeyState = KeyState.ENABLED
    is_denied: bool = False
    tags: dict[str, str] = field(default_factory=dict)


SERVICE: Final[dict[str, Held]] = {}


class OneFileProvider(ServiceProvider[ServiceOptions]):
    """See the module."""

    name = NAME
    gone = ("NoSuchKey",)

    def __init__(self, options: Options, surroundings: Surroundings) -> None:
        super().__init__(ServiceOptions, options, surroundings)

    async def looked_up(self) -> ServiceKey:
        """See `ServiceProvider`."""
        return ServiceKey(arn=f"here:{self.key}", kept_id=self.key, state=self._held().state)

    async def made(self) -> str:
        """See `ServiceProvider`."""
        name = f"key{len(SERVICE)}"
        SERVICE[name] = Held()
        return name

    async def aliases(self, key: ServiceKey) -> Sequence[str]:
        """See `ServiceProvider`."""
        return ()

    async def tag(self, name: str, value: str) -> None:
        """See `ServiceProvider`."""
        self._held().tags[name] = value

    async def generate(self, context: Context) -> tuple[bytes, bytes]:
        """See `KeyProvider`."""
        made = new_data_key()
        return made, await self.wrap(made, context)

    async def wrap(self, data_key: bytes, context: Context) -> bytes:
        """See `KeyProvider`."""
        return seal(self._used().key, data_key, context)

    async def unwrap(self, wrapped: bytes, context: Context) -> bytes:
        """See `KeyProvider`."""
        return unseal(self._used().key, wrapped, context, self.label)

    async def aclose(self) -> None:
        """See `KeyProvider`."""

    def _held(self) -> Held:
        if self.key not in SERVICE:
            raise KeyUnusable(f"cannot use {self.label}: NoSuchKey")
        held = SERVICE[self.key]
        if held.is_denied:
            raise KeyUnusable(f"cannot use {self.label}: access is denied")
        return held

    def _used(self) -> Held:
        held = self._held()
        if held.state is not KeyState.ENABLED:
            raise KeyUnusable(f"cannot use {self.label}: it is {held.state.value}")
        return held


def open_provider(options: Options, surroundings: Surroundings) -> KeyProvider:
    """See `agent.keys.base`."""
    return OneFileProvider(options, surroundings)
