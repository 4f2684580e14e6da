"""`make demo`: generate a world of a real place from examples/data, export it and draw it.

A part of it is made again by the learned backends, to compare. It runs the commands that a user
would type, and prints each.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUT = ROOT / "demo-output"
DATA = ROOT / "examples" / "data"
BOX = "11.5858,50.0018,11.6056,50.0144"
PART = "11.5915,50.0055,11.5945,50.0073"
"""About 200 m x 200 m in the middle, for what takes longer."""


def run(*arguments: str | Path) -> None:
    """Print an `earthgen` command and run it."""
    words = [str(argument) for argument in arguments]
    shown = [
        str(Path(word).relative_to(ROOT)) if word.startswith(str(ROOT)) else word for word in words
    ]
    print("\n$ earthgen", shlex.join(shown), flush=True)
    subprocess.run([sys.executable, "-m", "earthgen_cli", *words], check=True)


def generate(box: str, out: Path, *options: str) -> None:
    """Generate the world of a box, W,S,E,N degrees, from the demo's data."""
    run(
        "generate",
        "--bbox",
        box,
        "--semantics",
        DATA / "landuse.shp",
        "--semantics",
        f"{DATA / 'osm.gpkg'}:lines",
        "--semantics",
        f"{DATA / 'osm.gpkg'}:buildings",
        "--dem",
        DATA / "srtm3.tif",
        "--attribution",
        "© OpenStreetMap contributors (ODbL 1.0); SRTM, NASA/USGS (public domain)",
        *options,
        "--out",
        out,
    )


def main() -> None:
    """Make the world, its pictures and its exports in demo-output/."""
    began = time.monotonic()
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    world = OUT / "world.zarr"
    generate(BOX, world)
    run("info", world)
    for view in ("top", "oblique"):
        run("preview", world, "--view", view, "--out", OUT / f"{view}.png")
    run("export", world, "--format", "cog", "--out", OUT / "cog")
    run("export", world, "--format", "ply", "--out", OUT / "ply", "--level", "2")
    run("export", world, "--format", "glb", "--out", OUT / "glb", "--level", "4")
    for name, backends in (("rules", ()), ("learned", ("--learned",))):
        part = OUT / f"part-{name}.zarr"
        generate(PART, part, *backends)
        run("preview", part, "--view", "oblique", "--out", OUT / f"part-{name}.png")
    print(f"\nDone in {time.monotonic() - began:.0f} s. Look at:")
    for path in sorted(OUT.rglob("*")):
        if path.is_file() and not any(each.suffix == ".zarr" for each in path.parents):
            print(f"  {path.relative_to(ROOT)}  {path.stat().st_size / 1e6:.1f} MB")
    print(f"  {world.relative_to(ROOT)}  the world: earthgen.open_world, xarray.open_zarr")
    print("Data: © OpenStreetMap contributors (ODbL 1.0); SRTM, NASA/USGS (public domain).")


if __name__ == "__main__":
    main()
