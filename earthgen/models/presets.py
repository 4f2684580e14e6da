"""The sizes of all models: `paper`, `base` (one consumer GPU) and `tiny` (two CPU cores).

Loads no torch. The paper (arXiv 2507.16535) gives latent channels, strides, layers per block and
the patch; widths, heads and the depth of the flows are not in it and are chosen here.

A *chain* of blocks is a text with one letter per block: c convolution, s attention in cubes of
`window` cells per edge, t attention in towers of `window` columns and all heights, f attention over
the whole sample. Shifts of windows alternate.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from earthgen.errors import ModelError

CLASSES = 26
"""Number of class codes of `geo_io.legend`, with 0 for unmapped: the map says nothing there."""

HIDDEN = CLASSES
"""Class code of a land cover that is not given at all, which networks with `hidden_token` tell from
unmapped land: training hides it, and guidance goes away from it."""

STYLES = ("rules", "real")
"""Names of styles, in the order of their numbers from 1: of simulated and of real places."""

MAPS = ("whole", "gaps")
"""Kinds of maps, in the order of their numbers from 1: what is not on a whole map is not there; a
map with gaps leaves out trees, small buildings and areas, as most do."""

KINDS = "csft"


def _check_chain(chain: str) -> str:
    if set(chain) - set(KINDS):
        raise ValueError(
            f"a chain of blocks has the letters {', '.join(KINDS)} only, not {chain!r}"
        )
    return chain


Chain = Annotated[str, AfterValidator(_check_chain)]


class Config(BaseModel):
    """Base of all configurations: frozen, serialised as JSON, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BlockConfig(Config):
    """Configuration that all blocks of a network share.

    Attributes
    ----------
    head : int
        Channels of an attention head.
    window : int
        Cells along an edge of an attention window.
    mlp : float
        Ratio of hidden channels to channels in a transformer block.
    """

    head: int = 32
    window: int = 8
    mlp: float = 4.0


class UNetConfig(Config):
    """Configuration of a sparse U-Net from stride s to 2^(levels - 1) s.

    Attributes
    ----------
    channels : tuple of int
        Channels by level, finest first.
    down, up : tuple of str
        Chains before each halving and after each doubling, finest first: one fewer than levels.
    middle : str
        Chain at the coarsest level.
    blocks : BlockConfig
        Configuration of all blocks.
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
                "a U-Net has one chain down and one up for each level except the coarsest"
            )
        return self


class StructVaeConfig(Config):
    """Configuration of StructVAE.

    Attributes
    ----------
    channels : tuple of int
        Channels by level from L on; three halvings, as in the paper, lead to L/8.
    latent : int
        Channels of the structural latent.
    encoder : tuple of str
        Chains at the levels from L on, without the coarsest.
    middle : str
        Chain at the coarsest level, used in the encoder and in the decoder.
    before, after : tuple of str
        Chains on the children before and after they are classified, at the levels from L on.
    early : bool
        Whether the eight children are classified from their parent, so that no layer runs on those
        that are pruned; `before` is then empty.
    classes : int
        Classes that are predicted for each voxel and taken as an input; 0 for none.
    blocks : BlockConfig
        Configuration of all blocks.
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
            raise ValueError(
                "StructVAE has a chain of each kind for each level except the coarsest"
            )
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
    """Configuration of TexVAE, which has no spatial compression.

    Attributes
    ----------
    inputs : int
        Channels of a voxel's features: 18 are five RGB pixels and a normal, 98 with three scales of
        an image network (`earthgen.training.parts.image_maps`).
    channels : int
        Channels of the hidden layers.
    latent : int
        Channels of the textural latent.
    outputs : int
        Channels that are decoded: 3, a colour. Weights of before decode 16, of which 10 to 12 are
        the colour; the others had no visible effect.
    encoder, decoder : str
        Chains.
    blocks : BlockConfig
        Configuration of all blocks.
    """

    inputs: int = 18
    channels: int
    latent: int = 8
    outputs: Literal[3, 16] = 3
    encoder: Chain
    decoder: Chain
    blocks: BlockConfig = BlockConfig()

    @model_validator(mode="before")
    @classmethod
    def _of_before(cls, values: Any) -> Any:
        """Accept the configuration of weights that decode shapes, by the limits of the shapes."""
        if isinstance(values, dict) and {"reach", "scales"} & set(values):
            shapes = ("reach", "scales")
            return {"outputs": 16, **{k: v for k, v in values.items() if k not in shapes}}
        return values


class CondConfig(Config):
    """Configuration of CondNet.

    Attributes
    ----------
    channels : tuple of int
        Channels of the plane at strides 1, 2, 4, ..., up to the flow's coarsest level.
    plane : tuple of str
        Chains on the plane, by level.
    cross : bool
        Whether voxels also attend to the plane, and to an image's voxels, in windows.
    voxels : bool
        Whether voxels of the surface get the colours of the image, where image and heights are both
        known: the paper's image with depth (RGBD).
    heights : int
        Channels of the encoding of height above the ground.
    hidden_token : bool
        Whether hidden land cover has a code of its own (`HIDDEN`); weights of before have 0.
    blocks : BlockConfig
        Configuration of all blocks.
    """

    channels: tuple[int, ...]
    plane: tuple[Chain, ...]
    cross: bool = False
    voxels: bool = True
    heights: int = 24
    hidden_token: bool = False
    blocks: BlockConfig = BlockConfig()

    @model_validator(mode="after")
    def _levels(self) -> CondConfig:
        if len(self.channels) != len(self.plane):
            raise ValueError("CondNet has a chain for each level of its plane")
        return self


class FlowConfig(Config):
    """Configuration of a flow, see `earthgen.models.flow.Flow`.

    Attributes
    ----------
    predicts : str
        What the network predicts, "data", "velocity" or "preconditioned".
    time_logit_mean, time_logit_std : float
        Mean and standard deviation of the logit of the training times. Weights of before call them
        `mean` and `deviation`.
    time_uniform : float
        Share of the training times that are uniform.
    embedding : int
        Channels of the embedding of the time.
    logit_time : bool
        Whether the time is embedded by a few octaves of its logit, which resolves times near the
        end, instead of many octaves of the time.
    """

    predicts: Literal["data", "velocity", "preconditioned"] = "data"
    time_logit_mean: float = 0.0
    time_logit_std: float = 1.0
    time_uniform: float = 0.0
    embedding: int = 128
    logit_time: bool = False

    @model_validator(mode="before")
    @classmethod
    def _rename(cls, values: Any) -> Any:
        """Accept the earlier names of weights of before."""
        earlier = {"mean": "time_logit_mean", "deviation": "time_logit_std"}
        if isinstance(values, dict):
            return {earlier.get(name, name): value for name, value in values.items()}
        return values


class StructCoarseConfig(Config):
    """Configuration of StructFM's first stage: which cells of L/8 are active.

    Attributes
    ----------
    stride : int
        Voxels along an edge of a cell.
    patch : int
        Cells along an edge of a patch; origins are multiples of patch * stride voxels.
    channels, middle, blocks : int, str, BlockConfig
        Of the network, which has one level.
    styles : int
        Names of styles that can be asked for; 0 for a network without.
    flow, condition : FlowConfig, CondConfig
        Of the flow and its conditions.
    """

    stride: int = 8
    patch: int = 2
    channels: int
    middle: Chain
    styles: int = 0
    flow: FlowConfig = FlowConfig()
    condition: CondConfig
    blocks: BlockConfig = BlockConfig()


class StructFineConfig(Config):
    """Configuration of StructFM's second stage: the latents of active cells.

    Attributes
    ----------
    stride : int
        Voxels along an edge of a cell.
    latent : int
        Channels of StructVAE's latent.
    threshold : float
        A channel counts as set from this absolute value on (paper: 0.3).
    styles : int
        As of `StructCoarseConfig`.
    unet, flow, condition : UNetConfig, FlowConfig, CondConfig
        Of the network, the flow and its conditions.
    """

    stride: int = 8
    latent: int = 32
    threshold: float = 0.3
    styles: int = 0
    unet: UNetConfig
    flow: FlowConfig = FlowConfig()
    condition: CondConfig


class TexFlowConfig(Config):
    """Configuration of TexFM.

    Attributes
    ----------
    target : str
        What the flow makes for each voxel: "latent", that of TexVAE, or "rgb", the colour, for
        which no TexVAE is needed.
    latent : int
        Channels of TexVAE's latent.
    classes : int
        Classes of voxels that are taken as an input; 0 for none.
    told : bool
        Whether the colour of a voxel's roof, wall or crown is an input, known or hidden.
    by_object : bool
        Whether the state of a voxel is the difference from its told colour, where it is known; for
        the target "rgb".
    styles : int
        As of `StructCoarseConfig`.
    unet, flow, condition : UNetConfig, FlowConfig, CondConfig
        Of the network, the flow and its conditions.
    """

    target: Literal["latent", "rgb"] = "latent"
    latent: int = 8
    classes: int = CLASSES
    told: bool = False
    by_object: bool = False
    styles: int = 0
    unet: UNetConfig
    flow: FlowConfig = FlowConfig()
    condition: CondConfig

    @property
    def channels(self) -> int:
        """Channels of the state."""
        return 3 if self.target == "rgb" else self.latent


class HeightFlowConfig(Config):
    """Configuration of the flow on height maps, dense in 2D.

    Attributes
    ----------
    channels : tuple of int
        Channels by level, finest first.
    blocks : tuple of int
        Convolution blocks at each level, on the way down and on the way up.
    classes : int
        Land classes of the input.
    centre, spread : float
        Mean and deviation by which log(1 + height in metres) is normalised; for state "log".
    state : str
        "log", or "object": metres against the height of the building, else of the class, see
        `earthgen.models.height_state`.
    styles : int
        Names of styles that can be asked for; 0 for a network without.
    hidden_token : bool
        Whether hidden land cover has a code of its own (`HIDDEN`); weights of before have 0.
    map_kinds : bool
        Whether the network is told the kind of the map (`MAPS`).
    roofs : bool
        Whether roofs are told (`earthgen.models.roofs`).
    image, surface : bool
        Whether the network takes an aerial image, and heights that are known in a part.
    flow : FlowConfig
        Of the flow.
    """

    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    classes: int = CLASSES
    centre: float = 1.0
    spread: float = 1.2
    state: Literal["log", "object"] = "log"
    styles: int = 0
    hidden_token: bool = False
    map_kinds: bool = False
    roofs: bool = False
    image: bool = False
    surface: bool = False
    flow: FlowConfig = FlowConfig()

    @model_validator(mode="after")
    def _levels(self) -> HeightFlowConfig:
        if len(self.channels) != len(self.blocks):
            raise ValueError("the height flow has a number of blocks for each level")
        return self


class Preset(Config):
    """Configurations of all parts of one size.

    Attributes
    ----------
    name : str
        Name of the preset.
    voxel_size : float
        Metres.
    columns, tile : int
        Columns along an edge of a training crop, and of a window at inference.
    band : (int, int)
        Heights that the networks work on, voxels from the ground.
    struct_vae, tex_vae, struct_coarse, struct_fine, tex_flow, height_flow
        Configurations of the parts.
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
        """Return the configuration of a part.

        Raises
        ------
        ModelError
            If `PARTS` has no such name.
        """
        if name not in PARTS:
            raise ModelError(f"unknown part {name!r}", f"choose from {', '.join(PARTS)}")
        config: Config = getattr(self, name.replace("-", "_"))
        return config


PARTS: dict[str, type[Config]] = {
    "struct-vae": StructVaeConfig,
    "tex-vae": TexVaeConfig,
    "struct-coarse": StructCoarseConfig,
    "struct-fine": StructFineConfig,
    "tex-flow": TexFlowConfig,
    "height-flow": HeightFlowConfig,
}
"""The parts of a preset, and the class of their configuration."""


def _flow(embedding: int) -> FlowConfig:
    """The flow of all parts: preconditioned, with times up to the end.

    docs/background/models.md has the reasons.
    """
    return FlowConfig(
        predicts="preconditioned",
        time_logit_mean=0.8,
        time_logit_std=1.4,
        time_uniform=0.1,
        embedding=embedding,
        logit_time=True,
    )


def _paper() -> dict[str, Any]:
    """Layers, strides and latents are the paper's, widths, heads and the flows' depth are not."""
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
            inputs=98, channels=128, latent=8, encoder="ssssc" * 3, decoder="ssssc" * 3
        ),
        "struct_coarse": StructCoarseConfig(
            patch=2,
            channels=1024,
            middle="f" * 24,
            blocks=large,
            flow=_flow(512),
            styles=len(STYLES),
            condition=CondConfig(
                channels=(32, 64, 128, 256, 512),
                plane=("s", "s", "s", "s", "s"),
                cross=True,
                voxels=True,
                hidden_token=True,
            ),
        ),
        "struct_fine": StructFineConfig(
            latent=32,
            flow=_flow(512),
            styles=len(STYLES),
            unet=UNetConfig(
                channels=(512, 1024), down=("ssssc",), middle="f" * 12, up=("ssssc",), blocks=large
            ),
            condition=CondConfig(
                channels=(32, 64, 128, 256, 512),
                plane=("s", "s", "s", "s", "s"),
                cross=True,
                voxels=True,
                hidden_token=True,
            ),
        ),
        "tex_flow": TexFlowConfig(
            latent=8,
            told=True,
            flow=_flow(512),
            styles=len(STYLES),
            unet=UNetConfig(
                channels=(128, 256, 512, 768),
                down=("ssssc",) * 3,
                middle="ffffffffcc",
                up=("ssssc",) * 3,
            ),
            condition=CondConfig(
                channels=(64, 128, 256, 512),
                plane=("ss", "ss", "ss", "ss"),
                cross=True,
                voxels=False,
                hidden_token=True,
            ),
        ),
        "height_flow": HeightFlowConfig(
            channels=(128, 256, 384, 512),
            blocks=(2, 2, 4, 4),
            flow=_flow(512),
            state="object",
            styles=len(STYLES),
            hidden_token=True,
            map_kinds=True,
            roofs=True,
            image=True,
            surface=True,
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
            flow=_flow(256),
            styles=len(STYLES),
            condition=CondConfig(
                channels=(32, 64, 96, 192),
                plane=("c", "c", "c", "c"),
                voxels=True,
                hidden_token=True,
            ),
        ),
        "struct_fine": StructFineConfig(
            latent=16,
            flow=_flow(256),
            styles=len(STYLES),
            unet=UNetConfig(channels=(384,), middle="cctcctcctcct"),
            condition=CondConfig(
                channels=(32, 64, 96, 192),
                plane=("c", "c", "c", "c"),
                voxels=True,
                hidden_token=True,
            ),
        ),
        "tex_flow": TexFlowConfig(
            latent=8,
            told=True,
            flow=_flow(256),
            styles=len(STYLES),
            unet=UNetConfig(
                channels=(64, 128, 256, 384),
                down=("cc", "cc", "ccs"),
                middle="ctctct",
                up=("ccc", "ccc", "ccs"),
            ),
            condition=CondConfig(
                channels=(48, 96, 144, 192),
                plane=("cc", "cc", "cc", "cc"),
                voxels=False,
                hidden_token=True,
            ),
        ),
        "height_flow": HeightFlowConfig(
            channels=(64, 128, 256, 384),
            blocks=(2, 2, 3, 3),
            flow=_flow(256),
            state="object",
            styles=len(STYLES),
            hidden_token=True,
            map_kinds=True,
            roofs=True,
            image=True,
            surface=True,
        ),
    }


def _tiny() -> dict[str, Any]:
    """Convolution everywhere, attention only at L/8: learns within minutes on two CPU cores."""
    small = BlockConfig(mlp=2.0)
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
            flow=_flow(96),
            styles=len(STYLES),
            condition=CondConfig(
                channels=(16, 24, 32, 64),
                plane=("", "c", "c", "c"),
                voxels=False,
                hidden_token=True,
                blocks=small,
            ),
        ),
        "struct_fine": StructFineConfig(
            latent=16,
            flow=_flow(96),
            styles=len(STYLES),
            unet=UNetConfig(channels=(96,), middle="cctcct", blocks=small),
            condition=CondConfig(
                channels=(24, 32, 48, 64),
                plane=("c", "c", "c", "c"),
                voxels=False,
                hidden_token=True,
                blocks=small,
            ),
        ),
        "tex_flow": TexFlowConfig(
            target="rgb",
            latent=8,
            told=True,
            by_object=True,
            flow=_flow(96),
            styles=len(STYLES),
            unet=UNetConfig(
                channels=(32, 64, 96, 96),
                down=("c", "c", "c"),
                middle="ct",
                up=("cc", "cc", "cc"),
                blocks=small,
            ),
            condition=CondConfig(
                channels=(24, 32, 48, 64),
                plane=("c", "c", "c", "c"),
                voxels=False,
                hidden_token=True,
                blocks=small,
            ),
        ),
        "height_flow": HeightFlowConfig(
            channels=(32, 64, 96, 112),
            blocks=(2, 2, 2, 2),
            flow=_flow(96),
            state="object",
            styles=len(STYLES),
            hidden_token=True,
            map_kinds=True,
            roofs=True,
            image=True,
            surface=True,
        ),
    }


PRESETS = {"paper": _paper, "base": _base, "tiny": _tiny}


@functools.cache
def preset(name: str) -> Preset:
    """Return the preset of a name.

    Raises
    ------
    ModelError
        If `PRESETS` has no such name.
    """
    if name not in PRESETS:
        raise ModelError(f"unknown preset {name!r}", f"choose from {', '.join(PRESETS)}")
    return Preset(name=name, **PRESETS[name]())
