"""`ctl verify --restore`: the backup is restored into scratch servers, which then are asked.

What is wrong is a finding, recorded beside the backup, and no error of the operation. A backup of a
sharded cluster is proved when every replica set's share is; a shard is not looked at where the
config servers' share cannot be restored, since what belongs to it is not known then. An agent that
takes over begins anew: a scratch server does not outlive its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from agent.errors import IntegrityError, NotFound, RestoreFailed
from agent.operations.context import LeadContext, PartContext
from agent.operations.copies import profile_of
from agent.operations.reading import Steps, check_stays, one_part, result_of
from agent.operations.scratch.place import Place
from agent.operations.scratch.restoring import Restored, Scratch, planned
from agent.operations.verification.asking import Share
from agent.wire.operations import Kind, Operation
from agent.wire.specs import ProveSpec, RestoreSpec
from agent.wire.verdicts import MAX_PROBLEMS, Level, Verdict

_NAMED: Final = 200
"""Problems that the result names; the rest is counted."""


class ProveKind:
    """Proofs by scratch servers, one backup each."""

    kind = Kind.PROVE

    def __init__(self, place: Place) -> None:
        self._place = place

    async def choose(self, lead: LeadContext, operation: Operation) -> list[str]:
        """The backup must exist, not be about to go, and an agent be able to start a server."""
        spec = ProveSpec.from_document(operation.spec)
        await check_stays(lead, spec.name, spec.time)
        return await one_part(lead, operation)

    async def advance(self, lead: LeadContext, operation: Operation) -> None:
        """One part needs nobody."""

    async def work(self, part: PartContext) -> dict[str, Any]:
        """Restore, ask, record."""
        spec = ProveSpec.from_document(part.operation.spec)
        backup = await part.services.catalog.backup(spec.name)
        self._place.root()
        self._place.program()
        profile = await profile_of(part.services, part.settings, backup, spec.profile)
        wanted = RestoreSpec(backup=spec.name, time=spec.time, profile=profile)
        log = part.log.bind(backup=spec.name)
        shares: list[Share] = []
        failure: list[str] = []
        try:
            async with planned(part, self._place, wanted, profile) as scratch:
                shares = [Share(plan) for plan in scratch.plans]
                await prove_shares(part, scratch, shares)
        except (IntegrityError, RestoreFailed, NotFound) as error:
            failure.append(str(error))
        verdict = judged(shares, backup.proof, failure)
        part.lease.check()
        await part.services.catalog.record_verdict(spec.name, verdict)
        if verdict.is_sound:
            log.info("verify.proved", recovery_s=verdict.recovery_s)
        else:
            log.error("verify.harmed", harmed=verdict.harmed)
        return {
            "backup": spec.name,
            "node": part.services.node.id,
            "harmed": verdict.harmed,
            **verdict.to_json(),
            "problems": [*failure, *_problems(shares)][:_NAMED],
        }

    async def finish(self, lead: LeadContext, operation: Operation) -> dict[str, Any]:
        """What was found."""
        return result_of(operation)


async def prove_shares(part: PartContext, scratch: Scratch, shares: Sequence[Share]) -> None:
    """Restore and ask all of them, the first one's server beside the others."""
    first, *others = shares
    with first.noting():
        async with scratch.restored(first.plan) as found:
            await _ask(part, first, found)
            for share in others:
                with share.noting():
                    async with scratch.restored(share.plan, routing=found) as of_shard:
                        await _ask(part, share, of_shard)


async def _ask(part: PartContext, share: Share, found: Restored) -> None:
    steps = Steps(part)
    await steps.during(partial(share.ask, found, steps), what="asking the scratch mongod")


def _problems(shares: Sequence[Share]) -> list[str]:
    return [problem for share in shares for problem in share.problems]


def judged(
    shares: Sequence[Share], earlier: Verdict | None, failure: Sequence[str] = ()
) -> Verdict:
    """What all of them come to, compared with an earlier proof, as the catalogue keeps it; with a
    `failure` none could be restored. Times and moments only where every share was."""
    for share in shares:
        share.compare(earlier)
    problems = [*failure, *_problems(shares)]
    records = [record for share in shares if (record := share.to_record()) is not None]
    is_whole = bool(shares) and len(records) == len(shares)
    is_sharded = any(share.plan.topology.is_sharded for share in shares)
    return Verdict(
        level=Level.PROVED,
        objects=sum(len(s.plan.manifest.objects) + len(s.plan.slices) for s in shares),
        problems=tuple(problems[:MAX_PROBLEMS]),
        harmed=len(problems),
        recovery_s=max(record.recovery_s for record in records) if is_whole else None,
        proved_at=shares[0].plan.until if is_whole else None,
        collections=sum(record.collections for record in records),
        documents=sum(record.documents for record in records),
        hashes=records[0].hashes if records and not is_sharded else {},
        shares=tuple(records) if is_sharded else (),
    )
