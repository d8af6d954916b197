"""`ctl oplog-replay`: what was archived in a span, applied to the data as it is.

The catalogue that a replay needs is that of the target here (`agent.operations.restore.beginning`).
What the target looked like at the beginning is stored in the repository before anything is
applied, since whoever takes over must begin with the same. Indexes exist while operations are
applied, so these keep their order as a whole; index commands of the span take effect at the end.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from agent.archive.layout import replay_base_key
from agent.archive.manifest import CollectionEntry, SliceRef
from agent.archive.objects import get_json, put_json
from agent.archive.vault import stored_name, write_for
from agent.errors import ConfigError, ObjectExists, ObjectNotFound, Refused
from agent.mongo.apply.probe import check_privileges
from agent.operations.balancing import let_go
from agent.operations.context import LeadContext, PartContext
from agent.operations.removal.plan import check_not_doomed
from agent.operations.restore.across import WARNINGS, Share, choose_across, part_across
from agent.operations.restore.beginning import Beginning, beginning_at
from agent.operations.restore.creating import create_marker
from agent.operations.restore.describing import described_replay, source_of
from agent.operations.restore.finishing import build_indexes, clean_up, drop_indexes, set_expiry
from agent.operations.restore.further import further_slices
from agent.operations.restore.job import Base, Job, Tally, Tuning
from agent.operations.restore.owning import keep_own_of
from agent.operations.restore.pace import Pace
from agent.operations.restore.preflight import check_chain, check_commands, prove_objects
from agent.operations.restore.replaying import replay
from agent.operations.restore.reporting import reporting
from agent.operations.restore.state import Stage, State, StateKeeper
from agent.operations.restore.timeline import begin_timeline
from agent.operations.restore.together import await_stage
from agent.operations.restore.work import BUILDERS
from agent.replay.catalogue import Catalogue, Collection
from agent.replay.coverage import Coverage
from agent.replay.scope import Scope
from agent.storage.base import Storage
from agent.wire.namespaces import Selection
from agent.wire.operations import Kind, Operation
from agent.wire.optime import OpTime
from agent.wire.profiles import MAIN
from agent.wire.retention import REPLAY_BASE, REPLAY_LOOK_BACK_S
from agent.wire.specs import OplogReplaySpec

PLAN: Final = "plan"
"""Field of a part's result, after a dry run."""
_SCOPE: Final = Scope(Selection(users_and_roles=False))


class OplogReplayKind:
    """Replays archived oplog onto live data."""

    kind = Kind.OPLOG_REPLAY

    async def choose(self, lead: LeadContext, operation: Operation) -> list[str]:
        """The span must be covered without a hole."""
        spec = OplogReplaySpec.from_document(operation.spec)
        if spec.start >= spec.end:
            raise ConfigError(f"the span from {spec.start} to {spec.end} is empty")
        if lead.services.cluster.is_sharded:
            return await choose_across(lead, operation)
        target = lead.services.node.replset
        if others := set(spec.replset_remapping.values()) - {target}:
            raise Refused(
                f"there is no replica set {min(others)} here",
                hint=f"the replica set here is {target}",
            )
        storage = await lead.services.open_storage(lead.settings, MAIN)
        try:
            slices = await _slices(storage, spec, target)
        finally:
            await storage.aclose()
        check_chain(slices, spec.start, spec.end)
        check_commands(slices)
        active = await lead.services.operations.active()
        check_not_doomed(active, backup=None, slices_after=spec.start)
        return [] if spec.dry_run else [target]

    async def advance(self, lead: LeadContext, operation: Operation) -> None:
        """Parts do not wait for each other."""

    async def work(self, part: PartContext) -> dict[str, Any]:
        """Replay onto this replica set, or go on where another worker stopped."""
        spec = OplogReplaySpec.from_document(part.operation.spec)
        if part.services.node.is_sharded:
            async with part_across(part, spec) as share:
                return await _Work(part, spec, share).run()
        storage = await part.services.open_storage(part.settings, MAIN)
        try:
            slices = await _slices(storage, spec, part.replset)
            return await _Work(part, spec, Share(storage, slices)).run()
        finally:
            await storage.aclose()

    async def finish(self, lead: LeadContext, operation: Operation) -> dict[str, Any]:
        """Nothing is published: the parts say what was done; or answer the plan that a dry run is
        for."""
        spec = OplogReplaySpec.from_document(operation.spec)
        span = {"start": spec.start.to_json(), "restored_to": spec.end.to_json()}
        if REPLAY_BASE in operation.result:
            # Of a sharded cluster: each part has asked its own node.
            await let_go(lead.services, operation.id)
            plans = [part.result[PLAN] for part in operation.parts if PLAN in part.result]
            return {**span, "plan": {"replsets": plans}} if spec.dry_run else span
        if not spec.dry_run:
            return span
        storage = await lead.services.open_storage(lead.settings, MAIN)
        try:
            node = lead.services.node
            slices = await _slices(storage, spec, node.replset)
            check_chain(slices, spec.start, spec.end)
            plan = await described_replay(node, storage, spec, slices)
        finally:
            await storage.aclose()
        return {**span, "plan": {"replsets": [plan]}}


async def _slices(storage: Storage, spec: OplogReplaySpec, target: str) -> tuple[SliceRef, ...]:
    """Those of the span, and where they are there, those in which its transactions may have
    begun."""
    source = source_of(spec, target)
    before = OpTime(T=max(0, spec.start.T - REPLAY_LOOK_BACK_S), I=0)
    found = await further_slices(storage, source, since=before, until=spec.end)
    if found and found[-1].end >= spec.end:
        return found
    return await further_slices(storage, source, since=spec.start, until=spec.end)


class _Work:
    """One replica set's share."""

    def __init__(self, part: PartContext, spec: OplogReplaySpec, share: Share) -> None:
        self._part = part
        self._share = share
        self._storage = share.storage
        self._spec = spec
        self._tally = Tally(stage="check")

    async def run(self) -> dict[str, Any]:
        """Check, replay, then see to indexes. Raises the cause where several tasks fail."""
        return await reporting(self._part, self._tally, self._replay)

    async def _replay(self) -> dict[str, Any]:
        part, spec, slices = self._part, self._spec, self._share.slices
        if self._share.member is None:
            check_chain(slices, spec.start, spec.end)
        if spec.dry_run:
            node = part.services.node
            return {PLAN: await described_replay(node, self._storage, spec, slices)}
        await prove_objects(self._storage, slices, lambda item: None)
        await check_privileges(part.services.node, is_sharded=self._share.member is not None)
        beginning = await self._beginning(slices)
        job = self._job(beginning, slices)
        await self._together(job)
        part.lease.check()
        await begin_timeline(part, job.keeper)
        await job.fence_off()
        await create_marker(job)
        self._tally.stage = "replay"
        await replay(job)
        await job.committed()
        await job.keeper.save(is_milestone=True, stage=Stage.REPLAYED)
        self._tally.stage = "build indexes"
        before = {bytes.fromhex(e.uuid): _indexes(e) for e in beginning.collections}
        await drop_indexes(job, before)
        await build_indexes(job)
        await set_expiry(job)
        await self._keep_own(job, beginning)
        await clean_up(job)
        await job.committed()
        state = job.keeper.state
        return {
            "restored_to": spec.end.to_json(),
            "operations_applied": state.applied,
            "operations_skipped": state.skipped,
            "warnings": list(state.warnings),
        }

    async def _together(self, job: Job) -> None:
        """Nothing of any replica set is touched before all have proven what they need."""
        if self._share.member is None:
            return
        if not job.keeper.state.stage.is_past(Stage.CHECKED):
            await job.keeper.save(is_milestone=True, stage=Stage.CHECKED)
        self._tally.stage = "wait for the other parts"
        await await_stage(self._part, Stage.CHECKED)
        if self._share.member.is_config:
            job.keeper.warn(*self._part.operation.result.get(WARNINGS, ()))

    async def _keep_own(self, job: Job, beginning: Beginning) -> None:
        """What a move that was under way at the end had brought here is another shard's."""
        member = self._share.member
        if member is not None and member.shard is not None:
            before = frozenset(bytes.fromhex(uuid) for uuid in beginning.target_uuids.values())
            tables = self._part.services.cluster.routing
            await keep_own_of(job, tables, member.shard, before)
            await job.committed()

    async def _beginning(self, slices: Sequence[SliceRef]) -> Beginning:
        """What the target looked like before anything was applied: as the first worker wrote it
        down, or, for the first worker, as it is now."""
        await write_for(self._storage, "restore", self._part.operation.id)
        key = stored_name(
            self._storage, replay_base_key(self._part.operation.name, self._part.replset)
        )
        try:
            await self._storage.stat(key)
        except ObjectNotFound:
            found = await beginning_at(self._part.services.node, self._storage, self._spec, slices)
            self._part.lease.check()
            try:
                await put_json(self._storage, key, json.dumps(found.to_json()))
                return found
            except ObjectExists:
                pass
        return Beginning.model_validate_json(await get_json(self._storage, key))

    def _job(self, beginning: Beginning, slices: Sequence[SliceRef]) -> Job:
        part, services = self._part, self._part.services
        share = part.operation.part(part.replset)
        recorded = share.result.get("state", {}) if share is not None else {}
        return Job(
            op_id=part.operation.id,
            node=services.node,
            storage=self._storage,
            clock=services.clock,
            base=Base(self._spec.start, (), tuple(slices), self._spec.end, self._share.evidence),
            # One lane: with indexes in place, unique keys may move between documents.
            tuning=Tuning(
                loaders=1,
                appliers=1,
                builders=BUILDERS,
                budget_bytes=services.budget_bytes,
                commit_quorum=part.settings.restore.index_commit_quorum,
            ),
            keeper=StateKeeper(
                State.from_document(recorded),
                record=part.record,
                storage=self._storage,
                clock=services.clock,
                name=part.operation.name,
                replset=part.replset,
                epoch=part.lease.epoch,
            ),
            check=part.lease.check,
            epoch=part.lease.epoch,
            scope=_SCOPE,
            catalogue=_catalogue(beginning, self._spec.start),
            pace=Pace(services.node, services.clock, services.governor),
            tally=self._tally,
        )


def _indexes(entry: CollectionEntry) -> dict[str, dict[str, Any]]:
    return {spec["name"]: spec for spec in entry.bson_indexes()}


def _catalogue(beginning: Beginning, start: OpTime) -> Catalogue:
    catalogue = Catalogue(_SCOPE)
    # Slices may begin before the span: what was visible at its start is there.
    held = Coverage(start.pack(), start.pack(), is_lenient=True)
    for entry in beginning.collections:
        collection = Collection(
            bytes.fromhex(entry.uuid),
            entry.ns,
            _SCOPE,
            options=entry.bson_options(),
            indexes=_indexes(entry),
            # Lenient: it may also be newer than the span, or older than its operations expect.
            coverage=held,
        )
        collection.target_uuid = bytes.fromhex(beginning.target_uuids[entry.uuid])
        collection.place(entry.ns)
        catalogue.add(collection)
    return catalogue
