"""From settings to a storage ready for use: the driver, wrapped in order.

Outside in: observing → retrying → limiting → driver. The module of a driver is imported only when
it is asked for, since its vendor's library is an extra that need not be installed. It offers
`async def open_driver(settings: StorageSettings, surroundings: Surroundings | None = None)`; a
further driver is one line here.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, Final, cast

from agent.clock import Clock, SystemClock
from agent.errors import ConfigError
from agent.storage.base import Storage
from agent.storage.describing import Ending
from agent.storage.limiting import LimitingStorage, TokenBucket
from agent.storage.observing import Observer, ObservingStorage, StorageCounters
from agent.storage.retrying import RetryingStorage, RetryPolicy
from agent.storage.surroundings import Surroundings, policy_of
from agent.wire.storage_settings import StorageSettings

OpenDriver = Callable[[StorageSettings, Surroundings], Awaitable[Storage]]

CLOUD_POLICY: Final = RetryPolicy(max_attempts=10, base_delay_s=0.2)
"""A storm that refuses a third of all requests must not end an upload of a thousand parts."""


@dataclass(frozen=True, slots=True)
class Driver:
    """Where the driver of one storage type is."""

    module: str
    extra: str | None = None
    """What `pip install 'tidelog[…]'` has to name for it."""
    policy: RetryPolicy | None = None
    """How patient it is where the settings do not say."""


DRIVERS: Final[Mapping[str, Driver]] = {
    "filesystem": Driver("agent.storage.filesystem"),
    "s3": Driver("agent.storage.s3.driver", "s3", CLOUD_POLICY),
    "minio": Driver("agent.storage.s3.driver", "s3", CLOUD_POLICY),
    "oss": Driver("agent.storage.oss.driver", "oss", CLOUD_POLICY),
    "azure": Driver("agent.storage.azure.driver", "azure", CLOUD_POLICY),
    "gcs": Driver("agent.storage.gcs.driver", "gcs", CLOUD_POLICY),
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
    node: str = ""
    """`host:port` of the node that the agent serves: it may have an endpoint of its own."""
    environment: Mapping[str, str] | None = None
    """That of the process unless it is given."""


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
    open_driver, default_policy = _driver(settings.type, drivers)
    chosen = options or StorageOptions()
    if chosen.policy is None:
        chosen = replace(chosen, policy=policy_of(settings.retryer, default_policy))
    ticking = clock or SystemClock()
    heard = _Heard()
    driver = await open_driver(settings, _surroundings(chosen, ticking, heard))
    return wrap(driver, chosen, clock=ticking, heard=heard)


async def open_bare(
    settings: StorageSettings,
    options: StorageOptions,
    *,
    clock: Clock | None = None,
    drivers: Mapping[str, Driver] = DRIVERS,
) -> Storage:
    """The driver alone, to look at the storage as it is: each request is tried once or twice, and
    what only this driver can say can be asked. Raises as `open_storage`."""
    open_driver, _ = _driver(settings.type, drivers)
    hasty = replace(options, policy=RetryPolicy(max_attempts=2, base_delay_s=0.2))
    return await open_driver(settings, _surroundings(hasty, clock or SystemClock(), _Heard()))


def wrap(
    driver: Storage,
    options: StorageOptions | None = None,
    *,
    clock: Clock | None = None,
    heard: _Heard | None = None,
) -> Storage:
    """A driver with all wrappers around it."""
    chosen = options or StorageOptions()
    ticking = clock or SystemClock()
    ending = driver if isinstance(driver, Ending) else None
    observer = Observer(
        driver.address, chosen.counters, clock=ticking, log=chosen.log, ending=ending
    )
    if heard is not None:
        heard.observer = observer
    limited = LimitingStorage(
        driver, max_concurrency=chosen.max_concurrency, bucket=chosen.bucket, clock=ticking
    )
    retried = RetryingStorage(limited, chosen.policy, clock=ticking, on_retry=observer.retried)
    return ObservingStorage(retried, observer)


@dataclass
class _Heard:
    """Retries that a driver makes itself are observed like all others. The observer comes after
    the driver, whose address it names."""

    observer: Observer | None = None

    def retried(
        self, verb: str, key: str, attempt: int, error: BaseException, pause_s: float
    ) -> None:
        if self.observer is not None:
            self.observer.retried(verb, key, attempt, error, pause_s)


def _surroundings(options: StorageOptions, clock: Clock, heard: _Heard) -> Surroundings:
    return Surroundings(
        node=options.node,
        environment=os.environ if options.environment is None else options.environment,
        clock=clock,
        policy=options.policy or RetryPolicy(),
        on_retry=heard.retried,
    )


def _driver(name: str, drivers: Mapping[str, Driver]) -> tuple[OpenDriver, RetryPolicy | None]:
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
    return cast(OpenDriver, module.open_driver), driver.policy
