"""From settings to a wrapped driver."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agent.errors import ConfigError, StorageUnavailable
from agent.storage.base import put_bytes
from agent.storage.filesystem import FilesystemStorage, open_driver
from agent.storage.limiting import LimitingStorage
from agent.storage.observing import ObservingStorage
from agent.storage.registry import Driver, open_storage
from agent.storage.retrying import RetryingStorage
from agent.wire.storage_settings import FilesystemSettings, StorageSettings

pytestmark = pytest.mark.unit


def settings(path: Path) -> StorageSettings:
    return StorageSettings(type="filesystem", filesystem=FilesystemSettings(path=str(path)))


async def test_wrappers_come_in_order(tmp_path: Path) -> None:
    storage = await open_storage(settings(tmp_path))
    kinds = []
    layer: object = storage
    while layer is not None:
        kinds.append(type(layer))
        layer = getattr(layer, "_inner", None)
    assert kinds == [ObservingStorage, RetryingStorage, LimitingStorage, FilesystemStorage]
    assert storage.address == tmp_path.as_uri()
    await put_bytes(storage, "a/key", b"body")
    assert (tmp_path / "a/key").read_bytes() == b"body"
    await storage.aclose()


async def test_a_missing_directory_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable):
        await open_storage(settings(tmp_path / "absent"))


async def test_memory_is_refused() -> None:
    with pytest.raises(ConfigError, match="'memory'") as raised:
        await open_storage(StorageSettings(type="memory"))
    assert "filesystem" in raised.value.hint


async def test_a_missing_library_is_named_with_what_to_install(tmp_path: Path) -> None:
    drivers = {"filesystem": Driver("agent_of_nowhere.driver", extra="s3")}
    with pytest.raises(ConfigError, match="agent_of_nowhere") as raised:
        await open_storage(settings(tmp_path), drivers=drivers)
    assert raised.value.hint == "pip install 'tidelog[s3]'"
    with pytest.raises(ImportError):
        await open_storage(
            settings(tmp_path), drivers={"filesystem": Driver("agent_of_nowhere.driver")}
        )


async def test_a_missing_section_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"storage\.filesystem"):
        await open_driver(StorageSettings(type="memory"))


def test_no_driver_is_imported_before_it_is_asked_for() -> None:
    script = "import sys, agent.storage.registry; print('agent.storage.filesystem' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
