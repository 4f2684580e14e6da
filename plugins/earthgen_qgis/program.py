"""Runs the earthgen program: its own Python, JSON lines of progress, errors as sentences.

Only the standard library is used, so that this also runs outside QGIS.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

PACKAGED = HERE / "product.json"
"""What `earthgen qgis package` knew: the program's command, version and formats."""

OF_QGIS = (
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONEXECUTABLE",
    "GDAL_DATA",
    "GDAL_DRIVER_PATH",
    "PROJ_LIB",
    "PROJ_DATA",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
)
"""Variables that QGIS sets for its own Python and libraries, and that would mislead another's."""

STEP = {"generate": "tiles made", "read": "read", "plan": "planned"}


class ProgramError(RuntimeError):
    """The program failed, or is not there; the text says what is wrong and what to do."""


class Canceled(Exception):
    """The user has canceled."""


def packaged() -> dict[str, Any]:
    """Return what was known when the plugin was packaged; empty if nothing was."""
    try:
        with PACKAGED.open(encoding="utf-8") as file:
            known = json.load(file)
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def find_command(setting: str = "") -> list[str]:
    """Return the words that start earthgen.

    The first of: the plugin's setting, the environment variable EARTHGEN, the program that packaged
    this plugin, `earthgen` on the search path.

    Parameters
    ----------
    setting : str
        What the user wrote in the options of Processing: the `earthgen` command, or the Python in
        which it is installed.

    Raises
    ------
    ProgramError
        If there is none.
    """
    for given in (setting.strip(), os.environ.get("EARTHGEN", "").strip()):
        if given:
            return command_of(given)
    words = packaged().get("command")
    if isinstance(words, list) and words and shutil.which(str(words[0])):
        return [str(word) for word in words]
    found = shutil.which("earthgen")
    if found:
        return [found]
    raise ProgramError(
        "the earthgen program was not found. Write the path of the earthgen command, or of the "
        "Python in which it is installed, into Settings > Options > Processing > Providers > "
        "earthgen."
    )


def command_of(given: str) -> list[str]:
    """Return the words for a command or Python that a user has given.

    Raises
    ------
    ProgramError
        If it is not a program.
    """
    words = [given] if shutil.which(given) else shlex.split(given, posix=os.name != "nt")
    words = [word.strip('"') for word in words]
    if not words or not shutil.which(words[0]):
        raise ProgramError(
            f"{given} is not a program. Write the path of the earthgen command, or of the Python "
            "in which it is installed, into Settings > Options > Processing > Providers > earthgen."
        )
    if len(words) == 1 and Path(words[0]).stem.lower().startswith(("python", "pypy")):
        # -I keeps QGIS's folders and the user's packages out of its search path.
        return [words[0], "-I", "-m", "earthgen_cli"]
    return words


def clean_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment without the variables that QGIS sets for itself."""
    given = os.environ if environment is None else environment
    return {name: value for name, value in given.items() if name.upper() not in OF_QGIS}


def run(
    command: Sequence[str],
    arguments: Iterable[str],
    *,
    on_progress: Callable[[float, str], None] = lambda part, text: None,
    on_line: Callable[[str], None] = lambda line: None,
    is_canceled: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Run a command of earthgen and return the JSON object that it prints.

    Parameters
    ----------
    command : sequence of str
        Of `find_command`.
    arguments : iterable of str
        Without --json and --progress.
    on_progress : callable
        Told the finished part, 0 to 1, and what was done.
    on_line : callable
        Told warnings and messages.
    is_canceled : callable
        Asked several times a second; if it says so, the program is ended as by Ctrl-C, which leaves
        valid files.

    Raises
    ------
    ProgramError
        If the program fails.
    Canceled
        If the user canceled.
    """
    words = [*command, *arguments, "--json", "--progress", "json"]
    flags = {"creationflags": 0x08000200} if os.name == "nt" else {}  # no window, own Ctrl-C group
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=clean_environment(),
            **flags,  # type: ignore[call-overload]
        )
    except OSError as error:
        raise ProgramError(f"{words[0]} cannot be started: {error}.") from error
    output: list[str] = []
    events: deque[str] = deque()
    readers = [
        threading.Thread(target=lambda: output.append(process.stdout.read()), daemon=True),
        threading.Thread(target=lambda: events.extend(process.stderr), daemon=True),
    ]
    for reader in readers:
        reader.start()
    last: list[str] = []
    stopping = False
    while True:
        ended = process.poll() is not None
        if ended:
            for index, pipe in enumerate((process.stdout, process.stderr)):
                readers[index].join(10)
                if not readers[index].is_alive():  # a worker that outlives the program holds it
                    pipe.close()
        while events:
            handle_line(events.popleft().strip(), last, on_progress, on_line)
        if ended:
            break
        if is_canceled() and not stopping:
            stopping = True
            stop(process)
        # Waits, and wakes up when the process ends.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    if stopping:
        raise Canceled
    if process.returncode:
        raise ProgramError(sentence_of(last, process.returncode))
    text = "".join(output).strip()
    try:
        answer = json.loads(text) if text else {}
    except ValueError as error:
        raise ProgramError(f"the answer of earthgen is not understood: {text[:200]}") from error
    return answer if isinstance(answer, dict) else {"answer": answer}


def handle_line(
    line: str,
    last: list[str],
    on_progress: Callable[[float, str], None],
    on_line: Callable[[str], None],
) -> None:
    """Tell one line of stderr to whom it concerns; lines that are no events collect in `last`."""
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        if line:
            last.append(line)
            del last[:-20]
        return
    kind = event.get("event")
    if "error" in event:
        last.append(line)
    elif kind == "progress" and event.get("total"):
        part = min(max(event["done"] / event["total"], 0.0), 1.0)
        what = STEP.get(event.get("task", ""), event.get("task", ""))
        region = f"{event['region']}: " if event.get("region") else ""
        on_progress(part, f"{region}{event['done']} of {event['total']} {what}".strip())
    elif kind in ("warning", "message"):
        on_line(str(event.get(kind, "")))


def sentence_of(lines: Sequence[str], code: int) -> str:
    """Return the sentences of an error: what is wrong, and what to do."""
    for line in reversed(lines):
        try:
            error = json.loads(line)
        except ValueError:
            continue
        if isinstance(error, dict) and "error" in error:
            parts = (str(error["error"]), str(error.get("remedy") or ""))
            return " ".join(sentence(part) for part in parts if part)
    if lines:
        return f"earthgen failed (exit code {code}): {lines[-1]}"
    return f"earthgen failed with exit code {code} and said nothing."


def sentence(text: str) -> str:
    """Return text with a capital letter and a full stop."""
    text = text.strip()
    if text.split(" ", 1)[0].isalpha():  # a path or an option keeps its spelling
        text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def stop(process: subprocess.Popen[str]) -> None:
    """End the program as Ctrl-C does, so that what it has written stays valid."""
    try:
        if os.name == "nt":
            process.send_signal(signal.CTRL_BREAK_EVENT)  # type: ignore[attr-defined]
        else:
            process.send_signal(signal.SIGINT)
    except OSError:
        return
    threading.Thread(target=_make_sure, args=(process,), daemon=True).start()


def _make_sure(process: subprocess.Popen[str], patience: float = 20.0) -> None:
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
