"""Images per second and core: the loader, its peers, and the bare decoders below which none gets.

    python -m benchmarks.input --tensorflow_python=/tmp/tf/bin/python
    python -m benchmarks.input --cores=1 --only=train,evaluation

for which TensorFlow is installed in a virtual environment of its own,

    python3 -m venv /tmp/tf && /tmp/tf/bin/pip install tensorflow-cpu

and torch with torchvision in this one (tests/parity/oracles.txt). Whoever is not there is named
in the table as missing. All read the same pictures (benchmarks/photographs.py), in processes of
their own that are bound to the same cores, and take turns, `--rounds` times:

* train: a random part of a JPEG of a folder, resized to 224x224, mirrored at random (ours on the
  device, later) and put into batches of 64, uint8;
* evaluation: the shorter side resized to 256, the centre of 224x224 cut out;
* array_record: like train, of a TFDS dataset;
* memory: 60,000 grey images of 28x28, shuffled, in batches of 128.

"zoo" is with Pillow alone and decoding="exact"; "zoo[fast]" has simplejpeg and, in training,
decoding="fast"; evaluation has the same pixels in both. "antialiased" is tf.data with the filter
that Pillow, torchvision and zoo shrink with; what it does by default is cheaper. Medians count.
By processor time a result depends less on other programs than by the clock: it is one over the
seconds of all cores that an image takes.
"""

from collections.abc import Sequence
import json
import os
from pathlib import Path
import statistics
import subprocess
import sys
import tempfile
from typing import Any

from absl import app, flags

from benchmarks import photographs
from benchmarks.record import surroundings, write

TASKS = ("train", "evaluation", "array_record", "memory")

CORES = flags.DEFINE_integer("cores", os.cpu_count() or 1, "To read with.", lower_bound=1)
ROUNDS = flags.DEFINE_integer("rounds", 7, "How many turns each has.", lower_bound=1)
IMAGES = flags.DEFINE_integer("images", 1000, "How many pictures there are.", lower_bound=64)
BATCHES = flags.DEFINE_integer("batches", 20, "How many a turn has per core.", lower_bound=1)
ONLY = flags.DEFINE_list("only", list(TASKS), f"Some of {', '.join(TASKS)}.")
TENSORFLOW = flags.DEFINE_string("tensorflow_python", sys.executable, "The Python with tf.data.")

ROOT = Path(__file__).parent.parent
INSTALL = {
    "tfdata": "python3 -m venv /tmp/tf && /tmp/tf/bin/pip install tensorflow-cpu, then "
    "--tensorflow_python=/tmp/tf/bin/python",
    "torch": "pip install -r tests/parity/oracles.txt",
    "simplejpeg": "pip install 'zoo[fast]'",
    "zoo": "pip install 'zoo[fast]'",
}
READERS: dict[str, dict[str, Any]] = {
    "zoo": {"kind": "zoo", "fast": False},
    "zoo[fast]": {"kind": "zoo", "fast": True},
    "tf.data": {"kind": "tfdata", "antialias": False},
    "tf.data, antialiased": {"kind": "tfdata", "antialias": True},
    "torch DataLoader": {"kind": "torch"},
    "simplejpeg, decoding only": {"kind": "simplejpeg"},
    "Pillow, decoding only": {"kind": "pillow"},
}
WHO = {
    "train": tuple(READERS),
    "evaluation": tuple(READERS),
    "array_record": ("zoo", "zoo[fast]", "torch DataLoader"),
    "memory": ("zoo", "tf.data", "torch DataLoader"),
}


class Reader:
    """A process that reads when it is told to.

    Args:
      spec: of benchmarks/input_workers.py.

    Attributes:
      versions: of what it reads with; empty if that is missing.
      missing: why it cannot read, else None.
    """

    def __init__(self, spec: dict[str, Any]):
        python = TENSORFLOW.value if spec["kind"] == "tfdata" else sys.executable
        limits = {"OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [python, str(ROOT / "benchmarks" / "input_workers.py"), json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **limits},
        )
        told = self._told() or {"missing": "it ended without a word"}
        self.versions, self.missing = told.get("ready", {}), told.get("missing")

    def _told(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        return json.loads(line) if line else {}

    def read(self, batches: int) -> dict[str, float]:
        """Returns what reading so many batches took: "images", "seconds" and "processor"."""
        assert self._process.stdin is not None
        print(batches, file=self._process.stdin, flush=True)
        result = self._told()
        if not result:
            raise RuntimeError(f"a reader died: {self._process.args}")
        return result

    def close(self) -> None:
        """Ends the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


def compare(task: str, folder: Path, tfds: Path, processors: Sequence[int]) -> dict[str, Any]:
    """Returns for each reader of a task its images per second and core, or why there are none."""
    source = {"array_record": "tfds", "memory": "memory"}.get(task, "folder")
    common = {
        "task": "evaluation" if task == "evaluation" else "train",
        "source": source,
        "folder": str(folder),
        "tfds": str(tfds),
        "batch": 128 if task == "memory" else 64,
        "side": 28,
        "count": 60_000,
        "cores": len(processors),
        "processors": list(processors),
    }
    readers = {name: Reader(READERS[name] | common) for name in WHO[task]}
    there = {name: reader for name, reader in readers.items() if reader.missing is None}
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in there}
    try:
        for turn in range(ROUNDS.value + 1):
            for name, reader in there.items():
                alone = "only" in name
                count = BATCHES.value * (1 if alone else len(processors))
                if task == "memory":  # so small that a turn is an epoch
                    count = common["count"] // common["batch"]
                result = reader.read(count) | {"cores": 1 if alone else len(processors)}
                if turn:  # the first compiles, and brings the files into memory
                    turns[name].append(result)
    finally:
        for reader in readers.values():
            reader.close()
    return {
        name: {"missing": reader.missing, "install": INSTALL.get(READERS[name]["kind"])}
        if reader.missing is not None
        else {**summary(turns[name]), "versions": reader.versions}
        for name, reader in readers.items()
    }


def summary(turns: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Returns images per second and core by the clock and by processor time: all, and medians."""
    clock = [turn["images"] / turn["seconds"] / turn["cores"] for turn in turns]
    processor = [turn["images"] / max(turn["processor"], 1e-9) for turn in turns]
    return {
        "images_per_second_per_core": round(statistics.median(clock), 1),
        "images_per_processor_second": round(statistics.median(processor), 1),
        "clock_turns": [round(rate, 1) for rate in clock],
        "processor_turns": [round(rate, 1) for rate in processor],
    }


def table(task: str, rows: dict[str, Any]) -> str:
    """Returns a table: each reader's rates, and how many times those zoo's best has."""
    keys = "images_per_second_per_core", "images_per_processor_second"
    best = {
        key: max(row[key] for name, row in rows.items() if name.startswith("zoo") and key in row)
        for key in keys
    }
    lines = [f"{task:<28}{'images/s/core':>15}{'zoo is':>9}{'by processor':>15}{'zoo is':>9}"]
    for name, row in rows.items():
        if "missing" in row:
            lines.append(f"{name:<28}missing: {row['missing']}. {row['install']}")
            continue
        cells = [(f"{row[key]:,.0f}", f"{best[key] / row[key]:.2f} x") for key in keys]
        lines.append(f"{name:<28}" + "".join(f"{rate:>15}{ratio:>9}" for rate, ratio in cells))
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    """Measures, prints and writes."""
    wrong = [*argv[1:], *sorted(set(ONLY.value) - set(TASKS))]
    if wrong:
        sys.exit(f"{wrong[0]!r} is neither a flag nor one of {', '.join(TASKS)}")
    processors = sorted(os.sched_getaffinity(0))[-CORES.value :]
    if len(processors) < CORES.value:
        sys.exit(f"--cores={CORES.value}: this process may use {len(processors)}")
    result: dict[str, Any] = surroundings("benchmarks.input")
    result |= {"processors": processors, "load_average": {"before": os.getloadavg()}}
    with tempfile.TemporaryDirectory() as scratch:
        folder, tfds = Path(scratch, "folder"), Path(scratch, "tfds")
        result["pictures"] = IMAGES.value
        result["bytes_per_picture"] = round(photographs.write_folder(folder, IMAGES.value))
        if "array_record" in ONLY.value:
            photographs.write_tfds(tfds, folder)
        print(f"{IMAGES.value} JPEGs of {result['bytes_per_picture']:,} bytes, {processors=}\n")
        for task in filter(ONLY.value.__contains__, TASKS):
            result[task] = compare(task, folder, tfds, processors)
            print(table(task, result[task]) + "\n", flush=True)
    # Of 1, 5 and 15 minutes.
    result["load_average"]["after"] = os.getloadavg()
    print(write(f"input_{len(processors)}_cores", result))


if __name__ == "__main__":
    app.run(main)
