"""2D Gaussian splats: what a world's appearance is made of, and the file it travels in."""

from __future__ import annotations

from earthgen.splats.gaussians import Gaussians, from_voxels

__all__ = ["Gaussians", "from_voxels"]
