"""Who is chosen: by priority, role, lag, and never somebody who cannot."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.coordination.election import bid_delay_s, preferred_to, rank, rank_leads
from agent.wire.nodes import MAX_LAG_S, STALE_AFTER_S, NodeStatus, Role
from agent.wire.operations import Kind


def node(name: str, role: Role = Role.SECONDARY, **fields: Any) -> NodeStatus:
    return NodeStatus(
        id=f"rs0/{name}:27017",
        replset="rs0",
        host=f"{name}:27017",
        role=role,
        agent_version="1",
        mongodb_version="6.0.5",
        **fields,
    )


def names(ranking: list[str]) -> list[str]:
    return [node_id.removeprefix("rs0/").removesuffix(":27017") for node_id in ranking]


def test_hidden_before_secondary_before_primary() -> None:
    nodes = [node("p", Role.PRIMARY), node("s"), node("h", Role.HIDDEN)]
    assert names(rank(nodes, kind=Kind.BACKUP)) == ["h", "s", "p"]


@pytest.mark.parametrize("role", [Role.DELAYED, Role.STARTUP, Role.DOWN])
def test_delayed_starting_and_dead_nodes_are_never_chosen(role: Role) -> None:
    assert rank([node("x", role)], kind=Kind.BACKUP) == []
    assert rank([node("x", role, priority=10.0)], kind=Kind.BACKUP) == []


def test_stale_agents_are_never_chosen() -> None:
    assert rank([node("x", age_s=STALE_AFTER_S)], kind=Kind.BACKUP) == []
    assert rank_leads([node("x", age_s=STALE_AFTER_S)]) == []


def test_a_priority_that_is_set_beats_the_role() -> None:
    nodes = [node("p", Role.PRIMARY, priority=3.0), node("h", Role.HIDDEN), node("s", priority=2.5)]
    assert names(rank(nodes, kind=Kind.BACKUP)) == ["p", "s", "h"]


def test_priority_zero_excludes() -> None:
    assert names(rank([node("a", priority=0.0), node("b")], kind=Kind.BACKUP)) == ["b"]


def test_among_equals_the_one_that_fewest_copy_from() -> None:
    nodes = [node("a", copied_by=1), node("b"), node("c", copied_by=2)]
    assert names(rank(nodes, kind=Kind.BACKUP)) == ["b", "a", "c"]
    nodes += [node("d", lag_s=11.0), node("h", Role.HIDDEN, copied_by=3)]
    assert names(rank(nodes, kind=Kind.BACKUP)) == ["h", "b", "a", "c", "d"]


def test_being_copied_from_takes_no_work_from_whoever_has_it() -> None:
    nodes = [node("a", copied_by=1), node("b")]
    assert preferred_to("rs0/a:27017", nodes) == []


def test_a_node_far_behind_comes_last_whatever_its_priority() -> None:
    nodes = [node("h", Role.HIDDEN, lag_s=MAX_LAG_S + 1), node("p", Role.PRIMARY)]
    assert names(rank(nodes, kind=Kind.BACKUP)) == ["p", "h"]


def test_among_equals_the_one_with_less_lag_and_then_the_first_by_name() -> None:
    nodes = [node("c", lag_s=1), node("a", lag_s=30), node("b", lag_s=2)]
    assert names(rank(nodes, kind=Kind.BACKUP)) == ["b", "c", "a"]


def test_another_is_preferred_by_what_lasts_not_by_lag_or_name() -> None:
    nodes = [node("b"), node("a"), node("h", Role.HIDDEN), node("p", Role.PRIMARY, lag_s=30)]
    assert [n.host for n in preferred_to("rs0/h:27017", nodes)] == []
    assert [n.host for n in preferred_to("rs0/b:27017", nodes)] == ["h:27017"]
    assert [n.host for n in preferred_to("rs0/p:27017", nodes)] == ["h:27017", "a:27017", "b:27017"]
    late = [node("late", lag_s=MAX_LAG_S + 1), node("p", Role.PRIMARY)]
    assert [n.host for n in preferred_to("rs0/late:27017", late)] == ["p:27017"]


@pytest.mark.parametrize("own", [node("x", Role.DELAYED), node("x", priority=0.0)])
def test_all_that_may_are_preferred_to_one_that_may_not(own: NodeStatus) -> None:
    nodes = [own, node("p", Role.PRIMARY), node("s"), node("stale", age_s=STALE_AFTER_S)]
    assert [n.host for n in preferred_to(own.id, nodes)] == ["s:27017", "p:27017"]


def test_only_the_primary_restores() -> None:
    nodes = [node("p", Role.PRIMARY), node("s"), node("h", Role.HIDDEN)]
    assert names(rank(nodes, kind=Kind.RESTORE)) == ["p"]
    assert rank([node("s")], kind=Kind.RESTORE) == []


def test_only_the_primary_restores_even_when_it_is_excluded_from_backups() -> None:
    assert names(rank([node("p", Role.PRIMARY, priority=0.0)], kind=Kind.RESTORE)) == ["p"]


def test_what_only_reads_is_done_by_any_live_agent_that_has_what_it_takes() -> None:
    able = node("x", Role.DOWN, features=("scratch",))
    nodes = [node("p", Role.PRIMARY), node("z", priority=0.0), able, node("d", age_s=60)]
    assert set(names(rank(nodes, kind=Kind.VERIFY))) == {"p", "z", "x"}
    assert names(rank(nodes, kind=Kind.PROVE)) == ["x"]
    assert rank(nodes, kind=Kind.EXPORT) == []


def test_any_live_agent_may_lead_but_the_fit_come_first() -> None:
    nodes = [node("d", Role.DELAYED), node("p", Role.PRIMARY), node("x", Role.DOWN), node("s")]
    assert names(rank_leads(nodes)) == ["s", "p", "d", "x"]


def test_the_best_bids_at_once_and_each_later_one_later_within_bounds() -> None:
    delays = [bid_delay_s(position) for position in range(60)]
    assert delays[0] == 0
    assert delays[1] == pytest.approx(0.4)
    assert delays == sorted(delays)
    assert delays[-1] <= 4.0


statuses = st.builds(
    node,
    st.text("abcdef", min_size=1, max_size=3),
    st.sampled_from(Role),
    lag_s=st.floats(0, 200),
    priority=st.none() | st.floats(-1, 5),
    age_s=st.floats(0, 30),
)


@given(st.lists(statuses, unique_by=lambda status: status.id), st.randoms())
def test_every_agent_ranks_alike_whatever_order_it_reads(
    nodes: list[NodeStatus], shuffled: random.Random
) -> None:
    order = list(nodes)
    shuffled.shuffle(order)
    for kind in Kind:
        ranking = rank(nodes, kind=kind)
        assert ranking == rank(order, kind=kind)
        assert len(set(ranking)) == len(ranking)
        assert set(ranking) <= {status.id for status in nodes if status.is_live}
    assert rank_leads(nodes) == rank_leads(order)
