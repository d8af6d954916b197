"""The requests of OSS: signatures first, then what is asked."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import quote, unquote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from aiohttp import web
from fastcrc import crc64

from tests.support.servers.aliyun.accounts import Account, Accounts, RefusedError
from tests.support.servers.aliyun.objects import PIECE, Objects, Stored, Upload, kept
from tests.support.servers.aliyun.signatures import is_now, parse_v4, v4_signature

REGION = "eu-central-1"
BUCKET = "tidelog-test"
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


class Oss:
    """One bucket, in path style and as a host of its own."""

    def __init__(self, accounts: Accounts, directory: Path) -> None:
        self.accounts = accounts
        self.objects = Objects(directory)
        self.locked_days = 0
        """Of a retention policy: nothing is deleted while there is one."""
        self.default_encryption: str | None = None
        self.wrong_bodies = 0
        self.page_of_uploads = 1000
        """So many of the next bodies are stored with a flipped bit."""
        self.seen: list[dict[str, str]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        try:
            name = self._name(request)
            account = self._account(request, name)
            return await self._route(request, name, account)
        except RefusedError as error:
            return refusal(request.method, error)

    def _name(self, request: web.Request) -> str:
        """The object's name, empty for the bucket. Refuses another bucket."""
        name = unquote(_target(request)[0].lstrip("/"))
        host = request.headers.get("Host", "")
        if host.endswith(".aliyuncs.com"):
            bucket = host.partition(".")[0]
        else:
            bucket, _, name = name.partition("/")
        if bucket != BUCKET:
            raise RefusedError(404, "NoSuchBucket", "The specified bucket does not exist.")
        return name

    def _account(self, request: web.Request, name: str) -> Account:
        claimed = parse_v4(request.headers.get("Authorization", ""))
        if claimed is None:
            raise RefusedError(403, "AccessDenied", "Anonymous access is forbidden.")
        account = self.accounts.by_key.get(claimed["key"])
        if account is None:
            raise RefusedError(403, "InvalidAccessKeyId", "The key does not exist in our records.")
        headers = {each.lower(): value for each, value in request.headers.items()}
        if not is_now(headers.get("x-oss-date", ""), "%Y%m%dT%H%M%SZ"):
            raise RefusedError(403, "RequestTimeTooSkewed")
        if claimed["region"] != REGION:
            raise RefusedError(400, "InvalidArgument", f"Invalid signing region, want {REGION}.")
        raw_query = _target(request)[1]
        resource = f"/{BUCKET}/{name}"
        wanted = v4_signature(
            account.secret_key, claimed, request.method, resource, raw_query, headers
        )
        if wanted != claimed["signature"]:
            raise RefusedError(403, "SignatureDoesNotMatch", "The signature does not match.")
        if account.token != headers.get("x-oss-security-token"):
            code = "InvalidAccessKeyId" if account.token else "InvalidSecurityToken"
            raise RefusedError(403, code, "The security token is missing or not yours.")
        if account.expires_at is not None and time.time() > account.expires_at:
            raise RefusedError(403, "SecurityTokenExpired", "The security token has expired.")
        return account

    async def _route(self, request: web.Request, name: str, account: Account) -> web.StreamResponse:
        key = (request.method, "object" if name else "bucket", _subresource(request))
        found = _ROUTES.get(key)
        if found is None:
            raise RefusedError(405, "MethodNotAllowed", str(key))
        action, handler = found
        headers = {each.lower(): value for each, value in request.headers.items()}
        self.seen.append({**headers, " action": action, " name": name, " host": request.host})
        if not account.may(action):
            raise RefusedError(403, "AccessDenied", f"You have no right to {action}.")
        return await handler(self, request, name)

    # Objects

    async def put(self, request: web.Request, name: str) -> web.Response:
        """PutObject."""
        stored = await self._received(request)
        stored.headers = kept(_lower(request))
        self._publish(request, name, stored)
        answer = _answer(stored)
        self._tell_version(answer)
        return answer

    async def get(self, request: web.Request, name: str) -> web.StreamResponse:
        """GetObject and HeadObject."""
        stored = self._stored(name)
        first, last, status = 0, stored.size - 1, 200
        wanted = _RANGE.fullmatch(request.headers.get("Range", ""))
        if wanted is not None:
            asked = int(wanted[1]), int(wanted[2])
            is_standard = request.headers.get("x-oss-range-behavior") == "standard"
            if is_standard and asked[0] >= stored.size:
                raise RefusedError(416, "InvalidRange", "The requested range cannot be satisfied")
            if asked[1] < stored.size or is_standard:
                first, last, status = asked[0], min(asked[1], stored.size - 1), 206
        answer = web.StreamResponse(status=status, headers=_answer(stored).headers)
        answer.content_length = last - first + 1
        if status == 206:
            answer.headers["Content-Range"] = f"bytes {first}-{last}/{stored.size}"
        await answer.prepare(request)
        if request.method == "GET":
            with stored.path.open("rb") as source:
                source.seek(first)
                left = last - first + 1
                while left and (piece := source.read(min(PIECE, left))):
                    left -= len(piece)
                    await answer.write(piece)
        await answer.write_eof()
        return answer

    async def delete(self, request: web.Request, name: str) -> web.Response:
        """DeleteObject."""
        if self.locked_days and name in self.objects.by_name:
            raise RefusedError(409, "FileImmutable", "The object is locked by a WORM policy.")
        self.objects.remove(name)
        return _answer(None, 204)

    async def delete_many(self, request: web.Request, name: str) -> web.Response:
        """DeleteMultipleObjects."""
        body = await request.read()
        digest = base64.b64encode(hashlib.md5(body).digest()).decode()
        if request.headers.get("Content-MD5") != digest:
            raise RefusedError(400, "InvalidDigest", "The Content-MD5 is missing or not right.")
        names = [each.findtext("Key", "") for each in ElementTree.fromstring(body).iter("Object")]
        if not 1 <= len(names) <= 1000:
            raise RefusedError(400, "MalformedXML")
        if self.locked_days:
            names = [each for each in names if each not in self.objects.by_name]
        for each in names:
            self.objects.remove(each)
        gone = "".join(f"<Deleted><Key>{quote(each)}</Key></Deleted>" for each in names)
        return _xml(f"<DeleteResult><EncodingType>url</EncodingType>{gone}</DeleteResult>")

    async def list(self, request: web.Request, name: str) -> web.Response:
        """ListObjectsV2."""
        query = request.query
        most = int(query.get("max-keys", "100"))
        after = query.get("continuation-token") or query.get("start-after", "")
        found, is_cut = self.objects.page(query.get("prefix", ""), after, most)
        rows = "".join(
            f"<Contents><Key>{quote(each)}</Key><Size>{self.objects.by_name[each].size}</Size>"
            f"<ETag>{self.objects.by_name[each].etag}</ETag><Type>Normal</Type>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            "<StorageClass>Standard</StorageClass></Contents>"
            for each in found
        )
        token = quote(found[-1]) if is_cut else ""
        return _xml(
            f"<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>{str(is_cut).lower()}</IsTruncated>"
            f"<NextContinuationToken>{token}</NextContinuationToken>{rows}</ListBucketResult>"
        )

    async def info(self, request: web.Request, name: str) -> web.Response:
        """GetBucketInfo."""
        versioning = "<Versioning>Enabled</Versioning>" if self.objects.is_versioned else ""
        algorithm = self.default_encryption or "None"
        return _xml(
            f"<BucketInfo><Bucket><Name>{BUCKET}</Name><Location>oss-{REGION}</Location>"
            "<AccessControlList><Grant>private</Grant></AccessControlList>"
            "<BlockPublicAccess>true</BlockPublicAccess>"
            f"<ServerSideEncryptionRule><SSEAlgorithm>{algorithm}</SSEAlgorithm>"
            f"</ServerSideEncryptionRule>{versioning}</Bucket></BucketInfo>"
        )

    async def worm(self, request: web.Request, name: str) -> web.Response:
        """GetBucketWorm."""
        if not self.locked_days:
            raise RefusedError(404, "NoSuchWORMConfiguration", "The WORM Configuration is absent.")
        return _xml(
            "<WormConfiguration><WormId>1</WormId><State>Locked</State>"
            f"<RetentionPeriodInDays>{self.locked_days}</RetentionPeriodInDays></WormConfiguration>"
        )

    # Uploads in parts

    async def initiate(self, request: web.Request, name: str) -> web.Response:
        """InitiateMultipartUpload."""
        self._refuse_taken(request, name)
        upload_id = secrets.token_hex(16).upper()
        self.objects.uploads[upload_id] = Upload(name, kept(_lower(request)))
        told = f"<Bucket>{BUCKET}</Bucket><UploadId>{upload_id}</UploadId>"
        return _xml(f"<InitiateMultipartUploadResult>{told}</InitiateMultipartUploadResult>")

    async def part(self, request: web.Request, name: str) -> web.Response:
        """UploadPart."""
        upload = self._upload(request, name)
        number = int(request.query["partNumber"])
        if not 1 <= number <= 10_000:
            raise RefusedError(400, "InvalidArgument")
        stored = await self._received(request)
        replaced = upload.parts.get(number)
        upload.parts[number] = stored
        if replaced is not None:
            replaced.path.unlink(missing_ok=True)
        return _answer(stored)

    async def complete(self, request: web.Request, name: str) -> web.Response:
        """CompleteMultipartUpload."""
        upload = self._upload(request, name)
        numbers: list[int] = []
        for each in ElementTree.fromstring(await request.read()).iter("Part"):
            number = int(each.findtext("PartNumber", "0"))
            part = upload.parts.get(number)
            if part is None or part.etag != each.findtext("ETag"):
                raise RefusedError(400, "InvalidPart")
            numbers.append(number)
        if numbers != sorted(set(numbers)):
            raise RefusedError(400, "InvalidPartOrder")
        if any(upload.parts[number].size < 100 * 1024 for number in numbers[:-1]):
            raise RefusedError(400, "EntityTooSmall")
        self._publish(request, name, self.objects.join(upload, numbers))
        self.objects.drop(request.query["uploadId"])
        stored = self._stored(name)
        told = f"<CompleteMultipartUploadResult><ETag>{escape(stored.etag)}</ETag>"
        answer = _xml(f"{told}</CompleteMultipartUploadResult>")
        answer.headers["x-oss-hash-crc64ecma"] = str(stored.crc64)
        self._tell_version(answer)
        return answer

    async def abort(self, request: web.Request, name: str) -> web.Response:
        """AbortMultipartUpload."""
        self._upload(request, name)
        self.objects.drop(request.query["uploadId"])
        return _answer(None, 204)

    async def uploads(self, request: web.Request, name: str) -> web.Response:
        """ListMultipartUploads."""
        prefix, most = request.query.get("prefix", ""), self.page_of_uploads
        after = request.query.get("key-marker", ""), request.query.get("upload-id-marker", "")
        under_way = {
            (each.name, upload_id): each for upload_id, each in self.objects.uploads.items()
        }
        found = sorted(key for key in under_way if key[0].startswith(prefix) and key > after)
        rows = "".join(
            f"<Upload><Key>{quote(name)}</Key><UploadId>{upload_id}</UploadId>"
            f"<Initiated>{under_way[name, upload_id].begun:%Y-%m-%dT%H:%M:%S.000Z}</Initiated>"
            "</Upload>"
            for name, upload_id in found[:most]
        )
        if len(found) > most:
            name, upload_id = found[most - 1]
            rows += f"<NextKeyMarker>{quote(name)}</NextKeyMarker>"
            rows += f"<NextUploadIdMarker>{upload_id}</NextUploadIdMarker>"
        rows += f"<IsTruncated>{str(len(found) > most).lower()}</IsTruncated>"
        return _xml(f"<ListMultipartUploadsResult>{rows}</ListMultipartUploadsResult>")

    # What they share

    async def _received(self, request: web.Request) -> Stored:
        path = self.objects.new_file()
        digest, checksum, size = hashlib.md5(), crc64.xz(b""), 0
        try:
            with path.open("wb") as target:
                async for piece in request.content.iter_chunked(PIECE):
                    if self.wrong_bodies and piece:
                        self.wrong_bodies -= 1
                        piece = bytes([piece[0] ^ 1]) + piece[1:]
                    target.write(piece)
                    digest.update(piece)
                    checksum = crc64.xz(piece, checksum)
                    size += len(piece)
            told = request.headers.get("Content-MD5")
            if told is not None and told != base64.b64encode(digest.digest()).decode():
                raise RefusedError(400, "InvalidDigest", "The Content-MD5 is not right.")
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Stored(path, size, checksum, f'"{digest.hexdigest().upper()}"')

    def _publish(self, request: web.Request, name: str, stored: Stored) -> None:
        try:
            self._refuse_taken(request, name)
        except RefusedError:
            stored.path.unlink(missing_ok=True)
            raise
        self.objects.put(name, stored)

    def _tell_version(self, answer: web.Response) -> None:
        if self.objects.is_versioned:
            answer.headers["x-oss-version-id"] = secrets.token_hex(16)

    def _refuse_taken(self, request: web.Request, name: str) -> None:
        is_forbidden = request.headers.get("x-oss-forbid-overwrite") == "true"
        if is_forbidden and not self.objects.is_versioned and name in self.objects.by_name:
            raise RefusedError(409, "FileAlreadyExists", "The object you specified already exists.")

    def _stored(self, name: str) -> Stored:
        stored = self.objects.by_name.get(name)
        if stored is None:
            raise RefusedError(404, "NoSuchKey", "The specified key does not exist.")
        return stored

    def _upload(self, request: web.Request, name: str) -> Upload:
        upload = self.objects.uploads.get(request.query.get("uploadId", ""))
        if upload is None or upload.name != name:
            raise RefusedError(404, "NoSuchUpload", "The specified upload does not exist.")
        return upload


_Handler = Callable[[Oss, web.Request, str], Awaitable[web.StreamResponse]]
_ROUTES: dict[tuple[str, str, str], tuple[str, _Handler]] = {
    ("PUT", "object", ""): ("oss:PutObject", Oss.put),
    ("PUT", "object", "part"): ("oss:PutObject", Oss.part),
    ("POST", "object", "uploads"): ("oss:PutObject", Oss.initiate),
    ("POST", "object", "upload"): ("oss:PutObject", Oss.complete),
    ("DELETE", "object", "upload"): ("oss:AbortMultipartUpload", Oss.abort),
    ("DELETE", "object", ""): ("oss:DeleteObject", Oss.delete),
    ("GET", "object", ""): ("oss:GetObject", Oss.get),
    ("HEAD", "object", ""): ("oss:GetObject", Oss.get),
    ("POST", "bucket", "delete"): ("oss:DeleteObject", Oss.delete_many),
    ("GET", "bucket", "list"): ("oss:ListObjects", Oss.list),
    ("GET", "bucket", "uploads"): ("oss:ListMultipartUploads", Oss.uploads),
    ("GET", "bucket", "bucketInfo"): ("oss:GetBucketInfo", Oss.info),
    ("GET", "bucket", "worm"): ("oss:GetBucketWorm", Oss.worm),
}


def _target(request: web.Request) -> tuple[str, str]:
    """Path and query as they came; a request to a proxy names the host before them."""
    path, _, query = request.raw_path.partition("?")
    if "://" in path:
        path = "/" + path.partition("://")[2].partition("/")[2]
    return path, query


def _subresource(request: web.Request) -> str:
    query = request.query
    if "partNumber" in query:
        return "part"
    if "uploadId" in query:
        return "upload"
    for name in ("uploads", "delete", "bucketInfo", "worm"):
        if name in query:
            return name
    return "list" if query.get("list-type") == "2" else ""


def _lower(request: web.Request) -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def _answer(stored: Stored | None, status: int = 200) -> web.Response:
    headers = {"x-oss-request-id": secrets.token_hex(12).upper()}
    if stored is not None:
        headers |= stored.headers
        headers |= {"ETag": stored.etag, "x-oss-hash-crc64ecma": str(stored.crc64)}
    return web.Response(status=status, headers=headers)


def _xml(text: str) -> web.Response:
    return web.Response(
        text=f'<?xml version="1.0" encoding="UTF-8"?>{text}',
        content_type="application/xml",
        headers={"x-oss-request-id": secrets.token_hex(12).upper()},
    )


def refusal(method: str, error: RefusedError) -> web.Response:
    """An error as OSS tells it: in the body, and in a header where an answer has no body."""
    request_id = secrets.token_hex(12).upper()
    body = (
        f"<Error><Code>{error.code}</Code><Message>{escape(error.message)}</Message>"
        f"<RequestId>{request_id}</RequestId><HostId>stub</HostId></Error>"
    )
    headers = {"x-oss-request-id": request_id}
    if method == "HEAD":
        headers["x-oss-err"] = base64.b64encode(body.encode()).decode()
        return web.Response(status=error.status, headers=headers)
    return web.Response(
        status=error.status, text=body, content_type="application/xml", headers=headers
    )
