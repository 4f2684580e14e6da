"""What the rules build of bridges, barriers, masts, covered ways and markings."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from shapely.geometry import LineString, Point, Polygon, box

from earthgen.noise.philox import Noise
from earthgen.voxels.objects import FLAT_ROOF, object_number
from earthgen_procedural import markings, structures, trace
from earthgen_procedural.parts import Stacked, stack_solids
from geo_io.frame import Frame
from geo_io.legend import codes
from geo_io.structures import KIND, STRUCTURE_FORM, Profile, Structures, no_structures

CODE = codes()
NOISE = Noise(3)
FRAME = Frame("EPSG:32632", 1.0, (1000, 1060), (2000, 2040))
ORIGIN = np.array([1000.0, 2000.0])
LEVEL = 30.0


def moved(shape: shapely.Geometry) -> shapely.Geometry:
    return shapely.transform(shape, lambda xy: xy + ORIGIN)


def flat(start: float, end: float, height: float) -> Profile:
    """The profile of a level deck over places along its axis."""
    ends = np.array([start, end])
    return Profile(ends, np.zeros((2, 2)), np.full(2, height), ends, np.zeros(2))


def things(*rows: tuple[str, shapely.Geometry, Profile | None, dict[str, float]]) -> Structures:
    n = len(rows)
    form = np.zeros(n, STRUCTURE_FORM)
    shape, axis, profile = (np.empty(n, object) for _ in range(3))
    for k, (kind, geometry, heights, said) in enumerate(rows):
        form["kind"][k], form["base"][k] = KIND[kind], np.nan
        shape[k] = moved(geometry)
        axis[k] = shape[k] if geometry.geom_type == "LineString" else None
        profile[k] = heights
        for name, value in said.items():
            form[name][k] = value
    return Structures(shape, axis, profile, form, np.arange(1, n + 1, dtype=np.uint64) << 20)


def build(
    seen: Structures,
    cover: NDArray | None = None,
    frame: Frame = FRAME,
    top: NDArray | None = None,
) -> tuple[Stacked, structures.Built]:
    cover = np.full(frame.shape, CODE["grassland"], np.uint8) if cover is None else cover
    ground = np.full(frame.shape, LEVEL, np.float32)
    top = np.full(frame.shape, np.nan, np.float32) if top is None else top
    number = np.where(np.isnan(top), np.uint32(0), object_number(9, FLAT_ROOF)).astype(np.uint32)
    made = structures.add_structures(frame, seen, cover, ground, top, number, [], NOISE)
    return stack_solids(made.top, made.number, ground, frame.voxel_size, made.solids), made


BRIDGE = {"width": 7.0, "cover": CODE["road"], "layer": 1.0}
ACROSS = LineString([(0, 20), (60, 20)])


def test_a_deck_hangs_and_what_is_beneath_stays() -> None:
    cover = np.full(FRAME.shape, CODE["grassland"], np.uint8)
    cover[:, 38:48] = CODE["river"]
    built, made = build(things(("deck", ACROSS, flat(0, 60, LEVEL + 8), BRIDGE)), cover)
    middle = built.top[20]
    assert np.nanmin(middle) == LEVEL + 8
    hangs = ~np.isnan(built.under[20])
    assert hangs[38:48].all() and np.isnan(built.lower[20][hangs]).all()
    assert np.allclose(built.under[20][38:48], LEVEL + 7)
    assert np.array_equal(made.cover, cover)
    assert (made.class_of(built.object, ~np.isnan(built.top))[20] == CODE["road"]).all()
    assert np.isnan(built.top[[5, 35]]).all()  # no wider than its way and its edges
    # Railings along both edges, and piers that do not stand on ways.
    assert np.nanmax(built.top) == LEVEL + 9
    stands = np.flatnonzero(np.isnan(built.under[20]))
    assert 1 <= len(stands) < 8


def test_piers_leave_ways_free() -> None:
    cover = np.full(FRAME.shape, CODE["road"], np.uint8)
    built, _ = build(things(("deck", ACROSS, flat(0, 60, LEVEL + 8), BRIDGE)), cover)
    assert not np.isnan(built.under[20]).any()


def test_a_deck_on_the_ground_is_a_way() -> None:
    built, made = build(things(("deck", ACROSS, flat(0, 60, LEVEL - 0.4), BRIDGE)))
    assert (made.cover[18:22] == CODE["road"]).all() and np.isnan(built.under).all()
    assert np.nanmax(built.top) < LEVEL + 0.1


@pytest.mark.parametrize("size", [0.5, 1.0, 2.0])
def test_water_stays_below_a_low_bridge_at_any_voxel(size: float) -> None:
    frame = Frame(
        "EPSG:32632", size, *((int(a / size), int(b / size)) for a, b in (FRAME.x, FRAME.y))
    )
    cover = np.full(frame.shape, CODE["lake"], np.uint8)
    built, _ = build(things(("deck", ACROSS, flat(0, 20, LEVEL + 1.2), BRIDGE)), cover, frame)
    row = frame.ny // 2
    assert not np.isnan(built.under[row]).any() and np.isnan(built.lower[row]).all()


def test_ramps_raise_the_ground_and_fade_out() -> None:
    line = LineString([(10, 20), (50, 20)])
    rise = Profile(np.array([0.0, 40.0]), np.zeros((2, 2)), np.zeros(2), np.array([0.0, 40.0]),
                   np.array([4.0, 0.0]))  # fmt: skip
    seen = things(("ramp", line, rise, {"width": 6.0, "cover": CODE["road"]}))
    ground = np.full(FRAME.shape, LEVEL, np.float32)
    cover = np.full(FRAME.shape, CODE["grassland"], np.uint8)
    cover[:, 45:] = CODE["river"]
    made = structures.raise_ramps(FRAME, seen, ground, cover) - LEVEL
    along = made[20, 10:45]
    assert 3.9 < along[0] <= 4.0 and (np.diff(along) < 0).all()
    assert (made[:, 45:] == 0).all() and (made[:, :10] == 0).all() and made[2].max() == 0
    assert structures.raise_ramps(FRAME, no_structures(), ground, cover) is ground


def test_a_wall_has_its_height_and_opens_for_ways() -> None:
    wall = {"width": 0.4, "height": 2.5, "style": 1, "cover": CODE["paved"]}
    path = {"width": 3.0, "cover": CODE["paved"]}
    built, made = build(
        things(
            ("barrier", ACROSS, None, wall),
            ("way", LineString([(30, 0), (30, 40)]), None, path),
        )
    )
    stands = ~np.isnan(built.top)
    assert np.allclose(built.top[stands], LEVEL + 2.5)
    assert stands.any(axis=0)[:28].all() and stands.any(axis=0)[33:].all()
    assert not stands[:, 30].any() and stands.sum() < 140
    assert set(made.class_of(built.object, stands)[stands].tolist()) == {CODE["paved"]}


def test_hedges_are_plants() -> None:
    hedge = {"width": 1.2, "height": 1.6, "cover": CODE["tree"]}
    built, made = build(things(("hedge", ACROSS, None, hedge)))
    stands = ~np.isnan(built.top)
    assert set(made.class_of(built.object, stands)[stands].tolist()) == {CODE["tree"]}
    assert len(np.unique(built.object[stands])) > 5  # stretches with shades of their own


def test_buildings_open_where_ways_run_through() -> None:
    top = np.full(FRAME.shape, np.nan, np.float32)
    top[10:30, 20:40] = LEVEL + 10
    way = {"width": 4.0, "height": 4.5, "cover": CODE["road"]}
    built, _ = build(things(("passage", ACROSS, None, way)), top=top)
    assert np.allclose(built.under[19:21, 20:40], LEVEL + 4.5)
    assert np.isnan(built.lower[20]).all() and (built.top[20, 20:40] == LEVEL + 10).all()
    assert np.isnan(built.under[12]).all() and np.isnan(built.top[20, :20]).all()
    covered = things(("passage", ACROSS, None, {**way, "covered": True}))
    roofed, _ = build(covered, top=top)
    assert np.allclose(roofed.under[20, :20], LEVEL + 4.5)


def test_masts_and_cables() -> None:
    size = 0.5
    frame = Frame("EPSG:32632", size, (2000, 2120), (4000, 4080))
    line = LineString([(5, 20), (55, 20)])
    at = np.array([0.0, 50.0])
    heights = Profile(at, np.zeros((2, 2)), np.full(2, LEVEL), at, np.full(2, 18.0))
    wire = {"width": 8.0, "height": 20.0, "style": 3, "cover": CODE["paved"]}
    tower = {"width": 4.0, "height": 20.0, "style": 3, "cover": CODE["paved"]}
    pole = {"width": 0.3, "height": 9.0, "style": 2, "cover": CODE["paved"]}
    built, _ = build(
        things(
            ("cable", line, heights, wire),
            ("mast", Point(5, 20), None, tower),
            ("mast", Point(30.2, 5.2), None, pole),
        ),
        frame=frame,
    )
    assert np.nanmax(built.top) >= LEVEL + 20
    row, col = np.nonzero(built.top[:40, 50:70] > LEVEL)
    middle = built.top[:, 60]
    hung = np.flatnonzero(~np.isnan(built.under[:, 60]))
    assert 3 <= len(hung) <= 6 and np.nanmin(middle[hung]) > LEVEL + 14
    assert np.nanmin(built.top[:, 60]) < np.nanmin(built.top[hung][:, 20]) + 2  # it sags
    near_pole = built.top[60:75, 55:66]
    assert 1 <= (~np.isnan(near_pole) & (near_pole < LEVEL + 9.5)).sum() <= 4
    assert len(row) == len(col)


def test_windows_agree() -> None:
    seen = things(
        ("deck", LineString([(0, 3), (60, 37)]), flat(0, 69, LEVEL + 8), BRIDGE),
        ("barrier", LineString([(3, 0), (50, 39)]), None,
         {"width": 0.4, "height": 2.0, "cover": CODE["paved"]}),
        ("pier", LineString([(0, 30), (30, 30)]), None, {"width": 3.0, "cover": CODE["paved"]}),
    )  # fmt: skip
    cover = np.full(FRAME.shape, CODE["lake"], np.uint8)
    whole, _ = build(seen, cover)
    part = Frame("EPSG:32632", 1.0, (1017, 1043), (2008, 2031))
    inside = FRAME.slices(part)
    cut, _ = build(seen, cover[inside], part)
    for name in ("top", "object", "under", "lower"):
        expected, found = getattr(whole, name)[inside], getattr(cut, name)
        assert np.array_equal(expected, found, equal_nan=name != "object")


def test_traced_cells_lie_within_the_width_of_a_line() -> None:
    line = np.array([moved(LineString([(10, 10), (40, 10), (40, 30)]))], object)
    found = trace.trace(FRAME, line, np.array([3.0]), np.zeros(1))
    row, col, along, aside = found.cells(0)
    x, y = 1000.5 + col, 2039.5 - row
    distance = shapely.distance(line[0], shapely.points(x, y))
    assert np.allclose(np.abs(aside), distance, atol=1e-4) and (distance <= 3.0).all()
    at = shapely.line_locate_point(line[0], shapely.points(x, y))
    assert np.allclose(along, at, atol=1e-3)
    band = shapely.buffer(line[0], 3.0, cap_style="flat")
    assert abs(len(row) - band.area) < 12


def test_lines_of_a_pitch_lie_where_the_rules_say() -> None:
    u, v = np.meshgrid(np.arange(-60, 60, 0.25), np.arange(-40, 40, 0.25))
    lines = np.min(np.abs(markings.court_lines("soccer", u, v, 52.8, 34.3)), axis=0)

    def on(x: float, y: float) -> bool:
        return bool(lines[np.argmin(np.abs(v[:, 0] - y)), np.argmin(np.abs(u[0] - x))] < 0.13)

    assert on(0, 10) and on(9.25, 0) and on(52.5, 3) and on(-36, 8) and on(20, 34)
    assert not on(20, 10) and not on(56, 0) and not on(45, 25)
    small = markings.court_lines("tennis", np.array([0.0]), np.array([1.0]), 0.2, 0.2)
    assert small == []


def test_bays_stand_beside_aisles() -> None:
    frame = Frame("EPSG:32632", 0.25, (4000, 4160), (8000, 8080))
    seen = things(("parking", box(0, 0, 40, 16), None, {"style": 0}))
    cover = np.full(frame.shape, CODE["paved"], np.uint8)
    colour = np.full((*frame.shape, 3), 100.0, np.float32)
    markings.mark_ground(frame, seen, cover, colour)
    assert markings.marked_cells(frame, seen).sum() == 160 * 64
    lit = (colour[..., 0] > 115).mean(axis=1)[::-1]  # by metres from the south, in quarters
    assert lit[4:16].min() > 0.02 and lit[25:38].max() == 0 and lit[48:60].min() > 0.02
    assert (colour[:16] == 100).all()  # nothing beside the car park


def test_pools_are_paved_around() -> None:
    frame = Frame("EPSG:32632", 0.5, (2000, 2040), (4000, 4040))
    pool = Polygon([(5, 5), (15, 5), (15, 12), (5, 12)])
    seen = things(("pool", pool, None, {}))
    cover = np.full(frame.shape, CODE["grass"], np.uint8)
    cover[40 - 24 : 40 - 10, 10:30] = CODE["lake"]
    paved = markings.pave_rims(frame, seen, cover)
    assert (paved == CODE["lake"]).sum() == 20 * 14
    assert (paved == CODE["paved"]).sum() == 24 * 18 - 20 * 14
