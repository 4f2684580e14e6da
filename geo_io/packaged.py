"""Files of tables and words that come with the package."""

from __future__ import annotations

from importlib import resources
from typing import Any

import yaml

# libyaml, where it is installed, parses six times as fast.
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def packaged_yaml(*path: str) -> Any:
    """Return the content of a YAML file of this package, named by its folders and its name."""
    text = resources.files("geo_io").joinpath(*path).read_text("utf-8")
    return yaml.load(text, YAML_LOADER)
