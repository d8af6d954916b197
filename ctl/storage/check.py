"""`ctl storage check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from agent.wire.profiles import MAIN, storage_path
from agent.wire.storage_reports import ANSWER_WITHIN_S, StorageReport, Verdict
from agent.wire.units import parse_size
from ctl.exit_codes import OperationFailed
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.options import Duration, global_options
from ctl.render import fields, size, title
from ctl.storage.asking import Answers, ask_all
from ctl.storage_settings import require_storage

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ctl.session import Session

_MARKS: Final = {Verdict.YES: "yes", Verdict.NO: "NO", Verdict.UNKNOWN: "unknown"}


@click.command("check")
@click.option("--profile", default=MAIN, metavar="P", help="Storage profile.  [default: main]")
@click.option(
    "--measure",
    default="8MiB",
    metavar="SIZE",
    help="What throughput is measured with; 0 measures nothing.  [default: 8MiB]",
)
@click.option("--within", type=Duration(), default=ANSWER_WITHIN_S, help="How long to wait.")
@global_options
@pass_invocation
def command(invocation: Invocation, profile: str, measure: str, within: float) -> None:
    """Ask every live agent to try the storage now, and show what each may do there.

    A probe object is written, listed, read, read in part, written again (which must be refused)
    and deleted; an upload in parts is begun and aborted. Nothing else is touched.
    """
    measure_bytes = _bytes(measure)

    async def run(session: Session) -> Result:
        settings = await require_storage(session, profile)
        answers = await ask_all(session, profile, measure_bytes=measure_bytes, within_s=within)
        data = {
            "profile": profile,
            "storage_path": storage_path(settings, profile),
            "nodes": [_plain(report) for report in answers.reports],
            "silent": answers.silent,
        }
        return Result(data, _text(answers), _fault(answers))

    invocation.perform(run)


def _bytes(text: str) -> int:
    try:
        return int(parse_size(text))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--measure") from error


def _plain(report: StorageReport) -> dict[str, Any]:
    return {"ok": report.is_ok, **report.model_dump(mode="json", exclude={"id"})}


def _fault(answers: Answers) -> OperationFailed | None:
    bad = [f"{report.node}: {_why(report)}" for report in answers.reports if not report.is_ok]
    bad += [f"{node}: {why}" for node, why in answers.silent.items()]
    if bad:
        hint = next((report.hint for report in answers.reports if report.hint), "")
        return OperationFailed(
            f"the storage cannot be used everywhere: {'; '.join(bad)}", hint=hint
        )
    if not answers.reports:
        return OperationFailed(
            "no agent is alive, so nobody can check the storage",
            hint="start one beside each node; 'ctl status' shows which there are",
        )
    return None


def _why(report: StorageReport) -> str:
    refused = [p.name for p in report.permissions if p.is_needed and p.verdict is Verdict.NO]
    missing = f"no {', no '.join(refused)}: " if refused else ""
    return f"{missing}{report.error or ''}"


def _text(answers: Answers) -> RenderableType:
    from rich.console import Group

    parts: list[RenderableType] = []
    for report in answers.reports:
        parts += [
            title(f"{report.node}: {'ok' if report.is_ok else 'FAILED'}"),
            fields(_facts(report), indent=2),
            "",
        ]
    parts += [f"{node}: {why}" for node, why in answers.silent.items()]
    return Group(*parts[:-1] if parts and parts[-1] == "" else parts)


def _facts(report: StorageReport) -> list[tuple[str, str]]:
    may = ", ".join(f"{p.name} {_MARKS[p.verdict]}" for p in report.permissions)
    told = [
        ("storage", f"{report.type} {report.address}".strip()),
        ("error", report.error),
        ("may", may),
        *((f"  {p.name}", p.detail) for p in report.permissions if p.detail),
        ("identity", report.identity),
        ("credentials", report.credentials),
        ("tls", report.tls),
        ("region", report.region),
        ("clock skew", _seconds(report.clock_skew_s)),
        ("versioning", report.versioning),
        ("object lock", report.object_lock),
        ("encryption", report.encryption),
        ("public access", report.public),
        ("free", size(report.free_bytes) if report.free_bytes is not None else None),
        ("write", _rate(report.write_bytes_s)),
        ("read", _rate(report.read_bytes_s)),
        ("repository", report.repository_id or "none yet"),
        *(("warning", warning) for warning in report.warnings),
    ]
    return [(name, value) for name, value in told if value]


def _rate(bytes_s: float | None) -> str | None:
    return None if bytes_s is None else f"{size(bytes_s)}/s"


def _seconds(skew_s: float | None) -> str | None:
    return None if skew_s is None else f"{skew_s:+.1f} s"
