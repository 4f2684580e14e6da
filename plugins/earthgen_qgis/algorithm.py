"""What earthgen's algorithms share: how they call the program, and the parameters of a job."""

from __future__ import annotations

import shlex

from processing.core.ProcessingConfig import ProcessingConfig
from qgis.core import (
    QgsProcessing,
    QgsProcessingAlgorithm,
    QgsProcessingException,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterMapLayer,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterNumber,
    QgsProcessingParameterString,
)
from qgis.PyQt.QtGui import QIcon

from earthgen_qgis.program import HERE, Canceled, ProgramError, find_command, run
from earthgen_qgis.sources import source_of

COMMAND = "EARTHGEN_COMMAND"


class EarthgenAlgorithm(QgsProcessingAlgorithm):
    """An algorithm that runs a command of earthgen.

    Subclasses set `NAME`, `TITLE`, `HELP`, and the two methods of Processing.
    """

    NAME = ""
    TITLE = ""
    HELP = ""

    def name(self) -> str:
        """Return the identifier."""
        return self.NAME

    def displayName(self) -> str:
        """Return the title."""
        return self.TITLE

    def shortHelpString(self) -> str:
        """Return the text beside the parameters."""
        return self.HELP

    def icon(self) -> QIcon:
        """Return the icon."""
        return QIcon(str(HERE / "icon.svg"))

    def createInstance(self):
        """Return a new one; QGIS calls this."""
        return type(self)()

    def call(self, words, feedback, start: float = 0.0, end: float = 100.0):
        """Run the program; its progress moves the bar from `start` to `end` percent.

        Returns its answer, or None if the user canceled.
        """

        def tell(part: float, text: str) -> None:
            feedback.setProgress(start + part * (end - start))
            feedback.setProgressText(text)

        try:
            command = find_command(ProcessingConfig.getSetting(COMMAND) or "")
            feedback.pushCommandInfo(shlex.join([*command, *words]))
            return run(
                command,
                words,
                on_progress=tell,
                on_line=feedback.pushWarning,
                is_canceled=feedback.isCanceled,
            )
        except Canceled:
            feedback.pushInfo("Canceled; what is written stays valid.")
            return None
        except ProgramError as error:
            raise QgsProcessingException(str(error)) from error


def advanced(parameter):
    """Return a parameter that QGIS shows under the advanced ones."""
    parameter.setFlags(parameter.flags() | QgsProcessingParameterDefinition.FlagAdvanced)
    return parameter


def job_parameters():
    """Return the parameters of a job that are not about its place."""
    number = QgsProcessingParameterNumber
    return [
        QgsProcessingParameterMultipleLayers(
            "LAYERS", "Land use, land cover and buildings", QgsProcessing.TypeMapLayer
        ),
        QgsProcessingParameterMapLayer(
            "DEM", "Heights of the ground (DEM)", optional=True, types=[QgsProcessing.TypeRaster]
        ),
        QgsProcessingParameterMapLayer(
            "DSM", "Heights of the surface (DSM)", optional=True, types=[QgsProcessing.TypeRaster]
        ),
        QgsProcessingParameterMapLayer(
            "IMAGE", "Aerial image", optional=True, types=[QgsProcessing.TypeRaster]
        ),
        number("VOXEL_SIZE", "Size of a voxel in metres", number.Double, 1.0, minValue=0.1),
        number("SEED", "Seed: each gives another world", number.Integer, 0, minValue=0),
        advanced(
            QgsProcessingParameterString(
                "CLASS_FIELD",
                "Attribute with the class (empty: found by the legend)",
                "",
                optional=True,
            )
        ),
        advanced(
            QgsProcessingParameterString(
                "LEGEND", "Legend, by name or file (empty: found by the values)", "", optional=True
            )
        ),
        advanced(
            QgsProcessingParameterString(
                "OPTIONS",
                "More options of the command line, such as --geometry height-flow",
                "",
                optional=True,
            )
        ),
        advanced(number("WORKERS", "Workers", number.Integer, 1, minValue=1, maxValue=256)),
    ]


def job_words(algorithm, parameters, context, feedback):
    """Return the words of the command line for `job_parameters`."""
    words = []
    for layer in algorithm.parameterAsLayerList(parameters, "LAYERS", context):
        words += ["--semantics", source_of(layer, context, feedback)]
    for name in ("DEM", "DSM", "IMAGE"):
        layer = algorithm.parameterAsLayer(parameters, name, context)
        if layer is not None:
            words += [f"--{name.lower()}", source_of(layer, context, feedback)]
    size = algorithm.parameterAsDouble(parameters, "VOXEL_SIZE", context)
    seed = algorithm.parameterAsInt(parameters, "SEED", context)
    workers = algorithm.parameterAsInt(parameters, "WORKERS", context)
    words += ["--voxel-size", repr(size), "--seed", str(seed), "--workers", str(workers)]
    for name in ("CLASS_FIELD", "LEGEND"):
        value = algorithm.parameterAsString(parameters, name, context).strip()
        if value:
            words += [f"--{name.lower().replace('_', '-')}", value]
    return words + shlex.split(algorithm.parameterAsString(parameters, "OPTIONS", context))
