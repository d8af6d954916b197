"""Settings as people write them: YAML text and dotted paths, checked against a model key by key.

Works on any pydantic model. A key may be written as the model's alias (`numParallelCollections`),
as its name (`num_parallel_collections`), in any mix of case, dashes and underscores, or as one of
the field's other names (`json_schema_extra={"aliases": […]}`), so that files made for other tools
load and come back under one name. An unknown key is refused with its path and the nearest one.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from agent.errors import ConfigError, NotFound
from agent.wire.object_store import from_object_store, is_object_store
from agent.wire.secrets import MASK, SEALED, Secret

Model = type[BaseModel]
T = TypeVar("T", bound=BaseModel)


def parse_yaml(text: str, source: str = "the configuration") -> dict[str, Any]:
    """The mapping in a YAML text. Raises `ConfigError` that names the line, and a TAB as such. A
    line that only says `[...]`, as examples in documents have it, stands for nothing."""
    lines = ["" if line.strip() == "[...]" else line for line in text.splitlines()]
    for number, line in enumerate(lines, 1):
        indent = line[: len(line) - len(line.lstrip())]
        if "\t" in indent:
            raise ConfigError(
                f"{source} is indented with a TAB in line {number}, which YAML does not allow",
                hint="indent with spaces",
            )
    try:
        found = yaml.safe_load("\n".join(lines))
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{source} is not valid YAML{line}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not valid YAML: {error}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ConfigError(f"{source} must be a mapping of keys, not {type(found).__name__}")
    return from_object_store(found) if is_object_store(found) else found


def canonical(model: Model, raw: Mapping[Any, Any], path: str = "") -> dict[str, Any]:
    """The same data under the model's own aliases. Raises `ConfigError` for an unknown key."""
    result: dict[str, Any] = {}
    for written, value in raw.items():
        here = f"{path}.{written}" if path else str(written)
        name, field = _find(model, str(written), here)
        inner = inner_model(field)
        each = map_model(field)
        if inner is not None and isinstance(value, Mapping):
            value = canonical(inner, value, here)
        elif each is not None and isinstance(value, Mapping):
            value = {
                str(key): canonical(each, one, f"{here}.{key}") if isinstance(one, Mapping) else one
                for key, one in value.items()
            }
        alias = field.alias or name
        if alias in result:
            raise ConfigError(f"{here} is given twice")
        result[alias] = value
    return result


def validate(model: type[T], data: Mapping[str, Any]) -> T:
    """The record made of canonical data. Raises `ConfigError` that names the first wrong key."""
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        # Without the input: it may be a secret.
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(step) for step in first["loc"])
    what = first["msg"].removeprefix("Value error, ").removesuffix(".")
    what = what if what[:2].isupper() else what[:1].lower() + what[1:]
    raise ConfigError(
        f"{where}: {what}" if where else what, hint="docs/settings.md says what each key takes"
    )


def resolve(model: Model, path: str) -> list[str]:
    """The steps of a dotted path under the model's aliases; what follows the name of a map is one
    key, dots and all (`backup.priority.db1.example.com:27017`). Raises `ConfigError`."""
    steps: list[str] = []
    rest = path
    while rest:
        written, _, rest = rest.partition(".")
        name, field = _find(model, written, ".".join([*steps, written]))
        steps.append(field.alias or name)
        inner = inner_model(field)
        each = map_model(field)
        if inner is not None:
            model = inner
        elif rest and each is not None:
            key, _, rest = rest.partition(".")
            steps.append(key)
            model = each
        elif rest and _is_map(field):
            return [*steps, rest]
        elif rest:
            raise ConfigError(f"{'.'.join(steps)} is a single value and has no key {rest!r}")
    return steps


def get_path(data: Mapping[str, Any], steps: list[str]) -> Any:
    """What lies at a resolved path. Raises `NotFound` when it is not set."""
    value: Any = data
    for step in steps:
        if not isinstance(value, Mapping) or step not in value:
            raise NotFound(f"{'.'.join(steps)} is not set")
        value = value[step]
    return value


def set_path(data: Mapping[str, Any], steps: list[str], value: Any) -> dict[str, Any]:
    """A copy with the value put at a resolved path."""
    first, *rest = steps
    copy = dict(data)
    if rest:
        below = copy.get(first)
        copy[first] = set_path(below if isinstance(below, Mapping) else {}, rest, value)
    else:
        copy[first] = value
    return copy


def unset_path(data: Mapping[str, Any], steps: list[str]) -> dict[str, Any]:
    """A copy without what lies at a resolved path. Raises `NotFound` when it is not set."""
    get_path(data, steps)
    first, *rest = steps
    copy = dict(data)
    if rest:
        copy[first] = unset_path(copy[first], rest)
    else:
        del copy[first]
    return copy


def parse_value(text: str) -> Any:
    """A value on a command line: as YAML reads it, a text where YAML reads nothing else."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return text if found is None and text.strip() not in ("null", "~", "") else found


def masked(record: BaseModel, *, only_set: bool = False) -> dict[str, Any]:
    """The settings as a person may see them: aliases, units, `***` for each secret."""
    shown: dict[str, Any] = record.model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude_unset=only_set
    )
    return _mask(type(record), shown)


def _mask(model: Model, shown: dict[str, Any]) -> dict[str, Any]:
    for name, field in model.model_fields.items():
        alias = field.alias or name
        inner = inner_model(field)
        if alias not in shown:
            continue
        if is_secret(field):
            shown[alias] = _mask_secret(shown[alias])
        elif inner is not None and isinstance(shown[alias], dict):
            shown[alias] = _mask(inner, shown[alias])
        each = map_model(field)
        if each is not None and isinstance(shown[alias], dict):
            shown[alias] = {key: _mask(each, one) for key, one in shown[alias].items()}
    return shown


def _mask_secret(value: Any) -> Any:
    return value if isinstance(value, Mapping) and SEALED not in value else MASK


def is_secret(field: FieldInfo) -> bool:
    """Whether a field holds a secret: of type `Secret` or `SecretStr`, or marked
    `{"secret": True}`. A reference (`{env: …}`, `{file: …}`) is a mapping and may be shown."""
    extra = field.json_schema_extra
    marked = isinstance(extra, Mapping) and bool(extra.get("secret"))
    return marked or any(kind in (Secret, SecretStr) for kind in _arguments(field.annotation))


def inner_model(field: FieldInfo) -> Model | None:
    """The model a field holds, optional or not."""
    for kind in _arguments(field.annotation):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def map_model(field: FieldInfo) -> Model | None:
    """The model that each value of a map holds."""
    for kind in _arguments(field.annotation):
        if get_origin(kind) is dict:
            inner = get_args(kind)[1]
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                return inner
    return None


def _is_map(field: FieldInfo) -> bool:
    return any(get_origin(kind) is dict or kind is dict for kind in _arguments(field.annotation))


def _arguments(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        for inner in get_args(annotation):
            yield from _arguments(inner)
    else:
        yield annotation


def _find(model: Model, written: str, path: str) -> tuple[str, FieldInfo]:
    known: dict[str, tuple[str, FieldInfo]] = {}
    for name, field in model.model_fields.items():
        for spelling in (name, field.alias or name, *_other_names(field)):
            known[_folded(spelling)] = (name, field)
    found = known.get(_folded(written))
    if found is not None:
        return found
    near = difflib.get_close_matches(_folded(written), known, n=1, cutoff=0.5)
    names = sorted(field.alias or name for name, field in model.model_fields.items())
    deeper = sorted(set(_below(model, _folded(written), path.rpartition(".")[0])))
    if deeper:
        hint = f"it belongs further down: {', '.join(deeper)}"
    elif near:
        name, field = known[near[0]]
        parent, _, _ = path.rpartition(".")
        nearest = field.alias or name
        hint = f"did you mean {f'{parent}.{nearest}' if parent else nearest}?"
    else:
        hint = f"known here: {', '.join(names)}"
    raise ConfigError(f"unknown key {path}", hint=hint)


def _below(model: Model, folded: str, path: str) -> Iterator[str]:
    """Where a key of this name is, in the sections of a model."""
    for name, field in model.model_fields.items():
        inner = inner_model(field)
        if inner is None:
            continue
        here = f"{path}.{field.alias or name}" if path else field.alias or name
        for key, found in inner.model_fields.items():
            spellings = (key, found.alias or key, *_other_names(found))
            if folded in map(_folded, spellings):
                yield f"{here}.{found.alias or key}"
        yield from _below(inner, folded, here)


def _other_names(field: FieldInfo) -> list[str]:
    extra = field.json_schema_extra
    names = extra.get("aliases") if isinstance(extra, Mapping) else None
    return [str(name) for name in names] if isinstance(names, list) else []


def _folded(key: str) -> str:
    return key.replace("-", "").replace("_", "").lower()
