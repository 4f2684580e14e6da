"""What a figure was measured on, and how a process is measured from outside."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Run:
    """One finished process: CPU and wall seconds, peak memory in MB."""

    cpu: float
    wall: float
    peak_mb: float


def describe() -> dict[str, object]:
    """The machine, for the head of every table."""
    name = (
        next(
            (
                line.split(":")[1].strip()
                for line in Path("/proc/cpuinfo").read_text().splitlines()
                if "model name" in line
            ),
            platform.processor(),
        )
        if Path("/proc/cpuinfo").exists()
        else platform.processor()
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": name,
        "cores": os.cpu_count(),
        "memory_gb": round(memory),
        "python": platform.python_version(),
    }


def measure(command: Sequence[str | Path]) -> Run:
    """Run a command and account for it; it must succeed.

    A process's peak memory is read from the kernel's accounting of this child alone (wait4).
    """
    began = time.perf_counter()
    with subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as child:
        assert child.stderr is not None
        errors = child.stderr.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - began
    if child.returncode != 0:
        raise SystemExit(
            f"{' '.join(map(str, command))} ended with {child.returncode}: {errors.decode()[-500:]}"
        )
    scale = 1 if sys.platform == "darwin" else 1024
    return Run(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss * scale / 1e6)


def elsewhere(module: str, function: str, folder: Path, *arguments: float) -> Any:
    """Call `function(folder, *arguments)` in another process, and take what it returns: JSON
    values.

    The kernel counts a process's memory before it starts a program as that program's: what measures
    must stay small.
    """
    call = (
        f"import json, pathlib, {module}; "
        f"print(json.dumps({module}.{function}(pathlib.Path({str(folder)!r}), *{arguments!r})))"
    )
    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(
            f"{module}.{function}{arguments} ended with {done.returncode}: {done.stderr[-2000:]}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def show(module: str, about: str | None, run: Callable[[bool], dict[str, object]]) -> None:
    """The command line of a benchmark that has a quick and a whole form."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=about)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--quick", action="store_true", help="small areas, to see that it works")
    options = parser.parse_args()
    result = {"machine": describe(), **run(options.quick)}
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for key, value in result.items():
        print(f"{key:24} {value}")


def median(runs: Sequence[Run], what: str) -> float:
    return statistics.median(getattr(run, what) for run in runs)


__all__ = ["Run", "describe", "elsewhere", "measure", "median", "show"]
