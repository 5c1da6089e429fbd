"""One bundle that two programs read differently: what was vetted must be what runs."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
from typing import TYPE_CHECKING

import pytest
import torch
import yaml
from bioimageio.spec.utils import identify_bioimageio_yaml_file_name
from test_hostile_bundles import Members, assert_refused, edited, good, replaced, write

from spoco_zoo.bundle import layout
from spoco_zoo.bundle.archive import read_members, vet_zip
from spoco_zoo.bundle.load import load_model
from spoco_zoo.bundle.verify import check_bundle
from spoco_zoo.bundle.weights import read_tensors, read_torchscript
from spoco_zoo.config import ClusteringConfig
from spoco_zoo.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["good"]  # the fixture


@pytest.mark.parametrize("name", ["a.rdf.yaml", "z.model.yaml", "bioimageio.yaml"])
@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_code_behind_a_second_description_does_not_run(
    name: str, kind: str, good: Members, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    code = good["spoco_unet.py"] + f"\nimport os; os.mkdir({str(marker)!r})\n".encode()
    rdf = yaml.safe_load(good["rdf.yaml"])
    rdf["weights"]["pytorch_state_dict"]["architecture"] |= {
        "source": "evil.py",
        "sha256": hashlib.sha256(code).hexdigest(),
    }
    path = write(tmp_path / "b.zip", {**good, "evil.py": code, name: yaml.safe_dump(rdf).encode()})
    if kind == "folder":
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path / "b")
        path = tmp_path / "b"
    assert_refused(path, f"one description.*{name}")
    assert not marker.exists()


@pytest.mark.parametrize(
    "name", ["rdf.yaml", "model.yaml", "bioimageio.yaml", "a.rdf.yaml", "sub/x.model.yaml"]
)
def test_a_name_that_the_official_library_reads_counts_as_a_description(name: str) -> None:
    assert identify_bioimageio_yaml_file_name(["a.txt", name]) == name
    assert layout.is_description(name)
    assert not layout.is_description(f"{name}.txt")


class Writes(torch.nn.Module):
    """Run, it would write the marker file."""

    def __init__(self, marker: str) -> None:
        super().__init__()
        self.marker = marker
        self.weight = torch.nn.Parameter(torch.zeros(1000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, self.marker)
        return torch.cat([x, x], 1)


def zipped(members: Members) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def hidden_behind(content: bytes, innocent: Members) -> bytes:
    """Both archives in one file: Python's reader finds `innocent`, torch's finds `content`.

    The end states where the first directory is; Python takes the one before the end.
    """
    end = struct.unpack("<4s4H2LH", content[-22:])
    count, size, offset = end[4:7]
    body = content[: offset + size]
    shown = zipped(innocent)
    directory = struct.unpack("<L", shown[-6:-2])[0]
    local, central = shown[:directory], bytearray(shown[directory:-22])
    shift = len(body) + directory - offset
    # One member; its comment fills the directory up to the size of the other.
    central[32:34] = struct.pack("<H", size - len(central))
    central[42:46] = struct.pack("<L", (len(body) - shift) % 2**32)
    central += b" " * (size - len(central))
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, size, offset, 0)
    return body + local + bytes(central) + tail


def script(marker: Path) -> bytes:
    stream = io.BytesIO()
    torch.jit.save(torch.jit.script(Writes(str(marker))), stream)
    return stream.getvalue()


quiet_jit = pytest.mark.filterwarnings(
    "ignore:.*torch.jit.*:DeprecationWarning", "ignore:.*torch.jit.*:FutureWarning"
)


@quiet_jit
def test_a_program_behind_a_second_directory_is_not_loaded(good: Members, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    crafted = hidden_behind(script(marker), {"archive/data.txt": b"hello"})
    with zipfile.ZipFile(io.BytesIO(crafted)) as archive:
        assert archive.namelist() == ["archive/data.txt"]
    torch.jit.load(io.BytesIO(crafted))  # what would be used, had it been let through
    with pytest.raises(BundleError, match="read the same"):
        read_torchscript(crafted, "weights.pt")

    def foreign(rdf: dict) -> None:
        rdf["weights"] = {"torchscript": rdf["weights"]["torchscript"]}
        rdf["config"] = {}

    members = edited(replaced(good, "weights_torchscript.pt", crafted), foreign)
    path = write(tmp_path / "b.zip", members)
    with pytest.raises(BundleError, match="every program"):
        load_model(path, clustering=ClusteringConfig())
    with pytest.raises(BundleError, match="read the same"):
        check_bundle(path, trust_code=False)
    assert not marker.exists()


@quiet_jit
def test_a_program_with_capital_letters_in_its_name_is_searched(tmp_path: Path) -> None:
    members = read_members(script(tmp_path / "marker"), "weights.pt")
    crafted = zipped({name.replace(".py", ".PY"): text for name, text in members.items()})
    torch.jit.load(io.BytesIO(crafted))
    with pytest.raises(BundleError, match="must only compute"):
        read_torchscript(crafted, "weights.pt")


def test_tensors_behind_a_second_directory_are_not_unpacked(good: Members, tmp_path: Path) -> None:
    crafted = hidden_behind(good["weights.pt"], {"archive/data.txt": b"hello"})
    with pytest.raises(BundleError, match="read the same"):
        read_tensors(crafted, "weights.pt")
    assert_refused(
        write(tmp_path / "b.zip", replaced(good, "weights.pt", crafted)), "read the same"
    )


def prepended(content: bytes) -> bytes:
    return b"#!/bin/sh\n" + content


def commented(content: bytes) -> bytes:
    return content[:-2] + struct.pack("<H", 4) + b"text"


def two_ends(content: bytes) -> bytes:
    count, size, offset = struct.unpack("<H2L", content[-12:-2])
    wide = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(content) - 23, 1)
    return content[:-22] + wide + locator + content[-22:]


def fewer(content: bytes) -> bytes:
    return content[:-14] + struct.pack("<2H", 1, 1) + content[-10:]


def two_names(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        info = zipfile.ZipInfo("a.txt")
        info.extra = struct.pack("<2H6s", 0x7075, 6, b"\1....b")
        archive.writestr(info, content)
    return stream.getvalue()


def other_format(content: bytes) -> bytes:
    return content[:4] + b"PTMF" + content[8:]


@pytest.mark.parametrize("change", [prepended, commented, two_ends, fewer, two_names, other_format])
def test_zip_files_with_two_readings(change: Callable[[bytes], bytes]) -> None:
    plain = zipped({"a.txt": b"a", "b.txt": b"b"})
    assert vet_zip(io.BytesIO(plain), "b.zip") == ["a.txt", "b.txt"]
    with pytest.raises(BundleError, match=r"read the same.*b\.zip"):
        vet_zip(io.BytesIO(change(plain)), "b.zip")
