"""From a configuration to how the parameters are changed."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import numpy as np
import optax

from zoo.errors import ConfigError
from zoo.layers import Classifier
from zoo.training.config import Config, Plan
from zoo.training.groups import (
    Group,
    assign,
    frozen_mask,
    frozen_statistics,
    layerwise_rules,
    module_order,
    parse_groups,
    thaws_of,
)
from zoo.training.optimizer import decay_mask, make_optimizer
from zoo.training.schedules import Plateau, make_plateau, make_schedule, plateau_scale
from zoo.training.state import TrainState
from zoo.training.step import Frozen, Penalty


@dataclasses.dataclass(frozen=True)
class Optimization:
    """How the parameters are changed, from one step on.

    Attributes:
      schedule: step -> learning rate, before any plateau.
      plateau: what reduces it further; None for nothing.
      optimizer: optax's, with the plateau behind it.
      groups: rules by parameter, as they are by then; none treats all alike.
      frozen: what they keep as it is.
      penalty: for the size of the weights.
    """

    schedule: optax.Schedule
    plateau: Plateau | None
    optimizer: optax.GradientTransformation
    groups: tuple[Group, ...]
    frozen: Frozen
    penalty: Penalty

    @property
    def thaws(self) -> list[int]:
        """The steps after which more trains, and all this is another."""
        return thaws_of(self.groups)

    def observe(self, state: TrainState, loss: jax.typing.ArrayLike) -> TrainState:
        """Tells the plateau, if there is one, of a validation loss."""
        if self.plateau is None:
            return state
        return dataclasses.replace(state, opt_state=self.plateau.observe(state.opt_state, loss))

    def rate(self, state: TrainState) -> float:
        """Returns the learning rate that the last step was made with, or the last good one.

        Of several replicas it is the mean.
        """
        updates = np.atleast_1d(np.asarray(state.step) - np.asarray(state.skips.total) - 1)
        scales = np.broadcast_to(np.asarray(plateau_scale(state.opt_state)), updates.shape)
        pairs = zip(updates.tolist(), scales, strict=True)
        rates = [float(np.asarray(self.schedule(max(0, n)) * scale)) for n, scale in pairs]
        return sum(rates) / len(rates)


def make_optimization(
    config: Config, plan: Plan, model: Classifier, shapes: Any, step: int = 0
) -> Optimization:
    """Returns how a configuration changes the parameters.

    Args:
      config: see configs/default.py.
      plan: what follows from it.
      model: of the zoo.
      shapes: of its variables.
      step: from which on.

    Raises:
      ConfigError: for whatever does not exist, does not fit the parameters, or trains nothing.
    """
    settings = config.optimizer
    params, statistics = shapes["params"], shapes.get("batch_stats", {})
    rules = list(plan.groups)
    try:
        if settings.layer_decay < 1 or plan.unfreeze:
            order = module_order(model, plan.image_shape)
            rules += layerwise_rules(order, settings.layer_decay, plan.unfreeze)
        groups = tuple(group.at(step) for group in parse_groups(rules))
        schedule = make_schedule(
            settings.schedule,
            learning_rate=plan.learning_rate,
            total_steps=plan.total_steps,
            warmup_steps=plan.warmup_steps,
            arguments=plan.schedule_arguments,
            final_fraction=settings.final_fraction,
            warmup_fraction=settings.warmup_fraction,
        )
        optimizer = make_optimizer(
            settings.name,
            schedule,
            arguments=settings.arguments.to_dict(),
            weight_decay=settings.weight_decay,
            decay=settings.decay,
            clip_norm=settings.clip_norm,
            clip_value=settings.clip_value,
            clip_adaptive=settings.clip_adaptive,
            groups=rules,
            step=step,
        )
        plateau = make_plateau(settings.plateau.to_dict()) if settings.plateau else None
        if plateau is not None:
            optimizer = optax.chain(optimizer, plateau.transform)
        jax.eval_shape(optimizer.init, params)  # groups and patterns are checked here
        _check_groups(params, groups, len(plan.groups), plan.total_steps)
    except ConfigError as error:
        text = str(error)
        raise ConfigError(
            text if text.startswith("config.") else f"config.optimizer: {text}"
        ) from error
    frozen = Frozen()
    if any(group.frozen or group.keeps_statistics for group in groups):
        frozen = Frozen(frozen_mask(params, groups), frozen_statistics(params, statistics, groups))
    penalty = Penalty(config.loss.l1, config.loss.l2, decay_mask(settings.decay))
    return Optimization(schedule, plateau, optimizer, groups, frozen, penalty)


def _check_groups(params: Any, groups: Sequence[Group], given: int, total_steps: int) -> None:
    """Refuses groups of which nothing trains, or only later, or that no parameter comes to.

    Args:
      params: their shapes.
      groups: those of the configuration, and then those by stage.
      given: how many are the configuration's.
      total_steps: of the training.
    """
    if not groups:
        return
    numbers = set(jax.tree.leaves(assign(params, groups)))
    if all(groups[number].frozen for number in numbers):
        raise ConfigError("groups: everything is frozen; leave something to train")
    if len(groups) > given and max(numbers) < given:
        raise ConfigError(
            "layer_decay or unfreeze has no effect, as groups take every parameter; leave out "
            f"the rule {groups[given - 1].pattern!r}"
        )
    late = [group for group in groups if group.frozen and (group.thaws or 0) >= total_steps]
    if late:
        raise ConfigError(
            f"groups: {late[0].pattern!r} is frozen for {late[0].thaws} steps, and the whole "
            f"training has {total_steps}; train for longer, or say frozen=True"
        )
