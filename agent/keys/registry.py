"""Key providers by name. A module is imported when it is used: clouds' libraries are large."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from agent.errors import ConfigError
from agent.keys.base import KeyProvider, Options
from agent.storage.surroundings import Surroundings
from agent.wire.encryption import PROVIDERS


def open_provider(name: str, options: Options, surroundings: Surroundings) -> KeyProvider:
    """A provider; the caller closes it. Raises `ConfigError` for an unknown one, wrong options or
    a library that is not installed."""
    found = PROVIDERS.get(name)
    if found is None:
        known = ", ".join(sorted(PROVIDERS))
        raise ConfigError(f"there is no key provider {name!r}", hint=f"one of: {known}")
    try:
        module = import_module(found.module)
    except ImportError as error:
        if found.extra is None:
            raise
        raise ConfigError(
            f"the key provider {name!r} needs a library that is not installed ({error.name})",
            hint=f"pip install 'tidelog[{found.extra}]'",
        ) from error
    return cast(KeyProvider, module.open_provider(options, surroundings))
