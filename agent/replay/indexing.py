"""The indexes a collection has, folded from the commands that changed them.

Nothing is built while entries are replayed: an index slows every write down, a unique one refuses
what was allowed in another order, and a build that was aborted later would be for nothing. So the
list is kept here, and what is left at the end is built then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Spec = dict[str, Any]
Indexes = dict[str, Spec]
"""By name, in order of creation."""

_ENVELOPE: Final = frozenset({"createIndexes", "ns"})


def add_flat(indexes: Indexes, command: Mapping[str, Any]) -> None:
    """`{createIndexes: c, v, key, name, …}`: one index, its fields beside the command's name."""
    spec = {name: value for name, value in command.items() if name not in _ENVELOPE}
    indexes[spec["name"]] = spec


def add_built(indexes: Indexes, command: Mapping[str, Any]) -> None:
    """`{commitIndexBuild: c, indexes: [spec, …]}`."""
    for spec in command["indexes"]:
        indexes[spec["name"]] = {name: v for name, v in spec.items() if name not in _ENVELOPE}


def drop(indexes: Indexes, command: Mapping[str, Any]) -> None:
    """`{dropIndexes: c, index: name}`; `*` spares the `_id` index, as on the server."""
    named = command["index"]
    if named == "*":
        for name in [name for name in indexes if name != "_id_"]:
            del indexes[name]
    elif isinstance(named, str):
        indexes.pop(named, None)
    else:
        for name in [n for n, spec in indexes.items() if dict(spec["key"]) == dict(named)]:
            del indexes[name]


def change(indexes: Indexes, change: Mapping[str, Any]) -> bool:
    """The `index` part of a `collMod`; whether the index was found. Its specification is replaced:
    other collections may have the same."""
    found = _find(indexes, change)
    if found is None:
        return False
    spec = indexes[found["name"]] = dict(found)
    if "expireAfterSeconds" in change:
        spec["expireAfterSeconds"] = change["expireAfterSeconds"]
    for flag in ("hidden", "prepareUnique"):
        if flag in change:
            _set_flag(spec, flag, bool(change[flag]))
    if change.get("unique"):
        spec["unique"] = True
        spec.pop("prepareUnique", None)
    return True


def _set_flag(spec: Spec, flag: str, value: bool) -> None:
    if value:
        spec[flag] = True
    else:
        spec.pop(flag, None)


def _find(indexes: Indexes, change: Mapping[str, Any]) -> Spec | None:
    if "name" in change:
        return indexes.get(change["name"])
    pattern = dict(change["keyPattern"])
    return next((s for s in indexes.values() if dict(s["key"]) == pattern), None)
