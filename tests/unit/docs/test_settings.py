"""docs/settings.md: written by the program, complete, and nothing in it that does not parse."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from agent import config
from agent.wire import keys
from agent.wire.settings import Settings, from_mapping
from tests.support import settings_reference as reference

KEY = re.compile(r"^\| `([\w.]+)` \|", re.MULTILINE)
MINIMAL: dict[str, dict[str, Any]] = {
    "filesystem": {"path": "/srv/backups"},
    "s3": {
        "bucket": "b",
        "credentials": {"accessKeyId": "AK", "secretAccessKey": {"env": "SK"}},
        "serverSideEncryption": {},
    },
    "minio": {
        "endpoint": "s3.example.com:9000",
        "bucket": "b",
        "credentials": {"accessKeyId": "AK", "secretAccessKey": {"env": "SK"}},
        "serverSideEncryption": {},
    },
    "azure": {"account": "a", "container": "c"},
    "gcs": {"bucket": "b"},
    "oss": {
        "bucket": "b",
        "credentials": {"accessKeyID": "AK", "accessKeySecret": {"env": "SK"}},
        "serverSideEncryption": {"sseAlgorithm": "KMS"},
    },
}
EXAMPLES = {
    "storage.filesystem.path": "/mnt/backups",
    "storage.s3.credentials.roleArn": "arn:aws:iam::1:role/backup",
    "storage.minio.credentials.roleArn": "arn:aws:iam::1:role/backup",
    "storage.oss.credentials.roleArn": "acs:ram::1:role/backup",
    "storage.oss.serverSideEncryption.sseAlgorithm": "KMS",
    "policy.timezone": "Europe/Paris",
    "policy.backups.NAME.schedule": "0 2 * * *",
    "policy.verify.NAME.schedule": "0 6 * * 0",
    "listen": "127.0.0.1:9360",
    "notify.webhooks.NAME.url": "https://hooks.example.com/tidelog",
}
TOGETHER: dict[str, dict[str, Any]] = {
    "kmsKeyID": {"sseAlgorithm": "aws:kms"},
    "sseCustomerAlgorithm": {"sseCustomerKey": {"env": "KEY"}},
}


def documented() -> list[str]:
    return KEY.findall(reference.PAGE.read_text(encoding="utf-8"))


def parsed(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """Every key that a model takes, found without the program that writes the page."""
    for name, field in model.model_fields.items():
        key = ".".join(filter(None, (path, field.alias or name)))
        inner, item = keys.inner_model(field), reference.own_map_model(field)
        if item is not None:
            yield from parsed(item, f"{key}.NAME")
        elif inner is None:
            yield key
        else:
            yield from parsed(inner, key)


def an_example(row: reference.Row) -> Any:
    if row.key in EXAMPLES:
        return EXAMPLES[row.key]
    if row.key.endswith(("endpointUrl", "EndpointUrl")):
        return "https://s3.example.com"
    if row.key.endswith("endpointUrlMap"):
        return {"db1:27017": "https://s3.example.com"}
    if row.default.startswith("`"):
        return row.default.strip("`")
    kind = row.kind.split(" or ")[0]
    if kind.startswith("`"):
        return kind.split(",")[0].strip("`")
    return {
        "text": "word",
        "path": "/etc/tidelog/uri",
        "secret": {"file": "/etc/tidelog/secret"},
        "true, false": True,
        "whole number": 3,
        "number": 1.5,
        "duration": "1m30s",
        "size": "8MiB",
        "list of text": ["shop.*", "blog.posts"],
        "anything": None,
        "map of section": {"second": {"type": "filesystem", "filesystem": {"path": "/srv/second"}}},
        "map of text": {"db1:27017": "word"},
        "map of number": {"db1.example.com:27017": 2},
    }[kind]


def test_the_page_is_what_the_program_writes() -> None:
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run: make docs"


def test_every_parsed_key_is_documented_once() -> None:
    found = documented()
    assert sorted(found) == sorted([*parsed(Settings), *parsed(config.Config)])


def test_no_meaning_is_left_over() -> None:
    """What the program says for a field without words of its own is needed."""
    silent = {
        name
        for model in (Settings, config.Config)
        for _, section in reference.sections(model)
        for name in set(section.model_fields) - set(reference.field_texts(section))
    }
    assert set(reference.PLAIN_WORDS) <= silent


@pytest.mark.parametrize("row", list(reference.rows(Settings)), ids=lambda row: row.key)
def test_every_documented_key_of_the_cluster_parses(row: reference.Row) -> None:
    steps = keys.resolve(Settings, row.key)
    assert ".".join(steps) == row.key
    kind = steps[1] if row.key.startswith("storage.") and len(steps) > 2 else "filesystem"
    raw: dict[str, Any] = {"storage": {"type": kind, kind: MINIMAL[kind]}}
    if steps[:2] in (["policy", "backups"], ["policy", "verify"]):
        raw["policy"] = {steps[1]: {"NAME": {"schedule": "@daily"}}}
    if steps[:-1] == ["storage", "azure", "credentials"]:
        raw["storage"]["azure"] = {**raw["storage"]["azure"], "credentials": {}}
    if row.key.startswith("notify.webhooks."):
        raw["notify"] = {"webhooks": {"NAME": {"url": EXAMPLES["notify.webhooks.NAME.url"]}}}
    for other, value in TOGETHER.get(steps[-1], {}).items():
        raw = keys.set_path(raw, [*steps[:-1], other], value)
    if row.key == "storage.url":
        settings = from_mapping({"storage": {"url": "file:///srv/backups"}})
    else:
        settings = from_mapping(keys.set_path(raw, steps, an_example(row)))
    assert settings.storage is not None


@pytest.mark.parametrize("row", list(reference.rows(config.Config)), ids=lambda row: row.key)
def test_every_documented_variable_of_an_agent_is_read(row: reference.Row) -> None:
    variable = reference.environment_name(row)
    value = str(an_example(row)) if row.kind != "secret" else "mongodb://db1:27017/"
    assert f"| `{row.key}` | `{variable}` |" in reference.PAGE.read_text(encoding="utf-8")
    found: Any = config.load(None, {variable: value})
    for step in row.key.split("."):
        found = getattr(found, next(name for name in (step, _snake(step)) if hasattr(found, name)))
    assert found is not None


def _snake(name: str) -> str:
    return re.sub("([A-Z])", r"_\1", name).lower()
