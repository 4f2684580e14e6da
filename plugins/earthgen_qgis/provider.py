"""The provider of earthgen's algorithms, and the plugin that registers it."""

from __future__ import annotations

from processing.core.ProcessingConfig import ProcessingConfig, Setting
from qgis.core import QgsApplication, QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from earthgen_qgis.batch import Batch
from earthgen_qgis.export import Export
from earthgen_qgis.generate import Generate
from earthgen_qgis.preview import Preview
from earthgen_qgis.program import HERE, packaged

COMMAND = "EARTHGEN_COMMAND"
"""Name of the setting in the options of Processing."""


class EarthgenProvider(QgsProcessingProvider):
    """Generate, batch, export, preview."""

    def id(self) -> str:
        """Return the identifier; QGIS calls this."""
        return "earthgen"

    def name(self) -> str:
        """Return the name in the toolbox."""
        return "earthgen"

    def longName(self) -> str:
        """Return the name with the version."""
        return f"earthgen {packaged().get('version', '')}".strip()

    def icon(self) -> QIcon:
        """Return the icon."""
        return QIcon(str(HERE / "icon.svg"))

    def load(self) -> bool:
        """Add the setting and the algorithms."""
        ProcessingConfig.settingIcons["earthgen"] = self.icon()
        ProcessingConfig.addSetting(
            Setting(
                "earthgen",
                COMMAND,
                "Command of earthgen, or the Python it is installed in (empty: search for it)",
                "",
                valuetype=Setting.FILE,
            )
        )
        ProcessingConfig.readSettings()
        self.refreshAlgorithms()
        return True

    def unload(self) -> None:
        """Remove the setting."""
        ProcessingConfig.removeSetting(COMMAND)

    def loadAlgorithms(self) -> None:
        """Add the algorithms; QGIS calls this."""
        for algorithm in (Generate, Batch, Export, Preview):
            self.addAlgorithm(algorithm())


class EarthgenPlugin:
    """Registers the provider while the plugin is enabled."""

    def __init__(self, iface) -> None:
        self.iface = iface
        self.provider: EarthgenProvider | None = None

    def initProcessing(self) -> None:
        """Register the provider; `qgis_process` calls this."""
        self.provider = EarthgenProvider()
        QgsApplication.processingRegistry().addProvider(self.provider)

    def initGui(self) -> None:
        """Register the provider in the program with windows."""
        self.initProcessing()

    def unload(self) -> None:
        """Remove the provider."""
        if self.provider is not None:
            QgsApplication.processingRegistry().removeProvider(self.provider)
            self.provider = None
