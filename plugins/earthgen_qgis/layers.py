"""The rasters of a world as layers of the project, with the colours of their legend."""

from __future__ import annotations

from pathlib import Path

from qgis.core import (
    QgsBilinearRasterResampler,
    QgsColorRampShader,
    QgsHillshadeRenderer,
    QgsPalettedRasterRenderer,
    QgsProcessingContext,
    QgsProcessingLayerPostProcessorInterface,
    QgsRasterBandStats,
    QgsRasterLayer,
    QgsRasterShader,
    QgsSingleBandPseudoColorRenderer,
)
from qgis.PyQt.QtGui import QColor

from earthgen_qgis.program import packaged

NAMES = {
    "rgb": "Colours",
    "semantics": "Land classes",
    "height": "Height above the ground",
    "surface": "Surface",
    "ground": "Ground",
}
"""Rasters of `earthgen export --format cog` in the order of the layers, from the top."""

RAMP = ("#f7f4ea", "#f2d28b", "#e59a5a", "#c4583c", "#7b2338")
"""Colours of heights above the ground."""

TERRAIN = ("#3d7a53", "#8fb56b", "#ded29a", "#b98f5e", "#8d7f77", "#f5f3f0")
"""Colours of heights of the ground, from low to high."""


class Style(QgsProcessingLayerPostProcessorInterface):
    """Gives a raster its look when QGIS adds it to the project."""

    kept: list = []  # noqa: RUF012 - QGIS holds no reference to them

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        Style.kept.append(self)

    def postProcessLayer(self, layer, context, feedback):
        """Set the renderer; QGIS calls this."""
        if isinstance(layer, QgsRasterLayer):
            style_raster(layer, self.kind)


def style_raster(layer, kind: str) -> None:
    """Set the renderer of a raster of a world. One with a style file of its own keeps that."""
    source = Path(layer.source())
    if source.with_suffix(".qml").is_file():
        layer.loadDefaultStyle()
        return
    provider = layer.dataProvider()
    if kind == "semantics":
        present = [
            QgsPalettedRasterRenderer.Class(one["code"], QColor(one["color"]), one["title"])
            for one in packaged().get("classes", [])
        ]
        if present:
            layer.setRenderer(QgsPalettedRasterRenderer(provider, 1, present))
    elif kind in ("height", "ground", "surface"):
        stats = provider.bandStatistics(
            1, QgsRasterBandStats.Min | QgsRasterBandStats.Max, layer.extent(), 250_000
        )
        low, high = stats.minimumValue, max(stats.maximumValue, stats.minimumValue + 1)
        colours = RAMP if kind == "height" else TERRAIN
        if kind == "surface":
            shade = QgsHillshadeRenderer(provider, 1, 315, 45)
            shade.setZFactor(1.0)
            layer.setRenderer(shade)
        else:
            layer.setRenderer(ramp_renderer(provider, colours, low, high))
    resample = layer.resampleFilter()
    if resample is not None and kind != "semantics":
        resample.setZoomedInResampler(QgsBilinearRasterResampler())
    layer.triggerRepaint()


def ramp_renderer(provider, colours, low: float, high: float):
    """Return a renderer that runs through colours from `low` to `high`."""
    shader = QgsColorRampShader(low, high)
    shader.setColorRampType(QgsColorRampShader.Interpolated)
    last = len(colours) - 1
    shader.setColorRampItemList(
        [
            QgsColorRampShader.ColorRampItem(value, QColor(colour), f"{value:.1f} m")
            for index, colour in enumerate(colours)
            for value in [low + (high - low) * index / last]
        ]
    )
    raster = QgsRasterShader()
    raster.setRasterShaderFunction(shader)
    renderer = QgsSingleBandPseudoColorRenderer(provider, 1, raster)
    renderer.setClassificationMin(low)
    renderer.setClassificationMax(high)
    return renderer


def add_rasters(folder: Path, context, title: str) -> list[str]:
    """Ask QGIS to add the rasters of a folder to the project. Returns their paths."""
    added = []
    for name, words in reversed(list(NAMES.items())):  # the last one that is added lies on top
        path = folder / f"{name}.tif"
        if not path.is_file():
            continue
        details = QgsProcessingContext.LayerDetails(f"{words} ({title})", context.project(), name)
        details.setPostProcessor(Style(name))
        context.addLayerToLoadOnCompletion(str(path), details)
        added.append(str(path))
    return added
