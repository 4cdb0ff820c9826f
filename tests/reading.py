"""train.py, writing down which examples it reads: python -m tests.reading OUT.json --config=…"""

import collections
import json
from pathlib import Path
import sys

import train
from zoo.data.tfds import TfdsSource

reads = collections.defaultdict(set)
read = TfdsSource.__getitem__


def recording_read(self: TfdsSource, index: int):
    """Reads as before, having written down the index."""
    reads[self.describe(0).split()[1]].add(index)
    return read(self, index)


if __name__ == "__main__":
    out = Path(sys.argv.pop(1))
    TfdsSource.__getitem__ = recording_read
    try:
        train.app.run(train.main, flags_parser=train.parse)
    finally:
        out.write_text(json.dumps({split: sorted(indices) for split, indices in reads.items()}))
