"""Before the first step: all processes must be about to do the same.

One host with an older checkout, another dataset or a flag of its own would train, and the
result would be that of no configuration. Every process compares itself with process 0, and
a difference in one is refused by all.
"""

import hashlib
import itertools
import json
from pathlib import Path
import secrets
import time
from typing import Any

import jax

from zoo.errors import ConfigError
from zoo.training import hosts
from zoo.training.clusters import ALONE
from zoo.training.config import plain
from zoo.training.report import versions
from zoo.training.setup import Setup

# What may differ between hosts: where the data lie, and how they are read.
PER_HOST = (
    *("data.data_dir", "data.threads", "data.prefetch", "data.cache"),
    "compilation_cache",
)

_MARKER = ".together"
_SHOWN = 3  # differences named per process
_SEEN_WITHIN = 15.0  # seconds until a file of one host is seen on another
_rounds = itertools.count()  # what is left for others under a name stays there


def check_agreement(setup: Setup, workdir: Path) -> None:
    """Refuses a run whose processes have not all the same config, code, data and workdir.

    Args:
      setup: of this process.
      workdir: made if need be; process 0 leaves a marker there.

    Raises:
      ConfigError: on all processes, saying which differs in what.
    """
    if not hosts.several():
        return
    room = f"zoo/agreement/{next(_rounds)}"
    if jax.process_index() == 0:
        marker = _mark(workdir)
        _leave(f"{room}/first", {"marker": marker, "statement": statement(setup)})
    first = _take(f"{room}/first")
    problems = differences(first["statement"], statement(setup))
    if not _sees(workdir, first["marker"]):
        problems.append(
            f"--workdir={workdir} is not the folder that process 0 sees (or not within "
            f"{_SEEN_WITHIN:.0f} s); it must be one that all hosts share"
        )
    _leave(f"{room}/{jax.process_index()}", problems)
    if jax.process_index() == 0:
        found = {i: _take(f"{room}/{i}") for i in range(jax.process_count())}
        _leave(f"{room}/all", {i: texts for i, texts in found.items() if texts})
    refused = _take(f"{room}/all")
    if refused:
        texts = [f"process {i}: {'; '.join(problems)}" for i, problems in refused.items()]
        raise ConfigError(
            f"the processes of this run differ. {'. '.join(texts)}. Make them the same; {ALONE}"
        )


def statement(setup: Setup) -> dict[str, dict[str, Any]]:
    """Returns what must be the same on all processes: section -> name -> JSON value."""
    config = {f"config.{k}": v for k, v in plain(setup.config).items() if k not in PER_HOST}
    data = {name.replace("_", " "): _digest(value) for name, value in setup.describe_data().items()}
    return {"config": config, "data": data, "version of": versions(), "code": code()}


def code() -> dict[str, str]:
    """Returns a digest of each file of this package by its path."""
    root = Path(hosts.__file__).parents[1]
    files = sorted(root.rglob("*.py"))
    return {f"zoo/{path.relative_to(root)}": _digest(path.read_text()) for path in files}


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def differences(theirs: dict[str, dict[str, Any]], mine: dict[str, dict[str, Any]]) -> list[str]:
    """Returns in words in what a process differs from process 0; [] for nothing.

    Example:
      >>> differences({"config": {"config.seed": 0}}, {"config": {"config.seed": 1}})
      ['config.seed is 1, on process 0 it is 0']
    """
    texts = []
    for section in {**theirs, **mine}:
        ours, other = mine.get(section, {}), theirs.get(section, {})
        names = [name for name in {**other, **ours} if other.get(name) != ours.get(name)]
        label = "" if section in ("config", "code") else f"{section} "
        texts += [
            f"{label}{name} is {_show(ours, name)}, on process 0 it is {_show(other, name)}"
            for name in names[:_SHOWN]
        ]
        if len(names) > _SHOWN:
            texts.append(f"and {len(names) - _SHOWN} more of {section}")
    return texts


def _show(values: dict[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "not there"


def _mark(workdir: Path) -> str:
    """Leaves a marker in the workdir and returns it, with the newest checkpoint behind it."""
    marker = f"{secrets.token_hex(8)} checkpoint {_newest_checkpoint(workdir)}"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / _MARKER).write_text(marker)
    except OSError as error:
        raise ConfigError(f"--workdir={workdir}: cannot be written to ({error})") from error
    return marker


def _sees(workdir: Path, marker: str) -> bool:
    """Returns whether this process finds the same; a network's file system may be slow."""
    deadline = time.monotonic() + _SEEN_WITHIN
    while True:
        try:
            same = (workdir / _MARKER).read_text() == marker
            if same and marker.endswith(f" {_newest_checkpoint(workdir)}"):
                return True
        except OSError:
            pass
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)


def _newest_checkpoint(workdir: Path) -> int:
    steps = [int(p.name) for p in workdir.glob("checkpoints/*") if p.name.isdigit()]
    return max(steps, default=0)


def _leave(name: str, value: Any) -> None:
    hosts.client().key_value_set(name, json.dumps(value))


def _take(name: str) -> Any:
    """Waits until a process has left something under that name, and returns it."""
    while True:
        try:
            return json.loads(hosts.client().blocking_key_value_get(name, 10_000))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
