"""The conformance check of sparse backends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from earthgen.sparse.interface import SparseBackend

if TYPE_CHECKING:  # torch is imported only when the check runs
    import torch

    from earthgen.sparse.backends import Case
    from earthgen.sparse.sites import Sites


def check_sparse_backend(
    backend: SparseBackend, device: str = "cpu", dtype: torch.dtype | None = None
) -> None:
    """Compare a sparse backend with torch's: results, gradients and determinism.

        def test_mine():
            check_sparse_backend(MySparse())

    A backend that cannot run on this machine, or refuses the device or dtype, must say so; then
    nothing else is checked. It must support the convolutions of `earthgen.sparse.backends.cases`,
    and may refuse the others with a SparseError. Gradients are compared if it does not refuse them.

    Parameters
    ----------
    backend : SparseBackend
    device : str
        torch device to compute on.
    dtype : torch.dtype, optional
        Of the features; float32 by default.

    Raises
    ------
    AssertionError
        With what differs, and where.
    """
    import torch

    dtype, where = dtype or torch.float32, torch.device(device)
    assert backend.name and all(isinstance(name, str) for name in backend.devices), (
        "`name` and `devices` must be str"
    )
    assert isinstance(backend.deterministic, bool), "`deterministic` must be a bool"
    if backend.unavailable():
        assert isinstance(backend.unavailable(), str), "`unavailable` must return a str"
        return
    reasons = [backend.refuses(where, dtype, gradients) for gradients in (False, True)]
    assert all(isinstance(reason, str) for reason in reasons), "`refuses` must return a str"
    assert where.type in backend.devices or reasons[0], (
        f"`refuses` must refuse {device}, which is not in `devices`"
    )
    if reasons[0]:
        return
    for name, sites in _sparse_scenes(device).items():
        for case, required in _sparse_cases(sites):
            _check_sparse_case(backend, name, case, dtype, not reasons[1], required)


def _check_sparse_case(
    backend: SparseBackend,
    scene: str,
    case: Case,
    dtype: torch.dtype,
    gradients: bool,
    required: bool,
) -> None:
    import torch

    from earthgen.errors import SparseError
    from earthgen.sparse.backends import difference

    try:
        wrong = difference(backend, case, dtype, gradients)
    except SparseError as error:
        assert not required, (
            f"{scene}: {case.name}: refused, but every backend must support it: {error}"
        )
        return
    assert not wrong, f"{scene}: {wrong}"
    if backend.deterministic and len(case.source):
        random = torch.Generator().manual_seed(3)
        features = torch.randn((len(case.source), 5), generator=random).to(
            case.source.device, dtype
        )
        weight = torch.randn((case.kernel.volume, 5, 7), generator=random).to(
            case.source.device, dtype
        )
        with torch.no_grad():
            one, other = (
                backend.convolve(
                    features, weight, case.source, case.target, case.kernel, case.transposed
                )
                for _ in range(2)
            )
        assert torch.equal(one, other), (
            f"{scene}: {case.name}: two runs differ, although `deterministic` is True"
        )


def _sparse_scenes(device: str) -> dict[str, Sites]:
    """Sets of voxels: many and few, in one and in several samples, near the origin and far away."""
    import torch

    from earthgen.sparse.backends import scattered
    from earthgen.sparse.sites import Place, make_sites

    x, y = torch.meshgrid(torch.arange(12), torch.arange(10), indexing="ij")
    top = (3 * torch.sin(x / 3) + 2 * torch.cos(y / 2)).floor().long()
    terrain = torch.stack([torch.zeros_like(x), x, y, top], -1).reshape(-1, 4)
    terrain = torch.cat([terrain, terrain - torch.tensor([0, 0, 0, 1])])
    few = scattered(20, 3, samples=1).coordinates.long()
    rows = {
        "terrain": terrain,
        "negative coordinates": few - torch.tensor([0, 101, 57, 33]),
        "far out": few + torch.tensor([0, 2**31 - 9, 0, 0]),
        "one voxel": torch.tensor([[0, 5, -3, 2]]),
        "no voxel": torch.zeros((0, 4), dtype=torch.int64),
    }
    skipped = torch.cat([few, few + torch.tensor([2, 1, 0, 0])])  # sample 1 has no voxel
    place = Place(((0, 0, 0), (64, 0, -32), (0, 128, 0)))
    return {
        "random": scattered(60, 4, device),
        **{name: make_sites(row.to(device))[0] for name, row in rows.items()},
        "a batch": make_sites(skipped.to(device), place=place)[0],
    }


def _sparse_cases(sites: Sites) -> list[tuple[Case, bool]]:
    """Convolutions to compare, and whether a backend must support them."""
    from earthgen.sparse.backends import Case, cases
    from earthgen.sparse.kernel_map import Kernel, reached_sites

    even, long, wide = Kernel.of(2), Kernel.of((1, 5, 3), 1, (1, 2, 1)), Kernel.of(3, 2)
    others = [
        Case("submanifold, size 2", sites, sites, even),
        Case("submanifold, size (1, 5, 3), dilated", sites, sites, long),
        Case("transposed at the same sites, size 3", sites, sites, Kernel.of(3), transposed=True),
        Case("strided to all cells reached, size 3", sites, reached_sites(sites, wide), wide),
    ]
    return [*((case, True) for case in cases(sites)), *((case, False) for case in others)]
