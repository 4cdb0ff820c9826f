"""Groups of parameters by name: their own rate, their own decay, or no training at all.

A rule is a pattern and what holds for the parameters that it names:

    groups = [
        ("stem.*|stage[12].*", {"frozen": True}),
        ("stage3.*", {"rate": 0.1}),
        (".*", {}),
    ]

Frozen is for ever, or for a time, `{"frozen": "500 steps"}`: what is to train after the head
alone has settled (in a recipe any duration, "5 epochs").

A pattern is a regular expression that must match the whole path ("stem_conv/kernel",
"stage1_block1/conv1/kernel"), so that "head/.*" is the head and not "head_conv" as well. The
first rule that matches counts. What a person would not notice is an error: a rule that
applies to nothing, and a parameter that no rule names.
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import dataclasses
import math
import re
from typing import Any, TypeAlias

from flax import linen as nn
import jax

from zoo.errors import ConfigError, suggest
from zoo.paths import path_of, paths_of, why_nothing

Rule: TypeAlias = tuple[str, Mapping[str, Any]]

CATCH_ALL = ".*"


def _is_size(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value >= 0


@dataclasses.dataclass(frozen=True)
class Group:
    """One rule, checked.

    Attributes:
      pattern: of whole paths.
      rate: by which the learning rate is multiplied.
      weight_decay: instead of the optimiser's; None for that one.
      frozen: not updated; for ever: nor known to the optimiser.
      thaws: after how many steps it is no longer frozen; None for never, or if it never was.
      statistics: whether BatchNorm's averages stay as they are; None for as `frozen` says.
      optional: whether the rule may apply to nothing.
    """

    pattern: str
    rate: float = 1.0
    weight_decay: float | None = None
    frozen: bool = False
    thaws: int | None = None
    statistics: bool | None = None
    optional: bool = False

    def at(self, step: int) -> "Group":
        """Returns what holds for the next step after so many."""
        if self.thaws is None or step < self.thaws:
            return self
        return dataclasses.replace(self, frozen=False)

    @property
    def keeps_statistics(self) -> bool:
        """Whether BatchNorm's averages stay as they are."""
        return self.frozen if self.statistics is None else self.statistics


_STEPS = re.compile(r"([1-9]\d*) steps?")


def _is_frozen(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and bool(_STEPS.fullmatch(value)))


_FLAG = (lambda v: isinstance(v, bool), "True or False")
_FLAG_OR_NONE = (lambda v: v is None or isinstance(v, bool), "True, False or None")
_ALLOWED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "rate": (lambda v: _is_size(v) and v > 0, "greater than 0; to stop training say frozen"),
    "weight_decay": (lambda v: v is None or _is_size(v), "0 or more, or None"),
    "frozen": (_is_frozen, "True or False, or for how long, at least '1 steps'"),
    "statistics": _FLAG_OR_NONE,
    "optional": _FLAG,
}


def parse_groups(rules: Sequence[Rule]) -> tuple[Group, ...]:
    """Returns the rules with their defaults.

    Args:
      rules: (pattern, settings) each; the settings are the fields of `Group`, but for `thaws`:
        `frozen` is True, False or, as in "500 steps", for how long.

    Raises:
      ConfigError: for a pattern that is no regular expression, an unknown setting or a value
        that it cannot have.
    """
    groups = []
    for rule in rules:
        is_pair = isinstance(rule, list | tuple) and len(rule) == 2
        if not (is_pair and hasattr(rule[1], "items")):
            raise ConfigError(f"groups: {rule!r}: give (pattern, settings), as in ('.*', {{}})")
        pattern, settings = rule
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ConfigError(f"groups: {pattern!r} is no regular expression: {error}") from None
        for key, value in settings.items():
            if key not in _ALLOWED:
                raise ConfigError(
                    f"groups: {pattern!r} has no setting {key!r}.{suggest(key, _ALLOWED)} "
                    f"There are {', '.join(_ALLOWED)}"
                )
            holds, allowed = _ALLOWED[key]
            if not holds(value):
                raise ConfigError(f"groups: {pattern!r}: {key}={value!r}: must be {allowed}")
        duration = _STEPS.fullmatch(str(settings.get("frozen")))
        given = {**settings, "frozen": True, "thaws": int(duration[1])} if duration else settings
        groups.append(Group(pattern, **given))
    return tuple(groups)


def thaws_of(groups: Sequence[Group]) -> list[int]:
    """Returns the steps after which more trains than before, in their order."""
    return sorted({group.thaws for group in groups if group.frozen and group.thaws is not None})


def assign(params: Any, groups: Sequence[Group]) -> Any:
    """Returns the number of each parameter's group: a tree of int like `params`.

    Args:
      params: arrays or their shapes.
      groups: in the order in which they are tried; not empty.

    Raises:
      ConfigError: for a rule that applies to nothing (a last ".*" may), and for a parameter
        without a rule.
    """
    paths = paths_of(params)
    numbers = [_first(path, groups) for path in paths]
    for i, group in enumerate(groups):
        if i not in numbers and not group.optional and group.pattern != CATCH_ALL:
            raise ConfigError(_why_nothing(group.pattern, paths))
    left = [path for path, number in zip(paths, numbers, strict=True) if number is None]
    if left:
        patterns = ", ".join(repr(group.pattern) for group in groups)
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        raise ConfigError(
            f"groups: no rule is for {left[0]!r}{more} (there are {patterns}); end with "
            "('.*', {}) to train the others as usual"
        )
    return jax.tree.unflatten(jax.tree.structure(params), numbers)


def _first(path: str, groups: Sequence[Group]) -> int | None:
    matches = (i for i, group in enumerate(groups) if re.fullmatch(group.pattern, path))
    return next(matches, None)


def _why_nothing(pattern: str, paths: Sequence[str]) -> str:
    if any(re.fullmatch(pattern, path) for path in paths):
        return (
            f"groups: {pattern!r} applies to nothing: earlier rules take all that it matches; "
            "move it up"
        )
    return f"groups: {why_nothing(pattern, paths)}"


def frozen_mask(params: Any, groups: Sequence[Group]) -> Any:
    """Returns which parameters are frozen: a tree of bool like `params`.

    Args:
      params: arrays or their shapes.
      groups: as `assign` takes them; none freezes nothing.
    """
    if not groups:
        return jax.tree.map(lambda _: False, params)
    return jax.tree.map(lambda number: groups[number].frozen, assign(params, groups))


def frozen_statistics(params: Any, batch_stats: Any, groups: Sequence[Group]) -> Any:
    """Returns which of BatchNorm's averages stay as they are: bool, like `batch_stats`.

    A BatchNorm belongs to the groups of its own scale and bias; it stays if they all do. One
    that has neither is looked up by the path of its average ("stage1/bn/mean").

    Args:
      params: arrays or their shapes.
      batch_stats: likewise.
      groups: as `assign` takes them; none keeps nothing.

    Raises:
      ConfigError: as `assign`.
    """
    if not groups:
        return jax.tree.map(lambda _: False, batch_stats)
    numbers = jax.tree.leaves(assign(params, groups))
    of_module: dict[str, list[bool]] = {}
    for path, number in zip(paths_of(params), numbers, strict=True):
        of_module.setdefault(_module(path), []).append(groups[number].keeps_statistics)

    def stays(key_path: Any, _: Any) -> bool:
        path = path_of(key_path)
        if _module(path) in of_module:
            return all(of_module[_module(path)])
        number = _first(path, groups)
        return number is not None and groups[number].keeps_statistics

    return jax.tree_util.tree_map_with_path(stays, batch_stats)


def _module(path: str) -> str:
    return path.rpartition("/")[0]


def use_frozen_statistics(mask: Any) -> contextlib.AbstractContextManager[Any]:
    """Within the block, `apply(train=True)` treats frozen BatchNorms as in evaluation.

    They normalise by their averages, which stay as they are. A frozen layer that went on
    to normalise by the batch would be another function in training than in evaluation, and
    one whose averages moved would not be frozen.

    Args:
      mask: of `frozen_statistics`.

    Example:
      >>> with use_frozen_statistics({"bn": {"mean": True, "var": True}}):
      ...     pass  # logits, updated = model.apply(variables, images, train=True, …)
    """
    leaves = zip(paths_of(mask), jax.tree.leaves(mask), strict=True)
    frozen = {_module(path) for path, stays in leaves if stays}

    def change(module: nn.BatchNorm) -> None:
        if "/".join(module.path) in frozen:
            object.__setattr__(module, "use_running_average", True)

    return _changing_batch_norm(change)


def only_this_batch() -> contextlib.AbstractContextManager[Any]:
    """Within the block, `apply(train=True)` gives BatchNorm's statistics of the batch alone."""
    return _changing_batch_norm(lambda module: object.__setattr__(module, "momentum", 0.0))


def _changing_batch_norm(
    change: Callable[[nn.BatchNorm], None],
) -> contextlib.AbstractContextManager[Any]:
    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__":
            # Modules are made anew in each trace: nobody else sees this one.
            change(context.module)
        return call(*args, **kwargs)

    return nn.intercept_methods(intercept)


@dataclasses.dataclass(frozen=True)
class GroupRow:
    """One line of the table that a dry run prints.

    Attributes:
      pattern: of the paths.
      arrays: how many match first here.
      parameters: numbers in them.
      rate: factor of the learning rate; 0 if frozen.
      weight_decay: of what decays; 0 if frozen.
      decaying: numbers that it applies to; 0 where it is 0.
      frozen: whether they stay as they are.
      thaws: after how many steps no longer; rate and decay are those from then on.
      statistics: whether BatchNorm's averages do.
    """

    pattern: str
    arrays: int
    parameters: int
    rate: float
    weight_decay: float
    decaying: int
    frozen: bool
    thaws: int | None
    statistics: bool


def describe_groups(
    params: Any,
    groups: Sequence[Group],
    mask: Callable[[Any], Any],
    *,
    weight_decay: float = 0.0,
) -> list[GroupRow]:
    """Returns a row for each group, in their order; one of everything without groups.

    Args:
      params: arrays or their shapes.
      groups: as `assign` takes them.
      mask: params -> tree of bool, what decays.
      weight_decay: of the optimiser.

    Raises:
      ConfigError: as `assign`.
    """
    groups = tuple(groups) or (Group(CATCH_ALL),)
    leaves = [
        (number, p.size, decays)
        for p, number, decays in zip(
            *map(jax.tree.leaves, (params, assign(params, groups), mask(params))), strict=True
        )
    ]
    rows = []
    for i, group in enumerate(groups):
        sizes = [(size, decays) for number, size, decays in leaves if number == i]
        decay = weight_decay if group.weight_decay is None else group.weight_decay
        for_ever = group.frozen and group.thaws is None
        rate, decay = (0.0, 0.0) if for_ever else (group.rate, decay)
        rows.append(
            GroupRow(
                group.pattern,
                arrays=len(sizes),
                parameters=sum(size for size, _ in sizes),
                rate=rate,
                weight_decay=decay,
                decaying=sum(size for size, decays in sizes if decays and decay),
                frozen=group.frozen,
                thaws=group.thaws,
                statistics=group.keeps_statistics,
            )
        )
    return rows


def module_order(model: nn.Module, image_shape: Sequence[int]) -> list[str]:
    """Returns the top-level modules with parameters, in the order in which they are called.

    Nothing is computed: the order is that of a trace. (Trees that went through `jit` are
    sorted by name.)

    Args:
      model: of the zoo.
      image_shape: [H, W, C].
    """
    order: list[str] = []

    def trace(key: jax.Array) -> None:
        images = jax.numpy.zeros((1, *image_shape))
        order.extend(model.init(key, images, train=False)["params"])

    jax.eval_shape(trace, jax.random.key(0))
    return order


def _stage(module: str) -> str:
    """Returns what a module belongs to: "stage1_block2" to "stage1", "stem_bn" to "stem"."""
    first = module.split("_")[0]
    return "stem" if first.startswith("stem") else first


def layerwise_rules(
    order: Sequence[str], decay: float = 1.0, unfreeze: Sequence[int] = ()
) -> list[Rule]:
    """Returns rules by which stages train more slowly, or later, the further from the head.

    With a decay the head and auxiliary heads train at the full rate, the last stage at `decay`
    of it, the one before at `decay` squared, and so on down to the stem. (Clark et al. 2020,
    https://arxiv.org/abs/2003.10555, appendix A; Bao et al. 2021,
    https://arxiv.org/abs/2106.08254, for images.) With `unfreeze` the last stage trains from
    its first step on, the one before from its second, and those for which there is none stay
    frozen; only the heads train from the beginning (Howard and Ruder 2018,
    https://arxiv.org/abs/1801.06146, section 3.3). A stage is what shares the first part of its
    name: "stage3_block1" and "stage3_block2". Rules of one's own go in front of these.

    Args:
      order: of the modules, from the image to the head: `module_order(model, …)`.
      decay: factor per stage.
      unfreeze: steps, in ascending order; none freezes nothing.

    Raises:
      ConfigError: for a factor that is not greater than 0 and at most 1, and for more steps than
        there are stages.

    Example:
      >>> layerwise_rules(["stem_conv", "stage1_block1", "stage1_block2", "head"], 0.5)[0]
      ('stem_conv/.*', {'rate': 0.25, 'optional': True})
      >>> layerwise_rules(["stem_conv", "stage1_block1", "head"], unfreeze=(100,))[:2]
      [('stem_conv/.*', {'frozen': True, 'optional': True}), \
('stage1_block1/.*', {'frozen': '100 steps', 'optional': True})]
    """
    if not (_is_size(decay) and 0 < decay <= 1):
        raise ConfigError(
            f"layer-wise decay {decay!r}: must be greater than 0 and at most 1; 1 is no decay"
        )
    slower = _distances([m for m in order if _stage(m) != "head" and not m.startswith("aux")])
    later = _distances([m for m in order if m != "head" and not m.startswith("aux")])
    stages = max(later.values(), default=0)
    if len(unfreeze) > stages:
        raise ConfigError(
            f"unfreeze has {len(unfreeze)} times for {stages} stages "
            f"({', '.join(dict.fromkeys(map(_stage, later)))})"
        )
    frozen = dict(enumerate((f"{step} steps" for step in unfreeze), 1))
    rules: list[Rule] = []
    for module in order:
        settings: dict[str, Any] = {}
        if decay < 1:
            settings["rate"] = decay ** slower.get(module, 0)
        if unfreeze and module in later:
            settings["frozen"] = frozen.get(later[module], True)
        rules.append((f"{re.escape(module)}/.*", {**settings, "optional": True}))
    return rules


def _distances(modules: Sequence[str]) -> dict[str, int]:
    """Returns how many stages each module is away from the head; the last stage is 1."""
    stages = list(dict.fromkeys(map(_stage, modules)))
    return {module: len(stages) - stages.index(_stage(module)) for module in modules}
