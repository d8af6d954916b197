"""From settings to a storage ready for use: the driver, wrapped in order.

Outside in: observing → retrying → limiting → driver. The module of a driver is imported only when
it is asked for, since its vendor's library is an extra that need not be installed. It offers
`async def open_driver(settings: StorageSettings) -> Storage`; a further driver is one line here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, cast

from agent.clock import Clock, SystemClock
from agent.errors import ConfigError
from agent.storage.base import Storage
from agent.storage.limiting import LimitingStorage, TokenBucket
from agent.storage.observing import Observer, ObservingStorage, StorageCounters
from agent.storage.retrying import RetryingStorage, RetryPolicy
from agent.wire.storage_settings import StorageSettings

OpenDriver = Callable[[StorageSettings], Awaitable[Storage]]


@dataclass(frozen=True, slots=True)
class Driver:
    """Where the driver of one storage type is."""

    module: str
    extra: str | None = None
    """What `pip install 'tidelog[…]'` has to name for it."""


DRIVERS: Final[Mapping[str, Driver]] = {
    "filesystem": Driver("agent.storage.filesystem"),
}
"""`memory` is missing on purpose: what is in it is lost with the process."""


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """How a storage is used, whatever its driver. Counters and bucket may be shared."""

    policy: RetryPolicy | None = None
    max_concurrency: int | None = None
    bucket: TokenBucket | None = None
    counters: StorageCounters | None = None
    log: Any = None


async def open_storage(
    settings: StorageSettings,
    options: StorageOptions | None = None,
    *,
    clock: Clock | None = None,
    drivers: Mapping[str, Driver] = DRIVERS,
) -> Storage:
    """Open the storage that the settings name; the caller closes it.

    Raises `ConfigError` for an unknown type or a driver that is not installed, and what the
    driver's `open` raises.
    """
    open_driver = _driver(settings.type, drivers)
    return wrap(await open_driver(settings), options, clock=clock)


def wrap(
    driver: Storage, options: StorageOptions | None = None, *, clock: Clock | None = None
) -> Storage:
    """A driver with all wrappers around it."""
    chosen = options or StorageOptions()
    ticking = clock or SystemClock()
    observer = Observer(driver.address, chosen.counters, clock=ticking, log=chosen.log)
    limited = LimitingStorage(
        driver, max_concurrency=chosen.max_concurrency, bucket=chosen.bucket, clock=ticking
    )
    retried = RetryingStorage(limited, chosen.policy, clock=ticking, on_retry=observer.retried)
    return ObservingStorage(retried, observer)


def _driver(name: str, drivers: Mapping[str, Driver]) -> OpenDriver:
    driver = drivers.get(name)
    if driver is None:
        known = ", ".join(sorted(drivers))
        raise ConfigError(f"the storage type {name!r} cannot be used", hint=f"one of: {known}")
    try:
        module = import_module(driver.module)
    except ImportError as error:
        if driver.extra is None:
            raise
        raise ConfigError(
            f"the storage type {name!r} needs a library that is not installed ({error.name})",
            hint=f"pip install 'tidelog[{driver.extra}]'",
        ) from error
    return cast(OpenDriver, module.open_driver)
