"""Cases of users: heights, footprints, what lies underground, surfaces, regions."""

from __future__ import annotations

import numpy as np
import pytest

import earthgen
from geo_io.legend import codes
from tests.helpers.user_cases import Outcome, Run

ROUND = 0.6
"""Metres by which a roof of voxels of 1 m differs from its height, away from the ridge."""


def tops(outcome: Outcome) -> list[float]:
    assert outcome.codes == [0], outcome.text
    return [place.above for place in outcome.places]


def test_feet_nyc_heightroof(run: Run) -> None:
    np.testing.assert_allclose(tops(run("feet_nyc_heightroof")), [30.5, 61.0, 15.2], atol=ROUND)


def test_lidar_feet_unsaid(run: Run) -> None:
    outcome = run("lidar_feet_unsaid")
    assert outcome.codes == [0]
    (said,) = outcome.warnings
    assert "tallest building is 39.4 m, or 12.0 m if they are feet; --unit says which" in said


def test_lidar_feet_said(run: Run) -> None:
    assert run("lidar_feet_unsaid", "--unit", "ft").warnings == []


def test_heights_3dbag(run: Run) -> None:
    np.testing.assert_allclose(tops(run("heights_3dbag")), [30, 15], atol=ROUND)


def test_height_texts(run: Run) -> None:
    right = [12, 12, 12, 12.5, 12.5, 12.2, 12.2, 12.3, 12, 13, 14, 12, 12, 12, 12, 13, 12, 12, 12]
    right += [12, 39, np.nan, 12, 15, np.nan]
    outcome = run("height_texts")
    known = np.isfinite(right)
    np.testing.assert_allclose(np.array(tops(outcome))[known], np.array(right)[known], atol=ROUND)
    assert np.array(tops(outcome))[21] > 3  # "1,200" is not 1.2
    said = " ".join(outcome.warnings)
    assert "no height is known of 2 of 25 buildings" in said
    assert "1 of 25 buildings is not understood, such as height='1,200'" in said


def test_bdtopo_hauteur_is_the_eaves(run: Run) -> None:
    outcome = run("bdtopo_hauteur_is_the_eaves")
    assert outcome.codes == [0]
    layers = earthgen.open_world(outcome.folder / "out.zarr").layers(1)
    built = layers["semantics"].values == codes()["building"]
    above = (layers["surface"].values - layers["ground"].values)[built]
    assert abs(above.max() - 9.5) < ROUND
    assert abs(np.percentile(above, 2) - 6) < ROUND


def test_roof_height_overture(run: Run) -> None:
    outcome = run("roof_height_overture")
    np.testing.assert_allclose(tops(outcome)[:3], [31, 31, 31], atol=ROUND)
    assert outcome.places[3].above > 3
    assert "no height is known of 1 of 4 buildings" in " ".join(outcome.warnings)


@pytest.mark.parametrize(
    "name", ["building_column_bool", pytest.param("building_column_zero", marks=pytest.mark.slow)]
)
def test_building_column(run: Run, name: str) -> None:
    outcome = run(name)
    assert outcome.codes == [0]
    covers = [place.cover for place in outcome.places]
    assert covers == ["grassland", "cropland", "building"]
    assert outcome.areas["building"] == 900
    assert abs(outcome.areas["cropland"] - 10_000) < 500
    assert abs(outcome.areas["mixed_forest"] - 10_000) < 500


@pytest.mark.parametrize(
    "name",
    ["footprints_type_column", pytest.param("footprints_overture_subtype", marks=pytest.mark.slow)],
)
def test_footprints_with_a_use(run: Run, name: str) -> None:
    outcome = run(name)
    np.testing.assert_allclose(tops(outcome), [22, 31, 12, 9], atol=ROUND)
    assert outcome.areas["building"] == 3600


def test_tunnel_n(run: Run) -> None:
    outcome = run("tunnel_N")
    assert outcome.codes == [0] and outcome.areas["road"] == 1600
    assert not any("underground" in text for text in outcome.warnings)


def test_layer_minus_1_forest(run: Run) -> None:
    outcome = run("layer_minus_1_forest")
    assert outcome.codes == [0] and outcome.places[0].cover == "mixed_forest"
    assert abs(outcome.areas["mixed_forest"] - 20_000) < 400
    assert not any("underground" in text for text in outcome.warnings)


def test_dsm_ellipsoidal_dem_geoid(run: Run) -> None:
    outcome = run("dsm_ellipsoidal_dem_geoid")
    if outcome.codes == [0]:  # where PROJ has the grid of EGM96
        assert "is brought from" in " ".join(outcome.warnings)
    else:
        assert "the DSM lies 47.0" in outcome.text and "over open ground" in outcome.text
        assert "--vertical-shift -47.0" in outcome.text
        assert not (outcome.folder / "out.zarr").exists()


@pytest.mark.slow
def test_dsm_with_a_vertical_shift(run: Run) -> None:
    outcome = run("dsm_ellipsoidal_dem_geoid", "--vertical-shift", "-47")
    building, meadow, other = outcome.places
    assert building.cover == "building" and abs(building.above - 12) < ROUND
    assert meadow.above < 1 and other.above < 1


def test_region_is_a_layer_of_buildings(run: Run) -> None:
    outcome = run("region_is_a_layer_of_buildings")
    assert outcome.codes == [0]
    assert sum(outcome.areas.values()) == 180 * 180 and "unknown" not in outcome.areas
    assert "region buildings.gpkg is a layer of 2 buildings" in " ".join(outcome.warnings)
