"""The fuzzer: damaged files of all formats, until the time is over.

    python -m tests.fuzz.run --seconds 60 [--format glb] [--seed 7] [--keep FOLDER]

Each input is read in a forked process with a limit on time and memory. An input that ends in
anything but success or an error of earthgen is a finding: it is kept, its seed printed, and the
exit code is 1. To make a finding part of the tests, copy its folder to tests/fuzz/corpus.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.mutate import mutated
from tests.fuzz.seeds import write_seeds
from tests.fuzz.targets import TARGETS, main_file

SECONDS, MEMORY = 10, 1_000_000_000
"""Limits for one input: CPU seconds, and bytes beyond what the process has at its start."""

BATCH = 50
"""Inputs that one process reads, before the next is forked."""

CORPUS = Path(__file__).parent / "corpus"


@dataclass
class Totals:
    """Counts by format."""

    inputs: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Seed:
    """A sound file, or a case of the corpus, with the files beside it."""

    fmt: str
    folder: Path
    changed: str


def seeds_of(folder: Path, only: str | None) -> list[Seed]:
    """Return the sound files that `write_seeds` made, and the corpus."""
    seeds = []
    for about in sorted([*folder.glob("*/about.json"), *CORPUS.glob("*/about.json")]):
        values = json.loads(about.read_text())
        known = values["fmt"] in TARGETS
        if values["fmt"] in ("world", "scene"):  # a case of the corpus is one file of it
            known = (about.parent / values["file"]).is_dir()
        if known and only in (None, values["fmt"]):
            seeds.append(Seed(values["fmt"], about.parent, values["file"]))
    return seeds


def _chosen(seeds: list[Seed], dice: random.Random) -> Seed:
    """Return a seed of any format, a sound one twice as often as a case of the corpus."""
    fmt = dice.choice(sorted({each.fmt for each in seeds}))
    every = [each for each in seeds if each.fmt == fmt]
    sound = [each for each in every if CORPUS not in each.folder.parents]
    return dice.choice(sound if sound and dice.random() < 2 / 3 else every)


def one(seed: Seed, dice: random.Random, work: Path, others: list[bytes]) -> Path:
    """Write a mutation of a seed into `work`, and return the file that a command would name."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(seed.folder, work)
    names = [p.relative_to(work) for p in sorted(work.rglob("*")) if p.is_file()]
    files = [name for name in names if name.name != "about.json"]
    chosen = work / (dice.choice(files) if dice.random() < 0.3 else Path(seed.changed))
    if chosen.is_dir():  # a world or a scene: what describes its arrays as often as what is in them
        about = dice.random() < 0.5
        chosen = work / dice.choice([n for n in files if (n.name == "zarr.json") == about])
    if not chosen.is_file():
        chosen = work / Path(seed.changed).name
    if chosen.is_file():
        chosen.write_bytes(mutated(chosen.read_bytes(), dice, others))
    return main_file(seed.fmt, work, seed.changed)


def batch(seeds: list[Seed], first: int, work: Path, out: int) -> None:
    """Read `BATCH` inputs; write a line of JSON about each to a pipe. Runs in a forked process."""
    from geo_io.errors import EarthgenError

    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # GDAL's messages
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
    with os.fdopen(out, "w") as pipe:
        for number in range(first, first + BATCH):
            dice = random.Random(number)
            seed = _chosen(seeds, dice)
            others = [
                (each.folder / each.changed).read_bytes()
                for each in dice.sample(seeds, min(3, len(seeds)))
                if each.fmt == seed.fmt and (each.folder / each.changed).is_file()
            ]
            path = one(seed, dice, work, others)
            pipe.write(json.dumps({"number": number, "fmt": seed.fmt, "file": seed.changed}) + "\n")
            pipe.flush()
            signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
            result, text = "read", ""
            try:
                TARGETS[seed.fmt](path)
            except EarthgenError:
                result = "refused"
            except BaseException as error:  # noqa: BLE001 - this is what is looked for
                result = f"{type(error).__name__}"
                text = "".join(traceback.format_exception(error)[-3:])[-1500:]
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            pipe.write(json.dumps({"result": result, "text": text}) + "\n")
            pipe.flush()
            if text:
                return


def main(words: list[str] | None = None) -> int:
    """Run the fuzzer, and return the number of findings, at most 1."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.fuzz.run")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--format", choices=sorted(TARGETS))
    parser.add_argument("--seed", type=int, default=1, help="number of the first input")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    asked = parser.parse_args(words)
    totals = Totals()
    with tempfile.TemporaryDirectory(prefix="earthgen-fuzz-") as folder:
        home = Path(folder)
        write_seeds(home / "seeds")
        seeds = seeds_of(home / "seeds", asked.format)
        _warm(seeds, home / "warm")
        number = asked.seed
        ends = time.monotonic() + asked.seconds
        while time.monotonic() < ends:
            number = _forked(seeds, number, home / "work", totals, asked.keep)
    print(f"{'format':12} {'inputs':>9} {'refused':>9} {'findings':>9}")
    for fmt in sorted(totals.inputs):
        counts = totals.inputs[fmt], totals.refused[fmt], totals.findings[fmt]
        print(f"{fmt:12} {counts[0]:9,} {counts[1]:9,} {counts[2]:9,}")
    print(
        f"{'all':12} {totals.inputs.total():9,} {totals.refused.total():9,} "
        f"{totals.findings.total():9,}   inputs {asked.seed} to {number - 1}"
    )
    return int(totals.findings.total() > 0)


def _warm(seeds: list[Seed], work: Path) -> None:
    """Import what targets need once, before processes are forked."""
    from geo_io.errors import EarthgenError

    for fmt in sorted({seed.fmt for seed in seeds} - {"checkpoint", "weights"}):
        seed = next(each for each in seeds if each.fmt == fmt)
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(seed.folder, work)
        try:
            TARGETS[fmt](main_file(fmt, work, seed.changed))
        except EarthgenError:
            continue


def _forked(seeds: list[Seed], first: int, work: Path, totals: Totals, keep: Path) -> int:
    """Run a batch in a forked process; return the number of the next input."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            batch(seeds, first, work, writer)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        lines = [json.loads(line) for line in pipe]
    os.waitpid(child, 0)
    begun = [line for line in lines if "number" in line]
    ended = [line for line in lines if "result" in line]
    for number, about in enumerate(begun):
        totals.inputs[about["fmt"]] += 1
        result = ended[number] if number < len(ended) else {"result": "killed", "text": "a limit"}
        totals.refused[about["fmt"]] += result["result"] == "refused"
        if result["text"]:
            totals.findings[about["fmt"]] += 1
            place = keep / f"{about['fmt']}-{result['result']}-{about['number']}"
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(work, place)
            values = {"fmt": about["fmt"], "file": about["file"]}
            (place / "about.json").write_text(json.dumps(values) + "\n")
            print(f"{place}: {result['result']}\n{result['text']}", flush=True)
    return first + max(len(begun), 1)


if __name__ == "__main__":
    sys.exit(main())
