"""What is kept and why: the one decision that agents carry out and `ctl` explains, without I/O.

What flows in is what the catalogue knows: backups, the spans that the archived oplog covers, what
is being read now, and the rules. What comes out is a verdict on each backup and a *floor*: slices
that end at or before it may go, unless a kept backup names them.

A moment can be restored to when a full backup lies in the same covered span at or before it. So a
promise "from `since` on" needs in each span that reaches past `since` the newest base at or before
it (or, where there is none, the first one after it), and the slices from that base on. Everything
else is kept by counting, by hold, or because somebody reads it. The newest full backup always
stays, and of the newest span the stretch that is restorable last: a policy must never delete the
last thing that a disaster could be answered with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from typing import Final

from agent.wire.backups import Backup
from agent.wire.operations import Kind, Operation
from agent.wire.optime import ZERO, OpTime
from agent.wire.policy import KeepSettings, PolicySettings
from agent.wire.timelines import Span

LAST_OPTIME: Final = OpTime(T=0xFFFF_FFFF, I=0xFFFF_FFFF)

_PERIODS: Final[dict[str, Callable[[datetime], tuple[int, ...]]]] = {
    "daily": lambda at: (at.year, at.month, at.day),
    "weekly": lambda at: at.isocalendar()[:2],
    "monthly": lambda at: (at.year, at.month),
    "yearly": lambda at: (at.year,),
}


@dataclass(frozen=True, slots=True)
class Copy:
    """What counts of a backup. Those of one `series` are counted together."""

    name: str
    at: OpTime
    series: tuple[object, ...] = ()
    is_base: bool = True
    """Slices can carry a restore on from it."""
    hold: str | None = None


def copy_of(backup: Backup) -> Copy:
    """What counts of a published backup."""
    return Copy(
        name=backup.id,
        at=backup.last_write,
        series=(backup.profile, backup.type, backup.ns, backup.exclude_ns),
        is_base=not backup.is_selective,
        hold=backup.hold,
    )


@dataclass(frozen=True, slots=True)
class Reading:
    """What an operation that is not over reads: a backup, and slices after a moment."""

    op_id: str
    words: str
    backup: str | None = None
    slices_after: OpTime | None = None


REPLAY_BASE: Final = "base"
"""Field of the result of an `oplog-replay` over a sharded cluster: the backup that tells where
documents belonged."""
REPLAY_LOOK_BACK_S: Final = 900
"""How long before the span of an `oplog-replay` its transactions may have begun: many times what
the server lets one be open."""
_READERS: Final = {Kind.RESTORE: "backup", Kind.PROVE: "name", Kind.EXPORT: "name"}
"""What reads one backup, and the field that names it."""


def readings(operations: Iterable[Operation], backups: Mapping[str, OpTime]) -> list[Reading]:
    """What operations in progress read; `backups` are names with their `last_write`. A
    verification of everything protects nothing: it looks again at what went meanwhile."""
    found = []
    for operation in operations:
        words = f"{operation.kind} {operation.name} is reading it"
        if operation.kind in _READERS:
            name = str(operation.spec.get(_READERS[operation.kind]))
            after = backups.get(name, ZERO) if operation.spec.get("time") else None
            found.append(Reading(operation.id, words, name, after))
        elif operation.kind is Kind.VERIFY:
            names = operation.spec.get("names", ())
            found += [Reading(operation.id, words, name) for name in names]
        elif operation.kind is Kind.OPLOG_REPLAY:
            start = OpTime.from_document(operation.spec["start"])
            after = OpTime(T=max(0, start.T - REPLAY_LOOK_BACK_S), I=start.I)
            base = operation.result.get(REPLAY_BASE)
            after = min(after, backups.get(str(base), after))
            found.append(Reading(operation.id, words, base, after))
    return found


@dataclass(frozen=True, slots=True)
class Rules:
    """What a policy says, or a person who deletes."""

    keep: KeepSettings = field(default_factory=KeepSettings)
    since: OpTime | None = None
    """Every restorable moment from here on stays so."""
    zone: tzinfo | None = None
    older_than: OpTime | None = None
    """A person's wish: in place of `keep`, whatever is older goes."""
    guards_newest: bool = True
    """The newest full backup stays."""
    takes_all_slices: bool = False
    """PITR is off, and nothing of what it left is wanted."""
    promise: str = "PITR"
    """What needs the bases, for the reasons."""


def rules_of(policy: PolicySettings, now: datetime) -> Rules:
    """The policy's own rules at a moment."""
    return Rules(
        keep=policy.keep,
        since=window_start(policy, now),
        zone=policy.zone,
        promise="the PITR window",
    )


def window_start(policy: PolicySettings, now: datetime) -> OpTime | None:
    """Where the promise of the policy begins."""
    if policy.pitr_window is None:
        return None
    return OpTime(T=max(0, int(now.timestamp() - policy.pitr_window)), I=0)


@dataclass(frozen=True, slots=True)
class Verdict:
    """On one backup: why it stays, or why it goes."""

    name: str
    stays: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """On all of them, in the order given, and on slices."""

    verdicts: tuple[Verdict, ...]
    floor: OpTime | None
    """Slices that end at or before it go; None: all stay."""
    floor_reason: str

    @property
    def going(self) -> tuple[str, ...]:
        """The backups that go."""
        return tuple(verdict.name for verdict in self.verdicts if not verdict.stays)


def decide(
    copies: Sequence[Copy],
    spans: Sequence[Span],
    rules: Rules,
    reading: Sequence[Reading] = (),
    *,
    only: frozenset[str] | None = None,
) -> Decision:
    """What stays and why. `only` narrows what may go to these names."""
    reasons: dict[str, list[str]] = {copy.name: [] for copy in copies}
    for copy in copies:
        if copy.hold is not None:
            reasons[copy.name].append(f"on hold: {copy.hold}")
        reasons[copy.name] += [r.words for r in reading if r.backup == copy.name]
    counted = _counted(copies, rules)
    for name, words in counted.items():
        reasons[name] += words
    bases = [copy for copy in copies if copy.is_base]
    if rules.guards_newest and bases:
        newest = max(bases, key=lambda copy: (copy.at, copy.name))
        reasons[newest.name].append("the newest full backup always stays")
    if rules.since is not None:
        for copy in bases_for(spans, bases, rules.since):
            since = _moment(rules.since)
            reasons[copy.name].append(f"{rules.promise} needs it as a base from {since} on")
    if only is not None:
        for copy in copies:
            if copy.name not in only and not reasons[copy.name]:
                reasons[copy.name].append("not meant")
    verdicts = tuple(
        Verdict(copy.name, bool(reasons[copy.name]), tuple(reasons[copy.name] or [_why(rules)]))
        for copy in copies
    )
    floor, why = _floor(copies, counted, spans, rules)
    for one in reading:
        if one.slices_after is not None and floor is not None and one.slices_after < floor:
            floor, why = one.slices_after, one.words.replace(" it", " slices")
    return Decision(verdicts, floor, why)


def _why(rules: Rules) -> str:
    if rules.older_than == LAST_OPTIME:
        return "asked for by name"
    if rules.older_than is not None:
        return f"older than {_moment(rules.older_than)}"
    return "no rule keeps it"


def _counted(copies: Sequence[Copy], rules: Rules) -> dict[str, list[str]]:
    """Kept by number or by age, with the rules that keep each."""
    found: dict[str, list[str]] = {}
    if rules.older_than is not None:
        words = f"not older than {_moment(rules.older_than)}"
        return {copy.name: [words] for copy in copies if copy.at >= rules.older_than}
    if not rules.keep.is_set:
        return {copy.name: ["no rule says that backups go"] for copy in copies}
    series: dict[tuple[object, ...], list[Copy]] = {}
    for copy in copies:
        series.setdefault(copy.series, []).append(copy)
    for members in series.values():
        ordered = sorted(members, key=lambda copy: (copy.at, copy.name), reverse=True)
        for number, copy in enumerate(ordered[: rules.keep.last or 0], 1):
            found.setdefault(copy.name, []).append(f"keep.last {number} of {rules.keep.last}")
        for name, period in _PERIODS.items():
            for copy, words in _of_periods(ordered, name, period, rules):
                found.setdefault(copy.name, []).append(words)
    return found


def _of_periods(
    newest_first: Sequence[Copy],
    name: str,
    period: Callable[[datetime], tuple[int, ...]],
    rules: Rules,
) -> list[tuple[Copy, str]]:
    wanted: int = getattr(rules.keep, name) or 0
    found: dict[tuple[int, ...], tuple[Copy, str]] = {}
    for copy in newest_first:
        if len(found) >= wanted:
            break
        of = period(copy.at.wall().astimezone(rules.zone))
        if of not in found:
            found[of] = (copy, f"keep.{name} {len(found) + 1} of {wanted}")
    return list(found.values())


def bases_for(spans: Sequence[Span], bases: Sequence[Copy], since: OpTime) -> list[Copy]:
    """The backups that the promise "restorable from `since` on" rests on: one a span at most."""
    found = []
    for number, span in enumerate(spans):
        if span.end <= since and number < len(spans) - 1:
            continue
        inside = sorted(
            (copy for copy in bases if span.start <= copy.at <= span.end),
            key=lambda copy: (copy.at, copy.name),
        )
        if inside:
            before = [copy for copy in inside if copy.at <= since]
            found.append(before[-1] if before else inside[0])
    return found


def _floor(
    copies: Sequence[Copy],
    counted: Mapping[str, list[str]],
    spans: Sequence[Span],
    rules: Rules,
) -> tuple[OpTime | None, str]:
    bases = [copy for copy in copies if copy.is_base]
    if rules.takes_all_slices:
        return LAST_OPTIME, "PITR is off"
    if rules.since is not None:
        needed = bases_for(spans, bases, rules.since)
        first = min(needed, key=lambda copy: copy.at, default=None)
        if first is None or first.at >= rules.since:
            return rules.since, f"{rules.promise} reaches back to {_moment(rules.since)}"
        return first.at, f"they carry on from {first.name}, the base of {rules.promise}"
    if not rules.keep.is_set:
        return None, "no rule says that slices go"
    kept = [copy for copy in bases if copy.name in counted]
    if not kept:
        return None, "there is no full backup that they could carry on from"
    oldest = min(kept, key=lambda copy: copy.at)
    return oldest.at, f"they carry on from {oldest.name}, the oldest backup that is kept"


def restorable_spans(
    spans: Sequence[Span], bases: Iterable[OpTime], since: OpTime = ZERO
) -> list[Span]:
    """The stretches from `since` on that can be restored to, each from a base in its span on."""
    ordered = sorted(bases)
    found = []
    for span in spans:
        base = next((at for at in ordered if span.start <= at <= span.end), None)
        if base is not None and max(base, since) <= span.end:
            found.append(Span(start=max(base, since), end=span.end))
    return found


def trimmed(spans: Sequence[Span], floor: OpTime) -> list[Span]:
    """The spans as they are once the slices up to the floor are gone."""
    return [Span(start=max(span.start, floor), end=span.end) for span in spans if span.end > floor]


def lost_spans(
    spans: Sequence[Span], before: Iterable[OpTime], after: Iterable[OpTime]
) -> list[Span]:
    """What can be restored to with the bases before, and cannot with those after."""
    found = []
    left = {span.end: span.start for span in restorable_spans(spans, after)}
    for span in restorable_spans(spans, before):
        start = left.get(span.end)
        if start is None:
            found.append(span)
        elif span.start < start:
            found.append(Span(start=span.start, end=start))
    return found


def forecast(
    copies: Sequence[Copy],
    spans: Sequence[Span],
    policy: PolicySettings,
    now: datetime,
    horizon: timedelta,
) -> dict[str, datetime]:
    """When each backup will go, if backups are taken as scheduled and PITR goes on: the first day
    on which the policy keeps it no more. Those that stay longer than the horizon are missing."""
    from agent.wire.schedules import due  # heavy, and needed only to explain

    gone: dict[str, datetime] = {}
    alive = list(copies)
    tasks = {name: task for name, task in policy.backups.items() if task.enabled}
    at = now
    while at < now + horizon and any(copy in alive for copy in copies):
        before, at = at, at + timedelta(days=1)
        for name, task in tasks.items():
            found = due(task.schedule, policy.zone, before, at)
            if found is not None:
                series = (task.profile, "logical", task.ns, task.exclude_ns)
                moment = OpTime(T=int(found.latest.timestamp()), I=0)
                is_base = not (task.ns or task.exclude_ns)
                alive.append(Copy(f"{name} {moment}", moment, series, is_base, task.hold))
        end = OpTime(T=int(at.timestamp()), I=0)
        later = [*spans[:-1], Span(start=spans[-1].start, end=end)] if spans else []
        going = set(decide(alive, later, rules_of(policy, at)).going)
        gone |= {copy.name: at for copy in copies if copy.name in going and copy.name not in gone}
        alive = [copy for copy in alive if copy.name not in going]
    return gone


def _moment(at: OpTime) -> str:
    return at.wall().strftime("%Y-%m-%dT%H:%M:%SZ")
