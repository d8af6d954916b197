"""What a person may fill in beside the settings; what is not given stands as a word in capitals."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Filled:
    """Names of the cloud's side."""

    read_only: bool = False
    """For restores only."""
    with_check: bool = False
    """Also what `ctl storage check` asks beyond what backups need."""
    account: str = "ACCOUNT"
    source: str | None = None
    """Who may assume the role."""
    oidc_provider: str = "OIDC-PROVIDER"
    namespace: str = "NAMESPACE"
    service_account: str = "SERVICE-ACCOUNT"
