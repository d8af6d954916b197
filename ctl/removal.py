"""What the commands that delete share: what is known, the decision as agents will make it, and how
it is shown, asked for and reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from rich.console import Group

from agent.wire.optime import OpTime
from agent.wire.removals import copied_elsewhere, decide_deletion
from agent.wire.retention import Copy, Decision, Reading, Rules, copy_of, decide, readings
from agent.wire.timelines import Run, Span, coverage
from ctl.follow import headline
from ctl.invocation import Result
from ctl.places import read_places
from ctl.render import moment, number, size, table
from ctl.submission import carry_out, submit

if TYPE_CHECKING:
    from rich.console import RenderableType

    from agent.wire.backups import Backup
    from agent.wire.operations import Kind, Operation
    from agent.wire.places import Places
    from agent.wire.record import Record
    from agent.wire.settings import Settings
    from ctl.session import Session


@dataclass(frozen=True, slots=True)
class Holdings:
    """What there is, at the server's time `now`."""

    now: datetime
    settings: Settings
    places: Places
    backups: tuple[Backup, ...]
    runs: tuple[Run, ...]
    active: tuple[Operation, ...]

    @property
    def spans(self) -> list[Span]:
        """What the archived oplog covers."""
        return coverage(self.runs)

    def decide(self, rules: Rules) -> Decision:
        """As the agents decide."""
        return decide(self._copies(), self.spans, rules, self._readings())

    def decide_deletion(self, rules: Rules, only: frozenset[str], profile: str | None) -> Decision:
        """As the agents decide on backups that are named."""
        elsewhere = copied_elsewhere(self.backups, profile)
        return decide_deletion(
            self._copies(), self.spans, rules, self._readings(), only=only, elsewhere=elsewhere
        )

    def _copies(self) -> list[Copy]:
        return [copy_of(backup) for backup in self.backups]

    def _readings(self) -> list[Reading]:
        return readings(self.active, {backup.id: backup.last_write for backup in self.backups})


async def read_holdings(session: Session) -> Holdings:
    """One query each."""
    places = await read_places(session)
    settings = places.settings
    return Holdings(
        now=(await session.control.now()).wall(),
        settings=settings,
        places=places,
        backups=tuple(await session.catalog.backups()),
        runs=places.runs(await session.runs.runs()),
        active=tuple(await session.operations.active()),
    )


def cutoff(now: datetime, older_than: datetime | timedelta) -> OpTime:
    """A time as a person gave it; days count back from the server's time."""
    at = now - older_than if isinstance(older_than, timedelta) else older_than.astimezone(UTC)
    return OpTime(T=max(0, int(at.timestamp())), I=0)


@dataclass(frozen=True, slots=True)
class Preview:
    """What would go, and why the rest stays."""

    going: tuple[Backup, ...] = ()
    kept: tuple[tuple[Backup, str], ...] = ()
    slices: tuple[dict[str, Any], ...] = ()
    """Of each run that loses slices: `replset`, `from`, `to`, in epoch seconds."""
    floor: OpTime | None = None
    floor_reason: str = ""
    remark: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether nothing would go."""
        return not self.going and not self.slices

    def data(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "deleted": [{"name": b.id, "size": b.size_bytes} for b in self.going],
            "kept": [{"name": b.id, "reason": why} for b, why in self.kept],
            "slices": {
                "deleted": list(self.slices),
                "floor": self.floor.to_json() if self.floor is not None else None,
                "reason": self.floor_reason,
            },
        }

    def parts(self) -> list[RenderableType]:
        """For people."""
        found: list[RenderableType] = []
        if self.going:
            rows = [(b.id, size(b.size_bytes), moment(b.last_write.wall())) for b in self.going]
            found.append(table(("NAME", "SIZE>", "RESTORE TIME"), rows, indent=2))
        if self.slices:
            found.append("Archived oplog:")
            rows = [(s["replset"], _epoch(s["from"]), _epoch(s["to"])) for s in self.slices]
            found.append(table(("REPLSET", "FROM", "TO"), rows, indent=2))
        if self.remark:
            found.append(self.remark)
        if self.kept:
            kept = [(backup.id, why) for backup, why in self.kept]
            found += ["Kept:", table(("NAME", "REASON~"), kept, indent=2)]
        if self.floor is not None and self.floor_reason:
            found.append(f"Later slices stay: {self.floor_reason}")
        elif self.floor_reason:
            found.append(f"Slices stay: {self.floor_reason}")
        return found


def of_backups(holdings: Holdings, decision: Decision, meant: Sequence[Backup]) -> Preview:
    """Of a decision, what concerns the backups that were meant."""
    verdicts = {verdict.name: verdict for verdict in decision.verdicts}
    going, kept = [], []
    for backup in meant:
        verdict = verdicts[backup.id]
        if verdict.stays:
            kept.append((backup, "; ".join(verdict.reasons)))
        elif not holdings.places.is_within_reach(backup):
            kept.append((backup, "out of reach: no profile leads to its repository"))
        else:
            going.append(backup)
    return Preview(going=tuple(going), kept=tuple(kept))


def going_slices(runs: Sequence[Run], floor: OpTime | None) -> tuple[dict[str, Any], ...]:
    """What the runs lose."""
    if floor is None:
        return ()
    return tuple(
        {"replset": run.replset, "from": run.start.T, "to": min(run.end, floor).T}
        for run in runs
        if run.start < min(run.end, floor)
    )


async def remove(
    session: Session,
    kind: Kind,
    spec: Record,
    preview: Preview,
    question: str,
    *,
    dry_run: bool,
    yes: bool,
    wait: bool,
    wait_time: float | None,
    always: bool = False,
) -> Result:
    """Show, ask, have it done, report. `always`: also where nothing is known to go."""
    data: dict[str, Any] = {"dry_run": dry_run, **preview.data()}
    parts = preview.parts()
    if preview.is_empty and not always:
        return Result(data, Group("Nothing to delete", *parts))
    view = Group("This will be deleted:", *parts)
    if dry_run:
        return Result(data, view if not preview.is_empty else Group("Nothing to delete", *parts))
    if not session.output.confirm(view, question, yes=yes):
        return Result({**data, "deleted": [], "status": "declined"}, "nothing was deleted")
    operation = await submit(session, kind, spec)
    operation = await carry_out(session, operation, wait=wait, wait_time_s=wait_time)
    data |= {"op_id": operation.id, "status": operation.state.value}
    if not operation.state.is_terminal:
        words = f"{headline(operation)} requested [op id: {operation.id}]"
        return Result(data, Group(words, *parts))
    data |= {key: operation.result[key] for key in _REPORTED if key in operation.result}
    words = f"{headline(operation)} done [op id: {operation.id}]"
    return Result(data, Group(words, *_reported(operation.result)))


_REPORTED = ("deleted", "kept", "slices", "swept", "objects")


def _reported(result: Mapping[str, Any]) -> list[RenderableType]:
    """What the agents did."""
    found: list[RenderableType] = [f"  {number(result.get('objects', 0))} objects deleted"]
    deleted = [(item["name"], item["reason"]) for item in result.get("deleted", ())]
    if deleted:
        found.append(table(("DELETED", "REASON~"), deleted, indent=2))
    slices = result.get("slices") or {}
    if slices.get("objects"):
        found.append(f"  Slices: {number(slices['objects'])}, {size(slices['size'])}")
    swept = result.get("swept")
    if swept:
        found.append(f"  Leftovers: {number(swept['objects'])} objects, {size(swept['size'])}")
        waiting = [(name, number(item["objects"])) for name, item in swept["waiting"].items()]
        if swept.get("listed"):
            found.append(f"  On storage and in no list, listed now: {', '.join(swept['listed'])}")
        if waiting:
            found.append(table(("LEFT FOR NOW", "OBJECTS>"), waiting, indent=2))
    kept = [(item["name"], item["reason"]) for item in result.get("kept", ())]
    if kept:
        found += ["Kept:", table(("NAME", "REASON~"), kept, indent=2)]
    return found


def _epoch(seconds: int) -> str:
    return moment(datetime.fromtimestamp(seconds, UTC))
