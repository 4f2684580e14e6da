"""The comparison of a device with the CPU runs, with the CPU standing in, and sees what differs."""

from __future__ import annotations

import pytest
import torch

from benchmarks import gpu
from earthgen.models.presets import PARTS
from earthgen.sparse.convolution import TorchBackend
from tests.helpers import training_places as places


def test_the_cpu_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "VOXELS", 500)
    found = gpu.run("cpu", 0.5, places.NAME)
    assert found["device"] == "cpu (the CPU stands in)"
    assert str(found["sparse torch float32"]).startswith("agrees; ")
    assert str(found["attention"]).startswith("agrees, ")
    assert str(found["renderer"]).startswith("agrees: the CPU renderer")
    for part in PARTS:
        assert "examples/s, on the CPU" in str(found[f"step {part}"])


def test_a_wrong_product_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the compared backend alone: what it is compared with stays."""
    monkeypatch.setattr(gpu, "VOXELS", 500)
    right = TorchBackend.convolve

    def wrong(self: TorchBackend, *arguments: object, **more: object) -> torch.Tensor:
        result = right(self, *arguments, **more)  # type: ignore[arg-type]
        return result if result.dtype == torch.float64 else result * 1.01

    monkeypatch.setattr(TorchBackend, "convolve", wrong)
    found = gpu.compare_sparse(torch.device("cpu"))
    assert "off, the largest value is" in str(found["sparse torch float32"])
