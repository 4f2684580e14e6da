"""Frames of a camera path: a folder of pictures with the cameras in nerfstudio's
transforms.json."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from earthgen.errors import JobError, SplatError, StoreError
from earthgen.progress import Progress
from earthgen.render.interfaces import Renderer, View
from earthgen.render.pictures import Tiles, draw
from earthgen.splats.cameras import transforms_json
from earthgen.splats.cameras.camera import Camera
from earthgen.splats.cameras.poses import Lens, ring
from earthgen.staging import staged_file, staged_folder
from earthgen.world.world import World
from geo_io.frame import Bounds

LAYERS = ("depth", "normal", "semantics")
"""Layers that can be written in addition to the pictures."""


def orbit(
    world: World, count: int, *, width: int = 1280, height: int = 720, bounds: Bounds | None = None
) -> list[Camera]:
    """Create cameras on a circle around a world, or a part of it, that look at its middle from
    above.

    Parameters
    ----------
    world : World
        The world.
    count : int
        Number of cameras.
    width, height : int
        Size of the pictures, pixels.
    bounds : tuple of float, optional
        Left, bottom, right, top in metres of the CRS; by default the whole world.

    Raises
    ------
    SplatError
        If `count` is below 1.
    RegionError
        If the bounds are empty or outside the world.
    """
    frame = world.part(1, bounds)
    left, bottom, right, top = frame.bounds
    layers = world.layers(max(world.levels), bounds)
    ground, surface = (np.asarray(layers[name].values) for name in ("ground", "surface"))
    known = np.isfinite(ground).any()
    middle, highest = (
        (float(np.nanmedian(ground)), float(np.nanmax(surface))) if known else (0.0, 0.0)
    )
    size = max(right - left, top - bottom)
    lens = Lens(width, height, field_of_view=50.0, crs=frame.crs, vertical_crs=frame.vertical_crs)
    centre = ((left + right) / 2, (bottom + top) / 2, middle)
    return ring(
        centre, 0.85 * size, max(0.5 * size, highest - middle + 10), count, lens, start=200.0
    )


def write_frames(
    world: World,
    cameras: Sequence[Camera],
    out: Path,
    renderer: Renderer,
    *,
    bounds: Bounds | None = None,
    layers: Sequence[str] = (),
    video: Path | None = None,
    fps: float = 25.0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Draw a picture for each camera, `out`/00000.png and so on, and write `out`/transforms.json.

    Nothing appears under its name before all pictures are drawn.

    Parameters
    ----------
    world : World
        The world.
    cameras : sequence of Camera
        At least one, in the CRS of the world.
    out : Path
        Folder of the pictures.
    renderer : Renderer
        Draws views of kind "camera".
    bounds : tuple of float, optional
        The part of the world to draw, metres of the CRS; by default all of it.
    layers : sequence of str
        Of `LAYERS`. They are written into folders of their names: depth as TIFF of float32 metres
        along the view (0 where nothing is drawn), normal as PNG of 0.5 + 0.5 n, semantics as PNG of
        class codes.
    video : Path, optional
        An MP4 to write as well, which needs the package imageio-ffmpeg.
    fps : float
        Pictures per second of the video.
    overwrite : bool
        Replace what an earlier call wrote into `out`, and the video.
    progress : Progress, optional
        Is told of each picture, as task "render".

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    JobError
        If a layer is unknown, or the program ffmpeg is missing for a video.
    SplatError
        If there is no camera, the cameras do not fit in one file, or are in another CRS than the
        world.
    StoreExistsError
        If `out` has files or the video exists, and `overwrite` is not given.
    StoreError
        If a file cannot be written.
    """
    unknown = [name for name in layers if name not in LAYERS]
    if unknown:
        raise JobError(f"unknown layer {unknown[0]!r} of a picture", f"choose {', '.join(LAYERS)}")
    if not cameras:
        raise SplatError("there are no cameras", "give at least one")
    for camera in cameras:
        if camera.crs and camera.crs != world.frame.crs:
            raise SplatError(
                f"a camera is in {camera.crs}, world {world.path} is in {world.frame.crs}",
                "give cameras in the world's CRS",
            )
    progress = progress or Progress()
    progress.start("render", len(cameras))
    names: list[str] = []
    views: list[transforms_json.View] = []
    tiles: Tiles | None = None
    size = (cameras[0].width, cameras[0].height)
    earlier = _earlier_frames(out) if overwrite else []
    with (
        staged_folder(out, overwrite=overwrite, earlier=earlier) as folder,
        _film(video, size, fps, overwrite) as show,
    ):
        for number, camera in enumerate(cameras):
            name = f"{number:05d}"
            pixels = renderer.render(
                world, View("camera", bounds=bounds, camera=camera), Progress()
            )
            names.append(f"{name}.png")
            Image.fromarray(pixels).save(folder / names[-1])
            show(pixels)
            if layers:
                tiles = tiles or Tiles(world, bounds)
                names += _layers(tiles, camera, folder, name, layers)
            depth = f"depth/{name}.tif" if "depth" in layers else ""
            views.append(
                transforms_json.View(camera, file_path=f"{name}.png", depth_file_path=depth)
            )
            progress.step(f"{name}.png")
        names.append(transforms_json.write_transforms(folder / "transforms.json", views).name)
    return [*(out / name for name in names), *([video] if video is not None else [])]


def _earlier_frames(out: Path) -> list[str]:
    """What an earlier call wrote into a folder: it left cameras there."""
    if not (out / "transforms.json").is_file():
        return []
    return [*LAYERS, *(file.name for file in out.glob("[0-9][0-9][0-9][0-9][0-9].png"))]


def _layers(tiles: Tiles, camera: Camera, out: Path, name: str, layers: Sequence[str]) -> list[str]:
    """Write the layers of one picture. Returns their names below `out`."""
    shape = (camera.height, camera.width)
    arrays: dict[str, NDArray] = {
        "depth": np.zeros(shape, np.float32),
        "normal": np.zeros((*shape, 3), np.uint8),
        "semantics": np.zeros(shape, np.uint8),
    }
    for window in draw(tiles.world, camera, tiles=tiles):
        picture, place = window.rendering, window.place
        arrays["depth"][place] = picture.depth.numpy()
        arrays["semantics"][place] = picture.semantics.numpy()
        normal = picture.normal.numpy()
        length = np.linalg.norm(normal, axis=2, keepdims=True)
        arrays["normal"][place] = np.rint(127.5 + 127.5 * normal / np.maximum(length, 1e-6))
    files = []
    for layer in layers:
        (out / layer).mkdir(exist_ok=True)
        files.append(f"{layer}/{name}.{'tif' if layer == 'depth' else 'png'}")
        Image.fromarray(arrays[layer]).save(out / files[-1])
    return files


@contextmanager
def _film(
    path: Path | None, size: tuple[int, int], fps: float, overwrite: bool
) -> Iterator[Callable[[NDArray], Any]]:
    """Give a function that appends pictures (height, width, 3) uint8 of one size to an MP4; without
    a path it does nothing. JobError if there is no program ffmpeg, or it cannot write MP4.

    The program is the user's own: its builds are under the GPL or LGPL, so none comes with
    earthgen.
    """
    if path is None:
        yield lambda pixels: None
        return
    program = shutil.which("ffmpeg")
    if program is None:
        raise JobError(
            "a video needs the program ffmpeg, which is not on the PATH",
            "install ffmpeg (https://ffmpeg.org), or omit `video`",
        )
    # Pictures with an odd edge lose a line: the usual pixel format of MP4 needs even sizes.
    width, height = size[0] // 2 * 2, size[1] // 2 * 2
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{fps:g}"]
    # This ffmpeg's own encoder for MP4, whichever it is, takes the one quality that it knows.
    film = ["-an", "-pix_fmt", "yuv420p", "-crf", "20", "-q:v", "3", "-movflags", "+faststart"]
    with staged_file(path, overwrite=overwrite) as part, tempfile.TemporaryFile() as said:
        words = [program, "-v", "error", "-y", *source, "-i", "pipe:0", *film, f"file:{part}"]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stderr=said, stdout=said) as process:
            assert process.stdin is not None
            broken = False
            try:
                yield (
                    lambda pixels: process.stdin.write(  # type: ignore[union-attr]
                        np.ascontiguousarray(pixels[:height, :width]).tobytes()
                    )
                )
                process.stdin.close()
            except BrokenPipeError:  # it has ended: what it said is the reason
                broken = True
                with suppress(BrokenPipeError):
                    process.stdin.close()
            except BaseException:
                process.kill()
                raise
        if process.returncode or broken:
            said.seek(0)
            text = said.read().decode("utf-8", "replace").strip().splitlines() or ["no message"]
            raise StoreError(
                f"the video {path} cannot be written: ffmpeg ended with {text[-1]!r}",
                "check the disk, and that this ffmpeg can write MP4",
            )
