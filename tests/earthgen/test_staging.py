"""Output appears when it is complete, and replaces nothing unasked."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from earthgen import staging
from earthgen.errors import StoreError, StoreExistsError, StoreFullError
from earthgen.staging import (
    old_folder,
    publish,
    put_back,
    replace_folder,
    staged_file,
    staged_folder,
    staging_folder,
    sweep,
)


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


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    left = tmp_path / f".out.{'0' * 12}.partial"
    (left / "tiles").mkdir(parents=True)
    (tmp_path / ".mine.partial").mkdir()
    with staging_folder(tmp_path / "out") as folder:
        assert left.exists() == (os.name == "nt")
        sweep(tmp_path)
        assert folder.exists(), "a living process holds it"
    assert names(tmp_path)[-1] == ".mine.partial"


@pytest.mark.skipif(os.name == "nt", reason="folders cannot be locked there")
def test_one_process_continues_a_piece_of_work(tmp_path: Path) -> None:
    work = {"world": "ab"}
    with (
        staging_folder(tmp_path / "out", work),
        pytest.raises(StoreError, match="another process is writing"),
        staging_folder(tmp_path / "out", work),
    ):
        pass


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("sqlite: database or disk is full"),
        ValueError("I/O error: No space left on device (os error 28)"),
        StoreError("ffmpeg ended with 'No space left on device'", "check the disk"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_libraries_that_say_that_a_disk_is_full(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(StoreFullError), staged_file(tmp_path / "a.txt"):
        raise error
    with pytest.raises(StoreFullError), staged_file(tmp_path / "a.txt"):
        try:
            raise error
        except Exception as cause:
            raise RuntimeError("it failed") from cause
    with pytest.raises(KeyError), staged_file(tmp_path / "a.txt"):
        raise KeyError("other")


def test_a_full_disk_that_nobody_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=4096)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StoreFullError), staged_file(tmp_path / "a.txt"):
        raise RuntimeError("TIFFAppendToStrip: write error")


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="allows no file that large"), staged_file(tmp_path / "a"):
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_takes_the_place_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    if not exchanges:
        monkeypatch.setattr(staging, "_exchange", lambda a, b: False)

    def folder(name: str) -> Path:
        path = tmp_path / name
        path.mkdir()
        (path / "a").write_text(name)
        return path

    replace_folder(folder("first"), tmp_path / "w")
    replace_folder(folder("second"), tmp_path / "w")
    assert (tmp_path / "w" / "a").read_text() == "second" and names(tmp_path) == ["w", "w/a"]
    (tmp_path / "link").symlink_to(tmp_path / "w")
    replace_folder(folder("third"), tmp_path / "link")
    assert (tmp_path / "w" / "a").read_text() == "third" and (tmp_path / "link").is_symlink()
    # A crash between two renamings.
    (tmp_path / "w").rename(old_folder(tmp_path / "w"))
    put_back(tmp_path / "w")
    assert (tmp_path / "w" / "a").read_text() == "third"
    # And one before the old folder was removed.
    folder(old_folder(tmp_path / "w").name)
    put_back(tmp_path / "w")
    assert names(tmp_path) == ["link", "w", "w/a"]


def test_a_folder_is_there_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("w", "new"):
        (tmp_path / name).mkdir()
    seen = []
    for step in ("rename", "replace"):
        real = getattr(Path, step)

        def watched(self: Path, target: Path, real=real) -> Path:
            done = real(self, target)
            seen.append((tmp_path / "w").is_dir())
            return done

        monkeypatch.setattr(Path, step, watched)
    if not staging._exchange(tmp_path / "w", tmp_path / "new"):
        pytest.skip("names cannot be exchanged here")
    replace_folder(tmp_path / "new", tmp_path / "w")
    assert seen and all(seen)
