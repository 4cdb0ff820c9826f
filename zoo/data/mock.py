"""Images of noise: to try a recipe, or the speed of everything behind the reading, without data."""

import numpy as np

from zoo.data.source import digest, parse_split, slice_bounds
from zoo.errors import ConfigError

NUM_EXAMPLES = 512
# Height, width and channels: as photographs are, tall and wide, and some smaller than any
# network wants or grey, for what is behind has to cope with those as well.
SHAPES = ((375, 500, 3), (500, 375, 3), (256, 256, 3), (40, 60, 3), (120, 90, 1))


class MockSource:
    """One split of noise: the same pixels for the same split and index on every machine.

    Labels take turns: 0, 1, …, and again. Nothing can be learned, so a loss that falls shows
    memory, and accuracy on other splits stays that of guessing. Nothing is decoded either:
    what is measured with it is the speed without files.

    Args:
      num_classes: they are called "0", "1", …
      num_examples: of the whole split.
      split: any name, with an optional slice; each name has its own noise.

    Raises:
      ConfigError: for a number that is not positive, or a split that cannot be read.
    """

    def __init__(self, num_classes: int, num_examples: int = NUM_EXAMPLES, *, split: str = "train"):
        for key, value in (("num_classes", num_classes), ("num_examples", num_examples)):
            if value < 1:
                raise ConfigError(f"mock data with {key}={value!r}: must be 1 or more")
        name, start, stop = parse_split(split)
        self.class_names = tuple(map(str, range(num_classes)))
        self._split = name
        self._indices = range(*slice_bounds(start, stop, num_examples))
        # 64 bits of the name, as the key of its noise.
        self._key = int(digest(name)[:16], 16)
        self.fingerprint = digest("mock", self.class_names, name, self._indices, SHAPES)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        place = self._indices[index]
        # Philox's raw stream is fixed for all numpy versions; Generator's methods are not.
        noise = np.random.Philox(key=[self._key, place])
        shape = SHAPES[int(noise.random_raw()) % len(SHAPES)]
        count = int(np.prod(shape))
        words = noise.random_raw(-(-count // 8)).astype("<u8", copy=False)
        pixels = words.view(np.uint8)[:count].reshape(shape)
        return pixels, place % len(self.class_names)

    def describe(self, index: int) -> str:
        return f"mock {self._split} example {self._indices[index]}"


def open_mock(num_classes: str, split: str) -> MockSource:
    """Opens what `mock:NUM_CLASSES` names.

    Raises:
      ConfigError: for classes that are no whole number, 1 or more.
    """
    if not num_classes.isdecimal() or int(num_classes) < 1:
        raise ConfigError(
            f"config.data.name='mock:{num_classes}': say how many classes, 1 or more, as in "
            "'mock:1000'"
        )
    return MockSource(int(num_classes), split=split)
