"""The documents of CloudNativePG's object store page, loaded as they are; where the page leaves a
placeholder, a name stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import ConfigError
from agent.storage.azure.credentials import CredentialChain
from agent.storage.surroundings import Surroundings
from agent.wire.settings import load_yaml

AWS = """
kind: ObjectStore
metadata:
  name: aws-store
spec:
  configuration:
    destinationPath: "s3://BUCKET_NAME/path/to/folder"
    s3Credentials:
      accessKeyId:
        name: aws-creds
        key: ACCESS_KEY_ID
      secretAccessKey:
        name: aws-creds
        key: ACCESS_SECRET_KEY
"""
MINIO = """
apiVersion: barmancloud.cnpg.io/v1
kind: ObjectStore
metadata:
  name: minio-store
spec:
  configuration:
    destinationPath: s3://BUCKET_NAME/
    endpointURL: http://minio-gateway-service:9000
    endpointCA:
      name: my-ca-secret
      key: ca.crt
    s3Credentials:
      accessKeyId:
        name: minio-creds
        key: MINIO_ACCESS_KEY
      secretAccessKey:
        name: minio-creds
        key: MINIO_SECRET_KEY
    wal:
      compression: gzip
"""
AZURE_AD = """
kind: ObjectStore
metadata: {name: azure-store}
spec:
  configuration:
    destinationPath: "https://account.blob.core.windows.net/container/folder"
    azureCredentials:
      inheritFromAzureAD: true
"""
AZURE_KEY = """
kind: ObjectStore
metadata: {name: azure-store}
spec:
  configuration:
    destinationPath: "http://127.0.0.1:10000/devstoreaccount1/container"
    azureCredentials:
      storageKey: {name: azure-creds, key: AZURE_STORAGE_KEY}
"""
GKE = """
kind: ObjectStore
metadata: {name: google-store}
spec:
  configuration:
    destinationPath: "gs://bucket/folder"
    googleCredentials:
      gkeEnvironment: true
"""
GOOGLE = """
kind: ObjectStore
metadata: {name: google-store}
spec:
  configuration:
    destinationPath: "gs://bucket"
    googleCredentials:
      applicationCredentials: {name: backup-creds, key: gcsCredentials}
"""


def storage(text: str) -> dict[str, object]:
    document: dict[str, object] = load_yaml(text).to_document()["storage"]
    return document


def test_amazons_keys_are_those_of_the_mounted_secret() -> None:
    found = load_yaml(AWS).storage
    assert found is not None
    assert found.s3 is not None
    assert (found.type, found.s3.bucket, found.s3.prefix) == (
        *("s3", "BUCKET_NAME"),
        "path/to/folder",
    )
    assert "aws-creds" in str(storage(AWS))
    assert "ACCESS_SECRET_KEY" in str(storage(AWS))


def test_another_servers_endpoint_and_authority_are_taken_over() -> None:
    found = load_yaml(MINIO).storage
    assert found is not None
    assert found.s3 is not None
    assert found.s3.endpoint_url == "http://minio-gateway-service:9000"
    assert found.s3.endpoint_ca is not None


@pytest.mark.parametrize(
    ("text", "kind"), [(AZURE_AD, "azure"), (AZURE_KEY, "azure"), (GKE, "gcs"), (GOOGLE, "gcs")]
)
def test_azures_and_googles_documents_load(text: str, kind: str) -> None:
    found = load_yaml(text).storage
    assert found is not None
    assert found.type == kind
    assert getattr(found, kind).credentials.model_fields_set


def test_a_role_of_the_surroundings_is_no_credential() -> None:
    text = AWS[: AWS.index("accessKeyId")] + "inheritFromIAMRole: true\n"
    found = load_yaml(text).storage
    assert found is not None
    assert found.s3 is not None
    assert not found.s3.credentials.model_fields_set


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ("s3://BUCKET_NAME/path/to/folder", "", "destinationPath"),
        ("destinationPath", "destinationPaht", "destinationPaht"),
        ("s3Credentials", "s3Credential", "s3Credential"),
        ("secretAccessKey", "secretKey", "s3Credentials.secretKey"),
        ("configuration", "config", "spec.configuration"),
    ],
)
def test_what_is_missing_or_not_known_is_named(before: str, after: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load_yaml(AWS.replace(before, after))


SPACES = """
kind: ObjectStore
metadata:
  name: digitalocean-store
spec:
  configuration:
    destinationPath: "s3://[your-bucket-name]/[your-backup-folder]/"
    endpointURL: "https://sfo3.digitaloceanspaces.com"
    s3Credentials:
      [...]
  [...]
"""
AZURE_ALL = """
kind: ObjectStore
metadata:
  name: azure-store
spec:
  configuration:
    destinationPath: "https://account.blob.core.windows.net/container/folder"
    azureCredentials:
      connectionString:
        name: azure-creds
        key: AZURE_CONNECTION_STRING
      storageAccount:
        name: azure-creds
        key: AZURE_STORAGE_ACCOUNT
      storageKey:
        name: azure-creds
        key: AZURE_STORAGE_KEY
      storageSasToken:
        name: azure-creds
        key: AZURE_STORAGE_SAS_TOKEN
  [...]
"""


def test_brackets_for_names_and_lines_that_only_elide_load_as_they_are() -> None:
    found = load_yaml(SPACES).storage
    assert found is not None
    assert found.s3 is not None
    assert (found.s3.bucket, found.s3.prefix) == ("[your-bucket-name]", "[your-backup-folder]")
    assert not found.s3.credentials.model_fields_set
    with pytest.raises(ConfigError, match="s3Credentials of the ObjectStore holds no keys"):
        load_yaml(SPACES.replace("\n      [...]", " [...]"))


def test_of_azures_entries_the_one_that_is_mounted_logs_in(tmp_path: Path) -> None:
    """C23: the page names all four entries, and the secret has those that are needed."""
    found = load_yaml(AZURE_ALL).storage
    assert found is not None
    assert found.azure is not None
    mounted = tmp_path / "azure-creds"
    mounted.mkdir()
    chain = CredentialChain(
        found.azure, Surroundings(environment={"TIDELOG_SECRETS_DIRECTORY": str(tmp_path)})
    )
    with pytest.raises(ConfigError, match="0 of 3 ways to log in"):
        chain.login()
    (mounted / "AZURE_STORAGE_SAS_TOKEN").write_text("?sv=2024&sig=x")
    assert (chain.login().account, chain.login().sas) == ("account", "sv=2024&sig=x")
    (mounted / "AZURE_STORAGE_KEY").write_text("a2V5")
    with pytest.raises(ConfigError, match=r"2 of 3 .*azure-creds/AZURE_STORAGE_KEY"):
        chain.login()
