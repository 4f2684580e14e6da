"""`earthgen render`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from earthgen_cli.main import main


def test_render(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import rasterio
    from PIL import Image

    turn = tmp_path / "turn"
    words = ["render", str(made), "--json", "--out"]
    assert main([*words, str(turn), "--orbit", "2", "--scale", "0.05", "--layer", "depth"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert [Path(file["path"]).name for file in values["files"]] == [
        "00000.png",
        "00000.tif",
        "00001.png",
        "00001.tif",
        "transforms.json",
    ]
    with Image.open(turn / "00001.png") as picture:
        assert picture.size == (64, 36)
    # The cameras of a folder of pictures make the same pictures again, and a path through them.
    again = tmp_path / "again"
    assert main([*words, str(again), "--camera", str(turn / "transforms.json")]) == 0
    assert (again / "00001.png").read_bytes() == (turn / "00001.png").read_bytes()
    path = [*words, str(again), "--camera", str(turn / "transforms.json"), "--frames", "3"]
    capsys.readouterr()
    assert main(path) == 5
    assert "again exists already and is not empty" in capsys.readouterr().err
    (again / "notes.txt").write_text("mine")
    assert main([*path, "--overwrite"]) == 0
    assert (again / "00002.png").exists() and (again / "notes.txt").exists()
    one = [*words, str(again), "--orbit", "1", "--scale", "0.05", "--overwrite"]
    assert main(one) == 0  # pictures of the earlier, longer path are gone
    assert [file.name for file in sorted(again.iterdir())] == [
        "00000.png",
        "notes.txt",
        "transforms.json",
    ]
    assert main([*words, str(tmp_path / "deep" / "o.tif"), "--ortho", "2"]) == 0
    assert main([*words, str(tmp_path / "deep" / "o.tif"), "--ortho", "2"]) == 5
    with rasterio.open(tmp_path / "deep" / "o.tif") as image:
        assert image.res == (2, 2) and image.count == 4 and image.read(4).max() == 255


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        ([], 2, "one of the three"),
        (["--orbit", "3", "--ortho", "1"], 2, "one of the three"),
        (["--ortho", "1"], 2, ".tif"),
        (["--orbit", "1", "--video", "v.gif"], 2, ".mp4"),
        (["--camera", "nowhere.json"], 3, "nowhere.json"),
        (["--camera", "broken.json"], 3, "broken.json"),
        (["--camera", "other.json"], 10, "EPSG:3006"),
        (["--orbit", "1", "--renderer", "splat"], 6, "'splats'"),
        (["--orbit", "1", "--bbox", "1,1,2,2"], 4, "1,1,2,2"),
    ],
)
def test_render_says_what_is_wrong(
    made: Path,
    words: list[str],
    code: int,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from earthgen.splats.cameras.camera import look_at
    from earthgen.splats.cameras.paths import write_cameras

    monkeypatch.chdir(tmp_path)
    Path("broken.json").write_text("{")
    write_cameras(
        "other.json",
        [look_at((0, 0, 9), (0, 1, 0), width=9, height=9, field_of_view=9, crs="EPSG:3006")],
    )
    assert main(["render", str(made), "--out", "out", *words]) == code
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and expected in errors[0]
    assert not Path("out").exists()
