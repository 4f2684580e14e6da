"""Simulated scenes: the mix of kinds, what a scene holds, and that a run continues."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from earthgen.errors import JobError, UnknownNameError
from earthgen.jobs import simulate as module
from earthgen.jobs.simulate import MIX, Request, made_up_requests, simulate
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


def test_a_scene_has_objects_a_map_and_true_walls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EDGE", 128.0)
    request = [Request("suburb-3", 3, "suburb")]
    (scene,) = simulate(request, tmp_path, voxel_size=2.0)
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
    assert not list(tmp_path.glob(".*")), "no world is left"
    before = scene.path.stat().st_mtime_ns
    (again,) = simulate(request, tmp_path, voxel_size=2.0)
    assert again.path.stat().st_mtime_ns == before, "a scene that exists is kept"
