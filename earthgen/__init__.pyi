# The public names of earthgen, in the order of docs/reference/api.md. A test compares both.

from ._version import __version__ as __version__

# Use.
from .jobs.generate import generate as generate
from .world.world import open_world as open_world
from .render.export import export_world as export_world
from .render.preview import preview_world as preview_world
from .jobs.sample import sample_data as sample_data
from .world.world import World as World
from .jobs.job import Job as Job
from .errors import EarthgenError as EarthgenError

# Plug in.
from .hookspecs import hookimpl as hookimpl
from .hookspecs import Offer as Offer
from .hookspecs import PluginInfo as PluginInfo
from .stages.backends import Cost as Cost
from .render.interfaces import View as View
from .progress import Progress as Progress

# Describe a backend.
from .stages.stage import Stage as Stage
from .stages.stage import Read as Read
from .stages.block import Field as Field
from .stages.block import Block as Block
from .stages.stage import Noise as Noise
from .stages.stage import Frame as Frame

# What a backend makes.
from .voxels.heightfield import surface_of_heights as surface_of_heights
from .voxels.heightfield import HEIGHT_MARGIN as HEIGHT_MARGIN
from .voxels.voxels import Geometry as Geometry
from .voxels.voxels import Voxels as Voxels
from .voxels.voxels import Splats as Splats
from .voxels.voxels import GEOMETRY_FIELDS as GEOMETRY_FIELDS
from .voxels.voxels import texture_fields as texture_fields

# Base classes and protocols.
from .stages.backends import GeometryBackend as GeometryBackend
from .stages.backends import TextureBackend as TextureBackend
from .stages.backends import Condition as Condition
from .stages.backends import ConditionEncoder as ConditionEncoder
from .render.interfaces import Exporter as Exporter
from .render.interfaces import Renderer as Renderer
from .sparse.interface import SparseBackend as SparseBackend
from .splats.raster.model import Rasterizer as Rasterizer
