"""What Prometheus makes of our rules: promtool's unit tests, fed with what agents really expose.

A case is two expositions: how it was, and how it is with the fault. Prometheus' tests begin at the
epoch, so moments are moved there, and go on by themselves where the exposition says so.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from agent.web.metrics import exposition
from agent.web.model import View
from tests.support.overviews import NOW_T
from tests.support.product import ROOT

RULES: Final = ROOT / "deploy" / "prometheus" / "tidelog.rules.yml"
STEP_S: Final = 15
GOOD_STEPS: Final = 8
BAD_STEPS: Final = 12
INSTANCE: Final = "db1:9360"

_OBJECTION: Final = re.compile(r'alertname=\\?"(\w+)\\?".*? > -(\d+)"?, time: ([\dms]+)')

Series = dict[str, float]


def promtool() -> str:
    """The program; skips where there is none, but never in CI."""
    found = shutil.which("promtool")
    if found is None:
        if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
            raise AssertionError("there is no promtool here: apt-get install prometheus")
        pytest.skip("there is no promtool here: apt-get install prometheus")
    return found


def series_of(view: View) -> Series:
    """What a scrape of the view yields, as Prometheus stores it, with `up`."""
    found: Series = {f'up{{job="tidelog",instance="{INSTANCE}"}}': 1.0}
    for family in text_string_to_metric_families(exposition(view).decode()):
        for sample in family.samples:
            if not sample.name.startswith("tidelog_"):
                continue
            labels = {**sample.labels, "instance": INSTANCE, "job": "tidelog"}
            text = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
            value = sample.value
            if sample.name.endswith("_timestamp_seconds") and value > 0:
                value += GOOD_STEPS * STEP_S - NOW_T
            found[f"{sample.name}{{{text}}}"] = value
    return found


def alert_names() -> set[str]:
    """Every alert of the rules."""
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    return {rule["alert"] for rule in rules}


def case(good: Series, bad: Series) -> dict[str, Any]:
    """A promtool test from the two."""
    rows = []
    for name in sorted({*good, *bad}):
        was, is_now = good.get(name), bad.get(name)
        before = [_written(was)] * GOOD_STEPS
        after = [_written(is_now)] * BAD_STEPS
        if is_now is None:
            after[0] = "stale"
        rows.append({"series": name, "values": " ".join([*before, *after])})
    return {"interval": f"{STEP_S}s", "input_series": rows}


def _written(value: float | None) -> str:
    if value is None:
        return "_"
    if math.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    return repr(value)


def firing(
    cases: Mapping[str, Mapping[str, Any]], moments_s: Sequence[int], directory: Path
) -> dict[str, dict[int, set[str]]]:
    """Per case and moment the alerts that fire, in one run. promtool has no question, only claims:
    that each is silent; what it objects to fires. The number of a case goes along in the claim."""
    numbers = {name: number for number, name in enumerate(cases, 1)}
    tests = [
        {**one, "promql_expr_test": [*_claims(numbers[name], moments_s)]}
        for name, one in cases.items()
    ]
    found: dict[str, dict[int, set[str]]] = {
        name: {at_s: set() for at_s in moments_s} for name in cases
    }
    names = {number: name for name, number in numbers.items()}
    for alert, number, moment in _OBJECTION.findall(run_promtool(tests, directory)):
        found[names[int(number)]][_seconds(moment)].add(alert)
    return found


def _claims(number: int, moments_s: Sequence[int]) -> Iterator[dict[str, Any]]:
    for at_s in moments_s:
        for name in sorted(alert_names()):
            firing = f'count(ALERTS{{alertname="{name}",alertstate="firing"}})'
            yield {
                "expr": f"{firing} or vector(0) > -{number}",
                "eval_time": f"{at_s}s",
                "exp_samples": [{"labels": "{}", "value": 0}],
            }


def _seconds(text: str) -> int:
    minutes, _, seconds = text.rpartition("m")
    return 60 * int(minutes or 0) + int(seconds.rstrip("s") or 0)


def run_promtool(tests: list[dict[str, Any]], directory: Path) -> str:
    """What promtool finds wrong; empty when nothing."""
    shutil.copy(RULES, directory / RULES.name)
    path = directory / "case.yml"
    path.write_text(
        yaml.safe_dump(
            {
                "rule_files": [RULES.name],
                "evaluation_interval": f"{STEP_S}s",
                "tests": tests,
            },
            width=10_000,
        )
    )
    done = subprocess.run(
        [promtool(), "test", "rules", path], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr if done.returncode else ""
