"""Cases of users: files of all kinds, several of one kind, and what they leave unsaid."""

from __future__ import annotations

import numpy as np
import pytest

import earthgen
from tests.helpers.user_cases import Outcome, Run


def grounds(outcome: Outcome) -> list[float]:
    assert outcome.codes == [0], outcome.text
    return [place.ground for place in outcome.places]


def said(outcome: Outcome, text: str) -> bool:
    return any(text in warning for warning in outcome.warnings)


def test_osm_file(run: Run) -> None:
    outcome = run("osm_file")
    assert outcome.codes == [0]
    assert outcome.places[0].cover == "building" and abs(outcome.places[0].above - 15) < 0.6
    assert outcome.areas.keys() == {"mixed_forest", "building"}


@pytest.mark.parametrize(
    "name", ["two_dems", pytest.param("job_file_two_dems", marks=pytest.mark.slow)]
)
def test_two_dems(run: Run, name: str) -> None:
    outcome = run(name)
    assert outcome.codes == [0] and said(outcome, "the DEM covers 50.0% of the region")
    world = earthgen.open_world(outcome.folder / "out.zarr")
    ground = world.layers(1)["ground"]
    for x, y, height in (
        (500020, 5500120, 103.4),
        (500050, 5500180, 106.1),
        (500180, 5500180, 112.6),
    ):
        assert abs(float(ground.sel(x=x, y=y, method="nearest")) - height) < 0.2


def test_dem_second_band(run: Run) -> None:
    np.testing.assert_allclose(grounds(run("dem_second_band")), 250, atol=0.01)


def test_dem_minus_10000(run: Run) -> None:
    outcome = run("dem_minus_10000")
    np.testing.assert_allclose(grounds(outcome)[2], 110, atol=2)
    assert said(outcome, "holds -10000 without declaring it as nodata")


@pytest.mark.parametrize("size", ["1", pytest.param("4", marks=pytest.mark.slow)])
def test_dem_9999_in_averaged_overviews(run: Run, size: str) -> None:
    outcome = run("dem_9999_in_averaged_overviews", "--voxel-size", size)
    np.testing.assert_allclose(grounds(outcome), [106.3, 106.9, 107.7], atol=0.3)
    assert said(outcome, "holds -9999 without declaring it as nodata")


def test_dem_as_points(run: Run) -> None:
    outcome = run("dem_as_points")
    assert outcome.codes == [3]
    assert "is a file of points or lines, not a raster, and has heights at 2 places" in outcome.text
    assert "gdal_grid or QGIS's TIN interpolation" in outcome.text


def test_gml2_of_a_wfs(run: Run) -> None:
    outcome = run("gml2_of_a_wfs")
    assert outcome.codes == [0] and outcome.areas.keys() == {"mixed_forest"}


def test_dbf_shift_jis(run: Run) -> None:
    outcome = run("dbf_shift_jis")
    assert outcome.codes == [0] and outcome.places[0].cover == "mixed_forest"
    assert said(outcome, "its texts were read as CP932, which it does not declare: '森林'")


def test_crs_south_orientated(run: Run) -> None:
    outcome = run("crs_south_orientated")
    assert outcome.codes[0] == 4
    assert "point west and south, not east and north" in outcome.text


def test_image_bgrn_described(run: Run) -> None:
    outcome = run("image_bgrn_described")
    assert outcome.codes == [0]
    rgb = earthgen.open_world(outcome.folder / "out.zarr").layers()["rgb"].values
    np.testing.assert_allclose(rgb[90:110, 20:80].reshape(-1, 3).mean(axis=0), [200, 60, 20])


def test_raster_globeland30(run: Run) -> None:
    outcome = run("raster_globeland30")
    assert outcome.codes == [0]
    covers = {"cropland", "mixed_forest", "lake", "residential", "bare_ground"}
    assert covers <= outcome.areas.keys()
    assert outcome.places[0].cover == "cropland" and outcome.places[2].cover == "lake"
    assert "wetland" not in outcome.areas and "shrub" not in outcome.areas


def test_corine_code_as_text_with_point_zero(run: Run) -> None:
    outcome = run("corine_code_as_text_with_point_zero")
    assert outcome.codes == [0] and outcome.places[0].cover == "broadleaf_forest"


def test_remedy_loses_its_dots(run: Run) -> None:
    assert run("remedy_loses_its_dots").codes == [0]  # .osm.gz is read as it is
