"""Simulated scenes: the mix of kinds, what a scene holds, and that a run continues."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from earthgen.dataset.crop import Crop
from earthgen.errors import JobError, UnknownNameError
from earthgen.jobs import simulate as module
from earthgen.jobs.simulate import MIX, Request, made_up_requests, simulate
from earthgen.models.tex_flow import object_parts
from earthgen.training.batches import make_batch
from earthgen.voxels.object_colours import WALL
from earthgen_conditions.encoders import SemanticsEncoder
from geo_io.legend import codes

CODE = codes()


def test_the_mix_holds_for_any_beginning() -> None:
    requests = made_up_requests(100, seed=7)
    assert len({request.name for request in requests}) == len(requests)
    assert sum(1.024**2 for _ in requests) >= 100
    assert [request.seed for request in requests[:3]] == [7, 8, 9]
    total = sum(MIX.values())
    for count in (15, 60, len(requests)):
        for kind, share in MIX.items():
            made = sum(request.kind == kind for request in requests[:count])
            assert abs(made - count * share / total) <= 1.5
    assert {request.kind for request in made_up_requests(5, kinds=["town"])} == {"town"}
    with pytest.raises(UnknownNameError, match="'city'"):
        made_up_requests(1, kinds=["city"])
    with pytest.raises(JobError, match="positive"):
        made_up_requests(0)


def assert_windows(crop: Crop, walls: NDArray) -> None:
    """Walls are light, windows dark, and texture is taught both with full weight."""
    batch = make_batch([crop])
    assert bool((batch.trust == 1).all())
    light = crop.rgb[walls].mean(axis=1)
    by_storey = [light[(crop.xyz[walls][:, 2]) % 3 == rest].mean() for rest in range(3)]
    assert max(by_storey) - min(by_storey) > 10, "windows repeat with the storeys"
    parts = object_parts(batch.sites, batch.semantic, batch.normal, batch.object)
    assert int((parts == WALL).sum()) > 0.8 * walls.sum()


def test_a_scene_has_objects_a_map_and_true_walls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EDGE", 128.0)
    opened = []
    read = SemanticsEncoder.open
    monkeypatch.setattr(
        SemanticsEncoder,
        "open",
        lambda self, *given: opened.append(1) or read(self, *given),
    )
    request = [Request("suburb-3", 3, "suburb")]
    (scene,) = simulate(request, tmp_path, voxel_size=2.0)
    assert len(opened) == 1, "the land use is read once"
    assert scene.info.kind == "simulated" and scene.info.licence == "CC0-1.0"
    crop = scene.crop(scene.frame)
    built = crop.cover == CODE["building"]
    assert built.any() and ((crop.building > 0) == built).all()
    assert (crop.building_height[built] > 0).all() and (crop.building_height[~built] == 0).all()
    assert (crop.building_axes[built][:, 3] > 0).all()
    # Single trees stand in gardens that the map calls residential.
    tree = crop.cover == CODE["tree"]
    assert tree.any() and (crop.map[tree] != CODE["tree"]).mean() > 0.5
    assert (crop.map[built] == CODE["building"]).mean() > 0.95
    walls = (crop.semantic == CODE["building"]) & (np.abs(crop.normal[:, 2]) < 0.3)
    assert walls.any() and crop.rgb_known[walls].all() and (crop.object[walls] > 0).all()
    assert_windows(crop, walls)
    assert not list(tmp_path.glob(".*")), "no world is left"
    before = scene.path.stat().st_mtime_ns
    (again,) = simulate(request, tmp_path, voxel_size=2.0)
    assert again.path.stat().st_mtime_ns == before, "a scene that exists is kept"
