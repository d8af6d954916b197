"""Which replica set's agents verify, prove and export."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.errors import ConfigError
from agent.operations.context import LeadContext
from agent.operations.reading import one_part
from agent.wire.operations import SCRATCH, Kind, Operation


def lead(able: dict[str, list[str]]) -> LeadContext:
    """Of the replica set `cfg`; `able` are the features of one live agent a replica set."""

    async def live() -> list[Any]:
        return [SimpleNamespace(replset=name, features=found) for name, found in able.items()]

    services = SimpleNamespace(
        node=SimpleNamespace(replset="cfg"), nodes=SimpleNamespace(live=live)
    )
    return cast(LeadContext, SimpleNamespace(services=services))


def operation(kind: Kind) -> Operation:
    return Operation(
        id="a" * 24, kind=kind, name="n", spec={}, requested_at=datetime(2026, 1, 1, tzinfo=UTC)
    )


@pytest.mark.parametrize(
    ("able", "chosen"),
    [
        ({"cfg": [SCRATCH], "rs-a": [SCRATCH]}, "cfg"),
        ({"cfg": [], "rs-b": [SCRATCH], "rs-a": [SCRATCH]}, "rs-a"),
    ],
)
async def test_a_proof_is_for_the_lead_replica_set_or_else_for_one_that_can(
    able: dict[str, list[str]], chosen: str
) -> None:
    assert await one_part(lead(able), operation(Kind.PROVE)) == [chosen]


async def test_a_proof_that_nobody_can_do_is_refused_with_what_to_set() -> None:
    with pytest.raises(ConfigError, match=r"no agent has verify\.scratchDir") as raised:
        await one_part(lead({"cfg": [], "rs-a": []}), operation(Kind.PROVE))
    assert "TIDELOG_VERIFY__SCRATCHDIR" in raised.value.hint


async def test_what_needs_nothing_special_is_for_the_lead_replica_set() -> None:
    assert await one_part(lead({"rs-a": [SCRATCH]}), operation(Kind.VERIFY)) == ["cfg"]
