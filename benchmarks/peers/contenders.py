"""Who takes part: contenders with what each can do, and what their networks must be."""

from collections.abc import Mapping, Sequence
import dataclasses
import fnmatch
import functools
from typing import Any

from benchmarks.peers.models import MODELS, WORKS
from benchmarks.work import xla_flags
from zoo.description import describe
from zoo.errors import ConfigError, suggest
import zoo.registry
from zoo.weights.families import LAYOUTS


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way to do the work.

    Attributes:
      name: in flags and results.
      module: whose `load(job)` returns the `Worker`; imported in the contender's process.
      family: whose network it is: "zoo", "torch", "keras" or "flax".
      says: what it is, for people.
      works: of `WORKS`, what it can do.
      options: for the module.
      environment: variables of the process.
    """

    name: str
    module: str
    family: str
    says: str
    works: Sequence[str] = WORKS
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def lacks(self, model: str) -> str | None:
        """Returns why this contender cannot have a model; None if it has it."""
        if self.family == "keras" and MODELS[model].keras is None:
            return "not there: keras.applications has no such network"
        if self.family == "flax" and model != "resnet50":
            return "not there: only ResNet-50 is written plainly"
        return None


_JAX = {"JAX_PLATFORMS": "cpu"}
_TUNED = {**_JAX, "XLA_FLAGS": xla_flags()}
# What zoo's programs ask glibc for themselves, `zoo.training.memory`.
_KEEP_MEMORY = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.arena_max=1:"
    "glibc.malloc.trim_threshold=1000000000000"
}
_ZOO = "benchmarks.peers.by_zoo"
_TORCH = "benchmarks.peers.by_torch"
_KERAS = "benchmarks.peers.by_keras"
_KERAS_JAX = {"KERAS_BACKEND": "jax"}

CONTENDERS: dict[str, Contender] = {
    contender.name: contender
    for contender in (
        Contender(
            "zoo",
            _ZOO,
            "zoo",
            "zoo as its programs run it; inference with BatchNorm folded",
            options={"folded": True, "onednn": True},
            environment=_TUNED,
        ),
        Contender(
            "zoo_without_onednn",
            _ZOO,
            "zoo",
            "zoo without its extra `cpu`: convolutions by XLA",
            options={"folded": True, "onednn": False},
            environment=_TUNED,
        ),
        Contender(
            "zoo_unfolded",
            _ZOO,
            "zoo",
            "zoo, inference as it was trained",
            works=("infer",),
            options={"folded": False, "onednn": True},
            environment=_TUNED,
        ),
        Contender(
            "keras",
            _KERAS,
            "keras",
            "Keras on JAX as it comes: train_on_batch, predict_on_batch",
            options={"jitted": False},
            environment={**_JAX, **_KERAS_JAX},
        ),
        Contender(
            "keras_tuned",
            _KERAS,
            "keras",
            "Keras on JAX, zoo's XLA flags, memory kept; inference by jax.jit of stateless_call",
            options={"jitted": True},
            environment={**_TUNED, **_KERAS_JAX, **_KEEP_MEMORY},
        ),
        Contender(
            "flax",
            "benchmarks.peers.by_flax",
            "flax",
            "a plain flax network, as flax's ImageNet example",
            environment=_JAX,
        ),
        Contender("torch", _TORCH, "torch", "torch as it comes: eager, NCHW", options={}),
        Contender(
            "torch_channels_last",
            _TORCH,
            "torch",
            "torch eager, channels_last, fused SGD",
            options={"channels_last": True, "fused": True},
        ),
        Contender(
            "torch_compile",
            _TORCH,
            "torch",
            "torch.compile, channels_last, fused SGD, memory kept; inference with freezing",
            options={"channels_last": True, "fused": True, "compiled": True},
            environment=_KEEP_MEMORY,
        ),
        Contender(
            "onnxruntime",
            "benchmarks.peers.by_onnxruntime",
            "torch",
            "onnxruntime, all graph optimisations, of torch's network",
            works=("infer",),
        ),
    )
}


def choose(patterns: Sequence[str], table: Mapping[str, Any], flag: str) -> list[str]:
    """Returns the names that match any of the wildcard patterns, in the table's order.

    Raises:
      ConfigError: for a pattern that matches nothing.

    Example:
      >>> choose(["mobile*_v2", "resnet50"], MODELS, "models")
      ['resnet50', 'mobilenet_v2']
    """
    for pattern in patterns:
        if not fnmatch.filter(table, pattern):
            hint = suggest(pattern, list(table))
            raise ConfigError(f"--{flag}={pattern!r}: no such.{hint} There are {', '.join(table)}")
    return [name for name in table if any(fnmatch.fnmatchcase(name, p) for p in patterns)]


def image_size(model: str) -> int:
    """Returns height and width of the images that a model was published for."""
    return zoo.registry.find_model(model).image_shape[0]


@dataclasses.dataclass(frozen=True)
class Network:
    """What zoo knows of a network that a contender runs.

    Attributes:
      parameters: how many train; the contender's own count must be the same.
      macs: multiply-adds for one image, auxiliary heads left out.
      differs: from the model zoo is measured with; "" for nothing.
    """

    parameters: int
    macs: int
    differs: str


def network_of(model: str, family: str, size: int) -> Network:
    """Returns what the network of that family must be, by zoo's own variant of it.

    Args:
      model: of `MODELS`.
      family: see `Contender`.
      size: height and width of the images.
    """
    name, fields = _variant(model, family)
    ours, theirs = _count(model, size), _count(name, size, **fields)
    notes = [f"{k}={v}" for k, v in fields.items()]
    notes = [f"as zoo's {name}({', '.join(notes)})"] if notes or name != model else []
    for what, a, b in (
        ("parameters", ours.parameters, theirs.parameters),
        ("multiply-adds", ours.macs, theirs.macs),
    ):
        if a != b:
            notes.append(f"{b / a - 1:+.2%} {what}")
    return dataclasses.replace(theirs, differs=", ".join(notes))


def _variant(model: str, family: str) -> tuple[str, Mapping[str, Any]]:
    """Returns zoo's name and fields of the network that a family publishes as the model."""
    names = MODELS[model]
    if family == "torch":
        return model, LAYOUTS[model][names.torch[0]].fields
    if family == "keras":
        name = names.keras_ours or model
        return name, LAYOUTS[name]["keras"].fields
    return model, {}


@functools.cache
def _count(name: str, size: int, **fields: Any) -> Network:
    channels = zoo.registry.find_model(name).image_shape[2]
    described = describe(name, image_shape=(size, size, channels), **fields)
    return Network(described.parameters, described.macs, "")
