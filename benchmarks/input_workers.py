"""One way to read images, in a process of its own: what benchmarks/input.py compares.

    python benchmarks/input_workers.py '{"kind": "tfdata", "task": "train", …}'

It prints a line of JSON when it is ready, {"ready": versions} or {"missing": why}; for each line
"N" on standard input it reads N batches and prints {"images", "seconds", "processor"}: wall time,
and that of all processors in this process and its children. It imports nothing but what it
measures, as TensorFlow lives in another virtual environment.
"""

from collections.abc import Callable, Iterator
import contextlib
import importlib.metadata
import io
import json
import os
from pathlib import Path
import sys
import time
from typing import Any

WARM = 4  # batches before the clock starts: what was read ahead meanwhile is not counted
Batches = Iterator[Any]
SIZES = {"train": (224, 224), "evaluation": (256, 224)}  # resized to, cut to
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # of torchvision's RandomResizedCrop


def files_of(spec: dict[str, Any]) -> list[str]:
    """Returns the paths of all pictures."""
    return sorted(map(str, Path(spec["folder"], "train").rglob("*.jpg")))


def zoo(spec: dict[str, Any]) -> Callable[[], Batches]:
    """Ours: the trainer's own loader, batches on the device."""
    import jax
    import numpy as np

    from zoo.data import jpeg
    from zoo.data.crop import make_crop
    from zoo.data.loader import Examples, Order, train_batches
    from zoo.data.source import ArraySource, open_splits
    from zoo.training.mesh import batch_sharding, make_mesh
    from zoo.weights.preprocessing import Preprocessing

    if spec["fast"]:
        import cykooz_resizer  # noqa: F401 (if it is missing, that is said now)
        import simplejpeg  # noqa: F401
    else:
        jpeg.decode_jpeg = None  # as if it were not installed
    crop = None
    if spec["source"] == "memory":
        source = ArraySource(*in_memory(spec))
        side, channels = spec["side"], 1
        prepared = Preprocessing(side, (0.5,), (0.5,), crop_fraction=1.0)
    else:
        tfds = {"data_dir": spec["tfds"]} if spec["source"] == "tfds" else {}
        name = "photographs" if tfds else f"folder:{spec['folder']}"
        source = open_splits(name, train="train", validation="", test="", **tfds).train
        resized, side = SIZES[spec["task"]]
        channels, prepared = 3, Preprocessing(side, crop_fraction=side / resized)
        if spec["task"] == "train":
            crop = make_crop(
                {"scale": SCALE, "ratio": RATIO},
                seed=0,
                size=side,
                channels=3,
                interpolation="bilinear",
                decoding="fast" if spec["fast"] else "exact",
            )
    shape = (side, side, channels)
    cache = spec["source"] == "memory"
    examples = Examples(source, prepared.pixels, shape, crop=crop, cache=cache)
    order, steps = Order(len(source), spec["batch"], 0), iter(range(10**9))
    options = {"threads": spec["cores"], "prefetch": 2 * spec["cores"]}
    rows = batch_sharding(make_mesh(jax.devices()[:1]))

    def batches() -> Batches:
        for batch in train_batches(examples, order, steps, rows, **options):
            yield np.asarray(jax.block_until_ready(batch["image"]))

    return batches


def tfdata(spec: dict[str, Any]) -> Callable[[], Batches]:
    """tf.data, with the cheapest ways that TensorFlow has: only the part is decoded."""
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")
    import tensorflow as tf

    resized, side = SIZES[spec["task"]]

    def resize(image: Any, *size: Any) -> Any:
        return tf.image.resize(image, size, antialias=spec["antialias"])

    def train(path: Any) -> Any:
        data = tf.io.read_file(path)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.image.extract_jpeg_shape(data),
            tf.zeros([1, 0, 4]),
            min_object_covered=0.0,
            area_range=SCALE,
            aspect_ratio_range=RATIO,
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.concat([begin[:2], size[:2]], 0)
        image = tf.image.decode_and_crop_jpeg(data, window, channels=3)
        image = tf.image.random_flip_left_right(resize(image, side, side))
        return tf.cast(image, tf.uint8)

    def evaluation(path: Any) -> Any:
        image = tf.image.decode_jpeg(tf.io.read_file(path), channels=3)
        height, width = tf.unstack(tf.shape(image)[:2])
        shorter = tf.minimum(height, width)
        image = resize(image, resized * height // shorter, resized * width // shorter)
        return tf.cast(tf.image.resize_with_crop_or_pad(image, side, side), tf.uint8)

    if spec["source"] == "memory":
        images, labels = in_memory(spec)
        data = tf.data.Dataset.from_tensor_slices((images, labels)).repeat()
        data = data.shuffle(len(labels)).batch(spec["batch"])
    else:
        data = tf.data.Dataset.from_tensor_slices(files_of(spec)).repeat()
        data = data.shuffle(len(files_of(spec)))
        prepare = train if spec["task"] == "train" else evaluation
        data = data.map(prepare, num_parallel_calls=spec["cores"]).batch(spec["batch"])
    options = tf.data.Options()
    options.threading.private_threadpool_size = spec["cores"]
    data = data.prefetch(2).with_options(options)
    images = data.map(lambda image, label: image) if spec["source"] == "memory" else data
    return lambda: images.as_numpy_iterator()


def torch(spec: dict[str, Any]) -> Callable[[], Batches]:
    """Torch's DataLoader with torchvision's ImageFolder, a process for each core."""
    import torch as library

    # Where its compiled part was made for another torch, two operators are declared here, which
    # no transform calls.
    declared = library.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):
            declared.define(f"{name}(Tensor dets, Tensor scores, float iou) -> Tensor")
    from torchvision import datasets, transforms

    library.set_num_threads(1)
    resized, side = SIZES[spec["task"]]
    steps = [transforms.Resize(resized), transforms.CenterCrop(side)]
    if spec["task"] == "train":
        steps = [transforms.RandomResizedCrop(side, SCALE, RATIO)]
        steps += [transforms.RandomHorizontalFlip()]
    transform = transforms.Compose([*steps, transforms.PILToTensor()])
    workers = spec["cores"]
    if spec["source"] == "memory":
        images, labels = in_memory(spec)
        tensors = library.from_numpy(images)[:, None], library.from_numpy(labels)
        data, workers = library.utils.data.TensorDataset(*tensors), 0  # copying costs more
    elif spec["source"] == "tfds":
        data = from_tfds(spec["tfds"], transform)
    else:
        data = datasets.ImageFolder(str(Path(spec["folder"], "train")), transform)

    def batches() -> Batches:
        while True:
            loader = library.utils.data.DataLoader(
                data, spec["batch"], shuffle=True, num_workers=workers, drop_last=True
            )
            yield from (batch[0].numpy() for batch in loader)

    batches.declared = declared  # it must stay alive
    return batches


def from_tfds(folder: str, transform: Callable[[Any], Any]) -> Any:
    """Returns a dataset of torch that reads with TFDS's own reader and decoder."""
    from PIL import Image
    import tensorflow_datasets as tfds

    builder = tfds.builder("photographs", data_dir=folder)

    class Dataset:
        def __init__(self):
            self.records = builder.as_data_source("train")

        def __len__(self) -> int:
            return len(self.records)

        def __getitem__(self, index: int) -> Any:
            record = self.records[index]
            return transform(Image.fromarray(record["image"])), int(record["label"])

    return Dataset()


def bare(spec: dict[str, Any]) -> Callable[[], Batches]:
    """Only the decoder, of the whole picture, in one thread: there is nothing below it."""
    files = [Path(path).read_bytes() for path in files_of(spec)]
    if spec["kind"] == "simplejpeg":
        from simplejpeg import decode_jpeg

        def decode(data: bytes) -> None:
            decode_jpeg(data, "RGB")
    else:
        from PIL import Image

        def decode(data: bytes) -> None:
            with Image.open(io.BytesIO(data)) as image:
                image.load()

    def batches() -> Batches:
        place = 0
        while True:
            for _ in range(spec["batch"]):
                decode(files[place % len(files)])
                place += 1
            yield None

    return batches


def in_memory(spec: dict[str, Any]) -> tuple[Any, Any]:
    """Returns images, uint8 [N, S, S], and labels, as many and as large as MNIST's."""
    import numpy as np

    random, side = np.random.default_rng(0), spec["side"]
    images = random.integers(0, 256, (spec["count"], side, side), np.uint8)
    return images, random.integers(0, 10, spec["count"])


KINDS: dict[str, tuple[Callable[[dict[str, Any]], Callable[[], Batches]], tuple[str, ...]]] = {
    "zoo": (zoo, ("pillow", "simplejpeg", "cykooz-resizer", "jax")),
    "tfdata": (tfdata, ("tensorflow", "tensorflow-cpu")),
    "torch": (torch, ("torch", "torchvision", "pillow")),
    "pillow": (bare, ("pillow",)),
    "simplejpeg": (bare, ("simplejpeg",)),
}


def processor_seconds() -> float:
    """Returns what this process and all that descend from it have used of processors."""
    parents, used = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
                used[int(entry.name)] = sum(map(int, fields[11:15]))  # of ended children as well
    mine = {os.getpid()}
    while more := {child for child, parent in parents.items() if parent in mine} - mine:
        mine |= more
    return sum(used.get(process, 0) for process in mine) / os.sysconf("SC_CLK_TCK")


def measure(batches: Batches, count: int, size: int) -> dict[str, float]:
    """Reads so many batches after a few others, and returns what that took."""
    for _ in range(WARM):
        next(batches)
    began, worked = time.perf_counter(), processor_seconds()
    for _ in range(count):
        next(batches)
    seconds, processor = time.perf_counter() - began, processor_seconds() - worked
    return {"images": count * size, "seconds": seconds, "processor": processor}


def main() -> None:
    """Serves the orders that come in."""
    spec = json.loads(sys.argv[1])
    answers, sys.stdout = sys.stdout, sys.stderr
    os.sched_setaffinity(0, spec["processors"])
    make, packages = KINDS[spec["kind"]]
    try:
        batches = make(spec)
    except (ImportError, OSError, RuntimeError) as error:
        print(json.dumps({"missing": str(error)}), file=answers, flush=True)
        return
    versions = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    print(json.dumps({"ready": versions}), file=answers, flush=True)
    for line in sys.stdin:
        reading = batches()
        result = measure(reading, int(line), spec["batch"])
        if hasattr(reading, "close"):
            reading.close()
        print(json.dumps(result), file=answers, flush=True)


if __name__ == "__main__":
    main()
