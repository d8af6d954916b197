"""What webhooks are told of, and in which form. Pure.

A notice follows from what the control database holds, and so does its id: whoever sends it, and
however often, a receiver that has seen the id has seen the notice. The form is that of Standard
Webhooks (standardwebhooks.com): headers `webhook-id`, `webhook-timestamp` in seconds since 1970,
and `webhook-signature: v1,BASE64`, the HMAC-SHA-256 of `id.timestamp.body`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from typing import Any, Final, Literal

from pydantic import Field

from agent.errors import ConfigError
from agent.wire.notify_settings import Occasion
from agent.wire.operations import Operation, State
from agent.wire.overview import Overview
from agent.wire.record import Record
from agent.wire.safety import last_backup, unintended
from agent.wire.wording import duration, moment

GIVE_UP_AFTER_S: Final = 24 * 3600.0
SECRET_PREFIX: Final = "whsec_"
_OCCASIONS: Final[dict[State, Occasion]] = {State.DONE: "success", State.FAILED: "failure"}


class Notice(Record):
    """One thing to tell; `at` in seconds since 1970, server time."""

    id: str
    event: Occasion
    at: int
    cluster_id: str
    replset: str
    """The lead replica set, as a name for people."""
    text: str
    details: dict[str, Any] = Field(default_factory=dict)


class Told(Record):
    """What one webhook was told, as the control database remembers it."""

    id: str = Field(alias="_id")
    epoch: int = 0
    since: int
    """Nothing older is told; when the webhook was first seen."""
    ids: tuple[str, ...] = ()


def notices(overview: Overview, cluster_id: str, since: int) -> list[Notice]:
    """All that is worth telling now, the oldest first: what ended or broke since a moment, and
    what has not happened."""
    found = [
        *_of_operations(overview, cluster_id, since),
        *_of_gaps(overview, cluster_id, since),
        *_of_absence(overview, cluster_id, since),
    ]
    return sorted(found, key=lambda notice: (notice.at, notice.id))


def _of_operations(overview: Overview, cluster_id: str, since: int) -> list[Notice]:
    return [
        _of_operation(operation, cluster_id, overview.replset)
        for operation in overview.recent
        if operation.state in _OCCASIONS
        and operation.finished_at is not None
        and operation.finished_at.timestamp() >= since
        and not operation.spec.get("dry_run")
    ]


def _of_operation(operation: Operation, cluster_id: str, replset: str) -> Notice:
    ended = operation.finished_at or operation.requested_at
    took_s = (ended - operation.requested_at).total_seconds()
    details: dict[str, Any] = {
        "kind": operation.kind.value,
        "name": operation.name,
        "op_id": operation.id,
        "status": operation.state.value,
        "duration_s": round(took_s, 3),
    }
    event = _OCCASIONS[operation.state]
    text = f"{replset}: {operation.kind} {operation.name} is done, in {duration(took_s)}"
    harmed = int(operation.result.get("harmed", 0))
    if harmed:
        event = "failure"
        details |= {"harmed": harmed}
        text = (
            f"{replset}: {operation.kind} {operation.name} found {harmed} things that are not what"
            " was written; 'ctl list' names the backups"
        )
    if operation.error is not None:
        details |= {"error": operation.error.message, "hint": operation.error.hint}
        text = f"{replset}: {operation.kind} {operation.name} failed: {operation.error.message}"
    return Notice(
        id=f"{cluster_id}.{operation.id}.{operation.state}",
        event=event,
        at=int(ended.timestamp()),
        cluster_id=cluster_id,
        replset=replset,
        text=text,
        details=details,
    )


def _of_gaps(overview: Overview, cluster_id: str, since: int) -> list[Notice]:
    return [
        Notice(
            id=f"{cluster_id}.gap.{gap.replset}.{gap.start.key}",
            event="gap",
            at=int(gap.at.timestamp()),
            cluster_id=cluster_id,
            replset=overview.replset,
            text=f"{gap.replset}: nothing from {moment(gap.start.wall())} to "
            f"{moment(gap.end.wall())} can be restored to: {gap.cause}",
            details={"gap": gap.to_json()},
        )
        for gap in unintended(overview.gaps)
        if gap.at is not None and gap.at.timestamp() >= since
    ]


def _of_absence(overview: Overview, cluster_id: str, since: int) -> list[Notice]:
    """Told when the deadline passes, and again each time as much time has passed."""
    newest, limit_s = last_backup(overview), overview.settings.notify.max_age
    begun = newest.last_write.T if newest is not None else since
    times = int((overview.now.T - begun) // limit_s)
    if times < 1:
        return []
    name = newest.id if newest is not None else None
    old = duration(overview.now.T - begun)
    what = f"no full backup since {name}, for {old}" if name else f"no full backup for {old}"
    return [
        Notice(
            id=f"{cluster_id}.absence.{begun}.{times}",
            event="absence",
            at=int(begun + times * limit_s),
            cluster_id=cluster_id,
            replset=overview.replset,
            text=f"{overview.replset}: {what}",
            details={"last_backup": name, "max_age_s": limit_s},
        )
    ]


def body(notice: Notice, format: Literal["json", "slack"]) -> bytes:
    """What is sent; equal for equal notices, so that a repetition has the same signature base."""
    if format == "slack":
        return json.dumps({"text": notice.text}, ensure_ascii=False).encode()
    found = {"type": f"tidelog.{notice.event}", "timestamp": notice.at, "data": notice.to_json()}
    return json.dumps(found, ensure_ascii=False, sort_keys=True).encode()


def headers(notice: Notice, content: bytes, timestamp: int, secret: str | None) -> dict[str, str]:
    """What identifies and signs it. Raises `ConfigError` for a `whsec_` secret that is none."""
    found = {
        "Content-Type": "application/json",
        "webhook-id": notice.id,
        "webhook-timestamp": str(timestamp),
    }
    if secret is not None:
        found["webhook-signature"] = f"v1,{signature(secret, notice.id, timestamp, content)}"
    return found


def signature(secret: str, notice_id: str, timestamp: int, content: bytes) -> str:
    """Base64 of the HMAC. A secret that begins with `whsec_` is Base64, any other is taken as it
    is."""
    key = secret.encode()
    if secret.startswith(SECRET_PREFIX):
        try:
            key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
        except binascii.Error as error:
            raise ConfigError("the secret of a webhook begins with whsec_ and is no Base64") from (
                error
            )
    signed = f"{notice_id}.{timestamp}.".encode() + content
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
