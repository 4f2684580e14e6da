"""Output appears when it is complete, and replaces nothing unasked."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from earthgen.errors import StoreError, StoreExistsError, StoreFullError
from earthgen.staging import publish, staged_file, staged_folder, staging_folder


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_file_gets_its_name_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "town.copc.laz"
    with staged_file(out) as part:
        assert part.name == out.name and not out.exists()
        part.write_text("points")
    assert out.read_text() == "points" and names(tmp_path) == ["deep", "deep/town.copc.laz"]
    with pytest.raises(StoreExistsError, match=r"exists already.*`overwrite`"), staged_file(out):
        raise AssertionError("the work begins although the file exists")
    with staged_file(out, overwrite=True) as part:
        part.write_text("more")
    assert out.read_text() == "more"
    with pytest.raises(StoreExistsError, match="is a folder"), staged_file(out.parent):
        pass


@pytest.mark.parametrize("error", [ValueError("wrong"), KeyboardInterrupt()])
def test_what_was_there_stays_if_the_work_ends_early(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(type(error)), staged_file(tmp_path / "a.txt", overwrite=True) as part:
        part.write_text("half")
        raise error
    with pytest.raises(type(error)), staged_folder(tmp_path / "set") as folder:
        (folder / "b.txt").write_text("half")
        raise error
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


def test_a_folder_keeps_what_is_not_of_the_output(tmp_path: Path) -> None:
    out = tmp_path / "set"
    with staged_folder(out) as folder:
        (folder / "tiles").mkdir()
        (folder / "tiles" / "1.bin").write_text("1")
        (folder / "top.json").write_text("{}")
    (out / "mine.txt").write_text("mine")
    with pytest.raises(StoreExistsError, match="not empty"), staged_folder(out):
        pass
    with (
        pytest.raises(StoreExistsError, match="tiles is a folder that is not of this output"),
        staged_folder(out, overwrite=True) as folder,
    ):
        (folder / "tiles").mkdir()
    with staged_folder(out, overwrite=True, earlier=["tiles", "top.json", "../set"]) as folder:
        (folder / "tiles").mkdir()
        (folder / "tiles" / "2.bin").write_text("2")
    assert names(out) == ["mine.txt", "tiles", "tiles/2.bin"]


def test_work_that_can_be_continued_keeps_its_folder(tmp_path: Path) -> None:
    out = tmp_path / "big"
    work = {"format": "tiles", "bounds": (0, 1, 2, 3), "world": "ab"}
    with pytest.raises(KeyboardInterrupt), staging_folder(out, work) as folder:
        (folder / "1").write_text("1")
        raise KeyboardInterrupt
    assert not out.exists()
    with pytest.raises(KeyboardInterrupt), staging_folder(out, work) as folder:
        assert (folder / "1").exists()
        raise KeyboardInterrupt
    with staging_folder(out, {**work, "world": "cd"}) as folder:
        assert not (folder / "1").exists()  # other work
        (folder / "2").write_text("2")
        publish(folder, out)
    assert names(tmp_path) == ["big", "big/2"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="one of its folders is a file"):
        staged_file(tmp_path / "file" / "a.txt").__enter__()
    with pytest.raises(StoreError, match="file cannot be written: it is a file"):
        staged_folder(tmp_path / "file", overwrite=True).__enter__()
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with (
        pytest.raises(StoreFullError, match="nothing was written under that name") as caught,
        staged_file(tmp_path / "a.txt"),
    ):
        raise full
    assert "free some space" in caught.value.remedy and "esume" not in str(caught.value)
    with pytest.raises(FileNotFoundError), staged_file(tmp_path / "a.txt"):
        (tmp_path / "input").read_bytes()  # an input's error is not the output's
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_parent(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match=r"cannot be written.*you may write to"):
        staged_file(tmp_path / "a.txt").__enter__()
