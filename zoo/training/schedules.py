"""Learning rates: a warm-up, then one of eight schedules by name, and reduction on a plateau.

Two kinds of schedule meet the warm-up differently. Those that end somewhere (linear, cosine,
polynomial) are spread over the steps that the warm-up leaves. Those that fall by the clock
(step, exponential, inverse_time) count from the start of the training; the warm-up replaces
their beginning, as in the recipes they come from ("divide by 10 at epochs 30, 60 and 80":
Goyal et al. 2017, https://arxiv.org/abs/1706.02677, sections 2.2 and 5.1).
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import inspect
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from zoo.errors import ConfigError, suggest

WARMUPS = ("linear", "constant")


def _step(rate: float, total: int, *, boundaries: Sequence[int | float] = (), factor: float = 0.1):
    if not boundaries:
        raise ConfigError(
            "schedule 'step': boundaries=() never changes the rate; give steps, as in "
            "[3000, 6000], or fractions of the training, as in [0.5, 0.75]"
        )
    # Two fractions of a short training may fall on one step; the factors then multiply.
    scales: dict[int, float] = {}
    for boundary in boundaries:
        at = _steps("step", "boundaries", boundary, total)
        scales[at] = scales.get(at, 1.0) * factor
    return optax.piecewise_constant_schedule(rate, scales)


def _exponential(
    rate: float, total: int, *, factor: float = 0.97, every: float = 0.01, staircase: bool = False
):
    return optax.exponential_decay(
        rate, _steps("exponential", "every", every, total), factor, staircase=staircase
    )


def _inverse_time(
    rate: float, total: int, *, factor: float = 1.0, every: float = 0.1, staircase: bool = False
):
    steps = _steps("inverse_time", "every", every, total)

    def schedule(count: Any) -> jax.Array:
        passed = jnp.asarray(count, jnp.float32) / steps
        return rate / (1 + factor * (jnp.floor(passed) if staircase else passed))

    return schedule


def _constant(rate: float, total: int, end: float):
    return optax.constant_schedule(rate)


def _linear(rate: float, total: int, end: float):
    return optax.linear_schedule(rate, end, total)


def _cosine(rate: float, total: int, end: float):
    return optax.cosine_decay_schedule(rate, total, end / rate)


def _polynomial(rate: float, total: int, end: float, *, power: float = 1.0):
    return optax.polynomial_schedule(rate, end, power, total)


def _one_cycle(
    rate: float,
    total: int,
    end: float,
    *,
    peak_at: float = 0.3,
    start_fraction: float = 0.04,
    shape: str = "cosine",
):
    if shape not in ("cosine", "linear"):
        raise ConfigError(f"schedule 'one_cycle': shape={shape!r}: must be 'cosine' or 'linear'")
    start, peak = rate * start_fraction, peak_at * total

    def schedule(count: Any) -> jax.Array:
        count = jnp.asarray(count, jnp.float32)
        up = count < peak
        passed = jnp.clip(jnp.where(up, count / peak, (count - peak) / (total - peak)), 0, 1)
        if shape == "cosine":
            passed = (1 - jnp.cos(jnp.pi * passed)) / 2
        begin, reached = jnp.where(up, start, rate), jnp.where(up, rate, end)
        return begin * (1 - passed) + reached * passed

    return schedule


TO_THE_END: dict[str, Callable[..., optax.Schedule]] = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "polynomial": _polynomial,
    "one_cycle": _one_cycle,
}
BY_THE_CLOCK: dict[str, Callable[..., optax.Schedule]] = {
    "step": _step,
    "exponential": _exponential,
    "inverse_time": _inverse_time,
}
SCHEDULES = (*TO_THE_END, *BY_THE_CLOCK)

_POSITIVE = (lambda v: _is_number(v) and v > 0, "greater than 0")
_INSIDE = (lambda v: _is_number(v) and 0 < v < 1, "greater than 0 and less than 1")
_ALLOWED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "factor": _POSITIVE,
    "power": _POSITIVE,
    "every": _POSITIVE,
    "peak_at": _INSIDE,
    "start_fraction": _INSIDE,
    "staircase": (lambda v: isinstance(v, bool), "True or False"),
    "boundaries": (
        lambda v: isinstance(v, list | tuple) and all(_is_number(b) and b > 0 for b in v),
        "a list of steps or of fractions of the training, each greater than 0",
    ),
}


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _steps(name: str, key: str, value: int | float, total: int) -> int:
    """Returns a whole number as it is, and a fraction of the training in steps."""
    if isinstance(value, float) and value < 1:
        return max(1, round(value * total))
    if value != int(value):
        raise ConfigError(
            f"schedule {name!r}: {key}={value!r}: must be whole steps, or a fraction of the "
            "training, less than 1"
        )
    return int(value)


def schedule_arguments(name: str) -> dict[str, Any]:
    """Returns the further arguments of a schedule with their defaults.

    Args:
      name: one of `SCHEDULES`.

    Raises:
      ConfigError: for another name.

    Example:
      >>> schedule_arguments("step")
      {'boundaries': (), 'factor': 0.1}
    """
    if name not in SCHEDULES:
        raise ConfigError(
            f"schedule={name!r} does not exist.{suggest(name, SCHEDULES)} "
            f"There are {', '.join(SCHEDULES)}"
        )
    parameters = inspect.signature((TO_THE_END | BY_THE_CLOCK)[name]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def make_schedule(
    name: str,
    *,
    learning_rate: float,
    total_steps: int,
    warmup_steps: int,
    arguments: Mapping[str, Any] | None = None,
    final_fraction: float = 0.0,
    warmup: str = "linear",
    warmup_fraction: float | None = None,
) -> optax.Schedule:
    """Returns step -> learning rate: a warm-up, then `name`.

    With r the peak, and t the passed part of the steps after the warm-up:

    * constant: r.
    * linear: r (1 - t).
    * cosine: r (1 + cos pi t) / 2 (Loshchilov and Hutter 2016, arXiv 1608.03983, eq. 5).
    * polynomial: r (1 - t)^`power`.
    * one_cycle: from r `start_fraction` up to r at t = `peak_at`, then down to the end, along
      half cosines or, with `shape="linear"`, straight (Smith and Topin 2017, arXiv
      1708.07120, section 3). Momentum is left alone.
    * step: r times `factor` for each of `boundaries` that is reached.
    * exponential: r `factor`^(step / `every`); `staircase` rounds the exponent down.
    * inverse_time: r / (1 + `factor` step / `every`); `staircase` likewise.

    `boundaries` and `every` are whole steps, or, less than 1, fractions of `total_steps`. A
    boundary is the first step with the new rate, as in torch and optax; in Keras it is the
    last with the old one.

    Args:
      name: one of `SCHEDULES`.
      learning_rate: the peak.
      total_steps: of the whole training, warm-up included.
      warmup_steps: how many come first; 0 for no warm-up.
      arguments: further ones of the schedule; `schedule_arguments(name)` has the defaults.
      final_fraction: of the peak: where linear, cosine, polynomial and one_cycle end, and
        what step, exponential and inverse_time do not fall below.
      warmup: "linear", from `warmup_fraction` of the peak to the peak, or "constant", at
        `warmup_fraction` of it (both in Goyal et al. 2017, arXiv 1706.02677, section 2.2).
      warmup_fraction: 0 unless given for "linear"; "constant" needs one.

    Raises:
      ConfigError: for names, arguments and combinations that cannot work.
    """
    given = _checked(name, arguments or {})
    _check_ends(name, warmup_steps, final_fraction, warmup, warmup_fraction)
    end = final_fraction * learning_rate
    if name in TO_THE_END:
        rest = max(1, total_steps - warmup_steps)
        after = TO_THE_END[name](learning_rate, rest, end, **given)
        start = warmup_steps
    else:
        after = _not_below(end, BY_THE_CLOCK[name](learning_rate, total_steps, **given))
        start = 0
    if not warmup_steps:
        return after
    begin = learning_rate * (warmup_fraction or 0.0)
    reached = learning_rate if warmup == "linear" else begin
    rising = optax.linear_schedule(begin, reached, warmup_steps)
    shifted = after if start else _shifted(after, warmup_steps)
    return optax.join_schedules([rising, shifted], [warmup_steps])


def _not_below(least: float, schedule: optax.Schedule) -> optax.Schedule:
    return lambda count: jnp.maximum(least, schedule(count)) if least else schedule(count)


def _shifted(schedule: optax.Schedule, steps: int) -> optax.Schedule:
    return lambda count: schedule(count + steps)


def _checked(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    accepted = schedule_arguments(name)
    for key, value in arguments.items():
        if key not in accepted:
            has = f"It has {', '.join(accepted)}" if accepted else "It has none"
            raise ConfigError(
                f"schedule {name!r} has no argument {key!r}.{suggest(key, accepted)} {has}"
            )
        holds, allowed = _ALLOWED.get(key, (lambda v: True, ""))
        if not holds(value):
            raise ConfigError(f"schedule {name!r}: {key}={value!r}: must be {allowed}")
    return dict(arguments)


def _check_ends(
    name: str, warmup_steps: int, final: float, warmup: str, warmup_fraction: float | None
) -> None:
    if not (_is_number(final) and 0 <= final <= 1):
        raise ConfigError(f"final_fraction={final!r}: must be from 0 to 1, a part of the peak")
    if name == "constant" and final:
        raise ConfigError(
            f"final_fraction={final!r}: schedule 'constant' does not fall; take 'linear' or "
            "'cosine'"
        )
    if name == "one_cycle" and warmup_steps:
        raise ConfigError(
            f"a warm-up of {warmup_steps} steps: schedule 'one_cycle' brings its own; leave the "
            "warm-up out and set its argument peak_at"
        )
    if warmup not in WARMUPS:
        raise ConfigError(f"warmup={warmup!r}: must be {' or '.join(map(repr, WARMUPS))}")
    if warmup_fraction is None and warmup == "constant" and warmup_steps:
        raise ConfigError("warmup='constant' needs a warmup_fraction of the peak, as in 0.1")
    if warmup_fraction is not None:
        if not (_is_number(warmup_fraction) and 0 <= warmup_fraction <= 1):
            raise ConfigError(f"warmup_fraction={warmup_fraction!r}: must be from 0 to 1")


def scale_rate(base_rate: float, *, batch_size: int, base_batch: int) -> float:
    """Returns the rate for a batch: k times as many examples, k times the rate.

    The linear scaling rule of Goyal et al. 2017, https://arxiv.org/abs/1706.02677, section
    2.1; it wants a warm-up, and holds up to about 8192 examples in their Figure 1.

    Args:
      base_rate: the rate that suits `base_batch`.
      batch_size: examples per update, over all devices and accumulated micro-batches.
      base_batch: for which `base_rate` was found, such as 256.

    Raises:
      ConfigError: if a batch is not positive.

    Example:
      >>> scale_rate(0.1, batch_size=1024, base_batch=256)
      0.4
    """
    for key, value in (("batch_size", batch_size), ("base_batch", base_batch)):
        if value <= 0:
            raise ConfigError(f"{key}={value!r}: must be greater than 0")
    return base_rate * batch_size / base_batch


@dataclasses.dataclass(frozen=True)
class Plateau:
    """Reduces the rate when what it watches stops falling.

    `transform` comes last in the chain, behind the optimiser: it multiplies updates by the
    present scale and keeps optax's `ReduceLROnPlateauState`, so that the scale is saved and
    restored with the optimiser's state. `observe` alone moves that state. So either loss can
    feed it: call it within the training step with each training loss (and an
    `accumulation_size` of steps), or after each evaluation with the validation's.

    Attributes:
      transform: of optax.
      observe: (opt_state, value []) -> opt_state; pure, jittable, for the state of any chain
        that contains `transform`.
    """

    transform: optax.GradientTransformation
    observe: Callable[[Any, jax.typing.ArrayLike], Any]


def _is_plateau(node: Any) -> bool:
    return isinstance(node, optax.contrib.ReduceLROnPlateauState)


def make_plateau(arguments: Mapping[str, Any] | None = None) -> Plateau:
    """Returns the two halves of `optax.contrib.reduce_on_plateau`.

    Values must fall as the network gets better: a loss, or 1 - accuracy. A value counts as
    better below (1 - `rtol`) times the best one, less `atol`. NaN counts as not better.

    Args:
      arguments: `factor` (0.1), `patience` (10 values without a better one; Keras counts so,
        torch waits for one more), `rtol` (1e-4), `atol` (0), `cooldown` (0 values),
        `accumulation_size` (1: how many are averaged into one), `min_scale` (0).

    Raises:
      ConfigError: for arguments that optax does not take.
    """
    arguments = dict(arguments or {})
    accepted = list(inspect.signature(optax.contrib.reduce_on_plateau).parameters)
    for key in arguments:
        if key not in accepted:
            raise ConfigError(
                f"plateau has no argument {key!r}.{suggest(key, accepted)} "
                f"It has {', '.join(accepted)}"
            )
    for key in ("patience", "cooldown", "accumulation_size"):
        value, least = arguments.get(key, 1), int(key != "cooldown")
        # Optax asks whether a count equals them, which no text and no fraction ever does.
        if not (_is_number(value) and value == int(value) and value >= least):
            raise ConfigError(
                f"plateau: {key}={value!r}: must be a whole number of values, {least} or more"
            )
    try:
        inner = optax.contrib.reduce_on_plateau(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"plateau refused {arguments}: {error}") from error

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return jax.tree.map(lambda u: (state.scale * u).astype(u.dtype), updates), state

    def observe(opt_state: Any, value: jax.typing.ArrayLike) -> Any:
        def advance(node: Any) -> Any:
            return inner.update((), node, value=value)[1] if _is_plateau(node) else node

        return jax.tree.map(advance, opt_state, is_leaf=_is_plateau)

    return Plateau(optax.GradientTransformation(inner.init, update), observe)


def plateau_scale(opt_state: Any) -> jax.Array:
    """Returns what `Plateau` multiplies the rate by now, float32 []; 1 without one."""
    nodes = jax.tree.leaves(opt_state, is_leaf=_is_plateau)
    scales = [jnp.asarray(n.scale, jnp.float32) for n in nodes if _is_plateau(n)]
    return math.prod(scales, start=jnp.ones(()))
