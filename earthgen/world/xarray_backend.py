"""A world as a data set of xarray: `xarray.open_dataset("world.zarr")`.

xarray finds this by the entry point `xarray.backends`. Beside what xarray's own reader of Zarr
gives, levels and boxes can be asked for, and the arrays end where the world ends.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xarray.backends import BackendEntrypoint

if TYPE_CHECKING:
    import xarray

    from geo_io.frame import Bounds


class EarthgenBackend(BackendEntrypoint):
    """Opens the dense layers of a world; `engine="earthgen"`."""

    description = "Layers of worlds made by earthgen"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "level", "bounds")
    supports_groups = True

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        level: int = 1,
        bounds: Bounds | None = None,
    ) -> xarray.Dataset:
        """Open the layers of one level, which are read on use.

        Parameters
        ----------
        filename_or_obj : path or URL
            The world.
        drop_variables : str or iterable of str, optional
            Layers to leave out.
        level : int
            1, 2, 4 or 8.
        bounds : tuple of float, optional
            Left, bottom, right, top in metres of the CRS. By default the whole world.

        Returns
        -------
        xarray.Dataset
            As `earthgen.World.layers` gives it.

        Raises
        ------
        StoreError
            If it is no world, or has no such level.
        RegionError
            If the bounds do not meet the world.
        """
        from earthgen.world.world import open_world

        layers = open_world(filename_or_obj).layers(level, bounds)
        left_out = [drop_variables] if isinstance(drop_variables, str) else drop_variables or ()
        return layers.drop_vars(list(left_out), errors="ignore")

    def open_groups_as_dict(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        bounds: Bounds | None = None,
    ) -> dict[str, xarray.Dataset]:
        """Open all levels: level_1 (finest), level_2, level_4, level_8.

        Parameters
        ----------
        filename_or_obj : path or URL
        drop_variables : str or iterable of str, optional
        bounds : tuple of float, optional
            As `open_dataset`.

        Returns
        -------
        dict of str to xarray.Dataset
            By path in the tree; that of the root has no layers.
        """
        import xarray

        from earthgen.voxels.tile import LEVELS

        levels = {
            f"/level_{level}": self.open_dataset(
                filename_or_obj, drop_variables=drop_variables, level=level, bounds=bounds
            )
            for level in LEVELS
        }
        return {"/": xarray.Dataset(attrs={"title": "earthgen world"}), **levels}

    def open_datatree(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        bounds: Bounds | None = None,
    ) -> xarray.DataTree:
        """Open all levels as a tree; see `open_groups_as_dict`."""
        import xarray

        groups = self.open_groups_as_dict(
            filename_or_obj, drop_variables=drop_variables, bounds=bounds
        )
        return xarray.DataTree.from_dict(groups)

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Return whether a path is a world in a local folder. For one elsewhere give the engine."""
        if not isinstance(filename_or_obj, str | os.PathLike) or "://" in str(filename_or_obj):
            return False
        try:
            document = json.loads((Path(filename_or_obj) / "zarr.json").read_bytes())
            return "earthgen" in document["attributes"]
        except (OSError, ValueError, LookupError, TypeError):
            return False
