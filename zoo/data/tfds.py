"""Any dataset of TFDS, through its random-access reader: no TensorFlow anywhere."""

from collections.abc import Callable, Iterator
import contextlib
import fcntl
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from zoo.data.source import Target, digest
from zoo.errors import ConfigError, DataError, suggest
from zoo.images import Encoded


class TfdsSource:
    """One split of a TFDS dataset that is (or can be) prepared as array_record.

    What the targets are follows from the feature that holds them:

    * a ClassLabel: labels;
    * a list of ClassLabels, of any length: 1 for each class that is in it, else 0, [classes];
    * a number or a tensor [K] of numbers: these, named KEY, or KEY_0, KEY_1, …;
    * a dict of numbers: these, in the order of their names.

    Pictures of varying size can also be had as the files that they are (`encoded`), and the loader
    takes them so, to decode them as those of a folder: EXIF rotation included, with the same
    pixels whether TFDS finds OpenCV or not, and of a random part no more than need be.

    Args:
      name: TFDS's name, with an optional config and version: `cifar10`, `mnist:3.0.1`.
      split: TFDS's notation, slices included: `train[:90%]`.
      data_dir: where the prepared datasets are; None for TFDS's usual directory.
      image_key: the feature that holds the image.
      label_key: the feature that holds the label.

    Raises:
      ConfigError: for an unknown name, split or feature, or a feature of another kind.
      DataError: for a dataset that cannot be prepared, or is not held as array_record.
    """

    def __init__(self, name: str, split: str, data_dir: str | None, image_key: str, label_key: str):
        builder = _builder(name, data_dir)
        features = builder.info.features
        for key in (image_key, label_key):
            if key not in features:
                raise ConfigError(
                    f"TFDS dataset {name!r} has no feature {key!r}, only {sorted(features)}"
                )
        try:
            self._records = builder.as_data_source(split=split)
            if _varies(features[image_key]):
                undecoded = {image_key: _undecoded()}
                self._undecoded = builder.as_data_source(split=split, decoders=undecoded)
                self.encoded = self._encoded
        except Exception as error:  # which one depends on TFDS's version and the format
            if not builder.is_prepared():
                raise DataError(_preparation_help(name, builder)) from error
            if builder.info.file_format.value != "array_record":
                raise DataError(_conversion_help(name, builder)) from error
            raise ConfigError(f"TFDS dataset {name!r}, split {split!r}: {error}") from error
        targets = _targets(features[label_key], label_key)
        if targets is None:
            raise ConfigError(
                f"TFDS dataset {name!r}: feature {label_key!r} is {features[label_key]!r}; wanted "
                "a class label, a list of these, a number, a tensor [K] or a dict of numbers"
            )
        self.class_names, self.target_shape, self._read = targets
        self._name, self._image_key, self._label_key = f"{name} {split}", image_key, label_key
        infos = [(s.name, s.num_examples, s.num_bytes) for s in builder.info.splits.values()]
        self.fingerprint = digest(str(builder.info.full_name), infos, split, self.class_names)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Target]:
        record = self._record(self._records, index)
        image = np.asarray(record[self._image_key])
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3):
            raise DataError(
                f"{self.describe(index)}: wanted a uint8 image [H, W, 1 or 3], got "
                f"{image.dtype} {list(image.shape)}"
            )
        return image, self._target(record, index)

    def _encoded(self, index: int) -> tuple[Encoded, Target]:
        """Returns an image file's content and the target."""
        record = self._record(self._undecoded, index)
        data = bytes(record[self._image_key])
        return Encoded(data, self.describe(index)), self._target(record, index)

    def _record(self, records: Any, index: int) -> Any:
        try:
            return records[index]
        except Exception as error:  # array_record and the decoders each have their own
            raise DataError(f"{self.describe(index)}: cannot be read ({error})") from error

    def _target(self, record: Any, index: int) -> Target:
        try:
            return self._read(record[self._label_key])
        except ValueError as error:
            raise DataError(f"{self.describe(index)}: {error}") from error

    def describe(self, index: int) -> str:
        return f"{self._name} example {index}"


class _Targets(NamedTuple):
    """Targets of one kind: what they are called, their shape, and how a record's are read."""

    names: tuple[str, ...]
    shape: tuple[int, ...]
    read: Callable[[Any], Target]


def _targets(feature: Any, key: str) -> _Targets | None:
    """Returns how targets are read from a feature of TFDS; None if it cannot hold any."""
    from tensorflow_datasets import features as kinds

    if isinstance(feature, kinds.ClassLabel):
        return _Targets(tuple(feature.names), (), int)
    if isinstance(feature, kinds.Sequence) and isinstance(feature.feature, kinds.ClassLabel):
        names = tuple(feature.feature.names)
        return _Targets(names, (len(names),), lambda labels: _multi_hot(labels, len(names)))
    if isinstance(feature, kinds.FeaturesDict):
        names = tuple(sorted(feature))
        if not names or any(_number_shape(feature[name]) != () for name in names):
            return None
        return _Targets(
            names, (len(names),), lambda each: np.array([each[n] for n in names], np.float32)
        )
    shape = _number_shape(feature)
    if shape is None or len(shape) > 1 or not all(shape):
        return None  # of a tensor whose length varies, the shape is (None,)
    names = tuple(f"{key}_{i}" for i in range(shape[0])) if shape else (key,)
    return _Targets(
        names, (len(names),), lambda values: np.asarray(values, np.float32).reshape(len(names))
    )


def _number_shape(feature: Any) -> tuple[int, ...] | None:
    """Returns the shape of an array of numbers, or of true and false; None for anything else."""
    dtype = feature.np_dtype
    if isinstance(dtype, dict) or np.dtype(dtype).kind not in "biuf":
        return None
    return feature.shape


def _varies(feature: Any) -> bool:
    """Returns whether a feature holds pictures, grey or of three colours, of no fixed size."""
    from tensorflow_datasets import features as kinds

    if not isinstance(feature, kinds.Image) or feature.np_dtype != np.uint8:
        return False
    height, width, channels = cast(tuple, feature.shape)
    return None in (height, width) and channels in (1, 3)


def _undecoded() -> Any:
    """Returns what tells TFDS to leave an image as it is in the file."""
    from tensorflow_datasets import decode as decoders

    return decoders.SkipDecoding()


def _multi_hot(labels: Any, num_classes: int) -> np.ndarray:
    """Returns float32 [num_classes], 1 at each label.

    Raises:
      ValueError: for a label outside the classes, such as TFDS's -1 for "not known".
    """
    labels = np.asarray(labels, np.int64)
    for label in labels[(labels < 0) | (labels >= num_classes)]:
        raise ValueError(f"label {label}, allowed are 0 to {num_classes - 1}")
    target = np.zeros(num_classes, np.float32)
    target[labels] = 1
    return target


def _builder(name: str, data_dir: str | None) -> Any:
    """Returns TFDS's builder; a dataset of ours is prepared when it is first used."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ConfigError(
            f"config.data.name={name!r} needs TFDS: pip install 'zoo[train]' ({error})"
        ) from error
    ours = name.partition(":")[0] == "digits"
    if ours:
        import zoo.data.digits  # noqa: F401 (registers the dataset)

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        known = ["digits", *tfds.list_builders(with_community_datasets=False)]
        raise ConfigError(
            f"config.data.name={name!r}: TFDS has no such dataset.{suggest(name, known)} "
            "Other doors: folder:/path, idx:/path, mock:CLASSES"
        ) from error
    except Exception as error:  # some of the hundreds cannot be described without TensorFlow
        raise DataError(f"TFDS dataset {name!r}: TFDS cannot open it here ({error})") from error
    if builder.is_prepared():  # what the folder says counts: it may hold several formats
        return tfds.builder_from_directory(builder.data_path)
    if not ours:
        return builder
    with _one_at_a_time(Path(builder.data_dir_root)):
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
        if not builder.is_prepared():
            print(f"preparing {name} in {builder.data_path}", flush=True)
            with contextlib.redirect_stdout(None):
                tfds.disable_progress_bar()
                builder.download_and_prepare()
    return builder


@contextlib.contextmanager
def _one_at_a_time(data_dir: Path) -> Iterator[None]:
    """Lets one process of a machine prepare datasets while the others wait."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / ".zoo_prepare.lock").open("w")
    except OSError as error:
        raise DataError(
            f"cannot write to {data_dir} ({error}); choose another place with "
            "--config.data.data_dir or TFDS_DATA_DIR"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _preparation_help(name: str, builder: Any) -> str:
    arguments = f"{name!r}, data_dir={str(builder.data_dir_root)!r}, file_format='array_record'"
    return (
        f"TFDS dataset {name!r} is not prepared in {builder.data_dir_root}. Most datasets need "
        "TensorFlow for this one step; in a virtual environment of its own: pip install "
        'tensorflow-cpu tensorflow-datasets && python -c "import tensorflow_datasets as tfds; '
        f'tfds.builder({arguments}).download_and_prepare()"'
    )


def _conversion_help(name: str, builder: Any) -> str:
    return (
        f"TFDS dataset {name!r} is held in {builder.data_path} as "
        f"{builder.info.file_format.value}, which has no random access. Convert it once (array "
        "records are written beside it), in a virtual environment with TensorFlow: pip install "
        "tensorflow-cpu tensorflow-datasets apache-beam && python -m "
        "tensorflow_datasets.scripts.convert_format --out_file_format=array_record "
        f"--dataset_version_dir={builder.data_path}"
    )
