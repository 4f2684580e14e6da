"""The sizes of all models: `paper`, `base` (one consumer GPU) and `tiny` (two CPU cores). Loads no
torch.

The paper (arXiv 2507.16535) gives latent channels, strides, layers a block and the patch; it is
silent on widths, heads and the depth of the flows, which are chosen here. Presets are values of one
set of modules.

A *chain* of blocks is a text with a letter a block: c convolution, s attention in cubes of `window`
cells an edge, t attention in towers of `window` columns and all heights, f attention over the whole
sample. Shifts of windows alternate.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from earthgen.errors import ModelError

CLASSES = 26
"""Class codes of geo_io.legend, 0 unknown among them."""

KINDS = "csft"


def _known(chain: str) -> str:
    if set(chain) - set(KINDS):
        raise ValueError(
            f"a chain of blocks is made of the letters {', '.join(KINDS)}, not {chain!r}"
        )
    return chain


Chain = Annotated[str, AfterValidator(_known)]


class Config(BaseModel):
    """A frozen value that goes to JSON and back; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BlockConfig(Config):
    """What all blocks of a network share.

    Attributes
    ----------
    head : channels of an attention head
    window : cells along an edge of a window of attention
    mlp : hidden channels of a transformer block's second half, by its channels
    """

    head: int = 32
    window: int = 8
    mlp: float = 4.0


class UNetConfig(Config):
    """A sparse U-Net from stride s down to 2^(levels - 1) s.

    Attributes
    ----------
    channels : by level, finest first
    down, up : chains before each halving, and after each doubling, finest first: one fewer than
        levels
    middle : the chain at the coarsest level
    """

    channels: tuple[int, ...]
    down: tuple[Chain, ...] = ()
    middle: Chain
    up: tuple[Chain, ...] = ()
    blocks: BlockConfig = BlockConfig()

    @model_validator(mode="after")
    def _levels(self) -> UNetConfig:
        if not len(self.channels) - 1 == len(self.down) == len(self.up):
            raise ValueError(
                "a U-Net has one chain down and one up for each level but the coarsest"
            )
        return self


class StructVaeConfig(Config):
    """StructVAE.

    Attributes
    ----------
    channels : by level from L on; three halvings, as in the paper, go to L/8
    latent : channels of the structural latent
    encoder : chains at the levels from L on, without the coarsest
    middle : the chain at the coarsest level, once in the encoder and once in the decoder
    before, after : chains on the children before they are classified and after, at the levels from
        L on
    early : classify the eight children from their parent, and run no layer on those that are
        pruned; `before` is empty
    classes : predict a class for each voxel, and take it as an input; 0 leaves it out
    """

    channels: tuple[int, ...]
    latent: int = 32
    encoder: tuple[Chain, ...]
    middle: Chain
    before: tuple[Chain, ...]
    after: tuple[Chain, ...]
    early: bool = False
    classes: int = CLASSES
    blocks: BlockConfig = BlockConfig()

    @model_validator(mode="after")
    def _levels(self) -> StructVaeConfig:
        if (
            not len(self.channels) - 1
            == len(self.encoder)
            == len(self.before)
            == len(self.after)
            > 0
        ):
            raise ValueError("StructVAE has a chain of each kind for each level but the coarsest")
        if self.early and any(self.before):
            raise ValueError(
                "with early classification no block runs before it: leave `before` empty"
            )
        return self

    @property
    def stride(self) -> int:
        """Voxels along an edge of a latent cell."""
        return 2 ** (len(self.channels) - 1)


class TexVaeConfig(Config):
    """TexVAE: no spatial compression.

    Attributes
    ----------
    inputs : channels of a voxel's features: 18 are five RGB pixels and a normal, 66 with three
        scales of an image
        autoencoder's
    channels : inside
    latent : channels of the textural latent
    encoder, decoder : chains
    reach : how far a Gaussian's mean may lie from its voxel's centre along an axis, voxels
    scales : least and largest standard deviation, voxels
    """

    inputs: int = 18
    channels: int
    latent: int = 8
    encoder: Chain
    decoder: Chain
    reach: float = 1.0
    scales: tuple[float, float] = (0.1, 2.0)
    blocks: BlockConfig = BlockConfig()


class CondConfig(Config):
    """CondNet.

    Attributes
    ----------
    channels : of the plane at strides 1, 2, 4, ...; as many as the flow's coarsest level needs
    plane : chains on the plane, by level
    cross : whether voxels also attend to the plane, and to an image's voxels, in windows
    voxels : whether an un-projected image (RGB with depth) can be given
    heights : channels of the encoding of height above the ground
    """

    channels: tuple[int, ...]
    plane: tuple[Chain, ...]
    cross: bool = False
    voxels: bool = True
    heights: int = 24
    blocks: BlockConfig = BlockConfig()

    @model_validator(mode="after")
    def _levels(self) -> CondConfig:
        if len(self.channels) != len(self.plane):
            raise ValueError("CondNet has a chain for each level of its plane")
        return self


class FlowConfig(Config):
    """How a flow is trained and read: see `earthgen.models.flow.Flow`."""

    predicts: Literal["data", "velocity"] = "data"
    mean: float = 0.0
    deviation: float = 1.0
    embedding: int = 128


class StructCoarseConfig(Config):
    """StructFM, first stage: which cells of L/8 are active.

    Attributes
    ----------
    patch : cells along an edge of a patch; origins have to be multiples of patch * stride voxels
    """

    stride: int = 8
    patch: int = 2
    channels: int
    middle: Chain
    flow: FlowConfig = FlowConfig()
    condition: CondConfig
    blocks: BlockConfig = BlockConfig()


class StructFineConfig(Config):
    """StructFM, second stage: the latents of active cells.

    Attributes
    ----------
    latent : channels, those of StructVAE
    threshold : a channel counts as set beyond this (paper: 0.3)
    """

    stride: int = 8
    latent: int = 32
    threshold: float = 0.3
    unet: UNetConfig
    flow: FlowConfig = FlowConfig()
    condition: CondConfig


class TexFlowConfig(Config):
    """TexFM.

    Attributes
    ----------
    latent : channels, those of TexVAE
    classes : of the voxels, as an input; 0 leaves it out
    """

    latent: int = 8
    classes: int = CLASSES
    unet: UNetConfig
    flow: FlowConfig = FlowConfig()
    condition: CondConfig


class HeightFlowConfig(Config):
    """The flow on height maps, dense in 2D.

    Attributes
    ----------
    channels : by level, finest first
    blocks : convolution blocks at each level, on the way down and on the way up
    centre, spread : of log(1 + height in metres), so that heights have about mean 0 and deviation 1
        everywhere
    """

    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    classes: int = CLASSES
    centre: float = 1.0
    spread: float = 1.2
    flow: FlowConfig = FlowConfig()

    @model_validator(mode="after")
    def _levels(self) -> HeightFlowConfig:
        if len(self.channels) != len(self.blocks):
            raise ValueError("the height flow has a number of blocks for each level")
        return self


class Preset(Config):
    """All parts of one size.

    Attributes
    ----------
    voxel_size : metres
    columns : along an edge of a training crop; `tile` along one at inference
    band : heights, voxels from the ground
    """

    name: str
    voxel_size: float
    columns: int
    tile: int
    band: tuple[int, int]
    struct_vae: StructVaeConfig
    tex_vae: TexVaeConfig
    struct_coarse: StructCoarseConfig
    struct_fine: StructFineConfig
    tex_flow: TexFlowConfig
    height_flow: HeightFlowConfig

    @model_validator(mode="after")
    def _agree(self) -> Preset:
        if (
            self.struct_fine.latent != self.struct_vae.latent
            or self.tex_flow.latent != self.tex_vae.latent
        ):
            raise ValueError("a flow has as many channels as its autoencoder's latent")
        if not self.struct_coarse.stride == self.struct_fine.stride == self.struct_vae.stride:
            raise ValueError("StructFM's cells are those of StructVAE's latent")
        return self

    def part(self, name: str) -> Config:
        """The configuration of a part. Raises ModelError for another name than those of `PARTS`."""
        if name not in PARTS:
            raise ModelError(f"a preset has no part {name!r}", f"there are {', '.join(PARTS)}")
        found: Config = getattr(self, name.replace("-", "_"))
        return found


PARTS: dict[str, type[Config]] = {
    "struct-vae": StructVaeConfig,
    "tex-vae": TexVaeConfig,
    "struct-coarse": StructCoarseConfig,
    "struct-fine": StructFineConfig,
    "tex-flow": TexFlowConfig,
    "height-flow": HeightFlowConfig,
}
"""The parts of a preset, and what configures them."""


def _paper() -> dict[str, Any]:
    """Layers, strides and latents of the paper; widths, heads and the flows' depth are ours."""
    large = BlockConfig(head=64)
    return {
        "voxel_size": 0.56,
        "columns": 256,
        "tile": 256,
        "band": (-32, 224),
        "struct_vae": StructVaeConfig(
            channels=(64, 128, 256, 512),
            latent=32,
            encoder=("ssssc",) * 3,
            middle="ffffc",
            before=("ss", "ss", "ss"),
            after=("ssc", "ssc", "ssc"),
        ),
        "tex_vae": TexVaeConfig(
            inputs=66, channels=128, latent=8, encoder="ssssc" * 3, decoder="ssssc" * 3
        ),
        "struct_coarse": StructCoarseConfig(
            patch=2,
            channels=1024,
            middle="f" * 24,
            blocks=large,
            flow=FlowConfig(predicts="velocity", embedding=512),
            condition=CondConfig(
                channels=(32, 64, 128, 256, 512), plane=("s", "s", "s", "s", "s"), cross=True
            ),
        ),
        "struct_fine": StructFineConfig(
            latent=32,
            flow=FlowConfig(predicts="velocity", embedding=512),
            unet=UNetConfig(
                channels=(512, 1024), down=("ssssc",), middle="f" * 12, up=("ssssc",), blocks=large
            ),
            condition=CondConfig(
                channels=(32, 64, 128, 256, 512), plane=("s", "s", "s", "s", "s"), cross=True
            ),
        ),
        "tex_flow": TexFlowConfig(
            latent=8,
            flow=FlowConfig(predicts="velocity", embedding=512),
            unet=UNetConfig(
                channels=(128, 256, 512, 768),
                down=("ssssc",) * 3,
                middle="ffffffffcc",
                up=("ssssc",) * 3,
            ),
            condition=CondConfig(
                channels=(64, 128, 256, 512), plane=("ss", "ss", "ss", "ss"), cross=True
            ),
        ),
        "height_flow": HeightFlowConfig(
            channels=(128, 256, 384, 512), blocks=(2, 2, 4, 4), flow=FlowConfig(embedding=512)
        ),
    }


def _base() -> dict[str, Any]:
    """About a fifth of `paper`'s parameters, for one consumer GPU."""
    return {
        "voxel_size": 1.0,
        "columns": 128,
        "tile": 256,
        "band": (-16, 112),
        "struct_vae": StructVaeConfig(
            channels=(48, 96, 192, 256),
            latent=16,
            encoder=("cc", "ccs", "ccs"),
            middle="ctct",
            before=("", "", ""),
            after=("cc", "csc", "csc"),
            early=True,
        ),
        "tex_vae": TexVaeConfig(inputs=18, channels=96, latent=8, encoder="cscs", decoder="cscscs"),
        "struct_coarse": StructCoarseConfig(
            patch=1,
            channels=384,
            middle="ctctctctc",
            flow=FlowConfig(embedding=256),
            condition=CondConfig(channels=(32, 64, 96, 192), plane=("c", "c", "c", "c")),
        ),
        "struct_fine": StructFineConfig(
            latent=16,
            flow=FlowConfig(embedding=256),
            unet=UNetConfig(channels=(384,), middle="cctcctcctcct"),
            condition=CondConfig(channels=(32, 64, 96, 192), plane=("c", "c", "c", "c")),
        ),
        "tex_flow": TexFlowConfig(
            latent=8,
            flow=FlowConfig(embedding=256),
            unet=UNetConfig(
                channels=(64, 128, 256, 384),
                down=("cc", "cc", "ccs"),
                middle="ctctct",
                up=("ccc", "ccc", "ccs"),
            ),
            condition=CondConfig(channels=(48, 96, 144, 192), plane=("cc", "cc", "cc", "cc")),
        ),
        "height_flow": HeightFlowConfig(
            channels=(64, 128, 256, 384), blocks=(2, 2, 3, 3), flow=FlowConfig(embedding=256)
        ),
    }


def _tiny() -> dict[str, Any]:
    """Convolution all over, attention at L/8 only: what learns within minutes on two CPU cores."""
    small = BlockConfig(mlp=2.0)
    flow = FlowConfig(embedding=96)
    return {
        "voxel_size": 1.0,
        "columns": 64,
        "tile": 128,
        "band": (-16, 112),
        "struct_vae": StructVaeConfig(
            channels=(32, 48, 64, 96),
            latent=16,
            encoder=("cc", "cc", "cc"),
            middle="ct",
            before=("", "", ""),
            after=("cc", "cc", "cc"),
            early=True,
            blocks=small,
        ),
        "tex_vae": TexVaeConfig(
            inputs=18, channels=48, latent=8, encoder="ccc", decoder="cccc", blocks=small
        ),
        "struct_coarse": StructCoarseConfig(
            patch=1,
            channels=96,
            middle="ctcc",
            blocks=small,
            flow=flow,
            condition=CondConfig(
                channels=(16, 24, 32, 64), plane=("", "c", "c", "c"), voxels=False, blocks=small
            ),
        ),
        "struct_fine": StructFineConfig(
            latent=16,
            flow=flow,
            unet=UNetConfig(channels=(96,), middle="cctcct", blocks=small),
            condition=CondConfig(
                channels=(24, 32, 48, 64), plane=("c", "c", "c", "c"), voxels=False, blocks=small
            ),
        ),
        "tex_flow": TexFlowConfig(
            latent=8,
            flow=flow,
            unet=UNetConfig(
                channels=(32, 64, 96, 96),
                down=("c", "c", "c"),
                middle="ct",
                up=("cc", "cc", "cc"),
                blocks=small,
            ),
            condition=CondConfig(
                channels=(24, 32, 48, 64), plane=("c", "c", "c", "c"), voxels=False, blocks=small
            ),
        ),
        "height_flow": HeightFlowConfig(channels=(32, 64, 96, 112), blocks=(2, 2, 2, 2), flow=flow),
    }


PRESETS = {"paper": _paper, "base": _base, "tiny": _tiny}


@functools.cache
def preset(name: str) -> Preset:
    """The preset of a name. Raises ModelError for another than those of `PRESETS`."""
    if name not in PRESETS:
        raise ModelError(f"there is no preset {name!r}", f"there are {', '.join(PRESETS)}")
    return Preset(name=name, **PRESETS[name]())
