"""What there is to measure, from the flags that say so."""

from collections.abc import Mapping, Sequence
import dataclasses
import itertools
import re
from typing import Any

from benchmarks.work import training_config
import zoo
from zoo.errors import ConfigError, suggest
from zoo.registry import ALIASES

OUT_OF_MEMORY = 12  # ENOMEM: the exit code of a measurement that had no room


@dataclasses.dataclass(frozen=True)
class Job:
    """What to measure.

    Attributes:
      model: a registered name.
      mode: "infer" or "train".
      feeds: where batches come from: "device", "host" or "real".
      batch_per_device: images.
      devices: how many, of all processes; None for all.
      image_size: None for what the model was published for.
      dtype: to compute in.
      folded: whether BatchNorm is folded into the convolutions, for inference.
      data: of input "real", as config.data.name.
      threads: that read it, per process.
      prefetch: batches to read ahead.
      parallel: config.parallel.mode.
      warmup: steps that do not count, besides the first.
      steps: that do.
      simulate_devices: on one CPU; 0 for none.
      compilation_cache: as in configs/default.py.
      join_within: seconds for all processes to meet.
    """

    model: str
    mode: str
    feeds: str = "device"
    batch_per_device: int = 64
    devices: int | None = None
    image_size: int | None = None
    dtype: str = "float32"
    folded: bool = False
    data: str = "mock:1000"
    threads: int = 2
    prefetch: int = 2
    parallel: str = "jit"
    warmup: int = 5
    steps: int = 30
    simulate_devices: int = 0
    compilation_cache: str | None = None
    join_within: float = 300.0

    def config(self, batch_size: int) -> Any:
        """Returns the configuration of a run that does this work."""
        changes = {
            "data.name": self.data if self.feeds == "real" else "mock:1000",
            "data.threads": self.threads,
            "data.prefetch": self.prefetch,
            "parallel.mode": self.parallel,
            "parallel.simulate_devices": self.simulate_devices,
            "parallel.join_within": self.join_within,
            "compilation_cache": self.compilation_cache,
        }
        return training_config(
            self.model,
            batch_size=batch_size,
            image_size=self.image_size,
            dtype=self.dtype,
            changes=changes,
        )


def match_models(patterns: Sequence[str]) -> list[str]:
    """Returns the names that match, each once, in the order of the patterns.

    Raises:
      ConfigError: for a pattern that matches none.
    """
    names: list[str] = []
    for pattern in patterns:
        found = zoo.list_models(ALIASES.get(pattern, pattern))
        if not found:
            hint = suggest(pattern, [*zoo.list_models(), *ALIASES])
            raise ConfigError(
                f"--models: {pattern!r} matches no model.{hint} `python -m zoo list --names` has "
                "all; wildcards are those of a shell"
            )
        names += found
    return list(dict.fromkeys(names))


def parse_devices(texts: Sequence[str]) -> list[int | None]:
    """Returns the numbers of devices to measure on; [None] for all there are.

    Raises:
      ConfigError: for what is no number, 1 or more.
    """
    for text in texts:
        if not re.fullmatch(r"[1-9]\d*", text.strip()):
            raise ConfigError(f"--devices: {text!r} must be a number, 1 or more, as in 1,2,4,8")
    return [int(text) for text in texts] or [None]


def make_jobs(values: Mapping[str, Any]) -> list[Job]:
    """Returns what to measure, in order.

    Args:
      values: of the flags, by name.

    Raises:
      ConfigError: for values that do not go together.
    """
    if not values["models"]:
        raise ConfigError("--models is missing: names or wildcards, as in --models='resnet*,vgg16'")
    if (values["input"] == "real") != (values["data"] is not None):
        raise ConfigError(
            f"--input={values['input']} --data={values['data']}: real input is named by --data, as "
            "in --input=real --data=folder:/path, and other input has none"
        )
    modes = ["infer", "train"] if values["mode"] == "both" else [values["mode"]]
    if values["fold"] and modes == ["train"]:
        raise ConfigError("--fold is for inference: a folded BatchNorm does not train")
    counts, names = parse_devices(values["devices"]), match_models(values["models"])
    same = {field.name for field in dataclasses.fields(Job)} & {*values}
    fields = {name: values[name] for name in same - {"devices", "mode"}}
    if values["data"] is None:
        fields.pop("data")
    return [
        Job(
            model=model,
            mode=mode,
            feeds=values["input"],
            batch_per_device=values["batch"],
            devices=count,
            folded=values["fold"] and mode == "infer",
            **fields,
        )
        for model, mode, count in itertools.product(names, modes, counts)
    ]
