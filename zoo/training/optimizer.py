"""Optax's optimisers by name, with decay of kernels only, clipping and groups."""

from collections.abc import Callable, Mapping, Sequence
import functools
import inspect
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from zoo.errors import ConfigError, suggest
from zoo.paths import path_of
from zoo.training.groups import Group, Rule, assign, frozen_mask, parse_groups
from zoo.training.schedules import make_schedule

__all__ = [
    "ALIASES",
    "clipping",
    "decay_mask",
    "is_kernel",
    "make_optimizer",
    "make_schedule",
    "optimizer_names",
]

# Names that people expect, as optax's with other defaults.
ALIASES: dict[str, tuple[str, dict[str, Any]]] = {
    "momentum": ("sgd", {"momentum": 0.9}),
    "nesterov": ("sgd", {"momentum": 0.9, "nesterov": True}),
    "nadam": ("adam", {"nesterov": True}),
    "nadamw": ("adamw", {"nesterov": True}),
    # TensorFlow's: the average of squares begins at 1, epsilon is inside the root, and the
    # rate is inside the momentum. The values are those of Tan and Le 2019,
    # https://arxiv.org/abs/1905.11946, section 5.2, and of their code (epsilon).
    "rmsprop_tf": (
        "rmsprop",
        {"decay": 0.9, "momentum": 0.9, "eps": 1e-3, "initial_scale": 1.0, "eps_in_sqrt": True},
    ),
}

Mask = Callable[[Any], Any]


def optimizer_names() -> list[str]:
    """Returns the optimisers: optax's that take a learning rate first, and `ALIASES`."""
    names = list(ALIASES)
    for name, value in vars(optax).items():
        if name == "lbfgs":  # wants the loss and its gradient again and again
            continue
        if inspect.isfunction(value) and not name.startswith(("_", "scale_by")):
            parameters = list(inspect.signature(value).parameters)
            if parameters[:1] == ["learning_rate"]:
                names.append(name)
    return sorted(names)


def is_kernel(params: Any) -> Any:
    """Marks what weight decay applies to: kernels, not biases, scales or statistics."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def decay_mask(pattern: str | None = None) -> Mask:
    """Returns params -> tree of bool: what weight decay, L1 and L2 apply to.

    Args:
      pattern: regular expression of whole paths ("stage.*/kernel"); None for all kernels.

    Raises:
      ConfigError: for a pattern that is no regular expression.
    """
    if pattern is None:
        return is_kernel
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"decay {pattern!r} is no regular expression: {error}") from None

    def mask(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: compiled.fullmatch(path_of(path)) is not None, params
        )

    return mask


def _not_head(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path_of(path).split("/")[0] != "head", params
    )


def clipping(
    *, norm: float = 0.0, value: float = 0.0, adaptive: float = 0.0
) -> list[optax.GradientTransformation]:
    """Returns the transformations that bound the gradient, in the order of their use.

    Args:
      norm: largest norm of the whole gradient, last.
      value: largest size of a single number, first.
      adaptive: largest norm of a unit's gradient as a part of the norm of its weights; the
        head goes free (Brock et al. 2021, https://arxiv.org/abs/2102.06171, section 4.1).

    Each is 0 for none.

    Raises:
      ConfigError: for a negative one.
    """
    for key, given in (("norm", norm), ("value", value), ("adaptive", adaptive)):
        if not 0 <= given < float("inf"):
            raise ConfigError(f"clipping by {key}={given!r}: must be 0 (none) or more")
    chain = []
    if value:
        chain.append(optax.clip(value))
    if adaptive:
        chain.append(optax.masked(optax.adaptive_grad_clip(adaptive), _not_head))
    if norm:
        chain.append(optax.clip_by_global_norm(norm))
    return chain


def make_optimizer(
    name: str,
    schedule: optax.Schedule,
    *,
    arguments: Mapping[str, Any],
    weight_decay: float = 0.0,
    clip_norm: float = 0.0,
    clip_value: float = 0.0,
    clip_adaptive: float = 0.0,
    decay: str | None = None,
    groups: Sequence[Rule] = (),
    step: int = 0,
) -> optax.GradientTransformation:
    """Returns an optax optimiser.

    Weight decay is decoupled where the optimiser offers that itself (adamw, lamb, lion, …)
    and otherwise added to the gradient (L2), in both cases for kernels only. LARS scales by
    the trust ratio what it decays, and nothing else (You et al. 2017,
    https://arxiv.org/abs/1708.03888).

    With groups, what is clipped is the gradient of all that trains: frozen parameters do
    not count in its norm. They have no state, and their gradients are not computed under
    `jit` unless somebody else uses them. Parameters that are frozen for a time have a state,
    which waits as it was begun: averages start with the first gradient that counts, but the
    rate is by then where the schedule is.

    Args:
      name: one of `optimizer_names()`.
      schedule: step -> learning rate.
      arguments: further arguments of the optimiser.
      weight_decay: its coefficient.
      clip_norm: largest norm of the whole gradient; 0 for no clipping.
      clip_value: largest size of a single number of the gradient; 0 for no clipping.
      clip_adaptive: largest norm of a unit's gradient against its weights'; 0 for no
        clipping; see `clipping`.
      decay: regular expression of the whole paths that decay, instead of the kernels.
      groups: see `zoo.training.groups`; none treats all parameters alike.
      step: after which the optimiser is used, which says what is still frozen. The state has
        the same structure at all steps.

    Raises:
      ConfigError: for an unknown optimiser or argument, with the close ones; `init` raises
        it for groups and patterns that do not fit the parameters.
    """
    make, checked = functools.partial(_make_one, name), _checked(name, arguments)
    clip = clipping(norm=clip_norm, value=clip_value, adaptive=clip_adaptive)
    mask = decay_mask(decay)
    parsed = [group.at(step) for group in parse_groups(groups)]
    if not parsed:
        optimizer = optax.chain(
            *clip, *make(schedule, arguments=checked, weight_decay=weight_decay, mask=mask)
        )
    else:
        parts: dict[Any, optax.GradientTransformation] = {}
        for i, group in enumerate(parsed):
            if group.frozen and group.thaws is None:
                parts[i] = optax.set_to_zero()
                continue
            own, kept = weight_decay, checked
            if group.weight_decay is not None:  # counts more than the optimiser's argument
                own = group.weight_decay
                kept = {k: v for k, v in checked.items() if k != "weight_decay"}
            scaled = _times(schedule, group.rate, group.thaws or 0)
            part = optax.chain(*make(scaled, arguments=kept, weight_decay=own, mask=mask))
            parts[i] = _waiting(part) if group.frozen else part
        train = optax.partition(parts, functools.partial(assign, groups=parsed))
        optimizer = optax.chain(*_without_frozen(parsed), *clip, train)
    return optimizer if decay is None else _decaying_something(optimizer, decay, mask)


def _times(schedule: optax.Schedule, factor: float, begun: int) -> optax.Schedule:
    """Returns a schedule times a factor, for an optimiser that begins to count at a step."""
    if factor == 1 and not begun:
        return schedule
    return lambda count: factor * schedule(count + begun)


def _waiting(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns what changes nothing, and has the optimiser's state as that was begun."""

    def update(updates: Any, state: Any, params: Any = None, **_: Any) -> tuple[Any, Any]:
        del params
        return jax.tree.map(jnp.zeros_like, updates), state

    return optax.GradientTransformationExtraArgs(optimizer.init, update)


def _without_frozen(groups: Sequence[Group]) -> list[optax.GradientTransformation]:
    mask = functools.partial(frozen_mask, groups=groups)
    frozen = any(group.frozen or group.thaws is not None for group in groups)
    return [optax.masked(optax.set_to_zero(), mask)] if frozen else []


def _decaying_something(
    optimizer: optax.GradientTransformation, pattern: str, mask: Mask
) -> optax.GradientTransformation:
    def init(params: Any) -> optax.OptState:
        if not any(jax.tree.leaves(mask(params))):
            example = path_of(jax.tree_util.tree_leaves_with_path(params)[0][0])
            raise ConfigError(
                f"decay {pattern!r} matches no parameter; it must match a whole path, such as "
                f"{example!r}"
            )
        return optimizer.init(params)

    return optax.GradientTransformationExtraArgs(init, optimizer.update)


def _accepted(name: str) -> list[str]:
    make = getattr(optax, ALIASES[name][0] if name in ALIASES else name)
    return [p for p in inspect.signature(make).parameters if p != "learning_rate"]


def _checked(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    names = optimizer_names()
    if name not in names:
        raise ConfigError(
            f"config.optimizer.name={name!r} is not an optimiser of optax."
            f"{suggest(name.lower(), names)} It has {', '.join(names)}"
        )
    accepted = _accepted(name)
    for argument in arguments:
        if argument not in accepted:
            raise ConfigError(
                f"config.optimizer.arguments: {name} has no argument {argument!r}."
                f"{suggest(argument, accepted)} It has {', '.join(accepted)}"
            )
    return dict(arguments)


def _make_one(
    name: str,
    schedule: optax.Schedule,
    *,
    arguments: Mapping[str, Any],
    weight_decay: float,
    mask: Mask,
) -> list[optax.GradientTransformation]:
    """Returns the optimiser, behind what adds the decay that it lacks."""
    base, defaults = ALIASES.get(name, (name, {}))
    accepted = _accepted(name)
    arguments = {**defaults, **arguments}
    added = []
    if {"weight_decay", "mask"} <= set(accepted):
        arguments = {"weight_decay": weight_decay, "mask": mask, **arguments}
    elif {"weight_decay", "weight_decay_mask"} <= set(accepted):
        arguments = {"weight_decay": weight_decay, "weight_decay_mask": mask, **arguments}
        if "trust_ratio_mask" in accepted:
            arguments = {"trust_ratio_mask": mask, **arguments}
    elif weight_decay:
        added.append(optax.add_decayed_weights(weight_decay, mask=mask))
    try:
        return [*added, getattr(optax, base)(schedule, **arguments)]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"config.optimizer: optax.{base} refused {arguments}: {error}") from error
