"""One measurement, in a process of its own.

    python -m benchmarks.throughput.measuring JOB RESULT

JOB is a `Job` as JSON, RESULT the file to write. Exit codes are those of zoo/errors.py, and 12
when memory does not suffice; with several processes all end with the same.
"""

from collections.abc import Sequence
import hashlib
import json
import os
from pathlib import Path
import platform
import sys
import time
import traceback
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np

from benchmarks.hardware import find_accelerator
from benchmarks.throughput.figures import rates, shares, steady
from benchmarks.throughput.job import OUT_OF_MEMORY, Job
from benchmarks.throughput.timing import Clock, compile_by_stages, memory_of
from benchmarks.throughput.working import WORK, batches, choose_devices
import zoo
from zoo.errors import ConfigError, ZooError
from zoo.training.compiled import count_compilations
from zoo.training.config import check_values
from zoo.training.hosts import join, lost_process, several
from zoo.training.setup import Setup, build, open_data
from zoo.training.startup import describe_compiler, start


class OutOfMemory(ZooError):
    """Neither the devices nor the host have room for this."""

    exit_code = OUT_OF_MEMORY


def measure(job: Job) -> dict[str, Any]:
    """Returns what a job gives, as JSON values.

    Raises:
      ZooError: for what cannot be measured.
    """
    devices = choose_devices(jax.devices(), job.devices)
    config = job.config(job.batch_per_device * len(devices))
    check_values(config)
    setup = build(config, open_data(config), devices)
    load = os.getloadavg()
    with count_compilations() as programs, batches(setup, job) as feed:
        work = WORK[job.mode](setup, job)
        batch = jax.block_until_ready(next(feed))
        jax.block_until_ready(work.arguments(batch))
        read = programs.read
        stages, compiled = compile_by_stages(work.function, work.arguments(batch))
        step_compiled = programs.read == read
        began = time.perf_counter()
        jax.block_until_ready(work.step(batch))
        stages["first_step_seconds"] = round(time.perf_counter() - began, 4)
        ahead = job.mode == "train" or devices[0].platform != "cpu"
        Clock(ahead).run(work.step, feed, job.warmup)
        clock, needed = Clock(ahead), programs.needed
        clock.run(work.step, feed, job.steps)
        if programs.needed != needed:
            raise ZooError(f"{job.model}: something was compiled while steps were timed")
    own = [device for device in devices if device.process_index == jax.process_index()]
    result = {**identity(job, setup, devices), **stages, "step_compiled": step_compiled}
    result |= {"programs_compiled": programs.compiled, "programs_kept": programs.read}
    result |= memory_of(compiled, own)
    result |= figures_of(job, setup, clock, compiled, result["chips"])
    return result | {"load_average": {"before": load, "after": os.getloadavg()}}


def identity(job: Job, setup: Setup, devices: Sequence[Any]) -> dict[str, Any]:
    """Returns what was measured, and on what."""
    accelerator = find_accelerator(devices[0].device_kind)
    return {
        "model": job.model,
        "mode": job.mode,
        "input": job.feeds,
        "data": job.data if job.feeds == "real" else "noise",
        "dtype": job.dtype,
        "folded": job.folded and job.mode == "infer",
        "image_shape": list(setup.plan.image_shape),
        "batch_per_device": job.batch_per_device,
        "batch": setup.config.batch_size,
        "devices": len(devices),
        "chips": len(devices) / (accelerator.devices if accelerator else 1),
        "device_kind": devices[0].device_kind,
        "accelerator": accelerator and accelerator.name,
        "simulated": is_simulated(devices),
        "processes": jax.process_count(),
        "process": jax.process_index(),
        "parallel": job.parallel,
        "xla_flags": describe_compiler()["xla_flags"],
    }


def is_simulated(devices: Sequence[Any]) -> bool:
    """Returns whether several devices are in truth the CPU of one host."""
    if devices[0].platform != "cpu" or len(devices) == 1:
        return False
    name = hashlib.sha256(platform.node().encode()).digest()[:4]
    hosts = multihost_utils.process_allgather(np.frombuffer(name, np.uint32))
    return len(np.unique(hosts)) < len(devices)


def figures_of(job: Job, setup: Setup, clock: Clock, compiled: Any, chips: float) -> dict[str, Any]:
    """Returns what follows from the times."""
    ms = steady(clock.seconds)
    shape, outputs = setup.plan.image_shape, setup.plan.num_outputs
    flops = zoo.describe(job.model, image_shape=shape, num_classes=outputs).flops
    moved = (compiled.cost_analysis() or {}).get("bytes accessed")  # of one device
    result = {
        "steps": job.steps,
        "warmup_steps": 1 + job.warmup + 1,
        "ms_per_step": ms,
        **rates(ms, batch=setup.config.batch_size, chips=chips, feeds=job.feeds),
        "input_wait": round(clock.waited / sum(clock.seconds), 4),
        "flops_per_image": flops,
        "bytes_per_image": moved and round(moved / job.batch_per_device),
    }
    accelerator = find_accelerator(setup.mesh.devices.flat[0].device_kind)
    return result | shares(
        accelerator,
        mode=job.mode,
        dtype=job.dtype,
        flops_per_image=flops,
        images_per_second_per_chip=result["images_per_second_per_chip"],
        bytes_per_image=result["bytes_per_image"],
    )


def check_together(job: Job) -> None:
    """Refuses processes that were started with different flags."""
    if several():
        digest = hashlib.sha256(repr(job).encode()).digest()[:4]
        try:
            multihost_utils.assert_equal(np.frombuffer(digest, np.uint32))
        except AssertionError:
            raise ConfigError(
                "the processes of this run were started with different flags; give all the same"
            ) from None


def explain(error: Exception) -> ZooError:
    """Returns what to tell of an error; one that nobody thought of shows where it arose."""
    known = error if isinstance(error, ZooError) else lost_process(error)
    text = str(error)
    signs = ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory")
    if known is None and (isinstance(error, MemoryError) or any(s in text for s in signs)):
        known = OutOfMemory((text.strip().splitlines() or ["out of memory"])[0][:300])
    if known is None:
        traceback.print_exception(error)
        known = ZooError(f"{type(error).__name__}: {(text.splitlines() or [''])[0][:300]}")
    return known


def main(argv: Sequence[str]) -> int:
    """Measures one job and writes what came out; returns the exit code."""
    job, path = Job(**json.loads(argv[1])), Path(argv[2])
    start(job.compilation_cache, on_cpu=job.simulate_devices > 0)
    try:
        company = join(job.config(job.batch_per_device))
    except ZooError as error:
        print(f"throughput: {error}", file=sys.stderr)
        return error.exit_code
    failure = None
    try:
        check_together(job)
        path.write_text(json.dumps(measure(job)))
    except Exception as error:
        failure = explain(error)
        print(f"throughput: {failure}", file=sys.stderr, flush=True)
    return company.leave(failure)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
