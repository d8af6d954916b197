"""`python -m tests.support.settings_reference` writes docs/settings.md from the settings' models.

Key, type, unit and default come from the fields, the meaning from the text below each field. So the
page cannot drift: `tests/unit/docs` fails when it is not what this program writes.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from agent.config import Config
from agent.wire.keys import inner_model, map_model
from agent.wire.sealing import KEY_FILE_VARIABLE
from agent.wire.secrets import Plain, Secret
from agent.wire.settings import Settings
from agent.wire.storage_settings import StorageSettings
from agent.wire.units import format_duration, format_size, parse_duration, parse_size
from tests.support.product import ROOT

PAGE: Final = ROOT / "docs" / "settings.md"

Model = type[BaseModel]


PLAIN_WORDS: Final = {
    "access_tier": "The tier that objects are written to: `Hot`, `Cool`, `Cold`.",
    "account": "The storage account.",
    "bucket": "The name of the bucket, nothing else.",
    "client_email": "With `privateKey`: the two fields of a service account, as in PBM's files.",
    "compression": "How new objects are stored; all but `none` mean zstd.",
    "compression_level": "Of zstd, for slices.",
    "connect_timeout": "How long a connection may take to be made.",
    "connection_string": "All in one: account, key, endpoint.",
    "container": "The name of the container.",
    "download_chunk_mb": "Of PBM's physical restores; no effect.",
    "enabled": "Archive the oplog all the time.",
    "endpoint_ca": "PEM certificates of authorities to trust beside those of the system.",
    "endpoint_map": "`host:port` of a node → the endpoint that its agent uses instead.",
    "endpoint_url_map": "`host:port` of a node → the endpoint that its agent uses instead.",
    "external_id": "What the trust policy of the role asks for.",
    "fallback_enabled": "Of PBM's physical restores; no effect.",
    "allow_partly_done": "Of PBM's physical restores; no effect.",
    "access_key_id": "The public half of the key.",
    "access_key_secret": "The secret half of the key.",
    "secret_access_key": "The secret half of the key.",
    "session_token": "Of temporary credentials.",
    "security_token": "Of temporary credentials.",
    "hmac_access_key": "Of PBM's files, deprecated there: use `s3` with Google's endpoint.",
    "insecure_skip_tls_verify": "Believe any certificate. For a test, never for more.",
    "kms_data_encryption": "What KMS encrypts with.",
    "kms_key_name": "A key of Cloud KMS; without it the default of the bucket holds.",
    "level": "The least grave lines that are printed. `ctl logs` has info and graver in any case.",
    "max_connections": "Connections to the server at once.",
    "max_download_buffer_mb": "Of PBM's physical restores; no effect.",
    "max_upload_parts": "Parts of one object at most.",
    "mongod_location": "Of PBM's physical restores; no effect.",
    "mongod_location_map": "Of PBM's physical restores; no effect.",
    "prefix": "What all keys begin with; one repository a prefix.",
    "project_id": "The project that is billed.",
    "region": "The region of the bucket.",
    "session_name": "How the session is called in the cloud's audit log.",
    "sse_algorithm": "Encryption by the server.",
    "sse_customer_algorithm": "With `sseCustomerKey`: encryption by the server with your key.",
    "storage_class": "The class that objects are written to.",
    "tenant_id": "The tenant of the application.",
    "type": "Which of the sections below holds.",
    "upload_concurrency": "Parts of one object under way at once.",
    "upload_part_size": "Objects above it are sent in parts of it.",
    "budget": "What an operation's buffers may hold; the whole process needs about 100 MiB more.",
}
"""By name, for fields whose model says nothing because their name says it to a developer."""

_UNITS: Final = (
    ("_span_min", "minutes"),
    ("_sec", "seconds"),
    ("_size_gb", "GB"),
    ("_mb", "MB"),
    ("_buff_size", "bytes"),
)

_HEAD: Final = f"""\
# Settings

Made by `make docs` from the settings' own models; change it there.

## How to write them
Cluster settings lie in the control database and hold for all agents at once:

```sh
ctl config --file storage.yaml                      # replaces all of them
ctl config --set backup.compressionLevel=3 --set pitr.enabled=true
ctl config --unset backup.compressionLevel          # back to the default
ctl config backup.compressionLevel                  # what holds now
```

A key may be written in any mix of case, dashes and underscores (`access-key-id`, `accessKeyId`). An
unknown key is refused with the nearest known one. What follows the name of a map is one key, dots
and all: `--set backup.priority.db1.example.com:27017=2`. `NAME` stands for a name of your choice:
`--set policy.backups.nightly.schedule='0 2 * * *'`.

| type | is written |
|---|---|
| duration | `250ms`, `30s`, `5m`, `1h30m`, `7d`; a bare number is seconds |
| size | `512KiB`, `32MiB`, `1GB`; a bare number is bytes |
| secret | best by reference; else sealed, see below. Shown as `***` |
| text or reference | a text, or one of the references above |
| map | keys to values of the type named |
| list of text | a list, or one text with commas |

A reference is read by each agent on its own host: `{{env: NAME}}`, `{{file: /PATH}}`,
`{{credential: NAME}}` (of systemd, `LoadCredential=`), or `{{name: SECRET, key: KEY}}` of a mounted
secret. A secret in clear is sealed before it is stored,
with the key file that `{KEY_FILE_VARIABLE}` names for `ctl` and for every agent, and refused where
there is none.

Keys that mean something in PBM only are accepted, have no effect, and say so below.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One key, as the page has it."""

    key: str
    name: str
    kind: str
    unit: str
    default: str
    meaning: str


def rows(model: Model, path: str = "") -> Iterator[Row]:
    """Every key that is a value, depth first."""
    texts = field_texts(model)
    for name, field in model.model_fields.items():
        alias = field.alias or name
        key = f"{path}.{alias}" if path else alias
        inner, item = inner_model(field), own_map_model(field)
        if inner is not None:
            yield from rows(inner, key)
        elif item is not None:
            yield from rows(item, f"{key}.NAME")
        else:
            yield Row(
                key,
                name,
                kind_of(field),
                _unit(name, field),
                _default(field),
                _meaning(name, field, texts),
            )


def sections(model: Model, path: str = "") -> Iterator[tuple[str, Model]]:
    """Each section with its dotted name, the outer ones first."""
    yield path, model
    for name, field in model.model_fields.items():
        alias = field.alias or name
        key = f"{path}.{alias}" if path else alias
        inner, item = inner_model(field), own_map_model(field)
        if inner is not None:
            yield from sections(inner, key)
        elif item is not None:
            yield from sections(item, f"{key}.NAME")


def own_map_model(field: FieldInfo) -> Model | None:
    """The model of a map's values, unless the page explains it elsewhere."""
    found = map_model(field)
    return None if found is StorageSettings else found


def field_texts(model: Model) -> dict[str, str]:
    """What stands below each field of a class and of those it inherits from."""
    texts: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base.model_fields:
            texts |= _texts_in(base)
    return texts


def _texts_in(model: Model) -> dict[str, str]:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(tree, ast.ClassDef)
    texts = {}
    for before, after in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name):
            told = after.value if isinstance(after, ast.Expr) else None
            if isinstance(told, ast.Constant) and isinstance(told.value, str):
                texts[before.target.id] = inspect.cleandoc(told.value)
    return texts


def kind_of(field: FieldInfo) -> str:
    """The type in the words of the page's table."""
    parsers = {getattr(one, "func", None) for one in field.metadata}
    kinds = [kind for kind in _flat(field.annotation) if kind is not types.NoneType]
    names = [_name(kind) for kind in kinds]
    if parse_duration in parsers or any(parse_duration in _parsers(kind) for kind in kinds):
        return "duration"
    if parse_size in parsers or any(parse_size in _parsers(kind) for kind in kinds):
        return "size"
    return " or ".join(dict.fromkeys(names))


def _flat(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        for inner in get_args(annotation):
            yield from _flat(inner)
    else:
        yield annotation


def _parsers(kind: Any) -> set[Any]:
    return {getattr(one, "func", None) for one in getattr(kind, "__metadata__", ())}


def _name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(kind) if word != "memory")
    if get_origin(kind) is tuple:
        return f"list of {_name(get_args(kind)[0])}"
    if get_origin(kind) is dict:
        return "anything" if get_args(kind)[1] is Any else f"map of {_name(get_args(kind)[1])}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "section"
    plain: Mapping[Any, str] = {
        str: "text",
        Path: "path",
        bool: "true, false",
        int: "whole number",
        float: "number",
        Any: "anything",
        Plain: "text or reference",
        Secret: "secret",
        SecretStr: "secret",
    }
    return plain[getattr(kind, "__origin__", kind)]


def _unit(name: str, field: FieldInfo) -> str:
    kind = kind_of(field)
    if kind in ("duration", "size"):
        return "seconds" if kind == "duration" else "bytes"
    return next((unit for ending, unit in _UNITS if name.endswith(ending)), "")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ("", {}, ()) or value is PydanticUndefined:
        return ""
    if kind_of(field) == "duration":
        return f"`{format_duration(value)}`"
    if kind_of(field) == "size":
        return f"`{format_size(value)}`"
    if isinstance(value, tuple):
        return f"`{', '.join(value)}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _meaning(name: str, field: FieldInfo, texts: Mapping[str, str]) -> str:
    words = " ".join((texts.get(name) or PLAIN_WORDS[name]).split()).replace("|", r"\|")
    words = words.replace("; no effect, as all below.", "; no effect.")
    extra = field.json_schema_extra
    others = extra.get("aliases") if isinstance(extra, dict) else None
    if isinstance(others, list):
        words += f" Also: {', '.join(f'`{other}`' for other in others)}."
    return words


def _table(found: list[Row]) -> str:
    lines = ["| key | type | unit | default | meaning |", "|---|---|---|---|---|"]
    lines += [
        f"| `{row.key}` | {row.kind} | {row.unit} | {row.default} | {row.meaning} |"
        for row in found
    ]
    return "\n".join(lines) + "\n"


def page() -> str:
    """The whole page."""
    parts = [_HEAD, "## Cluster settings\n"]
    for name, model in sections(Settings):
        told = inspect.getdoc(model) or ""
        found = [row for row in rows(model, name) if row.key.rpartition(".")[0] == name]
        if found:
            parts.append(f"### `{name}`\n{told}\n\n{_table(found)}")
    parts.append(_AGENT_HEAD)
    parts.append(
        "\n".join(
            ["| key | environment | type | unit | default | meaning |", "|---|---|---|---|---|---|"]
            + [
                f"| `{row.key}` | `{environment_name(row)}` | {row.kind} | {row.unit} |"
                f" {row.default} | {row.meaning} |"
                for row in rows(Config)
            ]
        )
        + "\n"
    )
    return "\n".join(parts)


def environment_name(row: Row) -> str:
    """The variable that sets a key of the agent."""
    sections_of_key = row.key.split(".")[:-1]
    return "TIDELOG_" + "__".join([*sections_of_key, row.name]).upper()


_AGENT_HEAD: Final = """\
## Settings of one agent
From the YAML file given with `--config`, then the environment, then the command line; what comes
later wins. `TIDELOG_MONGODB_URI` and `PBM_MONGODB_URI` set `mongodb.uri`, too. `SIGHUP` reads them
again; only `log.*` changes while an agent runs, all else when it is started again.
"""


def main() -> int:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
