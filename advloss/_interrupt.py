"""Ctrl-C and SIGTERM as a question, answered between two steps."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LET_GO = 0.3
"""Seconds at the end of a training of several processes."""


class Interrupt:
    """Called between two steps, it says whether to stop: the same in all processes, whichever was signalled.

    Attributes:
        exit_status: what the process should exit with, by convention 128 and the signal's number: 130 after Ctrl-C,
            143 after SIGTERM. 0 until a call has returned True.
    """

    def __init__(self, accelerator: Any = None) -> None:
        self._accelerator = accelerator
        self._signal = 0
        self.exit_status = 0

    def __call__(self) -> bool:
        number = self._signal
        if self._accelerator is not None and self._accelerator.num_processes > 1:
            import torch

            asked = torch.tensor([number], device=self._accelerator.device)
            number = int(self._accelerator.gather(asked).max())
        self.exit_status = 128 + number if number else 0
        return bool(number)

    def ask(self, number: int) -> None:
        """Ask to stop, as the signal of this number does."""
        self._signal = number


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Inside, Ctrl-C waits: for what must be done whole, and is quick."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield  # signals do not arrive here, or end the process
        return
    waiting: list[tuple[int, Any]] = []
    signal.signal(signal.SIGINT, lambda *given: waiting.append(given))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if waiting:
            handler(*waiting[-1])


@contextmanager
def interruptible(accelerator: Any = None) -> Iterator[Interrupt]:
    """Inside, the first Ctrl-C and any SIGTERM interrupt nothing: the `Interrupt` that is yielded returns True.

    A second Ctrl-C raises KeyboardInterrupt as usual; a further SIGTERM changes nothing, since launchers and
    schedulers send several, and saving is not to be ended by the second. In a thread other than the main one nothing
    is changed: signals do not arrive there. With an `accelerate.Accelerator` all its processes get the same answer;
    each must then call it as often as the others: it is one tiny gather. They leave together, unless one raises.
    """
    interrupt = Interrupt(accelerator)
    with _asking(interrupt):
        yield interrupt
    if accelerator is not None and accelerator.num_processes > 1:
        # gloo's threads may still hold tensors of the last gather; an interpreter that ends meanwhile aborts, and the exit
        # status is lost (https://github.com/pytorch/pytorch/pull/179291). A barrier holds none; a thread that had to wait
        # for its turn on a busy machine needs a moment more, and the interpreter's lock.
        accelerator.wait_for_everyone()
        time.sleep(LET_GO)


@contextmanager
def _asking(interrupt: Interrupt) -> Iterator[None]:
    """Inside, signals ask `interrupt`; afterwards their handlers are as before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: Any) -> None:
        interrupt.ask(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, before[signal.SIGINT])

    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
