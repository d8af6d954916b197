"""What is kept and why: the rules one by one, and three simulated years of a policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.wire.operations import Kind, Operation
from agent.wire.optime import OpTime
from agent.wire.policy import KeepSettings, PolicySettings
from agent.wire.retention import (
    LAST_OPTIME,
    REPLAY_BASE,
    REPLAY_LOOK_BACK_S,
    Copy,
    Decision,
    Rules,
    decide,
    forecast,
    lost_spans,
    readings,
    restorable_spans,
    rules_of,
    trimmed,
)
from agent.wire.timelines import Span

START = datetime(2026, 1, 1, 3, tzinfo=UTC)
DAY = timedelta(days=1)
DAY_S = 86400
HOUR_S = 3600


def optime(at: datetime) -> OpTime:
    return OpTime(T=int(at.timestamp()), I=1)


def day(number: float) -> OpTime:
    return optime(START + number * DAY)


def span(start: float, end: float) -> Span:
    return Span(start=day(start), end=day(end))


def copy(number: float, **changes: Any) -> Copy:
    return Copy(name=f"d{number:g}", at=day(number), **changes)


def kept(decision: Decision) -> list[str]:
    return [verdict.name for verdict in decision.verdicts if verdict.stays]


def why(decision: Decision, name: str) -> str:
    return "; ".join(next(v.reasons for v in decision.verdicts if v.name == name))


DAYS = [copy(number) for number in range(40)]


def test_without_rules_everything_stays() -> None:
    found = decide(DAYS, [span(0, 40)], Rules(zone=UTC))
    assert kept(found) == [one.name for one in DAYS]
    assert found.floor is None
    assert why(found, "d3") == "no rule says that backups go"


def test_each_rule_keeps_the_last_one_of_its_periods() -> None:
    keep = KeepSettings(last=2, daily=3, weekly=2, monthly=2, yearly=1)
    found = decide(DAYS, [], Rules(keep=keep, zone=UTC))
    # d39 is Monday, 9 February 2026; d38 the Sunday before, d30 the last day of January.
    assert kept(found) == ["d30", "d37", "d38", "d39"]
    assert why(found, "d30") == "keep.monthly 2 of 2"
    assert why(found, "d38") == "keep.last 2 of 2; keep.daily 2 of 3; keep.weekly 2 of 2"
    assert why(found, "d29") == "no rule keeps it"


def test_days_are_those_of_the_time_zone() -> None:
    from agent.wire.schedules import zone_of

    late = [replace(copy(0), at=optime(datetime(2026, 1, 1, hour, tzinfo=UTC))) for hour in (3, 22)]
    late = [replace(one, name=str(number)) for number, one in enumerate(late)]
    keep = KeepSettings(daily=2)
    assert kept(decide(late, [], Rules(keep=keep, zone=UTC))) == ["1"]
    assert kept(decide(late, [], Rules(keep=keep, zone=zone_of("Asia/Tokyo")))) == ["0", "1"]


def test_series_do_not_push_each_other_out() -> None:
    partly = [copy(n + 0.5, series=("shop",), is_base=False) for n in range(5)]
    found = decide([*DAYS[:5], *partly], [], Rules(keep=KeepSettings(last=1), zone=UTC))
    assert kept(found) == ["d4", "d4.5"]


def test_a_hold_and_a_reader_keep() -> None:
    held = [replace(DAYS[0], hold="audit"), *DAYS[1:]]
    spec = {"backup": "d1", "time": {"T": 1, "I": 1}}
    restore = Operation(id="x" * 24, kind=Kind.RESTORE, name="r", spec=spec, requested_at=START)
    reading = readings([restore], {one.name: one.at for one in held})
    found = decide(held, [], Rules(keep=KeepSettings(last=1), zone=UTC), reading)
    assert kept(found) == ["d0", "d1", "d39"]
    assert why(found, "d0") == "on hold: audit"
    assert why(found, "d1") == "restore r is reading it"


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        (Kind.PROVE, {"name": "d1"}),
        (Kind.EXPORT, {"name": "d1", "directory": "x"}),
        (Kind.VERIFY, {"names": ["d1"]}),
    ],
)
def test_what_a_proof_an_export_or_a_verification_reads_stays(
    kind: Kind, spec: dict[str, Any]
) -> None:
    reader = Operation(id="x" * 24, kind=kind, name="r", spec=spec, requested_at=START)
    rules = Rules(keep=KeepSettings(last=1), zone=UTC)
    assert kept(decide(DAYS, [], rules, readings([reader], {}))) == ["d1", "d39"]


def test_a_verification_of_everything_keeps_nothing() -> None:
    reader = Operation(id="x" * 24, kind=Kind.VERIFY, name="r", spec={}, requested_at=START)
    assert readings([reader], {}) == []


def test_readers_keep_their_slices() -> None:
    start = day(5).to_document()
    replay = Operation(
        id="x" * 24,
        kind=Kind.OPLOG_REPLAY,
        name="r",
        spec={"start": start, "end": day(6).to_document()},
        requested_at=START,
    )
    rules = Rules(since=day(35), zone=UTC)
    assert decide(DAYS, [span(0, 40)], rules).floor == day(35)
    found = decide(DAYS, [span(0, 40)], rules, readings([replay], {}))
    # From before it, too: where its transactions may have begun.
    before = OpTime(T=day(5).T - REPLAY_LOOK_BACK_S, I=day(5).I)
    assert found.floor == before
    assert found.floor_reason == "oplog-replay r is reading slices"
    based = replay.model_copy(update={"result": {REPLAY_BASE: "d3"}})
    held = {one.name: one.at for one in DAYS}
    found = decide(DAYS, [span(0, 40)], rules, readings([based], held))
    assert found.floor == held["d3"]
    assert "d3" in kept(found)


def test_the_newest_full_backup_stays_whatever_the_rules_say() -> None:
    partly = copy(50, series=("shop",), is_base=False)
    found = decide([*DAYS[:3], partly], [], Rules(keep=KeepSettings(last=0), zone=UTC))
    assert kept(found) == ["d2"]
    assert why(found, "d2") == "the newest full backup always stays"


def test_the_window_keeps_one_base_and_the_slices_after_it() -> None:
    rules = Rules(keep=KeepSettings(last=1), since=day(30.5), zone=UTC, promise="the PITR window")
    found = decide(DAYS, [span(0, 40)], rules)
    assert kept(found) == ["d30", "d39"]
    assert found.floor == day(30)
    assert why(found, "d30").startswith("the PITR window needs it as a base from 2026-01-31T15")
    assert found.floor_reason == "they carry on from d30, the base of the PITR window"


def test_a_base_on_the_other_side_of_a_gap_does_not_count() -> None:
    rules = Rules(keep=KeepSettings(last=1), since=day(30.5), zone=UTC)
    found = decide(DAYS, [span(0, 30.2), span(30.3, 40)], rules)
    assert kept(found) == ["d31", "d39"]
    assert found.floor == day(30.5), "slices before the promise carry nothing on"


def test_selective_backups_are_no_bases() -> None:
    partly = [replace(one, is_base=one.name in ("d20", "d39")) for one in DAYS]
    found = decide(partly, [span(0, 40)], Rules(keep=KeepSettings(last=1), since=day(30), zone=UTC))
    assert kept(found) == ["d20", "d39"]


def test_the_last_restorable_stretch_outlives_a_window_that_has_passed() -> None:
    rules = Rules(keep=KeepSettings(last=1), since=day(300), zone=UTC)
    found = decide(DAYS[:30], [span(0, 5), span(10, 29.7)], rules)
    assert "d29" in kept(found)
    assert found.floor == day(29)


def test_without_a_window_slices_stay_from_the_oldest_kept_backup_on() -> None:
    held = [replace(DAYS[0], hold="audit"), *DAYS[1:]]
    found = decide(held, [span(0, 40)], Rules(keep=KeepSettings(last=3), zone=UTC))
    assert found.floor == day(37)
    assert kept(found) == ["d0", "d37", "d38", "d39"]


def test_by_age_what_is_older_goes_but_the_base_of_what_is_younger() -> None:
    rules = Rules(older_than=day(30.5), since=day(30.5), zone=UTC)
    found = decide(DAYS, [span(0, 40)], rules)
    assert kept(found) == [f"d{n}" for n in range(30, 40)]
    assert found.floor == day(30)
    assert why(found, "d29") == "older than 2026-01-31T15:00:00Z"
    assert kept(decide(DAYS, [], rules)) == [f"d{n}" for n in range(31, 40)], "nothing to carry on"


def test_only_what_is_meant_goes() -> None:
    rules = Rules(older_than=LAST_OPTIME, guards_newest=False, zone=UTC)
    found = decide(DAYS, [], rules, only=frozenset({"d3", "d39"}))
    assert found.going == ("d3", "d39")


def test_everything_goes_where_pitr_is_off() -> None:
    assert decide(DAYS, [span(0, 40)], Rules(takes_all_slices=True, zone=UTC)).floor == LAST_OPTIME


def test_what_a_deletion_would_take_away() -> None:
    spans = [span(0, 10), span(20, 30)]
    before = [day(2), day(5), day(22)]
    assert lost_spans(spans, before, [day(5), day(22)]) == [span(2, 5)]
    assert lost_spans(spans, before, [day(2), day(22)]) == []
    assert lost_spans(spans, before, [day(2), day(5)]) == [span(22, 30)]


def test_a_forecast_says_when_each_goes() -> None:
    policy = PolicySettings.model_validate(
        {"backups": {"nightly": {"schedule": "0 3 * * *"}}, "keep": {"last": 3}}
    )
    series = ("main", "logical", (), ())
    copies = [replace(copy(n), series=series) for n in range(3)]
    found = forecast(copies, [], policy, START + 2.5 * DAY, timedelta(days=30))
    assert [(found[f"d{n}"] - START).days for n in range(3)] == [3, 4, 5]


@dataclass
class Life:
    """A repository and its policy, day after day."""

    policy: PolicySettings
    now: datetime = START
    copies: list[Copy] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    slices: list[OpTime] = field(default_factory=list)
    """Their ends; one an interval."""
    taken: int = 0
    last_of: dict[tuple[str, bool], dict[Any, str]] = field(default_factory=dict)
    """Of each rule and series, the last backup of each period, ascending."""
    reach: list[tuple[OpTime, OpTime]] = field(default_factory=list)
    """Every moment sampled that could once be restored to, with the start of its span."""

    def pass_time(self, step: timedelta, *, slicing: bool) -> None:
        """Slices are archived meanwhile, or a gap comes up."""
        before, self.now = self.now, self.now + step
        if not slicing:
            return
        if not self.spans or self.spans[-1].end < optime(before):
            self.spans.append(Span(start=optime(before), end=optime(self.now)))
        else:
            self.spans[-1] = Span(start=self.spans[-1].start, end=optime(self.now))
        self.slices.append(optime(self.now))
        last = self.spans[-1]
        if any(last.start <= one.at for one in self.copies if one.is_base):
            self.reach.append((optime(self.now), last.start))

    def back_up(self, *, hold: str | None, is_base: bool) -> None:
        made = Copy(
            f"b{self.taken}",
            optime(self.now),
            series=() if is_base else ("shop",),
            is_base=is_base,
            hold=hold,
        )
        self.copies.append(made)
        self.taken += 1
        at = self.now
        for rule, period in (
            ("last", self.taken),
            ("daily", at.date()),
            ("weekly", at.isocalendar()[:2]),
            ("monthly", (at.year, at.month)),
            ("yearly", at.year),
        ):
            self.last_of.setdefault((rule, is_base), {})[period] = made.name

    def retain(self, reading: Sequence[Any] = ()) -> None:
        """What the agents do, and what must hold afterwards."""
        before = list(self.copies)
        found = decide(self.copies, self.spans, rules_of(self.policy, self.now), reading)
        self.copies = [one for one in self.copies if one.name not in found.going]
        if found.floor is not None:
            self.slices = [end for end in self.slices if end > found.floor]
            self.spans = trimmed(self.spans, found.floor)
        self._check(before)

    def _check(self, before: Sequence[Copy]) -> None:
        window_s = self.policy.pitr_window
        floor = OpTime(T=0, I=0)
        if window_s is not None:
            floor = OpTime(T=int(self.now.timestamp() - window_s), I=0)
            self._check_window(floor, window_s)
        assert all(one in self.copies for one in before if one.hold)
        bases = [one for one in before if one.is_base]
        assert not bases or bases[-1] in self.copies, "the newest full backup is gone"
        self._check_counts()

    def _check_window(self, floor: OpTime, window_s: float) -> None:
        bases = [one.at for one in self.copies if one.is_base]
        able = restorable_spans(self.spans, bases)
        self.reach = [(at, start) for at, start in self.reach if at >= floor]
        for at, _ in self.reach:
            assert any(span.start <= at <= span.end for span in able), f"{at} is lost"
            after = [end for end in self.slices if end >= at]
            assert after, f"the slice with {at} is gone"
        # Nothing older stays than what the oldest promised moment is carried on from.
        oldest = min((span.start for span in self.spans), default=floor)
        needed = [b for b in bases if b <= floor]
        lowest = min([floor, *needed, *bases[-1:]])
        assert all(end > lowest for end in self.slices)
        assert oldest >= lowest or not self.slices

    def _check_counts(self) -> None:
        keep, alive = self.policy.keep, {one.name for one in self.copies}
        for (rule, _), periods in self.last_of.items():
            wanted = getattr(keep, rule) or 0
            for name in islice(reversed(periods.values()), wanted):
                assert name in alive, f"{name} of keep.{rule} {wanted} is gone"


counts = st.none() | st.integers(0, 5)
keeps = st.fixed_dictionaries(
    dict.fromkeys(("last", "daily", "weekly", "monthly", "yearly"), counts)
)
policies = st.builds(
    lambda keep, window: PolicySettings.model_validate(
        {
            "keep": {name: count for name, count in keep.items() if count is not None},
            **({} if window is None else {"pitrWindow": window * DAY_S}),
        }
    ),
    keeps,
    st.none() | st.integers(1, 40),
)
weeks = st.tuples(
    st.sampled_from([12, 24, 24, 24, 48]),  # hours between retentions in this stretch
    st.integers(0, 9),  # 0: slicing stands still at the beginning of the stretch
    st.integers(0, 9),  # 0: no backups; 1: selective ones only; 2: one on hold
)


@settings(max_examples=6, deadline=None)
@given(policies, st.lists(weeks, min_size=36, max_size=36))
def test_three_years_of_any_policy_keep_every_promise(
    policy: PolicySettings, months: list[tuple[int, int, int]]
) -> None:
    """36 stretches of a month: more than three years."""
    life = Life(policy)
    for hours, slicing, backups in months:
        step = timedelta(hours=hours)
        for turn in range(int(timedelta(days=32) / step)):
            life.pass_time(step, slicing=slicing > 0 or turn > 2)
            if backups > 1 or (backups == 1 and turn % 2):
                hold = "audit" if backups == 2 and turn == 3 else None
                life.back_up(hold=hold, is_base=backups != 1)
            life.retain()
    assert life.now - START > timedelta(days=3 * 365)
    if policy.keep.is_set:
        limit = 2 * sum(getattr(policy.keep, n) or 0 for n in type(policy.keep).model_fields)
        holds = sum(one.hold is not None for one in life.copies)
        assert len(life.copies) <= limit + holds + len(life.spans) + 1


@pytest.mark.parametrize("name", ["last", "daily", "weekly", "monthly", "yearly"])
def test_any_single_rule_counts_as_rules(name: str) -> None:
    assert KeepSettings.model_validate({name: 0}).is_set
    assert not KeepSettings().is_set
