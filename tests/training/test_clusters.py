"""What environments say, and what is asked for where they do not."""

import pytest

from zoo.errors import ConfigError
from zoo.training import clusters
from zoo.training.clusters import find_cluster

ADDRESS = {"JAX_COORDINATOR_ADDRESS": "host0:1234"}
VARIABLES = {**ADDRESS, "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "2"}
BATCH_SCRIPT = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}
SLURM = {
    **BATCH_SCRIPT,
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "3",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "1(x4)",
}
SHARED_NODE = {"SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_STEP_TASKS_PER_NODE": "1,3"}
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}
OLD_MPI = {**OPEN_MPI, "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911"}
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
INDEXED = {**POD, "JOB_COMPLETION_INDEX": "1"}


@pytest.fixture(autouse=True)
def no_packages(monkeypatch):
    """Neither mpi4py nor kubernetes is installed, whatever is."""
    monkeypatch.setattr(clusters.importlib.util, "find_spec", lambda name: None)


@pytest.mark.parametrize(
    ("env", "platforms"),
    [
        ({}, ""),
        ({}, "cuda"),
        (BATCH_SCRIPT, ""),
        ({**BATCH_SCRIPT, "SLURM_STEP_NUM_TASKS": "1"}, ""),  # a shell in an allocation
        ({**OPEN_MPI, "OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}, ""),
        (POD, ""),
        ({"TPU_SKIP_MDS_QUERY": "1"}, "tpu,cpu"),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, "tpu,cpu"),
        ({**SLURM, "JAX_NUM_PROCESSES": "1"}, ""),
        ({**INDEXED, "JAX_NUM_PROCESSES": "1"}, ""),
    ],
)
def test_alone(env, platforms):
    assert find_cluster(env, platforms) is None


@pytest.mark.parametrize(
    ("env", "platforms", "expected"),
    [
        (VARIABLES, "", ("variables", "deactivate", "host0:1234", 4, 2, None)),
        (SLURM, "", ("SLURM", "slurm", None, 4, 3, None)),
        ({**SLURM, **SHARED_NODE}, "", ("SLURM", "slurm", None, 4, 3, 1)),
        (
            {**SLURM, **SHARED_NODE, "CUDA_VISIBLE_DEVICES": "1"},  # SLURM gave it that
            "",
            ("SLURM", "slurm", None, 4, 3, None),
        ),
        ({**SLURM, **ADDRESS}, "", ("SLURM", "deactivate", "host0:1234", 4, 3, None)),
        ({**SLURM, **VARIABLES}, "", ("SLURM", "deactivate", "host0:1234", 4, 2, None)),
        (OLD_MPI, "", ("Open MPI", "ompi", None, 2, 1, 1)),
        ({**OPEN_MPI, **ADDRESS}, "", ("Open MPI", "deactivate", "host0:1234", 2, 1, 1)),
        (
            {**INDEXED, **ADDRESS, "JAX_NUM_PROCESSES": "4"},
            "",
            ("Kubernetes", "deactivate", "host0:1234", 4, 1, None),
        ),
        ({}, "tpu,cpu", ("Cloud TPU", "any", None, None, None, None)),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "tpu,cpu", ("Cloud TPU", "any", None, None, None, None)),
    ],
)
def test_one_of_several(env, platforms, expected):
    found = find_cluster(env, platforms)
    assert found is not None
    assert (
        found.name,
        found.method,
        found.address,
        found.count,
        found.index,
        found.local_device,
    ) == expected


def test_packages_that_find_out_are_asked(monkeypatch):
    monkeypatch.setattr(clusters.importlib.util, "find_spec", lambda name: object())
    mpi, pod = find_cluster(OPEN_MPI), find_cluster(INDEXED)
    assert mpi is not None
    assert pod is not None
    assert (mpi.method, pod.method) == ("mpi4py", "any")


@pytest.mark.parametrize(
    ("env", "text"),
    [
        (ADDRESS, "needs JAX_NUM_PROCESSES, JAX_PROCESS_ID set as well"),
        ({**VARIABLES, "JAX_PROCESS_ID": "two"}, "JAX_PROCESS_ID='two' must be a number"),
        ({**VARIABLES, "JAX_PROCESS_ID": "4"}, "process 4 of 4: they are counted from 0"),
        ({**VARIABLES, "JAX_COORDINATOR_ADDRESS": "host0"}, "wanted HOST:PORT"),
        (OPEN_MPI, "needs JAX_COORDINATOR_ADDRESS set as well; Open MPI 5 .* mpi4py"),
        (INDEXED, r"JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES .* jax\[k8s\]"),
        ({**POD, "JAX_NUM_PROCESSES": "2"}, "needs JAX_COORDINATOR_ADDRESS, JAX_PROCESS_ID"),
    ],
)
def test_what_is_missing_or_wrong_is_named(env, text):
    with pytest.raises(ConfigError, match=text):
        find_cluster(env)
