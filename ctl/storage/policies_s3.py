"""Least privileges on S3 and its relatives."""

from __future__ import annotations

from typing import Any, Final

from agent.wire.storage_s3 import MinioSettings, S3Settings
from ctl.storage.documents import Document
from ctl.storage.policy_options import Filled

VERSION: Final = "2012-10-17"
READ: Final = ("s3:GetObject",)
WRITE: Final = ("s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload")
CHECK: Final = (
    "s3:GetBucketVersioning",
    "s3:GetBucketObjectLockConfiguration",
    "s3:GetBucketPublicAccessBlock",
)


def documents(section: S3Settings | MinioSettings, filled: Filled) -> list[Document]:
    """The identity policy, and what roles and keys need where the settings name some."""
    found = [
        Document(
            "identity",
            "of the user or role whose credentials the agents have; no ACL, no version, no list of"
            " buckets is needed",
            identity(section, filled),
        )
    ]
    role = section.credentials.role_arn
    if role is not None or filled.source is not None:
        found += _assumed(role, section.credentials.external_id, filled)
    found.append(
        Document(
            "trust-irsa",
            "trust policy of a role for pods of EKS; annotate the service account with its ARN and"
            " restart the pods",
            _irsa(filled),
        )
    )
    return found


def identity(section: S3Settings | MinioSettings, filled: Filled) -> dict[str, Any]:
    """The policy of whoever reads and writes the repository."""
    bucket = f"arn:aws:s3:::{section.bucket}"
    below = f"{section.prefix}/" if section.prefix else ""
    listing: dict[str, Any] = {
        "Effect": "Allow",
        "Action": ["s3:ListBucket"]
        + ([] if filled.read_only else ["s3:ListBucketMultipartUploads"]),
        "Resource": bucket,
    }
    if below:
        # IfExists: without it a missing object looks like a denied one, since reading an object
        # names no prefix.
        listing["Condition"] = {"StringLikeIfExists": {"s3:prefix": [f"{below}*"]}}
    statements: list[dict[str, Any]] = [
        {
            "Effect": "Allow",
            "Action": list(READ if filled.read_only else READ + WRITE),
            "Resource": f"{bucket}/{below}*",
        },
        listing,
    ]
    if filled.with_check:
        statements.append({"Effect": "Allow", "Action": list(CHECK), "Resource": bucket})
    encryption = section.server_side_encryption
    if (encryption.sse_algorithm or "").startswith("aws:kms"):
        statements.append(
            {
                "Effect": "Allow",
                "Action": ["kms:Decrypt"] + ([] if filled.read_only else ["kms:GenerateDataKey"]),
                "Resource": _key_arn(encryption.kms_key_id, section, filled),
            }
        )
    return {"Version": VERSION, "Statement": statements}


def _key_arn(key: str | None, section: S3Settings | MinioSettings, filled: Filled) -> str:
    if key is not None and key.startswith("arn:"):
        return key
    region = section.region or "REGION"
    return f"arn:aws:kms:{region}:{filled.account}:key/{key or 'KEY-ID'}"


def _assumed(role: str | None, external_id: str | None, filled: Filled) -> list[Document]:
    target = role or f"arn:aws:iam::{filled.account}:role/ROLE"
    trust: dict[str, Any] = {
        "Effect": "Allow",
        "Principal": {"AWS": filled.source or "arn:aws:iam::SOURCE-ACCOUNT:role/INSTANCE-ROLE"},
        "Action": "sts:AssumeRole",
    }
    if external_id is not None:
        trust["Condition"] = {"StringEquals": {"sts:ExternalId": external_id}}
    assume = {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": target}
    return [
        Document(
            "assume-source",
            "policy of the credentials that the role is assumed with (an instance profile, …)",
            {"Version": VERSION, "Statement": [assume]},
        ),
        Document(
            "trust-role",
            f"trust policy of {target}, which also has the identity policy",
            {"Version": VERSION, "Statement": [trust]},
        ),
    ]


def _irsa(filled: Filled) -> dict[str, Any]:
    provider = filled.oidc_provider.removeprefix("https://")
    subject = f"system:serviceaccount:{filled.namespace}:{filled.service_account}"
    statement = {
        "Effect": "Allow",
        "Principal": {"Federated": f"arn:aws:iam::{filled.account}:oidc-provider/{provider}"},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {
            "StringEquals": {f"{provider}:aud": "sts.amazonaws.com", f"{provider}:sub": subject}
        },
    }
    return {"Version": VERSION, "Statement": [statement]}
