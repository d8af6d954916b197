"""Which repository each profile leads to, as agents found it when they last looked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from pydantic import Field

from agent.wire.collections import SCHEMA_VERSION
from agent.wire.record import Record


class Found(Record):
    """What lies where the settings of one profile point."""

    profile: str
    place: str
    """`agent.wire.profiles.place_of` of the settings that were used."""
    address: str
    repository_id: str | None = None
    """None where nothing was written yet."""
    cluster_id: str | None = None
    """The cluster that owns it."""
    by_node: str = ""
    at: datetime | None = None


class Repositories(Record):
    """All that is known, by profile."""

    schema_version: int = SCHEMA_VERSION
    found: dict[str, Found] = Field(default_factory=dict)

    def at(self, profile: str, place: str) -> Found | None:
        """What is known of a profile as it is configured now; None where nobody has looked since
        its place was changed."""
        known = self.found.get(profile)
        return known if known is not None and known.place == place else None


def holders(found: Repositories, places: Mapping[str, str], copies: Mapping[str, str]) -> list[str]:
    """The profiles that lead to a repository in which a backup lies, in the order of `places`
    (`{profile: place}`). `copies` is `{repository id: profile it was written through}`. A profile
    that nobody has ever looked at is believed to hold what was written through it."""
    held = []
    for profile, place in places.items():
        if profile in found.found:
            known = found.at(profile, place)
            if known is not None and known.repository_id in copies:
                held.append(profile)
        elif profile in copies.values():
            held.append(profile)
    return held
