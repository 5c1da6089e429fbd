"""One run: plan, blocks, faces, relabel, pyramid, publish.

::

    image --blocks--> local ids + slabs --faces--> matches --number--> table
                           |                                            |
                           +------------- relabel ----------------------+--> level 0
                                                                  pyramid --> level 1, 2, ...
                                                                  publish --> visible
"""

from __future__ import annotations

import os
import shutil
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from spoco_zoo import ngff
from spoco_zoo.config import SegmentConfig
from spoco_zoo.errors import (
    ConfigError,
    InputError,
    Interrupted,
    LedgerError,
    RemoteError,
    SpocoError,
    StoreError,
    is_denied,
    is_full,
    one_line,
)
from spoco_zoo.locking import alone_in
from spoco_zoo.nets.device import find_device, has_bfloat16
from spoco_zoo.nets.model import Model
from spoco_zoo.segment.cluster import check_momentum
from spoco_zoo.segment.cluster import cluster as own_cluster
from spoco_zoo.segment.execute import InProcess, make_executor, refuse_in_worker
from spoco_zoo.segment.ledger import (
    PROGRESS,
    REPORT,
    Ledger,
    began_overwriting,
    began_with,
    has_blocks,
    is_unfinished,
    was_published,
)
from spoco_zoo.segment.network.models import ModelRef, read_model, remember_model, write_model
from spoco_zoo.segment.outcome import Event, SegmentResult, clear_folder
from spoco_zoo.segment.output.target import TiffTarget, default_output, run_folder
from spoco_zoo.segment.phases import STAGED, Run
from spoco_zoo.segment.plan import Plan, make_plan
from spoco_zoo.segment.scale.settle import settle
from spoco_zoo.segment.standing import WRITABLE, name_of, with_precision
from spoco_zoo.segment.workers.failures import no_room
from spoco_zoo.segment.workers.machines import check_machines, remark_memory
from spoco_zoo.stopping import STOP, catch_interrupt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from spoco_zoo.locking import RunLock
    from spoco_zoo.nets.model import Clusterer
    from spoco_zoo.segment.execute import Executor

__all__ = ["dry_run", "segment"]

SLOW = "bfloat16 is not in this processor's hardware: --precision float32 would be faster"
STOPPING = "stopping after the blocks in flight; Ctrl-C again stops at once"
MODEL = "model.pickle"


def dry_run(
    source: str | Path,
    model: str | Path | Model | ModelRef,
    config: SegmentConfig | None = None,
    *,
    output: str | Path | None = None,
    label_name: str = "spoco",
    version: str | None = None,
    overwrite: bool = False,
) -> Plan:
    """What `segment` would do with the same arguments; writes nothing.

    Reads metadata, and a part of the pixels where colours must be told apart, or the light or
    the size of objects is to be found out (`spoco_zoo.segment.scale`).

    Returns
    -------
    Plan

    Raises
    ------
    InputError
        As `segment`.
    """
    config = config or SegmentConfig()
    image, loaded = ngff.open_image(source), read_model(model, config.clustering)
    if output is None:
        output = default_output(image, label_name)
    folder = run_folder(image, output, label_name)
    if image.is_label or (image.kind == "tiff" and ngff.is_label_tiff(image.uri)):
        raise _label_error(image)
    decide = partial(
        make_plan,
        image,
        loaded.recipe,
        output=output,
        label_name=label_name,
        version=version,
        overwrite=overwrite or was_published(folder),
    )
    # What is wrong is said before anything is looked at.
    check_momentum(decide(config).clustering, loaded.momentum)

    def earlier(name: str) -> str | None:
        return None if overwrite else began_with(folder, f"config.{name}")

    return decide(**settle(image, loaded, config, earlier)._asdict())


def _label_error(image: ngff.Image) -> ConfigError:
    """What to raise where numbers of objects are given in place of intensities."""
    owner = ngff.labelled_image(image)
    return ConfigError(
        "values must be intensities",
        f"labels of {owner.uri if owner else 'an image'} in {image.uri}",
        f"Segment {owner.uri if owner else 'the image that they belong to'}.",
    )


def segment(
    source: str | Path,
    model: str | Path | Model | ModelRef,
    config: SegmentConfig | None = None,
    *,
    output: str | Path | None = None,
    label_name: str = "spoco",
    workers: int = 0,
    scheduler: str | None = None,
    gpus: Sequence[str | int] = (),
    version: str | None = None,
    overwrite: bool = False,
    device: str = "auto",
    cluster: Clusterer | None = None,
    dashboard: bool = True,
    on_event: Callable[[Event], None] | None = None,
) -> SegmentResult:
    """One consistent label image from an image of any size.

    Parameters
    ----------
    source : str or path
        OME-Zarr (0.4, 0.5; local or remote) or TIFF.
    model : str, path, Model or ModelRef
        A bundle, a run, the id of a model, or a loaded model; or both, which spares several runs
        of one process to load it anew.
    config : SegmentConfig, optional
    output : str or path, optional
        A new OME-Zarr store, or a ``.tif``; by default the label goes into the
        source, and for a TIFF into a new file beside it.
    label_name : str
    workers, scheduler, gpus, dashboard
        See `spoco_zoo.segment.execute.make_executor`.
    version : {"0.4", "0.5"}, optional
        Of a new store.
    overwrite : bool
        Replace a label, and start an unfinished run again; one that began so itself is gone on
        with if it can be.
    device : {"auto", "cpu", "cuda", "cuda:I"}
    cluster : callable, optional
        Used instead of the package's own clustering; must be importable by the
        workers. To be gone on with in another process it must be a function, or a
        `functools.partial` of one.
    on_event : callable, optional
        Told after every item.

    Returns
    -------
    SegmentResult

    Raises
    ------
    InputError
        If input, model or settings cannot be used. Nothing has been written, unless a store
        fails or a staged file is damaged under way.
    BlocksFailed
        If the run is complete but for some blocks. Called again, it tries them
        again.
    Interrupted
        On Ctrl-C, SIGTERM or SIGHUP, after the blocks in flight. Called again, it goes on.
    """
    refuse_in_worker()
    check_machines(workers, gpus, scheduler, device)
    config = config or SegmentConfig()
    loaded = read_model(model, config.clustering)
    decide = partial(
        dry_run,
        source,
        loaded,
        config,
        output=output,
        label_name=label_name,
        version=version,
        overwrite=overwrite,
    )
    plan = decide()
    told = on_event or (lambda event: None)
    memory = remark_memory(min(workers or len(gpus), plan.grid.total), plan.worker_bytes)
    for note in (*plan.notes, *([memory] if memory else [])):
        told(Event("plan", 1, 1, note))
    asked_low = config.precision == "bfloat16" and scheduler is None
    if asked_low and not has_bfloat16(find_device(device)):
        told(Event("plan", 1, 1, SLOW))
    with (
        _one_line(),
        alone_in(plan.folder) as lock,
        # Before anything is removed or written, because it may be refused.
        closing(
            make_executor(workers, gpus=gpus, scheduler=scheduler, dashboard=dashboard)
        ) as executor,
    ):
        goes_on = overwrite and began_overwriting(plan.folder)
        if overwrite and not goes_on:
            clear_folder(plan.folder)
        elif (plan.folder / REPORT).exists() and not is_unfinished(plan.folder):
            plan = decide()  # a run that ended here may have done so since this one was planned
        plan = with_precision(plan, device)
        clusterer = own_cluster if cluster is None else cluster
        carry_out = partial(
            _carry_out, plan, model, loaded, clusterer, executor, device, lock, told, overwrite
        )
        try:
            return carry_out()
        except (LedgerError, StoreError) as error:
            if not (goes_on and "--overwrite" in error.remedy):
                raise
            told(Event("plan", 1, 1, f"Begun again: {error.rule}; found {error.found}."))
        clear_folder(plan.folder)
        return carry_out()


def _carry_out(
    plan: Plan,
    model: str | Path | Model | ModelRef,
    loaded: Model,
    cluster: Clusterer,
    executor: Executor,
    device: str,
    lock: RunLock,
    told: Callable[[Event], None],
    overwrite: bool,
) -> SegmentResult:
    """Do what is planned, or go on with it, in a run folder that is held."""
    fingerprint = plan.fingerprint(loaded.fingerprint, name_of(cluster))
    with (
        _begun_in_vain(plan.folder),
        Ledger(plan.folder, fingerprint, lock.check, overwrites=overwrite) as ledger,
        _claimed(plan, ledger.run) as plan,
        catch_interrupt(lambda: told(Event("stop", 1, 1, STOPPING)), plan.folder / STOP) as stop,
    ):
        executor.stop = stop
        executor.tell = lambda text: told(Event("workers", 1, 1, text))
        try:
            run = Run(plan, ledger, executor, told)
            return run.all(_share(model, loaded, plan, executor), cluster, device)
        except (KeyboardInterrupt, Interrupted):
            raise Interrupted(
                f"stopped; the same command goes on with what is in {plan.folder}"
            ) from None


@contextmanager
def _begun_in_vain(folder: Path) -> Iterator[None]:
    """Take back what a run has written that never came to a block, as its input is refused."""
    fresh = not is_unfinished(folder)
    try:
        yield
    except RemoteError:
        raise  # the input may be good: the same command goes on
    except InputError:
        if fresh and is_unfinished(folder) and not has_blocks(folder):
            (folder / PROGRESS).unlink()
            (folder / MODEL).unlink(missing_ok=True)
            shutil.rmtree(folder / STAGED, ignore_errors=True)
        raise


@contextmanager
def _claimed(plan: Plan, run: str) -> Iterator[Plan]:
    """The plan with a label that is marked as the run's own; unmarked if its input is refused."""
    if isinstance(plan.target, TiffTarget):
        yield plan
        return
    target = replace(plan.target, run=run)
    ngff.claim_label(target)
    try:
        yield replace(plan, target=target)
    except RemoteError:
        raise
    except InputError:
        with suppress(SpocoError):
            if not has_blocks(plan.folder) and ngff.is_claimed(target):
                ngff.remove_label(target)
        raise


@contextmanager
def _one_line() -> Iterator[None]:
    """Say in one line why the driver's own files could not be read or written."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise no_room(error) from error
        if is_denied(error) or isinstance(error, NotADirectoryError):
            raise StoreError(WRITABLE, str(error), "Choose another with --output.") from error
        reason = one_line(error)
        raise SpocoError(f"a file of the run could not be used: {reason}") from error


def _share(
    model: str | Path | Model | ModelRef, loaded: Model, plan: Plan, executor: Executor
) -> ModelRef:
    """How tasks get the model; one that exists in memory only is written for the workers."""
    remember_model(loaded)
    if not isinstance(model, Model):
        # Absolute where it is a path, because workers may run in another directory.
        from spoco_zoo.bundle.load import is_shipped

        name = str(model.source if isinstance(model, ModelRef) else model)
        where = name if is_shipped(name) else os.path.abspath(name)
        return ModelRef(where, loaded.fingerprint, missing=loaded.recipe.clustering)
    if isinstance(executor, InProcess):
        return ModelRef("", loaded.fingerprint, model=loaded)
    return write_model(loaded, plan.folder / MODEL)
