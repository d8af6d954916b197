"""The rules of CONTRIBUTING.md that no linter knows, read off the syntax tree of `agent` and `ctl`.

Each rule is a function from a module to its violations, and each is tried on a snippet that breaks
it and on one that does not, so that no rule is silently blind. A rule that stands in the way of
something better is changed here, with its reason, in the same commit.
"""

from __future__ import annotations

import ast
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("agent", "ctl")

MAY_CANCEL = {"agent/service.py", "agent/coordination/lease.py"}
MAY_CATCH_ALL = {"agent/operations/machine.py", "agent/service.py", "ctl/__main__.py"}
MAY_READ_WALL_CLOCK = {"agent/clock.py", "agent/log.py"}

MAY_SHIELD = {"agent/operations/exporting/directory.py", "agent/operations/scratch/server.py"}
"""They clear a directory away, in a thread, which cannot be cancelled anyway."""
MAY_STAY = {"agent/storage/multipart.py": "an upload is aborted though its task is cancelled again"}
"""Where a cancellation is caught and not raised again at once, and why."""
ENDLESS = {
    "agent/service.py": "until the agent is asked to stop",
    "agent/operations/key_watch.py": "a wake-up polls",
    "agent/coordination/storage_checks.py": "for the next question, as long as the agent runs",
    "agent/pipeline/channel.py": "between tasks of one group, which end together",
    "agent/operations/restore/replaying.py": "between tasks of one group, which end together",
    "agent/operations/backup/journal.py": "between tasks of one group, which end together",
    "agent/operations/scratch/server.py": "`watched` ends it; after a kill there is a deadline",
}
"""Where a wait has no deadline of its own, and what ends it."""

LOOSE_TASKS = {
    f"asyncio.{name}"
    for name in (
        "create_task",
        "ensure_future",
        "gather",
        "get_event_loop",
        "as_completed",
        "run_coroutine_threadsafe",
    )
}
KEEPS_CANCELLATIONS = "agent/tasks.py"
WAITS = {"wait", "get", "join", "communicate"}
"""What blocks until something comes, when it is awaited without an argument; `get` of queues."""
DEADLINES = {"asyncio.timeout", "asyncio.timeout_at"}
QUEUES = {
    f"{module}.{name}"
    for module in ("asyncio", "queue")
    for name in ("Queue", "LifoQueue", "PriorityQueue")
} | {"queue.SimpleQueue"}
WALL_CLOCKS = {
    "time.time",
    "time.time_ns",
    "datetime.datetime.now",
    "datetime.datetime.today",
    "datetime.datetime.utcnow",
    "datetime.date.today",
}
CATCH_ALL = {"Exception", "BaseException"}
VAGUE_NAMES = {"util", "utils", "helper", "helpers", "misc", "common", "manager", "managers"}

FUNCTION_LINES = 60
FILE_LINES = 450
FUNCTION_MEDIAN, FUNCTION_P95 = 7, 30
FILE_MEDIAN, FILE_P90 = 120, 300

HEAVY_FOR_CTL = {
    "agent.storage",
    "aiobotocore",
    "aiohttp",
    "azure",
    "boto3",
    "botocore",
    "bson",
    "gcloud",
    "motor",
    "oss2",
    "pydantic",
    "pymongo",
}


@dataclass(frozen=True)
class Module:
    """One source file: where it is, what it says."""

    path: str
    source: str
    tree: ast.Module
    names: dict[str, str]
    """Imported name → what it stands for: `{"dt": "datetime.datetime"}`."""

    @classmethod
    def of(cls, path: str, source: str) -> Module:
        tree = ast.parse(source)
        return cls(path, source, tree, dict(_imported(tree)))

    def meaning(self, node: ast.AST) -> str:
        """The dotted name an expression stands for, as if nothing had been renamed on import."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return ""
        parts.append(self.names.get(node.id, node.id))
        return ".".join(reversed(parts))


@dataclass(frozen=True)
class Violation:
    """A place where a rule is broken, and what to do instead."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


Rule = Callable[[Module], Iterator[Violation]]
Function = ast.FunctionDef | ast.AsyncFunctionDef


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                if name.asname:
                    yield name.asname, name.name
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                yield name.asname or name.name, f"{node.module}.{name.name}"


def tasks_belong_to_a_group(module: Module) -> Iterator[Violation]:
    groups = set(_task_groups(module))
    for node in ast.walk(module.tree):
        is_loose = (
            isinstance(node, ast.Attribute)
            and node.attr == "create_task"
            and ast.unparse(node.value) not in groups
        )
        shields = module.meaning(node) == "asyncio.shield" and module.path not in MAY_SHIELD
        if is_loose or shields or module.meaning(node) in LOOSE_TASKS:
            name = ast.unparse(node) if isinstance(node, ast.expr) else ""
            yield Violation(module.path, _line(node), f"{name}: start tasks in a TaskGroup only")
        elif module.meaning(node) == "asyncio.TaskGroup" and module.path != KEEPS_CANCELLATIONS:
            yield Violation(
                module.path, _line(node), f"it may forget cancellations: take {KEEPS_CANCELLATIONS}"
            )


def _task_groups(module: Module) -> Iterator[str]:
    """Names of task groups: entered, or given as an argument that says so."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.AsyncWith):
            for item in node.items:
                entered = item.context_expr
                if (
                    isinstance(entered, ast.Call)
                    and module.meaning(entered.func).endswith("TaskGroup")
                    and item.optional_vars is not None
                ):
                    yield ast.unparse(item.optional_vars)
        elif (
            isinstance(node, ast.arg)
            and node.annotation is not None
            and module.meaning(node.annotation) == "agent.tasks.TaskGroup"
        ):
            yield node.arg


def cancellation_goes_on(module: Module) -> Iterator[Violation]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            names = {module.meaning(kind) for kind in caught}
            if "asyncio.CancelledError" in names:
                is_kept = _raises_again(node)
            elif "BaseExceptionGroup" in names:
                is_kept = any(isinstance(inner, ast.Raise | ast.Return) for inner in ast.walk(node))
            else:
                continue
        elif isinstance(node, ast.Call) and module.meaning(node.func) == "contextlib.suppress":
            is_kept = all(module.meaning(kind) != "asyncio.CancelledError" for kind in node.args)
        else:
            continue
        if not is_kept and module.path not in MAY_STAY:
            yield Violation(
                module.path, node.lineno, "swallows a cancellation: clean up and raise it again"
            )


def waits_have_a_deadline(module: Module) -> Iterator[Violation]:
    if module.path in ENDLESS:
        return
    within = {
        id(inner)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.AsyncWith) and _sets_deadline(module, node)
        for inner in ast.walk(node)
    }
    has_queues = any(module.meaning(node) in QUEUES for node in ast.walk(module.tree))
    blocking = WAITS if has_queues else WAITS - {"get", "join"}
    for node in ast.walk(module.tree):
        waits = (
            isinstance(node, ast.Await)
            and isinstance(node.value, ast.Call)
            and isinstance(node.value.func, ast.Attribute)
            and node.value.func.attr in blocking
            and not node.value.args
            and not node.value.keywords
        )
        if waits and id(node) not in within:
            yield Violation(
                module.path,
                _line(node),
                f"{ast.unparse(node)}: within asyncio.timeout, or say in ENDLESS what ends it",
            )


def _sets_deadline(module: Module, node: ast.AsyncWith) -> bool:
    return any(
        isinstance(item.context_expr, ast.Call)
        and module.meaning(item.context_expr.func) in DEADLINES
        for item in node.items
    )


def tasks_are_cancelled_in_two_places(module: Module) -> Iterator[Violation]:
    if module.path in MAY_CANCEL:
        return
    # An awaited `x.cancel()` is one of our own verbs; a task's cancel() has nothing to await.
    awaited = {id(node.value) for node in ast.walk(module.tree) if isinstance(node, ast.Await)}
    for node in ast.walk(module.tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "cancel"
            and id(node) not in awaited
        ):
            yield Violation(
                module.path,
                node.lineno,
                f"{ast.unparse(node)}: raise the cause inside the group instead; only "
                f"{' and '.join(sorted(MAY_CANCEL))} cancel by hand",
            )


def queues_are_bounded(module: Module) -> Iterator[Violation]:
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.value if isinstance(node.func, ast.Subscript) else node.func
        if module.meaning(called) not in QUEUES:
            continue
        bound = node.args[0] if node.args else None
        for keyword in node.keywords:
            bound = keyword.value if keyword.arg == "maxsize" else bound
        if bound is None or (isinstance(bound, ast.Constant) and not bound.value):
            yield Violation(
                module.path, node.lineno, f"{ast.unparse(node)}: every queue has a bound"
            )


def only_edges_catch_everything(module: Module) -> Iterator[Violation]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler):
            if node.type is None:
                yield Violation(module.path, node.lineno, "bare except: name what you can handle")
                continue
            if _raises_again(node):
                continue
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        elif isinstance(node, ast.Call) and module.meaning(node.func) == "contextlib.suppress":
            caught = node.args
        else:
            continue
        for kind in caught:
            if module.meaning(kind) in CATCH_ALL and module.path not in MAY_CATCH_ALL:
                yield Violation(
                    module.path,
                    _line(kind),
                    f"catches {module.meaning(kind)}: name what you can handle; only "
                    f"{', '.join(sorted(MAY_CATCH_ALL))} may catch everything",
                )


def _raises_again(handler: ast.ExceptHandler) -> bool:
    """It cleans up and lets the error go on: nothing is swallowed."""
    last = handler.body[-1]
    leaves = any(isinstance(node, ast.Return) for node in ast.walk(handler))
    return isinstance(last, ast.Raise) and last.exc is None and not leaves


def wall_clock_is_not_read(module: Module) -> Iterator[Violation]:
    if module.path in MAY_READ_WALL_CLOCK:
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute | ast.Name) and module.meaning(node) in WALL_CLOCKS:
            yield Violation(
                module.path,
                node.lineno,
                f"{ast.unparse(node)}: use the server's time for what is stored or compared, and "
                "agent.clock for durations",
            )


def modules_say_why_they_exist(module: Module) -> Iterator[Violation]:
    if not ast.get_docstring(module.tree):
        yield Violation(module.path, 1, "no module docstring: say why it exists")


def functions_fit_on_a_screen(module: Module) -> Iterator[Violation]:
    for function in _functions(module):
        if _length(function) > FUNCTION_LINES:
            yield Violation(
                module.path,
                function.lineno,
                f"{function.name} has {_length(function)} lines, {FUNCTION_LINES} at most",
            )


def files_have_one_subject(module: Module) -> Iterator[Violation]:
    lines = len(module.source.splitlines())
    if lines > FILE_LINES:
        yield Violation(
            module.path, lines, f"{lines} lines, {FILE_LINES} at most: split it by subject"
        )


def no_promises_in_comments(module: Module) -> Iterator[Violation]:
    for number, line in enumerate(module.source.splitlines(), 1):
        if found := re.search(r"\b(TODO|FIXME|XXX)\b", line):
            yield Violation(module.path, number, f"{found[0]}: do it, or open an issue")


def suppressions_name_their_rule(module: Module) -> Iterator[Violation]:
    for number, line in enumerate(module.source.splitlines(), 1):
        if re.search(r"#\s*type:\s*ignore(?!\[)", line):
            yield Violation(module.path, number, "`type: ignore` without a code")
        if re.search(r"#\s*noqa(?!:)", line):
            yield Violation(module.path, number, "`noqa` without a code")


def names_say_something(module: Module) -> Iterator[Violation]:
    for part in Path(module.path).with_suffix("").parts:
        if vague := VAGUE_NAMES & set(part.split("_")):
            yield Violation(
                module.path, 1, f"a module named {vague.pop()!r}: name it after what is in it"
            )


RULES: tuple[Rule, ...] = (
    tasks_belong_to_a_group,
    cancellation_goes_on,
    waits_have_a_deadline,
    tasks_are_cancelled_in_two_places,
    queues_are_bounded,
    only_edges_catch_everything,
    wall_clock_is_not_read,
    modules_say_why_they_exist,
    functions_fit_on_a_screen,
    files_have_one_subject,
    no_promises_in_comments,
    suppressions_name_their_rule,
    names_say_something,
)


def _line(node: ast.AST) -> int:
    return getattr(node, "lineno", 1)


def _functions(module: Module) -> Iterator[Function]:
    for node in ast.walk(module.tree):
        if isinstance(node, Function):
            yield node


def _length(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def _modules() -> list[Module]:
    return [
        Module.of(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
    ]


MODULES = _modules()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_code_keeps_the_rule(rule: Rule) -> None:
    violations = [str(violation) for module in MODULES for violation in rule(module)]
    assert not violations, "\n" + "\n".join(violations)


def _percentile(sizes: list[int], percent: int) -> int:
    return sorted(sizes)[(len(sizes) - 1) * percent // 100]


def test_functions_are_small_on_the_whole() -> None:
    sizes = [_length(function) for module in MODULES for function in _functions(module)]
    assert statistics.median(sizes) <= FUNCTION_MEDIAN
    assert _percentile(sizes, 95) <= FUNCTION_P95


def test_files_are_small_on_the_whole() -> None:
    sizes = [
        len(module.source.splitlines())
        for module in MODULES
        if not module.path.endswith("__init__.py")
    ]
    assert statistics.median(sizes) <= FILE_MEDIAN
    assert _percentile(sizes, 90) <= FILE_P90


LONG_FUNCTION = "def f():\n" + "    x = 1\n" * FUNCTION_LINES
BROKEN: list[tuple[Rule, str]] = [
    (tasks_belong_to_a_group, "import asyncio\nasyncio.create_task(f())"),
    (tasks_belong_to_a_group, "import asyncio as aio\nawait aio.gather(f(), g())"),
    (tasks_belong_to_a_group, "from asyncio import ensure_future as start\nstart(f())"),
    (tasks_belong_to_a_group, "import asyncio\nasyncio.get_event_loop()"),
    (tasks_belong_to_a_group, "import asyncio\nasyncio.get_running_loop().create_task(f())"),
    (tasks_belong_to_a_group, "loop.create_task(f())"),
    (tasks_belong_to_a_group, "import asyncio\nawait asyncio.shield(f())"),
    (
        tasks_belong_to_a_group,
        "import asyncio\nasync with asyncio.TaskGroup() as group:\n    group.create_task(f())",
    ),
    (tasks_belong_to_a_group, "import asyncio\nfor each in asyncio.as_completed(all):\n    pass"),
    (
        cancellation_goes_on,
        "import asyncio\ntry:\n    await f()\nexcept asyncio.CancelledError:\n    pass",
    ),
    (
        cancellation_goes_on,
        "from asyncio import CancelledError\ntry:\n    f()\nexcept (OSError, CancelledError):\n"
        "    g()",
    ),
    (
        cancellation_goes_on,
        "import asyncio, contextlib\nwith contextlib.suppress(asyncio.CancelledError):\n    f()",
    ),
    (cancellation_goes_on, "try:\n    f()\nexcept BaseExceptionGroup:\n    pass"),
    (waits_have_a_deadline, "await event.wait()"),
    (waits_have_a_deadline, "from asyncio import Queue\nq = Queue(1)\nitem = await q.get()"),
    (waits_have_a_deadline, "async with lock:\n    await process.communicate()"),
    (tasks_are_cancelled_in_two_places, "task.cancel()"),
    (tasks_are_cancelled_in_two_places, "self._tasks[0].cancel('why')"),
    (queues_are_bounded, "import asyncio\nasyncio.Queue()"),
    (queues_are_bounded, "import asyncio\nasyncio.Queue[int]()"),
    (queues_are_bounded, "from asyncio import Queue\nQueue(maxsize=0)"),
    (queues_are_bounded, "import queue\nqueue.SimpleQueue()"),
    (only_edges_catch_everything, "try:\n    f()\nexcept:\n    pass"),
    (only_edges_catch_everything, "try:\n    f()\nexcept Exception:\n    pass"),
    (only_edges_catch_everything, "try:\n    f()\nexcept (OSError, BaseException):\n    pass"),
    (only_edges_catch_everything, "try:\n    f()\nexcept* Exception:\n    pass"),
    (only_edges_catch_everything, "import contextlib\ncontextlib.suppress(Exception)"),
    (only_edges_catch_everything, "try:\n    f()\nexcept Exception:\n    raise OSError"),
    (
        only_edges_catch_everything,
        "def f():\n  try:\n    g()\n  except Exception:\n    if h():\n      return\n    raise",
    ),
    (wall_clock_is_not_read, "import time\ntime.time()"),
    (wall_clock_is_not_read, "from time import time as now\nnow()"),
    (wall_clock_is_not_read, "import datetime\ndatetime.datetime.now(datetime.UTC)"),
    (wall_clock_is_not_read, "from datetime import datetime as dt\ndt.utcnow()"),
    (modules_say_why_they_exist, "x = 1"),
    (functions_fit_on_a_screen, LONG_FUNCTION),
    (functions_fit_on_a_screen, "async " + LONG_FUNCTION),
    (files_have_one_subject, "x = 1\n" * (FILE_LINES + 1)),
    (no_promises_in_comments, "x = 1  # TODO: later"),
    (no_promises_in_comments, '"""FIXME"""'),
    (suppressions_name_their_rule, "x = f()  # type: ignore"),
    (suppressions_name_their_rule, "x = f()  # noqa"),
]
KEPT: list[tuple[Rule, str]] = [
    (tasks_belong_to_a_group, "async with TaskGroup() as group:\n    group.create_task(f())"),
    (
        tasks_belong_to_a_group,
        "from agent.tasks import TaskGroup\n"
        "def f(group: TaskGroup) -> None:\n    group.create_task(g())",
    ),
    (
        cancellation_goes_on,
        "import asyncio\ntry:\n    f()\nexcept asyncio.CancelledError:\n    g()\n    raise",
    ),
    (waits_have_a_deadline, "import asyncio\nasync with asyncio.timeout(1):\n    await e.wait()"),
    (waits_have_a_deadline, "await wakeup.wait(2.5)"),
    (waits_have_a_deadline, "keys = await self._refreshing.get()"),
    (tasks_are_cancelled_in_two_places, "await operations.cancel(op_id)"),
    (queues_are_bounded, "import asyncio\nasyncio.Queue[int](2 * consumers)"),
    (queues_are_bounded, "import asyncio\nasyncio.Queue(maxsize=8)"),
    (only_edges_catch_everything, "try:\n    f()\nexcept OSError:\n    pass"),
    (only_edges_catch_everything, "try:\n    f()\nexcept BaseException:\n    undo()\n    raise"),
    (wall_clock_is_not_read, "import time\ntime.monotonic()"),
    (wall_clock_is_not_read, "from datetime import UTC, datetime\ndatetime.fromtimestamp(1, UTC)"),
    (modules_say_why_they_exist, '"""Why."""'),
    (functions_fit_on_a_screen, "def f():\n" + "    x = 1\n" * (FUNCTION_LINES - 1)),
    (files_have_one_subject, "x = 1\n" * FILE_LINES),
    (suppressions_name_their_rule, "x = f()  # type: ignore[no-untyped-call]  # noqa: BLE001"),
]


def _named(cases: list[tuple[Rule, str]]) -> list[object]:
    return [
        pytest.param(rule, source, id=f"{rule.__name__}-{number}")
        for number, (rule, source) in enumerate(cases)
    ]


@pytest.mark.parametrize(("rule", "source"), _named(BROKEN))
def test_a_broken_rule_is_seen(rule: Rule, source: str) -> None:
    assert list(rule(Module.of("agent/somewhere.py", source)))


@pytest.mark.parametrize(("rule", "source"), _named(KEPT))
def test_a_kept_rule_is_quiet(rule: Rule, source: str) -> None:
    assert not list(rule(Module.of("agent/somewhere.py", source)))


@pytest.mark.parametrize(
    ("rule", "path", "source"),
    [
        (tasks_are_cancelled_in_two_places, "agent/coordination/lease.py", "task.cancel()"),
        (
            only_edges_catch_everything,
            "agent/service.py",
            "try:\n    f()\nexcept Exception:\n    g()",
        ),
        (wall_clock_is_not_read, "agent/log.py", "import time\ntime.time()"),
    ],
)
def test_an_allowed_file_may(rule: Rule, path: str, source: str) -> None:
    assert not list(rule(Module.of(path, source)))


@pytest.mark.parametrize("path", ["agent/utils.py", "agent/common/x.py", "ctl/lease_manager.py"])
def test_a_vague_name_is_seen(path: str) -> None:
    assert list(names_say_something(Module.of(path, "")))


def test_a_violation_says_where() -> None:
    (violation,) = wall_clock_is_not_read(Module.of("ctl/x.py", "import time\n\ntime.time()"))
    assert str(violation).startswith("ctl/x.py:3: time.time: ")


def test_every_rule_has_a_self_test() -> None:
    tried = {rule for rule, _ in BROKEN} | {names_say_something}
    assert tried == set(RULES)


# ── ctl starts at once ──────────────────────────────────────────────────────────────────────────


def _loaded_by(statement: str) -> set[str]:
    script = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_import_probe_sees_what_is_loaded() -> None:
    assert "pymongo.uri_parser" in _loaded_by("import pymongo.uri_parser")


def test_ctl_loads_no_driver_before_a_command_needs_it() -> None:
    loaded = _loaded_by("import ctl.app")
    heavy = {name for name in HEAVY_FOR_CTL if name in loaded}
    assert not heavy, f"import ctl.app loads {', '.join(sorted(heavy))}"


def test_ctl_help_is_there_at_once() -> None:
    # The promise is 0.3 s. What the process computes is measured, since this ring runs beside other
    # work; it waits for nothing but the disk. The least of a few is what it needs.
    needed = min(_computed_s([sys.executable, "-m", "ctl", "--help"]) for _ in range(3))
    assert needed < 0.3, f"{needed:.2f} s"


def _computed_s(command: list[str]) -> float:
    """The processor time of a command."""
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "NO_COLOR": "1"}, stdout=subprocess.DEVNULL
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return usage.ru_utime + usage.ru_stime


# ── what the documents promise ──────────────────────────────────────────────────────────────────


def _make_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE))


def _documented_targets(text: str) -> set[str]:
    """Targets in code: `make x y` between backticks, or at the start of a line of a code block."""
    commands = re.findall(r"`(?:\$ )?make ([^`\n]+)`", text)
    for block in re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        commands += re.findall(r"^\s*(?:\$ )?make ([^#\n&|]+)", block, re.MULTILINE)
    words = {word for command in commands for word in re.split(r"\s[A-Z]+=", command)[0].split()}
    return {word for word in words if re.fullmatch(r"[a-z][a-z-]*", word)}


def test_documented_targets_are_found_in_code_only() -> None:
    text = 'We make backups. `make one`\n```sh\n$ make two ARGS="-k three"  # make four\n```\n'
    assert _documented_targets(text) == {"one", "two"}


def test_every_documented_make_target_exists() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / ".ci/run"]
    targets = _make_targets()
    unknown = [
        f"{path.relative_to(ROOT)}: make {target}"
        for path in documents
        for target in sorted(_documented_targets(path.read_text(encoding="utf-8")) - targets)
    ]
    assert not unknown, "\n" + "\n".join(unknown)


def test_every_make_target_is_phony_and_explained() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = set(re.findall(r"^\.PHONY: ([a-z-]+)$", text, re.MULTILINE))
    explained = set(re.findall(r"^([a-z-]+):.*## \S", text, re.MULTILINE))
    assert _make_targets() == phony == explained
