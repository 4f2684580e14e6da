"""A house around a court on level ground, as polygons and triangles, in the formats of meshes."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import trimesh

from earthgen.dataset.build import build_scene
from earthgen.dataset.crop import Crop
from earthgen.dataset.recipe import parse_recipe
from earthgen.dataset.scene import Scene
from tests.helpers.dataset_places import CRS, EAST, NORTH

BASE = 200.0
"""Height of the ground, metres."""

OUTER, COURT = (8.2, 10.2, 30.2, 28.2), (14.2, 16.2, 22.2, 23.2)
"""West, south, east, north of the walls, metres from the village's corner."""

EAVES = 9.2

ROOF, WALL, GROUND = (200, 60, 50), (230, 200, 170), (90, 120, 80)


def ring(box: tuple[float, float, float, float], z: float, *, down: bool = False) -> np.ndarray:
    """(4, 3) corners, counter-clockwise seen from above, or from below."""
    west, south, east, north = box
    points = np.array([[west, south, z], [east, south, z], [east, north, z], [west, north, z]])
    return points[::-1] if down else points


def walls(box: tuple[float, float, float, float], *, inward: bool = False) -> list[np.ndarray]:
    """Four quads, seen from outside or, of a court, from within."""
    low, high = ring(box, 0.0), ring(box, EAVES)
    found = [np.array([low[i], low[(i + 1) % 4], high[(i + 1) % 4], high[i]]) for i in range(4)]
    return [quad[::-1] for quad in found] if inward else found


def house() -> list[tuple[str, list[np.ndarray]]]:
    """(semantic type, rings) of the house's surfaces: its roof and its floor have a hole."""
    faces = [("WallSurface", [quad]) for quad in walls(OUTER) + walls(COURT, inward=True)]
    return [
        ("RoofSurface", [ring(OUTER, EAVES), ring(COURT, EAVES, down=True)]),
        *faces,
        ("GroundSurface", [ring(OUTER, 0.0, down=True), ring(COURT, 0.0)]),
    ]


def triangles(*, floor: bool = True) -> dict[str, np.ndarray]:
    """(t, 3, 3) by "roof", "walls", "ground": the same house, cut into triangles by hand."""

    def fan(quads: Sequence[np.ndarray]) -> np.ndarray:
        return np.array(
            [corners for quad in quads for corners in (quad[[0, 1, 2]], quad[[0, 2, 3]])]
        )

    def annulus(z: float, down: bool) -> np.ndarray:
        out, inner = ring(OUTER, z), ring(COURT, z)
        quads = [
            np.array([out[i], out[(i + 1) % 4], inner[(i + 1) % 4], inner[i]]) for i in range(4)
        ]
        return fan([quad[::-1] for quad in quads] if down else quads)

    ground = fan([ring((0, 0, 40, 40), 0.0)])
    return {
        "roof": annulus(EAVES, False),
        "walls": fan(walls(OUTER) + walls(COURT, inward=True)),
        "ground": np.concatenate([ground, annulus(0.0, True)]) if floor else ground,
    }


def colour_of(part: str) -> tuple[int, int, int]:
    return {"roof": ROOF, "walls": WALL, "ground": GROUND}[part]


def mesh_of(corners: np.ndarray, colour: tuple[int, int, int]) -> trimesh.Trimesh:
    faces = np.arange(len(corners) * 3).reshape(-1, 3)
    mesh = trimesh.Trimesh(corners.reshape(-1, 3), faces, process=False)
    mesh.visual.vertex_colors = np.tile([*colour, 255], (len(corners) * 3, 1))
    return mesh


def write_obj(path: Path) -> Path:
    """The house in metres from the village's corner and BASE."""
    trimesh.util.concatenate(
        [mesh_of(part, colour_of(name)) for name, part in triangles().items()]
    ).export(path)
    return path


class City:
    """A CityJSON document that grows by objects; coordinates are metres from the village's
    corner."""

    def __init__(self, **header: Any) -> None:
        self.points: list[tuple[int, int, int]] = []
        self.objects: dict[str, dict[str, Any]] = {}
        self.header: dict[str, Any] = {
            "type": "CityJSON",
            "version": "2.0",
            "transform": {"scale": [0.001] * 3, "translate": [EAST, NORTH, BASE]},
            "metadata": {"referenceSystem": "https://www.opengis.net/def/crs/EPSG/0/32632"},
        } | header

    def rings(self, rings: Sequence[np.ndarray]) -> list[list[int]]:
        out = []
        for points in rings:
            start = len(self.points)
            self.points += [tuple(row) for row in np.round(points * 1000).astype(int).tolist()]
            out.append(list(range(start, len(self.points))))
        return out

    def add(self, name: str, kind: str, *geometries: Mapping[str, Any], **more: Any) -> None:
        self.objects[name] = {"type": kind, "geometry": list(geometries), **more}

    def solid(
        self, faces: Sequence[tuple[str, list[np.ndarray]]], lod: str = "2.2", **more: Any
    ) -> dict[str, Any]:
        kinds = sorted({kind for kind, _ in faces if kind})
        semantics = {
            "surfaces": [{"type": kind} for kind in kinds],
            "values": [[kinds.index(kind) if kind else None for kind, _ in faces]],
        }
        boundaries = [[self.rings(rings) for _, rings in faces]]
        return {
            "type": "Solid",
            "lod": lod,
            "boundaries": boundaries,
            **({"semantics": semantics} if kinds else {}),
            **more,
        }

    def sheet(
        self, polygons: Sequence[list[np.ndarray]], lod: str = "1", **more: Any
    ) -> dict[str, Any]:
        return {
            "type": "MultiSurface",
            "lod": lod,
            "boundaries": [self.rings(rings) for rings in polygons],
            **more,
        }

    def ground(self) -> None:
        """Level terrain, 40 m wide, wound the wrong way as terrain often is."""
        corners = triangles(floor=False)["ground"]
        self.add(
            "ground",
            "TINRelief",
            {**self.sheet([[tri[::-1]] for tri in corners]), "type": "CompositeSurface"},
        )

    def document(self) -> dict[str, Any]:
        return {**self.header, "CityObjects": self.objects, "vertices": self.points}

    def write(self, path: Path) -> Path:
        path.write_text(json.dumps(self.document()))
        return path


def house_city(**header: Any) -> City:
    city = City(**header)
    city.ground()
    city.add("house", "Building", city.solid(house()))
    return city


def to_earth(points: np.ndarray) -> np.ndarray:
    """(n, 3) metres from the earth's centre, of metres from the village's corner; BASE is above
    the ellipsoid."""
    lon, lat = pyproj.Transformer.from_crs(CRS, 4326, always_xy=True).transform(
        EAST + points[:, 0], NORTH + points[:, 1]
    )
    to = pyproj.Transformer.from_crs(4979, 4978, always_xy=True)
    return np.column_stack(to.transform(lon, lat, BASE + points[:, 2]))


def local_frame() -> np.ndarray:
    """(4, 4) from metres east, north and up of the village's middle to the earth's centre."""
    middle = to_earth(np.array([[20.0, 20.0, 0.0]]))[0]
    ends = to_earth(np.array([[21.0, 20.0, 0.0], [20.0, 20.0, 1.0]])) - middle
    up = ends[1] / np.linalg.norm(ends[1])
    east = ends[0] - up * (ends[0] @ up)
    east /= np.linalg.norm(east)
    out = np.eye(4)
    out[:3, :3] = np.column_stack([east, np.cross(up, east), up])
    out[:3, 3] = middle
    return out


def write_glb(path: Path, names: Sequence[str], centre: np.ndarray | None = None) -> bytes:
    """Parts of the house as a .glb, y up, in the local frame, less `centre` (x, y, z up)."""
    frame = local_frame()
    scene = trimesh.Scene()
    for name in names:
        corners = triangles()[name]
        local = (to_earth(corners.reshape(-1, 3)) - frame[:3, 3]) @ frame[:3, :3]
        local = local - (0 if centre is None else centre)
        turned = np.stack([local[:, 0], local[:, 2], -local[:, 1]], axis=1)
        scene.add_geometry(mesh_of(turned.reshape(-1, 3, 3), colour_of(name)))
    data = scene.export(file_type="glb")
    path.write_bytes(data)
    return data


def write_b3dm(path: Path, names: Sequence[str], centre: np.ndarray) -> bytes:
    """The same as a .b3dm with an RTC_CENTER."""
    glb = write_glb(path, names, centre)
    table = json.dumps({"BATCH_LENGTH": 0, "RTC_CENTER": centre.tolist()}).encode()
    table += b" " * (-(28 + len(table)) % 8)
    data = (
        struct.pack("<4s6I", b"b3dm", 1, 28 + len(table) + len(glb), len(table), 0, 0, 0)
        + table
        + glb
    )
    path.write_bytes(data)
    return data


def region(box: tuple[float, float, float, float] = (0, 0, 40, 40)) -> dict[str, list[float]]:
    """The bounding volume of metres from the village's corner."""
    corners = np.array([[x, y, 0.0] for x in box[::2] for y in box[1::2]])
    lon, lat, _ = pyproj.Transformer.from_crs(4978, 4979, always_xy=True).transform(
        *to_earth(corners).T
    )
    degrees = [lon.min(), lat.min(), lon.max(), lat.max()]
    return {"region": [*np.radians(degrees).tolist(), BASE - 10, BASE + 50]}


def tile(error: float = 0.0, **more: Any) -> dict[str, Any]:
    return {"boundingVolume": region(), "geometricError": error, **more}


def tileset(root: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"asset": {"version": "1.1"}, "geometricError": 500, "root": root, **more}


def write_json(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def write_house_tiles(folder: Path) -> Path:
    """A coarse tile that is replaced by a .glb, a .b3dm, and an external tileset with another
    .glb."""
    frame = local_frame()
    folder.mkdir(parents=True, exist_ok=True)
    write_glb(folder / "walls.glb", ["walls"])
    write_b3dm(folder / "ground.b3dm", ["ground"], np.array([4.0, -3.0, 2.0]))
    # The roof is in a frame of its own, moved by its tile's transform.
    moved = np.eye(4)
    moved[:3, 3] = (-7.0, 5.0, 1.0)
    (folder / "roof part").mkdir(exist_ok=True)
    write_glb(folder / "roof part" / "roof.glb", ["roof"], moved[:3, 3])
    box = {"box": [0, 0, 5, 25, 0, 0, 0, 25, 0, 0, 0, 10]}
    inner = tile(0.0, content={"uri": "roof.glb"})
    write_json(folder / "roof part" / "tileset.json", tileset({**inner, "boundingVolume": box}))
    (folder / "coarse.glb").write_bytes(b"never opened")
    children = [
        tile(0.0, content={"uri": "walls.glb"}, boundingVolume=box),
        tile(0.0, contents=[{"uri": "ground.b3dm"}], boundingVolume={"sphere": [0, 0, 0, 40]}),
        tile(5.0, content={"uri": "roof%20part/tileset.json"}, transform=moved.T.ravel().tolist()),
    ]
    root = tile(50.0, refine="REPLACE", content={"uri": "coarse.glb"}, children=children)
    return write_json(
        folder / "tileset.json", tileset({**root, "transform": frame.T.ravel().tolist()})
    )


def build(folder: Path, **keys: Any) -> Scene:
    """The scene of a recipe for the house."""
    size = keys.pop("voxel_size", 1.0)
    recipe = parse_recipe(
        {"scene": [{"name": "house", "licence": "CC0-1.0", "grade": "A", **keys}]}
    ).scene[0]
    return build_scene(recipe, folder, folder / "out", voxel_size=size, overwrite=True)


def whole(scene: Scene) -> Crop:
    """All of a scene, as one crop."""
    return scene.crop(scene.frame)
