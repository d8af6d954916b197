"""Run rings of tests one after the other, cheapest first, and say how each went.

A ring fails when a test of it fails, when it is skipped as a whole or has no test (silence is no
proof), or when it does not end in time. The first ring that fails ends the run: what an inner ring
finds is noise in the outer ones. Arguments after `--` go to pytest.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
RINGS = {
    "unit": "pure logic, no network, no real time",
    "contract": "one suite, every implementation",
    "integration": "a real mongod",
    "cluster": "agents as processes, faults",
}
DEADLINES_S = {"unit": 420, "contract": 600, "integration": 1500, "cluster": 2400}
"""What a ring may take on two busy cores; far above what it should take. See CONTRIBUTING.md."""
WORKERS = {"unit": 2, "contract": 2, "integration": 3, "cluster": 3}
"""Processes that share a ring's tests, on two cores: the outer rings wait more than they compute.
Each has replica sets of its own. A module stays together: its fixtures are made once."""
MOST_AGAIN = 12
"""Processes share two cores, and time runs: so few tests that failed beside others are run again
alone, once. What passes then is no failure of the product, and is named all the same: its deadline
is too short or its claim too narrow."""
GRACE_S = 30
"""Between the interrupt, which lets fixtures stop their mongods, and the kill."""


@dataclass(frozen=True)
class Outcome:
    """How one ring went; `complaint` is empty when it passed."""

    ring: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    duration_s: float = 0.0
    complaint: str = ""
    only_alone: int = 0
    """How many passed only when they were run again alone."""


def run_ring(ring: str, pytest_args: list[str]) -> Outcome:
    """Run pytest on the ring's directory and judge it."""
    started = time.monotonic()
    spread = ["-n", str(WORKERS[ring]), "--dist", "loadscope", "--max-worker-restart", "2"]
    status, passed, failed, skipped = _counted(ring, [*spread, *pytest_args])
    only_alone = 0
    if status == 1 and 0 < failed <= MOST_AGAIN:
        _say(f"── {ring}: the {failed} that failed, again and alone ──")
        again = ["--last-failed", "--last-failed-no-failures=none", *pytest_args]
        status, only_alone, failed, _ = _counted(ring, again)
        passed += only_alone
    return Outcome(
        ring,
        passed,
        failed,
        skipped,
        duration_s=time.monotonic() - started,
        complaint=_complaint(ring, status, passed, skipped),
        only_alone=only_alone,
    )


def _counted(ring: str, args: list[str]) -> tuple[int | None, int, int, int]:
    """Status of a run of pytest, and how many passed, failed and were skipped."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        status = _pytest(ring, [f"--junitxml={report}", *args])
        return status, *_counts(report)


def _pytest(ring: str, args: list[str]) -> int | None:
    """The exit status, or None if the ring did not end in time."""
    command = [sys.executable, "-m", "pytest", f"tests/{ring}", "--no-header", *args]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL) as process:
        try:
            return process.wait(DEADLINES_S[ring])
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
            return None
        except KeyboardInterrupt:
            process.wait(GRACE_S)
            raise


def _counts(report: Path) -> tuple[int, int, int]:
    """Passed, failed and skipped tests of a JUnit report; zeros if pytest wrote none."""
    if not report.exists():
        return 0, 0, 0
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))

    def total(*names: str) -> int:
        return sum(int(suite.get(name, "0")) for suite in suites for name in names)

    failed, skipped = total("failures", "errors"), total("skipped")
    return max(0, total("tests") - failed - skipped), failed, skipped


def _complaint(ring: str, status: int | None, passed: int, skipped: int) -> str:
    if status is None:
        return f"did not end within {DEADLINES_S[ring]} s"
    if passed == 0 and skipped:
        return "every test was skipped; the reasons are above"
    if not (ROOT / "tests" / ring).is_dir():
        return f"there is no tests/{ring}"
    if status == 5 or (status == 0 and passed == 0):
        return f"ran no test: is tests/{ring} empty, or does ARGS select nothing?"
    return "" if status == 0 else f"pytest ended with status {status}"


def main(arguments: list[str]) -> int:
    """Run the named rings; 0 if all passed."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    rings, pytest_args = arguments[:split], arguments[split + 1 :]
    outcomes: list[Outcome] = []
    for ring in rings:
        _say(f"── {ring}: {RINGS[ring]} ──")
        outcomes.append(run_ring(ring, pytest_args))
        if outcomes[-1].complaint:
            break
    _summary(outcomes, not_run=rings[len(outcomes) :])
    return 1 if any(outcome.complaint for outcome in outcomes) else 0


def _summary(outcomes: list[Outcome], *, not_run: list[str]) -> None:
    _say("")
    for outcome in outcomes:
        verdict = f"FAILED: {outcome.complaint}" if outcome.complaint else "ok"
        if outcome.only_alone:
            verdict += f", {outcome.only_alone} of them only when run alone"
        _say(
            f"{outcome.ring:<12} {outcome.passed:>5} passed {outcome.failed:>4} failed "
            f"{outcome.skipped:>4} skipped {outcome.duration_s:>7.1f} s  {verdict}"
        )
    for ring in not_run:
        _say(f"{ring:<12} not run")
    passed, failed, skipped = (
        sum(getattr(outcome, name) for outcome in outcomes)
        for name in ("passed", "failed", "skipped")
    )
    _say(f"total: {passed} passed, {failed} failed, {skipped} skipped")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
