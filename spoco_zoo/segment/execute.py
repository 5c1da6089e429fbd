"""Where tasks run: in this process, in local worker processes, on a dask cluster.

A task is a function of one item that writes its own output and returns a few
numbers. Items are handed out in a sliding window, two for each worker, so that
no scheduler ever holds a graph of the volume and a worker always has its next
item. Results come back in any order.
"""

from __future__ import annotations

import math
import multiprocessing
import time
from contextlib import ExitStack
from itertools import count, islice
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from spoco_zoo.errors import ConfigError, Interrupted, SpocoError, lacks_room
from spoco_zoo.segment.workers.clusters import connect, start_cluster
from spoco_zoo.segment.workers.failures import ends_run, no_room, reason_of
from spoco_zoo.segment.workers.machines import check_workers
from spoco_zoo.stopping import Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from distributed import Client

__all__ = [
    "DaskExecutor",
    "Executor",
    "InProcess",
    "make_executor",
    "refuse_in_worker",
]

Item = TypeVar("Item")
Result = TypeVar("Result")

FEW = 8
"""Workers that a running scheduler is taken to have at least: they may be on their way."""
AHEAD = 2
"""Items per worker in flight: one at work, one waiting."""
FORGETFUL = 1000
"""Items after which a local cluster drops what it remembers of each."""
NEVER = Stop()
"""For whoever runs tasks without an eye on Ctrl-C; a run puts its own in its place."""
LOOK = 10.0
"""Seconds after which a driver that waits looks whether any worker is left."""
NOBODY = (
    "No worker is connected to the scheduler: the run waits for one. If none is on its way, see "
    "what became of them in the logs of their jobs."
)


def _tell_nobody(text: str) -> None:
    """For whoever runs tasks without a display."""


class Executor(Protocol):
    """Runs one task over many items, until `stop` is asked for; then it raises `Interrupted`."""

    stop: Stop
    tell: Callable[[str], None]
    """Is given what whoever waits for the run should know."""

    @property
    def workers(self) -> int:
        """How many items may be at work at once, now or later in the run."""

    def run(
        self,
        task: Callable[[Item], Result],
        items: Iterable[Item],
        on_result: Callable[[Item, Result], None],
        on_failure: Callable[[Item, str], None],
    ) -> None:
        """Call `task` on every item; report each result, or why there is none, as it comes."""

    def close(self) -> None:
        """Free the workers."""


class InProcess:
    """Runs tasks one after the other in this process."""

    stop = NEVER
    tell: Callable[[str], None] = staticmethod(_tell_nobody)
    workers = 1

    def run(
        self,
        task: Callable[[Item], Result],
        items: Iterable[Item],
        on_result: Callable[[Item, Result], None],
        on_failure: Callable[[Item, str], None],
    ) -> None:
        """See `Executor.run`."""
        for item in self.stop.until(items):
            outcome: Result | Exception
            try:
                outcome = task(item)
            except Exception as error:  # one bad block must not cost the others
                outcome = error
            _report(item, outcome, on_result, on_failure)
        self.stop.check()

    def close(self) -> None:
        """Nothing to free."""


class DaskExecutor:
    """Runs tasks on the workers of a dask cluster, which may come, die and go.

    Parameters
    ----------
    client : distributed.Client
    owned : sequence
        The cluster, if it was started here.
    started : ExitStack, optional
        What to leave after the client: the cluster, and dask's settings for it.
    """

    stop = NEVER
    tell: Callable[[str], None] = staticmethod(_tell_nobody)

    def __init__(
        self, client: Client, owned: Sequence[Any] = (), started: ExitStack | None = None
    ) -> None:
        self._client, self._owned = client, owned
        self._started = started or ExitStack()
        self._workers, self._counted, self._alone = 0, -math.inf, False

    @property
    def workers(self) -> int:
        """See `Executor.workers`."""
        return self._present() if self._owned else max(self._present(), FEW)

    def run(
        self,
        task: Callable[[Item], Result],
        items: Iterable[Item],
        on_result: Callable[[Item, Result], None],
        on_failure: Callable[[Item, str], None],
    ) -> None:
        """See `Executor.run`."""
        from distributed import KilledWorker

        suspects: list[Item] = []
        for item, outcome in self._windowed(task, self.stop.until(items)):
            if isinstance(outcome, KilledWorker):
                suspects.append(item)
            else:
                _report(item, outcome, on_result, on_failure)
        # A dying worker takes the blame of all items it held: each is tried again by itself.
        for suspect in self.stop.until(suspects):
            for item, outcome in self._windowed(task, [suspect]):
                if isinstance(outcome, KilledWorker):
                    on_failure(item, "its worker died every time, perhaps for want of memory")
                else:
                    _report(item, outcome, on_result, on_failure)
        self.stop.check()

    def _windowed(
        self, task: Callable[[Item], Result], items: Iterable[Item]
    ) -> Iterator[tuple[Item, Result | Exception]]:
        """Each item with its result or what was raised, never more than a window in flight."""
        from distributed import as_completed

        waiting = iter(items)
        ours: dict[Any, Item] = {}
        finished = as_completed()  # type: ignore[no-untyped-call]

        def submit() -> None:
            for item in islice(waiting, max(self._window() - len(ours), 0)):
                future = self._client.submit(task, item, pure=False)
                ours[future] = item
                finished.add(future)  # type: ignore[no-untyped-call]

        submit()
        for number in count(1):
            if not ours:
                return
            future = self._next(finished)
            item = ours.pop(future)
            outcome: Result | Exception
            try:
                # A future's status may be "lost" here; its result comes all the same.
                outcome = future.result()
            except Exception as error:
                self._check_connected(error)
                outcome = error
            future.release()
            if number % FORGETFUL == 0:
                _forget_items(self._owned)
            yield item, outcome
            submit()

    def close(self) -> None:
        """Close the client, and the cluster if it was started here."""
        self._client.close()  # type: ignore[no-untyped-call]
        self._started.close()
        _forget_closed()

    def _next(self, finished: Any) -> Any:
        """The future that is finished next."""
        while not finished.has_ready():
            self._watch()
            with finished.thread_condition:
                finished.thread_condition.wait(0.1)  # as `next` does
        return next(finished)

    def _watch(self) -> None:
        """Tell if all workers of somebody else are gone, and wait for none if the run is to end."""
        waited = time.monotonic() - self._counted
        if self._owned or waited < 1 or (waited < LOOK and not self.stop.asked):
            return
        self._count()
        alone, before = self._workers == 0, self._alone
        self._alone = alone
        if alone and self.stop.asked:
            raise Interrupted("stopped; no worker was left to finish what was in flight")
        if alone and not before:
            self.tell(NOBODY)

    def _window(self) -> int:
        return AHEAD * self._present()

    def _present(self) -> int:
        """Number of workers, at least one, asked for once a second: the answer grows with it."""
        if time.monotonic() - self._counted >= 1:
            self._count()
        return max(self._workers, 1)

    def _count(self) -> None:
        self._counted = time.monotonic()
        if self._client.status != "running":  # of which the results in flight tell, without a wait
            return
        info = self._client.scheduler_info(n_workers=0)
        self._counted = time.monotonic()
        if "workers" not in info:  # the scheduler is just gone
            return
        # Before dask 2025.4 all workers are named and not counted; later as few as were asked for
        # by whoever asked last, which is often the client itself, for none.
        self._workers = info.get("n_workers", len(info["workers"]))
        self._alone = self._alone and not self._workers

    def _check_connected(self, error: Exception) -> None:
        if self._client.status != "running":
            if self.stop.asked:  # what ended this run may have ended its scheduler, too
                raise Interrupted("stopped; the dask scheduler is gone") from error
            raise SpocoError(
                f"the dask scheduler is gone: {reason_of(error)}. Start it again; blocks are kept."
            ) from error


def make_executor(
    workers: int = 0,
    *,
    gpus: Sequence[str | int] = (),
    scheduler: str | None = None,
    dashboard: bool = True,
) -> Executor:
    """The executor for what the user asked.

    Parameters
    ----------
    workers : int
        Local worker processes, each with its share of the CPUs; 0 = this process.
    gpus : sequence of str or int
        One worker process per entry, which sees that CUDA device alone.
    scheduler : str, optional
        Address of a running dask scheduler, or its scheduler file.
    dashboard : bool
        Whether a local cluster serves its dashboard, on a free port.

    Raises
    ------
    ConfigError
        If the scheduler does not answer, or two kinds of workers were asked for.
    """
    check_workers(workers, gpus, scheduler)
    if scheduler is not None:
        return DaskExecutor(connect(scheduler))
    if workers == 0 and len(gpus) == 0:
        return InProcess()
    with ExitStack() as started:
        client, cluster = start_cluster(workers or len(gpus), gpus, dashboard, started)
        return DaskExecutor(client, [cluster], started.pop_all())


def refuse_in_worker() -> None:
    """Refuse to go on in a worker that is only just importing the script that started it.

    Raises
    ------
    ConfigError
        If this process is such a worker.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ConfigError(
            'a script must start workers below `if __name__ == "__main__":`',
            "a call that every worker repeats when it imports the script",
            "Move the call into a function that this block calls, or leave workers out.",
        )


def _forget_closed() -> None:
    """Drop a cache of distributed's without a bound, which holds every server that ever was."""
    from distributed import core

    clear = getattr(getattr(core, "_expects_comm", None), "cache_clear", None)
    if clear is not None:
        clear()


def _forget_items(clusters: Sequence[Any]) -> None:
    """Drop the name that dask keeps of every item, and the note that it was one."""
    from dask.utils import key_split

    clear = getattr(key_split, "cache_clear", None)
    if clear is not None:
        clear()
    for cluster in clusters:
        spans = getattr(cluster.scheduler.extensions.get("spans"), "spans", {})
        for span in list(spans.values()):
            # Emptied and not replaced: the scheduler, in its own thread, may just be adding.
            (span.metadata or {}).get("collections", []).clear()


def _report(
    item: Item,
    outcome: Result | Exception,
    on_result: Callable[[Item, Result], None],
    on_failure: Callable[[Item, str], None],
) -> None:
    """Hand on a result or a failure, or end the run if every other item would fail too."""
    try:
        if not isinstance(outcome, Exception):
            on_result(item, outcome)
            return
        if ends_run(outcome):
            raise outcome
    except SpocoError:
        raise
    except Exception as error:
        if not lacks_room(error):
            raise
        raise no_room(error) from error
    on_failure(item, reason_of(outcome))
