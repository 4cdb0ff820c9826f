"""Any dataset of TFDS, through its random-access reader: no TensorFlow anywhere."""

from collections.abc import Iterator
import contextlib
import fcntl
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.source import digest
from zoo.errors import ConfigError, DataError, suggest


class TfdsSource:
    """One split of a TFDS dataset that is (or can be) prepared as array_record.

    Args:
      name: TFDS's name, with an optional config and version: `cifar10`, `mnist:3.0.1`.
      split: TFDS's notation, slices included: `train[:90%]`.
      data_dir: where the prepared datasets are; None for TFDS's usual directory.
      image_key: the feature that holds the image.
      label_key: the feature that holds the label.

    Raises:
      ConfigError: for an unknown name, split or feature.
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
        except Exception as error:  # which one depends on TFDS's version and the format
            if not builder.is_prepared():
                raise DataError(_preparation_help(name, builder)) from error
            if builder.info.file_format.value != "array_record":
                raise DataError(_conversion_help(name, builder)) from error
            raise ConfigError(f"TFDS dataset {name!r}, split {split!r}: {error}") from error
        label = features[label_key]
        if not hasattr(label, "names"):
            raise ConfigError(f"TFDS dataset {name!r}: feature {label_key!r} is not a class label")
        self.class_names = tuple(label.names)
        self._name, self._image_key, self._label_key = f"{name} {split}", image_key, label_key
        infos = [(s.name, s.num_examples, s.num_bytes) for s in builder.info.splits.values()]
        self.fingerprint = digest(str(builder.info.full_name), infos, split, self.class_names)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        try:
            record = self._records[index]
        except Exception as error:  # array_record and the decoders each have their own
            raise DataError(f"{self.describe(index)}: cannot be read ({error})") from error
        image = np.asarray(record[self._image_key])
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3):
            raise DataError(
                f"{self.describe(index)}: wanted a uint8 image [H, W, 1 or 3], got "
                f"{image.dtype} {list(image.shape)}"
            )
        return image, int(record[self._label_key])

    def describe(self, index: int) -> str:
        return f"{self._name} example {index}"


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
