"""What a crew is handed: items, and what is to be done with them. Knows no thread and no store."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done with items, and how.

    Args:
        call: the work; takes the item.
        done: told, once for each item, what `call` returned or raised, in the thread that worked or in the watch's. Must not
            raise.
        timeout: seconds from an item's beginning; `None` lets it take as long as it likes, and its thread with it.
        late: given the item and the seconds, makes what `done` is told in place of an answer in time.
        group: items of one group begin in order.
        keys: under which they count for the limits.
        first: their group is next in turn.
        label: names an item in a warning.
    """

    call: Callable[[Any], Any]
    done: Callable[[Any, Any, BaseException | None], None]
    timeout: float | None = None
    late: Callable[[Any, float], Any] | None = None
    group: Any = None
    keys: tuple[str, ...] = ()
    first: bool = False
    label: Callable[[Any], str] = str


class Task:
    """One item in the crew's hands. Ends once: by its own thread, by the watch, or by being taken back."""

    __slots__ = ("began", "deadline", "ended", "item", "order", "thread")

    def __init__(self, item: Any, order: Order) -> None:
        self.item = item
        self.order = order
        self.began = False
        self.ended = False
        self.deadline = inf
        self.thread: threading.Thread | None = None
