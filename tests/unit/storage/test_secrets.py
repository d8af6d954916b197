"""Where references lead, and that a rotated file is read again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.errors import ConfigError
from agent.storage.secrets import SecretReader
from agent.storage.surroundings import Surroundings, policy_of
from agent.wire.sealing import SealingKey
from agent.wire.secrets import Secret
from agent.wire.storage_sections import RetryerSettings


def test_each_form_is_found(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from file\n")
    (tmp_path / "creds").mkdir()
    (tmp_path / "creds" / "SECRET").write_text("mounted")
    (tmp_path / "seal").write_text("s" * 40)
    environment = {
        "KEY": "from environment",
        "TIDELOG_SECRETS_DIRECTORY": str(tmp_path),
        "TIDELOG_SECRET_KEY_FILE": str(tmp_path / "seal"),
    }
    reader = SecretReader(environment)
    sealed = SealingKey("s" * 40).seal(Secret.parse("in the settings"), os.urandom(12))
    assert reader.text(Secret.parse("literal")) == "literal"
    assert reader.text(Secret.parse({"env": "KEY"})) == "from environment"
    assert reader.text(Secret.parse({"file": str(tmp_path / "key")})) == "from file"
    assert reader.text(Secret.parse({"name": "creds", "key": "SECRET"})) == "mounted"
    assert reader.text(sealed) == "in the settings"
    assert reader.optional(None) is None


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("old")
    reader, secret = SecretReader({}), Secret.parse({"file": str(path)})
    assert reader.text(secret) == "old"
    replacement = tmp_path / "new"
    replacement.write_text("new")
    replacement.replace(path)  # as Kubernetes and systemd rotate
    assert reader.text(secret) == "new"


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    reader = SecretReader({})
    with pytest.raises(ConfigError, match="NO_SUCH_NAME"):
        reader.text(Secret.parse({"env": "NO_SUCH_NAME"}))
    with pytest.raises(ConfigError, match="absent"):
        reader.text(Secret.parse({"file": str(tmp_path / "absent")}))
    (tmp_path / "empty").write_text(" \n")
    with pytest.raises(ConfigError, match="empty"):
        reader.text(Secret.parse({"file": str(tmp_path / "empty")}))
    with pytest.raises(ConfigError, match="TIDELOG_SECRET_KEY_FILE"):
        reader.text(Secret.parse({"sealed": "v1:x:y"}))


@pytest.mark.parametrize(
    ("node", "given", "name"),
    [
        ("db1.example:27017", None, "tidelog-db1.example-27017"),
        ("db1:27017", "pbm-session-db1", "pbm-session-db1"),
        ("x" * 90, None, f"tidelog-{'x' * 56}"),
    ],
)
def test_a_session_is_named_after_the_node(node: str, given: str | None, name: str) -> None:
    """A19, B10."""
    assert Surroundings(node=node).session_name(given) == name


def test_the_retryer_sets_the_policy() -> None:
    """A34–A36."""
    policy = policy_of(RetryerSettings(max_attempts=5, max_backoff=200, base_delay=30))
    assert (policy.max_attempts, policy.base_delay_s, policy.max_backoff_s) == (5, 30, 200)
    assert policy.deadline_s == 1000
    assert policy_of(RetryerSettings()).max_attempts == 5
    assert policy_of(RetryerSettings(num_max_retries=3)).max_attempts == 4
