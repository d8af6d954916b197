"""`url: s3://bucket/prefix` and its kin: a storage in one line.

s3://bucket/prefix                              s3
minio://host:port/bucket/prefix                 minio, without TLS
gs://bucket/prefix  (or gcs://)                 gcs
oss://bucket/prefix                             oss
https://account.blob.core.windows.net/container/prefix       azure
http://host:port/account/container/prefix       azure, an emulator or another implementation
azure://account/container/prefix                azure
file:///srv/backups                             filesystem
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from agent.wire.storage_sections import Section

Parsed = tuple[str, dict[str, Any]]
AZURE_HOSTS: Final = (".blob.core.windows.net", ".blob.core.chinacloudapi.cn")
_HINT: Final = "write s3://BUCKET/PREFIX, gs://…, oss://…, https://ACCOUNT.blob… or file:///PATH"


def parse_url(text: str) -> Parsed:
    """Type and section of a storage. Raises `ValueError` that never repeats the URL: it may hold
    what should not be in it."""
    parts = _split(text.strip())
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("url holds a login, a query or a fragment; credentials have their own key")
    parse = _SCHEMES.get(parts.scheme)
    if parse is None:
        raise ValueError(f"url has no scheme that is known; {_HINT}")
    return parse(parts)


def _split(text: str) -> SplitResult:
    """With brackets left alone, which are no address of a host here (`s3://[your-bucket]/`)."""
    try:
        return urlsplit(text)
    except ValueError:
        scheme, _, rest = text.partition("://")
        netloc, slash, path = rest.partition("/")
        return SplitResult(scheme.lower(), netloc, slash + path, "", "")


def expanded(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The storage section with its `url` spelled out. Raises `ValueError` for contradictions."""
    data = dict(raw)
    url = data.pop("url", None)
    if url is None:
        return data
    kind, found = parse_url(str(url))
    if data.get("type") not in (None, kind):
        raise ValueError(f"type is {data['type']}, but url is one of {kind}")
    given = data.get(kind) or {}
    if isinstance(given, Section):
        given = given.model_dump(by_alias=True, exclude_unset=True)
    for key, value in found.items():
        if given.get(key) not in (None, "", value):
            raise ValueError(f"{key} is given twice: in url and as {kind}.{key}")
    return {**data, "type": kind, kind: {**given, **found}}


def _bucket(kind: str) -> Callable[[SplitResult], Parsed]:
    def parse(parts: SplitResult) -> Parsed:
        if not parts.netloc:
            raise ValueError("url names no bucket")
        return kind, _with_prefix({"bucket": parts.netloc}, _steps(parts))

    return parse


def _minio(parts: SplitResult) -> Parsed:
    steps = _steps(parts)
    if not parts.netloc or not steps:
        raise ValueError("url names no server or no bucket: minio://HOST:PORT/BUCKET/PREFIX")
    return "minio", _with_prefix({"endpoint": parts.netloc, "bucket": steps[0]}, steps[1:])


def _azure(parts: SplitResult) -> Parsed:
    steps = _steps(parts)
    host = parts.hostname or ""
    if parts.scheme == "azure":
        account, endpoint = host, None
    elif host.endswith(AZURE_HOSTS):
        account = host.partition(".")[0]
        endpoint = None if host.endswith(AZURE_HOSTS[0]) else f"{parts.scheme}://{parts.netloc}"
    elif steps:
        account, *steps = steps
        endpoint = f"{parts.scheme}://{parts.netloc}/{account}"
    else:
        account, endpoint = "", None
    if not account or not steps:
        raise ValueError("url names no account or no container")
    section = {"account": account, "container": steps[0]}
    if endpoint is not None:
        section["endpointUrl"] = endpoint
    return "azure", _with_prefix(section, steps[1:])


def _file(parts: SplitResult) -> Parsed:
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise ValueError("url of a directory must be file:///PATH with an absolute path")
    return "filesystem", {"path": unquote(parts.path)}


def _steps(parts: SplitResult) -> list[str]:
    return [unquote(step) for step in parts.path.split("/") if step]


def _with_prefix(section: dict[str, Any], steps: list[str]) -> dict[str, Any]:
    return {**section, "prefix": "/".join(steps)} if steps else section


_SCHEMES: Final[Mapping[str, Callable[[SplitResult], Parsed]]] = {
    "s3": _bucket("s3"),
    "minio": _minio,
    "gs": _bucket("gcs"),
    "gcs": _bucket("gcs"),
    "oss": _bucket("oss"),
    "azure": _azure,
    "https": _azure,
    "http": _azure,
    "file": _file,
}
