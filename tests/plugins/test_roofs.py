"""Roofs by hand: heights at places of a rectangle of 20 m x 12 m, and of other outlines."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from earthgen.noise.philox import Noise
from earthgen.voxels.object_colours import (
    ROOF,
    WALL,
    draw_object_colours,
    mapped_colours,
    with_mapped_colours,
)
from earthgen.voxels.splat_math import base_colours
from earthgen_procedural import buildings, parts, posts, roofs
from earthgen_procedural.footprints import centroids, outlines, rasterise, rectangles
from geo_io.frame import Frame
from geo_io.layers import ACROSS, ALONG, ROOF_NUMBER, ROOF_SHAPES, Buildings, Raster, unknown_form
from geo_io.legend import builtin_crosswalks, codes
from geo_io.semantics.options import SemanticsOptions
from geo_io.semantics.reader import open_semantics
from tests.helpers.procedural_scene import generate, padded, paint, places, rectangle
from tests.helpers.roof_places import roof_gallery

LENGTH, WIDTH = 10.0, 6.0
HALF = np.sqrt(0.75)


def share(shape: str, u: float, v: float) -> float:
    """The share of the rise on the rectangle, whose ridge runs along u."""
    lines = outlines(one(shapely.box(-LENGTH, -WIDTH, LENGTH, WIDTH)))
    place = roofs.radial_place(lines.xy, 0, len(lines.xy), 0.0, 0.0, u, v)
    walls = min(LENGTH - abs(u), WIDTH - abs(v))
    return float(roofs.roof_share(roofs.OF_MAP[shape], u, v, LENGTH, WIDTH, walls, 0.0, place))


def one(polygon: shapely.Polygon) -> np.ndarray:
    array = np.empty(1, object)
    array[0] = polygon
    return array


@pytest.mark.parametrize(
    ("shape", "heights"),
    [
        ("flat", {(0, 0): 0, (10, 6): 0, (-4, 3): 0}),
        ("gabled", {(0, 0): 1, (10, 0): 1, (0, 6): 0, (9, 3): 0.5, (-3, -1.5): 0.75}),
        # Hips as steep as the sides: 6 m before the short wall the ridge ends.
        ("hipped", {(0, 0): 1, (4, 0): 1, (7, 0): 0.5, (10, 0): 0, (0, 3): 0.5, (-9, 4): 1 / 6}),
        # The hips begin at half the rise, and end 3 m before the wall.
        ("half-hipped", {(0, 0): 1, (10, 0): 0.5, (7, 0): 1, (8.5, 0): 0.75, (10, 4.5): 0.25}),
        ("side-hipped", {(-10, 0): 1, (4, 0): 1, (7, 0): 0.5, (10, 0): 0, (-10, 3): 0.5}),
        ("pyramidal", {(0, 0): 1, (5, 0): 0.5, (0, 3): 0.5, (10, 0): 0, (5, 3): 0.5, (5, 1): 0.5}),
        # Two thirds of the rise on the first third of the way.
        ("gambrel", {(0, 0): 1, (10, 0): 1, (0, 4): 2 / 3, (0, 5): 1 / 3, (0, 2): 5 / 6}),
        (
            "mansard",
            {(0, 0): 1, (4, 0): 1, (8, 0): 2 / 3, (10, 0): 0, (0, 5): 1 / 3},
        ),
        ("dome", {(0, 0): 1, (5, 0): HALF, (0, 3): HALF, (10, 0): 0, (6, 0): 0.8}),
        ("cone", {(0, 0): 1, (5, 0): 0.5, (10, 6): 0}),
        ("round", {(0, 0): 1, (10, 0): 1, (0, 3): HALF, (5, 3.6): 0.8, (0, 6): 0}),
        ("skillion", {(0, 0): 0.5, (0, -6): 1, (0, 6): 0, (9, -3): 0.75}),
        # The ridge is 4 m from the short side's wall.
        ("saltbox", {(0, -2): 1, (0, -6): 0, (0, 6): 0, (0, -4): 0.5, (0, 2): 0.5}),
        ("sawtooth", {(0, -6): 1, (0, -3): 0.5, (0, 0): 1, (0, 3): 0.5, (0, 5.999): 0}),
        ("butterfly", {(0, 0): 0, (0, 6): 1, (0, -3): 0.5}),
    ],
)
def test_roofs_on_a_rectangle(shape: str, heights: dict[tuple[float, float], float]) -> None:
    for (u, v), height in heights.items():
        assert share(shape, u, v) == pytest.approx(height, abs=2e-3), (u, v)


def test_an_onion_bulges_and_ends_in_a_point() -> None:
    heights = [share("onion", 10 * x, 0) for x in (1.0, 0.9, 0.5, 0.2, 0.0)]
    assert heights[0] == 0 and heights[-1] == 1 and np.all(np.diff(heights) > 0)
    # It is upright at the walls and slender at the top: convex below, concave above.
    assert heights[1] > 0.3 and heights[3] < 0.75


def test_every_mapped_shape_has_a_roof() -> None:
    assert set(roofs.OF_MAP) == set(ROOF_SHAPES) - {"unknown"}


def test_a_cone_on_a_round_footprint_is_a_cone() -> None:
    disc = outlines(one(shapely.Point(50, 50).buffer(10, quad_segs=64)))
    centre = centroids(disc)[0]
    assert centre == pytest.approx((50, 50))
    for angle in np.linspace(0, 6, 7):
        x, y = 50 + 4 * np.cos(angle), 50 + 4 * np.sin(angle)
        place = roofs.radial_place(disc.xy, 0, len(disc.xy), *centre, x, y)
        assert place == pytest.approx(0.4, abs=1e-3)


def axes(degrees: float, direction: float = np.nan, orientation: int = 0, shape: str = "gabled"):
    lines = outlines(one(rectangle(0, 0, 20, 12, degrees)))
    return roofs.roof_axes(
        lines,
        rectangles(lines),
        np.array([roofs.OF_MAP[shape]]),
        np.array([direction]),
        np.array([orientation]),
    )


def same_line(a: float, b: float) -> bool:
    return bool(abs(np.sin(a - b)) < 1e-9)


def test_the_ridge_runs_along_the_longer_side_unless_the_map_says_else() -> None:
    for degrees in (0.0, 30.0, -50.0):
        turn = np.radians(degrees)
        along, across = axes(degrees, orientation=ALONG), axes(degrees, orientation=ACROSS)
        assert same_line(along.angle[0], turn) and along.length[0] == pytest.approx(10)
        assert same_line(across.angle[0], turn + np.pi / 2)
        assert across.length[0] == pytest.approx(6) and across.width[0] == pytest.approx(10)
    # The teeth of a sawtooth roof stand side by side along a hall.
    assert axes(0, shape="sawtooth").width[0] == pytest.approx(10)


def test_a_roof_falls_towards_its_direction() -> None:
    for direction, (east, north) in {0: (0, 1), 90: (1, 0), 180: (0, -1), 270: (-1, 0)}.items():
        found = axes(0, float(direction), shape="skillion")
        v = -np.sin(found.angle[0]), np.cos(found.angle[0])
        assert v == pytest.approx((east, north), abs=1e-9)
        assert found.width[0] == pytest.approx(10 if east else 6)
    # About the direction of a wall is that of the wall; far from it counts as it is.
    assert same_line(axes(8, 0.0).angle[0], np.radians(8))
    oblique = axes(0, 45.0)
    assert same_line(oblique.angle[0], np.radians(-45))
    assert oblique.width[0] == pytest.approx((10 + 6) / np.sqrt(2))


def shaped(polygon: shapely.Polygon, height: float, **tags: float) -> buildings.Shapes:
    lines = outlines(one(polygon))
    form = unknown_form(1)
    for name, value in tags.items():
        form[name] = value
    roof = roofs.roof_of_map(form["roof"])
    box = rectangles(lines)
    found = roofs.roof_axes(lines, box, roof, form["roof_direction"], form["roof_orientation"])
    return buildings.shape_roofs(
        Noise(1).of_stage("test").stream("test"),
        np.array([7], np.uint64),
        box,
        np.array([height]),
        np.zeros(1, bool),
        np.array([6.0]),
        (form, roof, found),
    )


def test_a_height_is_that_of_the_top_of_the_roof() -> None:
    house = rectangle(0, 0, 20, 12)
    for name in ROOF_SHAPES[1:]:
        made = shaped(house, 12.0, roof=ROOF_NUMBER[name], roof_height=3.0)
        flat = name == "flat"
        assert made.eaves[0] == pytest.approx(12 if flat else 9)
        assert made.rise[0] == pytest.approx(0 if flat else 3)


def test_roof_heights_from_angles_and_eaves() -> None:
    house, gabled = rectangle(0, 0, 20, 12), ROOF_NUMBER["gabled"]
    made = shaped(house, 12.0, roof=gabled, roof_angle=45.0)
    assert (made.eaves[0], made.rise[0]) == pytest.approx((6, 6))
    made = shaped(house, 30.0, roof=ROOF_NUMBER["skillion"], roof_angle=45.0)
    assert made.rise[0] == pytest.approx(12)
    made = shaped(house, 12.0, eaves=9.0)
    assert made.roof[0] != roofs.FLAT and made.eaves[0] == pytest.approx(9)
    made = shaped(house, np.nan, eaves=9.0, roof=gabled)  # the roof comes on top
    assert made.eaves[0] == pytest.approx(9) and made.rise[0] > 1
    made = shaped(house, 12.0, roof_height=0.0)
    assert made.roof[0] == roofs.FLAT and made.eaves[0] == 12
    made = shaped(house, 5.0, roof=ROOF_NUMBER["pyramidal"], roof_height=9.0)  # a tent
    assert (made.eaves[0], made.rise[0]) == pytest.approx((0, 5))


def test_undersides() -> None:
    house = rectangle(0, 0, 20, 12)
    assert shaped(house, 24.0, base=18.0).bottom[0] == 18
    assert shaped(house, 24.0, base=18.0).eaves[0] == 24  # flat unless the map says else
    assert shaped(house, 6.0, open=True).bottom[0] == pytest.approx(6 - buildings.SLAB)
    assert shaped(house, 6.0).bottom[0] == 0


def stacked(*solids: tuple[float, float, int], standing: float = np.nan, size: float = 1.0):
    """One column: (underside, top, number) of each solid that hangs."""
    cell = lambda value, kind: np.full((1, 1), value, kind)  # noqa: E731
    made = parts.stack_solids(
        cell(standing, np.float32),
        cell(0 if np.isnan(standing) else 9, np.uint32),
        cell(0.0, np.float32),
        size,
        [(cell(t, np.float32), cell(n, np.uint32), cell(u, np.float32)) for u, t, n in solids],
    )
    return tuple(
        float(getattr(made, name)[0, 0])
        for name in ("under", "top", "object", "lower", "lower_object")
    )


def test_solids_in_a_column() -> None:
    nan = np.nan
    np.testing.assert_equal(stacked(standing=5.0), (nan, 5, 9, nan, 0))
    np.testing.assert_equal(stacked((18, 24, 1)), (18, 24, 1, nan, 0))
    np.testing.assert_equal(stacked((18, 24, 1), standing=5.0), (18, 24, 1, 5, 9))
    # What touches is one solid, in any order.
    for pair in ((10, 20, 1), (20, 30, 2)), ((20, 30, 2), (10, 20, 1)):
        np.testing.assert_equal(stacked(*pair, standing=10.0), (nan, 30, 2, nan, 0))
        np.testing.assert_equal(stacked(*pair), (10, 30, 2, nan, 0))
    np.testing.assert_equal(stacked((0.2, 4, 1)), (nan, 4, 1, nan, 0))
    np.testing.assert_equal(stacked((3, 5, 1), standing=12.0), (nan, 12, 9, nan, 0))
    # Of two gaps above each other the lower one closes; never that to the ground.
    three = (10, 12, 1), (14, 16, 2), (30, 32, 3)
    np.testing.assert_equal(stacked(*three[:2]), (10, 16, 2, nan, 0))
    np.testing.assert_equal(stacked(*three, standing=5.0), (10, 32, 3, 5, 9))


def test_ridges_of_complex_roofs() -> None:
    lines = outlines(one(shapely.box(0, 0, 20, 12)))
    inner = shapely.MultiLineString([[(6, 6), (14, 6)]])
    x, y = np.array([10.0, 6.0, 10.0, 3.0, 19.9]), np.array([6.0, 6.0, 3.0, 6.0, 6.0])
    hipped = parts.ridged_share(lines, 0, inner, x, y)
    assert hipped[:4] == pytest.approx([1, 1, 0.5, 0.5], abs=0.02) and hipped[4] < 0.05
    whole = shapely.MultiLineString([[(0, 6), (20, 6)]])
    gabled = parts.ridged_share(lines, 0, whole, x, y)
    assert gabled == pytest.approx([1, 1, 0.5, 1, 1], abs=0.02)


def test_edges_of_complex_roofs_are_straight() -> None:
    """A valley between two ridges, which without its line the planes would fill."""
    lines = outlines(one(shapely.box(0, 0, 20, 12)))
    ridges = [[(3, 6, 1), (8, 6, 1)], [(12, 6, 1), (17, 6, 1)]]
    valley = [(10, 0, 0), (10, 12, 0)]
    x, y = np.array([10.0, 10.0, 5.0, 15.0, 9.0]), np.array([6.0, 3.0, 6.0, 6.0, 6.0])
    filled = parts.ridged_share(lines, 0, shapely.MultiLineString(ridges), x, y)
    assert filled[0] > 0.9
    made = parts.ridged_share(lines, 0, shapely.MultiLineString([*ridges, valley]), x, y)
    assert made == pytest.approx([0, 0, 1, 1, 0.5], abs=0.02)
    # Between the outline and a ridge it rises evenly, also over a bend.
    hip = [(0, 2, 0), (4, 2, 0), (8, 6, 0)]
    inner = shapely.MultiLineString([[(8, 6, 1), (12, 6, 1)], hip])
    at = np.array([2.0, 4.0, 6.0]), np.array([2.0, 2.0, 4.0])
    length = 4 + np.hypot(4, 4)
    expected = np.array([2.0, 4.0, 4 + np.hypot(2, 2)]) / length
    assert parts.ridged_share(lines, 0, inner, *at) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("size", [0.5, 1.0, 2.0])
def test_roofs_without_walls_stand_on_posts(size: float) -> None:
    frame = Frame("EPSG:32632", size, (0, int(40 / size)), (0, int(40 / size)))
    shape = shapely.box(8, 10, 24, 18)
    owner = rasterise(outlines(one(shape)), frame)
    form = unknown_form(1)
    form["open"] = True
    roof = Buildings(one(shape), np.array([4.0]), np.array([7], np.uint64), form)
    ground = np.full(frame.shape, 30.0, np.float32)
    under = np.where(owner == 0, np.float32(33.6), np.float32(np.nan))
    stood = posts.on_posts(frame, roof, owner, under, ground)
    row, col = np.nonzero(stood == 30.0)
    x, y = (col + 0.5) * size, 40 - (row + 0.5) * size
    assert 4 <= len(row) <= 12
    assert np.abs(x - 16).max() > 7 - size and np.abs(y - 14).max() > 3 - size  # at the corners
    near = shapely.distance(shapely.boundary(shape), shapely.points(x, y))
    assert near.max() <= 1.3 * size
    # What the map lifts by itself hangs, and coarse voxels have no posts.
    form["base"] = 3.0
    lifted = Buildings(one(shape), np.array([4.0]), np.array([7], np.uint64), form)
    assert posts.on_posts(frame, lifted, owner, under, ground) is under


def test_groups_do_not_overlap() -> None:
    shapes = np.array([shapely.box(x, 0, x + 10, 10) for x in (0, 10, 5, 30)], object)
    made = Buildings(shapes, np.full(4, 9.0), np.arange(4, dtype=np.uint64))
    groups = [set(group.tolist()) for group in parts.apart(made)]
    assert groups == [{0, 1, 3}, {2}]


OSM = next(each for each in builtin_crosswalks() if each.name == "osm")


def layers_on(frame: Frame, slope: float = 0.1) -> dict[str, object]:
    """Semantics of the gallery of roofs, and a slope, as wide as the stages read around `frame`."""
    wide = padded(frame)
    reader = open_semantics([roof_gallery()], frame, SemanticsOptions(legends=(OSM,)))
    x, _ = places(wide)
    ground = np.broadcast_to(100 + slope * (x - 500000), wide.shape).astype(np.float32)
    return {"semantics": reader.read(wide), "dem": Raster(wide, ground)}


def gallery_frame(x0: int, x1: int, y0: int, y1: int) -> Frame:
    return Frame("EPSG:32632", 1.0, (500000 + x0, 500000 + x1), (5500000 + y0, 5500000 + y1))


def test_windows_agree_on_roofs_and_parts() -> None:
    whole = gallery_frame(0, 180, 60, 150)
    made = generate(whole, layers_on(whole))
    halves = [gallery_frame(0, 43, 60, 150), gallery_frame(43, 180, 60, 150)]
    parts_of = [generate(half, layers_on(half)) for half in halves]
    for half, part in zip(halves, parts_of, strict=True):
        rows = made.voxels.inside(half)
        assert np.array_equal(part.voxels.xyz, made.voxels.xyz[rows])
        assert np.array_equal(part.voxels.object, made.voxels.object[rows])
        assert np.array_equal(part.offset, made.offset[rows])
        assert np.array_equal(part.normal, made.normal[rows])
        colours = paint(part, layers_on(half)).sh
        assert np.array_equal(colours, paint(made, layers_on(whole)).sh[rows])


def test_parts_of_a_building_stand_on_the_ground_of_all_of_it() -> None:
    """On a slope of 10 % the towers of the castle, 36 m apart, end at one height."""
    frame = gallery_frame(10, 70, 100, 150)
    made = generate(frame, layers_on(frame))
    ground, size = made.ground, frame.voxel_size
    xyz = made.voxels.xyz
    row, col = frame.y[1] - 1 - xyz[:, 1], xyz[:, 0] - frame.x[0]
    top = ground[row, col] + (xyz[:, 2] + 0.5) * size + made.offset[:, 2]
    x, y = xyz[:, 0] + 0.5 - 500040, xyz[:, 1] + 0.5 - 5500126
    towers = [
        top[np.hypot(x - east, y - north) < 3.5].max() for east in (-18, 18) for north in (-10, 10)
    ]
    # 104 m is the mean ground of the outline. The middle of a cell lies 0.7 m beside the point of
    # a cone, 1.6 m below it.
    assert np.ptp(towers) < 0.5 and max(towers) == pytest.approx(104 + 26 - 1.6, abs=0.1)
    keep = (np.abs(x) < 3.5) & (np.abs(y) < 2.5)
    assert top[keep].max() == pytest.approx(104 + 28, abs=1.0)


def test_colours_of_the_map() -> None:
    frame = gallery_frame(0, 36, 0, 36)
    layers = layers_on(frame, 0.0)
    made = generate(frame, layers)
    splats = paint(made, layers)
    rgb = base_colours(splats.sh).astype(float)
    built = (made.voxels.semantic == codes()["building"]) & (made.voxels.object != 0)
    roof = built & (made.normal[:, 2] > 0.9) & (made.voxels.xyz[:, 2] > 10)
    # roof:colour=#b5523c, building:colour=white.
    assert np.median(rgb[roof], axis=0) == pytest.approx((181, 82, 60), abs=12)
    wall = built & (np.abs(made.normal[:, 2]) < 0.1) & (made.voxels.xyz[:, 2] > 1)
    assert np.percentile(rgb[wall], 90, axis=0).min() > 235
    unmapped = mapped_colours(layers["semantics"].buildings.take(slice(0, 0)), made.voxels)
    assert unmapped is None


def test_told_colours_are_those_of_the_map() -> None:
    frame = gallery_frame(0, 72, 0, 36)
    layers = layers_on(frame, 0.0)
    made = generate(frame, layers)
    voxels = made.voxels
    part = np.where(made.normal[:, 2] > 0.5, ROOF, WALL)
    mapped = mapped_colours(layers["semantics"].buildings, voxels)
    drawn = draw_object_colours(voxels.object, part, Noise(1), "rules")
    rgb, known = with_mapped_colours(*drawn, part, mapped)
    west = (voxels.xyz[:, 0] < 500036) & (voxels.semantic == codes()["building"]) & known
    assert (rgb[west & (part == ROOF)] == (181, 82, 60)).all()
    assert (rgb[west & (part == WALL)] == 255).all()
    other = (voxels.semantic != codes()["building"]) & known
    assert np.array_equal(rgb[other], drawn[0][other])
