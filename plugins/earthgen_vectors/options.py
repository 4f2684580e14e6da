"""Options of the vector formats."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Layer = Literal["buildings", "trees", "roads", "water", "contours"]
LAYERS: tuple[Layer, ...] = ("buildings", "trees", "roads", "water", "contours")


class InputOptions(BaseModel):
    """Where the sources of the world are.

    Attributes
    ----------
    inputs : Path or None
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    inputs: Path | None = Field(
        default=None,
        description="Folder of the maps that the world was made from, for `source` and exact "
        "footprints; by default where they were, else beside the world",
    )


class VectorOptions(InputOptions):
    """Options of GeoPackage and GeoParquet.

    Attributes
    ----------
    layers : tuple of str
    interval : float
    """

    layers: tuple[Layer, ...] = Field(
        default=LAYERS, description="The layers to write", min_length=1
    )
    interval: float = Field(
        default=5.0, ge=0.1, le=10_000, description="Metres between two contour lines"
    )


class CityJsonOptions(InputOptions):
    """Options of CityJSON.

    Attributes
    ----------
    trees, relief : bool
    relief_step : float
    """

    trees: bool = Field(default=True, description="Write trees")
    relief: bool = Field(default=True, description="Write the terrain as TINRelief")
    relief_step: float = Field(
        default=8.0,
        gt=0,
        le=10_000,
        description="Metres between two points of the terrain; at least a voxel",
    )
