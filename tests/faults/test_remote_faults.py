"""Object stores that falter: a real S3 server of this machine, behind a proxy that errs."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "segment"))
from planted import code_model, exact_cluster, tissue, write_image
from proxy import READS, WRITES, Fault, FaultProxy

from spoco_zoo.config import SegmentConfig
from spoco_zoo.errors import Interrupted, RemoteError, StoreError
from spoco_zoo.ngff import open_image, open_labels, remote
from spoco_zoo.ngff.target import state_of
from spoco_zoo.segment import Event, SegmentResult, segment

s3fs = pytest.importorskip("s3fs", reason="s3:// needs the extra s3")
# s3fs leaves its connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
SMALL = SegmentConfig(block=(32, 32), overlap=(8, 8), patch=(32, 32), halo=(4, 4))
TRUTH = tissue((40, 90), 14, seed=2)
IMAGE = "s3://cells/image.ome.zarr"
PIXELS = "image.ome.zarr/0/c"
READ_TIMEOUT = 1
PASSING = [
    Fault("SlowDown", READS, times=4, after=2),
    Fault("InternalError", READS, times=3, after=4),
    Fault("cut", READS, PIXELS, times=3, after=1),
    Fault("drop", READS, times=3, after=3),
    Fault("late", READS, PIXELS, times=2, seconds=READ_TIMEOUT + 0.5),
    Fault("SlowDown", WRITES, times=4, after=1),
    Fault("InternalError", WRITES, times=3),
    Fault("drop", WRITES, times=3, after=3),
]
LASTING = [
    (Fault("SlowDown", READS), "SlowDown"),
    (Fault("cut", READS, PIXELS), "must answer"),
    (Fault("drop", READS, PIXELS, after=2), "must answer"),
    (Fault("late", READS, PIXELS, seconds=READ_TIMEOUT + 0.5), "must answer"),
    (Fault("InternalError", WRITES, "labels.zarr/0/c", after=1), "InternalError"),
    (Fault("drop", WRITES, "labels.zarr/0/c"), "must answer"),
    (Fault("InvalidAccessKeyId", READS, PIXELS, after=2), "InvalidAccessKeyId.*does not exist"),
    (Fault("ExpiredToken", WRITES, after=1), "ExpiredToken.*has expired.*Renew"),
]


def told(fault: Fault | tuple[Fault, str]) -> str:
    """Name of a case."""
    fault = fault if isinstance(fault, Fault) else fault[0]
    verb = "reads" if fault.verbs == READS else "writes"
    return f"{fault.kind}-{verb}-{fault.path.rpartition('.')[0] or 'all'}-{fault.after}"


@pytest.fixture(scope="module")
def proxy(s3_server: str) -> Iterator[FaultProxy]:
    """Stands before the server; the way there is in the environment, the patience is short."""
    made = FaultProxy(s3_server)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": made.address,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_SESSION_TOKEN": "new",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        from fsspec.config import conf

        patch.setitem(conf, "s3", {"config_kwargs": {"read_timeout": READ_TIMEOUT}})
        patch.setattr(remote, "PAUSE", 0.1)
        s3fs.S3FileSystem.clear_instance_cache()
        yield made
        s3fs.S3FileSystem.clear_instance_cache()
        # Here, where what it warns of is expected.
        gc.collect()
    made.close()


@pytest.fixture(scope="module")
def direct(s3_server: str, proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory) -> object:
    """The server's files, past the proxy, with an image among them."""
    files = s3fs.S3FileSystem(endpoint_url=s3_server, use_listings_cache=False)
    files.mkdir("cells")
    local = write_image(tmp_path_factory.mktemp("image") / "image.ome.zarr", TRUTH, "YX")
    files.put(str(local), "cells/image.ome.zarr", recursive=True)
    return files


@pytest.fixture(scope="module")
def undisturbed(direct: object, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The label that comes out without any fault."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("undisturbed"))
        run("s3://cells/undisturbed/labels.zarr")
    assert len(np.unique(open_labels("s3://cells/undisturbed/labels.zarr").values)) == 14
    return stored(direct, "cells/undisturbed/labels.zarr")


@pytest.fixture
def output(
    proxy: FaultProxy,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[str]:
    """Where a label is to go; faults end with the test."""
    monkeypatch.chdir(tmp_path)
    yield f"s3://cells/{tmp_path.name}/labels.zarr"
    proxy.order(None)


def run(output: str, *, image: str = IMAGE, **options: Any) -> SegmentResult:
    return segment(
        image, code_model(TRUTH), SMALL, output=output, cluster=exact_cluster, dashboard=False,
        **options,
    )  # fmt: skip


def stored(files: object, path: str) -> dict[str, bytes]:
    """Every object under a path, by its place."""
    names = files.find(path)
    return {name.partition("labels.zarr")[2]: files.cat_file(name) for name in names}


def same(files: object, output: str, expected: dict[str, bytes]) -> bool:
    return stored(files, output.removeprefix("s3://")) == expected


def ends(output: str, match: str) -> None:
    """A run ends with one line and exit code 2."""
    with pytest.raises(RemoteError, match=match) as caught:
        run(output)
    line = str(caught.value)
    assert caught.value.exit_code == 2
    assert "\n" not in line
    assert "s3://cells" in line


@pytest.mark.parametrize("fault", PASSING, ids=told)
def test_a_fault_that_passes_shows_in_no_byte(
    fault: Fault, proxy: FaultProxy, direct: object, output: str, undisturbed: dict[str, bytes]
) -> None:
    proxy.order(fault)
    run(output)
    assert len(proxy.struck) == fault.times
    assert same(direct, output, undisturbed)


def test_pauses_grow(proxy: FaultProxy, undisturbed: dict[str, bytes]) -> None:
    proxy.order(Fault("SlowDown", READS, "zarr.json", times=4))
    store = remote.place_of(IMAGE)
    assert sync(store.get("zarr.json", default_buffer_prototype())) is not None
    pauses = np.diff(proxy.struck)
    assert pauses[0] < pauses[1] < pauses[2]
    proxy.order(None)


@pytest.mark.parametrize(("fault", "match"), LASTING, ids=[told(case) for case in LASTING])
def test_a_fault_that_stays_is_one_line_and_the_same_call_goes_on_later(
    fault: Fault,
    match: str,
    proxy: FaultProxy,
    direct: object,
    output: str,
    undisturbed: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as impatient:
        impatient.setattr(remote, "PATIENCE", 1.0)
        proxy.order(fault)
        ends(output, match)
    # Requests of several chunks at once, a few tries of each: it does not ask for ever.
    assert 0 < len(proxy.struck) < 40
    proxy.order(None)
    assert state_of(output) in ("absent", "unfinished")
    with pytest.raises(StoreError):
        open_labels(output)
    result = run(output)
    # What is written comes after all blocks.
    assert result.resumed == (result.blocks if fault.verbs == WRITES else result.resumed)
    assert same(direct, output, undisturbed)


def test_renewed_credentials_are_used_in_the_same_process(
    proxy: FaultProxy,
    direct: object,
    output: str,
    undisturbed: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_SESSION_TOKEN", "old")
    proxy.order(Fault("ExpiredToken", (*READS, *WRITES), after=9, token="old"))
    ends(output, "accept the credentials.*ExpiredToken.*Renew")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "new")
    run(output)
    assert same(direct, output, undisturbed)


def test_a_worker_says_what_it_was_refused(
    proxy: FaultProxy, direct: object, output: str, undisturbed: dict[str, bytes]
) -> None:
    # The first read of the image's pixels is the driver's.
    proxy.order(Fault("ExpiredToken", READS, PIXELS, after=3))
    with pytest.raises(RemoteError, match="ExpiredToken"):
        run(output, workers=1)
    proxy.order(Fault("SlowDown", READS, PIXELS, times=2))
    run(output)
    assert same(direct, output, undisturbed)


def test_a_bucket_that_is_gone_is_not_an_image_of_zeros(
    proxy: FaultProxy, direct: object, undisturbed: dict[str, bytes]
) -> None:
    image = open_image(IMAGE)
    everything = (slice(0, 40), slice(0, 90))
    assert image.read(0, 0, None, everything).any()
    proxy.order(Fault("NoSuchBucket", READS, PIXELS))
    with pytest.raises(RemoteError, match="NoSuchBucket"):
        image.read(0, 0, None, everything)
    proxy.order(None)


def test_an_emptied_object_is_not_a_chunk_of_zeros(
    direct: object, undisturbed: dict[str, bytes]
) -> None:
    direct.copy("cells/image.ome.zarr", "cells/emptied.ome.zarr", recursive=True)
    for name in direct.find("cells/emptied.ome.zarr/0/c"):
        direct.pipe(name, b"")
    with pytest.raises(StoreError, match="empty"):
        open_image("s3://cells/emptied.ome.zarr").read(0, 0, None, (slice(0, 40), slice(0, 90)))


def test_an_image_that_is_deleted_while_it_is_read_became_zeros(direct: object) -> None:
    direct.copy("cells/image.ome.zarr", "cells/going.ome.zarr", recursive=True)
    image = open_image("s3://cells/going.ome.zarr")
    assert image.read(0, 0, None, (slice(0, 40), slice(0, 90))).any()
    direct.rm("cells/going.ome.zarr", recursive=True)
    with pytest.raises(StoreError, match="every level of an image must be"):
        image.read(0, 0, None, (slice(0, 40), slice(0, 90)))


def test_a_web_server_is_asked_again_too(
    proxy: FaultProxy, direct: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = (slice(0, 40), slice(0, 90))
    direct.chmod("cells", acl="public-read")
    for name in direct.find("cells/image.ome.zarr"):
        direct.chmod(name, acl="public-read")
    proxy.order(Fault("SlowDown", READS, times=3, after=1))
    image = open_image(f"{proxy.address}/cells/image.ome.zarr")
    np.testing.assert_array_equal(image.read(0, 0, None, everything)[0], TRUTH)
    proxy.order(Fault("cut", READS, PIXELS, times=2))
    np.testing.assert_array_equal(image.read(0, 0, None, everything)[0], TRUTH)
    monkeypatch.setattr(remote, "PATIENCE", 0.5)
    proxy.order(Fault("InternalError", READS, PIXELS))
    with pytest.raises(RemoteError, match="500"):
        image.read(0, 0, None, everything)
    proxy.order(None)


def test_a_driver_elsewhere_is_kept_out_until_it_is_told_to_take_over(
    output: str,
    direct: object,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def arrive(event: Event) -> None:
        if (event.phase, event.done) != ("blocks", 1):
            return
        with monkeypatch.context() as there:
            there.chdir(elsewhere)
            with pytest.raises(StoreError, match=r"one run at a time.*that began 20.*--overwrite"):
                run(output)
            assert not list(elsewhere.iterdir())
            run(output, overwrite=True)

    with pytest.raises(StoreError, match="an existing label is not replaced"):
        run(output, on_event=arrive)
    assert same(direct, output, undisturbed)


def test_a_label_that_was_taken_over_is_not_published_by_whom_it_was_taken_from(
    output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_early(event: Event) -> None:
        if event.phase == "blocks":
            raise KeyboardInterrupt

    def arrive(event: Event) -> None:
        # The first driver has begun to write the label; the other one never comes that far.
        if event.phase != "relabel" or event.done != 1:
            return
        with monkeypatch.context() as there:
            there.chdir(tmp_path.parent)
            with pytest.raises(Interrupted):
                run(output, overwrite=True, on_event=stop_early)

    with pytest.raises(StoreError, match=r"one run at a time.*another --output"):
        run(output, on_event=arrive)
    assert state_of(output) == "unfinished"


def test_a_refused_input_leaves_no_mark_of_its_run(output: str, direct: object) -> None:
    direct.copy("cells/image.ome.zarr", "cells/hollow.ome.zarr", recursive=True)
    for name in direct.find("cells/hollow.ome.zarr/0/c"):
        direct.pipe(name, b"")
    with pytest.raises(StoreError, match="empty"):
        run(output, image="s3://cells/hollow.ome.zarr")
    assert state_of(output) == "absent"
    assert not list(Path.cwd().iterdir())
