"""STS and KMS: calls checked by signature, nonce, time and session."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.support.servers.aliyun.accounts import Account, Accounts, RefusedError
from tests.support.servers.aliyun.signatures import is_now, rpc_signature

_TIME = "%Y-%m-%dT%H:%M:%SZ"
TOKEN_OF_IDENTITY = "eyJ.the-identity-of-a-pod"


@dataclass
class Key:
    """A key of KMS."""

    id: str
    state: str = "Enabled"
    material: bytes = field(default_factory=lambda: os.urandom(32))
    delete_on: str = ""
    tags: dict[str, str] = field(default_factory=dict)


class RpcServices:
    """Both services, told apart by their version."""

    def __init__(self, accounts: Accounts) -> None:
        self.accounts = accounts
        self.keys: dict[str, Key] = {}
        self.aliases: dict[str, str] = {}
        self.calls: list[dict[str, str]] = []
        self._nonces: set[str] = set()

    async def handle(self, request: web.Request) -> web.Response:
        """One call."""
        form = {name: str(value) for name, value in (await request.post()).items()}
        form |= dict(request.query)
        request_id = secrets.token_hex(8).upper()
        try:
            answer = self._answer(request.method, form)
        except RefusedError as error:
            told = {"Code": error.code, "Message": error.message, "RequestId": request_id}
            return web.json_response(told, status=error.status)
        return web.json_response({**answer, "RequestId": request_id})

    def _answer(self, method: str, form: dict[str, str]) -> dict[str, Any]:
        action = form.get("Action", "")
        shown = {n: v for n, v in form.items() if n in ("Action", "KeyId", "EncryptionContext")}
        self.calls.append(shown | {"RoleSessionName": form.get("RoleSessionName", "")})
        if action == "AssumeRoleWithOIDC":
            return self._assume_by_token(form)
        account = self._checked(method, form)
        service = "sts" if form["Version"] == "2015-04-01" else "kms"
        if not account.may(f"{service}:{action}"):
            code = "NoPermission" if service == "sts" else "Forbidden.NoPermission"
            raise RefusedError(403, code, f"this operation is not authorized: {service}:{action}")
        handlers: dict[str, Callable[[dict[str, str]], dict[str, Any]]] = {
            "AssumeRole": self._assume,
            "GenerateDataKey": self._generate,
            "Encrypt": self._encrypt,
            "Decrypt": self._decrypt,
            "DescribeKey": self._describe,
            "CreateKey": self._create,
            "ListAliasesByKeyId": self._list_aliases,
            "TagResource": self._tag,
        }
        if action == "GetCallerIdentity":
            return {"Arn": f"acs:ram::1234567890123456:user/{account.access_key}"}
        if action not in handlers:
            raise RefusedError(404, "InvalidAction.NotFound")
        return handlers[action](form)

    def _checked(self, method: str, form: dict[str, str]) -> Account:
        account = self.accounts.by_key.get(form.get("AccessKeyId", ""))
        if account is None:
            raise RefusedError(404, "InvalidAccessKeyId.NotFound", "Specified access key not found")
        if form.get("SignatureMethod") != "HMAC-SHA1" or form.get("SignatureVersion") != "1.0":
            raise RefusedError(400, "InvalidSignatureMethod")
        if form.get("Signature") != rpc_signature(account.secret_key, method, form):
            raise RefusedError(400, "SignatureDoesNotMatch", "Specified signature is not matched")
        if not is_now(form.get("Timestamp", ""), _TIME):
            raise RefusedError(400, "InvalidTimeStamp.Expired")
        if form["SignatureNonce"] in self._nonces:
            raise RefusedError(400, "SignatureNonceUsed")
        self._nonces.add(form["SignatureNonce"])
        if account.token != form.get("SecurityToken"):
            raise RefusedError(403, "InvalidSecurityToken.Malformed")
        if account.expires_at is not None and time.time() > account.expires_at:
            raise RefusedError(403, "InvalidSecurityToken.Expired")
        return account

    # STS

    def _assume(self, form: dict[str, str]) -> dict[str, Any]:
        denied = self.accounts.roles.get(form["RoleArn"])
        if denied is None:
            raise RefusedError(404, "EntityNotExist.Role", "The role not exists")
        if not 2 <= len(form["RoleSessionName"]) <= 64:
            raise RefusedError(400, "InvalidParameter.RoleSessionName")
        return {"Credentials": spelled(self.accounts.session(set(denied)))}

    def _assume_by_token(self, form: dict[str, str]) -> dict[str, Any]:
        if "Signature" in form or not form.get("OIDCProviderArn"):
            raise RefusedError(400, "InvalidParameter")
        if form.get("OIDCToken") != TOKEN_OF_IDENTITY:
            raise RefusedError(400, "AuthenticationFail.OIDCToken.Invalid")
        return self._assume(form)

    # KMS

    def _key(self, form: dict[str, str], *, to_use: bool = True) -> Key:
        named = form.get("KeyId", "")
        key = self.keys.get(self.aliases.get(named, named))
        if key is None:
            code = (
                "Forbidden.AliasNotFound"
                if named.startswith("alias/")
                else ("Forbidden.KeyNotFound")
            )
            raise RefusedError(404, code, "The specified Key is not found.")
        if to_use and key.state != "Enabled":
            raise RefusedError(
                409, f"Rejected.{key.state}", f"The key state is {key.state}, it cannot be used."
            )
        return key

    def _generate(self, form: dict[str, str]) -> dict[str, Any]:
        if form.get("KeySpec") != "AES_256":
            raise RefusedError(400, "UnsupportedOperation")
        plain = os.urandom(32)
        return {
            **self._sealed(self._key(form), plain, form),
            "Plaintext": base64.b64encode(plain).decode(),
        }

    def _encrypt(self, form: dict[str, str]) -> dict[str, Any]:
        plain = base64.b64decode(form["Plaintext"], validate=True)
        return self._sealed(self._key(form), plain, form)

    def _sealed(self, key: Key, plain: bytes, form: dict[str, str]) -> dict[str, Any]:
        nonce = os.urandom(12)
        sealed = nonce + AESGCM(key.material).encrypt(nonce, plain, _context(form))
        blob = f"{key.id}-".encode() + sealed
        return {"KeyId": key.id, "CiphertextBlob": base64.b64encode(blob).decode()}

    def _decrypt(self, form: dict[str, str]) -> dict[str, Any]:
        blob = base64.b64decode(form["CiphertextBlob"], validate=True)
        key_id = blob[:40].decode("latin-1")
        key = self._key({"KeyId": key_id})
        sealed = blob[41:]
        try:
            plain = AESGCM(key.material).decrypt(sealed[:12], sealed[12:], _context(form))
        except InvalidTag:
            raise RefusedError(400, "InvalidParameter", "CiphertextBlob is not valid") from None
        return {"KeyId": key.id, "Plaintext": base64.b64encode(plain).decode()}

    def _describe(self, form: dict[str, str]) -> dict[str, Any]:
        key = self._key(form, to_use=False)
        return {
            "KeyMetadata": {
                "KeyId": key.id,
                "Arn": f"acs:kms:eu-central-1:1:key/{key.id}",
                "KeyState": key.state,
                "DeleteDate": key.delete_on,
                "KeyUsage": "ENCRYPT/DECRYPT",
            }
        }

    def _create(self, form: dict[str, str]) -> dict[str, Any]:
        return self._describe({"KeyId": self.new_key()})

    def _list_aliases(self, form: dict[str, str]) -> dict[str, Any]:
        found = [name for name, key_id in self.aliases.items() if key_id == form["KeyId"]]
        return {"Aliases": {"Alias": [{"AliasName": name} for name in found]}}

    def _tag(self, form: dict[str, str]) -> dict[str, Any]:
        for tag in json.loads(form["Tags"]):
            self._key(form, to_use=False).tags[tag["TagKey"]] = tag["TagValue"]
        return {}

    def new_key(self, alias: str | None = None) -> str:
        """Make a key; answers its id of 40 characters."""
        key = Key(f"key-{hashlib.sha1(os.urandom(8)).hexdigest()[:36]}")
        self.keys[key.id] = key
        if alias:
            self.aliases[alias] = key.id
        return key.id


def _context(form: dict[str, str]) -> bytes:
    context = json.loads(form.get("EncryptionContext") or "{}")
    return json.dumps(context, sort_keys=True).encode()


def spelled(account: Account) -> dict[str, str]:
    """A session as the services spell it."""
    ends = datetime.fromtimestamp(account.expires_at or 0, UTC)
    return {
        "AccessKeyId": account.access_key,
        "AccessKeySecret": account.secret_key,
        "SecurityToken": account.token or "",
        "Expiration": ends.strftime(_TIME),
    }
