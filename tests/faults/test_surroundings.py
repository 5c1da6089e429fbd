"""What a machine, a site or a shell may do to the program: one line, and nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

PROGRAM = [str(Path(sys.executable).with_name("spoco-zoo"))]
SEGMENT = ["segment", "a.tif", "--model", "nuclei-fluo-2d-sparse", "--zoom", "1"]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Calls the program in a folder that holds an image."""
    rng = np.random.default_rng(0)
    dots = np.zeros((96, 96))
    dots[tuple(rng.integers(8, 88, (2, 9)))] = 1
    image = 4000 * ndimage.gaussian_filter(dots, 3) + rng.normal(100, 3, dots.shape)
    tifffile.imwrite(tmp_path / "a.tif", image.astype(np.uint16), photometric="minisblack")

    def call(
        *arguments: str, before: str = "", **changed: str | None
    ) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if name not in changed}
        new = {name: value for name, value in changed.items() if value is not None}
        return subprocess.run(
            ["bash", "-c", before + 'exec "$@"', "bash", *PROGRAM, *arguments],
            cwd=tmp_path,
            env={**kept, **new},
            capture_output=True,
            text=True,
            timeout=240,
        )

    return call


def test_a_site_may_set_what_it_wants(run: Run, tmp_path: Path) -> None:
    """Dask's settings of its clusters, and files of the folder that are called as modules are."""
    (tmp_path / "signal.py").write_text("raise SystemExit(7)")
    done = run(
        *SEGMENT,
        *("--output", "o.tif", "--workers", "1", "-q"),
        DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION="true",
        DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD="nonsense",
        MPLBACKEND="nonsense",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["output"] == str(tmp_path / "o.tif")


def test_nothing_is_told_to_anybody(run: Run, tmp_path: Path) -> None:
    """ONNX Runtime keeps a number for the machine in HOME, and calls its maker."""
    image = np.random.default_rng(0).normal(1000, 10, (1100, 1000)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack")
    home = tmp_path / "home"
    home.mkdir()
    done = run(*SEGMENT, "--output", "o.tif", "-q", HOME=str(home), ORT_DISABLE_TELEMETRY=None)
    assert done.returncode == 0, done.stderr
    assert [p for p in home.rglob("*") if "icrosoft" in p.name or "onnx" in p.name] == []


def test_workers_and_few_open_files(run: Run) -> None:
    done = run(*SEGMENT, "--output", "o.tif", "--workers", "2", before="ulimit -n 44; ")
    assert done.returncode == 2
    assert "need 160 open files; found a limit of 44" in done.stderr
    # A limit that the program may raise by itself is none.
    done = run(*SEGMENT, "--output", "o.tif", "--workers", "2", "-q", before="ulimit -Sn 100; ")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_of_few_letters(run: Run) -> None:
    done = run("models", PYTHONIOENCODING="latin-1", PYTHONUTF8="0", LC_ALL="C")
    assert done.returncode == 0
    assert "nuclei-fluo-2d" in done.stdout


def test_a_folder_that_is_gone(run: Run) -> None:
    done = run("models", before='mkdir gone; cd gone; rmdir "$PWD"; ')
    assert done.returncode == 2
    assert done.stderr.startswith("spoco-zoo: the current folder must be there")


def test_label_files_are_the_same_to_the_byte(run: Run, tmp_path: Path) -> None:
    written = []
    for _ in range(2):
        done = run(*SEGMENT, "--output", "o.tif", "--overwrite", "-q")
        assert done.returncode == 0, done.stderr
        written.append((tmp_path / "o.tif").read_bytes())
    assert written[0] == written[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's rights are root's to give")
def test_a_user_without_a_home(run: Run, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    user = "setpriv --reuid 12345 --regid 12345 --clear-groups --inh-caps +dac_read_search "
    user += "--ambient-caps +dac_read_search "
    done = run("convert", "~/a.tif", "b.zarr", before=f'set -- {user} "$@"; ', HOME=None)
    assert done.returncode == 2, done.stderr
    assert "~ needs a home folder" in done.stderr
    done = run("convert", "a.tif", "b.ome.zarr", before=f'set -- {user} "$@"; ', HOME=None)
    assert done.returncode == 2
    assert done.stderr.startswith("spoco-zoo: the target must be writable"), done.stderr


def test_windows_ended_the_import_in_a_module_that_it_has_not() -> None:
    told = "import os; os.name = 'nt'; import spoco_zoo"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: spoco-zoo needs ")
    assert "WSL 2" in done.stderr
