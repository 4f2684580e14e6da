"""Colours of objects from palettes: one a part of an object, the same wherever it is asked for."""

from __future__ import annotations

import numpy as np
import pytest

from earthgen.errors import UnknownNameError
from earthgen.noise.philox import Noise
from earthgen.voxels.object_colours import (
    CROWN,
    OTHER,
    PALETTES,
    REAL_ROOFS,
    ROOF,
    WALL,
    draw_object_colours,
    leaf_table,
    roof_table,
    wall_table,
)
from earthgen.voxels.objects import (
    FLAT_ROOF,
    HALL_ROOF,
    NEEDLELEAF,
    PITCHED_ROOF,
    object_number,
)

NOISE = Noise(4).of_stage("test")


def test_an_object_has_one_colour_a_part_wherever_it_is_seen() -> None:
    number = np.repeat(np.arange(4, 404, 4, dtype=np.uint32), 6)
    part = np.tile([ROOF, ROOF, WALL, WALL, CROWN, OTHER], 100)
    rgb, known = draw_object_colours(number, part, NOISE)
    rgb, known = rgb.reshape(100, 6, 3), known.reshape(100, 6)
    assert (known == [True, True, True, True, True, False]).all()
    assert np.array_equal(rgb[:, 0], rgb[:, 1]) and np.array_equal(rgb[:, 2], rgb[:, 3])
    assert (rgb[:, 5] == 0).all() and not np.array_equal(rgb[:, 0], rgb[:, 2])
    assert len(np.unique(rgb[:, 0], axis=0)) > 50, "houses differ"
    # Alone or among others, in another order: a function of the object.
    some = np.array([500, 3, 77])
    again, _ = draw_object_colours(number[some], part[some], NOISE)
    assert np.array_equal(again, rgb.reshape(-1, 3)[some])
    other, _ = draw_object_colours(number[some], part[some], Noise(5).of_stage("test"))
    assert not np.array_equal(again, other)


def test_the_type_of_an_object_decides_the_palette_of_the_rules() -> None:
    keys = np.arange(1, 200) << 2
    for kind, part, table in (
        (PITCHED_ROOF, ROOF, roof_table()),
        (HALL_ROOF, WALL, wall_table()),
        (NEEDLELEAF, CROWN, leaf_table()),
    ):
        number = object_number(keys, kind)
        rgb, known = draw_object_colours(number, np.full(len(number), part), NOISE)
        assert known.all()
        # A colour of its palette, lighter or darker.
        ratio = rgb[:, None] / table[kind]
        same = np.ptp(ratio, axis=-1).min(axis=1)
        assert same.max() < 1e-3
        light = ratio.mean(-1)[np.arange(len(ratio)), np.ptp(ratio, axis=-1).argmin(axis=1)]
        assert light.min() > 0.92 and light.max() < 1.08


def test_real_colours_are_those_that_pictures_show() -> None:
    keys = np.arange(1, 1001) << 2
    for kind, as_the_rules, blues in (
        (FLAT_ROOF, False, False),
        (PITCHED_ROOF, True, False),
        (HALL_ROOF, False, True),
    ):
        number = object_number(keys, kind)
        of = {
            (palette, part): draw_object_colours(
                number, np.full(len(number), part), NOISE, palette
            )[0]
            for palette in ("rules", "real")
            for part in (ROOF, WALL)
        }
        np.testing.assert_array_equal(of["real", WALL], of["rules", WALL])
        assert np.array_equal(of["real", ROOF], of["rules", ROOF]) == as_the_rules
        roofs = of["real", ROOF]
        assert (roofs[:, 2] > 1.3 * roofs[:, 0]).any() == blues
    flat = draw_object_colours(
        object_number(keys, FLAT_ROOF), np.full(len(keys), ROOF), NOISE, "real"
    )[0]
    assert abs(flat.mean() - REAL_ROOFS.mean()) < 20 and flat.mean(axis=1).std() > 25


def test_palettes() -> None:
    number, part = np.array([4], np.uint32), np.array([ROOF])
    assert set(PALETTES) == {"rules", "real", "none"}
    rgb, known = draw_object_colours(number, part, NOISE, "none")
    assert not known.any() and not rgb.any()
    with pytest.raises(UnknownNameError, match="unknown palette 'pastel'"):
        draw_object_colours(number, part, NOISE, "pastel")
