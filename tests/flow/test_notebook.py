"""The tutorial does what it says, and the functions it uses are there."""

from __future__ import annotations

import inspect
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
    for name in ("train", "export", "segment", "evaluate", "load_model"):
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
