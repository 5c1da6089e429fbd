"""What a user says about a bundle beside the run that it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from spoco_zoo.bundle.layout import FORMATS, WeightFormat
from spoco_zoo.errors import ConfigError

if TYPE_CHECKING:
    from spoco_zoo.bundle.model_card import ModelCard

__all__ = ["ExportOptions", "check_options"]

PAPER = (
    "Wolny, Yu, Pape, Kreshuk: Sparse Object-level Supervision for Instance Segmentation "
    "with Pixel Embeddings, CVPR 2022",
    "10.48550/arXiv.2103.14572",
)


@dataclass(frozen=True)
class ExportOptions:
    """Everything in a bundle that a run cannot know.

    Attributes
    ----------
    name : str
        5 to 128 letters, digits, ``_+- ()``.
    authors : tuple of str
        Names, or ``"Name; affiliation"``.
    license : str
        SPDX identifier.
    formats : tuple of str
        Weight formats; ``pytorch_state_dict`` comes first and is always there.
    with_labels : bool
        A second output, the labels of a whole image.
    momentum : bool
        The momentum network travels too; consistency clustering needs it.
    github_user : str or None
        Maintainer; the zoo asks for one.
    description, structure, modality : str or None
        What the model is for, the objects it finds, the kind of microscopy.
    training_data, limits : str or None
        Markdown sentences for the README: what it was trained on, and where it fails.
    card : ModelCard or None
        Text written by hand; its training data and limits stand for the two above.
    for_upload : bool
        Write a list of what a person must still do beside the bundle, a folder.
    dataset : tuple of (str, str) or None
        Identifier and address of the data that the validation figures are from.
    cite : tuple of (str, str)
        Text and DOI; the paper of the method comes first by itself.
    version : str
        Version of the model, as in ``0.1.0``.
    rdf_version : {"compat", "latest"}
        ``compat`` can be read by every 0.5 reader from 0.5.4 on.
    timestamp : str or None
        ISO 8601; now if None. With a fixed one the same run gives the same bytes.
    overwrite : bool
        Replace a bundle that is already there.
    """

    name: str
    authors: tuple[str, ...]
    license: str = "MIT"
    formats: tuple[WeightFormat, ...] = FORMATS
    with_labels: bool = False
    momentum: bool = True
    github_user: str | None = None
    description: str | None = None
    structure: str | None = None
    modality: str | None = None
    training_data: str | None = None
    limits: str | None = None
    card: ModelCard | None = None
    for_upload: bool = False
    dataset: tuple[str, str] | None = None
    cite: tuple[tuple[str, str], ...] = ()
    version: str = "0.1.0"
    rdf_version: Literal["compat", "latest"] = "compat"
    timestamp: str | None = None
    overwrite: bool = False

    @property
    def about_data(self) -> str | None:
        """What the model was trained on, from the card if there is one."""
        return self.card.training_data if self.card else self.training_data

    @property
    def about_limits(self) -> str | None:
        """Where the model fails, from the card if there is one."""
        return self.card.limits if self.card else self.limits

    @property
    def taken_as_given(self) -> tuple[str, ...]:
        """GitHub users that are not looked up."""
        return (self.github_user,) if self.github_user else ()


def check_options(options: ExportOptions) -> None:
    """Refuse options that no bundle can be made from, before any work is done.

    Raises
    ------
    ConfigError
        If formats are unknown, doubled or lack the state dict, or an author has no name.
    """
    unknown = sorted(set(options.formats) - set(FORMATS))
    if unknown or len(set(options.formats)) < len(options.formats):
        raise ConfigError(
            f"formats must be some of {', '.join(FORMATS)}, each once",
            ", ".join(options.formats),
            "Leave --formats out to get all three.",
        )
    if "pytorch_state_dict" not in options.formats:
        raise ConfigError(
            "formats must include pytorch_state_dict, from which the others are made",
            ", ".join(options.formats) or "none",
            "Add pytorch_state_dict to --formats.",
        )
    for name, pairs in (("cite", options.cite), ("dataset", [options.dataset or ("", "")])):
        odd = [
            pair
            for pair in pairs
            if isinstance(pair, str)
            or len(pair) != 2
            or not all(isinstance(text, str) for text in pair)
        ]
        if odd:
            raise ConfigError(f"{name} must be given as two texts", repr(odd[0]), "See its help.")
    if options.rdf_version not in ("compat", "latest"):
        raise ConfigError(
            "rdf_version must be compat or latest", repr(options.rdf_version), "Leave it out."
        )
    if not options.authors or not all(name.partition(";")[0].strip() for name in options.authors):
        found = ", ".join(map(repr, options.authors)) or "none"
        raise ConfigError("a bundle must name an author", found, "Pass --author NAME.")
