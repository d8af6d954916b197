"""What each command of `ctl` answers as JSON, written short; `ctl_schema` makes the schema of it.

"text", "integer", "number", "truth", "anything"    "text?" may be null
[shape]       an array          {"key": shape}       an object; "key?" may be missing
{"*": shape}  an object by names that are not known before
(a, b)        one or the other  "@name"              a shape of `SHARED`
"""

from __future__ import annotations

from typing import Any, Final

Shape = Any

ASKED: Final[dict[str, Shape]] = {"name": "text", "op_id": "text", "status": "@status"}
DECLINED: Final[dict[str, Shape]] = {"status": "text"}
REASON: Final[dict[str, Shape]] = {"name": "text", "reason": "text"}
_SIZES: Final[dict[str, Shape]] = {"size": "integer", "size_h": "text"}

SHARED: Final[dict[str, Shape]] = {
    "optime": {"T": "integer", "I": "integer"},
    "failure": {"type": "text", "message": "text", "hint?": "text", "node?": "text?"},
    "run": {
        "schedule": "text",
        "kind": "text",
        "cron": "text",
        "timezone": "text",
        "next": "integer?",
        "in_s": "integer?",
        "last": "integer?",
        "last_outcome": "text?",
        "last_op_id": "text?",
        "missed": "integer",
    },
    "verdict": {
        "level": "text",
        "at?": "text?",
        "objects": "integer",
        "bytes_read": "integer",
        "problems": ["text"],
        "harmed": "integer",
        "recovery_s?": "number?",
        "proved_at?": ("@optime", "null"),
        "collections": "integer",
        "documents": "integer",
        "hashes": {"*": "text"},
        "shares": ["@share"],
    },
    "share": {
        "replset": "text",
        "recovery_s": "number",
        "collections": "integer",
        "documents": "integer",
        "hashes": {"*": "text"},
    },
    "snapshot": {
        "name": "text",
        "status": "@status",
        "type": "text",
        "profile": "text?",
        "profiles": ["text"],
        "available": "truth",
        "repository_id": "text?",
        "selective": "truth",
        "encrypted": "truth?",
        "base": "truth",
        "restoreTo": "integer?",
        "last_write": ("@optime", "null"),
        "size": "integer?",
        "size_uncompressed": "integer?",
        "mongodb_version": "text?",
        "error": "text?",
        "ns": ["text"],
        "hold": "text?",
        "op_id": "text",
        "verified": ("@verdict", "null"),
        "proved": ("@verdict", "null"),
        "replsets?": ["text"],
    },
    "range": {
        "range": {"start": "integer", "end": "integer"},
        "start_ts": "@optime",
        "end_ts": "@optime",
        "noBaseSnapshot": "truth",
    },
    "gap": {
        "replset": "text",
        "start": "@optime",
        "end": "@optime",
        "cause": "text",
        "message": "text?",
        "at?": "text?",
    },
    "stretch": {"replset": "text", "from": "integer", "to": "integer"},
    "place": {
        "name": "text",
        "type": "text?",
        "path": "text",
        "repository_id": "text?",
        "owner": "text?",
        "foreign?": "truth",
        "backups?": "integer",
    },
    "event": {
        "ts": "number",
        "time": "text",
        "s": "text",
        "rs": "text?",
        "node": "text?",
        "e": "text?",
        "eobj": "text?",
        "opid": "text?",
        "msg": "text",
        "fields": {"*": "anything"},
    },
    "amounts": {
        "stage": "text",
        "bytes_done": "integer",
        "bytes_total": "integer",
        "documents_done": "integer",
        "documents_total": "integer",
    },
    "part": {
        "name": "text",
        "status": "@status",
        "node": "text?",
        "attempts?": "integer",
        "error?": ("@failure", "null"),
        "*": "anything",
    },
    "removal": {
        "dry_run": "truth",
        "deleted": [({"name": "text", "size": "integer"}, REASON)],
        "kept": [REASON],
        "slices": {
            "deleted?": ["@stretch"],
            "objects?": "integer",
            "size?": "integer",
            "kept_for_backups?": "integer",
            "floor?": ("@optime", "null"),
            "reason?": "text",
        },
        "op_id?": "text",
        "status?": "text",
        "objects?": "integer",
        "swept?": (
            {
                "objects": "integer",
                "size": "integer",
                "writers": ["text"],
                "listed?": ["text"],
                "waiting": {"*": {"*": "anything"}},
            },
            "null",
        ),
    },
    "permission": {"name": "text", "verdict": "text", "is_needed": "truth", "detail": "text"},
    "looked": {
        "ok": "truth",
        "node": "text",
        "error": "text?",
        "permissions": ["@permission"],
        "*": "anything",
    },
    "settings": {"*": "anything"},
    "limits": {"*": "anything"},
    "documents": {"*": "anything"},
}

_SECTIONS: Final[dict[str, Shape]] = {
    "cluster?": [
        {
            "rs": "text",
            "nodes": [
                {
                    "host": "text",
                    "role": "text?",
                    "agent": "text?",
                    "ok": "truth",
                    "errors": ["text"],
                    "lag_s": "number?",
                    "heartbeat_age_s": "number?",
                    "mongodb_version?": "text?",
                    "priority?": "number?",
                }
            ],
        }
    ],
    "pitr?": {
        "conf": "truth",
        "run": "truth",
        "nodes": ["text"],
        "lag_s": "number?",
        "error": "text?",
        "behind": ["text"],
        "gaps": ["@gap"],
    },
    "running?": [
        {
            "op_id": "text",
            "type": "text",
            "name": "text",
            "status": "@status",
            "queued": "truth",
            "startTS": "integer?",
            "lead": "text?",
            "progress": {
                "stage": "text",
                "bytes_done": "integer",
                "bytes_total": "integer",
                "documents_done": "integer",
                "documents_total": "integer",
                "bytes_s": "number?",
                "eta_s": "number?",
                "replsets": [
                    {
                        "rs": "text",
                        "status": "@status",
                        "node": "text?",
                        "stage": "text",
                        "bytes_done": "integer",
                        "bytes_total": "integer",
                        "documents_done": "integer",
                        "documents_total": "integer",
                    }
                ],
            },
        }
    ],
    "policy?": {
        "runs": ["@run"],
        "keep": {"*": "integer"},
        "pitr_window_s": "number?",
        "cleaned": "integer?",
        "swept": "integer?",
        "orphans": "integer",
    },
    "backups?": {
        "type": "text?",
        "path": "text?",
        "profiles": ["@place"],
        "snapshot": ["@snapshot"],
        "pitrChunks": {"pitrChunks": ["@range"], "size": "integer"},
    },
}

_FOUND: Final[dict[str, Shape]] = {
    **ASKED,
    "level?": "text",
    "backups?": "integer",
    "objects?": "integer",
    "bytes_read?": "integer",
    "not_read_again?": "integer",
    "harmed?": "integer",
    "problems?": [({"object": "text", "problem": "text"}, "text")],
    "harmed_backups?": [{"name": "text", "harmed": "integer"}],
    "harmed_ranges?": [{"replset": "text", "start": "@optime", "end": "@optime"}],
    "out_of_reach?": ["text"],
    "backup?": "text",
    "node?": "text",
    "at?": "text?",
    "recovery_s?": "number?",
    "proved_at?": ("@optime", "null"),
    "collections?": "integer",
    "documents?": "integer",
    "hashes?": {"*": "text"},
    "shares?": ["@share"],
}

COMMANDS: Final[dict[str, Shape]] = {
    "backup": {
        **ASKED,
        "profile?": "text",
        "storage_path?": "text",
        "first_write?": ("@optime", "null"),
        "last_write?": ("@optime", "null"),
        "size?": "integer?",
        "size_uncompressed?": "integer?",
        "copies?": [{"profile": "text", "status": "text", "*": "anything"}],
        "warnings?": ["text"],
    },
    "cancel": ASKED,
    "cancel-backup": ASKED,
    "cleanup": "@removal",
    "completion": {"shell": "text", "script": "text"},
    "config": (
        {"key": "text", "value": "anything"},
        {"storage": [{"node": "text", "ok": "truth", "error": "text?"}]},
        {**ASKED, "*": "anything"},
        "@settings",
    ),
    "decrypt": {"decrypted": "integer", "skipped": "integer", "failed": "integer"},
    "db-role": {"user": "text", "roles": [{"createRole": "text", "*": "anything"}]},
    "delete-backup": "@removal",
    "delete-pitr": "@removal",
    "describe-backup": {**ASKED, "type": "text", "replsets": ["@part"], "*": "anything"},
    "describe-restore": {**ASKED, "backup": "text?", "replsets": ["@part"], "*": "anything"},
    "diagnostic": {"path": "text", "files": ["text"]},
    "encryption enable": ({**ASKED, "*": "anything"}, DECLINED),
    "encryption rotate": ({**ASKED, "*": "anything"}, DECLINED),
    "encryption policy": {"Version": "text", "Statement": [{"*": "anything"}]},
    "encryption status": {
        "enabled": "truth",
        "repositories": [{"address": "text", "*": "anything"}],
        "agents": [
            {"host": "text", "fingerprint": "text?", "checked": "truth", "error": "text?"}
        ],
    },
    "export": {
        **ASKED,
        "backup": "text",
        "node?": "text",
        "directory?": "text",
        "exported_to?": "@optime",
        "collections?": "integer",
        "bytes?": "integer",
        "sharded?": [{"ns": "text", "key": "text", "unique": "truth"}],
        "warnings?": ["text"],
    },
    "genkey": {"key": "text"},
    "hold": {"name?": "text", "op_id?": "text", "status?": "@status", "backup": "text",
             "hold": "text?"},
    "limit": "@limits",
    "list": (
        {
            "snapshots": ["@snapshot"],
            "pitr": {"on": "truth", "ranges": ["@range"], "gaps": ["@gap"], "lag_s": "number?",
                     "error": "text?"},
            "next_runs?": ["@run"],
        },
        [
            {
                **ASKED,
                "type": "text",
                "snapshot": "text?",
                "start": "integer?",
                "finish": "integer?",
                "pit": ("@optime", "null"),
                "error": "text?",
            }
        ],
    ),
    "logs": (["@event"], "@event"),
    "oplog-replay": (
        {**ASKED, "backup": "text?", "replsets?": ["@part"], "*": "anything"},
        {
            **ASKED,
            "backup": "text?",
            "start": "@optime",
            "dry_run": "truth",
            "plan": {"*": "anything"},
        },
        DECLINED,
    ),
    "policy": (
        {"policy": {"*": "anything"}, "runs": ["@run"]},
        {
            "now": "integer",
            "is_retaining": "truth",
            "backups": [
                {"name": "text", "stays": "truth", "reasons": ["text"], "goes_about": "integer?"}
            ],
            "slices": [
                {
                    "replset": "text",
                    "from": "integer",
                    "to": "integer",
                    "stays": "truth",
                    "reason": "text",
                    "goes_about": "integer?",
                }
            ],
            "runs": ["@run"],
        },
    ),
    "profile add": {"name": "text", "storage": "@settings", "sync?": {"*": "anything"}},
    "profile list": ["@place"],
    "profile remove": (
        {"removed": "text?", "out_of_reach": ["text"]},
        {"removed": "null", **DECLINED},
    ),
    "profile show": {"name": "text", "storage": "@settings"},
    "profile sync": {**ASKED, "profiles": ["text"], "*": "anything"},
    "restore": (
        {
            **ASKED,
            "backup": "text",
            "restored_to": "@optime",
            "replsets": ["@part"],
        },
        {**ASKED, "backup": "text", "dry_run": "truth", "plan": {"*": "anything"}},
        DECLINED,
    ),
    "status": _SECTIONS,
    "storage adopt": {"profile": "text", "repository_id": "text?", "former_owner": "text?",
                      "owner": "text?", "*": "anything"},
    "storage check": {
        "profile": "text",
        "storage_path": "text",
        "nodes": ["@looked"],
        "silent": {"*": "text"},
    },
    "storage lifecycle": "@documents",
    "storage policy": "@documents",
    "verify": _FOUND,
    "version": {"version": "text", "platform": "text", "python": "text"},
}  # fmt: skip
