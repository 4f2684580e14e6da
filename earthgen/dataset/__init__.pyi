# The public names of earthgen.dataset.

# Make scenes.
from .build import BuildResult as BuildResult
from .build import build_all as build_all
from .build import build_scene as build_scene

# Read crops.
from .crop import Crop as Crop
from .crop import transform_crop as transform_crop
from .crop_sampler import Crops as Crops
from .crop_sampler import open_crops as open_crops
from .posed_pictures import write_scene_frames as write_scene_frames
from .recipe import Recipe as Recipe
from .recipe import SceneRecipe as SceneRecipe
from .recipe import parse_recipe as parse_recipe
from .recipe import read_recipe as read_recipe
from .report import write_report as write_report

# Read scenes.
from .scene import Scene as Scene
from .scene import SceneInfo as SceneInfo
from .scene import open_scene as open_scene
from .scene import scenes_in as scenes_in

# Divide them into parts.
from .split import Split as Split
from .split import read_split as read_split
from .split import split_by_blocks as split_by_blocks
from .split import split_by_name as split_by_name
from .split import write_split as write_split
