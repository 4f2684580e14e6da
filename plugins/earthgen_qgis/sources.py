"""Layers and boxes of a project as earthgen takes them."""

from __future__ import annotations

from qgis.core import (
    QgsMapLayer,
    QgsProcessingException,
    QgsProcessingUtils,
    QgsVectorLayer,
)

FORMATS = ["gpkg", "shp", "geojson", "fgb", "sqlite", "gdb", "gml", "kml", "parquet"]
"""Vector formats that earthgen reads as they are; layers of others are copied to a GeoPackage."""


def source_of(layer, context, feedback):
    """Return FILE or FILE:LAYER of a layer of the project.

    A layer that is no file, or that has a filter, is copied to a temporary file.
    """
    if layer is None or not layer.isValid():
        raise QgsProcessingException("A layer cannot be read: repair its source in the project.")
    if isinstance(layer, QgsVectorLayer):
        path, name = QgsProcessingUtils.convertToCompatibleFormatAndLayerName(
            layer, False, layer.name(), FORMATS, "gpkg", context, feedback
        )
        return f"{path}:{name}" if name else path
    if layer.type() == QgsMapLayer.RasterLayer and layer.providerType() == "gdal":
        return layer.source()
    raise QgsProcessingException(
        f"The layer {layer.name()} is not a file. Save it as one (Export > Save As), and use that."
    )


def box_words(rectangle, crs):
    """Return the words --bbox and --bbox-crs for an extent in a CRS."""
    sides = (
        rectangle.xMinimum(),
        rectangle.yMinimum(),
        rectangle.xMaximum(),
        rectangle.yMaximum(),
    )
    named = crs.authid() if crs.isValid() else ""
    if not named or named.startswith("USER"):
        named = crs.toWkt()
    if not named:
        raise QgsProcessingException("The extent has no CRS: set the CRS of the project.")
    return [f"--bbox={','.join(map(repr, sides))}", "--bbox-crs", named]
