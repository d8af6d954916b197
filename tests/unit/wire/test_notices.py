"""Notices: what is told, once, under an id that never changes, and signed to be checked."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest

from agent.errors import ConfigError
from agent.wire.notices import Notice, body, headers, notices, signature
from agent.wire.operations import Kind, State
from agent.wire.overview import Overview
from agent.wire.settings import from_mapping
from agent.wire.timelines import Gap, GapCause
from tests.support.overviews import CLUSTER, DAY, NOW_T, a_backup, an_operation, at, good, optime


def told(overview: Overview, since: int = NOW_T - 4000) -> list[Notice]:
    return notices(overview, CLUSTER, since)


def test_what_ended_since_is_told_in_order() -> None:
    error = {"type": "StorageUnavailable", "message": "no answer", "hint": "look"}
    failed = an_operation(Kind.BACKUP, 2000, state=State.FAILED, error=error)
    done = an_operation(Kind.RESTORE, 1500)
    old, cancelled = (
        an_operation(Kind.BACKUP, 9000),
        an_operation(Kind.BACKUP, 1000, state=State.CANCELLED),
    )
    found = told(good(recent=(done, failed, old, cancelled)))
    assert [notice.event for notice in found] == ["failure", "success"]
    assert "no answer" in found[0].text
    assert found[0].details["hint"] == "look"


def test_a_verification_that_finds_harm_is_a_failure() -> None:
    found = told(good(recent=(an_operation(Kind.VERIFY, 1500, result={"harmed": 3}),)))
    assert [notice.event for notice in found] == ["failure"]
    assert "found 3 things" in found[0].text
    sound = told(good(recent=(an_operation(Kind.VERIFY, 1500, result={"harmed": 0}),)))
    assert [notice.event for notice in sound] == ["success"]


def test_a_dry_run_is_no_news() -> None:
    assert told(good(recent=(an_operation(Kind.RESTORE, 1500, spec={"dry_run": True}),))) == []


def test_the_same_cluster_gives_the_same_ids() -> None:
    overview = good(recent=(an_operation(Kind.BACKUP, 1500),))
    first, again = told(overview), told(overview)
    assert [n.id for n in first] == [n.id for n in again] != []
    assert body(first[0], "json") == body(again[0], "json")


def test_holes_are_told_unless_somebody_chose_them() -> None:
    gap = Gap(
        replset="shard-a", start=optime(90), end=optime(50), cause=GapCause.OVERRUN, at=at(40)
    )
    chosen = gap.model_copy(update={"cause": GapCause.RESTORE})
    found = told(good(gaps=(gap, chosen), recent=()))
    assert [notice.event for notice in found] == ["gap"]
    assert "oplog rolled over" in found[0].text


@pytest.mark.parametrize(("age_days", "times"), [(1.0, 0), (1.1, 1), (2.1, 1), (2.3, 2)])
def test_absence_is_told_at_the_deadline_and_each_time_it_passes_again(
    age_days: float, times: int
) -> None:
    found = told(good(backups=(a_backup(age_days * DAY),), recent=()))
    assert [notice.event for notice in found] == ["absence"] * (times > 0)
    assert all(notice.id.endswith(f".{times}") for notice in found)


def test_absence_where_there_never_was_a_backup_counts_from_when_somebody_asked() -> None:
    empty = good(backups=(), recent=())
    assert told(empty, since=NOW_T - DAY) == []
    assert [n.event for n in told(empty, since=int(NOW_T - 1.2 * DAY))] == ["absence"]


def test_a_receiver_can_check_the_signature() -> None:
    (notice,) = told(good(recent=(an_operation(Kind.BACKUP, 1500),)))
    content = body(notice, "json")
    sent = headers(notice, content, NOW_T, "secret of mine")
    signed = f"{sent['webhook-id']}.{sent['webhook-timestamp']}.".encode() + content
    wanted = base64.b64encode(hmac.new(b"secret of mine", signed, hashlib.sha256).digest())
    assert sent["webhook-signature"] == f"v1,{wanted.decode()}"
    assert json.loads(content)["type"] == "tidelog.success"


def test_the_signature_is_that_of_the_standard() -> None:
    """The example of the Standard Webhooks specification."""
    found = signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert found == "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_secret_that_is_no_base64_is_refused_without_being_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        signature("whsec_%%%", "id", 1, b"")
    assert "%%%" not in str(caught.value)


def test_slack_gets_a_sentence() -> None:
    (notice,) = told(good(recent=(an_operation(Kind.BACKUP, 1500),)))
    assert json.loads(body(notice, "slack")) == {"text": notice.text}


def test_a_webhook_may_hold_no_password() -> None:
    for url in ("https://me:word@example.com/", "ftp://example.com/", "https:///x"):
        with pytest.raises(ConfigError) as caught:
            from_mapping({"notify": {"webhooks": {"one": {"url": url}}}})
        assert "word" not in str(caught.value).replace("password", "")
