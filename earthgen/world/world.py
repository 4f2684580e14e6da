"""A world on disk as users read it: layers, voxels and Gaussians by bounding box, provenance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from earthgen.errors import StoreError
from earthgen.splats.gaussians import Gaussians, from_voxels
from earthgen.stages.stage import rescale
from earthgen.voxels.tile import LEVELS
from earthgen.voxels.voxels import Splats, Voxels, concatenate_voxels
from earthgen.world import conventions, decisions
from earthgen.world.bounded_codecs import bounded_codecs
from earthgen.world.digest import add_digests, digest_text
from earthgen.world.layout import DENSE
from earthgen.world.store import Store, open_store
from geo_io.errors import RegionError
from geo_io.frame import Bounds, Frame, extent
from geo_io.safety.damage import damaged_file

if TYPE_CHECKING:
    import xarray


class World:
    """A georeferenced 3D world, open for reading; `open_world` returns it.

    Bounds are (left, bottom, right, top) in metres of the world's CRS.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._attributes: dict[str, Any] = dict(store.root.attrs["earthgen"])

    @property
    def path(self) -> Path | str:
        """Folder or URL of the world."""
        return self._store.path

    @property
    def frame(self) -> Frame:
        """The lattice and extent at level 1."""
        return self._store.frame

    @property
    def levels(self) -> tuple[int, ...]:
        """The levels of detail, in multiples of the voxel size."""
        return LEVELS

    @property
    def tile_size(self) -> int:
        """Edge of a tile, voxels of level 1."""
        return self._store.tile_size

    @property
    def seed(self) -> int:
        """The seed of the noise."""
        with damaged_file(f"the identity of {self.path} is damaged", "generate it", StoreError):
            return int(self.identity["seed"])

    @property
    def identity(self) -> dict[str, Any]:
        """Everything the content depends on, apart from the extent."""
        return dict(self._part("identity"))

    @property
    def provenance(self) -> dict[str, Any]:
        """The origin of the world: inputs with digests and surveys, software, warnings."""
        return dict(self._part("provenance"))

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the job."""
        return dict(self._part("settings"))

    def _part(self, name: str) -> Mapping[str, Any]:
        values = self._attributes.get(name)
        if not isinstance(values, Mapping):
            raise StoreError(f"{self.path} is damaged: it has no {name}", "generate it again")
        return values

    def level_frame(self, level: int) -> Frame:
        """Return the lattice and extent at a level.

        Raises
        ------
        StoreError
            If there is no such level.
        """
        if level not in self.levels:
            raise StoreError(
                f"{self.path} has no level {level}", f"it has {', '.join(map(str, self.levels))}"
            )
        return self.frame.coarsen(level) if level > 1 else self.frame

    def tiles(self) -> list[tuple[int, int]]:
        """Return (tx, ty) of the finished tiles, row by row from the south-west."""
        return self._store.finished_tiles()

    @property
    def missing(self) -> int:
        """The number of unfinished tiles."""
        finished = self._store.finished_mask()
        return int(finished.size - finished.sum())

    @property
    def complete(self) -> bool:
        """Whether all tiles are finished."""
        return self.missing == 0

    @property
    def counts(self) -> dict[str, int]:
        """The number of voxels: "voxels" at level 1, "voxels_level_2" and so on."""
        totals = self._store.index()[..., 1 : 1 + len(LEVELS)].sum(axis=(0, 1))
        return {"voxels": int(totals[0])} | {
            f"voxels_level_{level}": int(n) for level, n in zip(LEVELS[1:], totals[1:], strict=True)
        }

    def damage(self) -> list[str]:
        """Return what a look at the names and sizes of its files shows to be missing or cut off.

        An empty list is no proof: `digest(recompute=True)` reads everything.
        """
        return self._store.damage()

    def no_tiles(self, where: str = "") -> StoreError:
        """Return the error for a world that has no finished tile, or none there."""
        lost = "" if self.tiles() else self._store.lost_index()
        problem = f"world {self.path} has no finished tile {where}".rstrip()
        return StoreError(f"{problem}{lost}", "finish it with `earthgen generate --resume`")

    def bytes_on_disk(self) -> int:
        """Return the bytes of all its files, with the stage cache of an unfinished job."""
        return self._store.folder.size()

    def digest(self, recompute: bool = False) -> str:
        """Return 64 hex digits of the identity and the content of the finished tiles.

        The digest does not depend on the tile size, nor on the order in which tiles were made.

        Parameters
        ----------
        recompute : bool
            Read and check all data, instead of relying on the index.

        Raises
        ------
        StoreError
            If a tile is so damaged that it cannot be read.
        """
        if recompute:
            total = add_digests(*(self._store.compute_digest(*tile) for tile in self.tiles()))
        else:
            total = self._store.digest()
        return digest_text(self.identity, total)

    def tile_frame(self, tx: int, ty: int, level: int = 1) -> Frame:
        """Return the part of a tile that lies in the world, at a level."""
        self.level_frame(level)
        return self._store.tile_frame(tx, ty, level)

    def tile_layers(self, tx: int, ty: int, level: int = 1) -> dict[str, NDArray]:
        """Return the dense layers of a tile by name, as arrays on `tile_frame`; see `layers`."""
        self.level_frame(level)
        return {name: self._store.read_dense(name, tx, ty, level) for name in DENSE}

    def tile_voxels(self, tx: int, ty: int, level: int = 1) -> tuple[Voxels, Splats]:
        """Return the voxels of a tile and their Gaussians."""
        self.level_frame(level)
        voxels, splats = self._store.read_voxels(tx, ty, level)
        assert splats is not None  # requested
        return voxels, splats

    def tile_decisions(self, tx: int, ty: int) -> NDArray | None:
        """Return what of each column of a tile the sources said, and what was added.

        Returns
        -------
        NDArray (ny, nx) uint8 or None
            Codes of `earthgen.world.decisions.DECISIONS` on `tile_frame(tx, ty)`, 0 for no data;
            None for a world that was made before they were noted.
        """
        return decisions.read(self._store, tx, ty)

    def layers(self, level: int = 1, bounds: Bounds | None = None) -> xarray.Dataset:
        """Return the dense layers, which are read on use.

        Parameters
        ----------
        level : int
            1, 2, 4 or 8.
        bounds : tuple of float, optional
            Left, bottom, right, top in metres of the CRS. By default the whole world.

        Returns
        -------
        xarray.Dataset
            ground, surface: float32 (y, x), metres, NaN for no data. semantics: uint8 (y, x), class
            codes of `geo_io.legend`, 0 for no data. rgb: uint8 (y, x, band). Rows run from north to
            south; x and y are cell centres in CRS metres. rioxarray finds the CRS in `spatial_ref`.
            Attributes follow CF, and go into netCDF.

        Raises
        ------
        StoreError
            If there is no such level.
        RegionError
            If the bounds do not meet the world.
        """
        import rioxarray  # noqa: F401 - registers the .rio accessor that users expect on the result
        import xarray

        from earthgen.world.lazy_layers import lazy

        part, store = self.part(level, bounds), self._store
        group = store.dense_group(level)
        if group is not None and store.member(group) is None:
            raise StoreError(
                f"{self.path} is damaged: {group}/zarr.json is missing", "generate it again"
            )
        problem = f"the layers of {self.path} at level {level} are damaged"
        with damaged_file(problem, "generate it again", StoreError), bounded_codecs():
            others = store.require_level(level)
            dataset = xarray.open_zarr(
                store.root.store,
                group=group,
                consolidated=False,
                chunks=None,
                decode_coords="all",
                mask_and_scale=False,
                drop_variables=[*others, "x", "y"],
            )
        for name in DENSE:
            path = store.dense_path(name, level)
            cells = lazy(partial(store.read_part, path), store.member(path))
            dataset[name] = dataset[name].variable.copy(deep=False, data=cells)
        note = decisions.array_of(store) if decisions.NAME in dataset else None
        if note is not None:
            cells = lazy(partial(store.decode, store.dense_path(decisions.NAME, 1), note), note)
            variable = dataset[decisions.NAME].variable
            dataset[decisions.NAME] = variable.copy(deep=False, data=cells)
        rows, columns = store.tiles_frame.coarsen(level).slices(part)
        dataset = dataset.isel(y=rows, x=columns).assign_coords(
            {
                axis: (axis, conventions.centres(part, axis), conventions.of_axis(axis))
                for axis in ("y", "x")
            }
        )
        # What is stored speaks of the whole world and of whole tiles.
        dataset["spatial_ref"].attrs = conventions.of_reference(part)
        dataset.attrs = conventions.of_level(part)
        return dataset

    def voxels(self, bounds: Bounds | None = None, level: int = 1) -> Voxels:
        """Return the surface voxels, sorted by (y, x, z).

        Parameters
        ----------
        bounds : tuple of float, optional
            Left, bottom, right, top in metres of the CRS. By default the whole world.
        level : int
            1, 2, 4 or 8.

        Raises
        ------
        StoreError
            If there is no such level.
        RegionError
            If the bounds do not meet the world.
        """
        part = self.part(level, bounds)
        tiles = [voxels for voxels, _ in self._read(part, level, splats=False)]
        whole = concatenate_voxels(part, tiles) if tiles else _no_voxels(part)
        return whole.take(whole.order())

    def gaussians(self, bounds: Bounds | None = None, level: int = 1) -> Gaussians:
        """Return the 2D Gaussians, in the order of `voxels`.

        Parameters
        ----------
        bounds : tuple of float, optional
            Left, bottom, right, top in metres of the CRS. By default the whole world.
        level : int
            1, 2, 4 or 8.

        Raises
        ------
        StoreError
            If there is no such level, or no finished tile within the bounds.
        RegionError
            If the bounds do not meet the world.
        """
        part = self.part(level, bounds)
        tiles = [
            (voxels, splats)
            for voxels, splats in self._read(part, level, splats=True)
            if splats is not None
        ]
        if not tiles:
            raise self.no_tiles("there")
        voxels = concatenate_voxels(part, [voxels for voxels, _ in tiles])
        order = voxels.order()
        splats = Splats.concatenate([splats for _, splats in tiles])
        ground = np.asarray(self.layers(level, bounds)["ground"].values)
        return from_voxels(voxels.take(order), splats.take(order), ground)

    def part(self, level: int, bounds: Bounds | None) -> Frame:
        """Return the frame of the voxels that meet bounds, at a level.

        Parameters
        ----------
        level : int
            1, 2, 4 or 8.
        bounds : tuple of float or None
            Left, bottom, right, top in metres of the CRS; None for the whole world.

        Raises
        ------
        StoreError
            If there is no such level.
        RegionError
            If the bounds are empty or do not meet the world.
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
                f"the box {extent(bounds)} does not meet world {self.path}, which covers "
                f"{extent(frame.bounds)} in {frame.crs}",
                "give bounds in metres of that CRS",
            )
        return part

    def _read(
        self, part: Frame, level: int, splats: bool
    ) -> Iterator[tuple[Voxels, Splats | None]]:
        for tile in self._store.finished_tiles(rescale(part, level, 1)):
            voxels, gaussians = self._store.read_voxels(*tile, level, splats)
            inside = voxels.inside(part)
            yield voxels.take(inside), gaussians.take(inside) if gaussians is not None else None

    def __repr__(self) -> str:
        return f"World({self.path}, {self.frame}, {len(self.tiles())} tiles)"

    def _repr_html_(self) -> str:
        """The world in a notebook: a small picture from above, and what it is."""
        from earthgen.world.notebook import summary_html

        return summary_html(self)


def open_world(path: str | Path) -> World:
    """Open a world for reading.

    Parameters
    ----------
    path : path or URL
        Such as world.zarr or s3://bucket/world.zarr.

    Raises
    ------
    StoreError
        If there is no world at `path`, or its format has another version.
    """
    return World(open_store(path))


def _no_voxels(frame: Frame) -> Voxels:
    empty = np.empty(0, np.uint8)
    return Voxels(frame, np.empty((0, 3), np.int32), empty, empty, np.empty(0, np.uint32))
