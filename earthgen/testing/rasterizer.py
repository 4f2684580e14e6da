"""The conformance check of rasterizers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from earthgen.splats.raster.model import Rasterizer

if TYPE_CHECKING:  # torch is imported only when the check runs
    import torch

    from earthgen.splats.cameras.camera import Camera
    from earthgen.splats.tensors import SplatTensors


def check_rasterizer(rasterizer: Rasterizer, device: str = "cpu") -> None:
    """Compare a rasterizer with the reference: pictures and gradients, except `differs`.

        def test_mine():
            check_rasterizer(MyRasterizer())

    A rasterizer that cannot run on this machine or device must say so; then nothing else is
    checked.

    Parameters
    ----------
    rasterizer : Rasterizer
    device : str
        torch device to draw on.

    Raises
    ------
    AssertionError
        With what differs, and where.
    """
    import torch

    from earthgen.splats.raster.reference import rasterize_reference

    assert rasterizer.name and all(isinstance(name, str) for name in rasterizer.devices), (
        "`name` and `devices` must be str"
    )
    assert isinstance(rasterizer.unavailable(), str), "`unavailable` must return a str"
    if rasterizer.unavailable() or torch.device(device).type not in rasterizer.devices:
        return
    for name, splats, camera in _splat_scenes(device):
        background = torch.tensor((0.1, 0.2, 0.3), device=device)
        rendering = rasterizer.rasterize(splats, camera, background)
        expected = rasterize_reference(splats, camera, background=background)
        assert rendering.camera == camera, f"{name}: the rendering has another camera"
        for output in (
            "rgb",
            "alpha",
            "depth",
            "median_depth",
            "normal",
            "distortion",
            "semantics",
        ):
            ours, theirs = getattr(rendering, output), getattr(expected, output)
            assert ours.shape == theirs.shape, f"{name}: {output} has shape {tuple(ours.shape)}"
            assert ours.dtype == theirs.dtype, f"{name}: {output} is {ours.dtype}"
            if output in rasterizer.differs:
                continue
            # Roundings of float32 decide at a few pixels whether a Gaussian is drawn.
            off = ((ours.double() - theirs.double()).abs() > 1e-3).double().mean()
            assert off <= 0.01, f"{name}: {output} differs at {off:.1%} of the pixels"
            if not len(splats) or output == "semantics":
                continue
            assert ours.requires_grad, f"{name}: {output} has no gradient"
            inputs = [splats.means, splats.scales, splats.rotations, splats.opacities, splats.sh]
            our_gradients, their_gradients = (
                torch.autograd.grad(
                    tensor.square().sum(), inputs, retain_graph=True, allow_unused=True
                )
                for tensor in (ours, theirs)
            )
            for what, our, their in zip(
                ("means", "scales", "rotations", "opacities", "sh"),
                our_gradients,
                their_gradients,
                strict=True,
            ):
                if their is None or not their.any():
                    continue
                assert our is not None, f"{name}: {output} gives {what} no gradient"
                error = (our - their).norm() / their.norm()
                # Depths depend on scales only through roundings.
                small = their.norm() < 1e-4
                assert error < 0.02 or small, (
                    f"{name}: the gradient of {output} to {what} is {error:.1%} off"
                )


def _splat_scenes(device: str) -> list[tuple[str, SplatTensors, Camera]]:
    """Scenes of 150 and of 0 Gaussians, for a pinhole and an orthographic camera."""
    import torch

    from earthgen.splats.cameras.camera import look_at
    from earthgen.splats.tensors import SplatTensors

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=random).to(device)

    scenes = []
    for count in (150, 0):
        random = torch.Generator().manual_seed(count)
        turns = torch.nn.functional.normalize(torch.randn((count, 4), generator=random), dim=1).to(
            device
        )
        splats = SplatTensors(
            means=((draw(count, 3) - 0.5) * 4).requires_grad_(),
            scales=(draw(count, 2) * 0.1 + 0.05).requires_grad_(),
            rotations=turns.requires_grad_(),
            opacities=(draw(count) * 0.8 + 0.1).requires_grad_(),
            sh=(draw(count, 4, 3) - 0.5).requires_grad_(),
            semantics=(draw(count) * 5).to(torch.uint8) + 1,
            anchor=(500_000.0, 5_500_000.0, 100.0),
        )
        eye, target = (500_001.0, 5_499_993.0, 104.0), splats.anchor
        pinhole = look_at(eye, target, width=50, height=35, field_of_view=45)
        orthographic = look_at(eye, target, width=50, height=35, metres_per_pixel=0.1)
        scenes += [
            (f"{count} Gaussians, {camera.kind}", splats, camera)
            for camera in (pinhole, orthographic)
        ]
    return scenes
