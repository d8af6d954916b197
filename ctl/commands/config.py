"""`ctl config`: the settings of the cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

import click

from agent.errors import ConfigError
from agent.wire.operations import Kind
from agent.wire.profiles import MAIN
from agent.wire.settings import Settings, get_key, load_yaml, masked
from agent.wire.specs import ResyncSpec
from ctl.exit_codes import OperationFailed
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.options import global_options, wait_options
from ctl.render import as_yaml
from ctl.settings_change import Change, apply_change, edit_keys
from ctl.storage_settings import require_storage
from ctl.submission import brief, brief_text, carry_out, submit

if TYPE_CHECKING:
    from ctl.session import Session


@click.command("config")
@click.argument("key", required=False)
@click.option("--file", "file", type=click.File(encoding="utf-8"), help="Replace all; - is stdin.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Change one key.")
@click.option("--unset", "removals", multiple=True, metavar="KEY", help="Back to the default.")
@click.option("--list", "list_", is_flag=True, help="Show all; the default.")
@click.option("--check", is_flag=True, help="Ask the agents whether they can use the storage.")
@click.option("--force-resync", is_flag=True, help="Rebuild the catalogue from the storage.")
@click.option("--include-restores", is_flag=True, help="With --force-resync: the restores, too.")
@wait_options
@global_options
@pass_invocation
def command(invocation: Invocation, /, *, key: str | None, **flags: Any) -> None:
    """Show or change the settings of the cluster, or one KEY of them (backup.compression).

    A configuration file of Percona Backup for MongoDB can be given to --file as it is. Secrets are
    shown as ***.
    """
    invocation.perform(_choose(key, **flags))


def _choose(
    key: str | None,
    *,
    file: IO[str] | None,
    assignments: tuple[str, ...],
    removals: tuple[str, ...],
    list_: bool,
    check: bool,
    force_resync: bool,
    include_restores: bool,
    wait: bool,
    wait_time: float | None,
) -> Callable[[Session], Any]:
    changes = bool(assignments or removals)
    chosen = (key is not None, file is not None, changes, list_, check, force_resync)
    if sum(chosen) > 1:
        raise click.UsageError(
            "KEY, --file, --set/--unset, --list, --check and --force-resync exclude each other"
        )
    if include_restores and not force_resync:
        raise click.UsageError("--include-restores goes with --force-resync only")
    if force_resync:
        return lambda session: _resync(session, include_restores, wait, wait_time)
    if check:
        return _check
    if file is not None:
        settings = _read(file)
        if settings.profiles:
            raise ConfigError(
                "the file has profiles, which are no part of it",
                hint="'ctl profile add NAME FILE' adds one",
            )
        return lambda session: _change(session, lambda before: _with_profiles(settings, before))
    if changes:
        return lambda session: _change(session, edit_keys(assignments, removals))
    return lambda session: _show(session, key)


def _read(file: IO[str]) -> Settings:
    source, text = getattr(file, "name", "the file"), file.read()
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    if not any(line and line != "---" for line in lines):
        # A pipe whose beginning failed, more likely than a wish.
        raise ConfigError(
            f"{source} is empty, and would take all settings away",
            hint="write {} into it if that is meant",
        )
    return load_yaml(text, source)


def _with_profiles(settings: Settings, before: Settings) -> Settings:
    """A file replaces all settings; profiles have a command of their own and stay."""
    if not before.profiles:
        return settings
    return settings.model_copy(update={"profiles": before.profiles})


async def _show(session: Session, key: str | None) -> Result:
    settings, _ = await session.settings.read()
    if key is None:
        return _settings_result(settings)
    value = get_key(settings, key)
    return Result({"key": key, "value": value}, _scalar(value))


async def _change(session: Session, change: Change) -> Result:
    return _settings_result(await apply_change(session, change))


async def _check(session: Session) -> Result:
    from ctl.storage.asking import ask_all

    await require_storage(session)
    answers = await ask_all(session, MAIN)
    told = {report.node: report.error for report in answers.reports}
    told |= answers.silent
    if not told:
        raise OperationFailed(
            "no agent is alive, so nobody can check the storage",
            hint="start one beside each node; 'ctl status' shows which there are",
        )
    if any(told.values()):
        bad = "; ".join(f"{node}: {why}" for node, why in sorted(told.items()) if why)
        raise OperationFailed(
            f"the storage cannot be used everywhere: {bad}",
            hint="'ctl storage check' shows what each agent may and may not do there",
        )
    text = "\n".join(f"{node}: ok" for node in sorted(told))
    return Result({"storage": [{"node": n, "ok": True, "error": None} for n in sorted(told)]}, text)


async def _resync(
    session: Session, include_restores: bool, wait: bool, wait_time: float | None
) -> Result:
    await require_storage(session)
    operation = await submit(session, Kind.RESYNC, ResyncSpec(include_restores=include_restores))
    done = await carry_out(session, operation, wait=wait, wait_time_s=wait_time)
    if not done.state.is_terminal:
        return Result(brief(done), brief_text(done))
    return Result({**brief(done), **done.result}, _scalar({"resync": "done", **done.result}))


def _settings_result(settings: Settings) -> Result:
    shown = masked(settings)
    shown.pop("profiles", None)  # 'ctl profile' shows them
    return Result(shown, _scalar(shown) if shown else "nothing is set; 'ctl config --file FILE'")


def _scalar(value: Any) -> str:
    if isinstance(value, dict | list):
        return as_yaml(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
