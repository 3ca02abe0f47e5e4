"""Ctrl-C as a question, answered between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interruptible(accelerator: Any = None) -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C interrupts nothing: the function that is yielded returns True from then on.

    A second one raises KeyboardInterrupt as usual. In a thread other than the main one nothing is changed: signals
    do not arrive there. With an `accelerate.Accelerator` all its processes get the same answer, whichever was
    asked; each must then call the function as often as the others.
    """
    asked = threading.Event()

    def answer() -> bool:
        if accelerator is None or accelerator.num_processes == 1:
            return asked.is_set()
        if asked.is_set():
            accelerator.set_trigger()
        return bool(accelerator.check_trigger())

    if threading.current_thread() is not threading.main_thread():
        yield answer
        return
    before = signal.getsignal(signal.SIGINT) or signal.SIG_DFL

    def ask(number: int, frame: Any) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield answer
    finally:
        signal.signal(signal.SIGINT, before)
