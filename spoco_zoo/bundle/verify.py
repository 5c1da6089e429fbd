"""Check a bundle that was made earlier, or by others: ``spoco-zoo export --check``."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from spoco_zoo.bundle import layout
from spoco_zoo.bundle.archive import DISTRUST, BundleFiles, open_bundle
from spoco_zoo.bundle.export import architecture_source, cluster_script
from spoco_zoo.bundle.load import load_model, recipe_from_config
from spoco_zoo.bundle.official import FormatCheck, official_test
from spoco_zoo.bundle.rdf import Description, check_hashes, file_entry, read_description
from spoco_zoo.bundle.references import github_users, require_local_files
from spoco_zoo.bundle.sample import run_cluster_script
from spoco_zoo.bundle.weights import read_onnx, read_tensors, read_torchscript
from spoco_zoo.errors import BundleError, one_line
from spoco_zoo.nets.registry import architecture_kwargs, label_kwargs

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CheckReport", "check_bundle"]


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes
    ----------
    path : Path
    format_version : str
        Of the description.
    hashes : int
        Files whose hash was checked.
    formats : tuple of FormatCheck
        Weight formats that the official test ran.
    labels : {"equal", "different", "not checked"}
        Whether the script's labels of the test output equal ``test_labels.npy``.
    not_run : tuple of str
        What was left out, and why.
    status : str
        ``passed``, or what the official test says otherwise.
    error : str
        First error in one line; empty if there is none.
    """

    path: Path
    format_version: str
    hashes: int
    formats: tuple[FormatCheck, ...]
    labels: Literal["equal", "different", "not checked"]
    not_run: tuple[str, ...]
    status: str
    error: str

    @property
    def passed(self) -> bool:
        """Everything that ran passed, and at least one format ran."""
        return self.status == "passed" and bool(self.formats) and self.labels != "different"

    def to_dict(self) -> dict[str, Any]:
        """The findings in plain values, ready for JSON."""
        return {
            "bundle": str(self.path),
            "format_version": self.format_version,
            "status": self.status,
            "passed": self.passed,
            "hashes_checked": self.hashes,
            "formats": [item.name for item in self.formats],
            "labels": self.labels,
            "not_run": list(self.not_run),
            "error": self.error,
        }


def check_bundle(path: Path, *, trust_code: bool) -> CheckReport:
    """Check a bundle's files, run the official test, and compare the labels.

    Parameters
    ----------
    path : Path
        Zip file or folder.
    trust_code : bool
        Run Python code of the bundle that is not byte by byte our own. Without
        it, weight formats that need such code are left out and named.

    Raises
    ------
    BundleError
        If the bundle is damaged or unsafe.
    """
    files = open_bundle(path)
    description = read_description(files)
    _require_same_description(files, description)
    links = require_local_files(description.rdf)
    hashes = check_hashes(files, description.rdf)
    _vet_arrays(files)
    formats, not_run = _choose_formats(files, description, trust_code)
    if description.spoco is not None:
        load_model(path)
    for name in formats:
        _vet_weights(files, description, name)
    result = official_test(
        path,
        cast(Any, formats),
        known_users=github_users(description.rdf),
        known_links=links,
    )
    labels, reason = _compare_labels(path, files, description, trust_code)
    return CheckReport(
        path=path,
        format_version=description.format_version,
        hashes=hashes,
        formats=result.formats,
        labels=labels,
        not_run=(*not_run, *reason),
        status=result.status,
        error=result.error or ("labels differ from the script's" if labels == "different" else ""),
    )


def _require_same_description(files: BundleFiles, description: Description) -> None:
    """The official test must read the description that is vetted here, also a later version."""
    from bioimageio.spec.utils import identify_bioimageio_yaml_file_name

    other = identify_bioimageio_yaml_file_name(files.names)
    if other != description.name:
        raise BundleError("a bundle must hold one description", f"{other!r:.100}", DISTRUST)


def _choose_formats(
    files: BundleFiles, description: Description, trust_code: bool
) -> tuple[list[str], list[str]]:
    """Weight formats that may run, and why the others may not."""
    if trust_code:
        return list(description.weights), []
    if _has_custom_processing(description.rdf):
        return [], ["all formats: custom processing is Python code; pass --trust-code to run it"]
    formats, not_run = [], []
    for name in description.weights:
        needs = "a format that can hold code" if name not in layout.FORMATS else ""
        if name == "pytorch_state_dict" and not _is_own_architecture(files, description):
            needs = "its architecture file is not ours"
        if needs:
            not_run.append(f"{name}: {needs}; pass --trust-code to run it")
        else:
            formats.append(name)
    return formats, not_run


def _is_own_architecture(files: BundleFiles, description: Description) -> bool:
    """Whether architecture file and arguments are what this package writes."""
    architecture = description.rdf["weights"]["pytorch_state_dict"].get("architecture")
    if not isinstance(architecture, dict) or "source" not in architecture:
        return False
    if description.spoco is None:
        return False
    # Arguments of our own file could still ask for more memory than there is.
    recipe = recipe_from_config(description.spoco)
    with_labels = architecture.get("callable") == layout.LABELS_CALLABLE
    expected = architecture_kwargs(recipe.net) | (label_kwargs(recipe) if with_labels else {})
    if architecture.get("kwargs") != expected:
        return False
    entry = file_entry(architecture)
    content = files.read(entry.source, entry.sha256)
    return content == architecture_source(with_labels=with_labels)


def _has_custom_processing(rdf: dict[str, Any]) -> bool:
    """Whether a tensor is processed by a step that is no built-in of the format."""
    tensors = [*_mappings(rdf.get("inputs")), *_mappings(rdf.get("outputs"))]
    steps = [
        step
        for tensor in tensors
        for key in ("preprocessing", "postprocessing")
        for step in _mappings(tensor.get(key))
    ]
    return any("custom" in str(step) or "source" in step for step in steps)


def _mappings(value: Any) -> list[dict[str, Any]]:
    """What a description lists; nothing is an empty list."""
    items = [] if value is None else value
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise BundleError("tensors and steps must be lists of mappings", f"{value!r:.80}", DISTRUST)
    return items


def _vet_weights(files: BundleFiles, description: Description, name: str) -> None:
    """Refuse weight files that hold more than weights, before the official test opens them."""
    entry = description.weights[name]
    content = files.read(entry.source, entry.sha256)
    if name == "pytorch_state_dict":
        read_tensors(content, entry.source)
    elif name == "torchscript":
        read_torchscript(content, entry.source)
    elif name == "onnx":
        read_onnx(content, entry.source)


def _vet_arrays(files: BundleFiles) -> None:
    for name in files.names:
        if name.endswith(".npy"):
            read_array(files.read(name), name)


def read_array(content: bytes, name: str) -> NDArray[Any]:
    """A plain array of a .npy file whose header claims no more than the file holds.

    Raises
    ------
    BundleError
        If the file is damaged, holds objects, or is shorter than it claims.
    """
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            version, np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(stream)
        claimed = int(np.prod([int(n) for n in shape], dtype=object)) * dtype.itemsize
        if dtype.hasobject or claimed != len(content) - stream.tell():
            raise ValueError(f"shape {shape} of {dtype}")
        return np.load(io.BytesIO(content), allow_pickle=False)  # type: ignore[no-any-return]
    except (ValueError, EOFError, OSError, SyntaxError) as error:
        reason = one_line(error)[:100]
        raise BundleError(
            "a .npy file must be a plain array", f"{reason} ({name})", DISTRUST
        ) from error


def _compare_labels(
    path: Path, files: BundleFiles, description: Description, trust_code: bool
) -> tuple[Literal["equal", "different", "not checked"], list[str]]:
    """Run the travelling script on the test output and compare with the expected labels."""
    needed = (layout.CLUSTER_SCRIPT, layout.TEST_LABELS, layout.TEST_OUTPUT)
    if description.spoco is None or any(name not in files.names for name in needed):
        return "not checked", ["labels: the bundle does not carry script and expected labels"]
    script = files.read(layout.CLUSTER_SCRIPT)
    if script != cluster_script() and not trust_code:
        return "not checked", [
            "labels: the script is not that of this version; pass --trust-code to run it"
        ]
    settings = description.spoco.get("cluster_script")
    parameters = settings.get("parameters") if isinstance(settings, dict) else None
    embeddings = read_array(files.read(layout.TEST_OUTPUT), layout.TEST_OUTPUT)
    expected = read_array(files.read(layout.TEST_LABELS), layout.TEST_LABELS)
    try:
        labels = run_cluster_script(script, embeddings[0], parameters or {})
    except Exception as error:  # whatever the script makes of foreign values
        reason = one_line(error)[:150]
        raise BundleError(
            "the script must make labels of the test output", reason, DISTRUST
        ) from error
    return ("equal" if np.array_equal(labels, expected) else "different"), []
