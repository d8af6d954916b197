"""Token services of Google and Microsoft on loopback: they check what they are sent, and give out
tokens that a front or Azurite takes.

    async with TokenService() as service:
        service.google_account()          # the JSON of a service account whose key it knows
        service.lifetime_s = 1
"""

from __future__ import annotations

import json
import secrets
import ssl
import time
from pathlib import Path
from typing import Any, Self

import jwt
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

TENANT = "11111111-2222-3333-4444-555555555555"
CLIENT = "66666666-7777-8888-9999-000000000000"
SUBJECT_TOKEN = "a-projected-token"
_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


class TokenService:
    """Both of them. `asked` are the kinds of requests that were granted."""

    def __init__(self, certificate: Path | None = None) -> None:
        self._certificate = certificate
        self.url = ""
        self.lifetime_s = 3600
        self.asked: list[str] = []
        self.tokens: set[str] = set()
        self.subject_tokens = {SUBJECT_TOKEN}

    def google_account(self) -> str:
        """The JSON of a service account."""
        return json.dumps(
            {
                "type": "service_account",
                "client_email": "agent@tests.iam.gserviceaccount.com",
                "private_key": private_key(),
                "token_uri": f"{self.url}/google/token",
            }
        )

    def external_account(self, token_file: Path) -> str:
        """The JSON of workload identity federation, with impersonation."""
        return json.dumps(
            {
                "type": "external_account",
                "audience": "//iam.googleapis.com/pool",
                "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
                "token_url": f"{self.url}/google/sts",
                "credential_source": {"file": str(token_file)},
                "service_account_impersonation_url": f"{self.url}/google/impersonate",
            }
        )

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/google/token", self._google_token)
        app.router.add_post("/google/sts", self._google_sts)
        app.router.add_post("/google/impersonate", self._google_impersonate)
        metadata = "/computeMetadata/v1/instance/service-accounts/default/token"
        app.router.add_get(metadata, self._google_metadata)
        app.router.add_post(f"/{TENANT}/oauth2/v2.0/token", self._microsoft)
        app.router.add_get("/metadata/identity/oauth2/token", self._microsoft_metadata)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        context = None
        if self._certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._certificate)
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.host = f"{host}:{port}"
        self.url = f"{'https' if context else 'http'}://{self.host}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def _granted(self, kind: str) -> str:
        self.asked.append(kind)
        token = f"token-{secrets.token_hex(8)}"
        self.tokens.add(token)
        return token

    def _answer(self, kind: str) -> web.Response:
        token = self._granted(kind)
        found = {"access_token": token, "expires_in": self.lifetime_s, "token_type": "Bearer"}
        return web.json_response(found)

    async def _google_token(self, request: web.Request) -> web.Response:
        form = await request.post()
        try:
            claims = jwt.decode(
                str(form.get("assertion")),
                _KEY.public_key(),
                algorithms=["RS256"],
                audience=f"{self.url}/google/token",
            )
        except jwt.PyJWTError as error:
            return _refused("invalid_grant", str(error))
        if not claims["scope"].endswith("devstorage.read_write"):
            return _refused("invalid_scope", claims["scope"])
        return self._answer("service account")

    async def _google_sts(self, request: web.Request) -> web.Response:
        form = await request.post()
        if form.get("subject_token") not in self.subject_tokens:
            return _refused("invalid_grant", "the subject token is unknown")
        return self._answer("exchange")

    async def _google_impersonate(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            return web.json_response({"error": {"message": "who are you"}}, status=401)
        return web.json_response({"accessToken": self._granted("impersonation")})

    async def _google_metadata(self, request: web.Request) -> web.Response:
        if request.headers.get("Metadata-Flavor") != "Google":
            return web.Response(status=403)
        return self._answer("metadata")

    def _entra(self, kind: str) -> web.Response:
        """A token whose claims Azurite takes."""
        self.asked.append(kind)
        now = int(time.time())
        claims = {
            "aud": "https://storage.azure.com",
            "iss": f"https://sts.windows.net/{TENANT}/",
            "iat": now,
            "nbf": now - 5,
            "exp": now + self.lifetime_s,
        }
        token = jwt.encode(claims, private_key(), algorithm="RS256")
        found: dict[str, Any] = {
            "access_token": token,
            "expires_in": self.lifetime_s,
            "expires_on": str(now + self.lifetime_s),
            "token_type": "Bearer",
            "resource": "https://storage.azure.com/",
        }
        return web.json_response(found)

    async def _microsoft(self, request: web.Request) -> web.Response:
        form = await request.post()
        if form.get("client_id") != CLIENT:
            return _refused("unauthorized_client", "AADSTS700016: no such application")
        if form.get("client_assertion") in self.subject_tokens:
            return self._entra("federated")
        if form.get("client_secret") == "a-client-secret":
            return self._entra("secret")
        return _refused("invalid_client", "AADSTS7000215: invalid client secret")

    async def _microsoft_metadata(self, request: web.Request) -> web.Response:
        if request.headers.get("Metadata") != "true":
            return web.Response(status=400)
        return self._entra("managed")


def private_key() -> str:
    """In PEM."""
    return _KEY.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def _refused(error: str, description: str) -> web.Response:
    return web.json_response({"error": error, "error_description": description}, status=400)
