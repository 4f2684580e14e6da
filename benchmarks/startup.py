"""What `earthgen --help` costs, against `rio --help`, the command line that GIS people have
beside it."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.machine import measure, median

TARGET_CPU_S = 0.3


def run(rounds: int = 7) -> dict[str, object]:
    here = Path(sys.executable).parent
    ours, peer = [], []
    measure([here / "earthgen", "--help"])  # byte code and file cache
    measure([here / "rio", "--help"])
    for _ in range(rounds):
        ours.append(measure([here / "earthgen", "--help"]))
        peer.append(measure([here / "rio", "--help"]))
    cpu, peer_cpu = median(ours, "cpu"), median(peer, "cpu")
    return {
        "help_cpu_s": round(cpu, 3),
        "rio_help_cpu_s": round(peer_cpu, 3),
        "help_vs_rio": round(cpu / peer_cpu, 2),
        "target_s": TARGET_CPU_S,
        "met": cpu < TARGET_CPU_S,
        "limit": "Typer, rich's markup and pluggy are imported; a bare interpreter takes 0.02 s "
        "of it",
    }
