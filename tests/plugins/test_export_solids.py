"""Closed solids: watertight by trimesh and by OpenFOAM, with the volume of the buildings."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import trimesh

from earthgen.errors import JobError, SizeError
from earthgen.mesh.solids import open_edges
from earthgen.progress import Progress
from earthgen.world.world import World
from earthgen_solids import exporter
from earthgen_solids.exporter import ObjExporter, StlExporter, StlOptions
from tests.helpers import synthetic

pytest.importorskip("manifold3d")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return synthetic.make(
        tmp_path_factory.mktemp("solids") / "world.zarr", (0, 96), (64, 160), tile_size=128
    )


def export(world: World, out: Path, kind=StlExporter, level: int = 1, bounds=None, **options):
    out.mkdir(exist_ok=True)
    made = kind(StlOptions(**options)) if kind is StlExporter else kind()
    return made.export(world, out, bounds=bounds, level=level, progress=Progress())


def by_name(path: Path) -> dict[str, trimesh.Trimesh]:
    """The solids of a text STL, vertices merged as readers do."""
    out: dict[str, list] = {}
    name = ""
    for line in path.read_text("ascii").splitlines():
        words = line.split()
        if words[0] == "solid":
            name = words[1]
            assert name not in out
            out[name] = []
        elif words[0] == "vertex":
            out[name].append([float(word) for word in words[1:]])
    meshes = {}
    for name, points in out.items():
        corners = np.array(points)
        meshes[name] = trimesh.Trimesh(corners, np.arange(len(corners)).reshape(-1, 3))
    return meshes


@pytest.mark.parametrize("level", [1, 2])
def test_every_solid_is_watertight(world: World, tmp_path: Path, level: int) -> None:
    terrain, buildings, side = export(world, tmp_path / "a", level=level)
    (ground,) = by_name(terrain).values()
    solids = by_name(buildings)
    said = json.loads(side.read_text("utf-8"))
    assert said["solids"] == ["terrain", *solids]
    assert sum(mesh.body_count for mesh in solids.values()) > 2
    left, bottom, right, top = world.frame.bounds
    for mesh in (ground, *solids.values()):
        assert mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0
    spans = np.ptp(ground.bounds, axis=0)
    np.testing.assert_allclose(spans[:2], [right - left, top - bottom])
    # All buildings of the voxels are there, with their volume and a metre of base.
    voxels = world.voxels(level=level)
    tops = (voxels.semantic == 18) & (voxels.faces & 32 != 0) & (voxels.object > 0)
    assert set(solids) == {f"building_{number}" for number in np.unique(voxels.object[tops])}
    if level == 1:
        row = world.frame.y[1] - 1 - voxels.xyz[tops, 1]
        ground = world.layers()["ground"].values[row, voxels.xyz[tops, 0] - world.frame.x[0]]
        expected = (voxels.xyz[tops, 2] + 1.0 + ground - (ground.min() - 1)).sum()
        assert sum(mesh.volume for mesh in solids.values()) == pytest.approx(expected, rel=0.1)


def test_obj_and_binary_stl_hold_the_same(world: World, tmp_path: Path) -> None:
    text = by_name(export(world, tmp_path / "a", level=2)[1])
    _, binary, _ = export(world, tmp_path / "b", level=2, binary=True)
    (obj, _) = export(world, tmp_path / "c", ObjExporter, level=2)
    count = sum(len(mesh.faces) for mesh in text.values())
    assert len(trimesh.load_mesh(binary, process=False).faces) == count
    whole = trimesh.load_mesh(obj)
    assert whole.is_watertight and len(whole.faces) > count
    lines = obj.read_text("ascii").splitlines()
    assert sum(line.startswith("o building_") for line in lines) == len(text)


def test_open_edges_counts() -> None:
    box = trimesh.creation.box()
    assert open_edges(box.vertices, box.faces) == 0
    assert open_edges(box.vertices, box.faces[1:]) > 0
    twice = np.concatenate([box.faces, box.faces])
    assert open_edges(box.vertices, twice) > 0


def test_what_the_user_is_told(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "MOST_CELLS", 1000)
    with pytest.raises(SizeError, match="level"):
        export(world, tmp_path / "a")
    monkeypatch.undo()
    monkeypatch.setitem(__import__("sys").modules, "manifold3d", None)
    with pytest.raises(JobError, match="manifold3d"):
        export(world, tmp_path / "b", level=8)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("surfaceCheck") is None, reason="OpenFOAM is not installed")
def test_openfoam_finds_them_closed(world: World, tmp_path: Path) -> None:
    terrain, buildings, _ = export(world, tmp_path / "a")
    parts = sum(mesh.body_count for mesh in by_name(buildings).values())
    setup = "for f in /usr/share/openfoam/etc/bashrc $WM_PROJECT_DIR/etc/bashrc; do . $f; done"
    for path, count in ((terrain, 1), (buildings, parts)):
        done = subprocess.run(
            ["bash", "-c", f"{setup} 2>/dev/null; surfaceCheck '{path}'"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert "Surface is closed. All edges connected to two faces." in done.stdout, done.stdout
        assert "Surface has no illegal triangles" in done.stdout
        assert f"Number of unconnected parts : {count}" in done.stdout
