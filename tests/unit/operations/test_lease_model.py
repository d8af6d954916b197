"""A model check of leases, operations and publishing: thousands of interleavings, found and shrunk.

Three agents lead one backup and work on its two parts by the product's own rules: `decide` and
`verdict`, `HeldLease`, and the conditional updates of `LeaseStore` and `OperationLog` themselves,
evaluated on a model of the control documents. Between any two of their acts an agent may be killed,
paused past its lease or set to a clock that runs fast or slow, the primary may change to one whose
clock is elsewhere, and a write may be lost, rolled back, done unheard or done late.

What must hold: one epoch names one owner and never falls; nobody believes in a lease that somebody
else believes in; no write of a superseded epoch changes a document; states move by the table; what
is published is whole and the same for everybody who publishes; every operation ends.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.coordination.lease import HeldLease, renew
from agent.errors import Superseded, TidelogError, Transient
from agent.operations.machine import (
    MAX_ATTEMPTS,
    Step,
    Verdict,
    decide,
    error_record,
    verdict,
)
from agent.store.lease_store import LeaseStore
from agent.store.operation_log import OperationLog
from agent.wire.leases import TTL_S, lead_scope, work_scope
from agent.wire.operations import Kind, Operation, State, may_move
from tests.support.control_model import Document, Fate, ModelServer, finished

OP_ID = "1" * 24
PARTS = ("rs0", "rs1")
AGENTS = ("a", "b", "c")
LEAD = lead_scope(Kind.BACKUP)
SCOPES = (LEAD, *(work_scope(replset, Kind.BACKUP) for replset in PARTS))
ROUNDS_TO_END = 400


class _Clock:
    """An agent's own clock: it counts at its own rate, from a start that means nothing."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.rate = 1.0

    def monotonic(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody waits in the model")


class _Agent:
    """One incarnation after the other of one agent, with at most one session a lease."""

    def __init__(self, name: str, server: ModelServer, world: _World) -> None:
        self.name = name
        self.server = server
        self.world = world
        self.clock = _Clock()
        self.log = OperationLog(server)  # type: ignore[arg-type]  # the model stands for Control
        self.leases = LeaseStore(server, self.clock)  # type: ignore[arg-type]  # likewise
        self.held: dict[str, HeldLease] = {}
        self.taken: dict[str, Operation] = {}
        """What each session last knew of the operation; nothing where it has not begun."""
        self.is_paused = False

    def die(self) -> None:
        self.held, self.taken, self.is_paused = {}, {}, False

    def act(self, scope: str) -> None:
        """One act of the session of a lease, up to its next write."""
        held = self.held.get(scope)
        try:
            if held is None:
                self._bid(scope)
            elif scope == LEAD:
                self._lead(held)
            else:
                self._work(held, scope.partition("/")[2])
        except Superseded:
            self._end(scope)
        except Transient:
            if held is not None and held.is_lost:
                self._end(scope)
        finally:
            self.server.writer = None

    def renew(self, scope: str) -> None:
        held = self.held.get(scope)
        if held is None:
            return
        try:
            finished(renew(self.leases, self.clock, held, self.held.values()))
        except Superseded as error:
            held.lose(str(error))
            self._end(scope)
        except Transient:
            return

    def _end(self, scope: str) -> None:
        held = self.held.pop(scope)
        self.taken.pop(scope, None)
        if held.is_lost:
            return
        try:
            finished(self.leases.release(held.lease))
        except Transient:
            return

    def _bid(self, scope: str) -> None:
        operation = finished(self.log.get(OP_ID))
        if operation.state.is_terminal:
            return
        if scope != LEAD:
            part = operation.part(scope.partition("/")[2])
            workable = (State.ELECTING, State.PREPARING, State.RUNNING)
            if part is None or part.state.is_terminal or operation.state not in workable:
                return
            if operation.cancel_requested:
                return
        lease = finished(self.leases.acquire(scope, self.name))
        if lease is not None:
            self.held[scope] = HeldLease(lease, self.clock)

    def _lead(self, held: HeldLease) -> None:
        held.check()
        self.server.writer = ("lead", held.epoch)
        if LEAD not in self.taken:
            self.taken[LEAD] = finished(self.log.take_lead(OP_ID, self.name, held.epoch))
            return
        # What it knows may be old: it acts on the look before, and the update has to refuse.
        operation = self.taken[LEAD]
        try:
            self.taken[LEAD] = self._step(held, operation)
        except TidelogError as error:
            self.taken[LEAD] = finished(self.log.get(OP_ID))
            outcome = verdict(error)
            if outcome is Verdict.STOP and self.taken[LEAD].lead_epoch > held.epoch:
                raise
            if outcome is Verdict.FAILED and self.taken[LEAD].state is operation.state:
                self._move(held, self.taken[LEAD], State.FAILED, error)

    def _step(self, held: HeldLease, operation: Operation) -> Operation:
        step = decide(operation)
        if step is Step.STOP:
            self._end(LEAD)
            return operation
        if step is Step.CHOOSE:
            operation = finished(self.log.set_parts(OP_ID, held.epoch, list(PARTS)))
            return self._move(held, operation, State.ELECTING)
        if step is Step.FINISH:
            self._publish(operation)
            return self._move(held, operation, State.DONE)
        after = {
            Step.PREPARE: State.PREPARING,
            Step.RUN: State.RUNNING,
            Step.PUBLISH: State.PUBLISHING,
            Step.CANCEL: State.CANCELLED,
            Step.FAIL: State.FAILED,
        }.get(step)
        if after is None:
            return finished(self.log.get(OP_ID))
        return self._move(held, operation, after)

    def _move(
        self,
        held: HeldLease,
        operation: Operation,
        after: State,
        error: BaseException | None = None,
    ) -> Operation:
        if operation.state.is_terminal:
            return operation
        record = None if error is None else error_record(error, self.name)
        return finished(
            self.log.transition(OP_ID, operation.state, after, epoch=held.epoch, error=record)
        )

    def _publish(self, operation: Operation) -> None:
        """Put `backup.json` once; a lead that was paused just before does it late."""
        whole = {part.replset: part.result.get("share") for part in operation.parts}
        assert all(part.state is State.DONE for part in operation.parts)
        assert set(whole) == set(PARTS)
        assert None not in whole.values()
        assert self.world.published in (None, whole), "two publishers, two backups"
        self.world.published = whole

    def _work(self, held: HeldLease, replset: str) -> None:
        held.check()
        scope = work_scope(replset, Kind.BACKUP)
        self.server.writer = (replset, held.epoch)
        known = self.taken.get(scope)
        if known is None:
            self.taken[scope] = finished(self.log.take_part(OP_ID, replset, self.name, held.epoch))
            return
        part = known.part(replset)
        assert part is not None
        if known.state is not State.RUNNING:
            self.taken[scope] = finished(self.log.get(OP_ID))
            if self.taken[scope].state.is_terminal:
                self._end(scope)
            return
        if part.attempts > MAX_ATTEMPTS:
            finished(self.log.update_part(OP_ID, replset, held.epoch, state=State.FAILED))
            self._end(scope)
            return
        if part.state is State.PREPARING:
            self.taken[scope] = finished(
                self.log.update_part(OP_ID, replset, held.epoch, state=State.RUNNING)
            )
            return
        result = {"share": f"{replset} by epoch {held.epoch}"}
        finished(self.log.update_part(OP_ID, replset, held.epoch, state=State.DONE, result=result))
        self._end(scope)


class _World:
    """What the invariants look at beside the documents."""

    def __init__(self) -> None:
        self.published: Document | None = None
        self.owners: dict[tuple[str, int], str] = {}


class LeasesOperationsAndPublishing(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.server = ModelServer()
        self.world = _World()
        self.server.audit = self._audit
        self.agents = [_Agent(name, self.server, self.world) for name in AGENTS]
        self.clocks_agree = True

    @initialize(rounds=st.integers(0, 8))
    def ask_for_a_backup(self, rounds: int) -> None:
        """Trouble may begin at any stage of it."""
        document = Operation(
            id=OP_ID, kind=Kind.BACKUP, name="b", requested_at=self.server.now
        ).to_document()
        self.server.collection("tidelogOperations").documents[OP_ID] = document
        self.act_on(0, rounds)

    @rule(who=st.sampled_from(range(len(AGENTS))), scope=st.sampled_from(SCOPES))
    def act(self, who: int, scope: str) -> None:
        agent = self.agents[who]
        if not agent.is_paused:
            agent.act(scope)

    @rule(who=st.sampled_from(range(len(AGENTS))), times=st.integers(1, 4))
    def act_on(self, who: int, times: int) -> None:
        """A stretch without trouble, so that operations get far."""
        agent = self.agents[who]
        for _ in range(0 if agent.is_paused else times):
            for scope in SCOPES:
                agent.act(scope)

    @rule(seconds=st.sampled_from([0.5, 2.0, 3.5, 6.9, 7.1, 10.1]))
    def time_passes(self, seconds: float) -> None:
        """Renewers of those that are not paused come round every three seconds."""
        while seconds > 0:
            stretch = min(seconds, 3.0)
            seconds -= stretch
            self.server.now += timedelta(seconds=stretch)
            for agent in self.agents:
                agent.clock.now_s += stretch * agent.clock.rate
            for agent in self.agents:
                if not agent.is_paused:
                    for scope in SCOPES:
                        agent.renew(scope)

    @rule(who=st.sampled_from(range(len(AGENTS))))
    def kill(self, who: int) -> None:
        self.agents[who].die()

    @rule(who=st.sampled_from(range(len(AGENTS))))
    def pause_or_resume(self, who: int) -> None:
        """As SIGSTOP and SIGCONT, or a machine that sleeps: its clock goes on."""
        self.agents[who].is_paused = not self.agents[who].is_paused

    @rule(who=st.sampled_from(range(len(AGENTS))), rate=st.sampled_from([0.8, 0.95, 1.0, 1.25]))
    def drift(self, who: int, rate: float) -> None:
        """A clock that is wrong by a quarter: the margin is for that."""
        self.agents[who].clock.rate = rate

    @rule(fate=st.sampled_from([Fate.LOST, Fate.ANSWER_LOST, Fate.LATE]))
    def trouble(self, fate: Fate) -> None:
        """For the next write, whosever it is."""
        self.server.fate = fate

    @rule(who=st.sampled_from(range(len(AGENTS))), scope=st.sampled_from(SCOPES))
    def take_over(self, who: int, scope: str) -> None:
        """All stand still until their leases have just lapsed, and one wakes up first."""
        for agent in self.agents:
            agent.is_paused = True
        self.time_passes(TTL_S + 0.1)
        self.agents[who].is_paused = False
        for _ in range(3):
            self.agents[who].act(scope)

    @rule(who=st.sampled_from(range(len(AGENTS))), scope=st.sampled_from(SCOPES))
    def stall_in_a_write(self, who: int, scope: str) -> None:
        """The holder stands still between its last look at the lease and its write."""
        for agent in self.agents:
            if scope in agent.held and not agent.is_paused:
                self.server.fate = Fate.LATE
                agent.act(scope)
                self.server.fate = Fate.DONE
                self.take_over(who, scope)
                return

    @precondition(lambda self: self.server.late)
    @rule(which=st.integers(0, 5))
    def late_write_arrives(self, which: int) -> None:
        late = self.server.late.pop(which % len(self.server.late))
        late()

    @rule(seconds=st.sampled_from([-172_800, -30, 30, 172_800]))
    def election(self, seconds: int) -> None:
        """The new primary's clock is elsewhere; its leases lapse early or late."""
        self.server.now += timedelta(seconds=seconds)
        self.clocks_agree = False
        if seconds < 0:  # else everybody would wait for two days: an operator sets the clock
            for lease in self.server.collection("tidelogLeases").documents.values():
                lease["expires_at"] = min(
                    lease["expires_at"], self.server.now + timedelta(seconds=10)
                )

    @rule()
    def cancel(self) -> None:
        self.server.writer = None
        try:
            finished(self.agents[0].log.request_cancel(OP_ID))
        except TidelogError:
            return

    @invariant()
    def nobody_believes_in_a_lease_of_another(self) -> None:
        if not self.clocks_agree:
            return
        for scope in SCOPES:
            believers = [
                agent.name
                for agent in self.agents
                if scope in agent.held and not agent.held[scope].is_lost
            ]
            assert len(believers) <= 1, (scope, believers)

    @invariant()
    def what_is_done_is_published(self) -> None:
        document = self.server.collection("tidelogOperations").documents.get(OP_ID)
        if document is not None and document["state"] == "done":
            assert self.world.published is not None

    def teardown(self) -> None:
        """Trouble ends, and so does the operation."""
        if OP_ID not in self.server.collection("tidelogOperations").documents:
            return
        self.server.fate = Fate.DONE
        for agent in self.agents:
            agent.is_paused, agent.clock.rate = False, 1.0
        for _ in range(ROUNDS_TO_END):
            operation = finished(self.agents[0].log.get(OP_ID))
            if operation.state.is_terminal:
                break
            for agent in self.agents:
                for scope in SCOPES:
                    agent.act(scope)
            self.time_passes(1.0)
        assert operation.state.is_terminal, operation
        assert all(part.state.is_terminal for part in operation.parts), operation
        assert "slot" not in operation.to_document()

    def _audit(self, collection: str, before: Document | None, after: Document) -> None:
        assert before is not None
        if collection == "tidelogLeases":
            assert after["epoch"] in (before["epoch"], before["epoch"] + 1)
            if after["owner"] is not None:
                key = (after["_id"], after["epoch"])
                assert self.world.owners.setdefault(key, after["owner"]) == after["owner"]
            return
        old, new = State(before["state"]), State(after["state"])
        assert not old.is_terminal or old is new, (old, new)
        assert old is new or may_move(old, new), (old, new)
        assert after["lead_epoch"] >= before["lead_epoch"]
        self._audit_parts(before, after)
        if self.server.writer is None:
            return
        role, epoch = self.server.writer
        fencing = after["lead_epoch"] if role == "lead" else _part(after, role)["epoch"]
        assert fencing == epoch, f"a write of {role} under epoch {epoch}, when {fencing} has it"

    def _audit_parts(self, before: Document, after: Document) -> None:
        olds = {part["replset"]: part for part in before.get("parts", ())}
        for part in after.get("parts", ()):
            old = olds.get(part["replset"])
            if old is None:
                continue
            assert part["epoch"] >= old["epoch"]
            if State(old["state"]).is_terminal:
                assert (part["state"], part["result"]) == (old["state"], old["result"])


def _part(document: Document, replset: str) -> dict[str, Any]:
    return next(part for part in document["parts"] if part["replset"] == replset)


TestLeasesOperationsAndPublishing = LeasesOperationsAndPublishing.TestCase
TestLeasesOperationsAndPublishing.settings = settings(
    max_examples=int(os.environ.get("TIDELOG_CRASH_EXAMPLES", "100")),
    stateful_step_count=40,
    deadline=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)
