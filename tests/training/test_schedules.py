"""Schedules against their formulas, optax, torch and Keras."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from zoo.errors import ConfigError
from zoo.training.schedules import (
    SCHEDULES,
    make_plateau,
    make_schedule,
    plateau_scale,
    scale_rate,
    schedule_arguments,
)

PEAK, TOTAL, WARMUP = 0.4, 100, 20


def values(name, warmup_steps=0, total=TOTAL, **options):
    schedule = make_schedule(
        name, learning_rate=PEAK, total_steps=total, warmup_steps=warmup_steps, **options
    )
    return np.array(jax.jit(jax.vmap(schedule))(np.arange(total + 20)))


def falling(name, step, steps, end):
    """Returns the rate of the formula, counted from the end of the warm-up or the start."""
    t = min(step / steps, 1)
    return {
        "linear": end + (PEAK - end) * (1 - t),
        "cosine": end + (PEAK - end) * (1 + math.cos(math.pi * t)) / 2,
        "polynomial": end + (PEAK - end) * (1 - t) ** 2,
        "step": max(end, PEAK * 0.1 ** ((step >= 40) + (step >= 75))),
        "exponential": max(end, PEAK * 0.5 ** (step / 30)),
        "inverse_time": max(end, PEAK / (1 + 2 * step / 10)),
    }[name]


ARGUMENTS = {
    "polynomial": {"power": 2.0},
    "step": {"boundaries": [40, 0.75]},
    "exponential": {"factor": 0.5, "every": 30},
    "inverse_time": {"factor": 2.0, "every": 0.1},
}


@pytest.mark.parametrize("final_fraction", [pytest.param(0.0, marks=pytest.mark.slow), 0.05])
@pytest.mark.parametrize("name", ["linear", "cosine", "polynomial", *list(ARGUMENTS)[1:]])
def test_a_schedule_is_a_warmup_and_its_formula(name, final_fraction):
    ours = values(name, WARMUP, final_fraction=final_fraction, arguments=ARGUMENTS.get(name, {}))
    by_the_clock = name in ("step", "exponential", "inverse_time")
    begin, steps = (0, TOTAL) if by_the_clock else (WARMUP, TOTAL - WARMUP)
    end = final_fraction * PEAK
    expected = [PEAK * s / WARMUP for s in range(WARMUP)]
    expected += [falling(name, s - begin, steps, end) for s in range(WARMUP, len(ours))]
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)


def test_warmups():
    from_a_tenth = values("constant", 10, warmup_fraction=0.1)
    np.testing.assert_allclose(from_a_tenth[:11], PEAK * (0.1 + 0.09 * np.arange(11)), rtol=1e-6)
    held = values("constant", 10, warmup="constant", warmup_fraction=0.25)
    np.testing.assert_allclose(held, [PEAK / 4] * 10 + [PEAK] * (len(held) - 10), rtol=1e-6)


def test_one_cycle_is_optax_s():
    final = 1e-5
    ours = values("one_cycle", final_fraction=final)
    theirs = optax.cosine_onecycle_schedule(TOTAL, PEAK, 0.3, 25, 0.04 / final)
    expected = jax.jit(jax.vmap(theirs))(jnp.arange(len(ours)))
    np.testing.assert_allclose(ours, expected, rtol=1e-4)
    line = values("one_cycle", arguments={"shape": "linear", "peak_at": 0.5, "start_fraction": 0.1})
    expected = np.interp(np.arange(len(line)), [0, 50, 100], [PEAK / 10, PEAK, 0])
    np.testing.assert_allclose(line, expected, rtol=1e-5, atol=1e-7)


def test_staircases_hold_between_steps():
    for name, held in (("exponential", PEAK * 0.97**3), ("inverse_time", PEAK / 4)):
        ours = values(name, arguments={"every": 10, "staircase": True})
        np.testing.assert_allclose(ours[30:40], held, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cosin", {}, "Did you mean 'cosine'?"),
        ("step", {"arguments": {"boundary": [3]}}, "Did you mean 'boundaries'?"),
        ("step", {}, "never changes the rate"),
        ("step", {"arguments": {"boundaries": [30.5]}}, "whole steps, or a fraction"),
        ("step", {"arguments": {"boundaries": 30}}, "a list of steps"),
        ("linear", {"arguments": {"power": 2}}, "It has none"),
        ("exponential", {"arguments": {"factor": -1}}, "greater than 0"),
        ("polynomial", {"arguments": {"power": math.nan}}, "greater than 0"),
        ("one_cycle", {"arguments": {"shape": "square"}}, "'cosine' or 'linear'"),
        ("one_cycle", {"warmup_steps": 5}, "brings its own"),
        ("constant", {"final_fraction": 0.1}, "does not fall"),
        ("linear", {"final_fraction": 1.1}, "from 0 to 1"),
        ("linear", {"warmup": "exponential"}, "'linear' or 'constant'"),
        ("linear", {"warmup": "constant", "warmup_steps": 5}, "needs a warmup_fraction"),
        ("linear", {"warmup_fraction": -1}, "from 0 to 1"),
    ],
)
def test_bad_schedules(name, options, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        values(name, **options)
    assert "\n" not in str(caught.value)


def test_every_schedule_states_its_arguments():
    for name in SCHEDULES:
        arguments = schedule_arguments(name) | ({"boundaries": [0.5]} if name == "step" else {})
        make_schedule(
            name, learning_rate=PEAK, total_steps=TOTAL, warmup_steps=0, arguments=arguments
        )
    assert scale_rate(0.1, batch_size=32, base_batch=256) == pytest.approx(0.0125)
    with pytest.raises(ConfigError, match="base_batch=0"):
        scale_rate(0.1, batch_size=32, base_batch=0)


def keras_plateau(losses, *, factor, patience, rtol, cooldown, floor):
    """Returns the scale after each value, counted as Keras's callback counts."""
    scale, best, waited, resting, scales = 1.0, math.inf, 0, 0, []
    for loss in losses:
        if resting:
            resting, waited = resting - 1, 0
            best = min(best, loss) if loss < best * (1 - rtol) else best
        elif loss < best * (1 - rtol):
            best, waited = loss, 0
        else:
            waited += 1
            if waited >= patience:
                scale, resting, waited = max(scale * factor, floor), cooldown, 0
        scales.append(scale)
    return scales


def test_the_rate_falls_on_a_plateau_whoever_observes():
    losses = np.r_[np.linspace(2, 1, 5), np.full(9, 1.0), 0.5, np.full(12, 0.7)]
    plateau = make_plateau({"factor": 0.5, "patience": 3, "cooldown": 2, "min_scale": 0.2})
    optimizer = optax.chain(optax.sgd(0.1, momentum=0.9), plateau.transform)
    params = {"w": jnp.ones(3)}
    state = jax.jit(optimizer.init)(params)
    observe, scales = jax.jit(plateau.observe), []
    for loss in losses:
        state = observe(state, loss)
        scales.append(float(plateau_scale(state)))
    expected = keras_plateau(losses, factor=0.5, patience=3, rtol=1e-4, cooldown=2, floor=0.2)
    assert scales == pytest.approx(expected)
    assert len(set(scales)) == 4
    updates, after = jax.jit(optimizer.update)(params, state, params)
    assert updates["w"].tolist() == pytest.approx([-0.1 * scales[-1]] * 3)
    assert float(plateau_scale(after)) == pytest.approx(scales[-1])  # not by a step alone


def test_a_plateau_averages_what_it_watches():
    plateau = make_plateau({"patience": 1, "accumulation_size": 4})
    state = plateau.transform.init({"w": jnp.ones(1)})
    observe = jax.jit(plateau.observe)
    for loss in (4, 0, 4, 0, 1, 3, 1, 3):  # both means are 2: no better
        state = observe(state, float(loss))
    assert float(plateau_scale(state)) == pytest.approx(0.1)
    assert float(plateau_scale({})) == 1
    with pytest.raises(ConfigError, match="Did you mean 'patience'"):
        make_plateau({"patienc": 1})
    with pytest.raises(ConfigError, match="refused"):
        make_plateau({"factor": 2.0})


# -- other libraries --------------------------------------------------------------------------


def of_torch(make, count):
    import torch

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=PEAK)
    scheduler, rates = make(torch.optim.lr_scheduler, optimizer), []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(rates)


@pytest.mark.slow
def test_schedules_are_torch_s():
    pairs = {
        "linear": (lambda s, o: s.LinearLR(o, 1.0, 0.25, TOTAL), {"final_fraction": 0.25}),
        "cosine": (
            lambda s, o: s.CosineAnnealingLR(o, TOTAL, PEAK / 10),
            {"final_fraction": 0.1},
        ),
        "polynomial": (
            lambda s, o: s.PolynomialLR(o, TOTAL, 3.0),
            {"arguments": {"power": 3.0}},
        ),
        "step": (
            lambda s, o: s.MultiStepLR(o, [30, 60, 90], 0.2),
            {"arguments": {"boundaries": [30, 60, 90], "factor": 0.2}},
        ),
        "exponential": (
            lambda s, o: s.StepLR(o, 7, 0.6),
            {"arguments": {"factor": 0.6, "every": 7, "staircase": True}},
        ),
    }
    for name, (make, options) in pairs.items():
        ours = values(name, **options)[: TOTAL + 1]
        np.testing.assert_allclose(
            ours, of_torch(make, TOTAL + 1), rtol=1e-5, atol=1e-7, err_msg=name
        )


@pytest.mark.slow
def test_one_cycle_is_torch_s():
    # Torch's phases end one step early: at 0.3 * 101 - 1 and at 101 - 1.
    for shape, theirs in (("cosine", "cos"), ("linear", "linear")):
        arguments = {"shape": shape, "peak_at": (0.3 * (TOTAL + 1) - 1) / TOTAL}
        ours = values("one_cycle", final_fraction=0.04 / 1e4, arguments=arguments)

        def make(schedulers, optimizer, anneal=theirs):
            return schedulers.OneCycleLR(
                optimizer,
                PEAK,
                total_steps=TOTAL + 1,
                anneal_strategy=anneal,
                cycle_momentum=False,
            )

        np.testing.assert_allclose(ours[: TOTAL + 1], of_torch(make, TOTAL + 1), rtol=1e-4)


@pytest.mark.slow
def test_schedules_are_keras_s(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    from keras.optimizers import schedules

    pairs = {
        "cosine": (
            schedules.CosineDecay(0.0, 80, alpha=0.1, warmup_target=PEAK, warmup_steps=20),
            {"final_fraction": 0.1, "warmup_steps": 20},
        ),
        "polynomial": (
            schedules.PolynomialDecay(PEAK, TOTAL, 0.1 * PEAK, power=2.0),
            {"final_fraction": 0.1, "arguments": {"power": 2.0}},
        ),
        "exponential": (
            schedules.ExponentialDecay(PEAK, 8, 0.9),
            {"arguments": {"factor": 0.9, "every": 8}},
        ),
        "inverse_time": (
            schedules.InverseTimeDecay(PEAK, 8, 0.9, staircase=True),
            {"arguments": {"factor": 0.9, "every": 8, "staircase": True}},
        ),
        "step": (  # a boundary is the last step with the old rate
            schedules.PiecewiseConstantDecay([29, 59], [PEAK, PEAK / 10, PEAK / 100]),
            {"arguments": {"boundaries": [30, 60]}},
        ),
    }
    for name, (theirs, options) in pairs.items():
        ours = values(name, **options)
        expected = [float(theirs(s)) for s in range(len(ours))]
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.slow
def test_plateau_is_torch_s():
    import torch

    rng = np.random.default_rng(0)
    losses = np.exp(-np.arange(120) / 30) + 0.2 * rng.random(120)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=4)
    plateau = make_plateau({"factor": 0.5, "patience": 5})
    state = plateau.transform.init({"w": jnp.ones(1)})
    for loss in losses:
        theirs.step(float(loss))
        state = plateau.observe(state, float(loss))
        assert float(plateau_scale(state)) == pytest.approx(optimizer.param_groups[0]["lr"])
    assert float(plateau_scale(state)) < 0.1


@pytest.mark.parametrize(
    "arguments", [{"patience": "5 epochs"}, {"patience": 2.5}, {"patience": 0}, {"cooldown": -1}]
)
def test_a_plateau_that_could_never_end_is_refused(arguments):
    with pytest.raises(ConfigError, match=f"{next(iter(arguments))}=.*whole number"):
        make_plateau(arguments)
