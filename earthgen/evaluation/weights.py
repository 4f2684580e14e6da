"""The set of weights that an evaluation measures: the given one, or that of the package."""

from __future__ import annotations

from earthgen.dataset.scene import scenes_in
from earthgen.evaluation.settings import Settings
from earthgen.models.weights.bundled import bundled_weights
from earthgen.models.weights.card import WeightSet, open_weights


def find_weights(settings: Settings) -> tuple[WeightSet | None, list[str]]:
    """Open the set of weights to measure.

    Given weights must fit the dataset. Those of the package are skipped if the scenes have another
    voxel size, because nobody asked for them and rules can still be measured.

    Returns
    -------
    tuple[WeightSet | None, list[str]]
        The set, and a line that explains why there is none.

    Raises
    ------
    StoreError
        if there is no scene
    ModelError
        if the weights cannot be opened
    """
    if not settings.learned:
        return None, []
    folder = settings.weights or bundled_weights()
    if folder is None:
        return None, [
            "no learned part is measured, because this installation comes without weights; "
            "--weights DIR gives a set"
        ]
    weights = open_weights(folder, preset_name=settings.preset)
    voxel_size = next(iter(weights.parts.values())).voxel_size
    sizes = {
        scene.frame.voxel_size
        for scene in scenes_in(settings.data)
        if scene.info.grade in settings.grades
    }
    if settings.weights is None and sizes - {voxel_size}:
        return None, [
            f"no learned part is measured, because the weights of this installation are for voxels "
            f"of {voxel_size:g} m, and the scenes have voxels of "
            f"{', '.join(f'{size:g}' for size in sorted(sizes))} m"
        ]
    return weights, []
