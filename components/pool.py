"""Work over many processes, results in order.

The order and the content of the results never depend on the number of workers.
"""

import multiprocessing
import os
import select
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from components.errors import InfraError

Item = TypeVar("Item")
Result = TypeVar("Result")


_firsts: list[Callable[[], None]] = []


def in_each_worker(first: Callable[[], None]) -> None:
    """Have every worker that this process starts from now on call `first`, a module-level function."""
    _firsts.append(first)


def _begin_worker(main_pid: int, firsts: Sequence[Callable[[], None]]) -> None:
    """What each worker does first.

    One process a core already: a library that starts its own threads would only get in the way.
    And a worker ends with the process it works for, even one that was killed.
    """
    for first in firsts:
        first()
    threading.Thread(target=_end_with, args=(main_pid,), daemon=True).start()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[name] = "1"


def _end_with(main_pid: int) -> None:
    try:
        select.select([os.pidfd_open(main_pid)], [], [])
    except ProcessLookupError:
        pass
    except (AttributeError, OSError):  # no Linux, or one that has no such descriptors
        return
    os._exit(1)


class InThisProcess(Executor):
    """Does what is submitted at once; what it raises comes out of `submit`."""

    def submit(
        self, fn: Callable[..., Result], /, *args: object, **kwargs: object
    ) -> Future[Result]:
        future: Future[Result] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextmanager
def workers(num_workers: int) -> Iterator[Executor]:
    """Processes to submit work to; one worker is this process.

    A worker that vanishes (killed, out of memory) raises InfraError in the body.
    """
    if num_workers <= 1:
        yield InThisProcess()
        return
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(
        num_workers, mp_context=context, initializer=_begin_worker, initargs=(os.getpid(), _firsts)
    ) as pool:
        try:
            yield pool
        except BrokenProcessPool as error:
            raise InfraError(
                "a worker process vanished",
                "often the kernel ended it for memory: see `dmesg`, or set HEADRACE_NUM_WORKERS lower",
            ) from error


def map_ordered(
    fn: Callable[[Item], Result], items: Iterable[Item], num_workers: int
) -> Iterator[Result]:
    """Yield `fn(item)` for each item, in the items' order.

    `fn` and the items must be picklable (a module-level function, or `functools.partial` of one).
    At most two items a worker are in flight, so memory stays flat however many items there are.
    One worker runs in this process. An exception of `fn` comes out here; a worker that vanishes
    (killed, out of memory) raises InfraError.
    """
    if num_workers <= 1:
        yield from map(fn, items)
        return
    in_flight: deque[Future[Result]] = deque()
    with workers(num_workers) as pool:
        try:
            for item in items:
                in_flight.append(pool.submit(fn, item))
                if len(in_flight) >= 2 * num_workers:
                    yield in_flight.popleft().result()
            while in_flight:
                yield in_flight.popleft().result()
        finally:
            for future in in_flight:
                future.cancel()
