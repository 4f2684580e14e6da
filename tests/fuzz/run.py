"""The fuzzer: damaged files of all formats, until the time is over.

    python -m tests.fuzz.run --seconds 60 [--format glb] [--seed 7] [--keep FOLDER] [--counts FILE]

Each input is read in a forked process with a limit on time and memory. An input that ends in
anything but success or an error of earthgen is a finding, and so is an error behind which memory
ran out: it is kept, its place in the code printed, and the exit code is 1. To make a finding part
of the tests, copy its folder to tests/fuzz/corpus. With `--counts`, a run goes on where the one
before stopped, and the table is that of all of them.
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
from typing import Any

from tests.fuzz.mutate import mutated
from tests.fuzz.seeds import write_seeds
from tests.fuzz.targets import TARGETS, WORLDS, main_file
from tests.fuzz.world_damage import damage_values

SECONDS, MEMORY = 10, 1_000_000_000
"""Limits for one input: CPU seconds, and bytes beyond what the process has at its start."""

BATCH = 50
"""Inputs that one process reads, before the next is forked."""

KEPT = 3
"""Findings that are kept of one place in the code."""

SLOW = {"copc", "dataset", "las", "laz", "options", "scene", "train-run", *WORLDS}
"""Formats of many files, or read by many steps: they come up a third as often as others."""

CORPUS = Path(__file__).parent / "corpus"


@dataclass
class Totals:
    """Counts by format, of one run or of several.

    Attributes
    ----------
    next : int
        Number of the next input.
    inputs, refused, findings : Counter
    slowest, largest : dict
        CPU seconds, and MB of memory, of the worst input.
    places : Counter
        Findings by what and where they are.
    """

    next: int = 1
    inputs: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)
    slowest: dict[str, float] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)
    places: Counter[str] = field(default_factory=Counter)

    @staticmethod
    def load(path: Path) -> Totals:
        """Return the counts of the runs before."""
        values = json.loads(path.read_text())
        counters = ("inputs", "refused", "findings", "places")
        return Totals(**{k: Counter(v) if k in counters else v for k, v in values.items()})

    def save(self, path: Path) -> None:
        """Write the counts in one step."""
        part = path.with_name(f".{path.name}.partial")
        part.write_text(json.dumps(vars(self), indent=1, sort_keys=True))
        part.replace(path)

    def table(self) -> str:
        """Return the counts as text."""
        lines = [f"{'format':12}{'inputs':>10}{'refused':>10}{'findings':>9}{'s':>7}{'MB':>6}"]
        for fmt in sorted(self.inputs):
            lines.append(
                f"{fmt:12}{self.inputs[fmt]:10,}{self.refused[fmt]:10,}{self.findings[fmt]:9,}"
                f"{self.slowest.get(fmt, 0):7.1f}{self.largest.get(fmt, 0):6.0f}"
            )
        lines.append(
            f"{'all':12}{self.inputs.total():10,}{self.refused.total():10,}"
            f"{self.findings.total():9,}{max(self.slowest.values(), default=0):7.1f}"
            f"{max(self.largest.values(), default=0):6.0f}"
        )
        return "\n".join(lines)


@dataclass(frozen=True)
class Seed:
    """A sound file, or a case of the corpus, with the files beside it."""

    fmt: str
    folder: Path
    changed: str


def seeds_of(folder: Path, only: str | None) -> list[Seed]:
    """Return the sound files that `write_seeds` made, and the corpus."""
    seeds = []
    for about in sorted([*folder.rglob("about.json"), *CORPUS.glob("*/about.json")]):
        values = json.loads(about.read_text())
        known = values["fmt"] in TARGETS
        if values["fmt"] in (*WORLDS, "scene"):  # a case of the corpus is one file of it
            known = (about.parent / values["file"]).is_dir()
        if known and only in (None, values["fmt"]):
            seeds.append(Seed(values["fmt"], about.parent, values["file"]))
    return seeds


def _chosen(seeds: list[Seed], dice: random.Random) -> Seed:
    """Return a seed of any format, a sound one twice as often as a case of the corpus."""
    fmts = sorted({each.fmt for each in seeds})
    fmt = dice.choices(fmts, [1 if each in SLOW else 3 for each in fmts])[0]
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
    if seed.fmt in WORLDS and chosen.is_dir() and dice.random() < 0.3:
        damage_values(chosen, dice)
        return main_file(seed.fmt, work, seed.changed)
    if chosen.is_dir():  # a world or a scene: what describes its arrays as often as what is in them
        inside = [name for name in files if chosen in (work / name).parents]
        kinds = [[n for n in inside if (n.name == "zarr.json") == about] for about in (True, False)]
        chosen = work / dice.choice(dice.choice([kind for kind in kinds if kind]))
    if not chosen.is_file():
        chosen = work / Path(seed.changed).name
    if chosen.is_file():
        chosen.write_bytes(mutated(chosen.read_bytes(), dice, others))
    return main_file(seed.fmt, work, seed.changed)


def batch(seeds: list[Seed], first: int, work: Path, out: int) -> None:
    """Read `BATCH` inputs; write a line of JSON about each to a pipe. Runs in a forked process."""
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
            about = read(seed.fmt, path)
            pipe.write(json.dumps(about) + "\n")
            pipe.flush()
            if about["text"]:
                return


def read(fmt: str, path: Path) -> dict[str, Any]:
    """Read one input within the limits; return its result, seconds, MB, and text of a finding."""
    from geo_io.errors import EarthgenError

    before = _peak(reset=True)
    began = time.process_time()
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, 60 * SECONDS)  # waits for what never comes
    result, text, place = "read", "", ""
    try:
        TARGETS[fmt](path)
    except EarthgenError as error:
        result = "refused"
        if any(isinstance(cause, MemoryError) for cause in _causes(error)):
            result, place = "memory", _place(_causes(error)[-1])
            text = "".join(traceback.format_exception(error))[-1500:]
    except BaseException as error:  # noqa: BLE001 - this is what is looked for
        result, place = type(error).__name__, _place(error)
        text = "".join(traceback.format_exception(error)[-4:])[-1500:]
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    seconds, grown = time.process_time() - began, _peak() - before
    if not text and grown > MEMORY:
        result, text = "memory", f"{grown / 1e6:.0f} MB"
    return {"result": result, "text": text, "place": place, "s": seconds, "mb": grown / 1e6}


def _peak(reset: bool = False) -> int:
    """Return the most memory that this process had since the last reset, bytes."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def _causes(error: BaseException) -> list[BaseException]:
    found = [error]
    while (cause := found[-1].__cause__ or found[-1].__context__) and cause not in found:
        found.append(cause)
    return found


def _place(error: BaseException) -> str:
    """Return the innermost line of the project that an error passed through."""
    home = Path(__file__).parents[2]
    lines = [
        f"{Path(frame.filename).name}-{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if home in Path(frame.filename).parents
        and not {".venv", "fuzz"} & set(Path(frame.filename).relative_to(home).parts)
    ]
    return lines[-1] if lines else ""


def main(words: list[str] | None = None) -> int:
    """Run the fuzzer, and return the number of findings, at most 1."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.fuzz.run")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--format", choices=sorted(TARGETS))
    parser.add_argument("--seed", type=int, help="number of the first input; 1 by default")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--counts", type=Path, help="go on with the counts of this file")
    asked = parser.parse_args(words)
    totals = Totals()
    if asked.counts is not None and asked.counts.exists():
        totals = Totals.load(asked.counts)
    totals.next = first = totals.next if asked.seed is None else asked.seed
    before = totals.findings.total()
    with tempfile.TemporaryDirectory(prefix="earthgen-fuzz-") as folder:
        home = Path(folder)
        os.environ["EARTHGEN_CACHE"] = str(home / "cache")
        write_seeds(home / "seeds", asked.format)
        seeds = seeds_of(home / "seeds", asked.format)
        _warm(seeds, home / "warm")
        ends = time.monotonic() + asked.seconds
        while time.monotonic() < ends:
            totals.next = _forked(seeds, totals.next, home / "work", totals, asked.keep)
            if asked.counts is not None:
                totals.save(asked.counts)
            shutil.rmtree(home / "cache", ignore_errors=True)
    print(totals.table())
    print(f"inputs {first} to {totals.next - 1}")
    return int(totals.findings.total() > before)


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
        fmt = about["fmt"]
        totals.inputs[fmt] += 1
        if number < len(ended):
            result = ended[number]
            totals.slowest[fmt] = round(max(totals.slowest.get(fmt, 0), result["s"]), 3)
            totals.largest[fmt] = round(max(totals.largest.get(fmt, 0), result["mb"]))
        else:
            result = {"result": "killed", "text": "a limit", "place": ""}
        totals.refused[fmt] += result["result"] == "refused"
        if result["text"]:
            totals.findings[fmt] += 1
            what = f"{fmt}-{result['result']}@{result['place']}"
            totals.places[what] += 1
            if totals.places[what] > KEPT:
                continue
            place = keep / f"{what}-{about['number']}"
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(work, place, symlinks=True)
            values = {"fmt": fmt, "file": about["file"]}
            (place / "about.json").write_text(json.dumps(values) + "\n")
            print(f"{place}: {result['result']}\n{result['text']}", flush=True)
    return first + max(len(begun), 1)


if __name__ == "__main__":
    sys.exit(main())
