"""Generate a world for each polygon of a layer."""

from __future__ import annotations

from pathlib import Path

from qgis.core import (
    QgsProcessing,
    QgsProcessingOutputNumber,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterVectorLayer,
)

from earthgen_qgis.algorithm import EarthgenAlgorithm, job_parameters, job_words
from earthgen_qgis.sources import source_of


class Batch(EarthgenAlgorithm):
    """`earthgen batch`."""

    NAME = "batch"
    TITLE = "Generate a world for each polygon"
    HELP = (
        "Makes a world for each feature of a layer of polygons, named after its attribute name, id "
        "or region. Attributes with the name of a setting, such as seed or voxel_size, override it "
        "for their feature. A region that fails does not stop the others."
    )

    def initAlgorithm(self, configuration=None):
        """Declare the parameters; QGIS calls this."""
        self.addParameter(
            QgsProcessingParameterVectorLayer(
                "REGIONS", "Regions", [QgsProcessing.TypeVectorPolygon]
            )
        )
        for parameter in job_parameters():
            self.addParameter(parameter)
        self.addParameter(QgsProcessingParameterBoolean("OVERLAP", "Regions may overlap", False))
        self.addParameter(
            QgsProcessingParameterBoolean("RESUME", "Finish worlds that exist", False)
        )
        self.addParameter(QgsProcessingParameterFolderDestination("WORLDS", "Folder of the worlds"))
        self.addOutput(QgsProcessingOutputNumber("COUNT", "Number of worlds"))

    def processAlgorithm(self, parameters, context, feedback):
        """Run it; QGIS calls this."""
        regions = self.parameterAsVectorLayer(parameters, "REGIONS", context)
        folder = Path(self.parameterAsString(parameters, "WORLDS", context))
        words = ["batch", source_of(regions, context, feedback), "--out-dir", str(folder)]
        words += job_words(self, parameters, context, feedback)
        if self.parameterAsBool(parameters, "OVERLAP", context):
            words.append("--allow-overlap")
        if self.parameterAsBool(parameters, "RESUME", context):
            words.append("--resume")
        if self.call(words, feedback) is None:
            return {}
        return {"WORLDS": str(folder), "COUNT": len(list(folder.glob("*.zarr")))}
