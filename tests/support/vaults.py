"""An encrypted repository in memory, with a key file that a test may change or take away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from agent.archive.authority import new_authority, signed, wrap_of
from agent.archive.keyring import Custody
from agent.archive.policies import write_policy
from agent.archive.vault import VaultStorage, write_for
from agent.keys.base import KeyProvider
from agent.keys.registry import open_provider
from agent.storage.memory import MemoryObjects, MemoryStorage
from agent.storage.surroundings import Surroundings
from agent.wire.encryption import CensusRef, KeyHealth, Policy
from tests.support.manual_clock import ManualClock

NOW = datetime(2026, 11, 22, tzinfo=UTC)
FIRST, SECOND = "ab" * 32, "cd" * 32


@dataclass
class Remembered:
    """A control database that agrees with everything."""

    problem: str | None = None
    keys: Sequence[KeyHealth] = ()

    known: list[Policy] = field(default_factory=list)

    async def compare(self, address: str, policies: Sequence[Policy]) -> int:
        """Nothing is known that could differ but what was proven before."""
        return len([policy for policy in policies if policy in self.known])

    async def remember(self, address: str, policy: Policy) -> None:
        """Kept."""
        self.known.append(policy)

    async def note(
        self, repository_id: str, keys: Sequence[KeyHealth], problem: str | None
    ) -> None:
        """Kept for the test."""
        self.keys, self.problem = keys, problem


@dataclass
class Vaults:
    """The objects of one repository, and what the agent around it has."""

    objects: MemoryObjects = field(default_factory=MemoryObjects)
    environment: dict[str, str] = field(default_factory=lambda: {"KEY": FIRST, "OTHER": SECOND})
    clock: ManualClock = field(default_factory=ManualClock)
    remembered: Remembered = field(default_factory=Remembered)
    authority: bytes = b""
    opened: list[VaultStorage] = field(default_factory=list)
    policies_seen: dict[str, int] = field(default_factory=dict)
    """By the one agent that opens them all."""

    @property
    def around(self) -> Surroundings:
        """With the environment as it is now."""
        return Surroundings(environment=self.environment, clock=self.clock)

    async def open(self) -> VaultStorage:
        """The storage, as an agent opens it."""

        async def now() -> datetime:
            return NOW

        inner = await MemoryStorage.open(self.objects)
        custody = Custody(self.around, self.clock, now, self.remembered, self.policies_seen)
        self.opened.append(VaultStorage(inner, custody))
        return self.opened[-1]

    async def aclose(self) -> None:
        """Close all that were opened: their providers hold connections."""
        for storage in self.opened:
            await storage.aclose()

    async def policy(
        self, *names: str, before: Policy | None = None, census: CensusRef | None = None
    ) -> Policy:
        """Write a policy with the keys of these variables."""
        providers = [
            open_provider("keyfile", {"keyfile": {"env": name}}, self.around)
            for name in names or ("KEY",)
        ]
        return await self.policy_of(*providers, before=before, census=census)

    async def policy_of(
        self,
        *providers: KeyProvider,
        before: Policy | None = None,
        census: CensusRef | None = None,
    ) -> Policy:
        """Write a policy with these keys."""
        keks = [await provider.kek() for provider in providers]
        if before is None:
            self.authority, record = await new_authority(providers[0], keks[0], "r1", NOW)
        else:
            record = before.authority
        for provider, kek in zip(providers, keks, strict=True):
            if kek.id not in {wrap.kek.id for wrap in record.wraps}:
                wrap = wrap_of(kek, await provider.wrap(self.authority, record.context))
                record = record.model_copy(update={"wraps": (*record.wraps, wrap)})
        known = {kek.id for kek in keks}
        policy = Policy(
            number=before.number + 1 if before else 1,
            repository_id="r1",
            keks=tuple(keks),
            retired=tuple(k for k in before.all_keks if k.id not in known) if before else (),
            created_at=NOW,
            since=NOW,
            previous_sha256=before.sha256 if before else None,
            authority=record,
            census=before.census if before else census,
        )
        policy = signed(policy, self.authority)
        await write_policy(await MemoryStorage.open(self.objects), policy)
        return policy

    async def writing(self, owner: str = "op") -> VaultStorage:
        """The storage, open for an encrypted backup."""
        storage = await self.open()
        await write_for(storage, "backup", owner)
        return storage
