"""What the control database remembers of encrypted repositories: the second witness.

What holds is the policy on the storage. This copy is compared with it whenever somebody wants to
write: a storage whose policies are gone or are other ones is not written to. It is no authority:
where it is missing or older, it is made good from the storage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agent.errors import IntegrityError
from agent.store.connection import Control, translated
from agent.wire.collections import CONFIG
from agent.wire.encryption import KeyHealth, Policy, Witness

PREFIX: Final = "encryption/"
_HINT: Final = (
    "put the objects under encryption/ back as they were; nothing is written until then. "
    "docs/encryption.md says what to do after a storage was replaced on purpose"
)


class EncryptionStore:
    """One document a repository."""

    def __init__(self, control: Control) -> None:
        self._collection = control.collection(CONFIG)

    async def all(self) -> list[Witness]:
        """Every repository that is known to be encrypted."""
        with translated("reading what is known of encryption"):
            rows = await self._collection.find({"_id": {"$regex": f"^{PREFIX}"}}).to_list(None)
        return [Witness.model_validate(row) for row in rows]

    async def compare(self, address: str, policies: Sequence[Policy]) -> int:
        """Hold the policies of the repository at an address against what is remembered; answers
        how many of them are known. Raises `IntegrityError` where they are fewer, or others."""
        known = await self.all()
        if not policies:
            for witness in known:
                if witness.address == address:
                    raise IntegrityError(
                        f"the repository at {address} was encrypted, and its policies are gone",
                        hint=_HINT,
                    )
            return 0
        newest = policies[-1]
        found = next((w for w in known if w.policy.repository_id == newest.repository_id), None)
        here = [w for w in known if w.address == address and w is not found]
        if found is None:
            if here:
                raise IntegrityError(
                    f"the repository at {address} was {here[0].policy.repository_id}, and is "
                    f"{newest.repository_id} now",
                    hint=_HINT,
                )
            return 0
        number = found.policy.number
        if number > newest.number or policies[number - 1].sha256 != found.policy.sha256:
            raise IntegrityError(
                f"the encryption policy at {address} is not the one that this cluster knows",
                hint=_HINT,
            )
        if number == newest.number and found.address != address:
            await self.remember(address, newest)
        return number

    async def remember(self, address: str, policy: Policy) -> None:
        """The newest policy, which is proven, and where it was found."""
        id_ = f"{PREFIX}{policy.repository_id}"
        known = {witness.id: witness for witness in await self.all()}
        witness = known.get(id_) or Witness(id=id_, policy=policy)
        changed = witness.model_copy(update={"policy": policy, "address": address})
        with translated("noting the encryption of the repository"):
            await self._collection.delete_many(
                {"_id": {"$regex": f"^{PREFIX}", "$ne": id_}, "address": address}
            )
            await self._collection.replace_one({"_id": id_}, changed.to_json(), upsert=True)

    async def note(
        self, repository_id: str, keys: Sequence[KeyHealth], problem: str | None
    ) -> None:
        """Write down what a probe found; the server sets its time."""
        health = [key.to_json() for key in keys]
        with translated("noting the state of the keys"):
            await self._collection.update_one(
                {"_id": f"{PREFIX}{repository_id}"},
                [
                    {"$set": {"keys": {"$literal": health}, "probed_at": "$$NOW"}},
                    {"$set": {"problem": {"$literal": problem}}},
                ],
            )
