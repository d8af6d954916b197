"""What real agents and a real database make `ctl` answer is what docs/ctl.schema.json says."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.scene import Scene
from tests.support.agents import Agents
from tests.support.ctl import Ctl, CtlResult
from tests.support.ctl_schema import check_printed
from tests.support.mongod import ReplicaSet


class HeldCtl(Ctl):
    """Holds every answer against the schema, and remembers what is wrong with it."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.wrong: list[str] = []

    def run(
        self,
        *arguments: str,
        out: str | None = "json",
        stdin: str = "",
        within_s: float = 60.0,
    ) -> CtlResult:
        done = super().run(*arguments, out=out, stdin=stdin, within_s=within_s)
        try:
            check_printed([*arguments, "-o", out or "text"], done.stdout)
        except AssertionError as error:
            self.wrong.append(f"{' '.join(arguments)}: {error}")
        return done


def test_every_answer_is_as_the_schema_says(one_node: ReplicaSet, tmp_path: Path) -> None:
    with Agents(one_node) as agents:
        ctl = HeldCtl(one_node.uri())
        scene = Scene(one_node, agents, ctl, tmp_path / "repository")
        ctl.ok("status")
        ctl.fails(3, "backup")
        scene.open()
        scene.fill(1)
        scene.enable_pitr(1.0)
        ctl.ok("config", "--set", "policy.backups.nightly.schedule=@daily",
               "--set", "policy.verify.weekly.schedule=@weekly")  # fmt: skip
        name = ctl.ok("backup", "--wait")["name"]
        second = ctl.ok("backup", "--wait", "--ns", "shop.small0")["name"]
        for line in (
            "list",
            "list --full",
            "status --priority",
            f"describe-backup {name} --with-collections",
            "policy",
            "policy explain",
            "config --list",
            "config storage.type",
            "config --check",
            "profile list",
            "profile show main",
            "storage check",
            "storage policy",
            "verify --deep --wait",
            f"hold {name} audit --wait",
            f"hold {name} --release -y --wait",
            "limit set --read 50MB/s",
            "limit show",
            "limit clear",
            f"restore {name} --dry-run",
            f"restore {name} -y --wait",
            "list --restore",
            "encryption status",
            f"delete-backup {second} --dry-run",
            f"delete-backup {second} -y --wait",
            "delete-pitr --older-than 0d --dry-run",
            "cleanup -y --wait",
            "config --force-resync --wait",
            f"diagnostic --path {tmp_path / 'report'}",
            "db-role backup",
            "genkey",
            "completion bash",
            "version",
            "logs -t 50",
        ):
            ctl.ok(*line.split(), within_s=180)
        (restore,) = ctl.ok("list", "--restore")
        ctl.ok("describe-restore", restore["name"])
        ctl.fails(4, "describe-backup", "2020-01-01T00:00:00Z")
        ctl.fails(4, "cancel")
        assert ctl.wrong == []
