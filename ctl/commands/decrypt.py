"""`ctl decrypt`: objects of a repository in clear; needs no cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from ctl.exit_codes import OperationFailed
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.options import global_options

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_DIRECTORY: Final = click.Path(file_okay=False, path_type=Path)


@click.command("decrypt")
@click.argument(
    "paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="PATH…"
)
@click.option("--key-hex", metavar="HEX", help="The data key; ps shows it: better a file.")
@click.option("--data-keys", type=_DIRECTORY, help="Data keys, hexadecimal, as <key id>.hex.")
@click.option("--passphrase-file", type=_FILE, help="A file with the passphrase.")
@click.option("--keyfile", type=_FILE, help="The key file.")
@click.option("--keys", type=_DIRECTORY, help="Where the wrapped keys are, if not beside PATH.")
@click.option("--to", type=_DIRECTORY, help="Where to write, if not beside the objects.")
@click.option("--dump", type=_DIRECTORY, help="Make a directory for mongorestore, too.")
@global_options
@pass_invocation
def command(
    invocation: Invocation, /, *, paths: tuple[Path, ...], **given: str | Path | None
) -> None:
    """Decrypt copies of a repository's objects, files or directories of them.

    Each X.enc is written as X, and only if every byte proved to be what was written. The same as
    docs/tidelog_decrypt.py, which needs no Tidelog.
    """
    from ctl.decryptor import decrypt

    arguments = [
        f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value is not None
    ]
    if not any(given[name] for name in ("key_hex", "data_keys", "passphrase_file", "keyfile")):
        raise click.UsageError("give --data-keys, --passphrase-file, --keyfile or --key-hex")
    found = decrypt([*arguments, *map(str, paths)])
    words = ", ".join(f"{count} {what}" for what, count in found.items())
    fault = OperationFailed("not everything could be decrypted; each object says why")
    invocation.report(Result(found, words, fault=fault if found["failed"] else None))
