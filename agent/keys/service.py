"""The base of providers whose key is held by a key management service, and never leaves it.

What is common: a key that is made where none is named, an alias that is resolved once (what it
points to later is another key), what a policy keeps of the options, the state, the tag. What is
left to a provider is how its service is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Final, Generic, TypeVar

from pydantic import Field

from agent.errors import ConfigError, KeyUnusable, TidelogError
from agent.keys.base import Context, Options, ProviderOptions, fingerprint_of, parsed
from agent.storage.surroundings import Surroundings
from agent.wire.encryption import Kek, KeyDescription, KeyState, kek_id
from agent.wire.sealing import secrets_of

AUTO: Final = "auto"
"""In place of a key: have one made."""
PURPOSE: Final = "Wraps the data keys of Tidelog backups"
"""How a key that is made describes itself."""
TAG: Final = "tidelog-repository"


class ServiceOptions(ProviderOptions):
    """What all of them take."""

    key_id: str = Field(min_length=1)
    """A key id, an ARN, `alias/NAME`, or `auto`."""
    region: str | None = None
    endpoint_url: str | None = None
    insecure_skip_tls_verify: bool = False


T = TypeVar("T", bound=ServiceOptions)


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """What a service says of a key."""

    arn: str
    kept_id: str
    """How a policy's options name it."""
    state: KeyState
    deletion_at: datetime | None = None


class ServiceProvider(Generic[T]):
    """See the module. `looked_up`, `made`, `aliases`, `tag` and the three uses of the key are what
    a provider adds; all of them raise `KeyUnusable` or `KeyServiceUnavailable`."""

    name: ClassVar[str]
    gone: ClassVar[Sequence[str]]
    """Codes that the service answers with for a key that is not there."""

    def __init__(self, model: type[T], options: Options, surroundings: Surroundings) -> None:
        self.options = parsed(model, options, self.name)
        self.surroundings = surroundings
        for path, secret in secrets_of(self.options):
            if secret.is_literal:
                raise ConfigError(
                    f"{self.name}: {path} is a secret in clear, and would be stored",
                    hint="write {file: /PATH}, {env: NAME} or {credential: NAME}",
                )
        self._made: str | None = None

    async def looked_up(self) -> ServiceKey:
        """`DescribeKey`."""
        raise NotImplementedError

    async def made(self) -> str:
        """`CreateKey`; answers its id."""
        raise NotImplementedError

    async def aliases(self, key: ServiceKey) -> Sequence[str]:
        """The names of a key."""
        raise NotImplementedError

    async def tag(self, name: str, value: str) -> None:
        """Tag the key."""
        raise NotImplementedError

    async def generate(self, context: Context) -> tuple[bytes, bytes]:
        """See `KeyProvider`."""
        raise NotImplementedError

    async def wrap(self, data_key: bytes, context: Context) -> bytes:
        """See `KeyProvider`."""
        raise NotImplementedError

    async def unwrap(self, wrapped: bytes, context: Context) -> bytes:
        """See `KeyProvider`."""
        raise NotImplementedError

    @property
    def key(self) -> str:
        """As the service is asked for it."""
        return self._made or self.options.key_id

    @property
    def label(self) -> str:
        """For people."""
        return f"the {self.name} key {self.key}"

    async def kek(self) -> Kek:
        """See `KeyProvider`."""
        if self.key == AUTO:
            self._made = await self.made()
        found = await self.looked_up()
        kept = {**self.options.to_options(), "keyId": found.kept_id}
        given = self.options.key_id
        return Kek(
            id=kek_id(self.name, found.arn, found.arn),
            provider=self.name,
            key=found.arn,
            alias=given if given.startswith("alias/") else await self._alias(found),
            options={name: value for name, value in kept.items() if value not in (None, {})},
            fingerprint=fingerprint_of(found.arn.encode()),
            is_service=True,
        )

    async def _alias(self, key: ServiceKey) -> str | None:
        try:
            found = await self.aliases(key)
        except TidelogError:
            return None  # a name for people; not everybody may ask for it
        return found[0] if found else None

    async def describe(self) -> KeyDescription:
        """See `KeyProvider`."""
        try:
            found = await self.looked_up()
        except KeyUnusable as error:
            if any(code in str(error) for code in self.gone):
                return KeyDescription(state=KeyState.DELETED, key=self.key)
            return KeyDescription(state=KeyState.UNKNOWN, key=self.key, warnings=(str(error),))
        return KeyDescription(state=found.state, key=found.arn, deletion_at=found.deletion_at)

    async def mark(self, repository_id: str) -> str | None:
        """See `KeyProvider`."""
        try:
            await self.tag(TAG, repository_id)
        except TidelogError as error:
            return f"the key could not be tagged as in use: {error}"
        return None
