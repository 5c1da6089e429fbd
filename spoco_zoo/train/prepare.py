"""From folders to the three parts of a data set, with the annotation that is to be used."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from spoco_zoo.errors import ConfigError, DataError, one_line
from spoco_zoo.train.annotation import thin_out
from spoco_zoo.train.data import (
    BACKGROUND,
    PARTS,
    Split,
    check_channels,
    load_samples,
)
from spoco_zoo.train.files import left_out
from spoco_zoo.train.layouts import find_pairs
from spoco_zoo.train.split import split_by_name, split_samples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spoco_zoo.config import TrainConfig
    from spoco_zoo.train.data import Sample

__all__ = ["has_background", "prepare", "read_split"]


def prepare(
    images: Path,
    labels: Path,
    config: TrainConfig,
    val_images: Path | None,
    val_labels: Path | None,
) -> Split:
    """Read the data, split it, and thin out the training annotation if asked to.

    Raises
    ------
    InputError
        If data or settings cannot be used.
    """
    if (val_images is None) != (val_labels is None):
        raise DataError(
            "--val-images and --val-labels go together", "only one of them", "Give both or neither."
        )
    if config.no_background and config.background_label is not None:
        raise ConfigError(
            "--no-background says that objects fill the image: there is no value of background",
            f"--background-label {config.background_label}",
            "Leave one of them out.",
        )
    if config.split is not None and val_images is not None:
        raise ConfigError(
            "validation images come from --split or from --val-images",
            "both",
            "Leave one of them out.",
        )
    held = None if val_images is None or val_labels is None else (val_images, val_labels)
    split = read_parts((images, labels), held, config)
    kept = split.train
    if config.thinned:
        kept = tuple(
            thin_out(
                split.train,
                ratio=config.instance_ratio,
                max_objects=config.max_objects,
                seed=config.seed,
                strokes=config.annotation == "sparse",
            )
        )
    if not any(len(sample.centres) for sample in kept):
        raise DataError(
            "training images must hold annotated objects",
            f"none in {len(kept)} images",
            "Check the labels, or the lists of --split.",
        )
    val = judged(split.val)
    if not any(len(sample.centres) for sample in val):
        raise DataError(
            "validation images must hold annotated objects",
            f"none in {len(split.val)} images",
            "Annotate some, name others in --split or --val-images, or draw others with --seed.",
        )
    # Asked of all that was annotated: thinned out, tissue without gaps has unknown voxels too.
    background = has_background(split.train, config)
    share = kept_share(split.train, kept, config)
    return Split(kept, val, judged(split.test), background, split.remarks, share)


def read_parts(
    given: tuple[Path, Path], held: tuple[Path, Path] | None, config: TrainConfig
) -> Split:
    """Images and labels as they are, in the parts that the settings ask for.

    Parameters
    ----------
    given : tuple of Path
        Folders of images and of labels.
    held : tuple of Path or None
        The same for validation, where it has images of its own.
    config : TrainConfig
    """
    pairs = find_pairs(*given, config)
    remarks = [left_out(*given)] if config.layout == "pairs" else []
    if config.split is not None:
        names = read_split(Path(config.split), {pair.name for pair in pairs})
        listed = {name for part in names.values() for name in part}
        chosen = [pair for pair in pairs if pair.name in listed]
        split = split_by_name(load_samples(chosen, config), names)
    elif held is not None:
        remarks.append(left_out(*held))
        val = load_samples(find_pairs(*held, config, prefix="val-"), config)
        split = Split(tuple(load_samples(pairs, config)), tuple(val), ())
        check_channels(val, split.train[0].image.shape[0], "those to train on")
    else:
        split = split_samples(load_samples(pairs, config), config)
    return replace(split, remarks=(*split.remarks, *filter(None, remarks)))


def kept_share(before: Sequence[Sample], kept: Sequence[Sample], config: TrainConfig) -> float:
    """Share of all objects that is left; of sparse annotation nobody knows how many there are."""
    if config.annotation == "sparse":
        return 1.0
    every, left = (sum(len(sample.centres) for sample in part) for part in (before, kept))
    return left / every


def judged(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Samples of which something is known, those with objects first, else in their order.

    The first ones are looked at while training, and drawn in the report.
    """
    known = [sample for sample in samples if sample.annotated]
    return tuple(sorted(known, key=lambda sample: not len(sample.centres)))


def read_split(path: Path, known: set[str]) -> dict[str, list[str]]:
    """Lists of names ``train``, ``val`` and ``test``; the last may be missing in the file.

    Raises
    ------
    DataError
        If the file is no such JSON, a name is in two lists, or has no image.
    """
    remedy = 'Write {"train": [names], "val": [names], "test": [names]}.'
    try:
        loaded = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = one_line(error)[:100]
        raise DataError("--split must be a readable JSON file", reason, remedy) from error
    given = {"test": [], **loaded} if isinstance(loaded, dict) else {}
    good = set(given) == set(PARTS) and all(
        isinstance(part, list) and all(isinstance(name, str) for name in part)
        for part in given.values()
    )
    if not good or not (given["train"] and given["val"]):
        raise DataError(
            "--split must hold lists of names train, val and, if wanted, test", f"{path}", remedy
        )
    every = [name for part in PARTS for name in given[part]]
    twice = sorted(name for name, count in Counter(every).items() if count > 1)
    missing = sorted(set(every) - known)
    for odd, rule in ((twice, "name each image once"), (missing, "name images that are there")):
        if odd:
            raise DataError(
                f"--split must {rule}", f"{len(odd)} names, the first is {odd[0]!r}", "Mend it."
            )
    return {part: given[part] for part in PARTS}


def has_background(samples: Sequence[Sample], config: TrainConfig) -> bool:
    """Whether any voxel is, or in sparse annotation may be, background."""
    if config.annotation == "sparse":
        return True
    return any(bool((sample.labels == BACKGROUND).any()) for sample in samples)
