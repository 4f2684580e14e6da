"""Draw a picture of a world."""

from __future__ import annotations

from qgis.core import (
    QgsProcessingParameterEnum,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterNumber,
)

from earthgen_qgis.algorithm import EarthgenAlgorithm, advanced

VIEWS = ("oblique", "top")


class Preview(EarthgenAlgorithm):
    """`earthgen preview`."""

    NAME = "preview"
    TITLE = "Draw a picture of a world"
    HELP = "Draws a world at an angle, or from above with north up, as a PNG or JPEG picture."

    def initAlgorithm(self, configuration=None):
        """Declare the parameters; QGIS calls this."""
        number = QgsProcessingParameterNumber
        self.addParameter(
            QgsProcessingParameterFile("WORLD", "World", QgsProcessingParameterFile.Folder)
        )
        self.addParameter(
            QgsProcessingParameterEnum(
                "VIEW", "View", ["at an angle", "from above"], defaultValue=0
            )
        )
        self.addParameter(
            number(
                "SIZE", "Longer edge in pixels", number.Integer, 1600, minValue=16, maxValue=16384
            )
        )
        self.addParameter(
            advanced(
                number("AZIMUTH", "Seen from, degrees clockwise from north", number.Double, 200.0)
            )
        )
        self.addParameter(
            advanced(
                number(
                    "ELEVATION",
                    "Seen from, degrees above the horizon",
                    number.Double,
                    40.0,
                    minValue=5,
                    maxValue=90,
                )
            )
        )
        self.addParameter(
            QgsProcessingParameterFileDestination(
                "OUTPUT", "Picture", "Pictures (*.png *.jpg *.jpeg)"
            )
        )

    def processAlgorithm(self, parameters, context, feedback):
        """Run it; QGIS calls this."""
        out = self.parameterAsFileOutput(parameters, "OUTPUT", context)
        words = [
            "preview",
            self.parameterAsString(parameters, "WORLD", context),
            "--out",
            out,
            "--overwrite",
            "--view",
            VIEWS[self.parameterAsEnum(parameters, "VIEW", context)],
            "--size",
            str(self.parameterAsInt(parameters, "SIZE", context)),
            "--azimuth",
            repr(self.parameterAsDouble(parameters, "AZIMUTH", context)),
            "--elevation",
            repr(self.parameterAsDouble(parameters, "ELEVATION", context)),
        ]
        return {} if self.call(words, feedback) is None else {"OUTPUT": out}
