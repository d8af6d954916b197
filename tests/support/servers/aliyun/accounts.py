"""Who may do what: permanent keys, sessions that expire, denied actions."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from fnmatch import fnmatchcase


class RefusedError(Exception):
    """The service says no."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message or code


@dataclass
class Account:
    """One access key."""

    access_key: str
    secret_key: str
    token: str | None = None
    expires_at: float | None = None
    denied: set[str] = field(default_factory=set)
    """Patterns of actions: `oss:DeleteObject`, `kms:*`."""

    def may(self, action: str) -> bool:
        """Whether the action is allowed."""
        return not any(fnmatchcase(action, pattern) for pattern in self.denied)


@dataclass
class Accounts:
    """All of them, and the roles that can be assumed."""

    by_key: dict[str, Account] = field(default_factory=dict)
    roles: dict[str, set[str]] = field(default_factory=dict)
    """Role → what its sessions are denied."""
    lifetime_s: float = 3600.0

    def add(self, access_key: str, secret_key: str, denied: set[str] | None = None) -> None:
        """A permanent key."""
        self.by_key[access_key] = Account(access_key, secret_key, denied=denied or set())

    def session(self, denied: set[str] | None = None, lifetime_s: float | None = None) -> Account:
        """A new temporary key."""
        account = Account(
            f"STS.{secrets.token_hex(8)}",
            secrets.token_hex(16),
            token=f"CAIS{secrets.token_urlsafe(48)}+/==",
            expires_at=time.time() + (self.lifetime_s if lifetime_s is None else lifetime_s),
            denied=denied or set(),
        )
        self.by_key[account.access_key] = account
        return account
