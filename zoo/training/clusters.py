"""Whether this process is one of several that train together, read off its environment.

JAX's distributed runtime knows SLURM, Open MPI, Kubernetes and Cloud TPU; what is decided
here is whether to call it, and what it cannot know: whether a process that is alone on its
host has all of the host's devices. What cannot be told is asked for, not guessed.
"""

from collections.abc import Mapping
import dataclasses
import importlib.util
import re

from zoo.errors import ConfigError

ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
ALONE = f"a process that is to train by itself is started with {COUNT}=1"


@dataclasses.dataclass(frozen=True)
class Cluster:
    """What the environment says of a run of several processes.

    Attributes:
      name: of what started them, for people.
      method: what JAX calls it, to ask it for whatever is None here; "any": JAX tries all;
        "deactivate": there is nothing to ask.
      address: host:port of process 0.
      count: of processes.
      index: of this process.
      local_device: the one to take, where others on its host see the same devices; None: all
        it sees.
    """

    name: str
    method: str = "deactivate"
    address: str | None = None
    count: int | None = None
    index: int | None = None
    local_device: int | None = None


def find_cluster(env: Mapping[str, str], platforms: str = "") -> Cluster | None:
    """Returns how this process is one of several; None if it trains by itself.

    What JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID say goes before what a
    launcher says, each by itself. JAX_NUM_PROCESSES=1 without an id means no others.

    Args:
      env: the environment.
      platforms: JAX's, by which to know a Cloud TPU host: "tpu,…" there.

    Raises:
      ConfigError: if it is one of several, and something is missing or wrong.

    Example:
      >>> find_cluster({"JAX_COORDINATOR_ADDRESS": "host0:1234", "OMPI_COMM_WORLD_SIZE": "2",
      ...               "OMPI_COMM_WORLD_RANK": "1"})
      Cluster(name='Open MPI', method='deactivate', address='host0:1234', count=2, index=1, \
local_device=None)
    """
    given = {name: env[name] for name in (ADDRESS, COUNT, INDEX) if env.get(name)}
    if given.get(COUNT) == "1" and INDEX not in given:
        return None
    found = _slurm(env) or _open_mpi(env) or _cloud_tpu(env, platforms) or _kubernetes(env)
    if found is None and not given:
        return None
    found = _with_given(found or Cluster("variables"), given)
    _check(found)
    whole = None not in (found.address, found.count, found.index)
    return dataclasses.replace(found, method="deactivate") if whole else found


def _slurm(env: Mapping[str, str]) -> Cluster | None:
    # A batch script and a shell in an allocation have SLURM_NTASKS, but no step of so many.
    if env.get("SLURM_STEP_NUM_TASKS", "1") == "1" or "SLURM_PROCID" not in env:
        return None
    node = int(env.get("SLURM_NODEID", "0"))
    here = _tasks_of_nodes(env.get("SLURM_STEP_TASKS_PER_NODE", ""))[node : node + 1]
    return Cluster(
        "SLURM",
        "slurm",
        count=int(env["SLURM_STEP_NUM_TASKS"]),
        index=int(env["SLURM_PROCID"]),
        local_device=_local_device(env, here[0] if here else 1, "SLURM_LOCALID"),
    )


def _tasks_of_nodes(text: str) -> list[int]:
    """Returns SLURM's tasks per node, of which "2(x3),1" is [2, 2, 2, 1]."""
    tasks = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):
        tasks += [int(count)] * int(times or 1)
    return tasks


def _local_device(env: Mapping[str, str], processes: int, rank: str) -> int | None:
    """Returns which device to take if so many processes on a host see the same ones.

    A launcher that gives each its own leaves fewer to see than there are processes.
    """
    seen = env.get("CUDA_VISIBLE_DEVICES")
    shared = processes > 1 and (seen is None or len(seen.split(",")) >= processes)
    return int(env[rank]) if shared and rank in env else None


def _open_mpi(env: Mapping[str, str]) -> Cluster | None:
    if env.get("OMPI_COMM_WORLD_SIZE", "1") == "1":
        return None
    here = int(env.get("OMPI_COMM_WORLD_LOCAL_SIZE", "1"))
    old = "OMPI_MCA_orte_hnp_uri" in env  # Open MPI 4 tells where it was started
    asked = "ompi" if old else "mpi4py" if importlib.util.find_spec("mpi4py") else "deactivate"
    return Cluster(
        "Open MPI",
        asked,
        count=int(env["OMPI_COMM_WORLD_SIZE"]),
        index=int(env["OMPI_COMM_WORLD_RANK"]),
        local_device=_local_device(env, here, "OMPI_COMM_WORLD_LOCAL_RANK"),
    )


def _cloud_tpu(env: Mapping[str, str], platforms: str) -> Cluster | None:
    # JAX sets its platforms to "tpu,cpu" where it finds a TPU. Who the other hosts are it reads
    # from variables, in Kubernetes, or else asks the host's metadata server.
    hosts = env.get("TPU_PROCESS_ADDRESSES") or env.get("TPU_WORKER_HOSTNAMES")
    several = "," in hosts if hosts else not env.get("TPU_SKIP_MDS_QUERY")
    return Cluster("Cloud TPU", "any") if platforms.startswith("tpu") and several else None


def _kubernetes(env: Mapping[str, str]) -> Cluster | None:
    if "KUBERNETES_SERVICE_HOST" not in env or "JOB_COMPLETION_INDEX" not in env:
        return None
    asked = "any" if importlib.util.find_spec("kubernetes") else "deactivate"
    return Cluster("Kubernetes", asked, index=int(env["JOB_COMPLETION_INDEX"]))


def _with_given(found: Cluster, given: Mapping[str, str]) -> Cluster:
    """Returns the cluster as the three variables change it."""
    numbers = {}
    for name in (COUNT, INDEX):
        if name in given:
            try:
                numbers[name] = int(given[name])
            except ValueError:
                raise ConfigError(f"{name}={given[name]!r} must be a number") from None
    return dataclasses.replace(
        found,
        address=given.get(ADDRESS),
        count=numbers.get(COUNT, found.count),
        index=numbers.get(INDEX, found.index),
    )


_MORE = {
    "Open MPI": "; Open MPI 5 does not tell where process 0 is, but mpi4py, if installed, does",
    "Kubernetes": ", as this is a pod of an indexed job; or install jax[k8s], which finds out",
}


def _check(found: Cluster) -> None:
    """Refuses what is incomplete or cannot be."""
    values = {ADDRESS: found.address, COUNT: found.count, INDEX: found.index}
    absent = [name for name, value in values.items() if value is None]
    if absent and found.method == "deactivate":
        more = _MORE.get(found.name, "")
        raise ConfigError(
            f"a run of several processes needs {', '.join(absent)} set as well{more} (README, "
            f"Scaling out). And {ALONE}"
        )
    if found.address is not None and not re.fullmatch(r".+:\d+", found.address):
        raise ConfigError(f"{ADDRESS}={found.address!r}: wanted HOST:PORT, of process 0")
    if found.count is not None and not 0 <= (found.index or 0) < found.count:
        raise ConfigError(
            f"process {found.index} of {found.count}: they are counted from 0 ({COUNT}, {INDEX})"
        )
