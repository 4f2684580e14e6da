"""Trees as instances: one for each crown, where it stands, as large as it is."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from earthgen.mesh.columns import Columns, Slabs
from earthgen.mesh.gltf import GlbScene
from earthgen.mesh.trees import model, trees_of
from earthgen.terrain.cover import class_code
from geo_io.frame import Frame

CENTRES = [(20.5, 18.5), (30.5, 30.5), (5.5, 5.5)]


def grove() -> Columns:
    """Three round crowns of radius 3 on ground of 50 m, the second needle-leaved."""
    frame = Frame("EPSG:32632", 1.0, (1000, 1040), (2000, 2040))
    number = np.zeros(frame.shape, np.uint32)
    row, col = np.mgrid[:40, :40] + 0.5
    for n, (x, y) in enumerate(CENTRES):
        number[(row - y) ** 2 + (col - x) ** 2 < 9] = n + 1
    here = number > 0
    n = int(here.sum())
    kinds = np.array([class_code(name) for name in ("tree", "needleleaf_forest", "tree")], np.uint8)
    slabs = Slabs(
        np.concatenate([[0], np.cumsum(here.ravel())]),
        np.full(n, 2, np.float32),
        np.full(n, 9, np.float32),
        np.ones(n, np.float32),
        number[here],
        kinds[number[here] - 1],
        np.ones(n, bool),
        np.full((n, 3), (40, 90, 30), np.uint8),
        np.full((n, 3), (40, 90, 30), np.uint8),
        np.zeros(n, bool),
    )
    ground = np.full(frame.shape, 50, np.float32)
    cover = np.full(frame.shape, class_code("grass"), np.uint8)
    return Columns(frame, ground, cover, np.zeros((*frame.shape, 3), np.uint8), slabs)


def test_each_crown_is_a_tree_of_its_size() -> None:
    inside = Frame("EPSG:32632", 1.0, (1012, 1036), (2010, 2036))
    trees = trees_of(grove(), inside)
    assert trees.object.tolist() == [1, 2] and trees.conical.tolist() == [False, True]
    np.testing.assert_allclose(trees.place[0], [1020.5, 2018.5, 50])
    np.testing.assert_allclose(trees.size, np.float32([[3, 3, 9], [3, 3, 9]]), rtol=0.1)
    assert trees.rgb.tolist() == [[40, 90, 30]] * 2


@pytest.mark.parametrize("kind", ["round", "conical"])
def test_models_are_closed_and_of_size_one(kind: str) -> None:
    position, normal, _, triangles = model(kind)
    edges = np.concatenate([triangles[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    crown = edges[edges.max(axis=1) < len(position) - 14].astype(np.int64)
    there, back = crown @ [1000, 1], crown @ [1, 1000]
    assert np.array_equal(np.sort(there), np.sort(back))
    assert position.min(axis=0)[1] == 0 and position.max(axis=0)[1] == 1
    assert np.abs(position[:, [0, 2]]).max() <= 1 and len(triangles) < 80
    outwards = (normal * (position - [0, 0.5, 0])).sum(axis=1)
    assert (outwards > 0).mean() > 0.8


def test_instances_in_gltf() -> None:
    grown = grove()
    scene = GlbScene((1000.0, 2000.0, 40.0))
    scene.add_trees("grove", trees_of(grown, grown.frame))
    data = scene.pack()
    length = struct.unpack("<I", data[12:16])[0]
    document, blob = json.loads(data[20 : 20 + length]), data[28 + length :]
    assert {"EXT_mesh_gpu_instancing", "EXT_instance_features"} <= set(document["extensionsUsed"])
    at = {}
    for node in document["nodes"]:
        accessors = node["extensions"]["EXT_mesh_gpu_instancing"]["attributes"]
        (ids,) = node["extensions"]["EXT_instance_features"]["featureIds"]
        assert ids["featureCount"] == 3
        accessor = document["accessors"][accessors["TRANSLATION"]]
        view = document["bufferViews"][accessor["bufferView"]]
        raw = np.frombuffer(blob, np.float32, view["byteLength"] // 4, view["byteOffset"])
        at[node["name"]] = raw.reshape(-1, 3)
    np.testing.assert_allclose(at["grove_round"], [[20.5, 10, -18.5], [5.5, 10, -5.5]])
    np.testing.assert_allclose(at["grove_conical"], [[30.5, 10, -30.5]])
