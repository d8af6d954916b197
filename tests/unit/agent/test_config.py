"""The agent's own settings: file, environment, command line, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import load
from agent.errors import ConfigError

URI = "mongodb://u:hunter2@localhost:27017/"


def write(directory: Path, text: str) -> Path:
    path = directory / "agent.yaml"
    path.write_text(text)
    return path


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "log: {level: error, format: json}\nmemory: {budget: 128MiB}\n")
    config = load(path, {"TIDELOG_LOG__LEVEL": "warning"}, {"log.format": "console"})
    assert (config.log.level, config.log.format) == ("warning", "console")
    assert config.memory.budget == 128 << 20


def test_what_the_command_line_leaves_open_stays(tmp_path: Path) -> None:
    config = load(write(tmp_path, "log: {level: error}"), {}, {"log.level": None})
    assert config.log.level == "error"


@pytest.mark.parametrize(
    "environment",
    [
        {"TIDELOG_MONGODB_URI": URI},
        {"TIDELOG_MONGODB__URI": URI},
        {"PBM_MONGODB_URI": URI},
        {"PBM_MONGODB_URI": "mongodb://other/", "TIDELOG_MONGODB_URI": URI},
        {"TIDELOG_MONGODB_URI": "", "PBM_MONGODB_URI": URI},
    ],
    ids=["ours", "ours by key", "PBM's", "ours before PBM's", "an empty one is none"],
)
def test_the_connection_string_comes_from_the_environment(environment: dict[str, str]) -> None:
    assert load(None, environment).uri() == URI


def test_the_connection_string_comes_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "uri"
    secret.write_text(URI + "\n")
    config = load(write(tmp_path, f"mongodb: {{uriFile: {secret}}}"), {})
    assert config.uri() == URI
    secret.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        config.uri()


def test_the_connection_string_is_never_shown() -> None:
    config = load(None, {"TIDELOG_MONGODB_URI": URI})
    assert "hunter2" not in f"{config} {config!r} {config.model_dump()} {config.model_dump_json()}"


def test_without_a_connection_string_it_says_how_to_give_one() -> None:
    with pytest.raises(ConfigError, match="no connection string") as caught:
        load(None, {}).uri()
    assert "TIDELOG_MONGODB_URI" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("log: {levle: info}", "unknown key log.levle"),
        ("storage: {type: filesystem}", "unknown key storage"),
        ("log: {level: loud}", "log.level"),
        ("log:\n\tlevel: info", "TAB in line 2"),
        ("memory: {budget: lots}", "memory.budget"),
        ("listen: nowhere", "'nowhere' is not HOST:PORT"),
        ("listen: 127.0.0.1:65536", "is not HOST:PORT"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text), {})
    assert message in str(caught.value)


def test_what_is_wrong_in_the_environment_is_named() -> None:
    with pytest.raises(ConfigError, match=r"unknown key log.levle") as caught:
        load(None, {"TIDELOG_LOG__LEVLE": "info"})
    assert "log.level" in caught.value.hint


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read from .*/nowhere.yaml"):
        load(tmp_path / "nowhere.yaml", {})


def test_variables_of_others_are_left_alone() -> None:
    load(None, {"TIDELOG_FAULTS": "x", "HOME__DIR": "y", "TIDELOG_OUT": "json"})
