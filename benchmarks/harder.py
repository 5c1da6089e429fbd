"""A data set in which images that a network does badly on are there two or three times.

::

    python -m benchmarks.harder IMAGES LABELS benchmarks/splits/dsb2018-fluo.json RUN OUT

Writes links ``OUT/{images,labels}`` and ``OUT/split.json``, whose training part lists an image
with an AP@0.5 under RUN below 0.9 twice and one below 0.75 three times; validation and test
images stay as they are. One line of JSON says how many images are there how often.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from benchmarks.judge import judged
from spoco_zoo.config import TrainConfig
from spoco_zoo.nets.model import load_run
from spoco_zoo.train.data import load_samples
from spoco_zoo.train.files import pair_files

TWICE, THRICE = 0.9, 0.75


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("images", "labels", "split", "run", "out"):
        parser.add_argument(name, type=Path)
    asked = parser.parse_args()
    split = json.loads(asked.split.read_text())
    every = {name for part in split.values() for name in part}
    pairs = {p.name: p for p in pair_files(asked.images, asked.labels) if p.name in every}
    model = load_run(asked.run)
    settings = TrainConfig(ndim=model.recipe.net.ndim)
    copies = {
        name: times(judged(model, load_samples([pairs[name]], settings)).ap50)
        for name in split["train"]
    }
    more = [(name, f"{name}-{i}") for name, n in copies.items() for i in range(1, n)]
    for kind in ("images", "labels"):
        (asked.out / kind).mkdir(parents=True)
    for source, name in [*((name, name) for name in pairs), *more]:
        pair = pairs[source]
        for kind, path in (("images", pair.image), ("labels", pair.labels)):
            (asked.out / kind / f"{name}{path.suffix}").symlink_to(path.resolve())
    split["train"] += [name for _, name in more]
    (asked.out / "split.json").write_text(json.dumps(split, indent=2) + "\n")
    print(json.dumps({"images": Counter(copies.values()), "listed": len(split["train"])}))


def times(score: float) -> int:
    """How often an image is listed."""
    return 1 + (score < TWICE) + (score < THRICE)


if __name__ == "__main__":
    main()
