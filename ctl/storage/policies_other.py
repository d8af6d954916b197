"""Least privileges on OSS, Azure Blob, Google Cloud Storage, and of a directory."""

from __future__ import annotations

from typing import Any, Final

from agent.wire.storage_azure import AzureSettings
from agent.wire.storage_gcs import GcsSettings
from agent.wire.storage_oss import OssSettings
from agent.wire.storage_settings import FilesystemSettings
from ctl.storage.documents import Document
from ctl.storage.policy_options import Filled

_BLOBS: Final = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs"


def oss(section: OssSettings, filled: Filled) -> list[Document]:
    """RAM policies."""
    bucket = f"acs:oss:*:*:{section.bucket}"
    below = f"{section.prefix}/" if section.prefix else ""
    write = ["oss:PutObject", "oss:DeleteObject", "oss:AbortMultipartUpload"]
    listing: dict[str, Any] = {
        "Effect": "Allow",
        "Action": ["oss:ListObjects"]
        + ([] if filled.read_only else ["oss:ListMultipartUploads"])
        + (["oss:GetBucketEncryption", "oss:GetBucketVersioning"] if filled.with_check else []),
        "Resource": [bucket],
    }
    statements: list[dict[str, Any]] = [
        {
            "Effect": "Allow",
            "Action": ["oss:GetObject"] + ([] if filled.read_only else write),
            "Resource": [f"{bucket}/{below}*"],
        },
        listing,
    ]
    if section.server_side_encryption.sse_algorithm == "KMS":
        statements.append(
            {
                "Effect": "Allow",
                "Action": [
                    "kms:Encrypt",
                    "kms:Decrypt",
                    "kms:GenerateDataKey",
                    "kms:DescribeKey",
                ],
                "Resource": [_kms(section, filled)],
            }
        )
    found = [
        Document(
            "identity",
            "RAM policy of the user or role whose credentials the agents have",
            {"Version": "1", "Statement": statements},
        )
    ]
    role = section.credentials.role_arn
    if role is not None or filled.source is not None:
        principal = filled.source or f"acs:ram::{filled.account}:user/USER"
        trust = {
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Principal": {"RAM": [principal]},
        }
        found.append(
            Document(
                "trust-role",
                f"trust policy of {role or 'the RAM role'}, which has the identity policy",
                {"Version": "1", "Statement": [trust]},
            )
        )
    return found


def _kms(section: OssSettings, filled: Filled) -> str:
    key = section.server_side_encryption.kms_master_key_id or "*"
    return f"acs:kms:{section.region or '*'}:{filled.account}:key/{key}"


def azure(section: AzureSettings, filled: Filled) -> list[Document]:
    """A custom role, a SAS, and the federation of a workload identity."""
    account = str(section.account or "STORAGE-ACCOUNT")
    scope = (
        f"/subscriptions/{filled.account}/resourceGroups/GROUP/providers/Microsoft.Storage"
        f"/storageAccounts/{account}/blobServices/default/containers/{section.container}"
    )
    actions = [f"{_BLOBS}/read"]
    if not filled.read_only:
        actions += [f"{_BLOBS}/write", f"{_BLOBS}/add/action", f"{_BLOBS}/delete"]
    role = {
        "Name": "Tidelog backups",
        "IsCustom": True,
        "Description": "Reads and writes blobs of one container",
        "Actions": [],
        "NotActions": [],
        "DataActions": actions,
        "NotDataActions": [],
        "AssignableScopes": [scope],
    }
    letters = "rl" if filled.read_only else "racwdl"
    sas = (
        f"az storage container generate-sas --account-name {account} \\\n"
        f"  --name {section.container} --permissions {letters} --https-only \\\n"
        "  --expiry YYYY-MM-DDTHH:MMZ --auth-mode login --as-user"
    )
    subject = f"system:serviceaccount:{filled.namespace}:{filled.service_account}"
    federation = {
        "name": "tidelog",
        "issuer": f"https://{filled.oidc_provider.removeprefix('https://')}",
        "subject": subject,
        "audiences": ["api://AzureADTokenExchange"],
    }
    return [
        Document("role", "for 'az role definition create'; assign it to the identity", role),
        Document("sas", "a token of the container, in place of the account's key", sas),
        Document("federation", "credential of a workload identity for pods of AKS", federation),
    ]


def gcs(section: GcsSettings, filled: Filled) -> list[Document]:
    """Two custom roles and their bindings."""
    permissions = ["storage.objects.get"]
    if not filled.read_only:
        permissions += ["storage.objects.create", "storage.objects.delete"]
    member = filled.source or "serviceAccount:NAME@PROJECT.iam.gserviceaccount.com"
    binding: dict[str, Any] = {
        "role": "projects/PROJECT/roles/tidelogObjects",
        "members": [member],
    }
    if section.prefix:
        start = f"projects/_/buckets/{section.bucket}/objects/{section.prefix}/"
        binding["condition"] = {
            "title": "prefix",
            "expression": f'resource.name.startsWith("{start}")',
        }
    # Listing is a right on the bucket itself: a condition on objects' names would deny it.
    listing = {"role": "projects/PROJECT/roles/tidelogList", "members": [member]}
    extra = ["storage.buckets.get"] if filled.with_check else []
    found = [
        Document(
            "role-objects",
            "for 'gcloud iam roles create tidelogObjects --file'",
            {"title": "Tidelog objects", "includedPermissions": permissions, "stage": "GA"},
        ),
        Document(
            "role-list",
            "for 'gcloud iam roles create tidelogList --file'",
            {
                "title": "Tidelog list",
                "includedPermissions": ["storage.objects.list", *extra],
                "stage": "GA",
            },
        ),
        Document(
            "bindings",
            f"for the policy of gs://{section.bucket}",
            {"bindings": [binding, listing]},
        ),
    ]
    if section.kms_key_name is not None:
        command = (
            f"gcloud kms keys add-iam-policy-binding {section.kms_key_name} \\\n"
            "  --member serviceAccount:"
            "service-NUMBER@gs-project-accounts.iam.gserviceaccount.com \\\n"
            "  --role roles/cloudkms.cryptoKeyEncrypterDecrypter"
        )
        found.append(Document("kms", "the key is used by the storage's own account", command))
    return found


def filesystem(section: FilesystemSettings, filled: Filled) -> list[Document]:
    """Owner and mode of the directory."""
    mode = "0500" if filled.read_only else "0700"
    lines = f"install -d -o tidelog -g tidelog -m {mode} {section.path}"
    return [Document("directory", "on every host with an agent, for the agent's user", lines)]
