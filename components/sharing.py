"""One map over several machines that see one folder.

What a piece gives depends on the piece alone, so it does not matter who computes it. It is left in
the folder, whole or not at all, under the piece's number. Every machine computes first the pieces
that are its own, then whichever are missing, in an order of its own. So nobody waits for anybody's
piece: a machine that is slow, dies or never comes costs time and nothing else, and one that is
started again goes on where it was. Two may compute the same piece, near the end or where a network
file system shows a new name late; what they leave is the same.

The leader, which runs the stage, takes the results in the pieces' order as `map_ordered` gives
them. What the others cannot know it tells them (`tell`, `hear`): that is the one thing they wait for,
however long, and whoever started them ends them when the leader has ended.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from components.contract import LeaderLeft, Share, Sink
from components.errors import InfraError
from components.piece_files import Packed, read_packed, whole_file, write_packed
from components.pool import map_ordered, workers

LOOK_S = 0.2
"""How often to look for what another machine leaves."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Piece(NamedTuple, Generic[Item]):
    """An item, and the file that what it gives is in, or will be."""

    item: Item
    path: Path


class Form(NamedTuple, Generic[Result]):
    """How what a map gives lies in the folder. The functions must be picklable."""

    name: str
    """Of the map, among those of its stage."""
    pack: Callable[[Result], Packed]
    unpack: Callable[[Packed], Result]


def map_shared(
    fn: Callable[[Item], Result],
    items: Sequence[Item],
    num_workers: int,
    share: Share | None,
    form: Form[Result],
) -> Iterator[Result]:
    """`map_ordered`; with a share, together with the machines that call `assist_map`.

    `fn` and the items must be picklable. Raises what `fn` raises here, on any item: not the first in
    order.
    """
    if share is None:
        yield from map_ordered(fn, items, num_workers)
        return
    for piece in _each_kept(fn, items, num_workers, share, form):
        yield form.unpack(read_packed(piece.path))


def assist_map(
    fn: Callable[[Item], Result],
    items: Sequence[Item],
    num_workers: int,
    share: Share,
    form: Form[Result],
    sink: Sink,
) -> None:
    """Compute pieces of the leader's `map_shared` until all are there."""
    assist_with(_each_kept(fn, items, num_workers, share, form), len(items), share, sink)


def assist_with(done: Iterator[object], num_items: int, share: Share, sink: Sink) -> None:
    """Go through `each_done`. Raises LeaderLeft if the folder goes meanwhile."""
    try:
        for number, _ in enumerate(done, 1):
            sink.progress(number, num_items, "pieces")
    except (OSError, InfraError) as error:
        if share.folder.is_dir():
            raise
        raise LeaderLeft from error


def each_done(
    fn: Callable[[Item], object],
    items: Sequence[Item],
    is_done: Callable[[Item], bool],
    num_workers: int,
    share: Share,
) -> Iterator[Item]:
    """Yield each item, in order, once it is done here or elsewhere; meanwhile do what is not.

    `fn` does an item and leaves what it gives where `is_done` finds it.
    """
    numbers = order(len(items), share)
    todo = (items[number] for number in numbers if not is_done(items[number]))
    at_once = num_workers + (num_workers > 1)  # one lies ready for whoever is free first
    with workers(num_workers) as pool:
        running: set[Future[object]] = set()
        try:
            for item in items:
                while True:
                    running = _unfinished(running)
                    begun = islice(todo, at_once - len(running))
                    running |= {pool.submit(fn, each) for each in begun}
                    if is_done(item):
                        break
                    if not running:  # every item was done at some time
                        raise InfraError(
                            "a finished piece is gone", "another process cleaned up: run it again"
                        )
                    wait(running, LOOK_S, FIRST_COMPLETED)
                yield item
        finally:
            for future in running:
                future.cancel()


def order(num_items: int, share: Share) -> list[int]:
    """All numbers below `num_items`: a machine's own, then the others' shuffled.

    Shuffled, for two machines that took over a third's in the same order would compute each of them
    twice, side by side.
    """
    others = [number for number in range(num_items) if number % share.num != share.index]
    random.Random(share.index).shuffle(others)
    return [*range(share.index, num_items, share.num), *others]


def tell(share: Share | None, name: str, word: bytes) -> None:
    """Leave a word of the leader for the others, if there are any."""
    if share is not None:
        with whole_file(share.folder / name, replace=True) as file:
            file.write(word)


def hear(share: Share, name: str) -> Path:
    """The file with the leader's word; waits for it. Raises LeaderLeft if the folder goes."""
    word = share.folder / name
    while not word.exists():
        if not share.folder.is_dir():
            raise LeaderLeft
        time.sleep(LOOK_S)
    return word


def await_leader(share: Share) -> None:
    """Wait until the leader has made the folder."""
    while not share.folder.is_dir():
        time.sleep(LOOK_S)


def _each_kept(
    fn: Callable[[Item], Result],
    items: Sequence[Item],
    num_workers: int,
    share: Share,
    form: Form[Result],
) -> Iterator[Piece[Item]]:
    pieces = [
        Piece(item, share.folder / f"{form.name}-{number:08d}.arrows")
        for number, item in enumerate(items)
    ]
    return each_done(partial(_keep, fn, form.pack), pieces, _is_kept, num_workers, share)


def _keep(
    fn: Callable[[Item], Result], pack: Callable[[Result], Packed], piece: Piece[Item]
) -> None:
    if not _is_kept(piece):
        write_packed(piece.path, pack(fn(piece.item)))


def _is_kept(piece: Piece[Item]) -> bool:
    return piece.path.exists()


def _unfinished(futures: set[Future[object]]) -> set[Future[object]]:
    """Those that still run; raises what any other raised."""
    finished = {future for future in futures if future.done()}
    for future in finished:
        future.result()
    return futures - finished
