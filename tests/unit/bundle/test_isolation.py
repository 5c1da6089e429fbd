"""What a receiver has: no network, and none of our package."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import spoco_zoo

if TYPE_CHECKING:
    from conftest import Exported

NO_NETWORK = """
import socket
def refuse(*args, **kwargs):
    raise OSError("this test has no network")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""
NO_PACKAGE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "spoco_zoo":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
"""
OFFICIAL = """
import sys
from bioimageio.core import load_description_and_test
summary = load_description_and_test(sys.argv[1]).validation_summary
assert summary.status == "passed", summary.display()
print(sorted({d.loc[1] for d in summary.details if d.loc[:1] == ("weights",)}))
"""


def run_python(code: str, *arguments: object, cwd: Path) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_receiver_without_package_and_network(exported_3d: Exported, tmp_path: Path) -> None:
    """The official test passes, and the README's own code gives the expected labels."""
    readme = (exported_3d.folder / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert len(blocks) == 2
    compare = "assert np.array_equal(labels, np.load('test_labels.npy')); print('equal')\n"
    change = "import os, sys; os.chdir(sys.argv[2]); sys.path.insert(0, '')\n"
    code = NO_NETWORK + NO_PACKAGE + OFFICIAL + change + "".join(b + compare for b in blocks)
    out = run_python(code, exported_3d.zip, exported_3d.folder, cwd=tmp_path)
    assert "['onnx', 'pytorch_state_dict', 'torchscript']" in out
    assert out.count("equal") == 2


def test_export_and_check_without_network(exported_2d: Exported, tmp_path: Path) -> None:
    code = f"""
import sys; sys.path.insert(0, {str(Path(spoco_zoo.__path__[0]).parent)!r})
from pathlib import Path
from spoco_zoo.bundle.export import ExportOptions, export
from spoco_zoo.bundle.verify import check_bundle
out = Path("bundle")
options = ExportOptions(name="offline", authors=("A",), github_user="no-such-user-of-spoco",
                        for_upload=True)
print(export(Path(sys.argv[1]), out, options).unchecked)
print(check_bundle(out, trust_code=False).passed)
"""
    out = run_python(NO_NETWORK + code, exported_2d.run, cwd=tmp_path)
    assert "GitHub user no-such-user-of-spoco" in out
    assert out.strip().endswith("True")
