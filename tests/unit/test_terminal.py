"""What commands say, to whom, and how much of it."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import typer
from rich.console import Console
from typer.testing import CliRunner

from spoco_zoo.cli import app
from spoco_zoo.cli.app import exit_codes
from spoco_zoo.errors import ConfigError, Interrupted
from spoco_zoo.report.page import Section, html_page
from spoco_zoo.report.progress import progress
from spoco_zoo.report.tables import pairs_text, table_text
from spoco_zoo.settings_file import read_settings

COMMANDS = (
    "train",
    "complete",
    "tune",
    "export",
    "models",
    "segment",
    "evaluate",
    "measure",
    "outlines",
    "view",
    "convert",
    "masks",
    "demo",
)


@pytest.fixture
def table(tmp_path: Path) -> list[str]:
    """A command that takes no time."""
    tifffile.imwrite(tmp_path / "a.tif", np.eye(9, dtype=np.uint8))
    return ["measure", *[str(tmp_path / "a.tif")] * 2, "--out", str(tmp_path / "a.csv")]


def test_messages_go_to_stderr_and_results_to_stdout(table: list[str]) -> None:
    done = CliRunner().invoke(app, table)
    assert json.loads(done.stdout)["objects"] == 1
    assert "measure 1/1" in done.stderr


def test_quiet_leaves_the_result_and_the_log(table: list[str], tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    done = CliRunner().invoke(app, [*table, "-q", "--log-file", str(log)])
    assert done.stderr == ""
    assert json.loads(done.stdout)["objects"] == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\d [\d:]{8}[+-]\d{4} measure 1/1\n", log.read_text())
    failed = CliRunner().invoke(app, [*table, "-q", "--log-file", str(log), "--label-name", "x",
                                      "--out", "a.xls"])  # fmt: skip
    assert failed.exit_code == 2
    assert "must be named .csv" in log.read_text().splitlines()[1]


def test_verbose_says_where_an_error_arose(table: list[str], tmp_path: Path) -> None:
    wrong = [*table[:-1], str(tmp_path / "a.xls")]
    assert "Traceback" not in CliRunner().invoke(app, wrong).stderr
    done = CliRunner().invoke(app, [*wrong, "-v"])
    assert done.exit_code == 2
    assert "check_table_path" in done.stderr
    assert "exclude each other" in CliRunner().invoke(app, [*table, "-v", "-q"]).stderr


def test_a_log_that_cannot_be_written_is_one_line(table: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [*table, "--log-file", str(tmp_path)])
    assert done.exit_code == 2
    assert "log file" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_said_more_than_the_one_line(table: list[str], tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.eye(99, dtype=np.uint8), compression="zlib")
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:200])
    done = subprocess.run(
        [sys.executable, "-m", "spoco_zoo", *table], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_a_pipe_for_messages_that_nobody_reads_any_more_ended_the_work(table: list[str]) -> None:
    """As of `spoco-zoo ... 2>&1 | tee log` whose `tee` was ended."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "spoco_zoo", *table]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=writer, check=False)
    os.close(writer)
    assert done.returncode == 0
    assert b'"objects"' in done.stdout


def test_a_full_disk_under_the_log_ended_the_work(table: list[str]) -> None:
    done = CliRunner().invoke(app, [*table, "--log-file", "/dev/full"])
    assert done.exit_code == 0, done.output
    assert done.stderr.count("the log file ends here: No space left on device") == 1
    failed = CliRunner().invoke(app, [*table[:-1], "a.xls", "--log-file", "/dev/full"])
    assert failed.exit_code == 2
    assert "Traceback" not in failed.output


def test_the_end_of_the_log_was_told_twice(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for n, size in enumerate((20, 20 if folder == "a" else 30)):
            tifffile.imwrite(tmp_path / folder / f"{n}.tif", np.ones((size, size), np.uint8))
    command = ["evaluate", str(tmp_path / "a"), str(tmp_path / "b"), "--log-file", "/dev/full"]
    failed = CliRunner().invoke(app, command)
    assert failed.exit_code == 2
    assert "same shape" in failed.stderr
    assert failed.stderr.count("the log file ends here") == 1


def test_text_was_added_to_an_image_by_the_name_of_a_log(table: list[str], tmp_path: Path) -> None:
    image = tmp_path / "a.tif"
    image.write_bytes(b"II*\0\0")
    done = CliRunner().invoke(app, [*table, "--log-file", str(image)])
    assert done.exit_code == 2
    assert "must be text" in done.stderr
    assert image.read_bytes() == b"II*\0\0"


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_scores_replaced_whatever_had_the_name(tmp_path: Path, option: str) -> None:
    truth, made = tmp_path / "truth.tif", tmp_path / f"made.{option[2:]}"
    tifffile.imwrite(truth, np.eye(9, dtype=np.uint8))
    content = truth.read_bytes()
    compare = ["evaluate", str(truth), str(truth), "-q"]
    for odd, said in ((truth, "something else at"), (Path("/dev/null"), "no regular file")):
        done = CliRunner().invoke(app, [*compare, option, str(odd)])
        assert done.exit_code == 2
        assert said in done.stderr
    assert truth.read_bytes() == content
    # Of a link what it leads to is replaced; a former result may be.
    (tmp_path / "real").mkdir()
    made.symlink_to(tmp_path / "real" / made.name)
    for _ in range(2):
        assert CliRunner().invoke(app, [*compare, option, str(made)]).exit_code == 0
    assert made.is_symlink()
    assert (tmp_path / "real" / made.name).is_file()
    both = [*compare, "--json", str(tmp_path / "x.json"), "--html", str(tmp_path / "x.json")]
    assert "two files" in CliRunner().invoke(app, both).stderr


def test_a_name_that_is_no_text_ended_the_page_in_a_traceback(tmp_path: Path) -> None:
    name = os.fsdecode(b"lat\xe9")
    html_page(tmp_path / "page.html", name, [Section(name, (name,))], [])
    assert "lat\\udce9" in (tmp_path / "page.html").read_text()


def test_an_interrupted_command_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stopped = typer.Typer()

    @stopped.command()
    @exit_codes
    def segment() -> None:
        raise Interrupted("stopped after the blocks in flight")

    monkeypatch.setattr(sys, "argv", ["/bin/spoco-zoo", "segment", "my image.tif", "--model", "m"])
    log = tmp_path / "run.log"
    done = CliRunner().invoke(stopped, ["--log-file", str(log)])
    assert done.exit_code == 130
    assert "Go on with: spoco-zoo segment 'my image.tif' --model m" in done.stderr
    assert "Go on with: spoco-zoo segment 'my image.tif' --model m\n" in log.read_text()
    monkeypatch.setattr(sys, "argv", ["/bin/spoco-zoo", "train", "--out", "run", "--resume"])
    assert "Go on with: spoco-zoo train --out run --resume\n" in CliRunner().invoke(stopped).stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_groups(command: str) -> None:
    done = CliRunner(env={"COLUMNS": "100"}).invoke(app, [command, "--help"])
    assert done.exit_code == 0
    assert f"Example: spoco-zoo {command}" in done.stdout
    assert "Messages" in done.stdout


def test_defaults_in_brackets_were_taken_for_markup_and_not_shown() -> None:
    text = CliRunner(env={"COLUMNS": "120"}).invoke(app, ["train", "--help"]).stdout
    for shown in ("dense (default) or sparse", "pairs (default)", "auto (default), float32"):
        assert shown in text


def test_every_command_is_in_a_group() -> None:
    assert {info.name or info.callback.__name__ for info in app.registered_commands} == set(
        COMMANDS
    )
    assert all(info.rich_help_panel for info in app.registered_commands)


def test_a_name_in_a_note_gave_the_terminal_a_command() -> None:
    shown = io.StringIO()
    with progress(Console(file=shown)) as display:
        display.note("the image \x1b[2J.tif")
        display.update("blocks", 1, 2, "in \x1b]0;title\x07")
    assert "\x1b" not in shown.getvalue()
    assert "\\x1b[2J.tif" in shown.getvalue()


def test_a_name_in_a_table_gave_the_terminal_a_command() -> None:
    """`models` shows what the author of a bundle wrote."""
    name = "cells \x1b]0;title\x07\x9b2J"
    for text in (table_text(["name"], [[name]], width=80), pairs_text({"name": name}, width=80)):
        assert "cells \\x1b]0;title\\x07\\x9b2J" in text
        assert "".join(text.splitlines()).isprintable()


def test_measure_said_that_planes_are_z_which_it_takes_for_channels(tmp_path: Path) -> None:
    labels, image = tmp_path / "labels.tif", tmp_path / "image.tif"
    tifffile.imwrite(labels, np.eye(9, dtype=np.uint8))
    tifffile.imwrite(image, np.zeros((6, 9, 9), np.uint8))
    done = CliRunner().invoke(
        app, ["measure", str(labels), str(image), "--out", str(tmp_path / "a.csv")]
    )
    assert "channel5_mean" in json.loads(done.stdout)["columns"]
    assert "6 planes of 9 x 9 pixels are taken as channels" in done.stderr


def test_one_display_can_stand_for_two(tmp_path: Path) -> None:
    out = io.StringIO()
    log = tmp_path / "a.log"
    for _ in range(2):
        with progress(Console(file=out, width=60), interval=0, log=log) as shown:
            shown.update("blocks", 1, 2)
            shown.note("half")
    assert out.getvalue().splitlines() == ["blocks 1/2", "half"] * 2
    assert [line.split(" ", 2)[2] for line in log.read_text().splitlines()] == [
        "blocks 1/2", "half",
    ] * 2  # fmt: skip
    with pytest.raises(ConfigError), progress(log=tmp_path):
        pass


def test_a_file_of_options_stands_for_them_and_flags_win(table: list[str], tmp_path: Path) -> None:
    _, labels, image, *_ = table
    file, out = tmp_path / "measure.yaml", tmp_path / "objects.csv"
    file.write_text(f"labels: {labels}\nimage: {image}\nout: {out}\nvoxel-size: [0.5, 0.25]\n")
    assert CliRunner().invoke(app, ["measure", "--config", str(file)]).exit_code == 0
    first = out.read_text()
    again = ["measure", "--config", str(file), "--voxel-size", "1,0.5"]
    assert CliRunner().invoke(app, again).exit_code == 0
    areas = [
        [float(row.split(",")[2]) for row in t.splitlines()[1:]] for t in (first, out.read_text())
    ]
    assert areas[1] == [4 * area for area in areas[0]]
    kept = tmp_path / "objects.csv.config.yaml"  # of the second one
    assert read_settings(kept) == {
        "labels": labels, "image": image, "out": str(out), "voxel_size": "1,0.5",
    }  # fmt: skip
    second = out.read_bytes()
    out.unlink()
    assert CliRunner().invoke(app, ["measure", "--config", str(kept)]).exit_code == 0
    assert out.read_bytes() == second
    file.write_text("labels: a.tif\nsize: 3\n")
    odd = CliRunner().invoke(app, ["measure", "--config", str(file)])
    assert odd.exit_code == 2
    assert "must hold options of its command; found 'size'" in odd.stderr


def test_options_are_kept_of_results_that_are_written_only(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "labels.tif", np.tri(9, dtype=np.uint8))
    command = ["evaluate", *[str(tmp_path / "labels.tif")] * 2]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["labels.tif"]
    assert CliRunner().invoke(app, [*command, "--json", str(tmp_path / "s.json")]).exit_code == 0
    assert (tmp_path / "s.json.config.yaml").is_file()
    (tmp_path / "full.json.config.yaml").mkdir()  # nothing can be written there
    done = CliRunner().invoke(app, [*command, "--json", str(tmp_path / "full.json")])
    assert done.exit_code == 0
    assert "complete, but not its options" in done.stderr
    assert not list(tmp_path.glob("*.partial"))


def test_every_command_takes_a_file_of_options() -> None:
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        flags = {flag for parameter in command.params for flag in parameter.opts}
        assert "--config" in flags, name


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            ["train", "--iteration", "3"],
            r"of `\S+ train`; found --iteration\. Is --iterations meant",
        ),
        (["train", "--instance_ratio", "1"], r"found --instance_ratio\. Is --instance-ratio meant"),
        (["segment", "--min_size", "9"], r"found --min_size\. Is --min-size meant"),
        (["train", "--validate-every", "3"], r"Put `validate_every: VALUE` into a YAML file"),
        (["segment", "--window", "3"], r"found --window\. See `\S+ segment --help`"),
        (["train", "--window", "3"], r"Put `loss: \{window: VALUE\}` into a YAML file"),
        (["segmen"], r"No such command 'segmen'\. Did you mean 'segment'\? See `\S+ --help`"),
        (["-q", "segment"], r"found -q\. Options of a command go behind its name"),
        (["segment"], r"Missing argument 'INPUT'\. See `\S+ segment --help`"),
        (["segment", "a.tif", "--model", "b", "--workers", "x"], r"for '--workers': Input should"),
        (["segment", "a.tif", "--model"], r"Option '--model' requires an argument"),
    ],
)
def test_a_command_line_that_cannot_be_read_filled_the_screen(line: list[str], said: str) -> None:
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 2
    assert re.fullmatch(rf"spoco-zoo: .*{said}.*\n", done.stderr)
    assert not done.stdout


def test_without_a_command_all_are_shown() -> None:
    done = CliRunner().invoke(app, [])
    assert done.exit_code == 2
    assert "segment" in done.output
    assert "spoco-zoo:" not in done.output
