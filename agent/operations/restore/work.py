"""One replica set's restore, stage by stage, each recorded when it is done.

checked    every object proven, nothing touched yet
wiped      what gives way is gone            (a repeated wipe does no harm)
created    the base's collections, empty     (creating again passes over what is there)
loaded     chunks, with a bitmap of those that are done
replayed   slices, with a checkpoint
indexed    indexes and the options held back
routed     of a sharded cluster's config servers: the routing tables
owned      of a shard: what it does not own is gone
merged     users and roles
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Final
from uuid import uuid4

from agent.errors import NodeUnavailable
from agent.faults import fault_point
from agent.mongo.apply.probe import check_privileges, probe_rights
from agent.mongo.apply.target import collections
from agent.operations.context import PartContext
from agent.operations.restore.catalogue import base_catalogue
from agent.operations.restore.creating import create_all
from agent.operations.restore.deciding import evidence_of
from agent.operations.restore.ending import finish_changes, unfinished_of
from agent.operations.restore.finishing import (
    build_indexes,
    clean_up,
    drop_indexes,
    merge_principals,
    set_expiry,
)
from agent.operations.restore.job import Base, Job, Tally, Tuning
from agent.operations.restore.keeping import indexes_of_base
from agent.operations.restore.loading import Loader
from agent.operations.restore.merging import clear_routing, merge_routing
from agent.operations.restore.owning import forget_tasks, keep_own, look_again
from agent.operations.restore.pace import Pace
from agent.operations.restore.plan import Plan
from agent.operations.restore.preflight import (
    Item,
    check_commands,
    check_quorum,
    check_slices,
    check_versions,
    prove_objects,
    quorum_of,
    wanted_objects,
)
from agent.operations.restore.proving import prove_principals, prove_structure, told
from agent.operations.restore.replaying import replay
from agent.operations.restore.reporting import reporting
from agent.operations.restore.selecting import check_found, resolve, scope_of
from agent.operations.restore.state import Stage, State, StateKeeper
from agent.operations.restore.timeline import begin_timeline
from agent.operations.restore.together import await_stage
from agent.operations.restore.wiping import wipe
from agent.replay.scope import VIEWS, Scope
from agent.storage.base import Storage
from agent.wire.collections import DATABASE
from agent.wire.namespaces import split
from agent.wire.specs import RestoreSpec

DEFAULT_LOADERS: Final = 3
PROBED: Final = "tidelog_probe"
APPLIERS: Final = 2
BUILDERS: Final = 2


class RestoreWork:
    """Carries one part out, from whatever stage is recorded."""

    def __init__(
        self,
        part: PartContext,
        storage: Storage,
        spec: RestoreSpec,
        plan: Plan,
        storages: Sequence[Storage] = (),
        *,
        is_scratch: bool = False,
    ) -> None:
        self._is_scratch = is_scratch
        """Whether the target is a server of our own: nothing is recorded in the repository, and no
        shard has to look at routing tables, since the server is none."""
        self.orphans: Counter[str] = Counter()
        """`{namespace: documents}` that were left out, since the shard does not own them."""
        self.differences: list[str] = []
        """What the target has beside what the backup has, or otherwise."""
        self._storages = storages
        """Where decisions on transactions over several shards are looked for."""
        self._part = part
        self._storage = storage
        self._spec = spec
        self._plan = plan
        self._tally = Tally()
        found = part.operation.part(part.replset)
        recorded = found.result.get("state", {}) if found is not None else {}
        self._keeper = StateKeeper(
            State.from_document(recorded),
            record=part.record,
            storage=storage,
            clock=part.services.clock,
            name=part.operation.name,
            replset=part.replset,
            epoch=part.lease.epoch,
            is_mirrored=not is_scratch,
        )
        self._indexes = 0
        self._indexes_of_base: dict[bytes, dict[str, dict[str, Any]]] = {}

    async def run(self) -> dict[str, Any]:
        """Restore; answers the report. Raises the cause where several tasks fail."""
        return await reporting(self._part, self._tally, self._restore)

    async def _restore(self) -> dict[str, Any]:
        await self._check_primary()
        scope = await resolve(self._storage, self._plan, scope_of(self._spec, self._plan))
        if not self._keeper.state.stage.is_past(Stage.CHECKED):
            await self._stage("check", Stage.CHECKED, lambda: self._check(scope))
        job = await self._job(scope)
        self._indexes_of_base = indexes_of_base(job)
        # Nothing of any replica set is touched before all have proven what they need.
        await self._together(Stage.CHECKED)
        await self._stage("wipe", Stage.WIPED, lambda: self._wipe(job))
        await job.fence_off()
        await self._stage("create", Stage.CREATED, lambda: self._create(job))
        await self._stage("load", Stage.LOADED, Loader(job).run)
        await self._replay(job)
        await self._stage("build indexes", Stage.INDEXED, lambda: self._finish(job))
        if self._plan.topology.is_sharded:
            await self._stage("route", Stage.ROUTED, lambda: self._route(job))
            await self._stage("keep own", Stage.OWNED, lambda: self._keep_own(job))
        await self._stage("merge users", Stage.MERGED, lambda: self._merge(job))
        await clean_up(job)
        await job.committed()
        return self._report(job)

    async def _stage(self, name: str, stage: Stage, work: Callable[[], Awaitable[None]]) -> None:
        """Do a stage and record it, unless it is recorded already."""
        if self._keeper.state.stage.is_past(stage):
            return
        clock = self._part.services.clock
        self._tally.stage = name
        started = clock.monotonic()
        self._part.lease.check()
        await work()
        seconds = {**self._keeper.state.seconds, name: round(clock.monotonic() - started, 3)}
        await self._keeper.save(is_milestone=True, stage=stage, seconds=seconds)
        self._part.log.info("restore.stage_done", stage=name, duration_s=seconds[name])

    async def _replay(self, job: Job) -> None:
        if self._keeper.state.stage.is_past(Stage.REPLAYED):
            await replay(job)
        else:
            await self._stage("replay", Stage.REPLAYED, lambda: self._replay_and_commit(job))

    async def _replay_and_commit(self, job: Job) -> None:
        await replay(job)
        await job.committed()
        await fault_point("restore.replayed")

    async def _together(self, stage: Stage, *, of: str | None = None) -> None:
        if self._plan.topology.is_sharded:
            self._tally.stage = "wait for the other parts"
            await await_stage(self._part, stage, of=of)

    async def _route(self, job: Job) -> None:
        if self._plan.target.is_config:
            # Not before every shard has come as far: one that looks for what gave way, or creates
            # and replays what is to come, must not find it sharded already.
            await self._together(Stage.INDEXED)
            await merge_routing(job, self._plan.shards)
            await job.committed()

    async def _keep_own(self, job: Job) -> None:
        """What is this shard's own, the routing tables say, once they are there."""
        shard = self._plan.target.shard
        if shard is None:
            return
        await self._together(Stage.ROUTED, of=self._config_replset())
        tables = self._part.services.cluster.routing
        await finish_changes(job)
        if not self._is_scratch:
            await look_again(job, tables)
        self.orphans = await keep_own(job, tables, shard)
        await job.committed()

    def _config_replset(self) -> str:
        return next(m.replset for m in self._plan.topology.members if m.is_config)

    async def _check_primary(self) -> None:
        hello = await self._part.services.node.hello()
        if not hello.is_primary:
            raise NodeUnavailable(f"{hello.host} is not primary any more")

    async def _check(self, scope: Scope) -> None:
        plan, node = self._plan, self._part.services.node
        if not plan.topology.is_sharded:
            # Of a cluster the lead has asked: no part knows what the others hold.
            await check_found(lambda _: self._storage, [plan], scope)
        check_slices(plan)
        check_commands(plan.slices)
        await node.read_versions()
        self._keeper.warn(*check_versions(plan, node.mongodb_version, node.fcv))
        if not self._is_scratch:
            check_quorum(quorum_of(self._spec, self._part.settings), await node.data_members())
        items: list[Item] = [*wanted_objects(plan.manifest, scope), *plan.slices]
        self._tally.bytes_total = sum(item.size_bytes for item in items)
        await prove_objects(self._storage, items, self._proven)
        self._tally.bytes_total = self._tally.bytes_done = 0
        probed = self._probed_database(scope)
        await check_privileges(
            node, "" if scope.is_full else probed, is_sharded=self._plan.topology.is_sharded
        )
        await probe_rights(node, probed, uuid4().bytes)
        if not scope.is_full:
            await self._choose_uuids(scope)
        if self._plan.target.is_config:
            self._keeper.warn(*await self._routers())

    async def _routers(self) -> list[str]:
        running = await self._part.services.cluster.routers()
        if not running:
            return []
        return [
            f"mongos was running while the restore began ({', '.join(running)}): what its clients "
            "wrote may be mixed with what was restored; stop every mongos before a restore"
        ]

    def _probed_database(self, scope: Scope) -> str:
        """A database of our own where a restore has to reach every one, else one that is named.
        Config servers take no other databases."""
        if self._plan.target.is_config and self._plan.target.shard is None:
            return DATABASE
        if scope.is_full:
            return PROBED
        catalogue = base_catalogue(self._plan.manifest, scope)
        return next((split(c.target_ns)[0] for c in catalogue if not c.is_ignored), PROBED)

    def _proven(self, item: Item) -> None:
        self._tally.bytes_done += item.size_bytes

    async def _choose_uuids(self, scope: Scope) -> None:
        """New UUIDs where an original one belongs to something that stays on the target, or where
        what is restored stands beside its original."""
        catalogue = base_catalogue(self._plan.manifest, scope)
        wanted = {collection.uuid for collection in catalogue}
        present = await collections(self._part.services.node)
        taken = any(p.uuid in wanted and not scope.replaces(p.ns) for p in present)
        # All shards have to give a collection the same one, whatever each has.
        if taken or scope.renaming is not None or self._plan.topology.is_sharded:
            self._keeper.note(fresh_seed=self._part.operation.id)

    async def _job(self, scope: Scope) -> Job:
        node = self._part.services.node
        if not scope.is_full:
            views = {
                split(present.ns)[0]: present.uuid
                for present in await collections(node)
                if split(present.ns)[1] == VIEWS
            }
            seed = self._keeper.state.fresh_seed
            scope = replace(scope, fresh_seed=seed, views_on_target=views)
        return Job(
            op_id=self._part.operation.id,
            node=node,
            storage=self._storage,
            clock=self._part.services.clock,
            base=Base(
                self._plan.manifest.catalogue_at,
                self._plan.manifest.objects,
                self._plan.slices,
                self._plan.until,
                evidence_of(self._storages, self._part.operation.result),
            ),
            tuning=self._tuning(),
            keeper=self._keeper,
            check=self._part.lease.check,
            epoch=self._part.lease.epoch,
            scope=scope,
            catalogue=base_catalogue(self._plan.manifest, scope),
            pace=Pace(node, self._part.services.clock, self._part.services.governor),
            unfinished=unfinished_of(self._part.operation),
            tally=self._tally,
        )

    def _tuning(self) -> Tuning:
        spec, settings = self._spec, self._part.settings.restore
        chosen = (
            spec.num_parallel_collections or settings.num_parallel_collections or 0,
            spec.num_insertion_workers or settings.num_insertion_workers or 0,
        )
        return Tuning(
            loaders=max(chosen) or DEFAULT_LOADERS,
            appliers=APPLIERS,
            builders=BUILDERS,
            budget_bytes=self._part.services.budget_bytes,
            # A scratch server is alone.
            commit_quorum=None if self._is_scratch else quorum_of(self._spec, self._part.settings),
        )

    async def _wipe(self, job: Job) -> None:
        await begin_timeline(self._part, self._keeper)
        if self._plan.target.shard is not None:
            await forget_tasks(job)
        await wipe(job)
        if self._plan.target.is_config:
            await clear_routing(job)
            await job.committed()

    async def _create(self, job: Job) -> None:
        if self._plan.target.shard is not None and not self._is_scratch:
            # A shard refuses some commands on what it takes for sharded: it must have seen that
            # nothing of what is restored is.
            await self._together(Stage.WIPED, of=self._config_replset())
            await look_again(job, self._part.services.cluster.routing)
        await create_all(job)

    async def _finish(self, job: Job) -> None:
        if self._keeper.state.keeps:
            await drop_indexes(job, self._indexes_of_base)
        self._indexes = await build_indexes(job)
        await set_expiry(job)
        self._note(await prove_structure(job))
        await job.committed()

    async def _merge(self, job: Job) -> None:
        await merge_principals(job)
        self._note(await prove_principals(job))

    def _note(self, differences: list[str]) -> None:
        self.differences += differences
        self._keeper.warn(
            *(f"the target differs from the backup: {one}" for one in told(differences))
        )

    def _report(self, job: Job) -> dict[str, Any]:
        state = self._keeper.state
        return {
            "restored_to": self._plan.until.to_json(),
            "collections": len(job.catalogue),
            "documents_loaded": self._plan.manifest.documents
            if job.scope.is_full
            else self._tally.documents_total,
            "operations_applied": state.applied,
            "operations_skipped": state.skipped,
            "indexes_built": sum(len(c.indexes) for c in job.catalogue),
            "duration_s": dict(state.seconds),
            "warnings": list(state.warnings),
        }
