# The public names of earthgen.evaluation.

# Whole evaluations.
from .card import write_into_card as write_into_card

# Two worlds of one place.
from .compare import Comparison as Comparison
from .compare import compare as compare

# Measures.
from .distances import Estimate as Estimate
from .distances import frechet as frechet
from .distances import kernel_distance as kernel_distance
from .geometry_features import GEOMETRY_FEATURES as GEOMETRY_FEATURES
from .metrics import wasserstein as wasserstein
from .report import write_report as write_report
from .run import Evaluation as Evaluation
from .run import evaluate as evaluate
from .settings import Settings as Settings
