"""Images and labels on disk: OME-Zarr 0.4 and 0.5, local and remote, and TIFF."""

from spoco_zoo.ngff.claim import claim_label, is_claimed
from spoco_zoo.ngff.colours import palette_error
from spoco_zoo.ngff.convert import convert
from spoco_zoo.ngff.image import Image, Level, find_channels, planes_as_channels
from spoco_zoo.ngff.labels import (
    as_labelled,
    find_labels,
    label_names,
    labelled_image,
    laid_on,
    open_labels,
)
from spoco_zoo.ngff.lost import find_lost, read_mended
from spoco_zoo.ngff.opening import open_image
from spoco_zoo.ngff.pieces import has_all_pieces, keeping_pieces
from spoco_zoo.ngff.reduce import mean_cells, mode_cells, pyramid_factors
from spoco_zoo.ngff.rescale import (
    RescaledImage,
    cut_off,
    mixed_lines,
    resampled,
    rescale_image,
    with_neighbours,
)
from spoco_zoo.ngff.store import (
    is_remote,
    is_tiff_name,
    open_scratch,
    scratch_array,
    write_blocks,
)
from spoco_zoo.ngff.target import (
    LabelTarget,
    check_label_name,
    check_outside,
    plan_label,
    state_of,
)
from spoco_zoo.ngff.tiff import read_tiff
from spoco_zoo.ngff.write import (
    create_label,
    label_is_whole,
    open_label_array,
    publish_label,
    remove_label,
)
from spoco_zoo.ngff.write_tiff import is_label_tiff, write_label_tiff

__all__ = [
    "Image",
    "LabelTarget",
    "Level",
    "RescaledImage",
    "as_labelled",
    "check_label_name",
    "check_outside",
    "claim_label",
    "convert",
    "create_label",
    "cut_off",
    "find_channels",
    "find_labels",
    "find_lost",
    "has_all_pieces",
    "is_claimed",
    "is_label_tiff",
    "is_remote",
    "is_tiff_name",
    "keeping_pieces",
    "label_is_whole",
    "label_names",
    "labelled_image",
    "laid_on",
    "mean_cells",
    "mixed_lines",
    "mode_cells",
    "open_image",
    "open_label_array",
    "open_labels",
    "open_scratch",
    "palette_error",
    "plan_label",
    "planes_as_channels",
    "publish_label",
    "pyramid_factors",
    "read_mended",
    "read_tiff",
    "remove_label",
    "resampled",
    "rescale_image",
    "scratch_array",
    "state_of",
    "with_neighbours",
    "write_blocks",
    "write_label_tiff",
]
