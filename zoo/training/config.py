"""Checks a configuration before any work is done, and derives what follows from it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
import contextlib
import dataclasses
import functools
import math
from pathlib import Path
import re
from typing import Any, TypeAlias

from absl import flags
from ml_collections import ConfigDict

from zoo.data.crop import DECODINGS
from zoo.errors import ConfigError, suggest
from zoo.images import CHANNEL_ORDERS, FITS, INTERPOLATIONS
from zoo.training.groups import Rule
from zoo.training.parallel import MODES
from zoo.training.schedules import SCHEDULES, scale_rate
from zoo.weights.preprocessing import Preprocessing, are_names

Config: TypeAlias = Any  # an ml_collections.ConfigDict; its fields have no static types

DTYPES = ("float32", "bfloat16")

# Keys under which a recipe may put anything; whoever reads them checks them.
FREE_FORM = (
    "model.arguments",
    "task.arguments",
    "augment.crop",
    "augment.mix",
    "optimizer.arguments",
    "optimizer.schedule_arguments",
    "optimizer.plateau",
)

# Keys that may change between two runs in one workdir without making the second another
# experiment. A changed `train_for` moves the end of the schedule, which is why it is not here.
HARMLESS = (
    "log_every",
    "max_skipped",
    "dry_run",
    "check_gradients",
    "compilation_cache",
    "data.data_dir",
    "data.cache",
    "data.features",
    "data.resident",
    "data.max_bad_examples",
    "data.threads",
    "data.prefetch",
    "checkpoint.keep",
    "checkpoint.allow_changes",
    "parallel.fsdp",
    "parallel.simulate_devices",
    "parallel.heartbeat",
    "parallel.join_within",
    "parallel.watchdog",
)


def to_steps(duration: str, *, batch_size: int, num_examples: int) -> int:
    """Returns a duration in whole steps.

    Args:
      duration: a number and a unit: steps, epochs (may be fractions) or examples.
      batch_size: the global batch.
      num_examples: the size of an epoch.

    Raises:
      ConfigError: for anything else.

    Example:
      >>> [to_steps(d, batch_size=100, num_examples=1050) for d in ("7 steps", "2 epochs")]
      [7, 21]
    """
    match = re.fullmatch(r"\s*([\d_]+(?:\.\d*)?(?:e\d+)?)\s*(step|epoch|example)s?\s*", duration)
    if match is None:
        raise ConfigError(
            f"duration {duration!r}: give a number and a unit, as in '500 steps', "
            "'2.5 epochs' or '60000 examples'"
        )
    count, unit = float(match[1]), match[2]
    if unit == "step":
        return math.ceil(count)
    return math.ceil(count * (num_examples if unit == "epoch" else 1) / batch_size)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The numbers that follow from config, data and devices; printed in the header."""

    total_steps: int
    steps_per_epoch: float
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    warmup_steps: int
    learning_rate: float  # the peak, scaled with the batch
    schedule_arguments: dict[str, Any]  # durations in steps
    groups: tuple[Rule, ...]  # likewise
    unfreeze: tuple[int, ...]
    swa_start: int | None
    swa_every: int
    patience: int | None  # in steps
    batch_per_device: int
    num_outputs: int
    image_shape: tuple[int, int, int]


def flatten(config: Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted key, value) of every leaf; a free-form key is one leaf."""
    for key in config.keys():
        value, path = config[key], f"{prefix}{key}"
        if isinstance(value, ConfigDict) and path not in FREE_FORM:
            yield from flatten(value, f"{path}.")
        else:
            yield path, value


def plain(config: Config) -> dict[str, Any]:
    """Returns a configuration as one flat dict of JSON values."""
    return {key: _jsonable(value) for key, value in flatten(config)}


def _jsonable(value: Any) -> Any:
    """Returns a value as it will be read back from JSON; what JSON has not, by its repr."""
    if isinstance(value, ConfigDict):
        value = value.to_dict()
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def changed_keys(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Returns the keys whose change makes a continued run another experiment."""
    keys = {*old, *new} - set(HARMLESS)
    return sorted(key for key in keys if old.get(key) != new.get(key))


def check_keys(config: Config, reference: Config) -> None:
    """Refuses a configuration with keys or types that the reference does not have.

    Raises:
      ConfigError: naming the key, what is allowed and the close matches.
    """
    known = dict(flatten(reference))
    for key, value in flatten(config):
        if key not in known:
            raise ConfigError(
                f"config.{key}={value!r} is read by nobody: {_no_such_key(key, known)}"
            )
        wanted = _type_of(reference, key)
        if value is not None and not isinstance(value, wanted):
            if not (wanted is float and type(value) is int):
                raise ConfigError(
                    f"config.{key}={value!r} is {type(value).__name__}, wanted {wanted.__name__}"
                )
        if value is None and known[key] is not None:
            raise ConfigError(f"config.{key} is None, wanted {wanted.__name__}")
    missing = [key for key in known if key not in dict(flatten(config))]
    if missing:
        raise ConfigError(f"config.{missing[0]} is missing; start from configs/default.py")


def _type_of(config: Config, key: str) -> type:
    *parents, leaf = key.split(".")
    for parent in parents:
        config = config[parent]
    return config.get_type(leaf)


Check = tuple[Callable[[Any], bool], str]


def _one_of(allowed: Sequence[str]) -> Check:
    return lambda value: value in allowed, "one of " + ", ".join(map(repr, allowed))


def _or_none(check: Check) -> Check:
    holds, text = check
    return lambda value: value is None or holds(value), text


def _are_numbers(values: Sequence[Any]) -> bool:
    return len(values) in (1, 3) and all(isinstance(v, int | float) for v in values)


_POSITIVE = (lambda v: v is None or v > 0, "greater than 0")
_NOT_NEGATIVE = (lambda v: v >= 0 and math.isfinite(v), "0 or more")
_PART = (lambda v: 0 <= v <= 1, "from 0 to 1")
_FRACTION = (lambda v: 0 <= v < 1, "at least 0 and less than 1")

VALUES: dict[str, Check] = {
    "seed": (lambda v: 0 <= v < 2**32, "from 0 to 2**32 - 1"),
    "seeds": _POSITIVE,
    "batch_size": _POSITIVE,
    "accumulate": _POSITIVE,
    "max_skipped": _NOT_NEGATIVE,
    "model.num_classes": _POSITIVE,
    "model.dtype": _one_of(DTYPES),
    "data.train_split": (bool, "the name of a split"),
    "data.image_size": _POSITIVE,
    "data.channels": (lambda v: v in (None, 1, 3), "1 or 3"),
    "data.fit": _or_none(_one_of(FITS)),
    "data.crop_fraction": _or_none((lambda v: 0 < v <= 1, "greater than 0 and at most 1")),
    "data.interpolation": _or_none(_one_of(tuple(INTERPOLATIONS))),
    "data.mean": _or_none((_are_numbers, "1 or 3 numbers")),
    "data.std": _or_none(
        (lambda v: _are_numbers(v) and min(v) > 0, "1 or 3 numbers greater than 0")
    ),
    "data.channel_order": _or_none(_one_of(CHANNEL_ORDERS)),
    "data.decoding": _one_of(DECODINGS),
    "data.max_bad_examples": _NOT_NEGATIVE,
    "data.threads": _POSITIVE,
    "data.prefetch": _NOT_NEGATIVE,
    "loss.aux_weight": _or_none(_NOT_NEGATIVE),
    "loss.l1": _NOT_NEGATIVE,
    "loss.l2": _NOT_NEGATIVE,
    "optimizer.learning_rate": (lambda v: v > 0 and math.isfinite(v), "greater than 0"),
    "optimizer.base_batch": _POSITIVE,
    "optimizer.schedule": _one_of(SCHEDULES),
    "optimizer.final_fraction": _PART,
    "optimizer.warmup_fraction": _PART,
    "optimizer.weight_decay": _NOT_NEGATIVE,
    "optimizer.clip_norm": _NOT_NEGATIVE,
    "optimizer.clip_value": _NOT_NEGATIVE,
    "optimizer.clip_adaptive": _NOT_NEGATIVE,
    "optimizer.layer_decay": (lambda v: 0 < v <= 1, "greater than 0 and at most 1"),
    "average.ema_decay": _FRACTION,
    "best.min_delta": _NOT_NEGATIVE,
    "parallel.mode": _one_of(MODES),
    "parallel.fsdp": _POSITIVE,
    "parallel.simulate_devices": _NOT_NEGATIVE,
    "parallel.heartbeat": (lambda v: v >= 5, "5 seconds or more"),
    "parallel.join_within": _POSITIVE,
    "parallel.watchdog": _or_none(_NOT_NEGATIVE),
    "checkpoint.keep": (lambda v: v >= 2, "2 or more (the older one is there for a damaged newer)"),
}


def check_values(config: Config) -> None:
    """Refuses values that cannot work whatever the data and the devices.

    Raises:
      ConfigError: naming the key, the value and what is allowed.
    """
    leaves = dict(flatten(config))
    for key, (allowed, text) in VALUES.items():
        if not allowed(leaves[key]):
            raise ConfigError(f"config.{key}={leaves[key]!r}: must be {text}")


def make_preprocessing(
    config: Config,
    weights: Preprocessing | None,
    published_shape: tuple[int, int, int],
    class_names: Sequence[str],
    num_outputs: int | None = None,
) -> Preprocessing:
    """Returns how images are prepared: what the config says, else what the weights want.

    Args:
      config: the configuration.
      weights: what belongs to the weights to begin with, if there are any.
      published_shape: [H, W, C] the model was published for, which counts without weights.
      class_names: of the dataset.
      num_outputs: of the head, whose names they are if there are as many; None for as many.

    Raises:
      ConfigError: for values per channel of another number of channels.
    """
    data = config.data
    size, _, channels = published_shape
    base = weights or Preprocessing(size, (0.5,), (0.5,), crop_fraction=1.0)
    channels = data.channels or (len(base.mean) if weights else channels)
    given = {"image_size", "fit", "crop_fraction", "interpolation", "channel_order"}
    given = {key: data[key] for key in given if data[key] is not None}
    if "image_size" in given or "crop_fraction" in given:
        given |= {"test_image_size": None, "test_crop_fraction": None}  # of another network
    base = base.with_channels(channels)
    for key in ("mean", "std"):
        values = getattr(base, key) if data[key] is None else data[key]
        if len(values) not in (1, channels):
            raise ConfigError(
                f"config.data.{key}={values!r}: the images have {channels} channel(s)"
            )
        given[key] = tuple(values) * (channels // len(values))
    whole = num_outputs is None or are_names(class_names, num_outputs)
    return base.replace(**given, class_names=tuple(class_names) if whole else None)


def make_plan(
    config: Config,
    *,
    num_examples: int,
    num_outputs: int,
    image_shape: tuple[int, int, int],
    num_devices: int,
) -> Plan:
    """Returns the derived numbers, having checked that they fit together.

    Args:
      config: the configuration.
      num_examples: the size of the training split.
      num_outputs: of the head.
      image_shape: [H, W, C] that the network sees.
      num_devices: over which a batch is spread.

    Raises:
      ConfigError: for numbers that do not go together.
    """
    _check_batch(config, num_devices)
    in_steps = functools.partial(to_steps, batch_size=config.batch_size, num_examples=num_examples)

    def steps(key: str, least: int = 1) -> int:
        value = _leaf(config, key)
        try:
            count = in_steps(value)
        except ConfigError as error:
            raise ConfigError(f"config.{key}: {error}") from None
        if count < least:
            raise ConfigError(f"config.{key}={value!r}: must be at least one step")
        return count

    def steps_or_none(key: str) -> int | None:
        return steps(key) if _leaf(config, key) else None

    plan = Plan(
        total_steps=steps("train_for"),
        steps_per_epoch=num_examples / config.batch_size,
        log_every=steps("log_every"),
        evaluate_every=steps("evaluate_every"),
        checkpoint_every=steps("checkpoint.every"),
        warmup_steps=steps("optimizer.warmup", 0),
        learning_rate=_learning_rate(config),
        schedule_arguments=_durations_in_steps(
            config.optimizer.schedule_arguments.to_dict(), in_steps
        ),
        groups=_groups_in_steps(config.optimizer.groups, in_steps),
        unfreeze=_unfreeze_in_steps(config.optimizer.unfreeze, in_steps),
        swa_start=steps_or_none("average.swa_start"),
        swa_every=steps("average.swa_every"),
        patience=steps_or_none("best.patience"),
        batch_per_device=config.batch_size // num_devices,
        num_outputs=num_outputs,
        image_shape=image_shape,
    )
    for key, count in (
        ("optimizer.warmup", plan.warmup_steps),
        ("average.swa_start", plan.swa_start or 0),
    ):
        if count > plan.total_steps:
            raise ConfigError(
                f"config.{key}={_leaf(config, key)!r} is {count} steps, "
                f"longer than the whole training ({plan.total_steps} steps)"
            )
    return plan


def _check_batch(config: Config, num_devices: int) -> None:
    parts = num_devices * config.accumulate
    if config.batch_size % parts:
        near = max(1, round(config.batch_size / parts)) * parts
        by = f"{num_devices} devices"
        by += f" in {config.accumulate} parts each" if config.accumulate > 1 else ""
        raise ConfigError(
            f"config.batch_size={config.batch_size} cannot be divided among {by}; {near} can"
        )


def _leaf(config: Config, key: str) -> Any:
    for name in key.split("."):
        config = config[name]
    return config


def _learning_rate(config: Config) -> float:
    optimizer = config.optimizer
    if optimizer.base_batch is None:
        return optimizer.learning_rate
    return scale_rate(
        optimizer.learning_rate, batch_size=config.batch_size, base_batch=optimizer.base_batch
    )


def _durations_in_steps(value: Any, in_steps: Callable[[str], int]) -> Any:
    """Returns a schedule's arguments with every duration such as "30 epochs" in steps."""
    if isinstance(value, dict):
        return {key: _durations_in_steps(item, in_steps) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_durations_in_steps(item, in_steps) for item in value]
    is_duration = isinstance(value, str) and value[:1].isdigit()
    return in_steps(value) if is_duration else value


def _groups_in_steps(rules: Sequence[Rule], in_steps: Callable[[str], int]) -> tuple[Rule, ...]:
    """Returns rules with every duration of `frozen` in steps; whatever else is wrong stays so."""

    def convert(rule: Any) -> Any:
        if not (isinstance(rule, list | tuple) and len(rule) == 2 and hasattr(rule[1], "items")):
            return rule
        pattern, settings = rule[0], dict(rule[1].items())
        if isinstance(settings.get("frozen"), str):
            try:
                settings["frozen"] = f"{in_steps(settings['frozen'])} steps"
            except ConfigError as error:
                raise ConfigError(f"config.optimizer.groups: {pattern!r}: {error}") from None
        return pattern, settings

    return tuple(map(convert, rules))


def _unfreeze_in_steps(durations: Sequence[str], in_steps: Callable[[str], int]) -> tuple[int, ...]:
    try:
        steps = tuple(in_steps(duration) for duration in durations)
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"config.optimizer.unfreeze={durations!r}: {error}") from None
    if list(steps) != sorted(steps) or 0 in steps:
        raise ConfigError(
            f"config.optimizer.unfreeze={durations!r}: must be one duration for each stage, from "
            "the last one back, each at least one step and none shorter than the one before"
        )
    return steps


@contextlib.contextmanager
def explain_flags(argv: Sequence[str], reference: Config) -> Iterator[None]:
    """Turns what goes wrong while flags are parsed into a ConfigError.

    Args:
      argv: the command line.
      reference: the defaults, for the keys there are.

    Raises:
      ConfigError: for an unknown key, before anything is parsed; and for any error in the
        block, which may come from a flag or from the config file.
    """
    keys = dict(flatten(reference))
    for argument in argv:
        match = re.match(r"--?(?:no)?config\.([\w.]+)", argument)
        if match and match[1] not in keys:
            raise ConfigError(f"--config.{match[1]}: {_no_such_key(match[1], keys)}")
    files = [a.split("=", 1)[-1].split(":")[0] for a in argv if re.match(r"--?config=", a)]
    if not files:
        raise ConfigError("--config=FILE is missing; the recipes are in configs/")
    if not Path(files[-1]).is_file():
        recipes = [str(p) for p in Path("configs").glob("*.py") if p.stem != "default"]
        raise ConfigError(f"--config={files[-1]}: no such file.{suggest(files[-1], recipes)}")
    try:
        yield
    except flags.IllegalFlagValueError as error:
        match = re.search(r"flag --config\.([\w.]+)=(.*?): ", str(error))
        if match is None:  # raised inside the recipe
            raise ConfigError(f"--config={files[-1]}: {_last_line(error)}") from error
        wanted = _type_of(reference, match[1]).__name__
        raise ConfigError(f"--config.{match[1]}={match[2]}: wanted {wanted}") from error
    except flags.Error as error:
        raise ConfigError(
            f"{error}; the flags are --config, --workdir, --config.KEY and those of JAX"
        ) from error
    except Exception as error:  # a recipe is Python: it can fail in any way
        unknown = re.search(r'Key "(\w+)" does not exist', str(error))
        if unknown:
            raise ConfigError(
                f"--config={files[-1]}: {unknown[1]!r}: {_no_such_key(unknown[1], keys)}"
            ) from error
        raise ConfigError(
            f"--config={files[-1]}: {type(error).__name__}: {_last_line(error)}"
        ) from error


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [repr(error)]
    return lines[-1]


def _no_such_key(name: str, keys: Iterable[str]) -> str:
    """Says in words that a key does not exist, and what was probably meant."""
    for prefix in FREE_FORM:
        if name.startswith(f"{prefix}."):
            inside = name.removeprefix(f"{prefix}.")
            return f"give the whole dict, as in --config.{prefix}=\"{{'{inside}': …}}\""
    inside = [key for key in keys if key.startswith(f"{name}.")]
    if inside:
        return f"is a group of keys; set one of {', '.join(inside)}"
    leaf = name.rpartition(".")[2]
    elsewhere = [key for key in keys if key.rpartition(".")[2] == leaf]
    hint = f" Did you mean {elsewhere[0]!r}?" if elsewhere else suggest(name, keys)
    return f"there is no such key.{hint} configs/default.py has every key"
