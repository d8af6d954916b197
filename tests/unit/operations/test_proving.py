"""What a proof of several replica sets finds, and what becomes of the others when one fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.clock import SystemClock
from agent.errors import RestoreFailed
from agent.operations.context import PartContext
from agent.operations.reading import Steps
from agent.operations.restore.plan import Plan, nothing
from agent.operations.scratch.restoring import Restored, Scratch
from agent.operations.verification import proving
from agent.operations.verification.asking import ALL, Share, recorded
from agent.wire.operations import Progress
from agent.wire.optime import OpTime
from agent.wire.topology import Member, Topology
from agent.wire.verdicts import Verdict
from tests.unit.operations.repositories import backup_document

AT = OpTime(T=1, I=1)
MEMBERS = (
    Member(replset="cfg", is_config=True),
    Member(replset="rs-a", shard="s0"),
    Member(replset="rs-b", shard="s1"),
)
TOOK_S = {"cfg": 1.0, "rs-a": 5.0, "rs-b": 3.0}


class Told(Share):
    """A share whose server answers what it is told to."""

    async def ask(self, found: Restored, steps: Steps) -> None:
        """It holds one collection of one document."""
        self.recovery_s = TOOK_S[self.plan.source]
        self.collections = self.documents = 1
        self.hashes = {"app": f"of {self.plan.source}"}


class Servers:
    """Stands for `Scratch`: shares of `broken` replica sets cannot be restored."""

    def __init__(self, broken: Sequence[str]) -> None:
        self.broken = broken
        self.tried: list[str] = []

    @asynccontextmanager
    async def restored(self, plan: Plan, *, routing: Any = None) -> AsyncIterator[Any]:
        """Or not."""
        self.tried.append(plan.source)
        if plan.source in self.broken:
            raise RestoreFailed("it does not fit")
        yield plan


def plans() -> list[Plan]:
    backup = backup_document("b", "o")
    return [nothing(backup, member, Topology(members=MEMBERS), AT) for member in MEMBERS]


async def prove(*broken: str, earlier: Verdict | None = None) -> tuple[Verdict, list[str]]:
    """The verdict, and whose restore was tried."""

    async def report(progress: Progress) -> None:
        return

    part = SimpleNamespace(services=SimpleNamespace(clock=SystemClock()), report=report)
    shares = [Told(plan) for plan in plans()]
    servers = Servers(broken)
    await proving.prove_shares(cast(PartContext, part), cast(Scratch, servers), shares)
    return proving.judged(shares, earlier), servers.tried


async def test_a_cluster_is_proved_when_all_of_it_is_and_takes_as_long_as_its_slowest() -> None:
    verdict, tried = await prove()
    assert tried == ["cfg", "rs-a", "rs-b"]
    assert (verdict.is_sound, verdict.recovery_s, verdict.proved_at) == (True, 5.0, AT)
    assert (verdict.collections, verdict.documents, verdict.hashes) == (3, 3, {})
    assert {share.replset: share.recovery_s for share in verdict.shares} == TOOK_S


async def test_a_shard_that_fails_is_named_and_the_others_are_looked_at_all_the_same() -> None:
    verdict, tried = await prove("rs-a")
    assert tried == ["cfg", "rs-a", "rs-b"]
    assert verdict.problems == ("rs-a: it does not fit",)
    assert (verdict.recovery_s, verdict.proved_at) == (None, None)
    assert [share.replset for share in verdict.shares] == ["cfg", "rs-b"]


async def test_no_shard_is_looked_at_where_its_routing_tables_cannot_be_restored() -> None:
    verdict, tried = await prove("cfg")
    assert tried == ["cfg"]
    assert verdict.problems == ("cfg: it does not fit",)
    assert verdict.shares == ()


@pytest.mark.parametrize(
    ("at", "problems"),
    [
        (
            AT,
            ("rs-b: app has the dbHash of rs-b, and an earlier proof of the same moment found x",),
        ),
        (OpTime(T=2, I=1), ()),
    ],
)
async def test_each_replica_set_is_compared_with_its_own_earlier_proof(
    at: OpTime, problems: tuple[str, ...]
) -> None:
    before, _ = await prove()
    shares = tuple(
        share.model_copy(update={"hashes": {"app": "x"}}) if share.replset == "rs-b" else share
        for share in before.shares
    )
    earlier = before.model_copy(update={"shares": shares, "proved_at": at})
    verdict, _ = await prove(earlier=earlier)
    assert verdict.problems == problems


@pytest.mark.parametrize("changed", ["a", "b"])
def test_very_many_hashes_are_one_that_changes_with_each(changed: str) -> None:
    hashes = {"a": "1", "b": "2"}
    assert recorded(dict(hashes), 2) == hashes
    found = recorded(dict(hashes), 1)
    assert set(found) == {ALL}
    assert recorded({**hashes, changed: "3"}, 1) != found
    assert recorded({"b": "2", "a": "1"}, 1) == found
