"""A run whose weights lie between those of two others, of which one was trained on from the other.

::

    python -m benchmarks.averaged RUN OTHER OUT --share 0.3

OUT is a copy of RUN, but for its network: 0.7 times RUN's weights and 0.3 times OTHER's. What
OTHER bears better, such as noise, it then bears better, too, and where OTHER is worse it is
hardly so (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022). The clustering
stays RUN's: `benchmarks.scored` learns scores anew.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from torch import nn

from spoco_zoo import run_folder
from spoco_zoo.nets.model import load_run, save_tensors
from spoco_zoo.train.momentum import update_momentum


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("run", "other", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--share", type=float, required=True, help="of OTHER's weights, 0 to 1")
    asked = parser.parse_args()
    mixed, other = load_run(asked.run).network, load_run(asked.other).network
    assert isinstance(mixed, nn.Module)
    assert isinstance(other, nn.Module)
    update_momentum(mixed, other, 1 - asked.share)
    shutil.copytree(asked.run, asked.out)
    save_tensors({"network": mixed.state_dict()}, asked.out / run_folder.MODEL)
    print(json.dumps({"benchmark": "averaged", "out": asked.out.name, "share": asked.share}))


if __name__ == "__main__":
    main()
