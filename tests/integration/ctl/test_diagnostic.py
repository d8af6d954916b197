"""`ctl diagnostic` on a real control database with secrets planted everywhere."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

from tests.support.ctl import Ctl
from tests.support.mongod import ReplicaSet

SECRET = "Planted7Secret9Value"


def test_the_report_is_whole_and_holds_no_secret(one_node: ReplicaSet, tmp_path: Path) -> None:
    ctl = Ctl(one_node.uri())
    ctl.configure_filesystem(tmp_path)
    admin = one_node.client().admin
    op_id = "0" * 24
    document = {"storage": {"type": "s3", "s3": {"bucket": "b", "credentials": {
        "access-key-id": SECRET, "secret-access-key": SECRET}}}}  # fmt: skip
    submitted = ctl.ok("verify")
    op_id = submitted["op_id"]
    admin.tidelogOperations.update_one(
        {"_id": op_id},
        {"$set": {
            "settings": document,
            "result.token": SECRET,
            "error": {"type": "X", "message": f"mongodb://me:{SECRET}@db1/ is away", "hint": ""},
        }},
    )  # fmt: skip
    admin.tidelogEvents.insert_one(
        {
            "severity": "I",
            "event": "x",
            "op_id": op_id,
            "fields": {"url": f"https://a/?sig={SECRET}"},
        }
    )
    done = ctl.ok("diagnostic", "--path", str(tmp_path / "report"))
    files = {path.name: path.read_text() for path in (tmp_path / "report").iterdir()}
    assert set(files) == set(done["files"])
    assert {"settings.json", "operations.json", "events.json", "agents.json"} <= set(files)
    assert [name for name, text in files.items() if SECRET in text] == []
    assert op_id in files["operations.json"]
    assert json.loads(files["version.json"])["cluster_id"]
    packed = ctl.ok("diagnostic", "--path", str(tmp_path / "one"), "--op", op_id, "--archive")
    with tarfile.open(packed["path"]) as tar:
        members = {member.name: tar.extractfile(member) for member in tar}
        bodies = {name: file.read() for name, file in members.items() if file is not None}
    assert len(bodies) == len(files)
    assert all(SECRET.encode() not in body for body in bodies.values())
    assert ctl.run("diagnostic", "--path", str(tmp_path / "report")).status == 3
    assert ctl.run("diagnostic", "--path", str(tmp_path / "x"), "--op", "nothing").status == 4
