"""What a restore notes in the repository it reads from."""

from __future__ import annotations

from typing import Any

from agent.operations.restore.state import Stage, State, StateKeeper
from agent.wire.optime import OpTime
from tests.support.vaults import Vaults


async def test_a_lost_first_key_stops_no_restore_that_another_key_allows() -> None:
    """Its records would be sealed under every key of the policy: they are left out then."""
    vaults, recorded = Vaults(), []

    async def record(change: dict[str, Any]) -> None:
        recorded.append(change["state"]["stage"])

    async def noted(name: str) -> set[str]:
        storage = await vaults.open()
        keeper = StateKeeper(
            State(),
            record=record,
            storage=storage,
            clock=vaults.clock,
            name=name,
            replset="rs0",
            epoch=1,
        )
        before = set(vaults.objects.bodies)
        await keeper.touch(OpTime(T=1, I=1))
        await keeper.save(is_milestone=True, stage=Stage.REPLAYED)
        return {key for key in set(vaults.objects.bodies) - before if key.startswith("restores/")}

    await vaults.policy("KEY", "OTHER")
    assert len(await noted("2026-11-22T00:00:00Z")) == 2
    del vaults.environment["KEY"]
    assert await noted("2026-11-22T00:00:01Z") == set()
    assert recorded == [Stage.REPLAYED, Stage.REPLAYED]
