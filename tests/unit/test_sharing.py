"""One map over several machines: who computes what never shows in the results."""

import os
import shutil
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.contract import ON_MANY_MACHINES, STAGES, LeaderLeft, Share
from components.errors import DataError, InfraError
from components.metrics import QuietSink
from components.piece_files import Packed, write_packed
from components.sharing import (
    Form,
    assist_map,
    assist_with,
    await_leader,
    each_done,
    hear,
    map_shared,
    order,
    tell,
)

ROOT = Path(__file__).resolve().parents[2]


def pack(value: int) -> Packed:
    return Packed([], value)


def unpack(packed: Packed) -> int:
    value: int = packed.figures
    return value


NUMBERS = Form("numbers", pack, unpack)


def square(number: int) -> int:
    return number * number


def noted(made: list[int], number: int) -> int:
    made.append(number)
    return number * number


def squares(count: int, share: Share, fn: Callable[[int], int] = square) -> list[int]:
    return list(map_shared(fn, range(count), 1, share, NUMBERS))


@given(count=st.integers(0, 30), num=st.integers(1, 5), data=st.data())
def test_whatever_others_do_and_when_each_item_comes_once_in_order_and_is_done_here_once_at_most(
    count: int, num: int, data: st.DataObject
) -> None:
    numbers = st.integers(0, max(0, count - 1))
    there = data.draw(st.sets(numbers))
    arrivals = iter(data.draw(st.lists(st.none() | numbers)))
    index = data.draw(st.integers(0, num - 1))
    done, made = set(there), []

    def do(number: int) -> None:
        made.append(number)
        done.add(number)

    def is_done(number: int) -> bool:
        arrived = next(arrivals, None)  # another machine may finish one at any moment
        if arrived is not None:
            done.add(arrived)
        return number in done

    found = []
    for number in each_done(do, range(count), is_done, 1, Share(index, num, Path())):
        assert number in done
        found.append(number)
    assert found == list(range(count))
    assert len(made) == len(set(made))
    assert not there & set(made)
    assert done >= set(range(count))


@pytest.mark.parametrize("there", [(), (0,), (1, 2, 5), range(7)])
def test_pieces_that_are_there_are_read_and_not_made_again(
    tmp_path: Path, there: Sequence[int]
) -> None:
    made: list[int] = []
    for number in there:
        write_packed(tmp_path / f"numbers-{number:08d}.arrows", pack(square(number)))
    assert squares(7, Share(0, 3, tmp_path), partial(noted, made)) == [0, 1, 4, 9, 16, 25, 36]
    assert sorted(made) == sorted(set(range(7)) - set(there))


@given(count=st.integers(0, 60), num=st.integers(1, 6))
def test_every_machine_does_its_own_pieces_first_and_all_in_the_end(count: int, num: int) -> None:
    own = []
    for index in range(num):
        numbers = order(count, Share(index, num, Path()))
        assert sorted(numbers) == list(range(count))
        mine = [number for number in range(count) if number % num == index]
        assert numbers[: len(mine)] == mine
        own += mine
    assert sorted(own) == list(range(count))


def test_two_that_take_over_a_third_ones_pieces_begin_at_different_ones() -> None:
    starts = {tuple(order(90, Share(index, 3, Path()))[30:40]) for index in range(3)}
    assert len(starts) == 3


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_machine_goes_on_with_what_is_missing_while_the_results_are_read(
    tmp_path: Path, num_workers: int
) -> None:
    """The leader never waits idle: after its own pieces it computes those of who never came."""
    share = Share(0, 3, tmp_path)
    results = map_shared(square, range(7), num_workers, share, NUMBERS)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert len(list(tmp_path.glob("*.arrows"))) >= 5  # 0, 3, 6 and the two that were missing
    assert list(results) == [9, 16, 25, 36]


def test_what_another_machine_computes_meanwhile_is_taken(tmp_path: Path) -> None:
    made: list[int] = []
    here, elsewhere = Share(0, 2, tmp_path), Share(1, 2, tmp_path)
    results = map_shared(partial(noted, made), range(20), 1, here, NUMBERS)
    assert next(results) == 0
    assist_map(square, range(20), 1, elsewhere, NUMBERS, QuietSink())
    assert list(results) == [square(number) for number in range(1, 20)]
    assert made == [0]
    other = Form("others", pack, unpack)
    assert list(map_shared(str, range(2), 1, here, other)) == ["0", "1"]
    assert not list(tmp_path.glob(".*"))


def test_a_leader_that_is_through_ends_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "share"
    folder.mkdir()

    def leave(number: int) -> int:
        shutil.rmtree(folder, ignore_errors=True)
        return number

    share = Share(1, 2, folder)
    with pytest.raises(LeaderLeft):
        assist_map(leave, range(9), 1, share, NUMBERS, QuietSink())
    with pytest.raises(LeaderLeft):
        hear(share, "word")
    assert not folder.exists()


def test_a_piece_that_is_gone_while_the_leader_reads_is_an_error(tmp_path: Path) -> None:
    share = Share(0, 1, tmp_path)
    done = each_done(lambda number: None, [0], lambda number: False, 1, share)
    with pytest.raises(InfraError, match="a finished piece is gone"):
        next(done)
    with pytest.raises(InfraError, match="a finished piece is gone"):
        assist_with(
            each_done(lambda number: None, [0], lambda number: False, 1, share),
            1, share, QuietSink(),
        )  # fmt: skip


def test_what_a_piece_raises_comes_out(tmp_path: Path) -> None:
    def refuse(number: int) -> int:
        raise DataError(f"piece {number} is bad")

    for share in (Share(0, 2, tmp_path), Share(1, 2, tmp_path)):
        with pytest.raises(DataError, match=f"piece {share.index} is bad"):
            squares(4, share, refuse)
    assert list(tmp_path.iterdir()) == []


def test_without_a_share_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tell(None, "word", b"{}")
    assert list(map_shared(square, range(5), 1, None, NUMBERS)) == [0, 1, 4, 9, 16]
    assert list(tmp_path.iterdir()) == []


def test_who_assists_waits_for_the_leaders_word(tmp_path: Path) -> None:
    share = Share(1, 2, tmp_path / "share")
    leader = Share(0, 2, share.folder)
    steps = [
        threading.Timer(0.2, share.folder.mkdir),
        threading.Timer(0.6, tell, (leader, "word", b"first")),
    ]
    for step in steps:
        step.start()
    await_leader(share)
    assert hear(share, "word").read_bytes() == b"first"
    for step in steps:
        step.join()
    tell(leader, "word", b"second")  # a leader that was started again
    assert hear(share, "word").read_bytes() == b"second"
    assert os.listdir(share.folder) == ["word"]


@pytest.mark.parametrize("stage", STAGES)
def test_the_stages_that_can_be_assisted_are_those_listed(stage: str) -> None:
    source = (ROOT / "components" / stage / "stage.py").read_text()
    assert ("\ndef assist(" in source) == (stage in ON_MANY_MACHINES)
