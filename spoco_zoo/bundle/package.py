"""From described files to a folder or a zip that old and new readers accept."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

import yaml

from spoco_zoo.bundle import layout
from spoco_zoo.bundle.official import quietly

if TYPE_CHECKING:
    from pathlib import Path

    from bioimageio.spec.model import v0_5

    from spoco_zoo.bundle.options import ExportOptions

__all__ = ["compatible", "write_folder", "write_zip"]

COMPATIBLE_VERSION = "0.5.4"
EPOCH = (1980, 1, 1, 0, 0, 0)


def compatible(rdf: dict[str, Any]) -> dict[str, Any]:
    """Rewrite a description so that readers from format 0.5.4 on accept it.

    Format 0.5.11 writes `covers` and `documentation` as mappings with a hash,
    which older readers refuse. Only these two hashes are lost.
    """
    return {
        **rdf,
        "format_version": COMPATIBLE_VERSION,
        "documentation": _plain(rdf["documentation"]),
        "covers": [_plain(cover) for cover in rdf["covers"]],
    }


def _plain(entry: Any) -> str:
    return str(entry["source"] if isinstance(entry, dict) else entry)


def write_folder(description: v0_5.ModelDescr, folder: Path, options: ExportOptions) -> None:
    """Write the described files and ``rdf.yaml`` as a folder."""
    from bioimageio.spec import save_bioimageio_package_as_folder

    with quietly(options.taken_as_given):
        save_bioimageio_package_as_folder(description, output_path=folder)
    if options.rdf_version == "latest":
        return
    path = folder / layout.DESCRIPTION
    rdf = compatible(yaml.safe_load(path.read_text(encoding="utf-8")))
    text = yaml.safe_dump(rdf, sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")


def write_zip(folder: Path, path: Path) -> Path:
    """Zip a flat folder, the description first, with fixed dates: same members, same bytes."""
    members = sorted(folder.iterdir(), key=lambda p: (p.name != layout.DESCRIPTION, p.name))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in members:
            info = zipfile.ZipInfo(member.name, EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, member.read_bytes())
    return path
