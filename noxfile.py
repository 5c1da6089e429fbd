"""Everything one does with this repository: `nox` is lint, types and tests.

By default the sessions run in the environment that nox itself runs in, because
a second one would install several gigabytes again::

    pip install -c constraints.txt -e '.[dev]'
    nox

`nox --force-venv-backend virtualenv` gives each session a fresh environment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "tests"]
nox.needs_version = ">=2024.10"

# Tests use threads of their own making; more only get in each other's way.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "PYTHONHASHSEED": "0"}
# Other programs that read our bundles, each in an environment of its own: its name in
# tests/consumers/probe.py, and what to install. The script that travels needs numpy and scipy.
SCRIPT = ("scipy", "pyyaml", "pydantic<2.14")
CONSUMERS = {
    "core-current": ("core", "bioimageio.core==0.11.0", "torch==2.13.0", "onnxruntime==1.32.0"),
    "core-of-biapy": ("core", "bioimageio.core==0.9.6", "torch==2.13.0", "onnxruntime==1.32.0"),
    "torchscript": ("torchscript", "torch==2.13.0"),
    "onnxruntime": ("onnxruntime", "onnxruntime==1.32.0"),
    "torch-em": ("torch-em", "torch-em==0.10.9", "torch==2.13.0"),
    "biapy": ("biapy", "biapy==3.7.1", "torch==2.13.0"),
}
# Which of the versions that pyproject.toml allows, in the words of uv.
RESOLUTIONS = {"lowest": "lowest-direct", "highest": "highest"}
PYTEST = ("pytest", "-n", "auto", "--maxprocesses", "4", "--dist", "loadfile")


def run_module(session: nox.Session, *command: str) -> None:
    """Run a Python module in the session's environment, installed first if it is a fresh one."""
    if isinstance(session.virtualenv, nox.virtualenv.PassthroughEnv):
        python = sys.executable
    else:
        session.install("-c", "constraints.txt", "-e", ".[dev]")
        python = "python"
    session.run(python, "-m", *command, *session.posargs, env=ENVIRONMENT)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, imports, docstrings, formatting."""
    run_module(session, "ruff", "check")
    run_module(session, "ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Strict types of the package and the benchmarks."""
    run_module(session, "mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """Unit tests, the examples in docstrings, and the ways through the whole program."""
    run_module(session, *PYTEST, "--doctest-modules", "spoco_zoo", "tests/unit", "tests/flow")


@nox.session
def faults(session: nox.Session) -> None:
    """Processes that die, files that break, bundles that mean harm."""
    run_module(session, *PYTEST, "tests/faults")


@nox.session
def campaign(session: nox.Session) -> None:
    """Random faults and random inputs by the hundred: see docs/reliability.md for the figures."""
    run_module(session, "tests.faults.campaign", "--runs", "200")
    run_module(session, "tests.faults.fuzz", "--runs", "270")


@nox.session
def environments(session: nox.Session) -> None:
    """Test the wheel: nox -s environments -- [PYTHON [lowest|highest [TESTS ...]]].

    PYTHON is a version that is installed, or a path. What pyproject.toml names gets the lowest
    version that it allows, or everything the highest. A fresh environment takes some gigabytes,
    is kept in .nox, and holds the wheel; the tests run where the package's source is not.
    """
    chosen = session.posargs or [sys.executable]
    resolution = RESOLUTIONS[chosen[1]] if len(chosen) > 1 else "highest"
    home = (session.cache_dir / "environments").resolve()
    shutil.rmtree(home, ignore_errors=True)
    wheel = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(home / "dist"), ".")
    session.run(*wheel, external=True)
    python = resolved_environment(session, home, chosen[0], resolution)
    copy_without_package(home / "tree")
    session.chdir(home / "tree")
    env = ENVIRONMENT | {
        "PYTHONPATH": None,
        "PATH": os.pathsep.join([str(python.parent), os.environ["PATH"]]),
    }
    found = "import spoco_zoo; assert 'site-packages' in spoco_zoo.__file__, spoco_zoo.__file__"
    session.run(str(python), "-c", found, env=env, external=True)
    # The rules of the house are about the source.
    tests = chosen[2:] or ("tests/unit", "tests/flow", "--ignore", "tests/unit/test_house.py")
    session.run(str(python), "-m", *PYTEST, *tests, env=env, external=True)


def resolved_environment(session: nox.Session, home: Path, python: str, resolution: str) -> Path:
    """Python of a new environment that holds the wheel and what the resolution chose."""
    session.run(sys.executable, "-m", "venv", str(home / "uv"), external=True)
    session.run(str(home / "uv/bin/python"), "-m", "pip", "install", "-q", "uv", external=True)
    pins, new = home / "pins.txt", home / "env" / "bin" / "python"
    extras = ("--extra", "dev", "--extra", "s3")
    choose = ("--resolution", resolution, "--python", python, "-q", "-o", str(pins))
    uv(session, home, "pip", "compile", "pyproject.toml", *extras, *choose)
    uv(session, home, "venv", "-q", "--python", python, str(home / "env"))
    wheels = [str(path) for path in (home / "dist").glob("*.whl")]
    uv(session, home, "pip", "install", "-q", "--python", str(new), "-r", str(pins), *wheels)
    return new


def uv(session: nox.Session, home: Path, *command: str) -> None:
    """Run uv, which here uses the interpreters that are there and fetches none."""
    env = {"UV_PYTHON_DOWNLOADS": "never"}
    session.run(str(home / "uv/bin/uv"), *command, env=env, external=True)


def copy_without_package(tree: Path) -> None:
    """Copy what git knows of this repository, but for the package."""
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, check=True)
    for name in listed.stdout.decode().split("\0"):
        if name and not name.startswith("spoco_zoo/"):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(name, tree / name)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages into docs/_build; a broken link between them is an error.

    ``nox -s docs -- linkcheck`` asks other sites whether their pages are there, too.
    """
    if not isinstance(session.virtualenv, nox.virtualenv.PassthroughEnv):
        session.install("-c", "constraints.txt", "-e", ".[docs]")
    builder = session.posargs[0] if session.posargs else "html"
    command = [
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-b",
        builder,
        "docs",
        f"docs/_build/{builder}",
    ]
    session.run(sys.executable, *command, env=ENVIRONMENT)


@nox.session
def demo(session: nox.Session) -> None:
    """From made-up cells to a segmented volume, in minutes."""
    run_module(session, "spoco_zoo", "demo")


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks that need neither data nor a GPU; each prints one line of JSON."""
    for name in ("seams", "train_step", "segment_overhead"):
        run_module(session, f"benchmarks.{name}")


@nox.session
def consumers(session: nox.Session) -> None:
    """Run bundles in other programs: nox -s consumers -- [--write docs/consumers.md] BUNDLE.zip ...

    The environments take some gigabytes and are kept in .nox; where pip finds
    torch for CPU is up to its own settings. A program that cannot be installed
    is a row of the table that says so.
    """
    arguments = []
    for name, (consumer, *packages) in CONSUMERS.items():
        try:
            python = consumer_environment(session, name, (*packages, *SCRIPT))
        except CommandFailed:
            arguments += ["--absent", f"{consumer}={packages[0]} cannot be installed here"]
        else:
            arguments += ["--environment", f"{consumer}={python}"]
    run_module(session, "tests.consumers.table", *arguments)


def consumer_environment(session: nox.Session, name: str, packages: tuple[str, ...]) -> Path:
    """Python of the program's environment, made at the first call and again when a pin changes."""
    home = session.cache_dir / "consumers" / name
    python, stamp = home / "bin" / "python", home / "installed.txt"
    wanted = "\n".join(packages)
    if not stamp.is_file() or stamp.read_text() != wanted:
        session.run(sys.executable, "-m", "venv", "--clear", str(home), external=True)
        session.run(str(python), "-m", "pip", "install", *packages, external=True)
        stamp.write_text(wanted)
    return python
