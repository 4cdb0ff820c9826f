"""Several processes that train as one: finding each other, and leaving together.

JAX's distributed runtime does the work. What this file adds to it, and promises:

1. Processes that do not find each other end with exit code 75 and a line that says who was
   waited for; JAX would abort.
2. An error in one process ends all of them, with its message and its exit code, within
   seconds; JAX would have the others wait for the heartbeat, and abort.
"""

import contextlib
import faulthandler
import json
import os
import re
import sys
import threading
import time
from typing import Any, NoReturn

import jax
from jax._src.distributed import global_state  # there is no public name for the client

from zoo.errors import ConfigError, Interrupted, TemporaryError, ZooError
from zoo.training.clusters import ALONE, Cluster, find_cluster
from zoo.training.config import Config

_POLL = 1.0  # seconds between two looks at how the others are
_GRACE = 3.0  # for the main thread to end by itself, when another process has failed
_HEARD = 3.0  # for process 0 to answer
_PARTING = 6.0  # for the others to leave as well, after an error
_DONE = 300.0  # for process 0 to write what it writes at the end
_FAILURES = "zoo/failures/"


def simulate_devices(count: int) -> None:
    """Makes JAX see that many devices on this CPU; 0 leaves everything as it is.

    Raises:
      ConfigError: if it is too late for that, or if JAX was told to use an accelerator.
    """
    if not count:
        return
    forced = _platforms()
    if forced not in ("", "cpu", "tpu,cpu"):  # the last is JAX's own, where it finds a TPU
        raise ConfigError(
            f"config.parallel.simulate_devices={count} is for the CPU, but JAX_PLATFORMS={forced} "
            "asks for others; leave out one of them"
        )
    try:
        jax.config.update("jax_num_cpu_devices", count)
        jax.config.update("jax_platforms", "cpu")
    except RuntimeError:  # JAX has started, perhaps with as many all the same
        devices = jax.local_devices()
        if len(devices) != count or devices[0].platform != "cpu":
            raise ConfigError(
                f"config.parallel.simulate_devices={count}: JAX has started with {len(devices)} "
                f"device(s) of kind {devices[0].device_kind}; set it in a new process"
            ) from None


def _platforms() -> str:
    return jax.config.jax_platforms or ""  # pyright: ignore[reportAttributeAccessIssue]


def join(config: Config) -> "Company":
    """Joins the other processes of this run, if there are any, before JAX has started.

    Args:
      config: its section `parallel`, see configs/default.py.

    Raises:
      ConfigError: if the environment does not say all, or JAX has not what it needs.
    """
    simulate_devices(config.parallel.simulate_devices)
    cluster = find_cluster(os.environ, _platforms())
    if cluster is not None:
        _initialize(cluster, config)
    return Company(watch=cluster is not None)


def _initialize(cluster: Cluster, config: Config) -> None:
    seconds = config.parallel.join_within
    whole = "the others" if cluster.count is None else f"all {cluster.count} processes"
    where = f" at {cluster.address}" if cluster.address else ""
    late = threading.Timer(seconds, _give_up, [f"{whole} did not meet{where} in {seconds:g} s"])
    late.daemon = True
    given_devices = os.environ.get("JAX_LOCAL_DEVICE_IDS")  # JAX reads it
    late.start()
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            cluster.address,
            cluster.count,
            cluster.index,
            None if given_devices else cluster.local_device,
            cluster_detection_method=None if cluster.method == "any" else cluster.method,
            # It aborts when that is over; the timer is there first.
            initialization_timeout=int(seconds) + 60,
            heartbeat_timeout_seconds=int(config.parallel.heartbeat),
        )
    except jax.errors.JaxRuntimeError as error:
        raise TemporaryError(f"the processes did not meet{where}: {_first_line(error)}") from error
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        if cluster.name == "Cloud TPU" and "coordinator_address" in str(error):
            return  # a single TPU host, whose metadata tell of no others
        raise ConfigError(
            f"joined by {cluster.name}: {_first_line(error)} (README, Scaling out); {ALONE}"
        ) from error
    finally:
        late.cancel()
    if cluster.local_device is None and not given_devices:
        # Under a launcher JAX takes one device per process, even if it is alone on its host.
        jax.config.update("jax_cuda_visible_devices", "all")
        jax.config.update("jax_rocm_visible_devices", "all")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [repr(error)])[0]


def _give_up(what: str) -> None:
    error = TemporaryError(
        f"{what} (config.parallel.join_within): is each of them running, and can it reach the "
        f"port? Start them all again; {ALONE}"
    )
    _say(str(error))
    os._exit(error.exit_code)


def describe_processes(config: Config) -> dict[str, Any]:
    """Returns what the header says of processes and of devices that are none."""
    texts: dict[str, Any] = {"processes": jax.process_count()}
    if jax.process_count() > 1:
        cluster = find_cluster(os.environ, _platforms())
        texts["joined_by"] = cluster.name if cluster else "the program that called"
        texts["coordinator"] = global_state.coordinator_address
    if config.parallel.simulate_devices:
        count = config.parallel.simulate_devices
        texts["note"] = f"{count} simulated devices on one CPU: for trying, not for speed"
    return texts


class Company:
    """The processes of one run, for as long as the program runs.

    Args:
      watch: whether to leave when another process has failed.
    """

    def __init__(self, *, watch: bool):
        self._leaving = threading.Event()
        if watch and several():
            threading.Thread(target=self._watch, name="zoo-hosts", daemon=True).start()

    def _watch(self) -> None:
        """Ends this process soon after another has said that it failed."""
        while not self._leaving.wait(_POLL):
            failure = failure_elsewhere()
            if failure is None:
                continue
            # Most errors arise in all processes at once, and each can speak for itself.
            if failure["stuck"] or not self._leaving.wait(_GRACE):
                _say(f"ended with {failure['process']}: {failure['message']}")
                if failure["stuck"]:
                    faulthandler.dump_traceback(sys.stderr, all_threads=True)
                end(failure["code"])

    def leave(self, error: ZooError | None) -> int:
        """Waits until all processes leave, and returns the exit code; call it last.

        Args:
          error: why this process leaves; None if all is done. With several processes it
            ends this one at once.
        """
        if not several():
            return error.exit_code if error else 0
        all_done = error is None and meet("done", _DONE)
        self._leaving.set()
        if all_done:
            jax.distributed.shutdown()
            return 0
        known = error is None or isinstance(error, Interrupted)
        end(error.exit_code if error else 0, because=None if known else error)


def end(code: int, *, because: ZooError | None = None, stuck: bool = False) -> NoReturn:
    """Ends this process, after giving the others some seconds to come along.

    Nothing is cleaned up, for that may wait for processes that never come.

    Args:
      code: to exit with.
      because: what the others are told; None if they know.
      stuck: whether they are to show where they are.
    """
    if several():
        # Process 0 has to be asked, and may itself be what is stuck.
        told = threading.Event()
        talk = threading.Thread(target=_part, args=(because, stuck, told), daemon=True)
        talk.start()
        if told.wait(_HEARD):
            talk.join(_PARTING + 1)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if several() and global_state.process_id == 0:
        time.sleep(1)  # JAX aborts those who lose it before they have left
    os._exit(code)


def _part(because: ZooError | None, stuck: bool, told: threading.Event) -> None:
    if because is not None:
        failure = {"process": place(), "code": because.exit_code, "message": str(because)}
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            key = f"{_FAILURES}{global_state.process_id}"
            client().key_value_set(key, json.dumps({**failure, "stuck": stuck}), True)
    else:
        failure_elsewhere()  # for process 0 to answer
    told.set()
    meet("end", _PARTING)


def failure_elsewhere() -> dict[str, Any] | None:
    """Returns what another process that failed has told the others, None if none has."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        for _, text in client().key_value_dir_get(_FAILURES):
            failure = json.loads(text)
            if failure["process"] != place():
                return failure
    return None


def meet(where: str, seconds: float) -> bool:
    """Waits for all processes at a place of that name; returns whether they came."""
    try:
        client().wait_at_barrier(f"zoo/{where}", int(1000 * seconds))
    except jax.errors.JaxRuntimeError:
        return False
    return True


def several() -> bool:
    """Returns whether this process is one of several, without starting JAX."""
    return jax.distributed.is_initialized() and global_state.num_processes > 1


def place() -> str:
    """Returns in words which process this is."""
    return f"process {global_state.process_id} of {global_state.num_processes}"


def client() -> Any:
    """Returns JAX's connection to process 0, where small texts can be left for all."""
    if global_state.client is None:
        raise RuntimeError("there is one process only")
    return global_state.client


def _say(text: str) -> None:
    print(f"zoo: {text}", file=sys.stderr, flush=True)


def lost_process(error: BaseException) -> TemporaryError | None:
    """Returns what to say of an error that comes of another process's end, else None."""
    cause = error.__cause__ if isinstance(error, ZooError) else error
    signs = r"^(UNAVAILABLE|ABORTED|CANCELLED)\b|(?i:gloo|nccl|connection (reset|closed))"
    if not several() or cause is None or not re.search(signs, str(cause)):
        return None
    return TemporaryError(
        f"another process is gone ({_first_line(cause)[:200]}); start all of them again to go on"
    )
