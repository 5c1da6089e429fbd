"""Everything one does with this repository: `nox` is lint, types and tests.

By default the sessions run in the environment that nox itself runs in, because
a second one would install several gigabytes again::

    pip install -c constraints.txt -e '.[dev]'
    nox

`nox --force-venv-backend virtualenv` gives each session a fresh environment.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "tests"]
nox.needs_version = ">=2024.10"

# Tests use threads of their own making; more only get in each other's way.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "PYTHONHASHSEED": "0"}
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
    """Strict types of the package."""
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
    """All benchmarks; each prints one line of JSON."""
    for script in sorted(Path("benchmarks").glob("*.py")):
        run_module(session, f"benchmarks.{script.stem}")
