"""`policy:` of the settings: what is taken when, how long it is kept, what PITR promises."""

from __future__ import annotations

import re
from datetime import tzinfo
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, field_validator

from agent.wire.compression import Compression, CompressionLevel
from agent.wire.storage_sections import Section
from agent.wire.units import Duration

DAY_S: Final = 24 * 3600.0
VERIFICATION: Final = "verify:"
"""What the scheduler calls a verification by its name begins so; a backup's name cannot."""
_TASK: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


def _listed(written: Any) -> Any:
    """A list may be written as one text, as on the command line: `a.b,c.*`."""
    if isinstance(written, str):
        return tuple(filter(None, (item.strip() for item in written.split(","))))
    return written


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class KeepSettings(Section):
    """Which backups stay: of each period the last one, as far as there are backups of it.

    Backups of different namespaces, types or profiles are counted apart. Without any of these keys
    no backup ever goes by itself.
    """

    last: int | None = Field(default=None, ge=0)
    """The newest so many."""
    daily: int | None = Field(default=None, ge=0)
    """The last one of each of the latest so many days that have one."""
    weekly: int | None = Field(default=None, ge=0)
    """The same of weeks, which begin on Monday."""
    monthly: int | None = Field(default=None, ge=0)
    """The same of months."""
    yearly: int | None = Field(default=None, ge=0)
    """The same of years."""

    @property
    def is_set(self) -> bool:
        """Whether any rule is given."""
        return any(getattr(self, name) is not None for name in type(self).model_fields)


class _Scheduled(Section):
    """Something that happens by itself."""

    schedule: str
    """Minute, hour, day, month, weekday as in crontab (`0 2 * * *`), or `@daily` and the like; in
    `policy.timezone`."""
    enabled: bool = True
    """`false` pauses it; what it would have done meanwhile is not caught up."""
    missed: Literal["run", "skip"] = "run"
    """A moment that passed while no agent was there: one run is caught up for all of them, or none
    is."""

    @field_validator("schedule")
    @classmethod
    def _is_schedule(cls, text: str) -> str:
        from agent.wire.schedules import check_schedule  # heavy, and needed only with a policy

        return check_schedule(text)


class BackupSchedule(_Scheduled):
    """A backup that is taken by itself."""

    ns: Names = ()
    """Only these namespaces; a selective backup is no base for PITR."""
    exclude_ns: Names = ()
    """All but these."""
    with_users_and_roles: bool = False
    """With `ns`: users and roles, too."""
    profile: str = "main"
    """The storage it goes to."""
    compression: Compression | None = None
    """Without it that of `backup.compression`."""
    compression_level: CompressionLevel | None = None
    """Without it that of `backup.compressionLevel`."""
    hold: str | None = None
    """Why each of these backups is never deleted until somebody releases it."""
    collision: Literal["queue", "skip"] = "queue"
    """While another operation is in progress: wait in line, or leave this run out. While its own
    last run is not over, a run is always left out."""


class VerifySchedule(_Scheduled):
    """A look at what is stored, by itself; left out while its own last one is not over."""

    level: Literal["present", "deep", "restore"] = "present"
    """`present`: every object of every backup and of the archived oplog is there, of its size.
    `deep`: and is what was written, by its digest. `restore`: the newest full backup is restored
    into a scratch mongod and proven there; an agent needs `verify.scratchDir` for it."""
    max_age: Duration = Field(default=7 * DAY_S, ge=0)
    """With `deep`: what was read whole within this time is not read again; 0 reads all."""


class PolicySettings(Section):
    """Schedules and retention, carried out by the agents."""

    timezone: str = "UTC"
    """In which schedules, days, weeks, months and years are meant: `UTC`, `Europe/Paris`."""
    backups: dict[str, BackupSchedule] = Field(default_factory=dict)
    """Schedules by a name of your choice."""
    verify: dict[str, VerifySchedule] = Field(default_factory=dict)
    """Verifications by a name of your choice."""
    pitr_window: Duration | None = Field(default=None, gt=0)
    """Every archived moment of so long back stays restorable: its base and its slices are kept.
    Without it slices stay from the oldest backup on that `keep` keeps."""
    keep: KeepSettings = KeepSettings()
    sweep_grace: Duration = Field(default=DAY_S, gt=0)
    """How long objects that nothing refers to are left alone before they are swept."""

    @field_validator("timezone")
    @classmethod
    def _is_timezone(cls, name: str) -> str:
        from agent.wire.schedules import zone_of

        zone_of(name)
        return name

    @field_validator("backups", "verify")
    @classmethod
    def _are_named(cls, found: dict[str, _Scheduled]) -> dict[str, _Scheduled]:
        for name in found:
            if not _TASK.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a schedule; write letters, digits, - _")
        return found

    @property
    def tasks(self) -> dict[str, BackupSchedule | VerifySchedule]:
        """Everything scheduled: backups by their names, verifications as `verify:NAME`."""
        verifications = {f"{VERIFICATION}{name}": task for name, task in self.verify.items()}
        return {**self.backups, **verifications}

    @property
    def zone(self) -> tzinfo:
        """The time zone."""
        from agent.wire.schedules import zone_of

        return zone_of(self.timezone)

    @property
    def is_retaining(self) -> bool:
        """Whether anything ever goes by itself."""
        return self.keep.is_set or self.pitr_window is not None
