"""Run the benchmarks: all, or those named. `soak`, `determinism` and `kills` come alone, and have
options of their own."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

from benchmarks.machine import describe

COMMANDS = ("determinism", "kills", "soak")
"""What takes options, and long."""

APART = {"__init__", "__main__", "machine", "overfit", "overfit_figures", "voxcity_side", *COMMANDS}
"""What is no benchmark, wants a dataset and has a command of its own, or is a part of one."""

NAMES = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in APART)


def main() -> None:
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        sys.exit(importlib.import_module(f"benchmarks.{sys.argv[1]}").main(sys.argv[2:]))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)}; {', '.join(COMMANDS)}")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    machine = describe()
    results = {}
    if not options.json:
        print("machine:", ", ".join(f"{key} {value}" for key, value in machine.items()))
    for name in options.names or NAMES:
        results[name] = importlib.import_module(f"benchmarks.{name}").run()
        if not options.json:
            print(f"\n{name}")
            for key, value in results[name].items():
                print(f"  {key:24} {value}")
    if options.json:
        print(json.dumps({"machine": machine, **results}, indent=2))


if __name__ == "__main__":
    main()
