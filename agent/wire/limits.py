"""How fast agents may go, and when: rates that can change while something runs.

Rates are those of one agent. They lie in a document of their own beside the settings, so that a
change of pace is no change of settings: nothing begins anew because of it.
"""

from __future__ import annotations

from datetime import datetime, time
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator

from agent.wire.collections import SCHEMA_VERSION
from agent.wire.record import Record

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Rates(Record):
    """Bytes a second; None is as fast as it goes."""

    read_bytes_per_s: int | None = Field(default=None, gt=0)
    """BSON read from the database by backups."""
    network_bytes_per_s: int | None = Field(default=None, gt=0)
    """Stored bytes sent to and taken from storages, slices included."""
    restore_bytes_per_s: int | None = Field(default=None, gt=0)
    """BSON loaded into the database by restores."""
    max_lag_s: float | None = Field(default=None, gt=0)
    """Backups pause while the node they read from is further behind its primary."""


class Window(Record):
    """Other rates between two times of day. A window over midnight belongs to the day on which it
    begins."""

    start: time
    end: time
    days: tuple[str, ...] = DAYS
    timezone: str = "UTC"
    rates: Rates = Rates()

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"there is no time zone {name!r}; write e.g. Europe/Berlin") from error
        return name

    def holds(self, moment: datetime) -> bool:
        """Whether a moment lies in it, its beginning included and its end not."""
        local = moment.astimezone(ZoneInfo(self.timezone))
        today, yesterday = DAYS[local.weekday()], DAYS[local.weekday() - 1]
        at = local.time()
        if self.start < self.end:
            return today in self.days and self.start <= at < self.end
        return (today in self.days and at >= self.start) or (
            yesterday in self.days and at < self.end
        )


class Limits(Record):
    """The rates, and windows in which others hold. The first window that holds wins, whole."""

    schema_version: int = SCHEMA_VERSION
    rates: Rates = Rates()
    windows: tuple[Window, ...] = ()

    def at(self, moment: datetime) -> Rates:
        """What holds at a moment."""
        return next((one.rates for one in self.windows if one.holds(moment)), self.rates)
