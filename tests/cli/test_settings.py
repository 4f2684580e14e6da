"""Options made from models of settings, and settings written as options in messages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import pytest

from earthgen.errors import JobError, StoreExistsError
from earthgen.jobs.job import Job
from earthgen_cli.job_options import JOB
from earthgen_cli.main import COMMANDS, lazy_commands, main
from earthgen_cli.settings import OptionStyle, Settings, name_options, setting_options
from tests.helpers.command_line import Core

Count = Annotated[int, pydantic.Field(ge=1)]


class Sample(pydantic.BaseModel):
    """A model with a field of each type."""

    flag: bool = pydantic.Field(False, description="Turn `size` off")
    pictures: bool = pydantic.Field(True, description="Draw pictures")
    size: Count | None = pydantic.Field(None, description="Edge")
    share: float = pydantic.Field(0.5, ge=0, le=1, description="Share.")
    mode: Literal["fast", "exact"] = "fast"
    out: str | Path = pydantic.Field(description="Where")
    names: tuple[str, ...] = pydantic.Field(("A", "B"), description="Names")


STYLES = {
    "flag": OptionStyle(),
    "pictures": OptionStyle(),
    "size": "COLUMNS",
    "share": OptionStyle(),
    "mode": OptionStyle(),
    "out": "FILE",
    "names": OptionStyle("NAME", "--name"),
}
SAMPLE = Settings(f"{__name__}:Sample", STYLES)


def sample(typed: Annotated[dict[str, Any], SAMPLE]) -> None:
    """Keep what was typed."""
    received.append(typed)


received: list[dict[str, Any]] = []


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("earthgen_cli.settings.load_name", lambda path: Sample)
    return lazy_commands({"sample": sample})["sample"]


def test_options_have_the_type_help_and_limits_of_the_model(command: Any) -> None:
    context = command.make_context("sample", [], resilient_parsing=True)
    records = [option.get_help_record(context) for option in context.command.params]
    rows = {spelling.split()[0]: text for spelling, text in records}
    assert rows["--flag"] == "Turn --size off."
    assert "x>=1" in rows["--size"] and rows["--size"].startswith("Edge.")
    assert rows["--share"].startswith("Share. Default: 0.5.") and "0<=x<=1" in rows["--share"]
    assert rows["--name"] == "Names. Can be repeated. Default: A, B."
    assert any("fast|exact" in spelling for spelling, _ in records)
    assert any("--no-pictures" in spelling for spelling, _ in records)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {}),
        (["--flag", "--no-pictures"], {"flag": True, "pictures": False}),
        (["--pictures"], {"pictures": True}),
        (["--size", "3", "--share", "0"], {"size": 3, "share": 0.0}),
        (["--mode", "exact", "--out", "s3://x"], {"mode": "exact", "out": "s3://x"}),
        (["--name", "A", "--name", "C"], {"names": ["A", "C"]}),
    ],
)
def test_only_what_was_typed_is_passed_on(
    words: list[str], expected: dict[str, Any], command: Any
) -> None:
    received.clear()
    context = command.make_context("sample", list(words))
    context.command.invoke(context)
    assert received == [expected]


def test_every_setting_of_a_job_is_an_option_or_a_known_exception() -> None:
    exceptions = {"band", "geometry_options", "texture_options", "plugin_dir"}
    assert set(Job.model_fields) - set(JOB.styles) == exceptions
    assert all(field.description for field in Job.model_fields.values())


@pytest.mark.parametrize(
    ("command", "text", "expected"),
    [
        ("generate", "give `assume_crs` or `crs`", "give --assume-crs or --crs"),
        ("generate", "`conditions` lack `rain`", "--condition lack `rain`"),
        ("generate", "assume_crs stays, `earthgen plan` too", None),
        ("verify", "give `semantics`, not `assume_crs`", "give --semantics, not `assume_crs`"),
        ("train", "`batch_size` and `grades`", "--batch and --grade"),
        ("info", "`seed`, `json_output`", None),
    ],
)
def test_settings_of_the_command_are_written_as_its_options(
    command: str, text: str, expected: str | None
) -> None:
    context = lazy_commands(COMMANDS)[command].make_context(command, [], resilient_parsing=True)
    assert name_options(text, setting_options(context.command)) == (expected or text)


def test_errors_name_options(core: Core, capsys: pytest.CaptureFixture[str]) -> None:
    core.error = StoreExistsError("`out` w.zarr exists", "give `resume` or `plugin_dir`")
    assert main(["generate", "--bbox", "1,2,3,4", "--out", "w.zarr"]) == 5
    said = capsys.readouterr().err
    assert said == "error: --out w.zarr exists. Give --resume or --plugin-dir.\n"
    core.error = JobError("`nothing` is a setting")
    assert main(["generate", "--bbox", "1,2,3,4", "--out", "w.zarr"]) == 2
    assert "`nothing` is a setting" in capsys.readouterr().err
