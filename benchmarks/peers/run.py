"""A run: model by model, kept as it goes, so that one that was stopped goes on."""

from collections.abc import Sequence
import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
from pathlib import Path
import tempfile
import time
from typing import Any

from benchmarks.peers.contenders import CONTENDERS, Contender, image_size
from benchmarks.peers.models import MODELS
from benchmarks.peers.processes import Process, environment
from benchmarks.peers.turns import Limits, begin, compare, end
from benchmarks.peers.worker import Job
from benchmarks.record import RESULTS, surroundings, write
from benchmarks.work import RATE
from zoo.errors import ConfigError
from zoo.tasks.task import AUX_WEIGHTS

PROGRAM = "benchmarks.peers"
PACKAGES = ("torch", "torchvision", "timm", "keras", "onnx", "onnxruntime")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run compares and how.

    Attributes:
      models: of `MODELS`.
      works: "train", "infer" or both.
      contenders: of `CONTENDERS`.
      batch: images in a step.
      size: height and width of images; None for what each model was published for.
      threads: for each contender, on as many cores.
      xla_flags: instead of zoo's; None for zoo's.
      limits: of time.
      cache: folder for compiled programs.
      name: of the result.
    """

    models: Sequence[str]
    works: Sequence[str]
    contenders: Sequence[str]
    batch: int
    size: int | None
    threads: int
    xla_flags: str | None
    limits: Limits
    cache: Path
    name: str

    def kept(self) -> dict[str, Any]:
        """Returns what a result says of them; a run that goes on must have the same."""
        return {
            **{"batch": self.batch, "image_size": self.size, "threads": self.threads},
            "xla_flags": self.xla_flags,
            "limits": dataclasses.asdict(self.limits),
        }


class Results:
    """What was measured so far, in a file that is written anew after each model.

    Args:
      settings: of the run.
      resume: whether to go on with what the file has.

    Raises:
      ConfigError: if it has results of other settings.
    """

    def __init__(self, settings: Settings, *, resume: bool):
        self._name = settings.name
        versions = {name: _version(name) for name in PACKAGES}
        self._head = {
            **surroundings(PROGRAM, **versions),
            "processor": processor(),
            **settings.kept(),
            "says": {name: CONTENDERS[name].says for name in CONTENDERS},
        }
        self.done: dict[str, dict[str, Any]] = {}
        file = RESULTS / f"{self._name}.json"
        if not resume or not file.exists():
            return
        before = json.loads(file.read_text())
        for key, value in settings.kept().items():
            if before.get(key) != json.loads(json.dumps(value)):
                raise ConfigError(
                    f"--resume: {file} was measured with {key}={before.get(key)!r}, not "
                    f"{value!r}; give the same flags, or another --name"
                )
        self.done = {k: v for k, v in before.items() if isinstance(v, dict) and "contenders" in v}

    def add(self, result: dict[str, Any]) -> Path:
        """Keeps one more result and returns the file."""
        self.done[f"{result['model']} {result['work']}"] = result
        return write(self._name, {**self._head, **self.done})

    @property
    def commit(self) -> str:
        """Of the code that is measured now."""
        return self._head["commit"]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """Returns what Linux calls the processor, with the instructions that matter here."""
    text = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0]
    rows = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in rows.items()}
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
    has = [flag for flag in wanted if flag in fields.get("flags", "").split()]
    number = f"family {fields.get('cpu family')} model {fields.get('model')}"
    return f"{fields.get('model name', 'unknown')}, {number}, {' '.join(has)}"


class Crew:
    """The processes of all contenders for one model, started when they are first needed.

    Args:
      settings: of the run.
      model: what they work on.
      logs: folder for what they print.
    """

    def __init__(self, settings: Settings, model: str, logs: Path):
        self._settings, self._model, self._logs = settings, model, logs
        self._size = settings.size or image_size(model)
        self._processes: dict[str, Process] = {}
        self._cores = tuple(sorted(os.sched_getaffinity(0))[: settings.threads])

    def absent(self, work: str) -> dict[str, str]:
        """Returns by contender why it does not take part."""
        reasons = {}
        for name in self._settings.contenders:
            reason = CONTENDERS[name].lacks(self._model)
            if work in CONTENDERS[name].works and reason:
                reasons[name] = reason
        return reasons

    def ready(self, work: str) -> dict[str, Process]:
        """Returns the processes that take part in a work, those that had failed anew."""
        names = [
            name
            for name in self._settings.contenders
            if work in CONTENDERS[name].works and not CONTENDERS[name].lacks(self._model)
        ]
        for name in names:
            if name not in self._processes or not self._processes[name].alive:
                self._processes[name] = self._start(CONTENDERS[name])
        return {name: self._processes[name] for name in names}

    def _start(self, contender: Contender) -> Process:
        settings = self._settings
        job = Job(
            module=contender.module,
            model=self._model,
            batch=settings.batch,
            size=self._size,
            cores=self._cores,
            threads=settings.threads,
            rate=RATE,
            aux_weight=AUX_WEIGHTS.get(self._model, 0.0),
            options=dict(contender.options),
        )
        variables = environment(contender, settings.threads, settings.cache)
        if settings.xla_flags is not None and "XLA_FLAGS" in variables:
            variables["XLA_FLAGS"] = settings.xla_flags
        return Process(contender, job, variables, self._logs / f"{contender.name}.log")

    def measure(self, work: str) -> dict[str, Any]:
        """Returns the result of one work: all contenders, with their turns."""
        began, load = time.perf_counter(), os.getloadavg()
        processes = self.ready(work)
        entries = begin(processes, work, self._model, self._size, self._settings.limits)
        memory = available_bytes()
        compare(processes, entries, self._settings.limits)
        end(processes, entries)
        absent = {name: {"absent": reason} for name, reason in self.absent(work).items()}
        return {
            "model": self._model,
            "work": work,
            "group": MODELS[self._model].group,
            "batch": self._settings.batch,
            "image_size": self._size,
            "date": datetime.date.today().isoformat(),
            "wall_seconds": round(time.perf_counter() - began, 1),
            "load_average": {"before": load, "after": os.getloadavg()},
            "free_bytes_with_all_begun": memory,
            "contenders": {**entries, **absent},
        }

    def close(self) -> None:
        """Ends all processes."""
        for process in self._processes.values():
            process.close()


def available_bytes() -> int:
    """Returns how much memory new programs could have."""
    rows = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(rows["MemAvailable"].split()[0]) * 1024


def measure_all(settings: Settings, results: Results) -> Any:
    """Yields the result of each model and work that is not there yet, and keeps it.

    Args:
      settings: of the run.
      results: gets them.

    Yields:
      (result, file)
    """
    with tempfile.TemporaryDirectory(prefix="zoo_peers_") as scratch:
        for model in settings.models:
            missing = [work for work in settings.works if f"{model} {work}" not in results.done]
            if not missing:
                continue
            logs = Path(scratch) / model
            logs.mkdir()
            with contextlib.closing(Crew(settings, model, logs)) as crew:
                for work in missing:
                    result = crew.measure(work) | {"commit": results.commit}
                    yield result, results.add(result)


def prepare(settings: Settings) -> Any:
    """Yields what each contender says of its first step, so that all is compiled and cached.

    Yields:
      (model, work, entries by contender)
    """
    with tempfile.TemporaryDirectory(prefix="zoo_peers_") as scratch:
        for model in settings.models:
            with contextlib.closing(Crew(settings, model, Path(scratch))) as crew:
                for work in settings.works:
                    processes = crew.ready(work)
                    size = settings.size or image_size(model)
                    entries = begin(processes, work, model, size, settings.limits)
                    end(processes, entries)
                    yield model, work, entries
