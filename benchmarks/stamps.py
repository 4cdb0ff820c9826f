"""Real pictures in class folders: the photographs among Tux Paint's stamps.

    apt-get install tuxpaint-stamps-default
    python -m benchmarks.stamps /tmp/stamps

copies them to /tmp/stamps/train/CLASS and /tmp/stamps/validation/CLASS. A class is one of
`CLASSES`, all stamps in that folder and below, but for those in folders called `cartoon`, which
are drawn. Stamps whose names begin with the same word ("apple_green", "apple-red") stay together:
of each class's words, in the order of the alphabet, every third is held out, beginning with the
first, or with the second or third for `fold` 1 and 2. So nothing that is held out has a sister in
training, and over the three folds every stamp is held out once. The stamps are under the GPL,
version 2; mostly they are cut-outs, which zoo lays over white.
"""

import argparse
from pathlib import Path
import re
import shutil

STAMPS = Path("/usr/share/tuxpaint/stamps")
CLASSES = {
    "birds": "animals/birds",
    "fish": "animals/fish",
    "flowers": "plants/flowers",
    "fruit": "food/fruit",
    "insects": "animals/insects",
    "mammals": "animals/mammals",
    "planets": "space/planets",
    "roadsigns": "town/roadsigns",
    "tools": "household/tools",
    "vegetables": "food/vegetables",
    "vehicles": "vehicles",
}
FOLDS = 3


def word(path: Path) -> str:
    """Returns the first word of a stamp's name."""
    return "".join(re.findall("[A-Za-z]+", path.stem)[:1]).lower()


def split(paths: list[Path], fold: int) -> tuple[list[Path], list[Path]]:
    """Returns the stamps to train on, and those that are held out."""
    words = sorted({word(path) for path in paths})
    held_out = set(words[fold::FOLDS])
    parts: tuple[list[Path], list[Path]] = ([], [])
    for path in paths:
        parts[word(path) in held_out].append(path)
    return parts


def photographs(folder: Path) -> list[Path]:
    """Returns the stamps of a class, sorted."""
    found = sorted(folder.rglob("*.png"))
    return [path for path in found if "cartoon" not in path.relative_to(folder).parts]


def write(root: Path, fold: int = 0) -> dict[str, dict[str, int]]:
    """Copies the stamps below `root`, and returns how many each split has of each class.

    Raises:
      FileNotFoundError: if they are not installed.
    """
    counts: dict[str, dict[str, int]] = {"train": {}, "validation": {}}
    for name, place in CLASSES.items():
        stamps = photographs(STAMPS / place)
        if not stamps:
            raise FileNotFoundError(f"{STAMPS / place}: install tuxpaint-stamps-default")
        for role, paths in zip(counts, split(stamps, fold), strict=True):
            folder = root / role / name
            folder.mkdir(parents=True, exist_ok=True)
            for path in paths:
                # Names are unique within a folder only.
                shutil.copy(path, folder / "_".join(path.relative_to(STAMPS / place).parts))
            counts[role][name] = len(paths)
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stamps")
    parser.add_argument("folder", type=Path, help="for the class folders")
    for role, sizes in write(parser.parse_args().folder).items():
        print(f"{role:<11}", sum(sizes.values()), sizes)
