"""Which data a trained model is looked at with, and whose classes they have."""

import numpy as np

from zoo.analysis.trained import Trained
from zoo.data.source import Source, Target, open_splits
from zoo.errors import ConfigError


class Renamed:
    """A source whose labels are those of the model's classes, told by their names.

    Args:
      source: the data; each of its classes is one of the model's.
      names: of the model's classes.
    """

    def __init__(self, source: Source, names: tuple[str, ...]):
        self._source, self.class_names = source, names
        self._labels = [names.index(name) for name in source.class_names]
        self.fingerprint = source.fingerprint
        encoded = getattr(source, "encoded", None)
        if encoded is not None:
            self.encoded = lambda index: self._relabel(encoded(index))

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Target]:
        return self._relabel(self._source[index])

    def _relabel(self, example):
        image, label = example
        return image, self._labels[label]

    def describe(self, index: int) -> str:
        """Returns where an example comes from."""
        return self._source.describe(index)


def open_source(trained: Trained, data: str | None = None, split: str | None = None) -> Source:
    """Returns the data to look at a model with, labelled as the model's classes are.

    Args:
      trained: the model.
      data: see `open_data`.
      split: likewise.

    Raises:
      ConfigError: if there are no such data, or their classes are not the model's.
      DataError: for missing or damaged files.
    """
    name, _ = name_data(trained, data, split)
    return _with_classes_of(trained, open_data(trained, data, split), name)


def open_data(trained: Trained, data: str | None = None, split: str | None = None) -> Source:
    """Returns data with their own classes, whatever those of the model are.

    Args:
      trained: the model.
      data: as `config.data.name`: a TFDS name, `folder:/path`, `idx:/path`; None for the data of
        the run that the model comes from.
      split: as `config.data.test_split`; None for the run's test split, or else its validation
        split, or else "test".

    Raises:
      ConfigError: if there are no such data.
      DataError: for missing or damaged files.
    """
    name, split = name_data(trained, data, split)
    config = trained.config
    keys = ("data_dir", "image_key", "label_key")
    own = name == trained.data_name
    options = {key: config[f"data.{key}"] for key in keys} if own else {}
    return open_splits(name, train=split, validation="", test="", **options).train


def name_data(
    trained: Trained, data: str | None = None, split: str | None = None
) -> tuple[str, str]:
    """Returns the name and the split of the data that `open_data` opens.

    Raises:
      ConfigError: if the data are not named, and the model comes from no run.
    """
    config = trained.config
    if not config:
        if data is None:
            raise ConfigError(f"{trained.label}: comes from no run of train.py; name the data")
        return data, split or "test"
    name = config["data.name"] if data is None else data
    own = name == config["data.name"]
    known = (config["data.test_split"], config["data.validation_split"]) if own else ()
    return name, split or next(filter(None, known), "test")


def _with_classes_of(trained: Trained, source: Source, name: str) -> Source:
    theirs, ours = tuple(source.class_names), trained.class_names
    if theirs == ours or getattr(source, "target_shape", ()):
        return source
    if set(theirs) <= set(ours):
        return Renamed(source, ours)
    unnamed = ours == tuple(map(str, range(len(ours)))) or theirs == tuple(
        map(str, range(len(theirs)))
    )
    if unnamed and len(theirs) == len(ours):
        return source
    strangers = [n for n in theirs if n not in ours]
    raise ConfigError(
        f"{name}: class {strangers[0]!r}{f' and {len(strangers) - 1} more' * (len(strangers) > 1)} "
        f"of {len(theirs)} is not among the {len(ours)} of {trained.label} "
        f"({', '.join(ours[:3])}, …); rename the data's classes as the model's are"
    )
