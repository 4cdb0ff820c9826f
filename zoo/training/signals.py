"""Asking a run to stop: SIGTERM, Ctrl-C, and the agreement of several processes."""

from collections.abc import Iterator
import contextlib
import os
import signal

import jax
from jax.experimental import multihost_utils


class StopRequest:
    """Whether, and by which signal, this run was asked to stop.

    One process owns its signals: a handler notes the first and makes later ones harmless,
    so that the save in progress is not disturbed. With several processes JAX's preemption
    service owns SIGTERM and has all of them stop at the same step; Ctrl-C is passed on to it.
    They agree between steps only, so an evaluation that is going on is finished first.
    """

    def __init__(self):
        self._signum: int | None = None

    def note(self, signum: int, frame: object = None) -> None:
        """The signal handler."""
        del frame
        self._signum = self._signum or signum
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def at_step(self, step: int) -> int | None:
        """Returns the signal by which to stop after this step, else None.

        Every process must ask at every step.
        """
        if jax.process_count() == 1:
            return self._signum
        if multihost_utils.reached_preemption_sync_point(step):
            return self._signum or signal.SIGTERM
        return None

    @property
    def pending(self) -> int | None:
        """The signal this process has seen itself; for work that processes do alone."""
        return self._signum if jax.process_count() == 1 else None


@contextlib.contextmanager
def watch_signals() -> Iterator[StopRequest]:
    """Gives a StopRequest for as long as the block runs, then puts the handlers back."""
    request = StopRequest()
    signums = [signal.SIGINT] if jax.process_count() > 1 else [signal.SIGINT, signal.SIGTERM]
    before = {signum: signal.signal(signum, request.note) for signum in signums}
    try:
        yield request
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
