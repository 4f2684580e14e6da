"""The QGIS plugin of earthgen: algorithms for the Processing Toolbox.

`earthgen qgis package` writes this package as the zip that QGIS installs. It uses the standard
library and QGIS only, and runs the earthgen program in its own Python, so that nothing has to be
installed into that of QGIS.
"""

from __future__ import annotations

from typing import Any


def classFactory(iface: Any) -> Any:
    """Return the plugin; QGIS calls this."""
    from earthgen_qgis.provider import EarthgenPlugin

    return EarthgenPlugin(iface)
