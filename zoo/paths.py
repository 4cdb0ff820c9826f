"""Arrays of a tree by name: "stage1_block1/conv1/kernel"."""

from collections.abc import Sequence
import difflib
import re
from typing import Any

import jax


def path_of(key_path: Sequence[Any]) -> str:
    """Returns "stage1_block1/conv1/kernel" of a path of `jax.tree_util`."""
    return "/".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in key_path)


def paths_of(tree: Any) -> list[str]:
    """Returns the path of each leaf, in the order of `jax.tree.leaves`."""
    return [path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def why_nothing(pattern: str, paths: Sequence[str]) -> str:
    """Returns in words why a pattern matches none of the paths as a whole, and what is close.

    Example:
      >>> why_nothing("stem", ["stem_conv/kernel", "head/bias"])
      "'stem' matches no whole path, only a part of 'stem_conv/kernel'; did you mean 'stem.*'?"
    """
    within = next((path for path in paths if re.search(pattern, path)), None)
    if within is not None:
        return (
            f"{pattern!r} matches no whole path, only a part of {within!r}; "
            f"did you mean {f'{pattern}.*' if re.match(pattern, within) else f'.*{pattern}.*'!r}?"
        )
    return f"{pattern!r} matches no parameter.{_near(pattern, paths)}"


def _near(pattern: str, paths: Sequence[str]) -> str:
    """Returns the closest paths, by their first name and as a whole."""
    names = dict.fromkeys(part for path in paths for part in (path.split("/")[0], path))
    word = re.sub(r"[^\w/]+", "", pattern)
    close = difflib.get_close_matches(word, list(names), n=3, cutoff=0.5)
    return f" Close are {', '.join(close or list(names)[:3])}"
