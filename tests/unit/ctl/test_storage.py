"""`storage` and `profile`: what is shown, what is printed to paste, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.wire.backups import Copy
from agent.wire.operations import Kind
from agent.wire.profiles import place_of, storage_of, with_profile
from agent.wire.repositories import Found, Repositories
from agent.wire.settings import load_yaml
from agent.wire.storage_reports import Permission, Verdict
from ctl.storage.lifecycle import harmful
from tests.unit.ctl.world import Ctl, backup, node

S3 = """
storage:
  url: s3://my-backups/rs0
  s3:
    region: eu-central-1
    credentials: {roleArn: "arn:aws:iam::1:role/backup", externalId: x1}
    serverSideEncryption: {sseAlgorithm: "aws:kms", kmsKeyID: abc}
"""
OSS = """
type: oss
oss: {bucket: b, prefix: p, region: cn-hangzhou, serverSideEncryption: {sseAlgorithm: KMS}}
"""
SECOND = "storage: {type: filesystem, filesystem: {path: /second}}"


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "storage.yaml"
    path.write_text(S3)
    return path


def found(profile: str, repository: str, place: str | None = None, owner: str = "cluster") -> Found:
    return Found(
        profile=profile, place=place or "", address="x", repository_id=repository, cluster_id=owner
    )


def _second(ctl: Ctl) -> None:
    ctl.world.settings = with_profile(
        ctl.world.settings, "second", storage_of(load_yaml(SECOND), "main")
    )


def test_a_check_shows_each_right_and_fails_where_one_is_missing(ctl: Ctl) -> None:
    ctl.world.permissions = (Permission(name="put", verdict=Verdict.YES),)
    answer = ctl("storage", "check", "-o", "json").json
    assert answer["nodes"][0]["ok"]
    assert answer["nodes"][0]["permissions"][0]["verdict"] == "yes"
    ctl.world.permissions = (Permission(name="delete", verdict=Verdict.NO, detail="denied"),)
    outcome = ctl("storage", "check")
    assert outcome.code == 1
    assert "delete NO" in outcome.out
    assert "no delete" in outcome.err
    assert max(map(len, outcome.out.splitlines())) <= 100


def test_agents_that_do_not_answer_are_named(ctl: Ctl) -> None:
    ctl.world.nodes.append(node("h2:27017", features=()))
    outcome = ctl("storage", "check", "-o", "json")
    assert outcome.code == 1
    assert "does not know this question" in outcome.json["silent"]["rs0/h2:27017"]
    ctl.world.nodes = []
    assert ctl("storage", "check").code == 1


def test_the_policy_of_s3_is_filled_in_and_needs_no_cluster(ctl: Ctl, written: Path) -> None:
    printed = ctl("storage", "policy", "--file", str(written), "-o", "json").json
    objects, listing, kms = printed["identity"]["Statement"]
    assert objects["Resource"] == "arn:aws:s3:::my-backups/rs0/*"
    assert set(objects["Action"]) == {
        *("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload")
    }
    assert listing["Resource"] == "arn:aws:s3:::my-backups"
    assert listing["Condition"] == {"StringLikeIfExists": {"s3:prefix": ["rs0/*"]}}
    assert kms["Resource"] == "arn:aws:kms:eu-central-1:ACCOUNT:key/abc"
    trust = printed["trust-role"]["Statement"][0]
    assert trust["Condition"] == {"StringEquals": {"sts:ExternalId": "x1"}}
    assert printed["assume-source"]["Statement"][0]["Resource"] == "arn:aws:iam::1:role/backup"
    assert "s3:DeleteObjectVersion" not in str(printed)
    assert "Acl" not in str(printed)


def test_the_policy_of_pods_names_their_service_account(ctl: Ctl, written: Path) -> None:
    flags = ("--oidc-provider", "https://oidc.eks/id/1", "--namespace", "db", "--account", "42")
    printed = ctl(
        *("storage", "policy", "--file", str(written), *flags),
        *("--service-account", "sa", "-o", "json"),
    ).json
    statement = printed["trust-irsa"]["Statement"][0]
    assert statement["Principal"] == {"Federated": "arn:aws:iam::42:oidc-provider/oidc.eks/id/1"}
    assert statement["Condition"]["StringEquals"] == {
        "oidc.eks/id/1:aud": "sts.amazonaws.com",
        "oidc.eks/id/1:sub": "system:serviceaccount:db:sa",
    }


def test_credentials_for_restores_may_only_read(ctl: Ctl, written: Path) -> None:
    text = ctl("storage", "policy", "--file", str(written), "--read-only", "-o", "json").out
    assert "s3:GetObject" in text
    assert not [right for right in ("Put", "Delete", "Abort", "GenerateDataKey") if right in text]


def test_the_policy_of_oss_with_kms_has_exactly_four_rights_on_the_key(
    ctl: Ctl, tmp_path: Path
) -> None:
    (tmp_path / "oss.yaml").write_text(OSS)
    printed = ctl("storage", "policy", "--file", str(tmp_path / "oss.yaml"), "-o", "json").json
    assert printed["identity"]["Version"] == "1"
    objects, _, kms = printed["identity"]["Statement"]
    assert objects["Resource"] == ["acs:oss:*:*:b/p/*"]
    assert kms["Action"] == ["kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey"]


@pytest.mark.parametrize(
    ("section", "kind"),
    [
        ("type: azure\nazure: {account: a, container: c, prefix: p}", "role"),
        ("type: gcs\ngcs: {bucket: b, prefix: p, kmsKeyName: k}", "bindings"),
        ("type: minio\nminio: {endpoint: 'h:9000', bucket: b}", "identity"),
        ("type: filesystem\nfilesystem: {path: /srv/b}", "directory"),
    ],
)
def test_every_storage_has_its_policy_and_rules(
    ctl: Ctl, tmp_path: Path, section: str, kind: str
) -> None:
    path = tmp_path / "storage.yaml"
    path.write_text(section)
    assert kind in ctl("storage", "policy", "--file", str(path), "-o", "json").json
    assert ctl("storage", "policy", "--file", str(path)).code == 0
    assert "lifecycle" in ctl("storage", "lifecycle", "--file", str(path), "-o", "json").json


def test_the_rules_abort_uploads_and_expire_versions_and_nothing_else(
    ctl: Ctl, written: Path
) -> None:
    printed = ctl("storage", "lifecycle", "--file", str(written), "-o", "json").json
    rules = printed["lifecycle"]["Rules"]
    assert {rule["Filter"]["Prefix"] for rule in rules} == {"rs0/"}
    assert harmful(rules, "rs0/") == []


@pytest.mark.parametrize(
    ("rule", "is_harmful"),
    [
        ({"Expiration": {"Days": 30}}, True),
        ({"Expiration": {"Days": 30}, "Status": "Disabled"}, False),
        ({"Expiration": {"Days": 30}, "Filter": {"Prefix": "other/"}}, False),
        ({"Expiration": {"Days": 30}, "Filter": {"Prefix": "rs0/slices/"}}, True),
        ({"Expiration": {"Days": 30}, "Filter": {"Tag": {"Key": "a", "Value": "b"}}}, False),
        ({"Transitions": [{"Days": 1, "StorageClass": "GLACIER"}]}, True),
        ({"NoncurrentVersionExpiration": {"NoncurrentDays": 3}}, False),
    ],
)
def test_rules_that_would_eat_backups_are_told(
    ctl: Ctl, written: Path, tmp_path: Path, rule: dict[str, object], is_harmful: bool
) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps({"Rules": [{"ID": "old", "Status": "Enabled", **rule}]}))
    outcome = ctl("storage", "lifecycle", "--file", str(written), "--against", str(rules))
    assert outcome.code == (1 if is_harmful else 0)


def test_a_profile_is_added_shown_and_removed_and_its_secret_is_not_seen(
    ctl: Ctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text("k" * 40)
    monkeypatch.setenv("TIDELOG_SECRET_KEY_FILE", str(tmp_path / "key"))
    path = tmp_path / "second.yaml"
    path.write_text(
        "storage: {type: s3, s3: {bucket: b, credentials: {accessKeyId: A, secretAccessKey: hush}}}"
    )
    assert "hush" not in str(ctl("profile", "add", "second", str(path), "-o", "json"))
    shown = ctl("profile", "show", "second")
    assert "hush" not in shown.out
    assert "***" in shown.out
    assert "hush" not in str(ctl.world.settings.to_document())
    assert "second" not in ctl("config").out, "profiles are not part of the file"
    assert [row["name"] for row in ctl("profile", "list", "-o", "json").json] == ["main", "second"]
    ctl("config", "--set", "pitr.enabled=true")
    assert ctl("profile", "remove", "second", "-y").code == 0
    assert ctl("profile", "remove", "second", "-y").code == 4


def test_a_profile_that_leads_where_another_does_is_warned_of(ctl: Ctl, tmp_path: Path) -> None:
    path = tmp_path / "second.yaml"
    path.write_text("storage: {type: filesystem, filesystem: {path: /backups/}}")
    outcome = ctl("profile", "add", "second", str(path), "-o", "json")
    assert outcome.code == 0
    assert "Warning: second leads to the same place as main" in outcome.err
    path.write_text(SECOND)
    assert "the same place" not in ctl("profile", "add", "second", str(path)).err


@pytest.mark.parametrize("name", ["main", "a.b", "", "-x", "a b"])
def test_names_that_no_profile_can_have(ctl: Ctl, written: Path, name: str) -> None:
    assert ctl("profile", "add", "--", name, str(written)).code == 2


def test_a_file_of_settings_leaves_profiles_alone_and_may_not_hold_any(
    ctl: Ctl, tmp_path: Path
) -> None:
    _second(ctl)
    path = tmp_path / "all.yaml"
    path.write_text("storage: {type: filesystem, filesystem: {path: /other}}")
    assert ctl("config", "--file", str(path)).code == 0
    assert "second" in ctl.world.settings.profiles
    path.write_text("profiles: {x: {type: filesystem, filesystem: {path: /x}}}")
    assert ctl("config", "--file", str(path)).code == 2
    assert ctl("config", "--unset", "profiles.second").code == 2


def test_a_profile_with_backups_that_lie_nowhere_else_stays(ctl: Ctl) -> None:
    _second(ctl)
    ctl.world.backups = [backup(profile="second", repository_id="r2")]
    refused = ctl("profile", "remove", "second", "-y")
    assert refused.code == 3
    assert "1 listed backups lie on second alone" in refused.err
    copies = (Copy(profile="second", repository_id="r2"), Copy(profile="main", repository_id="r1"))
    ctl.world.backups = [backup(profile="second", repository_id="r2", copies=copies)]
    assert ctl("profile", "remove", "second", "-y").code == 0


def test_backups_follow_their_repository_not_the_name_of_a_profile(ctl: Ctl) -> None:
    _second(ctl)
    main = place_of(storage_of(ctl.world.settings, "main"))
    second = place_of(storage_of(ctl.world.settings, "second"))
    ctl.world.backups = [backup(repository_id="r1")]
    ctl.world.repositories = Repositories(
        found={"main": found("main", "r2", main), "second": found("second", "r1", second)}
    )
    (shown,) = ctl("list", "-o", "json").json["snapshots"]
    assert (shown["profile"], shown["available"]) == ("second", True)
    ctl.world.repositories = Repositories(
        found={"main": found("main", "r1", "elsewhere"), "second": found("second", "r9", second)}
    )
    (shown,) = ctl("list", "-o", "json").json["snapshots"]
    assert (shown["profile"], shown["available"]) == (None, False)
    assert "out of reach" in " ".join(ctl("list").out.split())


def test_profiles_of_one_repository_lose_a_backup_together_and_that_is_said(ctl: Ctl) -> None:
    _second(ctl)
    main = place_of(storage_of(ctl.world.settings, "main"))
    second = place_of(storage_of(ctl.world.settings, "second"))
    ctl.world.backups = [backup("2026-02-01T10:00:00Z", repository_id="r1")]

    def shown(repository: str) -> str:
        both = {"main": found("main", "r1", main), "second": found("second", repository, second)}
        ctl.world.repositories = Repositories(found=both)
        profile = "second" if repository == "r1" else "main"
        name = "2026-02-01T10:00:00Z"
        return ctl("delete-backup", name, "--profile", profile, "--dry-run").out

    assert "From second, which leads to the same repository as main." in shown("r1")
    assert "From main only." in shown("r2")


def test_a_foreign_repository_is_told_and_adopted_after_a_question(ctl: Ctl) -> None:
    place = place_of(storage_of(ctl.world.settings, "main"))
    assert ctl("storage", "adopt", "-y").code == 3, "nobody has looked yet"
    ctl.world.repositories = Repositories(found={"main": found("main", "r1", place, "other")})
    assert "belongs to another cluster (other)" in " ".join(ctl("status").out.split())
    assert ctl("storage", "adopt").code == 3, "it has to be confirmed"
    assert ctl("storage", "adopt", "-y").code == 0
    made = ctl.world.operations[-1]
    assert (made.kind, made.spec["owner"]) == (Kind.ADOPT, "other")


def test_archiving_without_a_storage_is_told(ctl: Ctl) -> None:
    ctl("config", "--set", "pitr.enabled=true")
    assert ctl("status", "-o", "json").json["pitr"]["error"] is None
    ctl("config", "--unset", "storage")
    for command in ("status", "list"):
        assert ctl(command, "-o", "json").json["pitr"]["error"] == "no storage is configured"


def test_why_slicing_cannot_begin_is_told_while_it_is_wanted(ctl: Ctl) -> None:
    ctl.world.troubles = {"rs0": "the repository belongs to another cluster"}
    assert ctl("status", "-o", "json").json["pitr"]["error"] is None
    ctl("config", "--set", "pitr.enabled=true")
    assert "another cluster" in ctl("status", "-o", "json").json["pitr"]["error"]
