"""The version of this distribution, written once, in `pyproject.toml`."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def _read() -> str:
    try:
        return version("tidelog")
    except PackageNotFoundError:
        return "0+unknown"


VERSION = _read()
