"""`ctl storage adopt`: this cluster becomes the owner of the repository that a profile leads to."""

from __future__ import annotations

from typing import Any

from agent.operations.context import LeadContext, PartContext
from agent.operations.repository import adopt, claimed
from agent.wire.operations import Kind, Operation
from agent.wire.specs import AdoptSpec


class AdoptKind:
    """All by the lead."""

    kind = Kind.ADOPT

    async def choose(self, lead: LeadContext, operation: Operation) -> list[str]:
        """Nothing to choose."""
        return []

    async def advance(self, lead: LeadContext, operation: Operation) -> None:
        """No parts."""

    async def work(self, part: PartContext) -> dict[str, Any]:
        """No parts."""
        raise NotImplementedError

    async def finish(self, lead: LeadContext, operation: Operation) -> dict[str, Any]:
        """Adopt; once it is ours, doing so again changes nothing."""
        spec = AdoptSpec.from_document(operation.spec)
        services = lead.services
        storage = await services.open_storage(lead.settings, spec.profile)
        try:
            lead.lease.check()
            repository, former = await adopt(storage, services.cluster_id, spec.owner)
            await claimed(services, lead.settings, spec.profile, storage)
            return {
                "profile": spec.profile,
                "storage_path": storage.address,
                "repository_id": repository,
                "former_owner": former,
                "owner": services.cluster_id,
            }
        finally:
            await storage.aclose()
