"""Whose credentials a driver uses, in one table for all clouds.

| link         | S3                           | OSS        | Azure            | GCS              |
|--------------|------------------------------|------------|------------------|------------------|
| explicit     | key in the settings          | the same   | key, SAS, string | JSON, key        |
| web identity | AWS_WEB_IDENTITY_TOKEN_FILE  | OIDC token | federated token  | external account |
| assumed role | AWS_ROLE_ARN by a lower link | by a key   | –                | impersonation    |
| environment  | AWS_ACCESS_KEY_ID            | the same   | AZURE_CLIENT_ID… | the variable     |
| profile      | shared files of AWS          | the same   | –                | gcloud's file    |
| metadata     | container, instance profile  | RAM role   | managed identity | metadata server  |

A role named in the settings is assumed with the first link there is, the explicit key included: it
was asked for. A role named in the environment is for ambient credentials only, since an explicit
key wins over everything that lies around, and a web identity is a role already.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Link(StrEnum):
    """Where credentials come from."""

    EXPLICIT = "explicit"
    WEB_IDENTITY = "web identity"
    ASSUMED_ROLE = "assumed role"
    ENVIRONMENT = "environment"
    PROFILE = "profile"
    METADATA = "metadata"


ORDER: Final = (
    Link.EXPLICIT,
    Link.WEB_IDENTITY,
    Link.ASSUMED_ROLE,
    Link.ENVIRONMENT,
    Link.PROFILE,
    Link.METADATA,
)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which credentials are used."""

    base: Link
    """Where the first ones come from; `METADATA` where nothing else is there."""
    role: str | None = None
    """The role that they are exchanged for."""

    @property
    def link(self) -> Link:
        """The link of the chain that won, for people."""
        return self.base if self.role is None else Link.ASSUMED_ROLE


def choose(
    present: Collection[Link],
    *,
    settings_role: str | None = None,
    ambient_role: str | None = None,
) -> Choice:
    """What wins of the links that are present."""
    base = next((link for link in ORDER if link in present), Link.METADATA)
    if settings_role is not None:
        is_that_role = base is Link.WEB_IDENTITY and settings_role == ambient_role
        return Choice(base, None if is_that_role else settings_role)
    if base in (Link.EXPLICIT, Link.WEB_IDENTITY):
        return Choice(base)
    return Choice(base, ambient_role)
