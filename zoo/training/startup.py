"""How our programs start JAX: the compiler's flags, and where compiled programs are kept.

Called by the programs (train.py, benchmarks/, `python -m zoo augment`), before JAX has
started. `import zoo` does nothing of this: it belongs to whoever imports.
"""

from collections.abc import Iterable, Mapping
from importlib import metadata
import importlib.util
import os
import pkgutil
import re
from typing import Any, NamedTuple

import jax
from jax._src import xla_bridge  # whether JAX has started has no public name

from zoo.ops import onednn as convolutions
from zoo.ops import onednn_library
from zoo.training.compiled import keep_programs, where_kept
from zoo.training.memory import keep_memory
from zoo.training.report import warn


class Flag(NamedTuple):
    """A flag of XLA that makes our programs faster.

    Attributes:
      platform: where: "cpu" or "gpu".
      text: as in XLA_FLAGS.
      since: the first jaxlib that is known to take it.
      until: the last one; XLA ends the process for a flag that it does not know, so a version
        that nobody has tried gets none.
    """

    platform: str
    text: str
    since: tuple[int, ...]
    until: tuple[int, ...]


# The first leaves dense convolutions to Eigen: 3x3 in float32 took 15 ms there, 40 ms in YNN's
# kernels (4x56x56x96, two AVX-512 cores). The second overlaps gradients' sums with what is
# computed meanwhile (https://docs.jax.dev/en/latest/gpu_performance_tips.html); not measured by us.
FLAGS = (
    Flag("cpu", "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution", (0, 10), (0, 12)),
    Flag("gpu", "--xla_gpu_enable_latency_hiding_scheduler=true", (0, 10), (0, 12)),
)

_GPU = ("cuda", "gpu", "rocm")


def start(folder: str | None, *, on_cpu: bool = False, onednn: bool = True) -> None:
    """Sets up the compiler and where programs are kept. Call it before JAX has started.

    Where it has started, within a program that calls one of ours, only the folder is still set.

    Args:
      folder: for compiled programs, see `zoo.training.compiled.keep_programs`.
      on_cpu: whether the program will use the CPU whatever else there is.
      onednn: whether oneDNN may compute convolutions on a CPU, where it is installed.
    """
    given = os.environ.get("XLA_FLAGS", "")
    configured = jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
    platforms = {"cpu"} if on_cpu else find_platforms(configured, _plugins())
    flags = with_flags(given, platforms, _release(metadata.version("jaxlib")))
    # XLA reads flags when it starts. Later they would change nothing but what JAX believes to have
    # compiled with, and so under which name it keeps programs.
    if not xla_bridge.backends_are_initialized():
        if flags != given:
            os.environ["XLA_FLAGS"] = flags
        if platforms == {"cpu"}:
            keep_memory()
            if onednn and convolutions.installed():
                use_onednn()
    problem = keep_programs(folder)
    if problem:
        warn(problem)


def use_onednn() -> None:
    """Lets oneDNN compute convolutions, or warns that it cannot."""
    try:
        convolutions.enable()
    except convolutions.OneDNNError as error:
        warn(f"{error}; XLA computes all convolutions")


def find_platforms(configured: str | None, plugins: Iterable[str]) -> set[str]:
    """Returns on which of "cpu", "gpu" and "tpu" JAX may be going to compute.

    Args:
      configured: JAX's setting of that name, "tpu,cpu" on a TPU host; None: JAX will look.
      plugins: names of those installed. The CPU remains possible with a GPU's: there may be
        no GPU. One that is not known may be built from any version of XLA, so that nothing
        can be said of its flags.

    Example:
      >>> find_platforms("cuda", []), find_platforms(None, []), find_platforms(None, ["metal"])
      ({'gpu'}, {'cpu'}, set())
    """
    if configured:
        first = configured.split(",")[0]
        known = {"cpu": "cpu", "tpu": "tpu"} | dict.fromkeys(_GPU, "gpu")
        return {known[first]} if first in known else set()
    found = list(plugins)
    if any(not any(name in plugin for name in _GPU) for plugin in found):
        return set()
    return {"cpu", "gpu"} if found else {"cpu"}


def _plugins() -> set[str]:
    """Returns the names of JAX's plugins that are installed, found as JAX finds them."""
    names = {point.name for point in metadata.entry_points(group="jax_plugins")}
    spec = importlib.util.find_spec("jax_plugins")  # a folder that the plugins share
    folders = spec.submodule_search_locations if spec else None
    return names | {module.name for module in pkgutil.iter_modules(folders or [])}


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def with_flags(given: str, platforms: set[str], release: tuple[int, ...]) -> str:
    """Returns XLA_FLAGS with ours added; one whose name is given stays as it was given.

    Args:
      given: the user's. A text that does not begin with a dash names a file, which XLA reads;
        it is left alone.
      platforms: on which JAX may compute.
      release: of jaxlib, major and minor.

    Example:
      >>> with_flags("--xla_gpu_autotune_level=0", {"gpu"}, (0, 10))
      '--xla_gpu_autotune_level=0 --xla_gpu_enable_latency_hiding_scheduler=true'
    """
    if given.strip() and not given.lstrip().startswith("-"):
        return given
    names = {flag.split("=")[0] for flag in given.split()}
    ours = [
        flag.text
        for flag in FLAGS
        if flag.platform in platforms
        and flag.since <= release <= flag.until
        and flag.text.split("=")[0] not in names
    ]
    return " ".join([*given.split(), *ours]) if ours else given


def describe_compiler(env: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Returns what a run's header says of the compiler: what holds, whoever has set it."""
    return {
        "xla_flags": env.get("XLA_FLAGS") or "none",
        "convolutions_on_cpu": f"oneDNN {onednn_library.version()}"
        if convolutions.enabled()
        else "XLA",
        "programs_kept_in": where_kept(),
    }
