"""Generate a world from layers of the project."""

from __future__ import annotations

from pathlib import Path

from qgis.core import (
    QgsProcessingException,
    QgsProcessingOutputFolder,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFolderDestination,
)

from earthgen_qgis.algorithm import EarthgenAlgorithm, job_parameters, job_words
from earthgen_qgis.layers import add_rasters
from earthgen_qgis.sources import box_words


class Generate(EarthgenAlgorithm):
    """`earthgen generate`, and the rasters of the world as styled layers."""

    NAME = "generate"
    TITLE = "Generate a world"
    HELP = (
        "Makes a georeferenced 3D world from land-use layers: terrain, buildings, trees and "
        "colours on a lattice of voxels. The layers may be vectors or rasters of any known "
        "scheme, such as OpenStreetMap, CORINE or Urban Atlas; footprints of buildings and their "
        "heights are used where they are there. Without heights of the ground, the terrain is "
        "made up.\n\n"
        "The world is a folder that other algorithms of this group, and the earthgen command, "
        "open. Its rasters (colours, classes, heights) are added to the project."
    )

    def initAlgorithm(self, configuration=None):
        """Declare the parameters; QGIS calls this."""
        self.addParameter(QgsProcessingParameterExtent("EXTENT", "Extent"))
        for parameter in job_parameters():
            self.addParameter(parameter)
        self.addParameter(
            QgsProcessingParameterBoolean("LOAD", "Add its rasters to the project", True)
        )
        self.addParameter(QgsProcessingParameterBoolean("OVERWRITE", "Replace the world", False))
        self.addParameter(QgsProcessingParameterFolderDestination("WORLD", "World"))
        self.addOutput(QgsProcessingOutputFolder("RASTERS", "Folder of its rasters"))

    def processAlgorithm(self, parameters, context, feedback):
        """Run it; QGIS calls this."""
        crs = self.parameterAsExtentCrs(parameters, "EXTENT", context)
        box = self.parameterAsExtent(parameters, "EXTENT", context)
        if box.isEmpty():
            raise QgsProcessingException("The extent is empty. Draw one, or take that of a layer.")
        world = Path(self.parameterAsString(parameters, "WORLD", context))
        words = ["generate", *box_words(box, crs)]
        words += job_words(self, parameters, context, feedback)
        if self.parameterAsBool(parameters, "OVERWRITE", context):
            words.append("--overwrite")
        elif world.is_dir() and not any(world.iterdir()):
            world.rmdir()  # QGIS makes the folder of an output; an empty one is no world
        load = self.parameterAsBool(parameters, "LOAD", context)
        answer = self.call([*words, "--out", str(world)], feedback, 0, 90 if load else 100)
        if answer is None:
            return {}
        rasters = world.with_name(f"{world.stem}-rasters")
        if load:
            export = ["export", str(world), "--format", "cog", "--out", str(rasters), "--overwrite"]
            if self.call(export, feedback, 90, 100) is None:
                return {"WORLD": str(world)}
            add_rasters(rasters, context, world.stem)
        return {"WORLD": str(world), "RASTERS": str(rasters) if load else None}
