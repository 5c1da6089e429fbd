"""Messages name flags; functions for notebooks turn these into keywords, by lists kept by hand."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest
from typer.main import get_command

from spoco_zoo import api
from spoco_zoo.bundle.options import ExportOptions
from spoco_zoo.cli import app
from spoco_zoo.config import SegmentConfig, TrainConfig
from spoco_zoo.wording import SWITCH, as_keywords

CALLS: dict[str, tuple[Any, set[str]]] = {
    "export": (api.export, {field.name for field in dataclasses.fields(ExportOptions)}),
    "segment": (api.segment, set(SegmentConfig.model_fields)),
    "train": (api.train, set(TrainConfig.model_fields)),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_flag_without_a_value_is_a_keyword_with_one(name: str) -> None:
    function, settings = CALLS[name]
    keywords = settings | set(inspect.signature(function).parameters)
    options = get_command(app).commands[name].params  # type: ignore[attr-defined]
    switches = [p for p in options if getattr(p, "is_bool_flag", False) and p.name in keywords]
    assert len(switches) > 2
    for option in switches:
        assert SWITCH.fullmatch(option.name), option.name
        for flag in option.opts:
            assert as_keywords(f"Pass {flag}.") == f"Pass {option.name}=True."
        for flag in option.secondary_opts:
            assert as_keywords(f"Pass {flag}.") == f"Pass {option.name}=False."
