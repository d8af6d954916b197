"""Of leases that ended here, the others are told once a look shows that they are free."""

from __future__ import annotations

from datetime import UTC, datetime

from agent.operations.runner import told_apart
from agent.wire.leases import Lease


def lease(scope: str, owner: str) -> Lease:
    return Lease(id=scope, owner=owner, epoch=7, expires_at=datetime(2026, 1, 1, tzinfo=UTC))


def test_a_look_that_is_older_than_the_end_leaves_it_to_the_next() -> None:
    ended = {"lead/reading", "work/rs0"}
    held = {"lead/reading": lease("lead/reading", "rs0/a:1")}
    free, unseen = told_apart(ended, held, "rs0/a:1")
    assert (free, unseen) == ({"work/rs0"}, {"lead/reading"})
    assert told_apart(unseen, {}, "rs0/a:1") == ({"lead/reading"}, set())


def test_what_another_has_taken_on_is_nobody_elses_to_hear_of() -> None:
    held = {"work/rs0": lease("work/rs0", "rs0/b:1")}
    assert told_apart({"work/rs0"}, held, "rs0/a:1") == (set(), set())
