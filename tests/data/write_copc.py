"""Writes village.copc.laz: 64 m x 64 m of the village of tests/helpers/dataset_places.py, a point a
square metre, as COPC.

The file is kept beside this script so that no test needs a writer of COPC. To write it anew, with
copclib (BSD-3-Clause) in an environment of its own: PYTHONPATH=tests python
tests/data/write_copc.py
"""

from __future__ import annotations

from pathlib import Path

import copclib
import numpy as np
import pyproj

from tests.helpers.dataset_places import CRS, EAST, NORTH, village_points

DEPTH = 2
"""Levels of the octree: the coarser ones hold one point in 16 and one in 4 of what is left, as
thinned clouds do."""


def main() -> None:
    made = village_points(per_metre=1)
    part = (made["xyz"][:, :2] < (EAST + 64, NORTH + 64)).all(axis=1)
    xyz, kind, rgb = made["xyz"][part], made["class"][part], made["rgb"][part].astype(int) * 257
    low = xyz.min(axis=0)
    half = float((xyz.max(axis=0) - low).max()) / 2 + 0.5
    wkt = pyproj.CRS.from_user_input(CRS).to_wkt("WKT1_GDAL")  # as LAS 1.4 asks for
    offset = np.floor(low)
    config = copclib.CopcConfigWriter(
        7, copclib.Vector3(0.001, 0.001, 0.001), copclib.Vector3(*map(float, offset)), wkt
    )
    header = config.las_header
    header.min, header.max = (
        copclib.Vector3(*map(float, low)),
        copclib.Vector3(*map(float, xyz.max(axis=0))),
    )
    config.copc_info.center_x, config.copc_info.center_y, config.copc_info.center_z = (
        low + half
    ).tolist()
    config.copc_info.halfsize, config.copc_info.spacing = half, 4.0
    writer = copclib.FileWriter(str(Path(__file__).with_name("village.copc.laz")), config)
    number = np.arange(len(xyz))
    level = np.where(number % 16 == 0, 0, np.where(number % 4 == 0, 1, DEPTH))
    for depth in range(DEPTH + 1):
        cell = np.minimum(((xyz - low) / (2 * half) * 2**depth).astype(int), 2**depth - 1)
        for key in np.unique(cell[level == depth], axis=0).tolist():
            points = copclib.Points(header)
            for n in np.flatnonzero((level == depth) & (cell == key).all(axis=1)):
                point = points.CreatePoint()
                point.x, point.y, point.z = map(float, xyz[n])
                point.classification = int(kind[n])
                point.red, point.green, point.blue = map(int, rgb[n])
                points.AddPoint(point)
            writer.AddNode(copclib.VoxelKey(depth, *key), points)
    writer.Close()


if __name__ == "__main__":
    main()
