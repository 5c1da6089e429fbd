"""Packages that can be called: ``spoco_zoo.segment(...)`` beside ``spoco_zoo.segment.plan``.

``train``, ``segment``, ``evaluate`` and ``measure`` are parts of the house and, for a reader of a
notebook, verbs. A module of this class is both; it loads `spoco_zoo.api` when it is
first called or asked for its signature or help.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from types import ModuleType
from typing import Any

__all__ = ["Verb", "make_verb"]


class Verb(ModuleType):
    """A module that passes calls on to the function of its name in `spoco_zoo.api`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Do what the package is named for."""
        return self._function()(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        """By name, as functions are pickled, so that pools of processes can be given a verb."""
        return importlib.import_module, (self.__name__,)

    @property
    def __signature__(self) -> inspect.Signature:
        """That of the function, for tooltips."""
        return inspect.signature(self._function())

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        """That of the function with its signature, for ``help``; then that of the module."""
        name, own = self.__name__.rpartition(".")[2], vars(self).get("__doc__", "")
        called = f"{name}{self.__signature__}"
        return f"{called}\n\n{inspect.getdoc(self._function())}\n\nAs a module: {own}"

    def _function(self) -> Any:
        api = importlib.import_module("spoco_zoo.api")
        return getattr(api, self.__name__.rpartition(".")[2])


def make_verb(name: str) -> None:
    """Let the module of this name, which is being imported, be called."""
    sys.modules[name].__class__ = Verb
