"""What people write for a storage: the seeds' own examples, other spellings, one-line URLs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ConfigError
from agent.wire.profiles import place_of
from agent.wire.settings import Settings, dump_yaml, load_yaml, masked
from agent.wire.storage_settings import StorageSettings
from agent.wire.units import format_duration, parse_duration

EXAMPLES = Path(__file__).parent / "examples"

OSS_KEY = """
storage:
  type: oss
  oss:
    region: eu-central-1
    bucket: your-bucket-name
    endpointUrl: https://oss-eu-central-1.aliyuncs.com
    credentials:
      accessKeyID: "STS.****************"
      accessKeySecret:  "3dZn*******************************************"
"""
OSS_ROLE = (
    OSS_KEY
    + """      roleArn: acs:ram::1234567890123456:role/db-backup-role
      sessionName: pbm-backup-session
"""
)
OSS_EXTRAS = """    serverSideEncryption:
       sseAlgorithm: KMS
       kmsMasterKeyID: your-kms-key-id # when using a custom KMS key
       kmsDataEncryption: AES256
    retryer:
      maxAttempts: 5
      maxBackoff: 30
      baseDelay: 30
"""
S3_ROLE = """    storage:
      type: s3
      s3:
       region: <your-S3-region>
       bucket: <bucket-name>
"""


def storage(text: str) -> StorageSettings:
    loaded = load_yaml(text).storage
    assert loaded is not None
    return loaded


def test_the_oss_examples_of_the_seed_load() -> None:
    """A12–A19; the seed's own indentation by TABs is below."""
    key = storage(OSS_KEY).oss
    assert key is not None
    assert (key.region, key.bucket) == ("eu-central-1", "your-bucket-name")
    assert key.endpoint_url == "https://oss-eu-central-1.aliyuncs.com"
    assert key.credentials.access_key_secret is not None
    role = storage(OSS_ROLE).oss
    assert role is not None
    assert role.credentials.role_arn == "acs:ram::1234567890123456:role/db-backup-role"
    assert role.credentials.session_name == "pbm-backup-session"


def test_the_oss_encryption_and_retries_of_the_seed_load() -> None:
    """A24–A28, A34–A36."""
    oss = storage(OSS_KEY + OSS_EXTRAS).oss
    assert oss is not None
    encryption = oss.server_side_encryption
    assert (encryption.sse_algorithm, encryption.kms_master_key_id) == ("KMS", "your-kms-key-id")
    assert encryption.kms_data_encryption == "AES256"
    retryer = oss.retryer
    assert (retryer.attempts, retryer.max_backoff, retryer.base_delay) == (5, 30.0, 30.0)
    shown = masked(load_yaml(OSS_KEY + OSS_EXTRAS))["storage"]["oss"]["retryer"]
    assert shown == {"maxAttempts": 5, "maxBackoff": "30s", "baseDelay": "30s"}


def test_the_seeds_tabs_are_named_with_their_line() -> None:
    """A20: the bytes of the seed."""
    text = "storage:\n\t type: oss\n\t oss:\n\t   region: eu-central-1\n"
    with pytest.raises(ConfigError, match="TAB in line 2"):
        load_yaml(text)


@pytest.mark.parametrize("credentials", ["", "       credentials:\n", "       credentials: {}\n"])
def test_an_s3_storage_without_credentials_loads(credentials: str) -> None:
    """B11, B12, B23: absent, null and empty all mean the surroundings."""
    s3 = storage(S3_ROLE + credentials).s3
    assert s3 is not None
    assert (s3.region, s3.bucket) == ("<your-S3-region>", "<bucket-name>")
    assert s3.credentials.access_key_id is None
    assert s3.credentials.secret_access_key is None


PBM_S3 = """
storage:
  type: s3
  s3:
    region: us-west-2
    bucket: pbm-test-bucket
    prefix: /data//pbm/backup/
    endpointUrl: https://s3.example.com
    endpointUrlMap:
      "node01:27017": https://one.example.com
    forcePathStyle: true
    credentials:
      access-key-id: AKIAIOSFODNN7EXAMPLE
      secret-access-key: wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY
      session-token: token
    serverSideEncryption:
      sseAlgorithm: aws:kms
      kmsKeyID: 128887dd-d583-43f2-b3f9-d12036d32b12
    uploadPartSize: 10485760
    maxUploadParts: 10000
    storageClass: STANDARD
    maxObjSizeGB: 5018
    insecureSkipTLSVerify: false
    debugLogLevels: Signing,Retries
    retryer:
      numMaxRetries: 3
      minRetryDelay: 30ms
      maxRetryDelay: 5m0s
"""


def test_every_key_of_pbms_s3_section_loads() -> None:
    s3 = storage(PBM_S3).s3
    assert s3 is not None
    assert s3.prefix == "data/pbm/backup"
    assert s3.upload_part_size == 10 << 20
    assert (s3.retryer.attempts, s3.retryer.base_delay, s3.retryer.max_backoff) == (4, 0.03, 300)
    assert s3.at_node("node01:27017").endpoint_url == "https://one.example.com"
    assert s3.at_node("node02:27017").endpoint_url == "https://s3.example.com"


def test_pbms_minio_section_is_an_s3_storage() -> None:
    minio = storage(
        """
storage:
  type: minio
  minio:
    endpoint: localhost:9100
    endpointMap: {"a:1": "other:9100"}
    bucket: pbm
    prefix: x
    secure: false
    partSize: 10MiB
    credentials: {access-key-id: a, secret-access-key: b, signature-ver: V4}
    retryer: {numMaxRetries: 10}
"""
    ).minio
    assert minio is not None
    plain = minio.at_node("")
    assert plain.endpoint_url == "http://localhost:9100"
    assert minio.at_node("a:1").endpoint_url == "http://other:9100"
    assert (plain.bucket, plain.prefix, plain.upload_part_size) == ("pbm", "x", 10 << 20)
    assert plain.retryer.attempts == 11


@pytest.mark.parametrize(
    "key",
    ["accessKeyID", "accessKeyId", "access-key-id", "access_key_id", "AccessKeyId"],
)
def test_all_spellings_of_a_key_are_one(key: str) -> None:
    text = (
        f"storage: {{type: s3, s3: {{bucket: b, credentials: {{{key}: A, secret-access-key: B}}}}}}"
    )
    s3 = storage(text).s3
    assert s3 is not None
    assert s3.credentials.access_key_id is not None
    assert s3.credentials.access_key_id.value == "A"


@pytest.mark.parametrize("key", ["endpointUrl", "endpointURL", "endpoint-url"])
def test_all_spellings_of_an_endpoint_are_one(key: str) -> None:
    s3 = storage(f"storage: {{type: s3, s3: {{bucket: b, {key}: 'http://h:1/'}}}}").s3
    assert s3 is not None
    assert s3.endpoint_url == "http://h:1"


@pytest.mark.parametrize("key", ["sseAlgorithm", "encryptionMethod"])
@pytest.mark.parametrize("kind", ["s3", "oss"])
def test_both_names_of_the_encryption_are_known(kind: str, key: str) -> None:
    text = (
        f"storage: {{type: {kind}, {kind}: {{bucket: b, serverSideEncryption: {{{key}: AES256}}}}}}"
    )
    assert "sseAlgorithm: AES256" in dump_yaml(load_yaml(text))


def test_the_same_key_in_two_spellings_is_refused() -> None:
    with pytest.raises(ConfigError, match="twice"):
        load_yaml("storage: {type: s3, s3: {bucket: b, endpointUrl: 'http://h', endpointURL: 'x'}}")


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"storage\.s3\.buckt") as raised:
        load_yaml("storage: {type: s3, s3: {buckt: b}}")
    assert raised.value.hint == "did you mean storage.s3.bucket?"


URLS: list[tuple[str, str, dict[str, Any]]] = [
    ("s3://b", "s3", {"bucket": "b"}),
    ("s3://b/", "s3", {"bucket": "b"}),
    ("s3://b/some/folder/", "s3", {"bucket": "b", "prefix": "some/folder"}),
    ("minio://h:9000/b/p", "minio", {"endpoint": "h:9000", "bucket": "b", "prefix": "p"}),
    ("gs://b/p", "gcs", {"bucket": "b", "prefix": "p"}),
    ("oss://b/p", "oss", {"bucket": "b", "prefix": "p"}),
    (
        "https://acct.blob.core.windows.net/c/some/path",
        "azure",
        {"account": "acct", "container": "c", "prefix": "some/path"},
    ),
    (
        "http://127.0.0.1:10000/devstoreaccount1/c/p",
        "azure",
        {
            "account": "devstoreaccount1",
            "container": "c",
            "prefix": "p",
            "endpointUrl": "http://127.0.0.1:10000/devstoreaccount1",
        },
    ),
    ("azure://acct/c", "azure", {"account": "acct", "container": "c"}),
    ("file:///srv/my%20backups", "filesystem", {"path": "/srv/my backups"}),
]


@pytest.mark.parametrize(("url", "kind", "section"), URLS, ids=[url for url, _, _ in URLS])
def test_a_url_is_the_long_form_in_one_line(url: str, kind: str, section: dict[str, Any]) -> None:
    """C3, C14, C24, C25."""
    short = load_yaml(f"storage: {{url: '{url}'}}")
    assert short.to_document() == {"storage": {"type": kind, kind: section}}
    assert Settings.from_document(short.to_document()) == short


def test_a_url_goes_with_further_keys() -> None:
    s3 = storage("storage: {url: 's3://b/p', s3: {region: eu-west-1}}").s3
    assert s3 is not None
    assert (s3.bucket, s3.prefix, s3.region) == ("b", "p", "eu-west-1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("url: 's3://'", "no bucket"),
        ("url: 'ftp://x/y'", "no scheme that is known"),
        ("url: 'https://a.blob.core.windows.net/c?sv=SECRET'", "credentials have their own key"),
        ("url: 's3://AKIA:SECRET@b/p'", "credentials have their own key"),
        ("url: 'file://relative/path'", "absolute"),
        ("url: 's3://b', type: gcs", "type is gcs"),
        ("url: 's3://b', s3: {bucket: other}", "given twice"),
        ("type: s3, s3: {bucket: b, endpointUrl: 'http://u:SECRET@h'}", "no login"),
        ("type: s3, s3: {bucket: b, endpointUrl: 'h:9000'}", "https://"),
        ("type: s3, s3: {bucket: b, uploadPartSize: 1MiB}", "uploadPartSize"),
        ("type: s3, s3: {bucket: b/p}", "prefix"),
        ("type: s3, s3: {bucket: b, credentials: {accessKeyId: A}}", "secretAccessKey is missing"),
        ("type: s3, s3: {bucket: b, credentials: {roleArn: x}}", "is no role"),
        ("type: s3, s3: {bucket: b, serverSideEncryption: {kmsKeyID: k}}", "aws:kms"),
        (
            "type: s3, s3: {bucket: b, serverSideEncryption: {sseCustomerKey: U0VDUkVU}}",
            "6 bytes and not 32",
        ),
        ("type: oss, oss: {bucket: b, credentials: {roleArn: x}}", "acs:ram::"),
        (
            "type: azure, azure: {container: c, credentials: {key: SECRET, sasToken: SECRET}}",
            "key and sasToken are two ways",
        ),
        ("type: s3, gcs: {bucket: b}", "section s3 is missing"),
    ],
)
def test_contradictions_are_refused_without_repeating_secrets(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as raised:
        load_yaml(f"storage: {{{text}}}")
    assert "SECRET" not in f"{raised.value} {raised.value.hint}"


@pytest.mark.parametrize(
    ("text", "seconds", "shown"),
    [("5m0s", 300, "5m"), ("1h30m", 5400, "90m"), ("1m30s", 90, "90s"), ("30", 30, "30s")],
)
def test_durations_of_pbms_files(text: str, seconds: float, shown: str) -> None:
    assert parse_duration(text) == seconds
    assert format_duration(seconds) == shown


def test_a_look_gives_up_soon_whatever_the_retryer_says_and_looks_at_the_same_place() -> None:
    patient = storage(OSS_KEY + OSS_EXTRAS)
    hasty = patient.impatient()
    assert patient.retryer.base_delay == 30
    assert (hasty.retryer.attempts, hasty.retryer.base_delay) == (5, 0.2)
    assert place_of(hasty) == place_of(patient)
    local = StorageSettings.model_validate({"type": "filesystem", "filesystem": {"path": "/b"}})
    assert local.impatient() == local
