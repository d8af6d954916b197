"""The page as text: says the truth first, and escapes what others wrote."""

from __future__ import annotations

import json
import re

import pytest

from agent.web.health import readiness
from agent.web.metrics import exposition
from agent.web.overview_json import overview_json
from agent.web.page import render_main, render_page
from agent.wire import places, profiles
from agent.wire.operations import Kind, State
from agent.wire.settings import Settings
from tests.support.overviews import HOUR, a_backup, an_operation, good, holed, view_of


def test_a_good_cluster_is_told_in_one_sentence() -> None:
    text = render_page(view_of(good()))
    assert "You are safe" in text
    assert "any moment up to <time>2026-11-22 03:15:59 UTC</time>" in text
    assert 'class="verdict safe"' in text


def test_what_is_wrong_comes_with_what_to_do() -> None:
    text = re.sub(r"</?span[^>]*>", "", render_main(view_of(holed())))
    assert "does not answer: connection refused" in text
    assert "check the endpoint" in text
    assert "systemctl status tidelog-agent" in text


def test_without_a_backup_nobody_is_called_safe() -> None:
    text = render_main(view_of(good(backups=(), runs=(), settings=Settings())))
    assert "You are not safe" in text
    assert "Nothing can be restored." in text


def test_without_a_reading_nothing_is_claimed() -> None:
    text = render_page(view_of(None, error="the control database does not answer"))
    assert "Nothing is known" in text
    assert "the control database does not answer" in text
    assert "safe" not in text.replace("unsafe", "").lower().partition("<main")[2]


def test_an_old_reading_says_so() -> None:
    assert "As of 50 s ago: no primary" in render_main(
        view_of(good(), age_s=50.0, error="no primary")
    )


def test_what_others_wrote_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    error = {"type": "x", "message": evil}
    failed = an_operation(Kind.BACKUP, 5, name=evil, state=State.FAILED, error=error)
    text = render_main(view_of(good(recent=(failed,))))
    assert evil not in text
    assert "&lt;script&gt;" in text


def test_the_page_needs_nothing_from_elsewhere_and_no_inline_code() -> None:
    text = render_page(view_of(holed()))
    for word in ("http://", "https://", "style=", "onclick", "<script>"):
        assert word not in text.replace("https://hooks", "")


def test_the_json_says_the_same() -> None:
    found = json.loads(json.dumps(overview_json(view_of(holed()))))
    assert found["safety"]["level"] == "risk"
    assert found["running"][0]["progress"]["eta_s"] > 0
    assert len(found["backups"]) == 13
    proved = [item["name"] for item in found["backups"] if item["proved_at"]]
    assert proved == ["2026-11-20T01:51:07Z"]
    empty = json.loads(json.dumps(overview_json(view_of(good(backups=(), runs=())))))
    assert empty["safety"]["rpo_s"] is None


def test_readiness_has_reasons() -> None:
    view = view_of(good())
    assert readiness(view)["ready"] is True
    view.local.heartbeat.condition.storage_error = "access denied"
    found = readiness(view)
    assert found["ready"] is False
    assert found["reasons"] == ["the storage cannot be used: access denied"]
    assert readiness(view_of(None, error="x"))["ready"] is False


def test_where_a_thousand_backups_lie_is_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It took three seconds of CPU a page, every few seconds, when it was asked of each."""
    asked: list[Settings] = []
    found_by = profiles.places

    def counted(settings: Settings) -> dict[str, str]:
        asked.append(settings)
        return found_by(settings)

    monkeypatch.setattr(places, "places", counted)
    backups = tuple(a_backup(number * 6 * HOUR) for number in range(1000, -1, -1))
    view = view_of(good(backups=backups))
    assert backups[-1].id in render_page(view)
    assert exposition(view)
    assert len(asked) == 1
