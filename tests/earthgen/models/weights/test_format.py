"""Weights on disk: what comes back, and every way in which a file can be wrong."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from earthgen.errors import MissingWeightsError, ModelError
from earthgen.models.build import make_model
from earthgen.models.presets import FlowConfig, HeightFlowConfig, preset
from earthgen.models.weights.card import open_weights, write_card
from earthgen.models.weights.format import (
    KEY,
    load_weights,
    part_path,
    read_header,
    save_weights,
    tensor_digest,
)

SMALL = preset("tiny").tex_vae.model_copy(update={"channels": 12, "encoder": "c", "decoder": "c"})
DATA = ({"name": "a town", "licence": "CC0-1.0", "source": "generated"},)


def saved(folder: Path, **options: object) -> Path:
    path = part_path(folder, "tex-vae")
    model = make_model("tex-vae", SMALL, seed=3)
    model.statistics.fit(torch.randn(50, 8, generator=torch.Generator().manual_seed(0)) * 3 + 1)
    save_weights(
        path, "tex-vae", model, preset_name="tiny", licence="Apache-2.0", data=DATA, **options
    )  # type: ignore[arg-type]
    return path


def rewritten(path: Path, **changes: object) -> None:
    """The file with another header."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[KEY])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, {KEY: json.dumps(header | changes)})


def test_weights_come_back(tmp_path: Path) -> None:
    path = saved(tmp_path, metrics={"psnr": 31.0}, settings={"steps": 10})
    model, header = load_weights(path, "tex-vae", preset_name="tiny", config=SMALL, voxel_size=1.0)
    wanted = make_model("tex-vae", SMALL, seed=3).state_dict()
    for name, value in model.state_dict().items():
        if not name.startswith("statistics."):
            assert torch.equal(value, wanted[name]), name
    assert not model.training and header == read_header(path)
    assert (
        header.metrics == {"psnr": 31.0} and header.data == DATA and header.licence == "Apache-2.0"
    )
    assert header.digest == tensor_digest(model.state_dict())


def test_bfloat16_is_half_the_size_and_keeps_statistics(tmp_path: Path) -> None:
    full, half = saved(tmp_path / "a"), saved(tmp_path / "b", dtype="bfloat16")
    assert half.stat().st_size < 0.6 * full.stat().st_size
    model, _ = load_weights(half)
    exact, _ = load_weights(full)
    assert torch.equal(model.statistics.mean, exact.statistics.mean)
    assert all(value.dtype == torch.float32 for value in model.state_dict().values())
    for a, b in zip(model.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=2**-8, atol=0)  # what eight bits keep


def test_averaged_weights_can_be_saved_instead(tmp_path: Path) -> None:
    model = make_model("tex-vae", SMALL)
    zero = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    save_weights(tmp_path / "z.safetensors", "tex-vae", model, tensors=zero)
    assert not any(
        value.any() for value in load_weights(tmp_path / "z.safetensors")[0].state_dict().values()
    )
    with pytest.raises(ModelError, match="1 tensors are missing"):
        save_weights(
            tmp_path / "z.safetensors", "tex-vae", model, tensors=dict(list(zero.items())[1:])
        )


def test_what_is_no_file_of_weights(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match="there are no weights"):
        load_weights(tmp_path / "none.safetensors")
    text = tmp_path / "text.safetensors"
    text.write_bytes(b"not a safetensors file at all")
    with pytest.raises(ModelError, match="not a safetensors file"):
        load_weights(text)
    (tmp_path / "pickle.safetensors").write_bytes(pickle.dumps({"weight": [1.0]}))
    with pytest.raises(ModelError):
        load_weights(tmp_path / "pickle.safetensors")
    whole = saved(tmp_path)
    part = tmp_path / "part.safetensors"
    part.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(ModelError, match="damaged"):
        load_weights(part)
    save_file({"weight": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="has no header of earthgen"):
        load_weights(tmp_path / "other.safetensors")


def test_headers_that_do_not_fit(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with pytest.raises(ModelError, match="of part 'tex-vae', not 'struct-vae'"):
        load_weights(path, "struct-vae")
    with pytest.raises(ModelError, match="of preset 'tiny', not 'paper'"):
        load_weights(path, preset_name="paper")
    with pytest.raises(ModelError, match=r"of voxel size 1\.0, not 0\.5"):
        load_weights(path, voxel_size=0.5)
    with pytest.raises(ModelError, match="another configuration"):
        load_weights(path, config=preset("tiny").tex_vae)
    rewritten(path, version=99)
    with pytest.raises(ModelError, match="version 99"):
        load_weights(path)
    rewritten(path, version=1, part="tex-net")
    with pytest.raises(ModelError, match="unknown part 'tex-net'"):
        load_weights(path)
    rewritten(path, part="tex-vae", config={"channels": "many"})
    with pytest.raises(ModelError, match="configuration"):
        load_weights(path)
    rewritten(path, surprise=1)
    with pytest.raises(ModelError, match="header of the weights is damaged"):
        load_weights(path)


def test_tensors_that_do_not_fit(tmp_path: Path) -> None:
    path = saved(tmp_path)
    rewritten(path, config=SMALL.model_copy(update={"channels": 16}).model_dump(mode="json"))
    with pytest.raises(ModelError, match="of another shape"):
        load_weights(path)
    path = saved(tmp_path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    changed = {name: value.clone() for name, value in tensors.items()}
    changed["head.linear.bias"][0] += 1
    save_file(changed, path, metadata)
    with pytest.raises(ModelError, match="not those that were saved"):
        load_weights(path)
    model = make_model("tex-vae", SMALL)
    with torch.no_grad():
        model.head.linear.bias[0] = torch.nan
    save_weights(path, "tex-vae", model)
    with pytest.raises(ModelError, match=r"head.linear.bias is not finite"):
        load_weights(path)


def test_digests_know_names_shapes_and_dtypes() -> None:
    value = torch.arange(6.0)
    others = [{"b": value}, {"a": value.reshape(2, 3)}, {"a": value.int()}, {"a": value + 1}, {}]
    found = [tensor_digest(tensors) for tensors in ({"a": value}, *others)]
    assert len(set(found)) == len(found)
    assert tensor_digest({"a": value, "b": value}) == tensor_digest({"b": value, "a": value})


def test_a_set_has_a_card(tmp_path: Path) -> None:
    saved(tmp_path, metrics={"psnr": 31.25})
    written = write_card(
        tmp_path,
        title="Weights of a town",
        summary="For tests.",
        metrics={"Held out": {"a town": {"psnr": 30.0, "f1": 0.9}}},
        notes=["Never seen anything else."],
    )
    found = open_weights(tmp_path, preset_name="tiny")
    assert found.digest == written.digest and found.card["licence"] == "Apache-2.0"
    assert type(found.load("tex-vae")).__name__ == "TexVAE"
    text = (tmp_path / "README.md").read_text("utf-8")
    for part in (
        "Weights of a town",
        "Experimental",
        "CC0-1.0",
        "| a town | 30 | 0.9 |",
        "31.25",
        "Never seen",
    ):
        assert part in text
    with pytest.raises(MissingWeightsError, match="has no struct-vae"):
        found.load("struct-vae")
    with pytest.raises(ModelError, match="not 'paper'"):
        open_weights(tmp_path, preset_name="paper")


def test_sets_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match="no set of weights"):
        open_weights(tmp_path)
    with pytest.raises(MissingWeightsError, match="has no weights"):
        write_card(tmp_path, title="none")
    saved(tmp_path)
    write_card(tmp_path, title="a set")
    save_weights(
        part_path(tmp_path, "tex-vae"),
        "tex-vae",
        make_model("tex-vae", SMALL, seed=9),
        preset_name="tiny",
    )
    with pytest.raises(ModelError, match="not the one that card"):
        open_weights(tmp_path)
    (tmp_path / "card.json").write_text("[1]")
    with pytest.raises(ModelError, match=r"card\.json: the file is damaged"):
        open_weights(tmp_path)


def test_parts_have_to_belong_together(tmp_path: Path) -> None:
    saved(tmp_path)
    config = preset("tiny").tex_flow
    unet = config.unet.model_copy(update={"channels": (12,), "down": (), "middle": "c", "up": ()})
    cond = config.condition.model_copy(update={"channels": (8,), "plane": ("",)})
    flow = make_model("tex-flow", config.model_copy(update={"unet": unet, "condition": cond}))
    path = part_path(tmp_path, "tex-flow")
    save_weights(path, "tex-flow", flow, preset_name="tiny", latents="another")
    with pytest.raises(ModelError, match="latents of another tex-vae"):
        write_card(tmp_path, title="a set")
    save_weights(
        path,
        "tex-flow",
        flow,
        preset_name="tiny",
        latents=read_header(part_path(tmp_path, "tex-vae")).digest,
    )
    assert set(write_card(tmp_path, title="a set").parts) == {"tex-vae", "tex-flow"}
    save_weights(path, "tex-flow", flow, preset_name="base")
    with pytest.raises(ModelError, match="several presets"):
        write_card(tmp_path, title="a set")


def test_parts_and_presets_that_are_none() -> None:
    with pytest.raises(ModelError, match="unknown preset 'big'"):
        make_model("tex-vae", "big")
    with pytest.raises(ModelError, match="does not configure struct-vae"):
        make_model("struct-vae", SMALL)
    with pytest.raises(ModelError, match="unknown part 'tex'"):
        preset("tiny").part("tex")


def test_weights_with_the_length_of_a_step_give_the_same_at_a_step_of_0(tmp_path: Path) -> None:
    """Earlier networks added silu's argument of a step's embedding to that of the time."""
    config = HeightFlowConfig(channels=(4, 4), blocks=(1, 1), flow=FlowConfig(embedding=6))
    model, path = make_model("height-flow", config, seed=4), part_path(tmp_path, "height-flow")
    save_weights(path, "height-flow", model)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[KEY])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    random = torch.Generator().manual_seed(1)
    step = nn.Linear(17, 6)
    with torch.no_grad():
        for value in step.parameters():
            value.normal_(generator=random)
    tensors |= {"embed.step.weight": step.weight.detach(), "embed.step.bias": step.bias.detach()}
    header["digest"] = tensor_digest(tensors)
    save_file(tensors, path, {KEY: json.dumps(header)})

    time = torch.linspace(0, 1, 7)
    none = torch.cat([torch.zeros(1, 9), torch.ones(1, 8)], 1)  # the waves of 0
    embed = model.embed
    with torch.no_grad():
        waves = torch.cat([time[:, None], *(_waves_of(time, f) for f in (torch.sin, torch.cos))], 1)
        first = nn.functional.silu(embed.time(waves) + step(none))
        wanted = nn.functional.silu(embed.hidden(first))
        loaded = load_weights(path)[0]
        torch.testing.assert_close(loaded.embed(time), wanted)
        assert not torch.allclose(loaded.embed(time), embed(time), atol=1e-2)


def _waves_of(time: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    return function(time[:, None] * math.pi * 2.0 ** torch.arange(8))
