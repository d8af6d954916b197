"""What a driver is told of the process it runs in: passed in, so that tests own it."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from agent.clock import Clock, SystemClock
from agent.storage.retrying import RetryPolicy
from agent.storage.secrets import SecretReader
from agent.wire.storage_sections import RetryerSettings

PRODUCT: Final = "tidelog"
_NOT_IN_SESSION_NAMES: Final = re.compile(r"[^\w+=,.@-]+", re.ASCII)
_LONGEST_SESSION_NAME: Final = 64

OnRetry = Callable[[str, str, int, BaseException, float], None]


def _silent(*_: object) -> None:
    """Nobody wants to hear of retries."""


@dataclass(frozen=True)
class Surroundings:
    """Node, environment, time and patience of the process that opens a storage."""

    node: str = ""
    """`host:port` of the node that the agent serves."""
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    clock: Clock = field(default_factory=SystemClock)
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    """For what a driver retries itself: the parts of an upload."""
    on_retry: OnRetry = _silent

    @property
    def secrets(self) -> SecretReader:
        """Reads references to secrets."""
        return SecretReader(self.environment)

    def session_name(self, given: str | None = None) -> str:
        """How a session of an assumed role is called: audit logs then name the node."""
        name = given or f"{PRODUCT}-{self.node or socket.gethostname()}"
        return _NOT_IN_SESSION_NAMES.sub("-", name)[:_LONGEST_SESSION_NAME]


def policy_of(retryer: RetryerSettings, default: RetryPolicy | None = None) -> RetryPolicy:
    """The policy that the settings ask for; its deadline leaves room for all pauses."""
    base = default or RetryPolicy()
    attempts = retryer.attempts or base.max_attempts
    first_s = base.base_delay_s if retryer.base_delay is None else retryer.base_delay
    longest_s = base.max_backoff_s if retryer.max_backoff is None else retryer.max_backoff
    deadline_s = retryer.chunk_retry_deadline
    if deadline_s is None:
        deadline_s = max(base.deadline_s, longest_s * attempts)
    return RetryPolicy(attempts, first_s, longest_s, deadline_s)
