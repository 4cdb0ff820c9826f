"""Optax's optimisers and schedules by name."""

from collections.abc import Mapping
import inspect
from typing import Any

import jax
import optax

from zoo.errors import ConfigError, suggest


def optimizer_names() -> list[str]:
    """Returns the optimisers of optax: public functions that take a learning rate first."""
    names = []
    for name, value in vars(optax).items():
        if inspect.isfunction(value) and not name.startswith(("_", "scale_by")):
            parameters = list(inspect.signature(value).parameters)
            if parameters[:1] == ["learning_rate"]:
                names.append(name)
    return sorted(names)


def make_schedule(
    name: str, *, learning_rate: float, total_steps: int, warmup_steps: int
) -> optax.Schedule:
    """Returns step -> learning rate: a linear warm-up, then `name`.

    Args:
      name: "constant", "cosine" (Loshchilov and Hutter 2016,
        https://arxiv.org/abs/1608.03983) or "linear"; the last two end at 0.
      learning_rate: the peak.
      total_steps: of the whole training, warm-up included.
      warmup_steps: from 0 to the peak.
    """
    steps = max(1, total_steps - warmup_steps)
    after = {
        "constant": optax.constant_schedule(learning_rate),
        "cosine": optax.cosine_decay_schedule(learning_rate, steps),
        "linear": optax.linear_schedule(learning_rate, 0.0, steps),
    }[name]
    if not warmup_steps:
        return after
    warmup = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    return optax.join_schedules([warmup, after], [warmup_steps])


def is_kernel(params: Any) -> Any:
    """Marks what weight decay applies to: kernels, not biases, scales or statistics."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def make_optimizer(
    name: str,
    schedule: optax.Schedule,
    *,
    arguments: Mapping[str, Any],
    weight_decay: float = 0.0,
    clip_norm: float = 0.0,
) -> optax.GradientTransformation:
    """Returns an optax optimiser.

    Weight decay is decoupled where the optimiser offers that itself (adamw, lamb, lion, …)
    and otherwise added to the gradient (L2), in both cases for kernels only.

    Args:
      name: one of `optimizer_names()`.
      schedule: step -> learning rate.
      arguments: further arguments of the optimiser.
      weight_decay: its coefficient.
      clip_norm: largest norm of the whole gradient; 0 for no clipping.

    Raises:
      ConfigError: for an unknown optimiser or argument, with the close ones.
    """
    names = optimizer_names()
    if name not in names:
        raise ConfigError(
            f"config.optimizer.name={name!r} is not an optimiser of optax.{suggest(name, names)} "
            f"It has {', '.join(names)}"
        )
    make = getattr(optax, name)
    accepted = [p for p in inspect.signature(make).parameters if p != "learning_rate"]
    for argument in arguments:
        if argument not in accepted:
            raise ConfigError(
                f"config.optimizer.arguments: {name} has no argument {argument!r}."
                f"{suggest(argument, accepted)} It has {', '.join(accepted)}"
            )
    arguments = dict(arguments)
    chain = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    if {"weight_decay", "mask"} <= set(accepted):
        arguments = {"weight_decay": weight_decay, "mask": is_kernel, **arguments}
    elif weight_decay:
        chain.append(optax.add_decayed_weights(weight_decay, mask=is_kernel))
    try:
        return optax.chain(*chain, make(schedule, **arguments))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"config.optimizer: optax.{name} refused {arguments}: {error}") from error
