"""A run folder made of a shipped model, so that it can be judged, tuned and exported anew.

The format of bundles moves on, and runs get lost; what a run holds lies in its bundle and its
card, but for the sample, of which the bundle has a crop::

    python -m benchmarks.reopened nuclei-confocal-3d model_cards RUN
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path

import numpy as np

from spoco_zoo import run_folder
from spoco_zoo.bundle import layout
from spoco_zoo.bundle.archive import open_bundle
from spoco_zoo.bundle.load import load_model
from spoco_zoo.bundle.shipped import find_shipped
from spoco_zoo.nets.model import own_network, save_run_model


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="id of a shipped model")
    parser.add_argument("cards", type=Path, help="folder of model cards")
    parser.add_argument("run", type=Path, help="new folder")
    asked = parser.parse_args()
    reopen(asked.model, asked.cards / asked.model, asked.run)


def reopen(name: str, card: Path, run: Path) -> None:
    """Write ``model.json``, ``model.pt``, ``config.yaml``, ``metrics.json`` and ``sample.npz``."""
    run.mkdir(parents=True)
    for file in (run_folder.CONFIG, run_folder.METRICS):
        shutil.copyfile(card / file, run / file)
    with find_shipped(name) as path:
        files = open_bundle(path)
        image, labels = (
            np.load(io.BytesIO(files.read(member)))
            for member in (layout.TEST_INPUT, layout.TEST_LABELS)
        )
        model = load_model(path)
    np.savez_compressed(run / run_folder.SAMPLE, image=image[0], labels=labels)
    networks = {"network": model.network, "momentum": model.momentum}
    states = {
        which: own_network(network, "a model to reopen").state_dict()
        for which, network in networks.items()
        if network is not None
    }
    save_run_model(run, model.recipe, states)


if __name__ == "__main__":
    main()
