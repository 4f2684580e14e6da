"""A world on disk, as users read it: xarray layers, voxels and Gaussians by bounding box,
provenance."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from earthgen.errors import StoreError
from earthgen.splats.gaussians import Gaussians, from_voxels
from earthgen.stages.stage import rescale
from earthgen.voxels.tile import LEVELS
from earthgen.voxels.voxels import Splats, Voxels, concatenate_voxels
from earthgen.world.digest import add, digest_text
from earthgen.world.layout import DENSE
from earthgen.world.store import Store, open_store
from geo_io.errors import RegionError
from geo_io.frame import Bounds, Frame, extent

if TYPE_CHECKING:
    import xarray


class World:
    """A georeferenced 3D world. Bounds are left, bottom, right, top in metres of the world's
    CRS."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._attributes: dict[str, Any] = dict(store.root.attrs["earthgen"])

    @property
    def path(self) -> Path | str:
        """Where it is: a folder, or a URL."""
        return self._store.path

    @property
    def frame(self) -> Frame:
        """Where it is, at level 1."""
        return self._store.frame

    @property
    def levels(self) -> tuple[int, ...]:
        """Levels of detail, in multiples of the voxel size."""
        return LEVELS

    @property
    def tile_size(self) -> int:
        """Edge length of a tile, voxels of level 1."""
        return self._store.tile_size

    @property
    def seed(self) -> int:
        return int(self.identity["seed"])

    @property
    def identity(self) -> dict[str, Any]:
        """Everything the content depends on, but the extent."""
        return dict(self._attributes["identity"])

    @property
    def provenance(self) -> dict[str, Any]:
        """Where it came from: inputs with digests and what was found in them, software,
        warnings."""
        return dict(self._attributes["provenance"])

    @property
    def settings(self) -> dict[str, Any]:
        """The job's settings, as given."""
        return dict(self._attributes["settings"])

    def level_frame(self, level: int) -> Frame:
        """Where it is, at a level.

        Raises
        ------
        StoreError
            if there is no such level
        """
        if level not in self.levels:
            raise StoreError(
                f"{self.path} has no level {level}", f"it has {', '.join(map(str, self.levels))}"
            )
        return self.frame.coarsen(level) if level > 1 else self.frame

    def tiles(self) -> list[tuple[int, int]]:
        """(tx, ty) of the finished tiles, row by row from the south-west."""
        return self._store.done()

    @property
    def missing(self) -> int:
        """How many tiles are not finished."""
        finished = self._store.finished()
        return int(finished.size - finished.sum())

    @property
    def complete(self) -> bool:
        return self.missing == 0

    @property
    def counts(self) -> dict[str, int]:
        """Number of voxels by level ("voxels" is level 1)."""
        totals = self._store.index()[..., 1 : 1 + len(LEVELS)].sum(axis=(0, 1))
        return {"voxels": int(totals[0])} | {
            f"voxels_level_{level}": int(n) for level, n in zip(LEVELS[1:], totals[1:], strict=True)
        }

    def bytes_on_disk(self) -> int:
        """Bytes of everything in its folder, scratch of an unfinished job too."""
        return self._store.folder.size()

    def digest(self, recompute: bool = False) -> str:
        """64 hex digits of identity and content, the same for any tile size and order of the
        finished tiles.

        Worlds of one identity whose edges are multiples of 8 voxels have digests that depend on
        their content alone.

        recompute : read and check everything instead of trusting the index

        Raises
        ------
        StoreError
            if a tile is damaged so that it cannot be read
        """
        if recompute:
            total = add(*(self._store.digest_of(*tile) for tile in self.tiles()))
        else:
            total = self._store.digest()
        return digest_text(self.identity, total)

    def tile_frame(self, tx: int, ty: int, level: int = 1) -> Frame:
        """The part of a tile that lies in the world."""
        self.level_frame(level)
        return self._store.tile_frame(tx, ty, level)

    def tile_layers(self, tx: int, ty: int, level: int = 1) -> dict[str, NDArray]:
        """The dense layers of a tile as arrays on `tile_frame`."""
        self.level_frame(level)
        return {name: self._store.read_dense(name, tx, ty, level) for name in DENSE}

    def tile_voxels(self, tx: int, ty: int, level: int = 1) -> tuple[Voxels, Splats]:
        """The voxels of a tile and their Gaussians."""
        self.level_frame(level)
        voxels, splats = self._store.read_voxels(tx, ty, level)
        assert splats is not None  # asked for
        return voxels, splats

    def layers(self, level: int = 1, bounds: Bounds | None = None) -> xarray.Dataset:
        """The dense layers, lazily.

        ground, surface : float32 (y, x), metres, NaN for no data; semantics : uint8 (y, x), class
            codes of `geo_io.legend`, 0 for no data; rgb : uint8 (y, x, band). Rows run from north
            to south; x and y are cell centres in CRS metres; the CRS is in `spatial_ref`, where
            rioxarray finds it.

        Raises
        ------
        RegionError
            if `bounds` do not meet the world
        """
        import rioxarray  # noqa: F401 - registers the .rio accessor that users expect on the result
        import xarray

        part = self.part(level, bounds)
        dataset = xarray.open_zarr(
            self._store.root.store,
            group=None if level == 1 else f"level_{level}",
            consolidated=False,
            chunks=None,
            decode_coords="all",
            mask_and_scale=False,
            drop_variables=["index"],
        )
        rows, columns = self._store.tiles_frame.coarsen(level).slices(part)
        return dataset.isel(y=rows, x=columns)

    def voxels(self, bounds: Bounds | None = None, level: int = 1) -> Voxels:
        """The surface voxels, sorted by (y, x, z). Raises RegionError if `bounds` do not meet
        the world."""
        part = self.part(level, bounds)
        found = [voxels for voxels, _ in self._read(part, level, splats=False)]
        whole = concatenate_voxels(part, found) if found else _no_voxels(part)
        return whole.take(whole.order())

    def gaussians(self, bounds: Bounds | None = None, level: int = 1) -> Gaussians:
        """The 2D Gaussians in the order of `voxels`. Raises RegionError if `bounds` do not meet
        the world."""
        part = self.part(level, bounds)
        found = [
            (voxels, splats)
            for voxels, splats in self._read(part, level, splats=True)
            if splats is not None
        ]
        if not found:
            raise StoreError(f"{self.path} has no finished tile there", "continue it with --resume")
        voxels = concatenate_voxels(part, [voxels for voxels, _ in found])
        order = voxels.order()
        splats = Splats.concatenate([splats for _, splats in found])
        ground = np.asarray(self.layers(level, bounds)["ground"].values)
        return from_voxels(voxels.take(order), splats.take(order), ground)

    def part(self, level: int, bounds: Bounds | None) -> Frame:
        """The frame of the voxels that meet `bounds` (None for all), at a level.

        Raises
        ------
        StoreError
            if there is no such level
        RegionError
            if the bounds are empty or do not meet the world
        """
        frame = self.level_frame(level)
        if bounds is None:
            return frame
        if not (bounds[0] < bounds[2] and bounds[1] < bounds[3]):
            raise RegionError(
                f"the bounds {extent(bounds)} are empty", "give them as left, bottom, right, top"
            )
        part = frame.crop(bounds)
        if part is None:
            raise RegionError(
                f"the box {extent(bounds)} does not meet world {self.path}, which covers {extent(frame.bounds)} in "
                f"{frame.crs}",
                "give bounds in metres of that CRS",
            )
        return part

    def _read(
        self, part: Frame, level: int, splats: bool
    ) -> Iterator[tuple[Voxels, Splats | None]]:
        for tile in self._store.done(rescale(part, level, 1)):
            voxels, gaussians = self._store.read_voxels(*tile, level, splats)
            inside = voxels.inside(part)
            yield voxels.take(inside), gaussians.take(inside) if gaussians is not None else None

    def __repr__(self) -> str:
        return f"World({self.path}, {self.frame}, {len(self.tiles())} tiles)"


def open_world(path: str | Path) -> World:
    """Open a world for reading, at a path or a URL such as s3://bucket/world.zarr.

    Raises
    ------
    StoreError
        if there is none at `path`, or a newer or older earthgen wrote it
    """
    return World(open_store(path))


def _no_voxels(frame: Frame) -> Voxels:
    none = np.empty(0, np.uint8)
    return Voxels(frame, np.empty((0, 3), np.int32), none, none, np.empty(0, np.uint32))
