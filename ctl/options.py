"""Options that several commands share, and the types of their values."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource

from ctl.invocation import FORMATS, Invocation

F = TypeVar("F", bound=Callable[..., Any])

_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


class Duration(click.ParamType[float]):
    """`90`, `90s`, `1m30s`: seconds as a float."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        text = str(value).strip()
        if re.fullmatch(r"\d+(\.\d+)?", text):
            return float(text)
        if not text or _DURATION.sub("", text):
            self.fail(f"{text!r} is not a duration; write 90, 90s, 5m or 1h30m", param, ctx)
        return sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))


class Names(click.ParamType[tuple[str, ...]]):
    """`a,b`: a tuple of texts without the empty ones.

    None at all is refused: an empty variable of a script would mean everything.
    """

    name = "name,…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        found = tuple(filter(None, (item.strip() for item in str(value).split(","))))
        if not found:
            self.fail("it is empty; leave it out to mean everything", param, ctx)
        return found


class Remapping(click.ParamType[dict[str, str]]):
    """`to=from,…` as people write it; `{from: to}` as a specification has it."""

    name = "to=from,…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, str]:
        if isinstance(value, dict):
            return value
        pairs: dict[str, str] = {}
        for item in filter(None, (part.strip() for part in str(value).split(","))):
            target, equals, source = (part.strip() for part in item.partition("="))
            if not (equals and target and source):
                self.fail(f"{item!r} is no remapping; write to=from,to=from", param, ctx)
            if source in pairs or target in pairs.values():
                self.fail(f"{item!r} names a replica set a second time", param, ctx)
            pairs[source] = target
        return pairs


class OlderThan(click.ParamType[datetime | timedelta]):
    """`7d`, `2026-01-02`, `2026-01-02T03:04:05[Z]` (UTC) or seconds since 1970. Days stay a
    timedelta: they count back from the server's time."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime | timedelta:
        if isinstance(value, datetime | timedelta):
            return value
        text = str(value).strip().removesuffix("Z")
        days = re.fullmatch(r"(\d{1,5})d", text)
        if days:
            return timedelta(days=int(days[1]))
        from agent.wire.optime import parse_seconds  # the driver, which `--help` must not load

        if (seconds := parse_seconds(text)) is not None:
            return datetime.fromtimestamp(seconds, UTC)
        for pattern in ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"):
            try:
                return datetime.strptime(text, pattern).replace(tzinfo=UTC)
            except ValueError:
                continue
        return self.fail(
            f"{value!r} is no time; write 7d, 2026-01-02 or 2026-01-02T03:04:05", param, ctx
        )


def _set_uri(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    invocation = ctx.ensure_object(Invocation)
    # The command sees the environment again: what was written before the command's name wins.
    is_ambient = ctx.get_parameter_source(param.name or "") is ParameterSource.ENVIRONMENT
    if value and not (is_ambient and invocation.mongodb_uri):
        invocation.mongodb_uri = value


def _set_out(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value:
        ctx.ensure_object(Invocation).out = value


def global_options(function: F) -> F:
    """Where the cluster is and how to answer; taken before and after the command's name."""
    uri = click.option(
        "--mongodb-uri",
        metavar="URI",
        envvar=["TIDELOG_MONGODB_URI", "PBM_MONGODB_URI"],
        show_envvar=True,
        expose_value=False,
        callback=_set_uri,
        help="Connection string of any member of any replica set.",
    )
    out = click.option(
        "-o",
        "--out",
        type=click.Choice(FORMATS),
        expose_value=False,
        callback=_set_out,
        help="Format of the answer.  [default: text]",
    )
    return uri(out(function))


def wait_options(function: F) -> F:
    """`-w` and `--wait-time`, which implies it."""
    wait = click.option("-w", "--wait", is_flag=True, help="Wait for the end, showing progress.")
    limit = click.option(
        "--wait-time",
        type=Duration(),
        help="Wait at most so long (90s, 5m); the operation goes on after it.",
    )
    return wait(limit(function))


def selection_options(function: F) -> F:
    """`--ns`, `--exclude-ns`, `--with-users-and-roles`."""
    ns = click.option("--ns", type=Names(), default=(), help="Only these: db.coll, db.* or db.")
    exclude = click.option("--exclude-ns", type=Names(), default=(), help="All but these.")
    users = click.option("--with-users-and-roles", is_flag=True, help="Users and roles, too.")
    return ns(exclude(users(function)))


yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
yes_or_force_option = click.option(
    "-y", "--yes", "-f", "--force", "yes", is_flag=True, help="Do not ask."
)
"""Where PBM's scripts may have its old `-f`."""
queue_option = click.option(
    "--queue", is_flag=True, help="Wait in line if another operation is in progress."
)

dry_run_option = click.option("--dry-run", is_flag=True, help="Only show what would happen.")
remapping_option = click.option(
    "--replset-remapping",
    type=Remapping(),
    default=None,
    envvar=["TIDELOG_REPLSET_REMAPPING", "PBM_REPLSET_REMAPPING"],
    help="Replica sets that have another name here: here=in-backup,…",
)
