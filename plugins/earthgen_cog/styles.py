"""Styles for QGIS (.qml), which it reads from beside a raster of the same name."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import quoteattr

from geo_io.legend import classes

SUN = (315.0, 45.0)
"""Azimuth and height of the sun of hillshades, degrees."""

RAMP = ((0.0, "#f7fcf5"), (0.15, "#bae4b3"), (0.35, "#74c476"), (0.6, "#fe9929"), (1.0, "#7f2704"))
"""Colours of heights above the ground, from 0 to `TALLEST`."""

TALLEST = 40.0
"""Metres above the ground from which heights have the last colour."""


def write_styles(out: Path) -> list[Path]:
    """Write ground.qml, surface.qml, height.qml and semantics.qml into a folder."""
    styles = {
        "ground": _document(hillshade(), "hillshade"),
        "surface": _document(hillshade(), "hillshade"),
        "height": _document(heights(), "height above the ground"),
        "semantics": _document(land_classes(), "classes"),
    }
    paths = []
    for name, text in styles.items():
        path = out / f"{name}.qml"
        path.write_text(text, "utf-8")
        paths.append(path)
    return paths


def land_classes() -> str:
    """Return the renderer of the 25 classes, with their names."""
    entries = "\n".join(
        f"        <paletteEntry value={quoteattr(str(land.code))} color={quoteattr(land.color)} "
        f'alpha="255" label={quoteattr(land.title)}/>'
        for land in classes()
    )
    return (
        '    <rasterrenderer type="paletted" band="1" opacity="1" alphaBand="-1" '
        'nodataColor="">\n      <rasterTransparency/>\n      <colorPalette>\n'
        f"{entries}\n      </colorPalette>\n    </rasterrenderer>"
    )


def hillshade() -> str:
    """Return a renderer of heights as shaded relief, lit from the north-west."""
    azimuth, angle = SUN
    return (
        f'    <rasterrenderer type="hillshade" band="1" opacity="1" alphaBand="-1" '
        f'azimuth="{azimuth:g}" angle="{angle:g}" zfactor="1" multidirection="0" '
        'nodataColor="">\n      <rasterTransparency/>\n    </rasterrenderer>'
    )


def heights() -> str:
    """Return a renderer of heights above the ground in colours."""
    items = "\n".join(
        f'          <item value="{share * TALLEST:g}" color="{color}" alpha="255" '
        f'label="{share * TALLEST:g} m"/>'
        for share, color in RAMP
    )
    return (
        '    <rasterrenderer type="singlebandpseudocolor" band="1" opacity="1" alphaBand="-1" '
        f'classificationMin="0" classificationMax="{TALLEST:g}" nodataColor="">\n'
        "      <rasterTransparency/>\n      <rastershader>\n"
        '        <colorrampshader colorRampType="INTERPOLATED" classificationMode="1" clip="0" '
        f'minimumValue="0" maximumValue="{TALLEST:g}">\n{items}\n'
        "        </colorrampshader>\n      </rastershader>\n    </rasterrenderer>"
    )


def _document(renderer: str, title: str) -> str:
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
        f'<qgis version="3.22" styleCategories="Symbology">\n  <!-- {title} -->\n'
        f"  <pipe>\n{renderer}\n"
        '    <brightnesscontrast brightness="0" contrast="0" gamma="1"/>\n'
        '    <huesaturation saturation="0" grayscaleMode="0" colorizeOn="0"/>\n'
        '    <rasterresampler maxOversampling="2"/>\n  </pipe>\n'
        "  <blendMode>0</blendMode>\n</qgis>\n"
    )
