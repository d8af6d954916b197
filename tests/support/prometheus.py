"""Prometheus itself, on loopback, with our rules and a clock that runs faster.

Scrapes and evaluations come twice a second, and what the rules have to hold `for` is one
evaluation, as in `deploy/prometheus`: only the seconds are shorter. Thresholds stay what they are.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from tests.support.alerts import RULES
from tests.support.eventually import eventually
from tests.support.mongod.ports import free_port
from tests.support.reaper import REAPER

EVERY_S: Final = 0.5
_EVERY: Final = f"{EVERY_S * 1000:.0f}ms"


def program() -> str:
    """The server; skips where there is none, but never in CI."""
    found = shutil.which("prometheus")
    if found is None:
        if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
            raise AssertionError("there is no prometheus here: apt-get install prometheus")
        pytest.skip("there is no prometheus here: apt-get install prometheus")
    return found


class Prometheus:
    """One that runs."""

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, path: str, **query: Any) -> Any:
        """`data` of an answer of its API."""
        with urlopen(f"{self._url}/api/v1/{path}?{urlencode(query)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def firing(self) -> set[str]:
        """The names of the alerts that fire now."""
        found = self.ask("alerts")["alerts"]
        return {one["labels"]["alertname"] for one in found if one["state"] == "firing"}

    def wait(self, firing: Sequence[str], within_s: float = 30.0) -> None:
        """Wait until all of these fire."""
        wanted = set(firing)
        eventually(lambda: wanted <= self.firing(), within_s, describe=lambda: str(self.firing()))

    def wait_silent(self, within_s: float = 30.0, *, but: Collection[str] = ()) -> None:
        """Wait until nothing fires, and nothing is about to, but these."""

        def loud() -> list[str]:
            names = {one["labels"]["alertname"] for one in self.ask("alerts")["alerts"]}
            return sorted(names.difference(but))

        eventually(lambda: not loud(), within_s, describe=lambda: str(loud()))

    def waited_evaluations(self, alert: str) -> int:
        """How many evaluations saw the fault before the first one that fired."""
        query = f'sum(ALERTS{{alertname="{alert}",alertstate="pending"}})'
        now = float(self.ask("query", query="time()")["result"][1])
        found = self.ask("query_range", query=query, start=now - 120, end=now, step=EVERY_S)
        return max((len(series["values"]) for series in found["result"]), default=0)

    def rules(self) -> list[dict[str, Any]]:
        """Every rule with its health."""
        groups = self.ask("rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def is_scraping(self, targets: int) -> bool:
        """Whether so many agents were reached, and the rules evaluated."""
        found = self.ask("targets", state="active")["activeTargets"]
        up = [one for one in found if one["health"] == "up"]
        rules = self.rules()
        return len(up) == targets and bool(rules) and all(r["health"] == "ok" for r in rules)


@contextmanager
def prometheus(directory: Path, targets: Sequence[str], token: str) -> Iterator[Prometheus]:
    """A server that scrapes these agents, `host:port` each, for as long as the body."""
    port = free_port()
    found = Prometheus(f"http://127.0.0.1:{port}")
    process = REAPER.start(
        [
            program(),
            f"--config.file={_configuration(directory, targets, token)}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ],
        directory / "prometheus.log",
        environment=dict(os.environ),
    )
    try:
        eventually(lambda: found.is_scraping(len(targets)), 60, retry_on=(OSError, KeyError))
        yield found
    finally:
        REAPER.reap(process)


def _configuration(directory: Path, targets: Sequence[str], token: str) -> Path:
    """Ours, with other targets, another place for the token, and shorter seconds."""
    directory.mkdir(exist_ok=True)
    (directory / "token").write_text(token)
    rules = yaml.safe_load(RULES.read_text())
    for group in rules["groups"]:
        group["interval"] = _EVERY
        for rule in group["rules"]:
            assert rule["for"] == "15s", "one evaluation"
            rule["for"] = _EVERY
    (directory / RULES.name).write_text(yaml.safe_dump(rules))
    written = yaml.safe_load(RULES.with_name("prometheus.yml").read_text())
    written["global"] = {
        "scrape_interval": _EVERY,
        "evaluation_interval": _EVERY,
    }
    (job,) = written["scrape_configs"]
    job["authorization"]["credentials_file"] = str(directory / "token")
    job["static_configs"] = [{"targets": list(targets)}]
    path = directory / "prometheus.yml"
    path.write_text(yaml.safe_dump(written))
    return path
