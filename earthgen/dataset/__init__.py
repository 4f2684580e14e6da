"""Training data: real and simulated places as scenes of surface voxels, and crops of them.

`build.build_scene` makes a scene from what `recipe.SceneRecipe` names, `scene.open_scene` reads it,
`split` divides places into parts, `crops.Crops` gives crops to a training loop.
docs/guides/datasets.md describes the format.
"""
