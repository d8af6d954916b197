"""`ctl limit`: how fast backups and restores may go, from now on, also those that run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from agent.errors import ConfigError
from agent.wire.limits import DAYS, Limits, Rates, Window
from agent.wire.units import format_size, parse_duration, parse_size
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.options import global_options
from ctl.render import as_yaml

if TYPE_CHECKING:
    from collections.abc import Callable

    from ctl.session import Session

NONE = "none"


class Rate(click.ParamType[int]):
    """`50MB`, `50MB/s`, `none`: bytes a second, 0 for no limit."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if str(value).strip().lower() == NONE:
            return 0
        try:
            rate = parse_size(str(value).removesuffix("/s"))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if rate <= 0:
            self.fail(f"{value!r} lets nothing through; write e.g. 50MB/s, or none", param, ctx)
        return rate


class Lag(click.ParamType[float]):
    """`10s`, `none`: seconds, 0 for no limit."""

    name = "lag"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if str(value).strip().lower() == NONE:
            return 0.0
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _rates(function: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--max-lag", type=Lag(), metavar="D", help="Pause while a node is behind."),
        click.option("--restore", type=Rate(), metavar="R", help="BSON loaded by restores."),
        click.option("--network", type=Rate(), metavar="R", help="To and from storages."),
        click.option("--read", type=Rate(), metavar="R", help="BSON read by backups."),
    ):
        function = option(function)
    return function


@click.group("limit")
@global_options
def command() -> None:
    """Rates of each agent, which may be changed while something runs: 50MB/s, or none."""


@command.command("show")
@global_options
@pass_invocation
def show(invocation: Invocation) -> None:
    """Show the limits, and what holds now."""

    async def run(session: Session) -> Result:
        return await _shown(session)

    invocation.perform(run)


@command.command("set")
@_rates
@click.option("--window", metavar="HH:MM-HH:MM", help="Only between these times of day.")
@click.option("--days", metavar="mon,tue,…", help="With --window: only on these days.")
@click.option("--timezone", default="UTC", metavar="TZ", help="With --window (UTC).")
@global_options
@pass_invocation
def set_(
    invocation: Invocation,
    /,
    *,
    window: str | None,
    days: str | None,
    timezone: str,
    **rates: float | None,
) -> None:
    """Set rates; what is not named stays. With --window others hold at those times: what is not
    named is then as fast as it goes."""
    if window is None and days is not None:
        raise click.UsageError("--days goes with --window")
    if all(value is None for value in rates.values()):
        raise click.UsageError("give --read, --network, --restore or --max-lag")

    async def run(session: Session) -> Result:
        limits, _ = await session.limits.read()
        if window is None:
            changed = limits.model_copy(update={"rates": _changed(limits.rates, rates)})
        else:
            added = _window(window, days, timezone, _changed(Rates(), rates))
            others = [one for one in limits.windows if _place(one) != _place(added)]
            changed = limits.model_copy(update={"windows": (added, *others)})
        await session.limits.save(changed)
        return await _shown(session)

    invocation.perform(run)


@command.command("clear")
@global_options
@pass_invocation
def clear(invocation: Invocation) -> None:
    """Forget all limits and windows."""

    async def run(session: Session) -> Result:
        await session.limits.save(Limits())
        return await _shown(session)

    invocation.perform(run)


def _changed(rates: Rates, given: dict[str, float | None]) -> Rates:
    names = {
        "read": "read_bytes_per_s",
        "network": "network_bytes_per_s",
        "restore": "restore_bytes_per_s",
        "max_lag": "max_lag_s",
    }
    update = {names[name]: value or None for name, value in given.items() if value is not None}
    return rates.model_copy(update=update)


def _window(text: str, days: str | None, timezone: str, rates: Rates) -> Window:
    start, end = (part.strip().zfill(len("HH:MM")) for part in (*text.split("-", 1), "")[:2])
    chosen = tuple(day.strip().lower()[:3] for day in days.split(",")) if days else DAYS
    if unknown := [day for day in chosen if day not in DAYS]:
        raise ConfigError(f"{unknown[0]!r} is no day", hint=f"write {','.join(DAYS)}")
    try:
        return Window.model_validate(
            {"start": start, "end": end, "days": chosen, "timezone": timezone, "rates": rates}
        )
    except ValidationError as error:
        raise ConfigError(
            f"{text!r} is no window of time: {error.errors()[0]['msg']}",
            hint="write e.g. --window 22:00-06:00 --timezone Europe/Berlin",
        ) from error


def _place(window: Window) -> tuple[Any, ...]:
    return window.start, window.end, window.days, window.timezone


async def _shown(session: Session) -> Result:
    limits, now = await session.limits.read()
    data = {
        "limits": _plain(limits.rates),
        "windows": [
            {
                "between": f"{one.start:%H:%M}-{one.end:%H:%M}",
                "timezone": one.timezone,
                "days": list(one.days),
                **_plain(one.rates),
            }
            for one in limits.windows
        ],
        "now": _plain(limits.at(now)),
    }
    return Result(data, as_yaml(_readable(data)))


def _plain(rates: Rates) -> dict[str, Any]:
    return {name: getattr(rates, name) for name in Rates.model_fields}


def _readable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key.removesuffix("_bytes_per_s"): _readable_of(key, v) for key, v in value.items()}
    return [_readable(item) for item in value] if isinstance(value, list) else value


def _readable_of(key: str, value: Any) -> Any:
    if key.endswith("_bytes_per_s"):
        return "none" if value is None else f"{_short(value)}/s"
    return "none" if value is None else _readable(value)


def _short(size_bytes: int) -> str:
    """As people write rates, `5MB`, where that is exact."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return format_size(size_bytes)
