"""Replaying slices onto the target.

    reader ── slices, one ahead ──▶ interpreter ──▶ lanes ──▶ applyOps
                                        └── barriers: all lanes empty, command, go on

Each write goes to the lane that its document's `_id` says, so that writes to one document keep
their order while different documents are written at the same time. Every few seconds all lanes are
drained: up to there everything is on the target, and as soon as a majority has it, that place is
recorded as the checkpoint from which another worker would go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

import structlog

from agent.archive.manifest import SliceRef
from agent.errors import RestoreFailed
from agent.faults import fault_point
from agent.mongo.apply.documents import RawDocument
from agent.mongo.apply.target import find_all
from agent.mongo.translate import CommandFailed
from agent.operations.restore.carrying import carry_out
from agent.operations.restore.creating import mark
from agent.operations.restore.deciding import find_decisions
from agent.operations.restore.job import MARKER, Job, is_over
from agent.operations.restore.loading import names_by_uuid
from agent.operations.restore.reading import slice_entries
from agent.operations.restore.state import Stage
from agent.pipeline.budget import ByteBudget
from agent.pipeline.channel import Channel
from agent.replay.interpreter import Barrier, Interpreter, Span, Write
from agent.replay.resumption import Resumption
from agent.replay.transactions import Transactions
from agent.tasks import TaskGroup
from agent.wire.optime import ZERO, OpTime

BATCH_OPERATIONS: Final = 1000
BATCH_BYTES: Final = 4 << 20
UNDER_WAY_BYTES: Final = 32 << 20
"""Of the batches of all lanes that wait or are carried out: an operation may have 16 MiB, and the
driver makes a copy of what it sends."""
AHEAD_BYTES: Final = 48 << 20
"""Of the slices that are read, wait or are replayed: one has 16 MiB, or twice as much where
documents are very large, and its stored bytes come on top while it is read."""
CHECKPOINT_EVERY_S: Final = 3.0
RECORD_EVERY_S: Final = 1.0

log = structlog.stdlib.get_logger()


class Lane:
    """Operations that are carried out in their order, in batches. `run` is its applier."""

    def __init__(self, job: Job, budget: ByteBudget) -> None:
        self._job = job
        self._budget = budget
        self._queue: asyncio.Queue[tuple[list[RawDocument], bool, int] | None] = asyncio.Queue(1)
        self._operations: list[RawDocument] = []
        self._bytes = 0
        self._is_lenient = False

    def add(self, operation: bytes, is_lenient: bool) -> bool:
        """Take in an operation; whether the batch is full and must be sent."""
        self._operations.append(RawDocument(operation))
        self._bytes += len(operation)
        if is_lenient:
            self._is_lenient = True
        return len(self._operations) >= BATCH_OPERATIONS or self._bytes >= BATCH_BYTES

    async def send(self) -> None:
        """Hand the batch to the applier; waits while it is behind."""
        if self._operations:
            taken = await self._budget.acquire(self._bytes)
            await self._queue.put((self._operations, self._is_lenient, taken))
            self._operations, self._bytes, self._is_lenient = [], 0, False

    async def drain(self) -> None:
        """Wait until everything is carried out."""
        await self._queue.join()

    async def close(self) -> None:
        """Nothing more will come."""
        await self._queue.put(None)

    async def run(self) -> None:
        """Carry out batches until closed."""
        while (batch := await self._queue.get()) is not None:
            operations, is_lenient, taken = batch
            await self._job.pace.keep()
            await self._job.apply(operations, is_lenient=is_lenient)
            del batch, operations  # else they would stay until the next one comes
            self._budget.release(taken)
            self._queue.task_done()


class Replayer:
    """Applies slices to the target, from the recorded checkpoint on."""

    def __init__(self, job: Job, slices: Sequence[SliceRef], interpreter: Interpreter) -> None:
        self._job = job
        self._slices = slices
        self._interpreter = interpreter
        self._ahead = ByteBudget(AHEAD_BYTES)
        budget = ByteBudget(UNDER_WAY_BYTES)
        self._lanes = [Lane(job, budget) for _ in range(job.tuning.appliers)]
        self._reached: OpTime | None = None
        """Everything up to it is on this node, and not recorded yet."""
        self._drained_at = job.clock.monotonic()
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Replay everything. Raises what applying raises; progress is recorded on the way."""
        slices: Channel[tuple[list[bytes], int]] = Channel(1)
        async with TaskGroup() as group:
            for lane in self._lanes:
                group.create_task(lane.run())
            group.create_task(self._keep_recording())
            group.create_task(self._read(slices))
            async for frames, taken in slices:
                if not self._interpreter.is_done:
                    await self._replay(frames)
                frames.clear()
                self._ahead.release(taken)
            is_again = self._job.keeper.state.stage.is_past(Stage.REPLAYED)
            if not is_again:
                await self._settle()
            warnings = self._interpreter.finish()
            if not is_again:
                self._job.keeper.warn(*warnings)
            await self._drain()
            for lane in self._lanes:
                await lane.close()
            self._ended.set()

    async def _read(self, slices: Channel[tuple[list[bytes], int]]) -> None:
        for item in self._slices:
            taken = await self._ahead.acquire(item.plain_bytes)
            await slices.put((await slice_entries(self._job.storage, item), taken))
        await slices.close()

    async def _replay(self, frames: list[bytes]) -> None:
        frames.reverse()
        while frames:
            frame = frames.pop()  # and let go of when it is replayed
            await self._carry_on(self._interpreter.interpret(frame))
            self._job.tally.bytes_done += len(frame)
            if self._job.clock.monotonic() - self._drained_at > CHECKPOINT_EVERY_S:
                await self._drain()
                self._reached = OpTime.unpack(self._interpreter.position)
            await asyncio.sleep(0)

    async def _settle(self) -> None:
        """What is prepared and not decided at the end, the slices of all shards decide."""
        undecided = self._interpreter.undecided()
        evidence = self._job.base.evidence
        if not undecided or evidence is None:
            return
        decisions = await find_decisions(evidence, undecided)
        log.info(
            "restore.transactions_decided",
            prepared=len(undecided),
            undecided=decisions.undecided,
        )
        await self._carry_on(self._interpreter.settle(decisions.found))

    async def _carry_on(self, items: Iterator[Write | Barrier]) -> None:
        lanes, ways = self._lanes, len(self._lanes)
        for item in items:
            if isinstance(item, Barrier):
                await self._drain()
                await self._carry_out(item)
                continue
            route, operation, is_lenient = item
            if route is None:
                await self._drain()
                await self._write_alone(operation, is_lenient)
                continue
            lane = lanes[route % ways]
            if lane.add(operation, is_lenient):
                await lane.send()
                await asyncio.sleep(0)

    async def _drain(self) -> None:
        for lane in self._lanes:
            await lane.send()
        for lane in self._lanes:
            await lane.drain()
        self._drained_at = self._job.clock.monotonic()

    async def _write_alone(self, operation: bytes, is_lenient: bool) -> None:
        await self._job.apply([RawDocument(operation)], is_lenient=is_lenient)

    async def _carry_out(self, barrier: Barrier) -> None:
        """Carry out commands, and note on the target that they are done."""
        for command in barrier.commands:
            try:
                await carry_out(self._job, command)
            except CommandFailed as error:
                raise RestoreFailed(
                    f"the target refuses the {command.effect} of {command.target_ns}, as the oplog "
                    f"has it at {OpTime.unpack(barrier.position)}: {error.message}"
                ) from error
        await mark(self._job, barrier.position)

    async def _keep_recording(self) -> None:
        while not await is_over(self._ended, RECORD_EVERY_S):
            reached, self._reached = self._reached, None
            if reached is not None:
                await self._job.committed()
                self._job.check()
                await self._job.keeper.save(
                    checkpoint=reached,
                    applied=self._interpreter.applied,
                    skipped=self._interpreter.skipped,
                )
                await fault_point("restore.checkpoint")


async def replay(job: Job) -> None:
    """Bring the target to the wanted moment. Where that is done already, only the catalogue is
    rebuilt, without touching the target."""
    state = job.keeper.state
    is_done = state.stage.is_past(Stage.REPLAYED)
    applied_until = job.base.until if is_done else state.checkpoint or ZERO
    resumption = None
    if not is_done:
        if state.replay_begun:
            resumption = Resumption(job.catalogue, await names_by_uuid(job), await _marker(job))
        else:
            await job.keeper.save(replay_begun=True)
    interpreter = Interpreter(
        job.catalogue,
        Span(job.base.catalogue_at.pack(), job.base.until.pack(), applied_until.pack()),
        transactions=Transactions(),
        resumption=resumption,
    )
    job.tally.bytes_total += sum(item.plain_bytes for item in job.base.slices)
    await Replayer(job, job.base.slices, interpreter).run()
    if is_done:
        job.catalogue.settle()
    else:
        job.keeper.note(
            applied=state.applied + interpreter.applied,
            skipped=state.skipped + interpreter.skipped,
        )


async def _marker(job: Job) -> int:
    """The packed OpTime of the last entry whose commands are known to be carried out."""
    found = [one for one in await find_all(job.node, MARKER) if one["_id"] == job.op_id]
    return int(found[0]["at"]) if found else 0
