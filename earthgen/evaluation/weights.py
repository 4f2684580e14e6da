"""Which set of weights an evaluation measures: what is given, else what the package comes with."""

from __future__ import annotations

from earthgen.dataset.scene import scenes_in
from earthgen.evaluation.settings import Settings
from earthgen.models.weights.bundled import shipped_weights
from earthgen.models.weights.card import WeightSet, open_weights


def weights_of(settings: Settings) -> tuple[WeightSet | None, list[str]]:
    """The set to measure, and a line that says why there is none, where nobody asked for that.

    Weights that are given have to fit the dataset. Those that the package comes with are left out
    where the scenes have other voxels: nobody chose them, and rules can be measured all the same.

    Raises StoreError where there is no scene, else as `open_weights`.
    """
    if not settings.learned:
        return None, []
    folder = settings.weights or shipped_weights()
    if folder is None:
        return None, [
            "this installation comes without weights, so no learned part is measured: --weights DIR gives a set"
        ]
    found = open_weights(folder, preset_name=settings.preset)
    made_for = next(iter(found.parts.values())).voxel_size
    sizes = {
        scene.frame.voxel_size
        for scene in scenes_in(settings.data)
        if scene.info.grade in settings.grades
    }
    if settings.weights is None and sizes - {made_for}:
        return None, [
            f"the weights that come with this installation are for voxels of {made_for:g} m, and those of the scenes "
            f"are {', '.join(f'{size:g}' for size in sorted(sizes))} m, so no learned part is measured"
        ]
    return found, []
