# The public names of earthgen, in the order of docs/reference/api.md. A test compares both.

from ._version import __version__ as __version__

# Use.
from .errors import EarthgenError as EarthgenError

# Plug in.
from .hookspecs import Offer as Offer
from .hookspecs import PluginInfo as PluginInfo
from .hookspecs import hookimpl as hookimpl
from .jobs.generate import generate as generate
from .jobs.job import Job as Job
from .progress import Progress as Progress

# Base classes and protocols.
from .render.interfaces import Exporter as Exporter
from .render.interfaces import Renderer as Renderer
from .render.interfaces import View as View
from .sparse.interface import SparseBackend as SparseBackend
from .splats.raster.model import Rasterizer as Rasterizer
from .stages.backends import Condition as Condition
from .stages.backends import ConditionEncoder as ConditionEncoder
from .stages.backends import Cost as Cost
from .stages.backends import GeometryBackend as GeometryBackend
from .stages.backends import TextureBackend as TextureBackend

# Describe a backend.
from .stages.block import Block as Block
from .stages.block import Field as Field
from .stages.stage import Frame as Frame
from .stages.stage import Noise as Noise
from .stages.stage import Read as Read
from .stages.stage import Stage as Stage

# What a backend makes.
from .voxels.heightfield import HEIGHT_MARGIN as HEIGHT_MARGIN
from .voxels.heightfield import surface_of_heights as surface_of_heights
from .voxels.voxels import GEOMETRY_FIELDS as GEOMETRY_FIELDS
from .voxels.voxels import Geometry as Geometry
from .voxels.voxels import Splats as Splats
from .voxels.voxels import Voxels as Voxels
from .voxels.voxels import texture_fields as texture_fields
from .world.world import World as World
from .world.world import open_world as open_world
