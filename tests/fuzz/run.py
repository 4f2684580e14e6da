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
import functools
import itertools
import json
import os
import random
import resource
import select
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
"""Limits for one input: CPU seconds, and bytes beyond what the process has when it begins."""

PATIENCE = 60
"""Seconds of silence after which a process is looked at: it may wait for ever."""

BATCH = 2000
"""Inputs that one process reads, before the next is forked."""

LEAK = 500_000_000
"""Bytes that a process may keep from one input to the next, before the next is forked."""

KEPT = 3
"""Findings that are kept of one place in the code."""

COST = {
    **dict.fromkeys(("osm",), 500),
    **dict.fromkeys(("las",), 300),
    **dict.fromkeys(("commands", "world", "world2"), 120),
    **dict.fromkeys(("dataset", "options", "train-run", "xarray"), 60),
    **dict.fromkeys(("csv", "gml", "shp"), 45),
    **dict.fromkeys(("asc", "dem", "fgb", "geojson", "gpkg", "kml", "scene", "sidecars"), 25),
    **dict.fromkeys(("parquet",), 10),
    **dict.fromkeys(("classes", "copc", "gltf", "laz", "obj", "region", "stl", "tiles3d"), 4),
    **dict.fromkeys(("cityjson", "picture", "vrt"), 3),
    **dict.fromkeys(("cityjsonl", "glb", "meshother"), 1),
}
"""CPU milliseconds of an input, about, of formats that take more than `CHEAP`. Each format gets the
same time, and as many inputs as that allows."""

CHEAP = 0.5
"""CPU milliseconds of an input of all other formats."""

PAGE = resource.getpagesize()

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
    """A sound file, or a case of the corpus, with the files beside it.

    Attributes
    ----------
    fmt : str
    changed : str
        The file, or the folder of files, that is damaged most often.
    files : dict of str to bytes
        Contents by path below the folder of the case.
    known : bool
        Whether it is a case of the corpus.
    """

    fmt: str
    changed: str
    files: dict[str, bytes]
    known: bool

    @property
    def content(self) -> bytes:
        """What `changed` holds; nothing of a folder."""
        return self.files.get(self.changed, b"")

    @functools.cached_property
    def folders(self) -> frozenset[str]:
        """Folders of the files, below the folder of the case."""
        return frozenset(parent.as_posix() for name in self.files for parent in Path(name).parents)


def seeds_of(folder: Path, only: str | None) -> list[Seed]:
    """Return the sound files that `write_seeds` made, and the corpus."""
    seeds = []
    for about in sorted([*folder.rglob("about.json"), *CORPUS.glob("*/about.json")]):
        values = json.loads(about.read_text())
        fmt, home = values["fmt"], about.parent
        known = fmt in TARGETS
        if fmt in (*WORLDS, "scene"):  # a case of the corpus is one file of it
            known = (home / values["file"]).is_dir()
        if known and only in (None, fmt):
            paths = [path for path in sorted(home.rglob("*")) if path.is_file() and path != about]
            files = {path.relative_to(home).as_posix(): path.read_bytes() for path in paths}
            seeds.append(Seed(fmt, values["file"], files, CORPUS in home.parents))
    return seeds


@dataclass(frozen=True)
class Choice:
    """Which seeds there are of each format.

    Attributes
    ----------
    fmts : list of str
    reach : list of float
        Sums of the weights of the formats up to each.
    every, sound : dict of str to list of int
        Numbers of all seeds of a format, and of those that are no known cases.
    """

    fmts: list[str]
    reach: list[float]
    every: dict[str, list[int]]
    sound: dict[str, list[int]]

    @staticmethod
    def of(seeds: list[Seed]) -> Choice:
        """Return the choice among seeds."""
        fmts = sorted({each.fmt for each in seeds})
        every: dict[str, list[int]] = {fmt: [] for fmt in fmts}
        sound: dict[str, list[int]] = {fmt: [] for fmt in fmts}
        for number, each in enumerate(seeds):
            every[each.fmt].append(number)
            if not each.known:
                sound[each.fmt].append(number)
        reach = list(itertools.accumulate(1 / COST.get(fmt, CHEAP) for fmt in fmts))
        return Choice(fmts, reach, every, sound)

    def draw(self, dice: random.Random) -> int:
        """Return the number of a seed of any format, a sound one twice as often as a known case."""
        fmt = dice.choices(self.fmts, cum_weights=self.reach)[0]
        sound = self.sound[fmt]
        return dice.choice(sound if sound and dice.random() < 2 / 3 else self.every[fmt])

    def others(self, fmt: str, dice: random.Random) -> list[int]:
        """Return the numbers of up to three seeds of a format."""
        every = self.every[fmt]
        return dice.sample(every, min(3, len(every)))


def restore(seed: Seed, folder: Path) -> None:
    """Make a folder hold the files of a seed and nothing else.

    Files that are as they were have the time 0, so that few are written.
    """
    missing = set(seed.files)
    if folder.is_dir():
        _clean(seed, missing, str(folder), "")
    for name in missing:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(seed.files[name])
        os.utime(path, ns=(0, 0))


def _clean(seed: Seed, missing: set[str], folder: str, under: str) -> None:
    """Remove what is not of a seed, or was changed, from a folder; what is left is not missing."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = f"{under}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                if name in seed.folders:
                    _clean(seed, missing, entry.path, f"{name}/")
                else:
                    shutil.rmtree(entry.path)
                continue
            if name in missing:
                about = entry.stat(follow_symlinks=False)
                if about.st_mtime_ns == 0 and about.st_size == len(seed.files[name]):
                    missing.remove(name)
                    continue
            os.unlink(entry.path)  # noqa: PTH108 - no object of a path for each file


def one(seed: Seed, dice: random.Random, work: Path, others: list[bytes]) -> Path:
    """Write a mutation of a seed into `work`, and return the file that a command would name."""
    restore(seed, work)
    files = list(seed.files)
    chosen = dice.choice(files) if dice.random() < 0.3 else seed.changed
    folder = chosen not in seed.files and (work / chosen).is_dir()
    if folder and seed.fmt in WORLDS and dice.random() < 0.3:
        damage_values(work / chosen, dice)
        return main_file(seed.fmt, work, seed.changed)
    if folder:  # a world or a scene: what describes its arrays as often as what is in them
        inside = [name for name in files if name.startswith(f"{chosen}/")]
        kinds = [[n for n in inside if n.endswith("zarr.json") == about] for about in (True, False)]
        chosen = dice.choice(dice.choice([kind for kind in kinds if kind]))
    if chosen not in seed.files:
        chosen = Path(seed.changed).name
    if chosen in seed.files:
        (work / chosen).write_bytes(mutated(seed.files[chosen], dice, others))
    return main_file(seed.fmt, work, seed.changed)


def batch(seeds: list[Seed], first: int, work: Path, out: int) -> None:
    """Read up to `BATCH` inputs; write a line of JSON about each to a pipe, in a forked process."""
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # GDAL's messages
    signal.signal(signal.SIGVTALRM, _too_slow)
    most = _memory()[1] + LEAK
    choice = Choice.of(seeds)
    with os.fdopen(out, "w") as pipe:
        for number in range(first, first + BATCH):
            dice = random.Random(number)
            chosen = choice.draw(dice)
            seed = seeds[chosen]
            near = [seeds[each].content for each in choice.others(seed.fmt, dice)]
            others = [content for content in near if content]
            path = one(seed, dice, work / str(chosen), others)
            pipe.write(json.dumps({"number": number, "seed": chosen}) + "\n")
            pipe.flush()
            about = read(seed.fmt, path)
            pipe.write(json.dumps(about) + "\n")
            pipe.flush()
            if about["text"] or _memory()[1] > most:
                return


class TooSlow(BaseException):
    """An input took more than `SECONDS`. No handler of errors in the code under test keeps it."""


def _too_slow(*_: object) -> None:
    raise TooSlow(f"more than {SECONDS} s")


def read(fmt: str, path: Path) -> dict[str, Any]:
    """Read one input within the limits; return its result, seconds, MB, and text of a finding."""
    from geo_io.errors import EarthgenError

    size, held = _memory()
    before = _peak()
    began = time.process_time()
    soft = size + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (soft, resource.RLIM_INFINITY))
    timers = {
        signal.ITIMER_VIRTUAL: SECONDS,
        signal.ITIMER_PROF: 2 * SECONDS,  # ends the process, also within a library
    }
    for timer, seconds in timers.items():
        signal.setitimer(timer, seconds)
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
    for timer in timers:
        signal.setitimer(timer, 0)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    took, peak = time.process_time() - began, _peak()
    # A peak below that of an earlier input is not seen: that one was within the limit.
    grown = peak - held if peak > before else 0
    if not text and grown > MEMORY:
        result, text = "memory", f"{grown / 1e6:.0f} MB"
    return {"result": result, "text": text, "place": place, "s": took, "mb": grown / 1e6}


def _memory() -> tuple[int, int]:
    """Return the addresses and the memory that this process has now, bytes."""
    with open("/proc/self/statm", "rb", 0) as file:  # noqa: PTH123 - faster
        size, held = file.read(64).split()[:2]
    return int(size) * PAGE, int(held) * PAGE


def _peak() -> int:
    """Return the most memory that this process ever had, bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


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
    memory = Path("/dev/shm")  # where many small files are fast
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="earthgen-fuzz-", dir=place) as folder:
        home = Path(folder)
        os.environ["EARTHGEN_CACHE"] = str(home / "cache")
        write_seeds(home / "seeds", asked.format)
        seeds = seeds_of(home / "seeds", asked.format)
        _warm(seeds, home / "work")
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
        number, seed = next((n, each) for n, each in enumerate(seeds) if each.fmt == fmt)
        folder = work / str(number)
        restore(seed, folder)
        try:
            TARGETS[fmt](main_file(fmt, folder, seed.changed))
        except EarthgenError:
            continue


def _waits(child: int) -> bool:
    """Return whether a process waits for what never comes; one that has no core does not."""
    for _ in range(20):
        state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        if state not in "SD":
            return False
        time.sleep(0.1)
    return True


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
    text = bytearray()
    with os.fdopen(reader, "rb", 0) as pipe:
        while True:
            if not select.select([pipe], [], [], PATIENCE)[0]:
                if _waits(child):
                    os.kill(child, signal.SIGKILL)
                continue
            piece = pipe.read(2**16)
            if not piece:
                break
            text += piece
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    lines = [json.loads(line) for line in text.splitlines()]
    begun = [line for line in lines if "number" in line]
    ended = [line for line in lines if "result" in line]
    for number, about in enumerate(begun):
        seed = seeds[about["seed"]]
        fmt = seed.fmt
        totals.inputs[fmt] += 1
        if number < len(ended):
            result = ended[number]
            totals.slowest[fmt] = round(max(totals.slowest.get(fmt, 0), result["s"]), 3)
            totals.largest[fmt] = round(max(totals.largest.get(fmt, 0), result["mb"]))
        else:
            name = signal.Signals(-code).name if code < 0 else f"exit {code}"
            result = {"result": "killed", "text": f"ended by {name}", "place": ""}
        totals.refused[fmt] += result["result"] == "refused"
        if result["text"]:
            totals.findings[fmt] += 1
            what = f"{fmt}-{result['result']}@{result['place']}"
            totals.places[what] += 1
            if totals.places[what] > KEPT:
                continue
            place = keep / f"{what}-{about['number']}"
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(work / str(about["seed"]), place, symlinks=True)
            values = {"fmt": fmt, "file": seed.changed}
            (place / "about.json").write_text(json.dumps(values) + "\n")
            print(f"{place}: {result['result']}\n{result['text']}", flush=True)
    return first + max(len(begun), 1)


if __name__ == "__main__":
    sys.exit(main())
