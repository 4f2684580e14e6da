"""Sparse backends: the adapters give what torch's gives, `pick_backend` chooses as documented, and
the command line reports it."""

from __future__ import annotations

import json
import sys
import types
import warnings
from itertools import product
from pathlib import Path

import pytest
import torch

import earthgen_sparse
from earthgen import Offer
from earthgen.errors import JobError, SparseError, UnknownNameError
from earthgen.jobs.job import make_job, stored_settings
from earthgen.jobs.prepare import prepare
from earthgen.sparse import backends
from earthgen.sparse.convolution import TORCH, TorchBackend, convolve
from earthgen.sparse.kernel_map import Kernel, generative_sites, reached_sites
from earthgen.sparse.sites import make_sites
from earthgen.sparse.tensor import SparseTensor
from earthgen.testing.sparse import check_sparse_backend
from earthgen_cli.commands import doctor
from earthgen_cli.main import main
from earthgen_sparse.spconv_backend import SpconvBackend
from earthgen_sparse.torchsparse_backend import TorchsparseBackend
from earthgen_stripes.backends import NoSparse

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_torch_conforms(dtype: torch.dtype) -> None:
    check_sparse_backend(TORCH, dtype=dtype)


def test_a_backend_that_cannot_run_conforms_by_saying_so() -> None:
    check_sparse_backend(NoSparse())


class Wrong:
    """Torch's, but for one thing."""

    name, devices, deterministic = "wrong", ("cpu", "cuda"), True
    reason, refused = "", ""

    def unavailable(self):
        return self.reason

    def refuses(self, device, dtype, gradients):
        return self.refused

    def convolve(self, features, weight, source, target, kernel, transposed=False):
        return TORCH.convolve(features, weight, source, target, kernel, transposed)


class Mirrored(Wrong):
    def convolve(self, features, weight, *rest):
        return super().convolve(features, weight.flip(0), *rest)


class Reordered(Wrong):
    def convolve(self, *arguments):
        return super().convolve(*arguments).flip(0)


class Widened(Wrong):
    def convolve(self, *arguments):
        return super().convolve(*arguments).double()


class NotANumber(Wrong):
    def convolve(self, *arguments):
        return super().convolve(*arguments) * float("nan")


class Restless(Wrong):
    calls = 0

    def convolve(self, *arguments):
        Restless.calls += 1
        return super().convolve(*arguments) * (1 + 2e-7 * (Restless.calls % 3))


class Detached(Wrong):
    """Takes the gradient of the weight for nothing."""

    def convolve(self, features, weight, *rest):
        return super().convolve(features, weight.detach() + 0 * weight, *rest)


class Halting(Wrong):
    def convolve(self, features, weight, source, target, kernel, transposed=False):
        if transposed:
            raise SparseError("no way back", "go on")
        return super().convolve(features, weight, source, target, kernel)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (Mirrored, "submanifold, size 3: the result is up to"),
        (Reordered, "the result is up to"),
        (Widened, r"torch.float64 \(\d+, 16\)"),
        (NotANumber, "up to nan off"),
        (Restless, "two runs differ"),
        (Detached, "the weight's gradient is up to"),
        (Halting, "every backend must support it"),
    ],
)
def test_the_kit_catches(wrong: type[Wrong], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_sparse_backend(wrong())


@pytest.fixture
def spconv() -> SpconvBackend:
    pytest.importorskip("spconv.pytorch")
    return SpconvBackend()


def test_spconv_conforms_on_the_cpu(spconv: SpconvBackend) -> None:
    check_sparse_backend(spconv)


@pytest.mark.parametrize(
    ("size", "stride", "dilation"),
    [
        (2, 1, 1),
        (3, 2, 1),
        ((1, 3, 5), (1, 2, 3), 1),
        ((4, 3, 2), (2, 3, 1), (2, 1, 1)),
        (1, 2, 1),
        ((2, 1, 1), 3, 1),
    ],
)
def test_spconv_takes_any_kernel_and_any_sites(
    spconv: SpconvBackend, size, stride, dilation
) -> None:
    kernel = Kernel.of(size, stride, dilation)
    fine = backends.scattered(40, 4)
    coarse = fine.parents(kernel.stride)
    for case in (
        backends.Case("there", fine, coarse, kernel),
        backends.Case("to all reached", fine, reached_sites(fine, kernel), kernel),
        backends.Case("back", coarse, fine, kernel, transposed=True),
        backends.Case(
            "generative", coarse, generative_sites(coarse, kernel), kernel, transposed=True
        ),
    ):
        assert not backends.difference(spconv, case, torch.float32, False)


def test_spconv_multiplies_on_one_thread(
    spconv: SpconvBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With several its sums race on the CPU: one call in fifty was wrong on two threads."""
    from spconv.pytorch import functional

    product, threads = functional.indice_subm_conv, []

    def counted(*arguments):
        threads.append(torch.get_num_threads())
        return product(*arguments)

    monkeypatch.setattr(functional, "indice_subm_conv", counted)
    torch.set_num_threads(3)
    assert not backends.difference(
        spconv, backends.cases(backends.scattered(40, 4))[0], torch.float32, False
    )
    assert threads == [1] and torch.get_num_threads() == 3


def test_spconv_through_the_operation(spconv: SpconvBackend) -> None:
    sites = backends.scattered(40, 4)
    x = SparseTensor(sites, torch.randn(len(sites), 4))
    weight, bias = torch.randn(27, 4, 6), torch.randn(6)
    kernel = Kernel.of(3)
    found, expected = (
        convolve(x, weight, kernel, bias, backend=spconv),
        convolve(x, weight, kernel, bias),
    )
    torch.testing.assert_close(
        found.features, expected.features, rtol=1e-4, atol=1e-4
    )  # sums of 100 in other orders


def test_spconv_refuses(spconv: SpconvBackend) -> None:
    assert spconv.refuses(CPU, torch.float32, False) == ""
    assert "gradients" in spconv.refuses(CPU, torch.float32, True)
    assert "bfloat16" in spconv.refuses(CPU, torch.bfloat16, False)
    assert "bfloat16" in spconv.refuses(CUDA, torch.bfloat16, False)
    assert "mps" in spconv.refuses(torch.device("mps"), torch.float32, False)
    sites = backends.scattered(10, 3)
    with pytest.raises(SparseError, match=r"no gradients on the CPU.*--sparse-backend torch"):
        spconv.convolve(
            torch.zeros(len(sites), 2),
            torch.zeros(27, 2, 2, requires_grad=True),
            sites,
            sites,
            Kernel.of(3),
        )
    far = make_sites(torch.tensor([[0, 0, 0, 0], [0, 2000, 2000, 2000]]))[0]
    with pytest.raises(SparseError, match=r"2,003 x 2,003 x 2,003|2,005 x 2,005 x 2,005"):
        spconv.convolve(torch.zeros(2, 2), torch.zeros(27, 2, 2), far, far, Kernel.of(3))


class Config(dict):
    """Settings by item and by attribute."""

    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__

    def copy(self):
        return Config(self)


DEFAULTS = Config(
    dataflow="ImplicitGEMM",
    kmap_mode="hashmap_on_the_fly",
    downsample_mode="spconv",
    ifsort=False,
    split_mask_num=1,
    split_mask_num_bwd=3,
)


class TensorCache:
    def __init__(self):
        self.kmaps, self.hashmaps, self.cmaps = {}, {}, {}


class TensorOfTorchsparse:
    def __init__(self, feats, coords, stride=1, spatial_range=None):
        assert coords.dtype == torch.int32 and feats.is_contiguous() and len(feats) == len(coords)
        self.feats, self.coords, self.spatial_range = feats, coords, spatial_range
        self.stride = (stride,) * 3 if isinstance(stride, int) else stride
        self._caches = TensorCache()


def offsets_of_torchsparse(size):
    """x fastest where the volume is odd, z fastest where it is even."""
    axes = [range(-((n - 1) // 2), n // 2 + 1) for n in size]
    if (size[0] * size[1] * size[2]) % 2:
        return [(x, y, z) for z in axes[2] for y in axes[1] for x in axes[0]]
    return list(product(*axes))


def build_kernel_map(
    coords,
    count,
    kernel_size,
    stride,
    padding,
    hashmap_keys,
    hashmap_vals,
    spatial_range,
    mode,
    dataflow,
    downsample_mode,
    training,
    ifsort,
    split_mask_num,
    split_mask_num_bwd,
):
    """As TorchSparse 2.1 does it in its mode "hashmap", in Python."""
    assert (
        mode == "hashmap"
        and dataflow == "ImplicitGEMM"
        and hashmap_keys is None
        and hashmap_vals is None
    )
    assert coords.dtype == torch.int32 and coords.is_contiguous() and len(coords) == count
    assert coords.min() >= 0 and (coords < torch.tensor(spatial_range)).all()
    rows = {tuple(row): number for number, row in enumerate(coords.tolist())}
    if stride == (1, 1, 1):
        cells = list(rows)
    elif downsample_mode == "minkowski" or all(
        s in (1, n) for s, n in zip(stride, kernel_size, strict=True)
    ):
        cells = sorted({(b, x // stride[0], y // stride[1], z // stride[2]) for b, x, y, z in rows})
    else:
        assert downsample_mode == "spconv"
        last = [
            (n + 2 * p - k) // s
            for n, p, k, s in zip(spatial_range[1:], padding, kernel_size, stride, strict=True)
        ]
        met = set()
        for (b, *at), k in product(rows, product(*map(range, kernel_size))):
            moved = [a + p - one for a, p, one in zip(at, padding, k, strict=True)]
            cell = [a // s for a, s in zip(moved, stride, strict=True)]
            whole = all(a % s == 0 for a, s in zip(moved, stride, strict=True))
            if whole and all(0 <= c <= most for c, most in zip(cell, last, strict=True)):
                met.add((b, *cell))
        cells = sorted(met)
    offsets = offsets_of_torchsparse(kernel_size)
    table = [
        [
            rows.get((b, *(c * s + o for c, s, o in zip(at, stride, offset, strict=True))), -1)
            for offset in offsets
        ]
        for b, *at in cells
    ]
    return {
        "out_in_map": torch.tensor(table).reshape(len(cells), len(offsets)),
        "coords": torch.tensor(cells, dtype=torch.int32).reshape(-1, 4),
        "sizes": (count, len(cells)),
        "spatial_range": None,
    }


def conv3d(
    input,
    weight,
    kernel_size,
    bias=None,
    stride=1,
    padding=0,
    dilation=1,
    config=None,
    transposed=False,
    generative=False,
    training=False,
):
    """As TorchSparse 2.1 does it where its cache has the map."""
    assert config["kmap_mode"] == "hashmap" and bias is None and not generative
    assert weight.is_contiguous() and weight.shape[:2] == (
        len(offsets_of_torchsparse(kernel_size)),
        len(input.feats.T),
    )
    fine = (
        tuple(a // b for a, b in zip(input.stride, stride, strict=True))
        if transposed
        else input.stride
    )
    found = input._caches.kmaps[fine, kernel_size, stride, dilation]
    table, (inputs, outputs) = found["out_in_map"], found["sizes"]
    made = input.feats.new_zeros((inputs if transposed else outputs, weight.shape[2]))
    for k in range(table.shape[1]):
        there = torch.nonzero(table[:, k] >= 0)[:, 0]
        here = table[there, k]
        at, of = (here, there) if transposed else (there, here)
        made = made.index_add(0, at, input.feats[of] @ weight[k])
    if transposed:
        coords, stride = input._caches.cmaps[fine][0], fine
    else:
        coords = found["coords"]
    padded = torch.cat(
        [made, made.new_ones((3, made.shape[1]))]
    )  # rows that the caller has to leave out
    result = TensorOfTorchsparse(padded[: len(coords)], coords, stride)
    result.feats = padded
    return result


class OnCpu(TorchsparseBackend):
    devices = ("cpu",)


@pytest.fixture
def torchsparse(monkeypatch: pytest.MonkeyPatch) -> OnCpu:
    library, nn, functional, utils, cache = (
        types.ModuleType(f"torchsparse{name}")
        for name in ("", ".nn", ".nn.functional", ".utils", ".utils.tensor_cache")
    )
    library.SparseTensor, library.nn, library.utils = TensorOfTorchsparse, nn, utils
    nn.functional, utils.tensor_cache, cache.TensorCache = functional, cache, TensorCache
    functional.conv3d, functional.build_kernel_map = conv3d, build_kernel_map
    functional.get_conv_mode = lambda: "mode0"
    functional.conv_config = types.SimpleNamespace(
        get_default_conv_config=lambda conv_mode, training: DEFAULTS
    )
    for module in (library, nn, functional, utils, cache):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return OnCpu()


def test_torchsparse_conforms_with_its_stand_in(torchsparse: OnCpu) -> None:
    assert torchsparse.unavailable() == ""
    check_sparse_backend(torchsparse)
    assert DEFAULTS.kmap_mode == "hashmap_on_the_fly", "the library's own settings stay as they are"


@pytest.mark.parametrize(
    ("size", "stride"), [(2, 1), ((3, 3, 2), 1), (5, 1), (4, 2), ((3, 1, 3), (3, 1, 2)), (3, 3)]
)
def test_torchsparse_s_order_of_offsets_and_cells(torchsparse: OnCpu, size, stride) -> None:
    kernel, fine = Kernel.of(size, stride), backends.scattered(25, 4)
    coarse = fine if stride == 1 else fine.parents(kernel.stride)
    cases = [backends.Case("there", fine, coarse, kernel)]
    if stride != 1:
        cases.append(backends.Case("back", coarse, fine, kernel, transposed=True))
        if not all(s in (1, n) for s, n in zip(kernel.stride, kernel.size, strict=True)):
            cells = reached_sites(fine, kernel)
            cases.append(backends.Case("to all reached", fine, cells, kernel))
            cases.append(backends.Case("back from all", cells, fine, kernel, transposed=True))
    for case in cases:
        assert not backends.difference(torchsparse, case, torch.float32, kernel.volume < 32)


def test_torchsparse_refuses(torchsparse: OnCpu) -> None:
    assert TorchsparseBackend().refuses(
        CPU, torch.float32, False
    ) and "bfloat16" in torchsparse.refuses(CPU, torch.bfloat16, False)
    fine = backends.scattered(25, 4)
    far = make_sites(torch.tensor([[0, 0, 0, 0], [0, 2**23, 0, 0]]))[0]
    mixed = Kernel.of((3, 3, 2), (1, 1, 2))
    for source, target, kernel, transposed, gradients, complaint in (
        (fine, fine, Kernel.of(3, 1, 2), False, False, "no dilation"),
        (fine, reached_sites(fine, Kernel.of(3)), Kernel.of(3), False, False, "the input's voxels"),
        (fine, fine, Kernel.of(2), True, False, "turn round"),
        (fine, fine, Kernel.of(5), False, True, "fewer than 32 offsets"),
        (far, far, Kernel.of(3), False, False, "along an axis"),
        (fine, reached_sites(fine, mixed), mixed, False, False, "only cells that contain voxels"),
    ):
        features = torch.zeros(len(source), 2, requires_grad=gradients)
        with pytest.raises(SparseError, match=f"{complaint}.*--sparse-backend torch"):
            torchsparse.convolve(
                features, torch.zeros(kernel.volume, 2, 2), source, target, kernel, transposed
            )


@pytest.mark.parametrize("backend", [SpconvBackend(), TorchsparseBackend()])
def test_a_library_that_is_not_there_or_does_not_import(
    backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, backend.name, None)
    assert backend.unavailable()
    check_sparse_backend(backend)

    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == backend.name:
                raise RuntimeError("no CUDA driver\nmore lines")
            return

    monkeypatch.delitem(sys.modules, backend.name)
    for name in [name for name in sys.modules if name.startswith(f"{backend.name}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    assert "import fails: RuntimeError: no CUDA driver;" in backend.unavailable()


class Installed:
    """Stands in for the plugins."""

    def __init__(self, *found):
        self.found = {backend.name: backend for backend in found}

    def offers(self, kind):
        return {name: Offer(name, lambda name=name: self.found[name]) for name in self.found}

    def create(self, kind, name):
        return self.found[name]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch):
    """Gives `pick_backend` the backends that it shall find; its self-check runs on the CPU."""
    scattered = backends.scattered
    monkeypatch.setattr(backends, "scattered", lambda count, reach, device: scattered(count, reach))

    def install(*found):
        backends._choose.cache_clear()
        monkeypatch.setattr(backends.plugins, "load", lambda: Installed(*found))

    backends._choose.cache_clear()
    yield install
    backends._choose.cache_clear()


def like(name: str, kind: type[Wrong] = Wrong, **attributes) -> Wrong:
    backend = kind()
    for attribute, value in {"name": name, **attributes}.items():
        setattr(backend, attribute, value)
    return backend


def test_the_cpu_has_torch_s_and_cuda_the_first_that_can(installed) -> None:
    first, second = like("spconv"), like("torchsparse")
    installed(second, first, like("another"))
    assert backends.pick_backend("cpu", torch.float32) is TORCH
    assert backends.pick_backend("cuda", torch.float32) is first
    assert backends.pick_backend("cuda:1", torch.float32, gradients=True) is first
    installed(like("spconv", refused="not this dtype"), second)
    assert backends.pick_backend("cuda", torch.float32) is second
    installed(like("spconv", reason="not installed"), like("torchsparse", reason="not installed"))
    assert backends.pick_backend("cuda", torch.float32) is TORCH
    installed()
    assert backends.pick_backend("cuda", torch.float32) is TORCH


class Crashing(Wrong):
    def convolve(self, *arguments):
        raise RuntimeError("no kernel image is available\nfor this device")


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [(Mirrored, "submanifold, size 3"), (Crashing, "RuntimeError: no kernel image is available")],
)
def test_one_that_fails_its_self_check_is_skipped_with_a_warning(
    installed, kind, complaint: str
) -> None:
    second = like("torchsparse")
    installed(like("spconv", kind), second)
    with pytest.warns(
        RuntimeWarning, match=rf"'spconv' is not used for torch.float32 on cuda.*{complaint}"
    ):
        assert backends.pick_backend("cuda", torch.float32) is second
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert backends.pick_backend("cuda", torch.float32) is second, (
            "it is asked once in a process"
        )


def test_gradients_are_part_of_the_self_check(installed) -> None:
    installed(like("spconv", Detached))
    assert backends.pick_backend("cuda", torch.float32).name == "spconv"
    with pytest.warns(RuntimeWarning, match="the weight's gradient"):
        assert backends.pick_backend("cuda", torch.float32, gradients=True) is TORCH


def test_a_name_is_taken_or_refused_with_the_reason(installed) -> None:
    mine = like("mine", Mirrored)
    installed(
        mine,
        like("gone", reason="it is not installed"),
        like("picky", refused="it does not like it"),
    )
    assert backends.pick_backend("cuda", torch.float32, name="mine") is mine, (
        "what is named is not checked"
    )
    with pytest.raises(
        SparseError, match=r"'gone' cannot run here: it is not installed.*sparse-backend torch"
    ):
        backends.pick_backend("cpu", torch.float32, name="gone")
    with pytest.raises(
        SparseError, match=r"refuses torch.float16 on cpu with gradients: it does not like it"
    ):
        backends.pick_backend("cpu", torch.float16, gradients=True, name="picky")


def test_the_installed_ones() -> None:
    assert isinstance(backends.pick_backend("cpu", torch.bfloat16, name="torch"), TorchBackend)
    assert {"torch", "spconv", "torchsparse"} <= set(backends.plugins.load().offers("sparse"))
    with pytest.raises(UnknownNameError, match="did you mean 'torchsparse'"):
        backends.pick_backend("cpu", torch.float32, name="torchspars")
    info = earthgen_sparse.earthgen_info()
    assert info.licence == "Apache-2.0" and "MIT" in info.summary


LEARNED = """
from earthgen import Offer, hookimpl
from earthgen_stripes.backends import Terraces


def learned(step=2.0, sparse_backend=None):
    made = Terraces(step)
    made.sparse_backend = sparse_backend
    return made


@hookimpl
def earthgen_geometry_backends():
    return [Offer("learned", learned, takes=("sparse_backend",))]
"""


@pytest.fixture
def settings(tmp_path: Path) -> dict:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "learned.py").write_text(LEARNED)
    return {
        "bbox": (11.56, 49.99, 11.562, 49.991),
        "geometry": "learned",
        "plugin_dir": [tmp_path / "plugins"],
        "out": tmp_path / "w.zarr",
    }


def test_a_job_s_backend_is_an_option_of_those_that_take_it(settings: dict) -> None:
    job = make_job({**settings, "sparse_backend": "torch"})
    plan = prepare(job)
    assert plan.engine.geometry.sparse_backend == "torch"
    assert plan.identity["geometry"]["options"] == {"sparse_backend": "torch"}
    assert plan.identity["texture"]["options"] == {}
    assert stored_settings(job)["sparse_backend"] == "torch", "a --resume goes on with it"
    plain = prepare(make_job(settings))
    assert (
        plain.engine.geometry.sparse_backend is None and plain.identity["geometry"]["options"] == {}
    )
    own = {"geometry_options": {"sparse_backend": "spconv", "step": 3.0}}
    assert prepare(make_job({**settings, **own, "sparse_backend": "torch"})).identity["geometry"][
        "options"
    ] == {
        "sparse_backend": "spconv",
        "step": 3.0,
    }


def test_a_job_without_sparse_tensors_refuses_a_backend(settings: dict) -> None:
    with pytest.raises(
        JobError,
        match="neither the procedural geometry nor the procedural texture takes `sparse_backend`",
    ):
        prepare(make_job({**settings, "geometry": "procedural", "sparse_backend": "torch"}))
    with pytest.raises(UnknownNameError, match="'lerned'"):
        prepare(make_job({**settings, "geometry": "lerned", "sparse_backend": "torch"}))


@pytest.mark.parametrize(
    ("name", "geometry", "code", "complaint"),
    [
        ("torchspars", "learned", 6, "did you mean 'torchsparse'"),
        ("torchsparse", "learned", 9, "sparse backend 'torchsparse' cannot run here: "),
        ("torch", "procedural", 2, "leave --sparse-backend out"),
    ],
)
def test_the_command_line_says_it_in_one_line(
    name: str,
    geometry: str,
    code: int,
    complaint: str,
    settings: dict,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "torchsparse", None)
    words = [
        "generate",
        "--bbox",
        "11.56,49.99,11.562,49.991",
        "--geometry",
        geometry,
        "--sparse-backend",
        name,
    ]
    folders = ["--plugin-dir", str(settings["plugin_dir"][0])]
    assert main([*words, *folders, "--out", str(settings["out"])]) == code
    line = capsys.readouterr().err
    assert (
        line.startswith("error: ")
        and line.count("\n") == 1
        and complaint.casefold() in line.casefold()
    )
    assert not settings["out"].exists()


@pytest.mark.slow
def test_doctor_lists_them() -> None:
    checks = {name: doctor.sparse_backend(name, []) for name in ("torch", "spconv", "torchsparse")}
    assert checks["torch"].status is doctor.Status.OK and "runs on cpu" in checks["torch"].detail
    for name, backend in (("spconv", SpconvBackend()), ("torchsparse", TorchsparseBackend())):
        assert "never run on a GPU" in checks[name].detail
        if backend.unavailable():
            assert (
                checks[name].status is doctor.Status.MISSING
                and checks[name].remedy == backend.unavailable()
            )
        else:
            assert checks[name].status is doctor.Status.OK and "runs on" in checks[name].detail


def test_doctor_lists_an_old_backend_as_one_to_update(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doctor, "run_python", lambda *_: doctor.Probe("", "AttributeError: no 'refuses'")
    )
    check = doctor.sparse_backend("old", [])
    assert check.status is doctor.Status.NOTE and "update" in check.remedy
    monkeypatch.setattr(
        doctor, "run_python", lambda *_: doctor.Probe(json.dumps(["", ["cpu"], ""]), "")
    )
    assert doctor.sparse_backend("new", []).detail == "runs on cpu"
