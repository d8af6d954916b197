"""`ctl logs`."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from agent.wire.events import Event, EventFilter
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.options import global_options

if TYPE_CHECKING:
    from ctl.session import Session

SEVERITIES: Final = ("D", "I", "W", "E", "F")
EVERYTHING: Final = 1_000_000


@click.command("logs")
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens, until interrupted.")
@click.option("-t", "--tail", type=click.IntRange(0), default=20, metavar="N", help="0 is all.")
@click.option("-n", "--node", metavar="RS[/HOST:PORT]", help="Only of this set or node.")
@click.option("-s", "--severity", type=click.Choice(SEVERITIES), default="I", help="And graver.")
@click.option("-e", "--event", metavar="TYPE[/NAME]", help="Only of this: backup/2026-….")
@click.option("-i", "--opid", metavar="OPID", help="Only of this operation.")
@click.option("--timezone", default="UTC", metavar="ZONE", help="Europe/Berlin, Local.")
@click.option("-x", "--extra", is_flag=True, help="The operation's id and all fields, too.")
@global_options
@pass_invocation
def command(
    invocation: Invocation,
    /,
    *,
    follow: bool,
    tail: int,
    timezone: str,
    extra: bool,
    **filters: str | None,
) -> None:
    """Show what the agents did, the newest last."""
    zone = find_zone(timezone)
    chosen = build_filter(**filters)

    async def run(session: Session) -> Result | None:
        events = await session.events.tail(chosen, tail or EVERYTHING)
        if not follow:
            text = "\n".join(line(event, zone, extra) for event in events)
            return Result([record(event) for event in events], text or "no events")
        for event in events:
            _write(session, event, zone, extra)
        invocation.is_endless = True
        async for event in session.events.follow(chosen):
            _write(session, event, zone, extra)
        return None

    invocation.perform(run)


def build_filter(
    *, node: str | None, severity: str | None, event: str | None, opid: str | None
) -> EventFilter:
    """What a person wants to see."""
    replset, slash, host = (node or "").partition("/")
    kind, _, name = (event or "").partition("/")
    return EventFilter(
        severity=severity or "I",
        replset=replset or None,
        node=f"{replset}/{host}" if slash and host else None,
        kind=kind or None,
        name=name or None,
        op_id=opid,
    )


def find_zone(name: str) -> tzinfo | None:
    """A time zone; None is this host's own."""
    if name.upper() in ("UTC", "Z"):
        return UTC
    if name.lower() == "local":
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise click.BadParameter(
            f"{name!r} is no time zone; write UTC, Local or Europe/Berlin", param_hint="--timezone"
        ) from None


def record(event: Event) -> dict[str, Any]:
    """An event for a script; `ts` is in seconds."""
    at = event.at.replace(tzinfo=event.at.tzinfo or UTC) if event.at is not None else None
    return {
        "ts": round(at.timestamp(), 3) if at is not None else None,
        "time": at.isoformat(timespec="milliseconds") if at is not None else None,
        "s": event.severity,
        "rs": event.replset,
        "node": event.node,
        "e": event.kind,
        "eobj": event.name,
        "opid": event.op_id,
        "msg": event.event,
        "fields": event.fields,
    }


def line(event: Event, zone: tzinfo | None, extra: bool) -> str:
    """`2026-01-02T03:04:05Z I [rs0/host:27017] [backup/2026-…] backup.published size_bytes=1`"""
    words = [_time(event.at, zone), event.severity, f"[{event.node}]"]
    if event.kind is not None:
        words.append(f"[{event.kind}/{event.name}]" if event.name else f"[{event.kind}]")
    if extra and event.op_id is not None:
        words.append(f"[{event.op_id}]")
    words.append(event.event)
    keys = [key for key in event.fields if extra or key not in ("epoch", "agent_version")]
    words += [f"{key}={event.fields[key]}" for key in keys]
    return " ".join(words)


def _time(at: datetime | None, zone: tzinfo | None) -> str:
    if at is None:
        return "-"
    local = at.replace(tzinfo=at.tzinfo or UTC).astimezone(zone)
    text = local.strftime("%Y-%m-%dT%H:%M:%S")
    return text + ("Z" if zone is UTC else local.strftime("%z"))


def _write(session: Session, event: Event, zone: tzinfo | None, extra: bool) -> None:
    if session.output.is_json:
        session.output.record(record(event), compact=True)
    else:
        session.output.text(line(event, zone, extra))
