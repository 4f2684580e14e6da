"""Write a world in another format."""

from __future__ import annotations

import shlex
from pathlib import Path

from qgis.core import (
    QgsProcessingParameterBoolean,
    QgsProcessingParameterEnum,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFile,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterString,
)

from earthgen_qgis.algorithm import EarthgenAlgorithm, advanced
from earthgen_qgis.layers import add_rasters
from earthgen_qgis.program import packaged
from earthgen_qgis.sources import box_words

KNOWN = (("cog", "rasters as cloud-optimised GeoTIFF"), ("glb", "a mesh as binary glTF"))
"""Formats that are offered if the plugin was not packaged by `earthgen qgis package`."""

LEVELS = ("1", "2", "4", "8")


def formats() -> list[tuple[str, str]]:
    """Return (name, summary) of the formats."""
    given = packaged().get("formats") or []
    return [(str(one["name"]), str(one["summary"])) for one in given] or list(KNOWN)


class Export(EarthgenAlgorithm):
    """`earthgen export`."""

    NAME = "export"
    TITLE = "Export a world"
    HELP = (
        "Writes a world, or the part of it in an extent, in another format: rasters, meshes, 3D "
        "Tiles, splats, vectors, or a page that shows it in the browser. Rasters and vectors are "
        "added to the project. `earthgen export --format NAME --help-options` lists the options of "
        "a format."
    )

    def initAlgorithm(self, configuration=None):
        """Declare the parameters; QGIS calls this."""
        names = [f"{name}: {summary}" for name, summary in formats()]
        start = next((i for i, (name, _) in enumerate(formats()) if name == "cog"), 0)
        self.addParameter(
            QgsProcessingParameterFile("WORLD", "World", QgsProcessingParameterFile.Folder)
        )
        self.addParameter(QgsProcessingParameterEnum("FORMAT", "Format", names, defaultValue=start))
        self.addParameter(
            QgsProcessingParameterExtent("EXTENT", "Extent (empty: all)", optional=True)
        )
        self.addParameter(
            QgsProcessingParameterEnum(
                "LEVEL",
                "Level of detail",
                [f"{level} x the voxel size" for level in LEVELS],
                defaultValue=0,
            )
        )
        self.addParameter(
            advanced(
                QgsProcessingParameterString(
                    "SET", "Options of the format: KEY=VALUE KEY=VALUE", "", optional=True
                )
            )
        )
        self.addParameter(QgsProcessingParameterBoolean("LOAD", "Add layers to the project", True))
        self.addParameter(QgsProcessingParameterFolderDestination("OUTPUT", "Folder"))

    def processAlgorithm(self, parameters, context, feedback):
        """Run it; QGIS calls this."""
        name = formats()[self.parameterAsEnum(parameters, "FORMAT", context)][0]
        world = Path(self.parameterAsString(parameters, "WORLD", context))
        out = Path(self.parameterAsString(parameters, "OUTPUT", context))
        level = LEVELS[self.parameterAsEnum(parameters, "LEVEL", context)]
        words = ["export", str(world), "--format", name, "--out", str(out), "--overwrite"]
        words += ["--level", level]
        box = self.parameterAsExtent(parameters, "EXTENT", context)
        if not box.isNull():
            words += box_words(box, self.parameterAsExtentCrs(parameters, "EXTENT", context))
        for pair in shlex.split(self.parameterAsString(parameters, "SET", context)):
            words += ["--set", pair]
        answer = self.call(words, feedback)
        if answer is None:
            return {}
        if name == "cog" and self.parameterAsBool(parameters, "LOAD", context):
            add_rasters(out, context, world.stem)
        for file in answer.get("files", []):
            feedback.pushInfo(str(file["path"]))
        return {"OUTPUT": str(out)}
