"""The least that agents must be allowed at a key management service, as documents to paste."""

from __future__ import annotations

from typing import Any, Final

from agent.errors import ConfigError

USES: Final = ("kms:GenerateDataKey", "kms:Encrypt", "kms:Decrypt")
"""Of the key: each with the repository's id in its encryption context."""
LOOKS: Final = ("kms:DescribeKey", "kms:TagResource")
"""What has no encryption context."""
_AUTO: Final = "auto"


def aws_kms(key: str | None, repository: str | None) -> dict[str, Any]:
    """Of AWS. With a repository, nothing but its own data keys is unwrapped."""
    resource = "KEY-ARN" if key in (None, _AUTO) else key
    if repository is None:
        statements = [_allowed((*USES, *LOOKS), resource)]
    else:
        bound = {"StringEquals": {"kms:EncryptionContext:tidelog-repository": repository}}
        statements = [
            {**_allowed(USES, resource), "Condition": bound},
            _allowed(LOOKS, resource),
        ]
    return {"Version": "2012-10-17", "Statement": [*statements, *_made(key)]}


def aliyun_kms(key: str | None, repository: str | None) -> dict[str, Any]:
    """Of Alibaba Cloud, whose conditions do not know encryption contexts."""
    resource = "acs:kms:*:*:key/KEY" if key in (None, _AUTO) else str(key)
    if not resource.startswith("acs:"):
        resource = f"acs:kms:*:*:key/{resource}"
    named = _allowed((*USES, *LOOKS, "kms:ListAliasesByKeyId"), resource)
    return {"Version": "1", "Statement": [named, *_made(key)]}


BY_PROVIDER: Final = {"aws-kms": aws_kms, "aliyun-kms": aliyun_kms}


def key_policy(provider: str, key: str | None, repository: str | None) -> dict[str, Any]:
    """Raises `ConfigError` for a provider without a service."""
    build = BY_PROVIDER.get(provider)
    if build is None:
        raise ConfigError(
            f"{provider} needs no rights: each agent reads the key on its own host",
            hint="its file should be readable by the agents' user alone",
        )
    return build(key, repository)


def _allowed(actions: tuple[str, ...], resource: str | None) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": resource}


def _made(key: str | None) -> list[dict[str, Any]]:
    return [_allowed(("kms:CreateKey",), "*")] if key == _AUTO else []
