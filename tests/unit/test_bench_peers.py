"""How the bench runs other tools. Their programs are stand-ins, which tell what they were asked: no
registry this project may use has the real ones."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import peers

LISTED = """{"snapshots": [
    {"name": "2026-01-01T00:00:00Z", "status": "done"},
    {"name": "2026-01-03T00:00:00Z", "status": "error"},
    {"name": "2026-01-02T00:00:00Z", "status": "done"}]}"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The programs of all tools are on PATH; what they were asked for is in this file."""
    monkeypatch.setattr(peers, "SERVICE_READY_S", 0.05)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    (tmp_path / "bin").mkdir()
    log = tmp_path / "asked"
    (tmp_path / "listed").write_text(LISTED)
    for name in ("mongodump", "mongorestore", "pbm", "pbm-agent"):
        program = tmp_path / "bin" / name
        program.write_text(
            f"""#!/bin/sh
            echo "{name} $*" >> {log}
            [ "$1" = list ] && cat {tmp_path}/listed
            [ "{name} $1" = "pbm backup" ] && echo 1234567 > {tmp_path}/rig/peer/object
            [ {name} = pbm-agent ] && exec sleep 30
            [ ! -e {tmp_path}/is_broken ] || {{ echo no such option; exit 3; }}
            """
        )
        program.chmod(0o755)
    return log


@pytest.fixture
def rig(tmp_path: Path) -> Any:
    """What of a rig the tools need: its server is this process."""
    directory = tmp_path / "rig"
    directory.mkdir()
    stops: list[str] = []
    return SimpleNamespace(
        directory=directory,
        replset=SimpleNamespace(
            uri=lambda: "mongodb://h:1/?a=b", nodes=[SimpleNamespace(pid=os.getpid())]
        ),
        agents=SimpleNamespace(stop=lambda: stops.append("stop"), stops=stops),
        settle=lambda: None,
    )


def test_pbm_is_configured_and_restores_its_newest_finished_backup(rig: Any, asked: Path) -> None:
    (pbm,) = [peer for peer in peers.KNOWN if peer.name == "pbm zstd"]
    backup, restore = peers.measured(rig, pbm, 1_000_000, rounds=2)
    uri = "--mongodb-uri=mongodb://h:1/?a=b"
    said = asked.read_text().splitlines()
    # The service starts while the first command does: which of them is first here is chance.
    assert said.count(f"pbm-agent {uri}") == 2
    assert [line for line in said if not line.startswith("pbm-agent")] == 2 * [
        f"pbm config {uri} --file={rig.directory}/peer.yaml --wait",
        f"pbm backup {uri} --compression=zstd --wait",
        f"pbm list {uri} --out=json",
        f"pbm restore {uri} 2026-01-02T00:00:00Z --wait",
    ]
    assert (backup["what"], restore["what"]) == ("pbm zstd, backup", "pbm zstd, restore")
    assert backup["stored MB"] == pytest.approx(8e-6)
    assert backup["rounds"] == 2
    assert f"path: {rig.directory}/peer" in (rig.directory / "peer.yaml").read_text()
    # The service's memory, not that of the command that waits for it.
    assert 0 < backup["agent peak MiB"] < 20


def test_tidelogs_agents_rest_while_others_run(rig: Any, asked: Path) -> None:
    rows = peers.beside(rig, 1_000_000, rounds=1)
    assert rig.agents.stops == ["stop"]
    assert [row["what"] for row in rows] == [
        f"{name}, {step}"
        for name in ("mongodump", "mongodump gzip", "pbm zstd", "pbm s2")
        for step in ("backup", "restore")
    ]


def test_a_tool_that_fails_is_a_row_that_says_so(rig: Any, asked: Path, tmp_path: Path) -> None:
    (tmp_path / "is_broken").touch()
    (row,) = peers.measured(rig, peers.KNOWN[0], 1_000_000, rounds=1)
    assert row == {"what": "mongodump", "failed": "no such option\n"}


def test_without_other_tools_nothing_is_stopped(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert peers.beside(rig, 1, rounds=1) == []
    assert rig.agents.stops == []
