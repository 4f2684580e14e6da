"""The cases of users: data, a command, and the right value, beside the checkout."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from earthgen_cli.main import main

CASES = Path(__file__).parents[2].parent / "shared" / "cases"

PLACE = re.compile(r"^(\S+): ground (\S+)  above ground (\S+)  (\w+)", re.MULTILINE)
AREA = re.compile(r"'(\w+)': (\d+)")


@dataclass
class Place:
    """What a world has at a place: metres, and the name of a class."""

    ground: float
    above: float
    cover: str


@dataclass
class Outcome:
    """What the commands of a case did.

    Attributes
    ----------
    folder : Path
        A copy of the case, in which they ran.
    codes : list of int
        Their exit codes.
    text : str
        All that was printed.
    places : list of Place
        What the world has at the places that the case names, in their order.
    areas : dict
        Square metres by class, if the case asks for them.
    """

    folder: Path
    codes: list[int] = field(default_factory=list)
    text: str = ""
    places: list[Place] = field(default_factory=list)
    areas: dict[str, int] = field(default_factory=dict)

    @property
    def warnings(self) -> list[str]:
        """The warnings that were printed."""
        return [
            line.removeprefix("warning: ")
            for line in self.text.splitlines()
            if line.startswith("warning: ")
        ]


Run = Callable[..., Outcome]
"""Runs the command of a case, by its name, with further words."""


def run_case(
    name: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *more: str,
) -> Outcome:
    """Run the commands of a case in a copy of its folder, and measure the world.

    Parameters
    ----------
    name : str
        The case.
    folder : Path
        An empty folder.
    monkeypatch, capsys
        pytest's fixtures.
    *more : str
        Words to add to each command of earthgen.
    """
    if not (CASES / "users" / name).is_dir():
        pytest.skip("the cases of users are not beside this checkout")
    copy = folder / name
    shutil.copytree(CASES / "users" / name, copy)
    monkeypatch.chdir(copy)
    outcome = Outcome(copy)
    for line in (copy / "cmd.sh").read_text("utf-8").splitlines():
        if not line.startswith(("earthgen ", 'python "$here')):
            continue
        words = shlex.split(line.partition(";")[0])
        if words[0] == "earthgen":
            capsys.readouterr()
            outcome.codes.append(main([*words[1:], *more]))
            printed = capsys.readouterr()
            outcome.text += printed.out + printed.err
        elif not any(outcome.codes):
            monkeypatch.setattr(sys, "argv", ["measure.py", *words[2:]])
            runpy.run_path(str(CASES / "measure.py"))
            printed = capsys.readouterr()
            outcome.places = [
                Place(float(ground), float(above), cover)
                for _, ground, above, cover in PLACE.findall(printed.out)
            ]
            areas = next((row for row in printed.out.splitlines() if row.startswith("areas")), "")
            outcome.areas = {cover: int(size) for cover, size in AREA.findall(areas)}
    return outcome
