"""Pictures of every make for the fuzz: depths, colours, transparency; sound and damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from inputs import Case, Rng, picture
from PIL import Image as Pillow
from spoil import damage


def drawn(rng: Rng, path: Path) -> Case:
    """A sound PNG."""
    shape = [(37, 45), (300, 20), (1, 40), (1, 1), (64, 64)][rng.integers(5)]
    mode = str(rng.choice(["L", "LA", "RGB", "RGBA", "I;16", "1", "P"]))
    channels = {"LA": 2, "RGB": 3, "RGBA": 4}.get(mode, 1)
    planes = np.stack([picture(rng, shape) for _ in range(channels)])
    if mode == "1":
        planes = planes > 50
    planes = planes.astype({"I;16": np.uint16, "1": bool}.get(mode, np.uint8))
    planes = planes * np.uint16(300) if mode == "I;16" else planes
    image = Pillow.fromarray(np.moveaxis(planes, 0, -1) if channels > 1 else planes[0])
    wanted = planes[: 1 if channels < 3 else 3]
    if mode == "P":
        colours = rng.integers(0, 256, (256, 3), dtype=np.uint8)
        image = Pillow.frombytes("P", image.size, image.tobytes())
        image.putpalette(colours.tobytes())
        wanted = np.moveaxis(colours[planes[0]], -1, 0)
    case = Case("picture layout", path.with_suffix(".png"))
    image.save(case.path)
    case.axes, case.expected = ("yx", wanted[0]) if len(wanted) == 1 else ("cyx", wanted)
    case.note = f"{mode} {shape}"
    return case


def damaged_picture(rng: Rng, path: Path) -> Case:
    """A PNG that was cut, emptied or changed: refused, or what Pillow reads of it."""
    case = drawn(rng, path)
    case.note = f"{damage(rng, case.path)}; was {case.note}"
    case.kind, case.expected, case.must_work = "picture damage", None, False
    return case
