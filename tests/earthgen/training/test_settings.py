"""Settings of training, the schedule, the log and the curves."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from earthgen.errors import JobError
from earthgen.training import log as logs
from earthgen.training.plot import draw_curves, running_mean
from earthgen.training.schedule import LearningSchedule
from earthgen.training.settings import (
    PART_SETTINGS,
    RENAMED,
    SHARES,
    TASKS,
    load_settings,
    make_settings,
    part_settings,
)
from tests.helpers import training_places as places

NAMES = {"data": "d", "out": "o"}


def test_every_part_has_defaults_a_share_and_a_place_in_all() -> None:
    assert set(PART_SETTINGS) == set(SHARES) == set(TASKS["all"])
    assert TASKS["all"].index("struct-vae") < TASKS["all"].index("struct-fine")
    assert TASKS["all"].index("tex-vae") < TASKS["all"].index("tex-flow")
    assert sum(SHARES.values()) == pytest.approx(1)


def test_time_is_divided_among_the_parts_of_a_task() -> None:
    settings = make_settings({**NAMES, "minutes": 30})
    assert sum(
        part_settings(settings, part, TASKS["all"]).minutes or 0 for part in TASKS["all"]
    ) == pytest.approx(30)
    flow = TASKS["struct-flow"]
    assert sum(part_settings(settings, part, flow).minutes or 0 for part in flow) == pytest.approx(
        30
    )
    assert part_settings(settings, "tex-vae", ("tex-vae",)).minutes == 30


def test_a_part_s_own_settings_go_first() -> None:
    settings = make_settings(
        {**NAMES, "minutes": 30, "parts": {"tex-vae": {"steps": 5, "batch_size": 3}}}
    )
    found = part_settings(settings, "tex-vae", TASKS["all"])
    assert (found.steps, found.minutes, found.batch_size) == (5, None, 3)


def test_larger_presets_take_the_paper_s_batch_and_rate() -> None:
    found = part_settings(
        make_settings({**NAMES, "preset": "paper", "steps": 9}), "tex-flow", ("tex-flow",)
    )
    assert (found.batch_size, found.learning_rate) == (64, 1e-4)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"stepps": 3}, "stepps"),
        ({"steps": 0}, "steps"),
        ({"columns": 12}, "'columns': must be a multiple of 8"),
        ({"precision": "fp8"}, "precision"),
        ({"parts": {"tex": {}}}, "unknown part 'tex'"),
    ],
)
def test_wrong_settings_are_named(values: dict, complaint: str) -> None:
    with pytest.raises(JobError, match=complaint):
        make_settings({**NAMES, **values})


def test_wrong_settings_of_a_part_are_named() -> None:
    with pytest.raises(JobError, match=r"parts\.tex-vae\.max_grad_norm"):
        make_settings({**NAMES, "parts": {"tex-vae": {"max_grad_norm": -1}}})


@pytest.mark.parametrize(
    ("part", "name", "complaint"),
    [
        ("tex-vae", "learning_rat", "no such setting.*'learning_rate'"),
        ("tex-vae", "clip", "no such setting.*'max_grad_norm'"),
        ("struct-vae", "render_size", "a setting of tex-vae"),
        ("struct-vae", "mixture", "a setting of struct-coarse, struct-fine, tex-flow, height-flow"),
    ],
)
def test_settings_that_a_part_does_not_use_are_refused(
    part: str, name: str, complaint: str
) -> None:
    with pytest.raises(JobError, match=rf"parts\.{part}\.{name}.*{complaint}"):
        make_settings({**NAMES, "parts": {part: {name: 1}}})


def test_renamed_settings_have_a_new_name_that_exists() -> None:
    current = {name for model in PART_SETTINGS.values() for name in model.model_fields}
    assert set(RENAMED.values()) <= current and not set(RENAMED) & current


def test_a_part_records_only_what_it_uses() -> None:
    settings = make_settings({**NAMES, "steps": 9})
    recorded = part_settings(settings, "height-flow", ("height-flow",)).model_dump()
    assert "condition_dropout" in recorded
    assert not {"kl_weight", "render_size", "max_voxels", "micro_voxels"} & set(recorded)


def test_nothing_says_how_long() -> None:
    with pytest.raises(JobError, match="how long"):
        part_settings(make_settings(NAMES), "tex-vae", ("tex-vae",))


def test_a_file_of_settings(tmp_path: Path) -> None:
    path = tmp_path / "t.toml"
    path.write_text(
        'data = "scenes"\nout = "run"\nminutes = 4\n[parts.struct-vae]\nbatch_size = 7\n'
    )
    settings = make_settings(load_settings(path))
    assert settings.data == (tmp_path / "scenes",) and settings.out == tmp_path / "run"
    assert part_settings(settings, "struct-vae", ("struct-vae",)).batch_size == 7
    path.write_text("data = ")
    with pytest.raises(JobError, match="not TOML"):
        load_settings(path)
    with pytest.raises(JobError, match="does not exist"):
        load_settings(tmp_path / "none.toml")


def test_the_rate_rises_and_then_falls_to_nothing() -> None:
    schedule = LearningSchedule(
        peak=2.0, warmup_ratio=0.1, cooldown_ratio=1.0, decay_power=1.0, steps=100, seconds=None
    )
    rates = [schedule.rate(step, 0.0) for step in range(101)]
    assert 0 < rates[0] < rates[5] < rates[10] == pytest.approx(2.0)
    assert rates[55] == pytest.approx(1.0) and rates[100] == 0
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert LearningSchedule(2.0, 0.1, 1.0, 2.0, 100, None).rate(55, 0.0) == pytest.approx(0.5)
    late = LearningSchedule(2.0, 0.1, 0.4, 1.0, 100, None)
    assert late.rate(10, 0.0) == late.rate(60, 0.0) == 2.0
    assert late.rate(80, 0.0) == pytest.approx(1.0)


def test_a_training_ends_by_what_comes_first() -> None:
    schedule = LearningSchedule(1.0, 0.0, 1.0, 1.0, 100, 60.0)
    assert schedule.share(50, 6.0) == 0.5 and schedule.share(10, 45.0) == 0.75
    assert LearningSchedule(1.0, 0.0, 1.0, 1.0, None, 60.0).share(10**6, 30.0) == 0.5


def test_rows_read_back_as_the_same_bits(tmp_path: Path) -> None:
    log = logs.Log(tmp_path, tensorboard=False)
    log.add(1, {"loss": 0.1 + 0.2})
    log.add(2, {"loss": 1e-300, "held_out.iou": 1 / 3})
    log.add(3, {"loss": 2.0})
    rows = logs.read_log(log.path)
    assert logs.series(rows, "loss") == ([1, 2, 3], [0.1 + 0.2, 1e-300, 2.0])
    assert logs.series(rows, "held_out.iou") == ([2], [1 / 3])


def test_a_continuation_takes_back_rows_after_its_step(tmp_path: Path) -> None:
    log = logs.Log(tmp_path, tensorboard=False)
    for step in range(1, 6):
        log.add(step, {"loss": float(step)})
    with log.path.open("a") as file:
        file.write("6,0.12")  # a kill in the middle of a row
    again = logs.Log(tmp_path, 3, tensorboard=False)
    again.add(4, {"loss": 40.0})
    assert logs.series(logs.read_log(log.path), "loss") == ([1, 2, 3, 4], [1, 2, 3, 40])


def test_curves(tmp_path: Path) -> None:
    log = logs.Log(tmp_path, tensorboard=False)
    path = tmp_path / "curves.png"
    draw_curves([], "nothing", path)
    assert not path.exists()
    for step in range(1, 60):
        log.add(step, {"loss": 10.0 / step, "flat": 1.0})
    log.add(59, {"held_out.loss": 0.3, "held_out.iou": 0.5})
    draw_curves(logs.read_log(log.path), "struct-vae", path)
    picture = Image.open(path).convert("RGB")
    assert picture.size[0] > picture.size[1]
    colours = {colour for _, colour in picture.getcolors(2**20) or []}
    assert {(31, 98, 168), (200, 84, 20)} <= colours, "training and held-out curves"


def test_a_running_mean_is_centred_up_to_the_ends() -> None:
    assert running_mean([1.0] * 9).tolist() == [1.0] * 9
    assert running_mean([0.0, 3.0, 0.0], share=1.0).tolist() == pytest.approx([0.0, 1.0, 0.0])


def test_curves_leave_no_state_in_pyplot(tmp_path: Path) -> None:
    """Also in a process that shows figures of its own."""
    code = (
        "import sys; from pathlib import Path; from earthgen.training.plot import draw_curves\n"
        f"draw_curves([{{'step': '1', 'loss': '2.0'}}], 'x', Path({str(tmp_path / 'c.png')!r}))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert Image.open(tmp_path / "c.png").size[0] > 100


def test_the_micro_preset_is_one() -> None:
    from earthgen.models.presets import preset

    assert preset(places.NAME).columns == 32
