"""Blending rules: windows that are sampled separately agree, whatever the order."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from earthgen.engine.compute import Engine
from earthgen.errors import PluginError, UnknownNameError
from earthgen.noise.philox import Noise
from earthgen.stages.blending import (
    BLENDING_RULES,
    COLOURS,
    DEFAULT_BLENDING_RULE,
    STATE,
    FlowSampler,
    InpaintingMask,
    blend,
    blended,
    blending_stages,
    crossfade,
    crossfaded,
    four_colour,
    independent,
    initial_noise,
    raised_cosine,
    renoise,
)
from earthgen.stages.block import Block
from earthgen.stages.stage import Read, Stage
from earthgen.testing.backends import GeometryConformance, PlainTexture
from earthgen.testing.worlds import same_tiles
from geo_io.frame import Frame
from tests.helpers.diffusion import (
    Counted,
    Cover,
    DiffusionHills,
    Plain,
    at_once,
    orders,
    posterior_mean,
    radius,
    sample,
    sampler,
    seam_ratio,
    target,
)

CRS = "EPSG:32632"
WORLD = Frame(CRS, 1.0, (-70, 60), (-50, 45))
SMALL = sampler(24, 16, 4)
THREE_PHASES = partial(blended, phases=3)
ALL = [*BLENDING_RULES.values(), THREE_PHASES]


@pytest.mark.parametrize("rule", ALL)
def test_order_of_windows_does_not_matter(rule: Any) -> None:
    stages = rule(SMALL)
    reference = world(rule)
    for order in orders(2):
        shuffled = Plain(stages, WORLD, {"semantics": Cover()}, Noise(0), order)
        assert shuffled.field("hills", WORLD).dense[STATE].tobytes() == reference.tobytes()


@pytest.mark.parametrize("rule", ALL)
@given(x=st.integers(-70, 59), y=st.integers(-50, 44), nx=st.integers(1, 60), ny=st.integers(1, 60))
@settings(max_examples=5)
def test_a_crop_has_the_bits_of_the_whole(rule: Any, x: int, y: int, nx: int, ny: int) -> None:
    part = replace(WORLD, x=(x, min(x + nx, 60)), y=(y, min(y + ny, 45)))
    assert np.array_equal(sample(rule(SMALL), part), world(rule)[WORLD.slices(part)])


@cache
def world(rule: Any) -> NDArray:
    return sample(rule(SMALL), WORLD)


@pytest.mark.parametrize("rule", ALL)
def test_seeds_and_names_give_other_worlds(rule: Any) -> None:
    frame = replace(WORLD, x=(-5, 20), y=(-5, 20))
    first = sample(rule(SMALL), frame)
    assert np.array_equal(first, sample(rule(SMALL), frame, seed=0))
    assert not np.array_equal(first, sample(rule(SMALL), frame, seed=1))
    assert not np.array_equal(first, sample(rule(replace(SMALL, name="dales")), frame))


@pytest.mark.parametrize("rule", ALL)
def test_stages_are_plain_and_picklable(rule: Any) -> None:
    stages = pickle.loads(pickle.dumps(rule(SMALL)))
    assert stages[-1].name == "hills" and len({stage.name for stage in stages}) == len(stages)
    assert all(set(stage.fields) == {STATE} for stage in stages)
    frame = replace(WORLD, x=(0, 20), y=(0, 20))
    assert np.array_equal(sample(stages, frame), sample(rule(SMALL), frame))


def test_coarse_cells_and_stages_before() -> None:
    """A sampler of latents, 8 voxels per cell, that reads another sampler with a halo."""
    first = replace(SMALL, name="coarse", scale=8, reads=())
    second = FlowSampler("fine", follow, 24, 16, 3, 3, 8, (Read("coarse", cells=2),), "data")
    world = Frame(CRS, 1.0, (-300, 300), (-200, 200))
    for rule in BLENDING_RULES.values():
        stages = [*rule(first), *rule(second)]
        cells = world.coarsen(8)
        plain = Plain(stages, world, {}, Noise(0))
        whole = plain.field("fine", cells).dense[STATE]
        part = cells.tile(-1, 0, 10)
        again = Plain(stages, world, {}, Noise(0), next(orders(1))).field("fine", part).dense[STATE]
        assert np.array_equal(again, whole[cells.slices(part)])


def follow(state: NDArray, time: float, window: Frame, inputs: Any) -> NDArray:
    """A model that copies the middle of its input."""
    assert inputs["coarse"].frame == window.pad(2)
    return inputs["coarse"].crop(window).dense[STATE]


@pytest.fixture(scope="module")
def fields() -> dict[str, NDArray]:
    source = sampler(steps=8)
    made: dict[str, NDArray] = {
        name: sample(rule(source), SEAMS) for name, rule in BLENDING_RULES.items()
    }
    made["repeats"] = sample(four_colour(sampler(steps=8, repeats=3)), SEAMS)
    made["at once"] = at_once(source, SEAMS)
    return made


SEAMS = Frame(CRS, 1.0, (-192, 192), (-128, 256))


@pytest.mark.slow
def test_seams_show_where_windows_do_not_agree_and_fade_where_they_do(
    fields: dict[str, NDArray],
) -> None:
    """docs/background/benchmarks.md: independent 7.3, four colours 4.6 (2.8 with repeats),
    blended 1.3; in one window, without borders, 1.2."""
    ratio = {name: seam_ratio(values[..., 1], SEAMS, sampler()) for name, values in fields.items()}
    assert ratio["at once"] < 1.4
    assert ratio["independent"] > 4
    assert ratio["blended"] < 1.6
    assert ratio["repeats"] < ratio["four_colour"] < 0.9 * ratio["independent"]
    level = {name: seam_ratio(values[..., 0], SEAMS, sampler()) for name, values in fields.items()}
    assert (
        max(level["four_colour"], level["blended"], level["repeats"]) < 0.3 * level["independent"]
    )


def test_a_seam_is_seen_wherever_it_is() -> None:
    """The measure itself: a step along one window edge of one colour shows."""
    source = sampler()
    rng = np.random.default_rng(0)
    values = rng.normal(size=SEAMS.shape).cumsum(axis=0).cumsum(axis=1) / 30
    smooth = seam_ratio(values, SEAMS, source)
    x = np.arange(SEAMS.x[0], SEAMS.x[1])
    assert (
        seam_ratio(values + 40 * (x % 64 >= 24), SEAMS, source) > 2 * smooth
    )  # where a window of one colour begins
    assert seam_ratio((values + 40 * (x % 64 >= 24)).T, SEAMS, source) > 2 * smooth


def test_fields_have_the_distribution_of_one_large_window(fields: dict[str, NDArray]) -> None:
    aim = target(SEAMS, {"semantics": Cover().read(SEAMS)}) > 0
    for name, values in fields.items():
        assert abs(values[..., 1].std() / fields["at once"][..., 1].std() - 1) < 0.15, name
        assert np.mean((values[..., 2] > 0) != aim) < 0.02, name


def test_averaged_states_keep_their_noise() -> None:
    """Neighbours start from the same noise, so their mean keeps its variance in the overlap."""
    source = sampler(steps=8)
    frame = replace(SEAMS, x=(0, 256), y=(0, 256))
    plain = Plain(blended(source), frame, {"semantics": Cover()}, Noise(0))
    state = plain.field("hills/0", frame).dense[STATE]
    noise = initial_noise(source, frame, Noise(0))
    place = np.arange(256) % 32
    overlap, core = np.abs(place - 15.5) > 12, np.abs(place - 15.5) < 6
    for columns in (overlap, core):
        part, drawn = state[:, columns, 1].ravel(), noise[:, columns, 1].ravel()
        share = np.dot(part - part.mean(), drawn) / np.dot(drawn, drawn)
        assert abs(share - 0.5) < 0.1, "time 0.5: half of it is noise"


def test_known_cells_stay_as_the_first_colour_made_them() -> None:
    stages = four_colour(SMALL)
    plain = Plain(stages, WORLD, {"semantics": Cover()}, Noise(0))
    final = plain.field("hills", WORLD).dense[STATE]
    assert np.isfinite(final).all()
    seen = np.zeros(WORLD.shape, bool)
    for name, colour in zip(("hills/0", "hills/1", "hills/2", "hills"), COLOURS, strict=True):
        for x, y in WORLD.pad(4).tiles(16):
            frame = stages[0].frame(WORLD, x, y).intersection(WORLD)
            if (x % 2, y % 2) == colour and frame is not None:
                where = WORLD.slices(frame)
                first = ~seen[where]
                made = plain.window(name, x, y).crop(frame).dense[STATE]
                assert made[first].tobytes() == final[where][first].tobytes(), (name, x, y)
                seen[where] = True
    assert seen.all()


def test_a_window_holds_the_world_in_all_its_cells() -> None:
    """All cells of a window are final, so readers within the overlap need no neighbours."""
    plain = Plain(four_colour(SMALL), WORLD, {"semantics": Cover()}, Noise(0))
    for x, y in ((0, 0), (1, 0), (1, 1), (0, 1), (-1, -2)):
        block = plain.window("hills", x, y)
        assert block.frame.shape == (24, 24)
        assert np.array_equal(block.dense[STATE], plain.field("hills", block.frame).dense[STATE])


def test_every_window_is_sampled_once() -> None:
    source = Counted(24, 16)
    sample(four_colour(source), WORLD)
    frames = [(frame.x, frame.y) for frame, _, _ in source.asked]
    assert len(set(frames)) == len(frames)
    assert {(start, stop) for _, start, stop in source.asked} == {(0.0, 1.0)}


def test_dependencies_end_after_two_windows() -> None:
    assert radius(four_colour(SMALL)) == 2
    assert radius(independent(SMALL)) == 0
    assert [radius(blended(SMALL, phases=n)) for n in (1, 2, 3)] == [1, 2, 3]
    for rule in (four_colour, blended):  # and nothing else is computed
        plain = Plain(rule(SMALL), WORLD, {}, Noise(0))
        plain.field("hills", WORLD.tile(0, 0, 16))
        assert max(max(abs(x), abs(y)) for _, x, y in plain.blocks) <= 2


@pytest.mark.parametrize("window, stride", [(16, 16), (32, 16), (40, 16)])
def test_four_colours_need_an_overlap_that_keeps_a_colour_apart(window: int, stride: int) -> None:
    with pytest.raises(PluginError, match="four colours"):
        four_colour(replace(SMALL, window=window, stride=stride))


def test_weights_are_positive_and_smooth() -> None:
    for window in (2, 24, 257):
        along = raised_cosine(window)
        assert (along > 0).all() and np.allclose(along, along[::-1])
        assert np.abs(np.diff(along)).max() < 4 / window


def blocks_of_ones(
    values: dict[tuple[int, int], float], frame: Frame
) -> list[tuple[tuple[int, int], Block]]:
    parts = []
    for (x, y), value in values.items():
        meet = frame.tile(x, y, 16).pad(4).intersection(frame)
        assert meet is not None
        parts.append(((x, y), Block(meet, {STATE: np.full((*meet.shape, 1), value, np.float32)})))
    return parts


def test_blending_is_a_weighted_mean_summed_in_the_order_of_windows() -> None:
    frame = Frame(CRS, 1.0, (14, 18), (-2, 2))
    index = [(0, -1), (1, -1), (0, 0), (1, 0)]
    values = dict(zip(index, (1e8, 1.0, -1e8, 0.1), strict=True))
    got = blend(24, 16, raised_cosine, frame, blocks_of_ones(values, frame)).dense[STATE]
    along = raised_cosine(24)
    for row in range(4):
        for col in range(4):
            total = weight = 0.0
            for (x, y), value in values.items():
                share = along[frame.y[1] - 1 - row - (y * 16 - 4)] * along[14 + col - (x * 16 - 4)]
                total, weight = total + share * float(np.float32(value)), weight + share
            assert got[row, col, 0] == pytest.approx(np.float32(total / weight), rel=1e-6)
    same = blend(
        24, 16, raised_cosine, frame, blocks_of_ones(dict.fromkeys(index, 0.7), frame)
    ).dense[STATE]
    assert np.allclose(same, 0.7, rtol=1e-6)


def test_blending_needs_all_windows() -> None:
    frame = Frame(CRS, 1.0, (0, 16), (0, 16))
    with pytest.raises(PluginError, match="do not cover"):
        blend(24, 16, raised_cosine, frame, [])
    with pytest.raises(PluginError, match="do not cover"):
        blend(24, 16, raised_cosine, frame, blocks_of_ones({(1, 0): 1.0}, frame))


def flat_to_zero(window: int) -> NDArray:
    return np.arange(window, dtype=float)


@pytest.mark.parametrize(
    "options",
    [
        {"phases": 0},
        {"times": (0, 1)},
        {"times": (0, 0.6, 0.5)},
        {"times": (0.1, 0.5, 1)},
        {"weights": flat_to_zero},
    ],
)
def test_blending_refuses_what_it_cannot_do(options: dict[str, Any]) -> None:
    with pytest.raises(PluginError):
        blended(SMALL, **options)


def test_blending_refuses_windows_that_do_not_overlap() -> None:
    with pytest.raises(PluginError, match="stride"):
        blended(replace(SMALL, window=16))


def test_rules_by_name() -> None:
    assert DEFAULT_BLENDING_RULE in BLENDING_RULES and DEFAULT_BLENDING_RULE != "independent"
    assert [stage.name for stage in blending_stages(SMALL)] == [
        stage.name for stage in BLENDING_RULES[DEFAULT_BLENDING_RULE](SMALL)
    ]
    with pytest.raises(UnknownNameError, match="four_colour"):
        blending_stages(SMALL, "five_colour")


def test_known_cells_lie_on_the_straight_path() -> None:
    rng = np.random.default_rng(0)
    values, noise, state = rng.normal(size=(3, 4, 5, 2)).astype(np.float32)
    values[0, 0, 0] = -0.0
    mask = np.zeros((4, 5), bool)
    mask[:2] = True
    known = InpaintingMask(values, mask, noise, lambda n: noise)
    assert known.impose(state, 1.0)[:2].tobytes() == values[:2].tobytes()
    assert np.array_equal(known.impose(state, 0.0)[:2], noise[:2])
    assert np.allclose(
        known.impose(state, 0.25)[:2], 0.25 * values[:2] + 0.75 * noise[:2], atol=1e-6
    )
    assert np.array_equal(known.impose(state, 0.25)[2:], state[2:])


def test_phases_that_end_on_steps_make_the_same_steps() -> None:
    source = replace(SMALL, shift=1.0)
    frame = WORLD.tile(0, 0, 24)
    inputs = {"semantics": Cover().read(frame)}
    start = initial_noise(source, frame, Noise(0))
    half = source.advance(start, frame, inputs, 0.0, 0.5, None)
    whole = source.advance(start, frame, inputs, 0.0, 1.0, None)
    assert np.array_equal(source.advance(half, frame, inputs, 0.5, 1.0, None), whole)
    assert whole.dtype == np.float32 and whole.shape == (24, 24, 3)
    assert source.times(0.0, 0.5) == [0.0, 0.25, 0.5]
    assert (
        len(replace(source, shift=8.0).times(0.0, 1.0)) == 5
        and replace(source, shift=8.0).times(0.0, 1.0)[1] < 0.05
    )


def test_a_velocity_and_a_prediction_of_the_data_are_the_same_flow() -> None:
    frame = WORLD.tile(0, 0, 24)
    inputs = {"semantics": Cover().read(frame)}
    start = initial_noise(SMALL, frame, Noise(0))

    def velocity(state: NDArray, time: float, window: Frame, inputs: Any) -> NDArray:
        return (SMALL.model(state, time, window, inputs) - state) / np.float32(1 - time)

    other = replace(SMALL, model=velocity, predicts="velocity")
    both = [source.advance(start, frame, inputs, 0.0, 1.0, None) for source in (SMALL, other)]
    assert np.allclose(*both, atol=1e-4)


def test_going_back_in_time_keeps_the_variance() -> None:
    rng = np.random.default_rng(0)
    data, first, second = rng.normal(size=(3, 100_000)).astype(np.float32)
    back = renoise(np.float32(0.7) * data + np.float32(0.3) * first, 0.7, 0.2, second)
    assert np.dot(back, data) / len(data) == pytest.approx(0.2, abs=0.01)
    assert (back - 0.2 * data).std() == pytest.approx(0.8, abs=0.01)


def test_the_synthetic_posterior_is_that_of_the_covariance() -> None:
    """Compare with the dense formula on a small window."""
    rng = np.random.default_rng(0)
    state, time = rng.normal(size=(5, 4)), 0.4

    def covariance(n: int) -> NDArray:
        apart = np.abs(np.subtract.outer(np.arange(n), np.arange(n))) * np.sqrt(3) / 6.0
        return (1 + apart) * np.exp(-apart)

    prior = 2.0**2 * np.kron(covariance(5), covariance(4))
    dense = 0.3 + time * prior @ np.linalg.solve(
        time**2 * prior + (1 - time) ** 2 * np.eye(20), (state - time * 0.3).ravel()
    )
    assert np.allclose(posterior_mean(state, time, 0.3, 6.0, 2.0).ravel(), dense)


@pytest.mark.parametrize("rule", sorted(BLENDING_RULES))
def test_the_engine_makes_what_the_plain_evaluator_makes(rule: str) -> None:
    frame = Frame(CRS, 1.0, (-40, 56), (-24, 40))
    engine = Engine(
        frame, DiffusionHills(rule, steps=3), PlainTexture(), {"semantics": Cover()}, Noise(5)
    )
    stages: list[Stage] = list(DiffusionHills(rule, steps=3).stages())
    plain = Plain(stages, frame, {"semantics": Cover()}, Noise(5))
    for size in (32, 64):
        tile = engine.reference(size)
        for tx, ty in frame.tiles(size):
            made = tile(tx, ty)[0]
            for x, y in made.frame.tiles(32):
                meet = made.frame.intersection(frame.tile(x, y, 32))
                assert meet is not None
                ground = plain.window("hills/voxels", x, y).crop(meet).dense["ground"]
                assert np.array_equal(made.ground[made.frame.slices(meet)], ground)


def test_worlds_of_the_default_rule_do_not_know_the_box() -> None:
    whole = Frame(CRS, 1.0, (-64, 64), (-64, 64))
    part = replace(whole, x=(-24, 40), y=(-64, 0))
    backend, conditions = DiffusionHills(steps=3), {"semantics": Cover()}
    large = Engine(whole, backend, PlainTexture(), conditions, Noise(0)).reference(128)(-1, -1)[0]
    small = Engine(
        replace(part, x=(-64, 0)), backend, PlainTexture(), conditions, Noise(0)
    ).reference(64)(-1, -1)[0]
    assert small.frame == large.frame and same_tiles(small, large)


class TestHills(GeometryConformance):
    """The conformance kit on a backend that samples."""

    frame = Frame(CRS, 1.0, (-70, 24), (-40, 132))

    def backend(self) -> DiffusionHills:
        return DiffusionHills(steps=2)

    def conditions(self) -> dict[str, Any]:
        return {"semantics": Cover()}


def test_a_crossfade_counts_only_a_strip_of_the_margin() -> None:
    """Weights of neighbours sum to 1; windows beyond the strip are not computed."""
    source = sampler(32, 16, 2)
    (stage,) = crossfaded(source)
    assert stage.overlap == 2 and stage.counted == 2 and stage.margin == 8
    weights = crossfade(16, 2, 32)
    assert (weights[:6] == 0).all() and (weights[10:22] == 1).all()
    assert np.allclose(weights[6:10] + weights[22:26], 1)
    frame = Frame(CRS, 1.0, (2, 14), (2, 14))  # inside one core, away from the strips
    for inner, windows in ((frame, 1), (replace(frame, x=(1, 14)), 2)):
        counted = Counted(32, 16)
        sample(crossfaded(counted), inner, conditions={})
        assert len({str(where) for where, *_ in counted.asked}) == windows


def test_crossfading_refuses_what_it_cannot_do() -> None:
    with pytest.raises(PluginError, match="cannot fade"):
        crossfaded(replace(SMALL, window=16))
    with pytest.raises(PluginError, match="cannot fade over 5"):
        crossfaded(SMALL, fade=5)
    with pytest.raises(PluginError, match="does not fit a margin"):
        replace(crossfaded(SMALL)[0], overlap=5)
