"""train.py with something wrong in this process: python -m tests.faulty FAULT --config=…

Faults: `sleep:STEPS` (hangs after so many), `data` (has others), `code` (has an edited file),
`broken` (raises where nothing should), `evaluates` (slowly, a batch in two seconds).
"""

import sys
import time

import train
from zoo.data.tfds import TfdsSource
from zoo.training import agreement
from zoo.training.feeds import Streamed
from zoo.training.progress import Progress


def sleep(steps: str) -> None:
    trained_on, left = Progress.trained_on, [int(steps)]

    def hang(self, *args):
        left[0] -= 1
        if not left[0]:
            time.sleep(3600)
        trained_on(self, *args)

    Progress.trained_on = hang


def data(_: str) -> None:
    make = TfdsSource.__init__

    def open_another(self, *args, **kwargs):
        make(self, *args, **kwargs)
        self.fingerprint += " and one image more"

    TfdsSource.__init__ = open_another


def code(_: str) -> None:
    digests = agreement.code
    agreement.code = lambda: {**digests(), "zoo/layers.py": "edited"}


def broken(_: str) -> None:
    def fail(self, *args):
        raise AssertionError("nobody thought of this")

    Progress.trained_on = fail


def evaluates(_: str) -> None:
    evaluate = Streamed.evaluate

    def read_slowly(self, name):
        for batch in evaluate(self, name):
            time.sleep(2)
            yield batch

    Streamed.evaluate = read_slowly


FAULTS = {f.__name__: f for f in (sleep, data, code, broken, evaluates)}

if __name__ == "__main__":
    fault, _, argument = sys.argv.pop(1).partition(":")
    FAULTS[fault](argument)
    train.app.run(train.main, flags_parser=train.parse)
