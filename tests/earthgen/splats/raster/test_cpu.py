"""The rasteriser for CPUs gives what the reference gives, forward and back, whoever draws what
when."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from numba import njit

from earthgen import memory
from earthgen.errors import OutOfMemoryError, SplatError
from earthgen.splats.cameras.camera import Camera, look_at
from earthgen.splats.raster import binning, projection
from earthgen.splats.raster.cpu import Canvas, rasterize_on_cpu
from earthgen.splats.raster.lanes import (
    fma,
    gaussian,
    load,
    moment,
    store,
    total,
)
from earthgen.splats.raster.model import Rendering
from earthgen.splats.raster.reference import project, rasterize_reference
from earthgen.splats.raster.rendering import rasterize, render
from earthgen.splats.tensors import FLOATS, SplatTensors
from earthgen.threads import share
from tests.helpers.splat_scenes import (
    CAMERAS,
    OUTPUTS,
    above,
    disc,
    joined,
    leaves,
    oblique,
    scattered,
)

BACKGROUND = (0.1, 0.2, 0.3)

TOLERANCES = {
    "rgb": 1e-5,
    "alpha": 1e-5,
    "depth": 1e-4,
    "median_depth": 1e-4,
    "normal": 1e-5,
    "distortion": 1e-4,
}
"""Largest error: some ten roundings of float32 a Gaussian, some ten Gaussians a pixel; depths
are about ten metres."""

AT_A_LIMIT = 2e-3
"""Share of pixels that may differ by more: where alpha, the light left, or half of it lies
within a rounding of its limit, float32 and float64 decide differently whether a Gaussian is
drawn."""


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def same(
    made: Rendering, expected: Rendering, limit: float = AT_A_LIMIT, **tolerances: float
) -> None:
    for name in OUTPUTS:
        found, wanted = getattr(made, name), getattr(expected, name)
        assert found.dtype == torch.float32 and found.shape == wanted.shape, name
        off = (found.double() - wanted.double()).abs() > {**TOLERANCES, **tolerances}[name]
        assert off.double().mean() <= limit, f"{name}: {off.sum()} of {off.numel()}"
    assert made.semantics.dtype == torch.uint8
    assert (made.semantics != expected.semantics).double().mean() <= limit
    assert made.camera == expected.camera


SCENES: dict[str, SplatTensors] = {
    "random": scattered(300, seed=1, degree=1),
    "many small": scattered(800, seed=2, scales=(0.005, 0.03)),
    "a few large": scattered(12, seed=3, scales=(1.0, 3.0), opacities=(0.2, 0.8)),
    "empty": scattered(0),
    "one": scattered(1, seed=5, scales=(0.3, 0.5), opacities=(0.6, 0.7)),
    "opaque stack": joined(
        *(disc(mean=(0, 0, -0.1 * k), opacity=1.0, dtype=torch.float32) for k in range(9))
    ),
    "one depth": joined(
        *(disc(mean=(0.1 * k, 0, 0), grey=0.1 * k, dtype=torch.float32) for k in range(9))
    ),
    "clear": scattered(50, opacities=(0.0, 1 / 256)),
    "close, some behind": replace(
        scattered(300, seed=8, scales=(0.02, 0.5)), means=scattered(300, seed=8).means * 4
    ),
}


@pytest.mark.parametrize("kind", CAMERAS)
@pytest.mark.parametrize("scene", SCENES)
def test_pictures_are_those_of_the_reference(scene: str, kind: str) -> None:
    splats, camera = SCENES[scene], CAMERAS[kind]
    made = rasterize(splats, camera, background=BACKGROUND)
    same(made, rasterize_reference(splats.to(torch.float64), camera, background=BACKGROUND))


@pytest.mark.parametrize("kind", CAMERAS)
def test_discs_seen_edge_on(kind: str) -> None:
    """Exactly along the view, nearly along it, and across it: walls from straight above."""
    camera = above(48, 40, metres_per_pixel=0.3 if kind == "orthographic" else None)
    splats = scattered(60, seed=4, scales=(0.2, 0.8), opacities=(0.3, 0.9))
    lean = torch.linspace(math.pi / 2 - 1e-3, math.pi / 2 + 1e-3, 60, dtype=torch.float64)
    lean[20:40] = math.pi / 2
    turns = torch.stack([(lean / 2).cos(), (lean / 2).sin(), 0 * lean, 0 * lean], 1)
    splats = replace(splats, rotations=turns.float())
    same(
        rasterize(splats, camera), rasterize_reference(splats.to(torch.float64), camera), limit=0.01
    )


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 33), (5, 40)])
def test_pictures_of_any_size(size: tuple[int, int]) -> None:
    splats, camera = scattered(100, seed=6), replace(oblique(*size), cx=size[0] / 2 - 3)
    same(rasterize(splats, camera), rasterize_reference(splats.to(torch.float64), camera))


def test_a_window_of_a_picture_is_the_picture_there() -> None:
    splats, camera = scattered(300, seed=1), oblique()
    whole, part = rasterize(splats, camera), rasterize(splats, camera.crop(7, 41, 19, 60))
    # Pixels are numbered from the window's corner, so positions round differently.
    for name in OUTPUTS:
        assert torch.allclose(
            getattr(whole, name)[7:41, 19:60], getattr(part, name), atol=TOLERANCES[name], rtol=1e-5
        )


def gradients(made: Rendering, output: str, splats: SplatTensors) -> list[torch.Tensor]:
    found = getattr(made, output)
    weight = torch.rand(
        found.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    loss = (found * weight.to(found.dtype)).sum()
    given = torch.autograd.grad(
        loss, [getattr(splats, name) for name in FLOATS], allow_unused=True, retain_graph=True
    )
    return [
        torch.zeros_like(getattr(splats, name)) if gradient is None else gradient
        for name, gradient in zip(FLOATS, given, strict=True)
    ]


GRADIENT_TOLERANCES = {
    "means": 2e-3,
    "scales": 1e-4,
    "rotations": 1e-3,
    "opacities": 1e-4,
    "sh": 1e-4,
}
"""Largest error as a share of the largest gradient. Those of means and turns are differences of
what neighbouring pixels push: of discs seen nearly edge-on they cancel to three digits or so."""


@pytest.mark.parametrize("kind", ["pinhole", pytest.param("orthographic", marks=pytest.mark.slow)])
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("scene", ["random", "a few large", "one", "opaque stack", "empty"])
def test_gradients_are_those_of_the_reference(scene: str, output: str, kind: str) -> None:
    fast, slow = leaves(SCENES[scene]), leaves(SCENES[scene].to(torch.float64))
    made = rasterize(fast, CAMERAS[kind], background=BACKGROUND)
    expected = rasterize_reference(slow, CAMERAS[kind], background=BACKGROUND)
    for name, found, wanted in zip(
        FLOATS, gradients(made, output, fast), gradients(expected, output, slow), strict=True
    ):
        assert found.shape == wanted.shape and found.dtype == torch.float32
        if not wanted.numel():
            continue
        # What is 0 but for roundings (depths do not depend on scales) is compared with what it is a
        # sum of.
        size = float(wanted.abs().max())
        assert float((found - wanted).abs().max()) <= GRADIENT_TOLERANCES[name] * size + 1e-5, name


def test_the_gradient_of_a_background() -> None:
    splats, background = scattered(50), torch.tensor(BACKGROUND, requires_grad=True)
    made = rasterize(splats, oblique(), background=background)
    made.rgb.sum().backward()
    assert torch.allclose(background.grad, (1 - made.alpha).sum().expand(3), rtol=1e-5)


def test_gradients_of_some_outputs_and_some_inputs() -> None:
    splats = scattered(50)
    splats = replace(splats, means=splats.means.clone().requires_grad_())
    made = rasterize(splats, oblique())
    (made.normal[..., 2].sum() + made.distortion.sum()).backward()
    assert splats.means.grad.abs().max() > 0
    assert not made.semantics.requires_grad


def test_only_what_is_drawn_has_a_gradient() -> None:
    hidden = joined(
        *(disc(mean=(0, 0, -0.1 * k), opacity=1.0, dtype=torch.float32) for k in range(3)),
        disc(mean=(0, 0, 20), dtype=torch.float32),
    )
    splats = leaves(hidden)
    rasterize(splats, above(1, 1)).rgb.sum().backward()
    assert splats.sh.grad[:, 0, 0].tolist()[1:] == [0, 0, 0] and splats.sh.grad[0, 0, 0] > 0
    assert torch.isfinite(splats.means.grad).all()


def test_one_step_down_the_gradient_is_a_step_down() -> None:
    target = rasterize(scattered(80, seed=2), oblique()).rgb
    splats = leaves(scattered(80, seed=3))
    loss = (rasterize(splats, oblique()).rgb - target).square().mean()
    loss.backward()
    step = {
        name: getattr(splats, name).grad / getattr(splats, name).grad.norm()
        for name in ("means", "sh")
    }
    moved = replace(
        splats, **{name: getattr(splats, name).detach() - 0.02 * way for name, way in step.items()}
    )
    assert (rasterize(moved, oblique()).rgb - target).square().mean() < loss


def bits(splats: SplatTensors, camera: Camera) -> list[torch.Tensor]:
    given = leaves(splats)
    made = rasterize(given, camera, background=BACKGROUND)
    loss = sum(getattr(made, name).square().sum() for name in OUTPUTS)
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    return [getattr(made, name).detach() for name in (*OUTPUTS, "semantics")] + [
        getattr(given, name).grad for name in FLOATS
    ]


def test_bits_do_not_depend_on_threads() -> None:
    splats, camera = scattered(20_000, seed=1, scales=(0.005, 0.05)), oblique(200, 150)
    before, found = torch.get_num_threads(), []
    for count in (1, 2, 3, 7):
        torch.set_num_threads(count)
        found.append(bits(splats, camera))
    torch.set_num_threads(before)
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert torch.equal(one, two)


@pytest.mark.parametrize("kind", CAMERAS)
def test_batches_by_depth_give_what_one_call_gives(kind: str, threads: int) -> None:
    splats, camera = scattered(3000, seed=9, opacities=(0.05, 0.6)), CAMERAS[kind]
    whole = rasterize(splats, camera, background=BACKGROUND)
    depths = project(splats.to(torch.float64), camera).depths
    order = torch.argsort(depths, stable=True)
    canvas = Canvas.blank(camera, np.arange(26))
    for at in range(0, len(order), 700):
        canvas.add(splats.take(order[at : at + 700]))
    made = canvas.rendering(torch.tensor(BACKGROUND))
    for name in (*OUTPUTS, "semantics"):
        assert torch.equal(getattr(made, name), getattr(whole, name)), name


def test_a_canvas_is_closed_where_nothing_more_can_be_seen() -> None:
    camera = above(16, 16)
    canvas = Canvas.blank(camera, np.array([3]))
    wall = disc(scale=(5e3, 5e3), opacity=0.995, dtype=torch.float32)
    canvas.add(wall)
    assert not canvas.closed
    before = canvas.rendering(torch.zeros(3))
    canvas.add(
        replace(wall, means=torch.tensor([[0.0, 0.0, -0.1]]))
    )  # it would leave 3e-5 of the light
    canvas.add(replace(wall, means=torch.tensor([[0.0, 0.0, -0.2]])))
    assert canvas.closed
    assert torch.equal(canvas.rendering(torch.zeros(3)).rgb, before.rgb)
    blank = Canvas.blank(camera, np.array([], np.uint8)).rendering(torch.tensor(BACKGROUND))
    assert torch.equal(blank.rgb[3, 3], torch.tensor(BACKGROUND)) and not blank.semantics.any()


def test_a_canvas_knows_its_classes() -> None:
    canvas = Canvas.blank(above(), np.array([1, 2]))
    for code in (0, 3, 9):
        with pytest.raises(SplatError, match=f"class {code} "):
            canvas.add(disc(code=code, dtype=torch.float32))
    with pytest.raises(SplatError, match="class 3"):
        Canvas.blank(above(), np.array([], np.uint8)).add(disc(dtype=torch.float32))
    canvas.add(replace(disc(dtype=torch.float32), semantics=None))
    assert not canvas.rendering(torch.zeros(3)).semantics.any()
    canvas.add(disc(mean=(0, 0, -1), code=2, dtype=torch.float32))
    assert canvas.rendering(torch.zeros(3)).semantics[12, 16] == 2


@pytest.mark.parametrize("kind", CAMERAS)
def test_the_picture_is_the_same_anywhere(kind: str) -> None:
    """UTM northings: the anchor keeps them out of float32."""
    splats, here = scattered(300, seed=1, degree=2), CAMERAS[kind]
    east, north, up = at = (499_990.123, 5_500_000.456, 871.25)
    moved = replace(here, position=tuple(a + b for a, b in zip(here.position, at, strict=True)))
    there = rasterize(replace(splats, anchor=at, crs="EPSG:32632"), moved)
    expected = rasterize(splats, here)
    # A northing in float64 is good to 1e-9 m, so positions are the same float32 but for a rounding.
    same(replace(there, camera=here), expected)

    # Without it a mean moves by up to a quarter of a metre, and the picture is another.
    shifted = (splats.means.double() + torch.tensor((east, north, up), dtype=torch.float64)).float()
    lost = rasterize(replace(splats, means=shifted), moved)
    assert (lost.rgb - expected.rgb).abs().max() > 0.1


def test_an_anchor_far_from_what_is_seen() -> None:
    splats = scattered(300, seed=1)
    away = replace(
        splats,
        anchor=(1024.0, -2048.0, 0.0),
        means=splats.means - torch.tensor((1024.0, -2048.0, 0.0)),
    )
    made = rasterize(away, oblique())
    # Means 2 km from their anchor are rounded to 0.1 mm, 1 / 1000 of a pixel.
    expected = rasterize(splats, oblique())
    assert (made.rgb - expected.rgb).abs().mean() < 1e-4


def test_boxes_hold_the_discs_and_no_more() -> None:
    broad = 0
    for camera in CAMERAS.values():
        for row in range(40):
            one = scattered(1, seed=row, opacities=(0.2, 1.0), extent=1.5)
            cam = projection.numbers(camera, one.anchor)
            records, boxes = (
                np.empty((1, projection.COLUMNS), np.float32),
                np.empty((1, 4), np.int32),
            )
            arrays = [
                getattr(one, name).numpy() for name in ("means", "scales", "rotations", "opacities")
            ]
            projection.project(
                *arrays,
                np.zeros((1, 3), np.float32),
                np.zeros(1, np.uint8),
                cam,
                camera.kind == "orthographic",
                1 / 255,
                0,
                1,
                records,
                boxes,
                np.empty(1, np.float32),
            )
            left, right, top, bottom = boxes[0]
            rows, columns = (
                rasterize_reference(one.to(torch.float64), camera).alpha.nonzero().unbind(1)
            )
            assert len(rows)
            assert (
                left <= columns.min()
                and columns.max() < right
                and top <= rows.min()
                and rows.max() < bottom
            )
            ours = project(one.to(torch.float64), camera)
            if (ours.extents.min(1).values > 2).all() and abs(
                ours.normals[0] @ torch.tensor(camera.forward)
            ) > 0.5:
                # The box is that of a smooth line: between its pixels it can reach one further at
                # each side.
                broad += 1
                assert right - left <= columns.max() - columns.min() + 3
                assert bottom - top <= rows.max() - rows.min() + 3
    assert broad > 5


def test_gaussians_are_sorted_by_depth_and_number() -> None:
    random = np.random.default_rng(3)
    depths = random.choice(np.array([-3.5, -0.0, 0.0, 1e-30, 2.0, 7.25, 1e9], np.float32), 5000)
    assert np.array_equal(binning.by_depth(depths), np.argsort(depths, kind="stable"))
    spread = random.normal(0, 1e3, 5000).astype(np.float32)
    assert np.array_equal(binning.by_depth(spread), np.argsort(spread, kind="stable"))

    boxes = np.array([[0, 20, 0, 1], [0, 0, 0, 0], [15, 17, 15, 33], [0, 1, 0, 1]], np.int32)
    bins = binning.bin_by_tile(boxes, np.array([5, 0, 3, 5], np.float32), 40, 40)
    lists = [
        bins.rows[a:b].tolist() for a, b in zip(bins.starts[:-1], bins.starts[1:], strict=True)
    ]
    assert (bins.across, bins.down) == binning.tiles(40, 40) == (3, 3)
    assert lists == [[2, 0, 3], [2, 0], [], [2], [2], [], [2], [2], []]
    assert binning.pairs(boxes).tolist() == [0, 2, 2, 8, 9]


def test_the_exponential() -> None:
    squares = np.linspace(0, 11.9, 3001, dtype=np.float32)
    found = np.array([gaussian(square) for square in squares])
    # Three squarings make eight roundings of one.
    assert np.abs(found / np.exp(-squares.astype(np.float64) / 2) - 1).max() < 3e-6
    assert gaussian(np.float32(0)) == 1 and gaussian(np.float32(1e30)) < 1 / 255


def test_vectors_of_a_row() -> None:
    @njit
    def run(array):  # type: ignore[no-untyped-def]
        store(array, 0, fma(load(array, 1), np.float32(2), np.float32(0.5)))
        return total(array, 3), moment(array, 3)

    values = np.random.default_rng(0).integers(-9, 9, 24).astype(np.float32)
    row = values[3:19].astype(np.float64)
    assert run(values) == (row.sum(), (row * np.arange(16)).sum())
    assert values[0] == 2 * values[1] + 0.5


def test_work_is_shared_by_cost(threads: int) -> None:
    done = []
    share(np.array([0, 100, 1, 1, 1, 0, 50]), lambda first, last: done.append((first, last)))
    assert sorted(number for first, last in done for number in range(first, last)) == list(range(7))
    share(np.zeros(0), lambda first, last: done.append((first, last)))
    share(np.zeros(3), lambda first, last: None)
    with pytest.raises(ZeroDivisionError):
        share(np.ones(10), lambda first, last: 1 // 0)


def test_no_classes_are_class_0() -> None:
    assert not rasterize(replace(scattered(50), semantics=None), oblique()).semantics.any()


def test_render_takes_arrays() -> None:
    gaussians = scattered(50, degree=1).gaussians()
    made = render(gaussians, oblique(), background=BACKGROUND)
    assert torch.equal(
        made.rgb, rasterize(SplatTensors.of(gaussians), oblique(), background=BACKGROUND).rgb
    )
    assert not made.rgb.requires_grad


def test_what_cannot_be_drawn_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    splats = scattered(5)
    with pytest.raises(SplatError, match="float64"):
        rasterize(splats.to(torch.float64), oblique())
    with pytest.raises(SplatError):
        rasterize_on_cpu(splats.to("meta"), oblique(), torch.zeros(3))
    with pytest.raises(SplatError, match="scales"):
        rasterize(replace(splats, scales=splats.scales * 0), oblique())
    with pytest.raises(SplatError, match="means"):
        Canvas.blank(oblique(), np.arange(9)).add(replace(splats, means=splats.means / 0))
    with pytest.raises(SplatError):
        rasterize(replace(splats, crs="EPSG:32633"), replace(oblique(), crs="EPSG:32632"))
    with pytest.raises(SplatError, match="background"):
        rasterize(splats, oblique(), background=(0, math.nan, 0))
    monkeypatch.setattr(memory, "free", lambda device: 1000)
    monkeypatch.setattr(memory, "ASK", 100)
    with pytest.raises(OutOfMemoryError, match="crop"):
        rasterize(splats, oblique())
    with pytest.raises(OutOfMemoryError, match="70 x 45"):
        Canvas.blank(oblique(), np.arange(9))


def test_memory_for_gradients_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    splats = leaves(scattered(50))
    made = rasterize(splats, oblique())
    monkeypatch.setattr(memory, "free", lambda device: 100)
    monkeypatch.setattr(memory, "ASK", 100)
    with pytest.raises(OutOfMemoryError, match="gradient"):
        made.rgb.sum().backward()


def test_a_tile_of_too_many_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from earthgen.splats.raster import cpu as rasterizer

    monkeypatch.setattr(rasterizer, "MOST_PAIRS", 10)
    with pytest.raises(SplatError, match="one tile"):
        rasterize(
            scattered(200), look_at((0, -9, 0), (0, 0, 0), width=16, height=16, field_of_view=40)
        )
