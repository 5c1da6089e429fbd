"""The rules of the house, read from the source itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "spoco_zoo"
SOURCES = sorted(PACKAGE.rglob("*.py"))
LINES = 400

# A part may import the parts beside it here; the command line may import all, and all may import
# what is in EVERYWHERE. Training and segmentation meet in `workflow`
# only.
EVERYWHERE = {
    "__version__",
    "errors",
    "locking",
    "replacing",
    "run_folder",
    "sizes",
    "stopping",
    "verbs",
    "workplace",
}
PARTS = ("config", "nets", "ngff", "train", "bundle", "segment")
MAY_IMPORT = {
    "errors": set(),
    "config": {"settings"},
    "settings": {"settings_file", "wording"},
    "settings_file": set(),
    "filled": set(),
    "intensities": {"filled", "outliers"},
    "locking": {"holder"},
    "holder": set(),
    "workplace": set(),
    "metrics": set(),
    "naming": set(),
    "object_ids": set(),
    "outliers": set(),
    "stopping": set(),
    "replacing": set(),
    "run_folder": set(),
    "sizes": set(),
    "values": set(),
    "verbs": set(),
    "wording": set(),
    "nets": {"config"},
    "ngff": {"outliers"},
    "report": set(),
    "train": {"config", "intensities", "metrics", "naming", "nets", "ngff", "object_ids"},
    "bundle": {"config", "nets", "ngff", "report", "values"},
    "segment": {"config", "intensities", "nets", "ngff"},
    "evaluate": {"label_sums", "metrics", "naming", "ngff", "object_ids"},
    "annotated": {"config", "ngff", "segment", "train"},
    "tuning": {*PARTS, "annotated", "tuning_result"},
    "tuning_result": {"config", "report", "train"},
    "complete": {*PARTS, "annotated", "metrics"},
    "sums": set(),
    "label_sums": {"ngff", "object_ids", "sums"},
    "label_places": {"ngff"},
    "tables": set(),
    "measure": {"label_places", "label_sums", "ngff", "sums", "tables"},
    "outlines": {"label_places", "label_sums", "ngff", "sums"},
    "shapes": set(),
    "painting": {"ngff", "shapes"},
    "outline_files": {"label_sums", "ngff", "outlines"},
    "scene": {"ngff"},
    "view": {"ngff", "scene"},
    "pictures": {"config", "ngff", "report", "segment", "scene"},
    "beside": {*PARTS, "folder_rows", "measure", "pictures", "report", "tables"},
    "workflow": {*PARTS, "beside", "evaluate", "report"},
    "image_folder": {"naming", "ngff"},
    "folder_rows": {"naming", "ngff", "segment"},
    "folders": {*PARTS, "beside", "folder_rows", "image_folder", "report", "workflow"},
    "folder_plan": {*PARTS, "folder_rows", "folders", "image_folder", "report"},
    "overview": {"beside", "folder_rows", "folders", "report", "tables"},
    "arrays": set(),
    "api": {*PARTS, "arrays", "evaluate", "measure", "report", "values", "wording", "workflow"},
    "demo": {*PARTS, "evaluate", "report", "workflow"},
}
# What may cross although the table above forbids it: (importing module, imported module).
BRIDGES = {
    # A finished run or bundle becomes a model: the one thing segment needs of bundle.
    ("segment", "spoco_zoo.bundle.load"),
}
# Third-party packages that live behind one door each.
DOORS = {
    "dask": {"segment/execute.py", "segment/workers/"},
    "distributed": {
        "segment/workers/clusters.py",
        "segment/execute.py",
        "segment/workers/nanny.py",
    },
    "zarr": {"ngff/"},
    "typer": {"cli/"},
    "rich": {"report/"},
}


def part(name: str) -> str:
    """Part of the house that a dotted module name belongs to."""
    return name.split(".")[1] if "." in name else ""


def imports(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports anywhere, types included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            found |= (
                {module} if module != "spoco_zoo" else {f"spoco_zoo.{a.name}" for a in node.names}
            )
    return found


def tracked_files() -> list[Path]:
    """Files that are or may be committed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    paths = [REPOSITORY / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_flow_one_way(path):
    here = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if here in ("cli", "__main__", "__init__"):
        return
    allowed = MAY_IMPORT[here] | EVERYWHERE | {here, ""}
    for name in imports(path):
        if name.split(".")[0] != "spoco_zoo" or part(name) in allowed:
            continue
        assert any(here == a and (name == b or name.startswith(b + ".")) for a, b in BRIDGES), (
            f"{here} must not import {name}"
        )


@pytest.mark.parametrize("package", sorted(DOORS))
def test_third_parties_have_one_door(package):
    for path in SOURCES:
        place = path.relative_to(PACKAGE).as_posix()
        if any(place == door or place.startswith(door) for door in DOORS[package]):
            continue
        used = {name for name in imports(path) if name.split(".")[0] == package}
        assert not used, f"{place} imports {sorted(used)}"


def test_the_library_does_not_print():
    for path in SOURCES:
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        printed = [n.lineno for n in calls if isinstance(n.func, ast.Name) and n.func.id == "print"]
        assert not printed, f"{path.relative_to(PACKAGE)} prints in line {printed[0]}"


def test_every_public_list_is_sorted_and_true():
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        for node in tree.body:
            targets = getattr(node, "targets", [])
            if not any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets):
                continue
            names = ast.literal_eval(node.value)
            where = path.relative_to(PACKAGE)
            assert len(names) == len(set(names)), where
            defined = {
                alias.asname or alias.name.split(".")[0]
                for n in ast.walk(tree)
                if isinstance(n, (ast.Import, ast.ImportFrom))
                for alias in n.names
            }
            for n in tree.body:
                if isinstance(n, (ast.FunctionDef, ast.ClassDef)):
                    defined.add(n.name)
                elif isinstance(n, (ast.Assign, ast.AnnAssign)):
                    some = n.targets if isinstance(n, ast.Assign) else [n.target]
                    defined |= {e.id for t in some for e in ast.walk(t) if isinstance(e, ast.Name)}
            lazy = any(
                isinstance(n, ast.FunctionDef) and n.name == "__getattr__" for n in tree.body
            )
            assert lazy or set(names) <= defined, (where, set(names) - defined)


HEAVY = ("torch", "zarr", "dask", "matplotlib", "scipy", "skimage", "bioimageio", "onnxruntime")
# What takes longest of all that `segment` of a small image can do without.
SPARED = ("xarray", "pandas", "dask", "distributed", "sklearn", "onnxruntime")


@pytest.mark.parametrize(
    ("command", "heavy"),
    [
        ("import spoco_zoo", HEAVY),
        ("import spoco_zoo.cli", HEAVY),
        ("import spoco_zoo.config", HEAVY),
        ("import spoco_zoo.workflow", SPARED),
    ],
)
def test_start_up_imports_nothing_heavy(command, heavy):
    code = f"{command}; import sys; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_imports_no_torch():
    code = (
        "import sys; sys.argv = ['spoco-zoo', '--help']\n"
        "from spoco_zoo.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "segment" in done.stdout


@pytest.mark.parametrize("folder", ["spoco_zoo", "tests", "benchmarks"])
def test_no_file_is_long(folder):
    for path in (REPOSITORY / folder).rglob("*.py"):
        count = len(path.read_text().splitlines())
        assert count <= LINES, f"{path.relative_to(REPOSITORY)} has {count} lines"


def test_every_helper_has_a_home():
    homeless = {"utils", "util", "helpers", "misc", "common"}
    for path in SOURCES:
        assert path.stem not in homeless, path
        assert not homeless & set(path.relative_to(PACKAGE).parts), path


def test_files_name_no_machine():
    # Written in pieces, lest this file should find itself.
    places = [
        "/" + "work/",
        "/" + "root/",
        "/tmp/" + "venv",
        "/home/" + "[a-z]+/",
        "/opt/" + "pypi",
    ]
    pattern = re.compile("|".join(places).encode())
    for path in tracked_files():
        hit = pattern.search(path.read_bytes())
        assert not hit, f"{path.relative_to(REPOSITORY)}: {hit}"


def test_tested_versions_satisfy_what_is_declared():
    """Each dependency is pinned once in constraints.txt, within its declared range."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    declared = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        declared += extra
    for text in declared:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} is not pinned"
        assert requirement.specifier.contains(pins[name]), (text, pins[name])
    assert pins["torch"] == "2.13.0"


def test_every_third_party_import_is_declared():
    """A package that happens to be installed as another's dependency may leave with it."""
    from importlib.metadata import packages_distributions

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    extras = ("view", "s3", "gpu", "parquet", "tensorboard")
    declared = [*project["dependencies"], *(text for name in extras for text in optional[name])]
    names = {canonicalize_name(Requirement(text).name) for text in declared}
    distributions = packages_distributions()
    for path in SOURCES:
        for module in {name.split(".")[0] for name in imports(path)}:
            if module in sys.stdlib_module_names or module == "spoco_zoo":
                continue
            owners = {canonicalize_name(owner) for owner in distributions.get(module, [])}
            # bioimageio.spec comes with, and is pinned by, bioimageio.core.
            assert owners & names or not owners, f"{path.name} imports {module} of {owners}"
