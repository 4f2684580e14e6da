"""The figures of a training by step: metrics.csv, and TensorBoard if it is installed."""

from __future__ import annotations

import csv
import importlib
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from earthgen.errors import TrainingError
from earthgen.files import replace_file
from geo_io.safety.access import require_plain_file
from geo_io.safety.damage import damaged_file

CSV = "metrics.csv"


class Log:
    """Rows of figures by step. New columns are added when they first appear.

    Parameters
    ----------
    folder : Path
        Folder of the part in the run.
    step : int
        Step of the checkpoint that the training continues from; rows of later steps are removed.
    tensorboard : bool
        Whether to write for TensorBoard too.
    """

    def __init__(self, folder: Path, step: int = 0, tensorboard: bool = True) -> None:
        self.path = folder / CSV
        self.columns: list[str] = ["step"]
        rows = read_log(self.path)
        kept = [row for row in rows if float(row["step"]) <= step]
        for row in kept:
            self.columns += [name for name in row if name not in self.columns]
        if rows:
            self._rewrite(kept)
        self.board = _board(folder, step) if tensorboard else None

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add a row. Floats are written so that they read back as the same bits."""
        row = {"step": step, **values}
        if set(row) - set(self.columns):
            rows = read_log(self.path)
            self.columns += [name for name in row if name not in self.columns]
            self._rewrite(rows)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns, restval="").writerow(
                {k: _text(v) for k, v in row.items()}
            )
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)

    def picture(self, step: int, name: str, pixels: Any) -> None:
        """Add an (h, w, 3) uint8 picture to TensorBoard."""
        if self.board is not None:
            self.board.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Close the files of TensorBoard."""
        if self.board is not None:
            self.board.close()

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
        replace_file(self.path.parent, self.path.name, text.getvalue().encode())


def read_log(path: Path) -> list[dict[str, str]]:
    """Return the rows of a metrics.csv, without a last row that is incomplete after a kill.

    Raises
    ------
    TrainingError
        If it holds anything but numbers.
    """
    if not path.exists():
        return []
    require_plain_file(path)
    remedy = "remove it: a run that continues begins it again"
    with damaged_file(f"{path} is damaged", remedy, TrainingError):
        text = path.read_text("utf-8")
        whole = text[: text.rfind("\n") + 1]
        rows = [row for row in csv.DictReader(io.StringIO(whole)) if row.get("step")]
        for row in rows:
            if not math.isfinite(float(row["step"])):
                raise ValueError(f"step {row['step'][:40]}")
            for value in row.values():
                float(value or 0)
    return rows


def series(rows: list[dict[str, str]], name: str) -> tuple[list[float], list[float]]:
    """Return steps and values of a column, for the rows that have a value."""
    pairs = [(float(row["step"]), float(row[name])) for row in rows if row.get(name)]
    return [step for step, _ in pairs], [value for _, value in pairs]


def _text(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))


def _board(folder: Path, step: int) -> Any:
    try:
        writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
    except ImportError:
        return None
    return writer(str(folder / "tensorboard"), purge_step=step)
