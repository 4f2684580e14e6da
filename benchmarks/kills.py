"""Each command that writes, killed (`kill -9`) at random moments and called again.

    python -m benchmarks kills [--kills 3] [--only NAME ...] [--markdown]

After a kill there must be nothing under the final name, what was there before, all of the new, or a
world that `--resume` finishes; after the next call the result of a call that nothing disturbed, and
no hidden file. The place has 128 m. Moments are drawn from the CPU time of an undisturbed call, so
that they fall into the work on a busy machine too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.machine import describe

BOX = "684000,5539808,684128,5539936"
WIDER = "684000,5539808,684160,5539936"
PLACE = ["--bbox-crs", "EPSG:32632", "--crs", "EPSG:32632", "--voxel-size", "1", "--quiet"]
TILES = ["--tile-size", "64", "--workers", "1"]


@dataclass(frozen=True)
class Command:
    """A command that writes.

    Attributes
    ----------
    words : list of str
        With {base} for a finished world, {data} for a dataset, and {out} for where it writes.
    again : list of str
        What is added when it is called again.
    from_base : str
        What lies at {out} before: "" for nothing, "base" for the world, "data" for the dataset.
    """

    words: list[str]
    again: list[str]
    from_base: str = ""


def generate(box: str, *more: str) -> list[str]:
    """Return the words that generate a world."""
    return ["generate", f"--bbox={box}", *PLACE, *TILES, "--out", "{out}", *more]


LICENCE = ["--licence", "CC0-1.0", "--grade", "A", "--quiet"]
OVER = ["--overwrite"]
WORLD = ["{base}", "--quiet", "--out"]

COMMANDS: dict[str, Command] = {
    "generate": Command(generate(BOX), ["--resume"]),
    "generate --extend": Command(generate(WIDER, "--extend"), [], "base"),
    "generate --overwrite": Command(generate(BOX, "--seed", "2", *OVER), [], "base"),
    "batch": Command(
        ["batch", "--grid", "64", f"--bbox={BOX}", *PLACE, *TILES, "--out-dir", "{out}"],
        ["--resume"],
    ),
    "export --format 3dtiles": Command(["export", "--format", "3dtiles", *WORLD, "{out}"], OVER),
    "export --format cog": Command(["export", "--format", "cog", *WORLD, "{out}"], OVER),
    "export --format gpkg": Command(["export", "--format", "gpkg", *WORLD, "{out}"], OVER),
    "preview": Command(["preview", *WORLD, "{out}/a.png", "--renderer", "zbuffer"], OVER),
    "render": Command(["render", *WORLD, "{out}/a.tif", "--ortho", "2"], OVER),
    "compare": Command(["compare", "{base}", "{base}", "--quiet", "--out", "{out}"], OVER),
    "dataset build": Command(
        ["dataset", "build", "--world", "{base}", "--name", "a", *LICENCE, "--out", "{out}"],
        [],
    ),
    "dataset split": Command(["dataset", "split", "{out}", "--quiet"], [], "data"),
    "train": Command(
        ["train", "struct-vae", "--data", "{data}", "--out", "{out}", "--steps", "3", "--quiet"],
        ["--resume"],
    ),
}


NEED_DATA = {"dataset split", "train"}
"""Commands that need a dataset."""

MANY = ("batch", "train")
"""Commands whose results appear one after the other."""


def call(words: Sequence[str]) -> list[str]:
    """Return the command line."""
    return [sys.executable, "-m", "earthgen_cli", *words]


def state(out: Path) -> Any:
    """Return what lies at a place: names and, of a world, its digest; None for nothing visible."""
    from earthgen.world.store import open_store
    from geo_io.errors import EarthgenError

    if (out / "zarr.json").exists() and "earthgen_scene" not in (out / "zarr.json").read_text():
        try:
            store = open_store(out)
            done = len(store.finished_tiles())
            return "world", done == len(list(store.frame.tiles(store.tile_size))), store.digest()
        except EarthgenError as error:
            return "no world", str(error)
    names = sorted(
        path.relative_to(out).as_posix()
        for path in out.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(out).parts)
    )
    if not names:
        return None
    worlds = sorted({name.partition("/")[0] for name in names if ".zarr/" in name})
    plain = [name for name in names if name.partition("/")[0] not in worlds]
    return plain, [(name, state(out / name)) for name in worlds]


def hidden(folder: Path) -> list[str]:
    """Return what is left of unfinished work, beside a place or in it."""
    found = [path for path in folder.rglob(".*") if "index" not in path.parts[:-1]]
    found += list(folder.rglob("*.partial"))
    found += [path for path in folder.rglob(".stages") if any(path.iterdir())]
    return [path.relative_to(folder).as_posix() for path in found]


def trial(
    command: Command, fill: Callable[[Path], dict[str, str]], home: Path, most: float = math.inf
) -> tuple[int, float, Path]:
    """Call a command in a new folder, and kill it after `most` seconds of CPU time.

    Returns
    -------
    code : int
    seconds : float
        CPU time that it took.
    out : Path
    """
    home.mkdir(parents=True)
    out = home / "out"
    names = fill(out)
    if command.from_base:
        shutil.copytree(names[command.from_base], out)
    words = [word.format(**names) for word in command.words]
    seconds = 0.0
    with subprocess.Popen(call(words), stdout=subprocess.DEVNULL, stderr=sys.stderr) as child:
        process = psutil.Process(child.pid)
        while child.poll() is None:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                seconds = max(seconds, times.user + times.system)
            if seconds >= most:
                child.kill()
            time.sleep(0.01)
    return child.returncode, seconds, out


def measure(
    name: str, fill: Callable[[Path], dict[str, str]], folder: Path, kills: int, dice: random.Random
) -> dict[str, Any]:
    """Return what is there after kills of a command, and after the call that follows."""
    command = COMMANDS[name]
    code, seconds, out = trial(command, fill, folder / f"{name}-whole")
    if code:
        raise SystemExit(f"{name} ended with {code}")
    whole, kept = state(out), set(hidden(out.parent))
    after: Counter[str] = Counter()
    same = left = 0
    codes: Counter[int] = Counter()
    for number in range(kills):
        home = folder / f"{name}-{number}"
        _, _, out = trial(command, fill, home, dice.uniform(0.4, 1.0) * seconds)
        found = state(out)
        names = fill(out)
        old = state(Path(names[command.from_base])) if command.from_base else None
        if found == whole:
            what = "all of the new"
        elif found == old:
            what = "as before" if command.from_base else "nothing"
        elif found and (found[0] == "world" or (name in MANY and "no world" not in str(found))):
            what = "unfinished, to resume"
        else:
            what = f"IN PIECES: {found}"
        after[what] += 1
        words = [word.format(**names) for word in command.words]
        more = command.again if (found is not None or "--resume" in command.again) else []
        done = subprocess.run(call([*words, *more]), capture_output=True, text=True)
        codes[done.returncode] += 1
        same += state(out) == whole
        left += bool(set(hidden(home)) - kept)
    return {
        "cpu_s": round(seconds, 1),
        "kills": kills,
        "after": dict(after),
        "codes_of_the_next_call": dict(codes),
        "same_in_the_end": same,
        "leftovers_in_the_end": left,
    }


def main(words: Sequence[str] | None = None) -> int:
    """Print the table; the exit code is 1 if something was left in pieces."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=3, help="of each command")
    parser.add_argument("--only", action="append", choices=list(COMMANDS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--markdown", action="store_true", help="a table for the documentation")
    asked = parser.parse_args(words)
    dice = random.Random(asked.seed)
    rows = {}
    with tempfile.TemporaryDirectory(prefix="earthgen-kills-") as temporary:
        folder = Path(temporary)
        base, data = folder / "base.zarr", folder / "data"
        make = [word.format(out=base) for word in generate(BOX)]
        subprocess.run(call(make), check=True)
        chosen = asked.only or list(COMMANDS)
        if not NEED_DATA.isdisjoint(chosen):
            build = COMMANDS["dataset build"].words
            subprocess.run(call([word.format(base=base, out=data) for word in build]), check=True)

        def fill(out: Path) -> dict[str, str]:
            return {"base": str(base), "data": str(data), "out": str(out)}

        for name in chosen:
            rows[name] = measure(name, fill, folder, asked.kills, dice)
            print(name, rows[name], file=sys.stderr, flush=True)
    if asked.markdown:
        head = ("command", "kills", "found after them", "same in the end", "leftovers")
        print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
        for name, row in rows.items():
            after = ", ".join(f"{what} {n}" for what, n in sorted(row["after"].items()))
            end = f"{row['same_in_the_end']} of {row['kills']}"
            print(
                f"| `{name}` | {row['kills']} | {after} | {end} | {row['leftovers_in_the_end']} |"
            )
    else:
        print(json.dumps({"machine": describe(), "commands": rows}, indent=1))
    bad = [
        name
        for name, row in rows.items()
        if row["same_in_the_end"] < row["kills"] or any("PIECES" in what for what in row["after"])
    ]
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
