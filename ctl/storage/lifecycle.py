"""`ctl storage lifecycle`: rules that suit a repository, and what is wrong with those there are.

Tidelog deletes by what backups still need; a bucket deletes by age. A rule that expires current
objects takes slices out of the middle of what can be restored, and chunks that a newer backup
names. What age may decide is what is no object of a repository any more: uploads that were never
finished, and versions that a deletion left behind.
"""

from __future__ import annotations

import json
from typing import IO, Any, Final

import click

from agent.errors import ConfigError
from agent.wire.storage_settings import StorageSettings
from ctl.exit_codes import OperationFailed
from ctl.invocation import Invocation, pass_invocation
from ctl.options import global_options
from ctl.storage.documents import Document, show, source_options

UPLOAD_DAYS: Final = 7
"""No upload of Tidelog's takes so long."""
_FROZEN: Final = frozenset({"GLACIER", "DEEP_ARCHIVE"})
NO_RULES: Final = "nothing to set: a directory has no lifecycle"


@click.command("lifecycle")
@source_options
@click.option(
    "--noncurrent-days",
    type=click.IntRange(1),
    default=30,
    show_default=True,
    help="How long deleted objects can be brought back from a versioned bucket.",
)
@click.option(
    "--against",
    type=click.File(encoding="utf-8"),
    help="Look at these rules (S3's JSON) and warn of those that would eat backups.",
)
@global_options
@pass_invocation
def command(
    invocation: Invocation,
    /,
    *,
    profile: str,
    file: IO[str] | None,
    noncurrent_days: int,
    against: IO[str] | None,
) -> None:
    """Print the lifecycle rules that suit the storage.

    Never let a bucket expire current objects of a repository by age: oplog slices and chunks that
    newer backups need would go. Deleting is the business of 'delete-backup' and its kin.
    """
    existing = _parsed(against) if against is not None else None

    def build(storage: StorageSettings) -> list[Document]:
        if existing is None:
            return documents(storage, noncurrent_days)
        return [_judged(storage, existing)]

    show(invocation, profile, file, build)


def documents(storage: StorageSettings, noncurrent_days: int) -> list[Document]:
    """The rules in the form in which each store takes them."""
    prefix = _prefix(storage)
    if storage.type in ("s3", "minio"):
        return [
            Document(
                "lifecycle",
                "for 'aws s3api put-bucket-lifecycle-configuration', which replaces all rules",
                {"Rules": _s3_rules(prefix, noncurrent_days)},
            )
        ]
    if storage.type == "oss":
        return [
            Document(
                "lifecycle",
                "for 'ossutil lifecycle --method put', which replaces all rules",
                _oss_rules(prefix, noncurrent_days),
            )
        ]
    if storage.type == "gcs":
        return [
            Document(
                "lifecycle",
                "for 'gcloud storage buckets update --lifecycle-file', which replaces all rules",
                {"rule": _gcs_rules(prefix, noncurrent_days)},
            )
        ]
    if storage.type == "azure":
        container = storage.azure.container if storage.azure is not None else "CONTAINER"
        return [
            Document(
                "lifecycle",
                "for 'az storage account management-policy create'; blocks that were never"
                " committed go by themselves after seven days",
                {"rules": [_azure_rule(f"{container}/{prefix}", noncurrent_days)]},
            )
        ]
    return [Document("lifecycle", NO_RULES, {})]


def _prefix(storage: StorageSettings) -> str:
    section = getattr(storage, storage.type, None)
    prefix = str(getattr(section, "prefix", "") or "")
    return f"{prefix}/" if prefix else ""


def _s3_rules(prefix: str, noncurrent_days: int) -> list[dict[str, Any]]:
    chosen = {"Prefix": prefix}
    return [
        {
            "ID": "tidelog-unfinished-uploads",
            "Status": "Enabled",
            "Filter": chosen,
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": UPLOAD_DAYS},
        },
        {
            "ID": "tidelog-deleted-objects",
            "Status": "Enabled",
            "Filter": chosen,
            "NoncurrentVersionExpiration": {"NoncurrentDays": noncurrent_days},
            "Expiration": {"ExpiredObjectDeleteMarker": True},
        },
    ]


def _oss_rules(prefix: str, noncurrent_days: int) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<LifecycleConfiguration>\n'
        f"  <Rule><ID>tidelog-unfinished-uploads</ID><Prefix>{prefix}</Prefix>"
        "<Status>Enabled</Status>\n"
        f"    <AbortMultipartUpload><Days>{UPLOAD_DAYS}</Days></AbortMultipartUpload></Rule>\n"
        f"  <Rule><ID>tidelog-deleted-objects</ID><Prefix>{prefix}</Prefix>"
        "<Status>Enabled</Status>\n"
        "    <NoncurrentVersionExpiration>"
        f"<NoncurrentDays>{noncurrent_days}</NoncurrentDays></NoncurrentVersionExpiration>\n"
        "    <Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>"
        "</Rule>\n</LifecycleConfiguration>"
    )


def _gcs_rules(prefix: str, noncurrent_days: int) -> list[dict[str, Any]]:
    chosen = {"matchesPrefix": [prefix]} if prefix else {}
    return [
        {
            "action": {"type": "AbortIncompleteMultipartUpload"},
            "condition": {"age": UPLOAD_DAYS, **chosen},
        },
        {
            "action": {"type": "Delete"},
            "condition": {
                "daysSinceNoncurrentTime": noncurrent_days,
                "isLive": False,
                **chosen,
            },
        },
    ]


def _azure_rule(prefix: str, noncurrent_days: int) -> dict[str, Any]:
    return {
        "name": "tidelog-deleted-objects",
        "enabled": True,
        "type": "Lifecycle",
        "definition": {
            "filters": {"blobTypes": ["blockBlob"], "prefixMatch": [prefix]},
            "actions": {"version": {"delete": {"daysAfterCreationGreaterThan": noncurrent_days}}},
        },
    }


def _parsed(file: IO[str]) -> list[dict[str, Any]]:
    try:
        found = json.load(file)
    except ValueError as error:
        raise ConfigError(f"the lifecycle rules are no JSON: {error}") from error
    rules = found.get("Rules") if isinstance(found, dict) else None
    if not isinstance(rules, list):
        raise ConfigError(
            "the lifecycle rules have no 'Rules'",
            hint="give what 'aws s3api get-bucket-lifecycle-configuration' prints",
        )
    return [rule for rule in rules if isinstance(rule, dict)]


def harmful(rules: list[dict[str, Any]], prefix: str) -> list[str]:
    """What is wrong with which rule, for a repository below a prefix."""
    found = []
    for number, rule in enumerate(rules, 1):
        if str(rule.get("Status", "Enabled")).lower() != "enabled" or not _meets(rule, prefix):
            continue
        name = rule.get("ID") or f"rule {number}"
        expiry = rule.get("Expiration") or {}
        if "Days" in expiry or "Date" in expiry:
            when = f"after {expiry['Days']} days" if "Days" in expiry else f"at {expiry['Date']}"
            found.append(
                f"{name} deletes current objects {when}: oplog slices and chunks that newer"
                " backups need would go"
            )
        found += [
            f"{name} moves objects to {move['StorageClass']}: they cannot be read until they are"
            " brought back, so restores fail"
            for move in rule.get("Transitions") or ()
            if str(move.get("StorageClass", "")).upper() in _FROZEN
        ]
    return found


def _meets(rule: dict[str, Any], prefix: str) -> bool:
    chosen = rule.get("Filter") or {}
    both = chosen.get("And") or chosen
    if both.get("Tag") or both.get("Tags"):
        return False  # objects of Tidelog have no tags
    mine = str(both.get("Prefix", rule.get("Prefix", "")) or "")
    return mine.startswith(prefix) or prefix.startswith(mine)


def _judged(storage: StorageSettings, existing: list[dict[str, Any]]) -> Document:
    found = harmful(existing, _prefix(storage))
    if found:
        raise OperationFailed(
            "; ".join(found), hint="take these rules off, or limit them to another prefix"
        )
    return Document("judgement", "nothing in these rules harms the repository", {"harmful": []})
