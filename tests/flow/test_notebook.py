"""The tutorial does what it says, and the functions it uses are there."""

from __future__ import annotations

import inspect
import os
import pickle
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

import spoco_zoo


@pytest.mark.slow
def test_the_tutorial_runs(repository: Path, tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="needs the extra `dev`")
    import nbformat

    notebook = nbformat.read(repository / "docs" / "tutorial.ipynb", as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    printed = "".join(
        output.get("text", "")
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )
    assert "objects in new.spoco.tif" in printed
    assert "AP@0.5" in printed


def test_the_functions_are_documented_and_called_by_their_names() -> None:
    for name in spoco_zoo.__all__[1:]:
        function = getattr(spoco_zoo, name)
        assert callable(function)
        assert inspect.signature(function).parameters
        assert name in dir(spoco_zoo)
    assert list(inspect.signature(spoco_zoo.segment).parameters)[:2] == ["image", "model"]
    # They are packages still.
    assert spoco_zoo.segment.Plan.__module__ == "spoco_zoo.segment.plan"
    with pytest.raises(AttributeError, match="no attribute 'sgement'"):
        spoco_zoo.sgement  # noqa: B018


@pytest.mark.parametrize("first", ["", "import spoco_zoo.segment.run", "import spoco_zoo.evaluate"])
def test_calls_work_in_any_order_of_imports(first: str) -> None:
    code = f"import spoco_zoo\n{first}\n" + (
        "from spoco_zoo import segment, evaluate, train\n"
        "from spoco_zoo.errors import StoreError\n"
        "from spoco_zoo.evaluate import Evaluation\n"
        "for call in (lambda: segment('none.tif', 'no-model'), lambda: evaluate('a', 'b')):\n"
        "    try:\n        call()\n    except ValueError as error:\n"
        "        print(type(error).__module__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["spoco_zoo.errors"] * 2


def test_help_shows_what_is_called_and_how() -> None:
    shown = pydoc.render_doc(spoco_zoo.segment, renderer=pydoc.plaintext)
    assert "segment(image: 'str | Path'" in shown
    assert "OME-Zarr, TIFF, PNG or JPEG." in shown
    assert "importlib" not in dir(spoco_zoo)


def test_a_pool_of_processes_can_be_given_a_function() -> None:
    for name in spoco_zoo.__all__[1:]:
        function = getattr(spoco_zoo, name)
        assert pickle.loads(pickle.dumps(function)) is function


@pytest.mark.slow
def test_type_checkers_know_the_functions(repository: Path, tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="needs the extra `dev`")
    assert (Path(spoco_zoo.__file__).parent / "py.typed").is_file()
    script = tmp_path / "script.py"
    script.write_text(
        "import spoco_zoo\nfrom spoco_zoo.segment import dry_run\n\n"
        "def count(path: str) -> int:\n"
        "    dry_run(path, 'nuclei-fluo-2d')\n"
        "    return spoco_zoo.segment(path, 'nuclei-fluo-2d').objects\n\n"
        "wrong: int = spoco_zoo.evaluate('a', 'b')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache", script],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(repository)},
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line for line in done.stdout.splitlines() if "error" in line]
    assert 'has type "Evaluation"' in found[0], done.stdout
    assert len(found) == 2  # with the sum of them
