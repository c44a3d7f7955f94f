"""Room for images that are decoded ahead: turns, bounds, and an end without waiting."""

from __future__ import annotations

import threading
import time
from functools import partial

from processes import wait_for

from ml_backend.images.room import Room


def entering(room: Room, turn: int, size: int, entered: list[int]) -> threading.Thread:
    def enter() -> None:
        room.enter(turn, size)
        entered.append(turn)

    thread = threading.Thread(target=enter, daemon=True)
    thread.start()
    return thread


def has(entered: list[int], count: int) -> bool:
    return len(entered) == count


def test_turns_are_granted_in_order_and_together_no_more_than_the_room() -> None:
    room, entered = Room(100), list[int]()
    threads = [entering(room, turn, 40, entered) for turn in (3, 2, 1, 0)]
    wait_for(lambda: len(entered) == 2)
    time.sleep(0.1)
    assert sorted(entered) == [0, 1]
    for count in (3, 4):
        room.leave(40)
        wait_for(partial(has, entered, count))
        assert entered[-1] == count - 1
    for thread in threads:
        thread.join(10)


def test_what_is_larger_than_the_room_enters_alone() -> None:
    room, entered = Room(100), list[int]()
    entering(room, 0, 10, entered)
    entering(room, 1, 500, entered)
    wait_for(lambda: entered == [0])
    time.sleep(0.1)
    assert entered == [0]
    room.leave(10)
    wait_for(lambda: entered == [0, 1])


def test_a_closed_room_lets_everybody_in() -> None:
    room, entered = Room(100), list[int]()
    threads = [entering(room, turn, 90, entered) for turn in (0, 1, 2)]
    wait_for(lambda: entered == [0])
    room.close()
    for thread in threads:
        thread.join(10)
    assert sorted(entered) == [0, 1, 2]
