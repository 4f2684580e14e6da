"""What `earthgen models` counts, against torch's own counter and counts by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from earthgen.errors import ModelError
from earthgen.models.blocks import Chain, ConvBlock
from earthgen.models.build import make_model
from earthgen.models.cost import markdown, part_cost, preset_costs, terrain_shell
from earthgen.models.presets import PARTS, BlockConfig
from earthgen.sparse import SparseTensor
from earthgen_cli.main import main
from tests.helpers.model_cases import output
from tests.helpers.model_scenes import town

pytestmark = pytest.mark.usefixtures("one_thread")


def test_attention_is_counted_as_torch_counts_it() -> None:
    chain = Chain("tff", 24, BlockConfig(head=12, mlp=2.0))
    sites = town(16).sites.parents(2)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        chain(SparseTensor(sites, torch.randn(len(sites), 24)))
    # All is one window and one sample: no padding, which torch would count.
    assert counter.get_total_flops() == chain.flops(sites)


def test_convolutions_are_counted_by_the_voxels_that_meet() -> None:
    block = ConvBlock(4, 0)
    sites = town(16).sites
    active = set(map(tuple, sites.coordinates.tolist()))
    steps = [(0, i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)]
    pairs = sum(
        tuple(a + b for a, b in zip(row, step, strict=True)) in active
        for row in active
        for step in steps
    )
    assert block.flops(sites) == 2 * pairs * 16 + 2 * len(sites) * 16


def test_a_dense_map_is_counted_as_torch_counts_it() -> None:
    model = make_model("height-flow", "tiny")
    with FlopCounterMode(display=False) as counter:
        output("height-flow", model, town())
    # The rest are the products of the time's embedding.
    assert counter.get_total_flops() == pytest.approx(model.flops(32, 32), rel=2e-3)


@pytest.mark.parametrize("part", ["struct-vae", "tex-vae", "tex-flow"])
def test_a_whole_model_costs_no_less_than_is_counted(part: str) -> None:
    """The CPU's products take zeros along, in a scene as small as this more than in a town
    (docs/background/sparse.md)."""
    model, scene = make_model(part, "tiny"), town()
    with FlopCounterMode(display=False) as counter:
        output(part, model, scene)
    counted = model.flops(scene.sites)
    if part == "tex-flow":
        counted += model.cond_net.flops((32, 32), model.unet.levels(scene.sites))
    assert counted * 0.98 < counter.get_total_flops() < 2.5 * counted


def test_the_shell_is_a_closed_surface() -> None:
    sites = terrain_shell(64, (-16, 112))
    assert len({tuple(row) for row in sites.coordinates[:, 1:3].tolist()}) == 64 * 64
    assert len(sites) == pytest.approx(1.46 * 64 * 64, rel=0.05)
    assert int(sites.lattice()[:, 2].min()) == -1


def test_accounts() -> None:
    found = preset_costs(["tiny"])
    assert [one.part for one in found] == list(PARTS)
    for one in found:
        model = make_model(one.part, "tiny")
        assert one.parameters == sum(value.numel() for value in model.parameters())
        assert one.memory > 4 * one.parameters and one.flops > 0
    assert part_cost("tiny", "tex-vae", 256).flops == pytest.approx(
        4 * part_cost("tiny", "tex-vae").flops, rel=0.05
    )
    with pytest.raises(ModelError, match="unknown preset 'large'"):
        part_cost("large", "tex-vae")
    with pytest.raises(ModelError, match="unknown model 'vae'"):
        part_cost("tiny", "vae")


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--preset", "tiny", "--tile", "64"]) == 0
    text = capsys.readouterr().out
    assert all(part in text for part in PARTS) and "in bfloat16" in text
    assert main(["models", "--preset", "tiny", "--tile", "64", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)["models"]
    assert [one["part"] for one in values] == list(PARTS)
    assert main(["models", "--preset", "huge", "--json"]) == 11
    assert json.loads(capsys.readouterr().err)["type"] == "ModelError"
    assert main(["models", "--tile", "72"]) == 11


def test_presets_load_no_torch() -> None:
    code = (
        "import sys, earthgen.models.presets as p; p.preset('paper'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_table_of_the_docs_is_what_the_command_counts() -> None:
    page = (Path(__file__).parents[3] / "docs" / "background" / "models.md").read_text("utf-8")
    assert markdown(preset_costs(("tiny", "base", "paper"))) in page, (
        "print earthgen.models.cost.markdown into docs/background/models.md"
    )
