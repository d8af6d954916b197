"""A scrape: well-formed, complete, with few series, and each of them documented."""

from __future__ import annotations

import re
from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families

from agent.web.catalogue import METRICS, PREFIX
from agent.web.metrics import exposition
from agent.web.model import View
from tests.support import metrics_reference
from tests.support.overviews import CLUSTER, good, holed, view_of
from tests.support.product import ROOT


def scraped(view: View) -> dict[str, dict[tuple[str, ...], float]]:
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(exposition(view).decode()):
        for sample in family.samples:
            if not sample.name.startswith(PREFIX):
                continue
            labels = dict(sample.labels)
            assert labels.pop("cluster") == CLUSTER
            name = sample.name.removeprefix(PREFIX)
            assert set(labels) == set(METRICS[name].labels)
            values = tuple(labels[one] for one in METRICS[name].labels)
            found.setdefault(name, {})[values] = sample.value
    return found


def test_a_busy_cluster_shows_every_metric() -> None:
    view = view_of(holed())
    view.local.heartbeat.condition.key_policies = ("p",)
    view.local.heartbeat.condition.storage_error = "no"
    view.local.storages["main"].credentials_left_s = 3600.0
    assert set(scraped(view)) == set(METRICS)


def test_every_metric_is_documented_as_it_is() -> None:
    text = metrics_reference.PAGE.read_text(encoding="utf-8")
    assert text == metrics_reference.page(text), "run: make docs"


def test_units_are_in_the_names() -> None:
    plain = ("pitr_enabled", "backups", "findings", "safety_level")
    for name, metric in METRICS.items():
        assert name.endswith("_total") == metric.is_counter
        if name in plain:
            continue
        assert not name.endswith(("_s", "_ms", "_mb", "_percent"))
        assert metric.help.endswith(".")


def test_before_the_first_reading_the_agent_tells_of_itself() -> None:
    found = scraped(view_of(None))
    assert "control_silent_seconds" in found
    assert "rpo_seconds" not in found


def test_the_loss_goes_on_growing_while_the_database_is_silent() -> None:
    assert scraped(view_of(good(), age_s=50.0))["rpo_seconds"] == {(): 58.0}


def test_an_agent_of_another_replica_set_tells_of_its_own_alone() -> None:
    view = view_of(good())
    other = replace(view, local=replace(view.local, replset="shard-a"))
    assert len(scraped(view)["node_live"]) == 9
    found = scraped(other)
    assert {labels[0] for labels in found["node_live"]} == {"shard-a"}
    assert set(found["replset_agents"]) == {("shard-a",)}
    assert found["rpo_seconds"] == scraped(view)["rpo_seconds"]


def test_series_stay_few_whatever_happened() -> None:
    many = good(backups=good().backups * 100, recent=good().recent * 10, gaps=holed().gaps * 50)
    assert sum(len(series) for series in scraped(view_of(many)).values()) < 250


def test_rules_and_dashboard_ask_for_metrics_that_exist() -> None:
    for path in ("prometheus/tidelog.rules.yml", "grafana/tidelog.json"):
        text = (ROOT / "deploy" / path).read_text(encoding="utf-8")
        asked = set(re.findall(r"\btidelog_([a-z_]+)(?=[{ \[,)])", text))
        assert asked
        assert asked <= set(METRICS)
