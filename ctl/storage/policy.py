"""`ctl storage policy`."""

from __future__ import annotations

from typing import IO

import click

from agent.errors import ConfigError
from agent.wire.storage_settings import StorageSettings
from ctl.invocation import Invocation, pass_invocation
from ctl.options import global_options
from ctl.storage import policies_other, policies_s3
from ctl.storage.documents import Document, show, source_options
from ctl.storage.policy_options import Filled


@click.command("policy")
@source_options
@click.option("--read-only", is_flag=True, help="For credentials that only restore.")
@click.option("--with-check", is_flag=True, help="Also what 'storage check' likes to ask.")
@click.option("--account", metavar="ID", help="Account (AWS, Alibaba) or subscription (Azure).")
@click.option("--source", metavar="WHO", help="Who assumes the role, or the member (GCS).")
@click.option("--oidc-provider", metavar="HOST/PATH", help="Of the Kubernetes cluster.")
@click.option("--namespace", metavar="NS", help="Of the agents' pods.")
@click.option("--service-account", metavar="SA", help="Of the agents' pods.")
@global_options
@pass_invocation
def command(
    invocation: Invocation,
    /,
    *,
    profile: str,
    file: IO[str] | None,
    read_only: bool,
    with_check: bool,
    **named: str | None,
) -> None:
    """Print the least privileges that the agents' credentials need on the storage.

    Bucket and prefix are those of the settings. What the settings do not know stands in capitals,
    and can be given as a flag.
    """
    given = {name: value for name, value in named.items() if value is not None}
    filled = Filled(read_only=read_only, with_check=with_check, **given)
    show(invocation, profile, file, lambda storage: documents(storage, filled))


def documents(storage: StorageSettings, filled: Filled) -> list[Document]:
    """Everything for this storage. Raises `ConfigError` for a type without policies."""
    if storage.s3 is not None and storage.type == "s3":
        return policies_s3.documents(storage.s3, filled)
    if storage.minio is not None and storage.type == "minio":
        return policies_s3.documents(storage.minio, filled)[:1]
    if storage.oss is not None and storage.type == "oss":
        return policies_other.oss(storage.oss, filled)
    if storage.azure is not None and storage.type == "azure":
        return policies_other.azure(storage.azure, filled)
    if storage.gcs is not None and storage.type == "gcs":
        return policies_other.gcs(storage.gcs, filled)
    if storage.filesystem is not None and storage.type == "filesystem":
        return policies_other.filesystem(storage.filesystem, filled)
    raise ConfigError(f"a storage of type {storage.type} needs no policy")
