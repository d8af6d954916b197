"""`ctl oplog-replay`: what was archived in a span, applied to the data as it is.

The catalogue that a replay needs is that of the target here. A collection is found by the UUID it
had at the source (a full restore keeps it), else by the name it had when the span first mentions
it. What the target looked like at the beginning is stored in the repository before anything is
applied, since whoever takes over must begin with the same. Indexes exist while operations are
applied, so these keep their order as a whole; index commands of the span take effect at the end.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, Final

from agent.archive.extended import to_extended
from agent.archive.layout import replay_base_key
from agent.archive.manifest import CollectionEntry, SliceRef
from agent.archive.objects import get_json, put_json
from agent.archive.vault import stored_name, write_for
from agent.errors import ConfigError, ObjectExists, ObjectNotFound, Refused, root_cause
from agent.mongo.apply.probe import check_privileges
from agent.mongo.catalogue import CatalogueRow, read_catalogue
from agent.operations.context import LeadContext, PartContext
from agent.operations.removal.plan import check_not_doomed
from agent.operations.restore.creating import create_marker
from agent.operations.restore.finishing import build_indexes, clean_up, drop_indexes, set_expiry
from agent.operations.restore.further import further_slices
from agent.operations.restore.job import Base, Job, Tally, Tuning, is_over
from agent.operations.restore.pace import Pace
from agent.operations.restore.preflight import check_chain, check_commands, prove_objects
from agent.operations.restore.reading import slice_entries
from agent.operations.restore.replaying import replay
from agent.operations.restore.state import Stage, State, StateKeeper
from agent.operations.restore.timeline import begin_timeline
from agent.operations.restore.work import BUILDERS, REPORT_EVERY_S
from agent.replay.catalogue import Catalogue, Collection
from agent.replay.entries import COMMAND, NO_UUID, NOOP, Entry, command_name, entries
from agent.replay.scope import Scope
from agent.storage.base import Storage
from agent.wire.namespaces import Selection, is_archived
from agent.wire.operations import Kind, Operation
from agent.wire.profiles import MAIN
from agent.wire.record import Record
from agent.wire.specs import OplogReplaySpec

_SCOPE: Final = Scope(Selection(users_and_roles=False))


class Beginning(Record):
    """The collections of the target, under the UUIDs they have in the oplog."""

    collections: tuple[CollectionEntry, ...]
    target_uuids: dict[str, str]
    """`{UUID in the oplog: UUID on the target}`."""


class OplogReplayKind:
    """Replays archived oplog onto live data."""

    kind = Kind.OPLOG_REPLAY

    async def choose(self, lead: LeadContext, operation: Operation) -> list[str]:
        """The span must be covered without a hole."""
        spec = OplogReplaySpec.from_document(operation.spec)
        if spec.start >= spec.end:
            raise ConfigError(f"the span from {spec.start} to {spec.end} is empty")
        if lead.services.cluster.is_sharded:
            raise Refused(
                "oplog-replay works on replica sets, and this is a sharded cluster: transactions"
                " over shards that had begun before the span, and routing tables that changed in"
                " it, cannot be applied to live data",
                hint="restore a backup to the end of the span with 'ctl restore --time'",
            )
        target = lead.services.node.replset
        storage = await lead.services.open_storage(lead.settings, MAIN)
        try:
            slices = await _slices(storage, spec, target)
        finally:
            await storage.aclose()
        check_chain(slices, spec.start, spec.end)
        check_commands(slices)
        active = await lead.services.operations.active()
        check_not_doomed(active, backup=None, slices_after=spec.start)
        return [target]

    async def advance(self, lead: LeadContext, operation: Operation) -> None:
        """Parts do not wait for each other."""

    async def work(self, part: PartContext) -> dict[str, Any]:
        """Replay onto this replica set, or go on where another worker stopped."""
        spec = OplogReplaySpec.from_document(part.operation.spec)
        storage = await part.services.open_storage(part.settings, MAIN)
        try:
            return await _Work(part, storage, spec).run()
        finally:
            await storage.aclose()

    async def finish(self, lead: LeadContext, operation: Operation) -> dict[str, Any]:
        """Nothing is published: the parts say what was done."""
        spec = OplogReplaySpec.from_document(operation.spec)
        return {"start": spec.start.to_json(), "restored_to": spec.end.to_json()}


async def _slices(storage: Storage, spec: OplogReplaySpec, target: str) -> tuple[SliceRef, ...]:
    source = {t: s for s, t in spec.replset_remapping.items()}.get(target, target)
    return await further_slices(storage, source, since=spec.start, until=spec.end)


class _Work:
    """One replica set's share."""

    def __init__(self, part: PartContext, storage: Storage, spec: OplogReplaySpec) -> None:
        self._part = part
        self._storage = storage
        self._spec = spec
        self._tally = Tally(stage="check")
        self._ended = asyncio.Event()

    async def run(self) -> dict[str, Any]:
        """Check, replay, then see to indexes. Raises the cause where several tasks fail."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_reporting())
                report = await self._replay()
                self._ended.set()
        except BaseExceptionGroup as errors:
            cause = root_cause(errors)
            raise cause from cause.__cause__
        return report

    async def _keep_reporting(self) -> None:
        while not await is_over(self._ended, REPORT_EVERY_S):
            await self._part.report(self._tally.progress())

    async def _replay(self) -> dict[str, Any]:
        part, spec = self._part, self._spec
        slices = await _slices(self._storage, spec, part.replset)
        check_chain(slices, spec.start, spec.end)
        await prove_objects(self._storage, slices, lambda item: None)
        await check_privileges(part.services.node)
        beginning = await self._beginning(slices)
        job = self._job(beginning, slices)
        part.lease.check()
        await begin_timeline(part, job.keeper)
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
        await clean_up(job)
        await job.committed()
        state = job.keeper.state
        return {
            "restored_to": spec.end.to_json(),
            "operations_applied": state.applied,
            "operations_skipped": state.skipped,
            "warnings": list(state.warnings),
        }

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
            found = await self._found(slices)
            self._part.lease.check()
            try:
                await put_json(self._storage, key, json.dumps(found.to_json()))
                return found
            except ObjectExists:
                pass
        return Beginning.model_validate_json(await get_json(self._storage, key))

    async def _found(self, slices: Sequence[SliceRef]) -> Beginning:
        node = self._part.services.node
        rows = await read_catalogue(node, (await node.hello()).majority)
        by_uuid = {row.uuid: row for row in rows if is_archived(row.ns)}
        by_name = {row.ns: row for row in by_uuid.values()}
        targets = {uuid: uuid for uuid in by_uuid}
        for uuid, ns in (await self._mentioned(slices)).items():
            if uuid in by_uuid or not is_archived(ns):
                continue
            if ns not in by_name:
                raise Refused(
                    f"the oplog writes to {ns}, and there is no such collection here",
                    hint="restore a backup from before the start of the span first",
                )
            targets.pop(by_name[ns].uuid, None)
            targets[uuid] = by_name[ns].uuid
        entries_found = [_entry(by_uuid[target], uuid) for uuid, target in targets.items()]
        return Beginning(collections=tuple(entries_found), target_uuids=targets)

    async def _mentioned(self, slices: Sequence[SliceRef]) -> dict[str, str]:
        """The collections that the span writes to and does not create, by UUID, with the names
        they have when they are first mentioned."""
        found: dict[str, str] = {}
        created: set[bytes] = set()
        start, end = self._spec.start.pack(), self._spec.end.pack()
        for item in slices:
            for frame in await slice_entries(self._storage, item):
                for entry in entries(frame):
                    if start < entry.ts <= end:
                        _mention(entry, found, created)
                await asyncio.sleep(0)
        return found

    def _job(self, beginning: Beginning, slices: Sequence[SliceRef]) -> Job:
        part, services = self._part, self._part.services
        share = part.operation.part(part.replset)
        recorded = share.result.get("state", {}) if share is not None else {}
        return Job(
            op_id=part.operation.id,
            node=services.node,
            storage=self._storage,
            clock=services.clock,
            base=Base(self._spec.start, (), tuple(slices), self._spec.end),
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
            scope=_SCOPE,
            catalogue=_catalogue(beginning),
            pace=Pace(services.node, services.clock, services.governor),
            tally=self._tally,
        )


def _mention(entry: Entry, found: dict[str, str], created: set[bytes]) -> None:
    if entry.op == COMMAND:
        name = command_name(entry)
        if name == b"create":
            created.add(entry.ui)
        elif name == b"applyOps":
            for operation in entry.command()["applyOps"]:
                uuid = bytes(operation["ui"])
                if operation["op"] == "c":
                    # A transaction may create collections, too.
                    if "create" in operation["o"]:
                        created.add(uuid)
                elif uuid not in created:
                    found.setdefault(uuid.hex(), operation["ns"])
        return
    if entry.op == NOOP or entry.ui == NO_UUID:
        return
    if entry.ui not in created:
        found.setdefault(entry.ui.hex(), entry.ns.decode())


def _entry(row: CatalogueRow, uuid: str) -> CollectionEntry:
    return CollectionEntry(
        ns=row.ns,
        uuid=uuid,
        options=to_extended(row.options),
        indexes=tuple(to_extended(spec) for spec in row.indexes),
    )


def _indexes(entry: CollectionEntry) -> dict[str, dict[str, Any]]:
    return {spec["name"]: spec for spec in entry.bson_indexes()}


def _catalogue(beginning: Beginning) -> Catalogue:
    catalogue = Catalogue(_SCOPE)
    for entry in beginning.collections:
        collection = Collection(
            bytes.fromhex(entry.uuid),
            entry.ns,
            _SCOPE,
            options=entry.bson_options(),
            indexes=_indexes(entry),
        )
        # What is there may be newer than the span, or older than its operations expect.
        collection.is_lenient = True
        collection.target_uuid = bytes.fromhex(beginning.target_uuids[entry.uuid])
        collection.place(entry.ns)
        catalogue.add(collection)
    return catalogue
