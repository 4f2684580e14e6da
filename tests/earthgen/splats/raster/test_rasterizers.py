"""Rasterisers come through the hook, keep the contract, and say what they cannot do; gsplat's
with a stand-in."""

import math
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import earthgen_splats
from earthgen.errors import SplatError, UnknownNameError
from earthgen.splats.cameras.camera import Camera
from earthgen.splats.raster import rasterizers
from earthgen.splats.raster.model import Rendering
from earthgen.splats.raster.rasterizers import draws_here, pick_rasterizer
from earthgen.splats.raster.reference import rasterize_reference
from earthgen.splats.raster.rendering import rasterize, rasterize_elsewhere, render
from earthgen.splats.tensors import SplatTensors
from earthgen.testing.rasterizer import check_rasterizer
from earthgen_splats.cpu import CpuRasterizer
from earthgen_splats.gsplat_rasterizer import GsplatRasterizer
from tests.helpers.splat_scenes import OUTPUTS, above, disc, joined, leaves, oblique, scattered


def test_they_come_through_the_hook() -> None:
    assert {"cpu", "gsplat"} <= set(rasterizers.plugins.load().offers("rasterizer"))
    assert earthgen_splats.earthgen_info().licence == "Apache-2.0"
    assert isinstance(pick_rasterizer("cpu"), CpuRasterizer) and isinstance(
        pick_rasterizer(torch.device("cpu"), "cpu"), CpuRasterizer
    )


def test_a_rasterizer_by_name() -> None:
    splats = scattered(30)
    named, unnamed = rasterize(splats, oblique(), rasterizer="cpu"), rasterize(splats, oblique())
    assert torch.equal(named.rgb, unnamed.rgb)
    assert torch.equal(render(splats.gaussians(), oblique(), rasterizer="cpu").rgb, unnamed.rgb)
    with pytest.raises(UnknownNameError, match="cpu"):
        rasterize(splats, oblique(), rasterizer="cup")


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is said without CUDA")
def test_gsplat_says_why_it_cannot_run_here() -> None:
    assert "no CUDA device" in GsplatRasterizer().unavailable()
    with pytest.raises(SplatError, match="'gsplat' cannot run here: there is no CUDA"):
        pick_rasterizer("cpu", "gsplat")
    with pytest.raises(SplatError, match="'gsplat' cannot run here"):
        pick_rasterizer("cuda")
    with pytest.raises(SplatError, match="use the rasterizer 'cpu'"):
        GsplatRasterizer().rasterize(scattered(3), oblique(), torch.zeros(3))


def test_devices_are_checked() -> None:
    with pytest.raises(SplatError, match="draws on cpu, the Gaussians are on cuda"):
        pick_rasterizer("cuda", "cpu")
    with pytest.raises(SplatError, match="no rasterizer is the default on mps"):
        pick_rasterizer("mps")


def test_our_own_keeps_the_contract() -> None:
    check_rasterizer(CpuRasterizer())


class Wrong(CpuRasterizer):
    """Draws what `change` makes of the right picture."""

    def __init__(self, **change: Any) -> None:
        self.change = change

    def rasterize(self, splats: SplatTensors, camera: Camera, background: Tensor) -> Rendering:
        made = super().rasterize(splats, camera, background)
        return replace(
            made, **{name: change(getattr(made, name)) for name, change in self.change.items()}
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rgb": lambda rgb: rgb.flip(0)}, "rgb differs"),
        ({"alpha": lambda alpha: alpha.detach().clone().requires_grad_()}, "gradient"),
        pytest.param({"depth": lambda depth: depth.double()}, "float64", marks=pytest.mark.slow),
        pytest.param({"normal": lambda normal: normal[:-1]}, "shape", marks=pytest.mark.slow),
        pytest.param(
            {"normal": lambda normal: 1.0005 * normal.detach() + 0 * normal},
            "gradient",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"semantics": lambda codes: codes * 0}, "semantics differs", marks=pytest.mark.slow
        ),
        ({"camera": lambda camera: camera.scaled(0.5)}, "another camera"),
    ],
)
def test_the_kit_sees_what_is_wrong(change: dict[str, Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_rasterizer(Wrong(**change))


@pytest.mark.slow
def test_the_kit_leaves_out_what_is_said_to_differ() -> None:
    wrong = Wrong(depth=lambda depth: depth + 1)
    wrong.differs = ("depth",)
    check_rasterizer(wrong)
    check_rasterizer(GsplatRasterizer())  # not for this device


def isect_tiles(
    means2d: Tensor,
    radii: Tensor,
    depths: Tensor,
    tile_size: int,
    tile_width: int,
    tile_height: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """As gsplat documents it, for one picture: ids are tiles and depths, sorted."""
    pairs = []
    for row in range(means2d.shape[1]):
        (x, y), (a, b) = means2d[0, row].tolist(), radii[0, row].tolist()
        if a <= 0 or b <= 0:
            continue
        columns = range(
            max(int((x - a) // tile_size), 0), min(math.ceil((x + a) / tile_size), tile_width)
        )
        for tile_y in range(
            max(int((y - b) // tile_size), 0), min(math.ceil((y + b) / tile_size), tile_height)
        ):
            pairs += [
                (tile_y * tile_width + tile_x, float(depths[0, row]), row) for tile_x in columns
            ]
    pairs.sort()
    ids = torch.tensor([pair[0] for pair in pairs], dtype=torch.long)
    return torch.zeros(1), ids, torch.tensor([pair[2] for pair in pairs], dtype=torch.int32)


def isect_offset_encode(ids: Tensor, images: int, tile_width: int, tile_height: int) -> Tensor:
    assert images == 1
    return (
        torch.searchsorted(ids, torch.arange(tile_width * tile_height))
        .int()
        .reshape(1, tile_height, tile_width)
    )


def rasterize_to_pixels_2dgs(
    means2d: Tensor,
    ray_transforms: Tensor,
    colors: Tensor,
    opacities: Tensor,
    normals: Tensor,
    densify: Tensor,
    image_width: int,
    image_height: int,
    tile_size: int,
    isect_offsets: Tensor,
    flatten_ids: Tensor,
) -> tuple[Tensor, ...]:
    """What gsplat's kernel computes, a tile at a time; the last channel is the depth."""
    assert colors.shape[-1] in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512), (
        "others are filled from memory as it is"
    )
    made = [torch.zeros(image_height, image_width, k) for k in (colors.shape[-1], 1, 3, 1, 1)]
    starts = torch.cat([isect_offsets.flatten(), torch.tensor([len(flatten_ids)])])
    for tile in range(len(starts) - 1):
        top, left = (
            tile // isect_offsets.shape[2] * tile_size,
            tile % isect_offsets.shape[2] * tile_size,
        )
        bottom, right = min(top + tile_size, image_height), min(left + tile_size, image_width)
        rows = flatten_ids[starts[tile] : starts[tile + 1]].long()
        if not len(rows):
            continue
        y, x = torch.meshgrid(
            torch.arange(top, bottom) + 0.5, torch.arange(left, right) + 0.5, indexing="ij"
        )
        x, y, m = x.reshape(-1, 1, 1), y.reshape(-1, 1, 1), ray_transforms[0, rows]
        crossing = torch.linalg.cross(x * m[:, 2] - m[:, 0], y * m[:, 2] - m[:, 1], dim=-1)
        flat = crossing[..., 2] == 0
        uv = crossing[..., :2] / torch.where(flat, 1, crossing[..., 2])[..., None]
        offset = torch.cat([x, y], 2) - means2d[0, rows]
        alpha = (
            opacities[0, rows]
            * (-0.5 * torch.minimum(uv.square().sum(-1), 2 * offset.square().sum(-1))).exp()
        ).clamp_max(0.999)
        alpha = torch.where((alpha < 1 / 255) | flat, 0, alpha)
        after = torch.cumprod(1 - alpha, 1)
        before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], 1)
        weight = torch.where(after > 1e-4, alpha * before, 0)
        counts = (weight > 0) & (before > 0.5)
        last = torch.where(counts, torch.arange(len(rows)), -1).max(1).values
        depth = colors[0, rows, -1]
        median = torch.where(last >= 0, depth[last.clamp_min(0)], 0)
        for into, values in zip(
            made,
            (
                weight @ colors[0, rows],
                weight.sum(1),
                weight @ normals[0, rows],
                0 * median,
                median,
            ),
            strict=True,
        ):
            into[top:bottom, left:right] = values.reshape(bottom - top, right - left, -1)
    return tuple(values[None] for values in made)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[GsplatRasterizer]:
    gsplat, cuda, backend = (
        types.ModuleType(name) for name in ("gsplat", "gsplat.cuda", "gsplat.cuda._backend")
    )
    for function in (isect_tiles, isect_offset_encode, rasterize_to_pixels_2dgs):
        setattr(gsplat, function.__name__, function)
    cuda._backend, backend._C = backend, object()  # type: ignore[attr-defined]
    for module in (gsplat, cuda, backend):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(GsplatRasterizer, "devices", ("cuda", "cpu"))
    yield GsplatRasterizer()


def test_gsplat_keeps_the_contract_where_it_says_so(stand_in: GsplatRasterizer) -> None:
    assert stand_in.unavailable() == ""
    check_rasterizer(stand_in)


@pytest.mark.parametrize("size", [None, 0.3])
def test_gsplat_of_discs_that_face_the_camera(
    stand_in: GsplatRasterizer, size: float | None
) -> None:
    """There the depth of the disc is that of its mean, if the camera is far or orthographic."""
    camera = above(40, 30, metres_per_pixel=size)
    parts = [
        disc(
            mean=(0.3 * k, 0.2 * k, 0.5 * k),
            opacity=0.3 + 0.1 * k,
            grey=0.1 * k,
            code=k + 1,
            dtype=torch.float32,
        )
        for k in range(6)
    ]
    splats = leaves(joined(*parts))
    made = stand_in.rasterize(splats, camera, torch.tensor((0.1, 0.2, 0.3)))
    expected = rasterize_reference(splats, camera, background=(0.1, 0.2, 0.3))
    for name in OUTPUTS:
        assert torch.allclose(getattr(made, name), getattr(expected, name), atol=2e-5), name
    assert torch.equal(made.semantics, expected.semantics)


def test_gsplat_without_classes_or_discs(stand_in: GsplatRasterizer) -> None:
    made = stand_in.rasterize(replace(scattered(9), semantics=None), oblique(), torch.zeros(3))
    assert not made.semantics.any() and made.alpha.any()
    made = stand_in.rasterize(scattered(0), oblique(), torch.ones(3))
    assert not made.alpha.any() and bool((made.rgb == 1).all())


def test_gsplat_refuses(stand_in: GsplatRasterizer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SplatError, match="float64"):
        stand_in.rasterize(scattered(3, dtype=torch.float64), oblique(), torch.zeros(3))
    monkeypatch.setattr(GsplatRasterizer, "devices", ("cuda",))
    with pytest.raises(SplatError, match="cpu"):
        stand_in.rasterize(scattered(3), oblique(), torch.zeros(3))
    sys.modules["gsplat.cuda._backend"]._C = None  # type: ignore[attr-defined]
    assert "not compiled" in stand_in.unavailable()
    monkeypatch.setitem(sys.modules, "gsplat.cuda", None)
    monkeypatch.setitem(sys.modules, "gsplat", None)
    assert "import" in stand_in.unavailable() or "not installed" in stand_in.unavailable()


def test_without_a_renderer_of_their_device_the_cpu_draws() -> None:
    """Tensors of float64 stand in for those of another device: the CPU's renderer refuses both."""
    assert draws_here("cpu") and not draws_here("mps")
    assert draws_here("cuda") == (GsplatRasterizer().unavailable() == "")
    splats = scattered(40)
    expected = rasterize(splats, oblique(), background=(0.1, 0.2, 0.3))
    other = leaves(splats.to(torch.float64))
    colour = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    found = rasterize_elsewhere(other, oblique(), colour)
    assert torch.equal(found.rgb, expected.rgb) and torch.equal(found.semantics, expected.semantics)
    found.rgb.sum().backward()
    assert other.means.grad is not None and other.means.grad.dtype == torch.float64
    assert float(other.means.grad.abs().sum()) > 0
