"""`ctl encryption`: client-side encryption of the repository."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import click

from agent.wire import keys
from agent.wire.encryption import PROVIDERS, EncryptionSpec
from agent.wire.operations import Kind
from ctl.encryption_view import status_of, status_text
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.key_policies import key_policy
from ctl.options import global_options, wait_options, yes_option
from ctl.storage_settings import require_storage
from ctl.submission import brief, brief_text, carry_out, submit

if TYPE_CHECKING:
    from collections.abc import Callable

    from ctl.session import Session

CONSEQUENCES: Final = """\
Encryption of this repository will be switched on:
  - It cannot be switched off again. Only a new repository can be in clear.
  - New backups and slices are encrypted; those that exist stay as they are, and readable.
  - Whoever loses the key loses every backup made with it. Nobody can help then: keep copies of a
    passphrase or key file, and never delete a key of a key management service.
  - {change}"""
ROTATES: Final = "The key can be rotated: a new key is added to old backups, no data is rewritten."
_REFERENCES: Final = (
    ("passphrase", "file", "passphrase_file"),
    ("passphrase", "env", "passphrase_env"),
    ("passphrase", "credential", "passphrase_credential"),
    ("keyfile", "file", "keyfile"),
)
_PLAIN: Final = (("keyId", "key_id"), ("region", "region"), ("endpointUrl", "endpoint_url"))
FORBIDDEN: Final = "The key can never be changed (--strict)."


@click.group("encryption")
@global_options
def command() -> None:
    """Encrypt backups before they leave the agents' hosts, and look after the keys."""


def _key_options(function: Callable[..., Any]) -> Callable[..., Any]:
    options = (
        click.option(
            "--provider",
            required=True,
            type=click.Choice(tuple(PROVIDERS)),
            help="Who has the key.",
        ),
        click.option("--passphrase-file", metavar="PATH", help="On each agent's host."),
        click.option("--passphrase-env", metavar="NAME", help="Of each agent's environment."),
        click.option("--passphrase-credential", metavar="NAME", help="Of each agent's unit."),
        click.option("--keyfile", metavar="PATH", help="On each agent's host."),
        click.option("--key-id", metavar="KEY", help="Id, ARN or alias; auto makes one."),
        click.option("--profile", default="main", show_default=True, help="Which storage."),
        click.option("--region", help="Of the key management service."),
        click.option("--endpoint-url", metavar="URL", help="Of the key management service."),
        click.option(
            "--option",
            "further",
            multiple=True,
            metavar="NAME=VALUE",
            help="Any other option of the provider (docs/encryption.md).",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


@command.command("enable")
@_key_options
@click.option("--strict", is_flag=True, help="The key can never be changed either.")
@yes_option
@wait_options
@global_options
@pass_invocation
def enable(invocation: Invocation, /, *, strict: bool, **flags: Any) -> None:
    """Encrypt all new backups and slices, from now on and for good."""
    spec = EncryptionSpec(
        action="enable",
        provider=flags["provider"],
        options=provider_options(flags),
        key_change="forbid" if strict else "rotate",
        profile=flags["profile"],
    )
    text = CONSEQUENCES.format(change=FORBIDDEN if strict else ROTATES)
    _submit(invocation, spec, text, "Switch encryption on?", flags)


@command.command("rotate")
@_key_options
@click.option("--keep", is_flag=True, help="Go on using the present keys, too.")
@yes_option
@wait_options
@global_options
@pass_invocation
def rotate(invocation: Invocation, /, *, keep: bool, **flags: Any) -> None:
    """Bring another key in: data keys are wrapped under it, too, and no data is rewritten.

    With --keep each of the keys opens everything: two regions of a key management service, or a
    passphrase in a safe. Without it new backups use the new key alone.
    """
    spec = EncryptionSpec(
        action="rotate",
        provider=flags["provider"],
        options=provider_options(flags),
        keep=keep,
        profile=flags["profile"],
    )
    text = "The new key will open all backups, old ones too. " + (
        "The present keys stay in use."
        if keep
        else "New backups will use the new key alone; old ones still open with their old keys."
    )
    _submit(invocation, spec, text, "Bring the key in?", flags)


@command.command("status")
@click.option("--probe", is_flag=True, help="Unwrap every key now; without it, as last found.")
@global_options
@pass_invocation
def status(invocation: Invocation, probe: bool) -> None:
    """Show the keys, what they encrypt, and whether every agent can use them."""

    async def run(session: Session) -> Result:
        if probe and await session.encryption.all():
            operation = await submit(session, Kind.ENCRYPTION, EncryptionSpec(action="probe"))
            await carry_out(session, operation, wait=True, wait_time_s=None)
        found = status_of(
            await session.encryption.all(),
            await session.catalog.backups(),
            await session.nodes.live(),
        )
        return Result(found, status_text(found))

    invocation.perform(run)


@command.command("policy")
@click.option("--provider", required=True, type=click.Choice(tuple(PROVIDERS)), help="Which.")
@click.option("--key-id", metavar="KEY", help="ARN of the key; auto: one is to be made.")
@click.option("--repository", metavar="ID", help="Only for this repository's keys (AWS).")
@global_options
@pass_invocation
def policy(
    invocation: Invocation, /, *, provider: str, key_id: str | None, repository: str | None
) -> None:
    """Print the rights that agents need on a key, and no more; needs no cluster."""
    document = key_policy(provider, key_id, repository)
    invocation.output.show(Result(document, json.dumps(document, indent=2)))


def provider_options(flags: dict[str, Any]) -> dict[str, Any]:
    """The options of a provider that flags mean: references, never secrets."""
    found: dict[str, Any] = {}
    for name, kind, flag in _REFERENCES:
        if flags.get(flag) is not None:
            if name in found:
                raise click.UsageError(f"the {name} is given twice")
            found[name] = {kind: flags[flag]}
    for name, flag in _PLAIN:
        if flags.get(flag) is not None:
            found[name] = flags[flag]
    for written in flags["further"]:
        name, equals, value = written.partition("=")
        if not equals:
            raise click.UsageError(f"{written!r} is no option; write --option name=value")
        found = keys.set_path(found, name.split("."), keys.parse_value(value))
    return found


def _submit(
    invocation: Invocation, spec: EncryptionSpec, text: str, question: str, flags: dict[str, Any]
) -> None:
    async def run(session: Session) -> Result:
        await require_storage(session, spec.profile)
        if not session.output.confirm(text, question, yes=flags["yes"]):
            return Result({"status": "declined"}, "nothing was changed")
        operation = await submit(session, Kind.ENCRYPTION, spec)
        done = await carry_out(
            session, operation, wait=flags["wait"], wait_time_s=flags["wait_time"]
        )
        if not done.state.is_terminal:
            return Result(brief(done), brief_text(done))
        for warning in done.result.get("warnings", ()):
            session.output.note(f"Warning: {warning}")
        keks = done.result["policy"]["keks"]
        words = ", ".join(f"{kek['provider']} {kek['key']}" for kek in keks)
        return Result(
            {**brief(done), **done.result},
            f"New backups are encrypted under {words}; {done.result['rewrapped']} data keys of old"
            " ones were wrapped anew",
        )

    invocation.perform(run)
