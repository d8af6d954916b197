"""`ctl` called in this process, on a cluster in memory."""

from __future__ import annotations

import pytest

from tests.unit.ctl.world import Ctl

VARIABLES = ("TIDELOG_MONGODB_URI", "PBM_MONGODB_URI", "PBM_REPLSET_REMAPPING")


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "TIDELOG_REPLSET_REMAPPING", "TIDELOG_DEBUG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def ctl(capsys: pytest.CaptureFixture[str]) -> Ctl:
    """The client; `ctl.world` is the cluster."""
    return Ctl(capsys)
