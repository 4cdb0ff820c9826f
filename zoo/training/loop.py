"""The order of things: restore, then train, log, save, evaluate, until done.

The order within a step is law, and resuming rests on it: (1) update, (2) log if due,
(3) save if due, (4) evaluate if due, and tell the plateau. Every evaluation has a
checkpoint before it, so a run stopped anywhere takes up at a save and does again exactly
what came after it.

Where the devices hold the data and steps run in a loop on them, (1) is all steps until
something of (2) to (4) is due or the epoch ends; a signal is seen there.

With several seeds the state is that of all replicas; what is compared with the best is the
mean over them.

Whichever way a run ends, the best weights so far are in `weights/`: they are written
whenever an evaluation is the best.
"""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import fcntl
import json
import math
from pathlib import Path
import time
from typing import Any

import jax
import numpy as np

from zoo.data.source import Splits
from zoo.errors import ConfigError, Interrupted, NonFiniteError, TemporaryError
from zoo.tasks.task import Sums, intervals
from zoo.training import mesh as meshes
from zoo.training.agreement import check_agreement
from zoo.training.averages import mean_tree
from zoo.training.checkpoint import Checkpoints, Damaged
from zoo.training.compiled import Compilations, count_compilations
from zoo.training.config import Config, changed_keys, check_values, plain
from zoo.training.dry_run import dry_run
from zoo.training.epochs import make_trainer
from zoo.training.feeds import make_feed
from zoo.training.gradients import check_gradients
from zoo.training.hosts import simulate_devices
from zoo.training.progress import Progress, Stopwatch
from zoo.training.replicas import leader, mean_and_deviation, replica, replicas_of, replicate
from zoo.training.report import Reporter, print_results, say, warn, words, write_json
from zoo.training.setup import Setup, build, open_data
from zoo.training.signals import StopRequest, watch_signals
from zoo.training.state import TrainState, steps_of, weight_sets
from zoo.training.totals import Totals
from zoo.training.watchdog import Watchdog, watch_progress
from zoo.weights.preprocessing import Preprocessing
from zoo.weights.saving import save_weights


def fit(
    config: Config,
    workdir: str | Path,
    *,
    splits: Splits | None = None,
    devices: Sequence[meshes.Device] | None = None,
    origin: str = "",
) -> dict[str, Any]:
    """Trains as a configuration says, or goes on where this workdir's run stopped.

    Args:
      config: see configs/default.py.
      workdir: of this run and no other.
      splits: data in memory, instead of what `config.data.name` names.
      devices: to train on; all there are by default.
      origin: where the configuration came from, to say in the header.

    Returns:
      The contents of `results.json`; of a dry run or a check of gradients, what it found.

    Raises:
      ZooError: whatever went wrong, with a message for a person; nothing saved is lost.
    """
    check_values(config)
    simulate_devices(config.parallel.simulate_devices)
    with watch_progress(config.parallel.watchdog) as watchdog, count_compilations() as programs:
        return _fit(config, Path(workdir), splits, devices, origin, watchdog, programs)


def _fit(
    config: Config,
    workdir: Path,
    splits: Splits | None,
    devices: Sequence[meshes.Device] | None,
    origin: str,
    watchdog: Watchdog,
    programs: Compilations,
) -> dict[str, Any]:
    setup = build(config, splits or open_data(config), devices, workdir / "initial_weights")
    if config.dry_run:
        return dry_run(setup, origin)
    if config.check_gradients:
        return check_gradients(setup)
    check_agreement(setup, workdir)
    setup = replicate(setup)
    results = finished_results(setup, workdir)
    if results is not None:
        say(f"{workdir} is finished, {results['step']} steps; nothing to do.")
        print_results(results, workdir)
        return results
    with only_one_run(workdir), watch_signals() as stop:
        run = Run(setup, workdir, stop, watchdog, origin, programs)
        with contextlib.closing(run):
            return run.finish(run.train(run.restore_or_create()))


def finished_results(setup: Setup, workdir: Path) -> dict[str, Any] | None:
    """Returns the results of a run that has nothing left to do, else None."""
    path = workdir / "results.json"
    if not path.exists():
        return None
    try:
        results = json.loads(path.read_text())
    except ValueError:
        warn(f"{path} is damaged; making it again")
        return None
    if changed_keys(results["config"], plain(setup.config)):
        return None
    # Results of before there was early stopping do not say whether there was.
    ended = results["step"] == setup.plan.total_steps or results.get("stopped_early", False)
    return results if ended else None


@contextlib.contextmanager
def only_one_run(workdir: Path) -> Iterator[None]:
    """Holds the workdir; the lock goes with the process, however that ends.

    Raises:
      ConfigError: if the workdir cannot be written to.
      TemporaryError: if another run holds it.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / ".lock").open("a")
    except OSError as error:
        raise ConfigError(f"--workdir={workdir}: cannot be written to ({error})") from error
    with lock:
        if jax.process_index() == 0:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise TemporaryError(
                    f"--workdir={workdir} is in use by another run; wait for it, or choose another"
                ) from None
        yield


class Run:
    """One run: made by `fit`, used once."""

    def __init__(
        self,
        setup: Setup,
        workdir: Path,
        stop: StopRequest,
        watchdog: Watchdog,
        origin: str,
        programs: Compilations,
    ):
        self._setup, self._workdir, self._stop, self._origin = setup, workdir, stop, origin
        self._watchdog, self._programs = watchdog, programs
        self._progress = self._make_progress(None)
        self._checkpoints = Checkpoints(
            workdir / "checkpoints",
            keep=setup.config.checkpoint.keep,
            best_step=lambda: self._progress.best_step,
        )
        self._reporter = Reporter(workdir, setup.plan.total_steps)
        self._stopwatch = Stopwatch()
        self._now: Any = None  # the setup of the next step, see `_begin`
        self._feed: Any = None  # likewise
        self._asked = 0
        self._leader = 0  # which replica did best

    def _make_progress(self, record: dict[str, Any] | None) -> Progress:
        return Progress(self._setup.best, self._setup.config.best.min_delta, record)

    def close(self) -> None:
        """Finishes what is being saved and lets go of all files."""
        self._reporter.close()
        self._checkpoints.close()

    def restore_or_create(self) -> TrainState:
        """Returns the newest whole checkpoint's state, or else a fresh one."""
        self._watchdog.note("restoring", 0)
        restored = self._checkpoints.restore_newest(self._setup.state_like)
        if restored is None:
            state = self._setup.init()
        else:
            state, record = restored
            self._check_same_run(steps_of(state), record)
            self._progress = self._make_progress(record["progress"])
        self._reporter.open(steps_of(state))
        self._reporter.header(self._origin, self._setup.describe())
        write_json(self._workdir / "config.json", plain(self._setup.config))
        return state

    def _check_same_run(self, step: int, record: dict[str, Any]) -> None:
        """Refuses to go on with another configuration or other data than were saved."""
        old, new = record["config"], plain(self._setup.config)
        changes = [
            f"config.{key} was {old.get(key)!r} and is {new.get(key)!r}"
            for key in changed_keys(old, new)
        ]
        data, before = self._setup.describe_data(), record["data"]
        changed = [name for name in {**before, **data} if before.get(name) != data.get(name)]
        changes += [f"the {name.replace('_', ' ')} changed" for name in changed]
        if changes and not self._setup.config.checkpoint.allow_changes:
            raise ConfigError(
                f"--workdir={self._workdir} holds another experiment, at step {step}: "
                f"{'; '.join(changes)}. Use another --workdir, or go on all the same with "
                "--config.checkpoint.allow_changes=True"
            )
        for change in changes:
            warn(f"going on from step {step} although {change}")

    def train(self, state: TrainState) -> TrainState:
        """Returns the state after the last step, or where the best was too long ago."""
        step = steps_of(state)
        self._begin(step, state)
        state = self._validate_if_missed(step, state)
        if self._should_stop(step):
            return state
        self._reporter.start_bar(step)
        self._watchdog.note("training", step)
        while step < self._setup.plan.total_steps and not self._should_stop(step):
            self._begin(step, state)
            state = self._train_alike(step, state)
            step = steps_of(state)
        return state

    def _begin(self, step: int, state: TrainState) -> None:
        """Takes the compiled functions and batches that belong to the next step."""
        before, self._now = self._now, self._setup.at(step)
        if before is None or before.features is not self._now.features:
            self._feed = make_feed(self._now, state.variables)
        if before is not None and before is not self._now:
            self._reporter.say(f"from step {step} on frozen: {self._now.describe_frozen()}")

    def _train_alike(self, step: int, state: TrainState) -> TrainState:
        """Returns the state after the last step in which the same trains, or all that are made."""
        first, feed = True, self._feed
        self._stopwatch.restart()
        with contextlib.closing(make_trainer(self._now, feed, step)) as trainer:
            while step < self._now.stop:
                state, metrics, count = trainer.advance(state, step)
                made = range(step, step + (count or 1))
                self._progress.trained_on([feed.at(s)[0] for s in made], metrics, count)
                step = made.stop
                self._watchdog.note("training", step, metrics)
                self._stopwatch.step(len(made), trainer.waited())
                if first:  # the one that compiles
                    jax.block_until_ready(metrics)
                    seconds = self._stopwatch.restart()
                    what = "first step" if len(made) == 1 else f"first {len(made)} steps"
                    self._reporter.say(
                        f"{what}, with compilation: {seconds:.1f} s; so far {self._programs}"
                    )
                    first = False
                self._reporter.advance(step)
                state = self._after_step(step, state)
                if self._should_stop(step):
                    break
        return state

    def _after_step(self, step: int, state: TrainState) -> TrainState:
        """Logs, saves and evaluates if due."""
        # By how often it is asked, several processes agree where to stop.
        plan, self._asked = self._setup.plan, self._asked + 1
        signum = self._stop.at_step(self._asked)
        evaluate = self._is_due(step, plan.evaluate_every)
        if self._is_due(step, plan.log_every):
            self._log_training(step, state)
        if evaluate or signum or self._is_due(step, plan.checkpoint_every):
            self._save(step, state)
        if signum:
            self._interrupt(signum, step)
        return self._validate(step, state) if evaluate else state

    def _should_stop(self, step: int) -> bool:
        due = self._is_due(step, self._setup.plan.evaluate_every)
        return due and self._progress.is_stuck(step, self._setup.plan.patience)

    def _is_due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self._setup.plan.total_steps

    def _log_training(self, step: int, state: TrainState) -> None:
        totals = self._progress.totals
        figures = mean_and_deviation(self._figures(totals.sums()))
        values = {f"train/{name}": value for name, value in figures.items()}
        self._check_skips(step, state)
        self._stopwatch.pause()
        steps_per_second, waited = self._stopwatch.lap()
        rate = steps_per_second * self._setup.config.batch_size * len(self._setup.seeds)
        self._stopwatch.resume()
        totals.clear()
        values["train/learning_rate"] = self._setup.optimization.rate(state)
        text = words(values, with_deviations=len(self._setup.seeds) > 1)
        if math.isfinite(rate):
            values |= {"perf/images_per_sec": rate, "perf/data_wait": waited}
            text += f"  {rate:,.0f} images/s"
            if waited > 0.02:
                text += f"  waited for data {waited:.0%}".replace("%", " %")
        values["data/order"] = self._progress.order
        self._reporter.log(step, step / self._setup.plan.steps_per_epoch, values, f"train  {text}")

    def _figures(self, sums: Sums) -> list[dict[str, float]]:
        """Returns the figures of each replica."""
        parts = replicas_of(sums, len(self._setup.seeds))
        return [self._setup.task.summary(part) for part in parts]

    def _check_skips(self, step: int, state: TrainState) -> None:
        """Ends the run if too many steps in a row were undone."""
        skipped, budget = int(np.max(state.skips.longest)), self._setup.config.max_skipped
        if skipped > budget:
            kept = self._checkpoints.steps()
            raise NonFiniteError(
                f"loss, gradients or weights were not finite in {skipped} steps in a row before "
                f"step {step} (config.max_skipped={budget}); nothing of that was saved "
                f"(checkpoints: {kept}). A lower --config.optimizer.learning_rate, a longer "
                "--config.optimizer.warmup or --config.optimizer.clip_norm=1.0 usually helps"
            )

    def _save(self, step: int, state: TrainState) -> None:
        self._stopwatch.pause()
        self._watchdog.note("saving", step)
        record = {
            "config": plain(self._setup.config),
            "data": self._setup.describe_data(),
            "position": step * self._setup.config.batch_size,
            "progress": self._progress.record(),
        }
        self._check_skips(step, state)
        self._keep_initial_weights()
        self._checkpoints.save(step, state, record)
        self._stopwatch.resume()

    def _keep_initial_weights(self) -> None:
        """Copies the weights that the run began with, so that a restart needs nothing else."""
        begun = self._setup.weights
        folder = self._workdir / "initial_weights"
        if begun is not None and jax.process_index() == 0 and not folder.exists():
            self._write_weights(folder, begun.variables, begun.preprocessing)

    def _write_weights(self, folder: Path, variables: Any, preprocessing: Preprocessing) -> None:
        try:
            save_weights(folder, self._setup.model, variables, preprocessing)
        except ValueError as error:  # a recipe may give fields that JSON cannot hold
            warn(f"{folder} was not written ({error}); the checkpoints are whole")

    def _interrupt(self, signum: int, step: int) -> None:
        self._checkpoints.wait()
        raise Interrupted(
            signum, f"stopped after step {step}, saved in {self._workdir}; run it again to go on"
        )

    def _validate_if_missed(self, step: int, state: TrainState) -> TrainState:
        """Makes up for the evaluation at a restored step, if it was not finished."""
        if not step or not self._is_due(step, self._setup.plan.evaluate_every):
            return state
        value = self._reporter.logged(step, self._setup.best.metric)
        losses = [self._reporter.logged(step, name) for name in self._by_replica("val/loss")]
        known = [loss for loss in losses if loss is not None]
        if len(known) < len(losses):
            return self._validate(step, state)
        if value is not None:
            self._progress.validated(step, value)
        return self._observe(state, known)

    def _by_replica(self, name: str) -> list[str]:
        """Returns under which names a figure of each replica is logged."""
        seeds = self._setup.seeds
        return [name] if len(seeds) == 1 else [f"seed{seed}/{name}" for seed in seeds]

    def _observe(self, state: TrainState, losses: list[float]) -> TrainState:
        """Tells the plateau of each replica of its validation loss."""
        return self._setup.observe(state, losses[0] if len(losses) == 1 else losses)

    def _validate(self, step: int, state: TrainState) -> TrainState:
        if "val" not in self._setup.examples:
            return state
        self._stopwatch.pause()
        each: list[dict[str, float]] = [{} for _ in self._setup.seeds]
        for ending, variables in weight_sets(state).items():
            figures = self._figures(self._evaluate("val", variables, step))
            for mine, found in zip(each, figures, strict=True):
                mine |= {f"val{ending}/{name}": value for name, value in found.items()}
        values = mean_and_deviation(each)
        metric, progress = self._setup.best.metric, self._progress
        if progress.validated(step, values.get(metric, math.nan)):
            self._leader = leader([mine.get(metric, math.nan) for mine in each], self._setup.best)
            self._export(state)
        text = f"val    {_by_set(values, with_deviations=len(each) > 1)}"
        if progress.best_step is not None:
            group = metric.partition("/")[0].removeprefix("val").removeprefix("_")
            best = f"{group} {words({metric: progress.best_value})}".strip()
            text += f"  (best {best} at {progress.best_step})"
        epoch = step / self._setup.plan.steps_per_epoch
        for name in dict.fromkeys((metric, "val/loss")) if len(each) > 1 else ():
            own = zip(self._by_replica(name), each, strict=True)
            values |= {key: mine[name] for key, mine in own if name in mine}
        self._reporter.log(step, epoch, values, text)
        self._stopwatch.resume()
        return self._observe(state, [mine["val/loss"] for mine in each])

    def _evaluate(self, name: str, variables: Any, step: int) -> Sums:
        """Returns the exact sums over one split: every example once."""
        totals = Totals()
        self._watchdog.note(f"evaluating {name}", step)
        for batch in self._feed.evaluate(name):
            metrics = self._now.eval_step(variables, batch)
            totals.add(metrics)
            self._watchdog.note(f"evaluating {name}", step, metrics)
            if self._stop.pending:
                self._interrupt(self._stop.pending, step)
        return totals.sums()

    def finish(self, state: TrainState) -> dict[str, Any]:
        """Evaluates the best weights on all splits held out and writes the results."""
        step, best_step = steps_of(state), self._progress.best_step
        skipped = int(np.sum(state.skips.total))  # of the whole run, not up to its best step
        self._watchdog.note("saving", step)
        self._checkpoints.wait()
        if best_step not in (None, step):
            try:
                swa = state.swa
                state, _ = self._checkpoints.restore(best_step, self._setup.state_like)
                if not self._setup.best.metric.startswith("val_swa/"):  # the mean of all of them
                    state = dataclasses.replace(state, swa=swa)
            except Damaged as damage:
                warn(f"the best checkpoint, {best_step}, is damaged ({damage}); using the last")
                best_step = step
        state = self._with_statistics_of_the_mean(state)
        results = {
            "step": step,
            "best_step": best_step,
            "best_metric": self._setup.best.metric,
            "stopped_early": step < self._setup.plan.total_steps,
            "skipped_steps": skipped,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "metrics": {},
            "config": plain(self._setup.config),
        }
        each = self._final_metrics(state, step)
        results["metrics"] = {
            group: _mean_of([metrics[group] for metrics in each]) for group in each[0]
        }
        group, _, name = self._setup.best.metric.partition("/")
        if group in each[0]:
            self._leader = leader([metrics[group][name] for metrics in each], self._setup.best)
        if len(each) > 1:
            seeds = self._setup.seeds
            results["best_seed"] = seeds[self._leader]
            results["seeds"] = {str(s): m for s, m in zip(seeds, each, strict=True)}
        self._watchdog.note("writing results", step)
        self._export(state)
        bad = {name: len(e.bad) for name, e in self._setup.examples.items() if e.bad}
        if bad:
            results["bad_examples"] = bad
        self._reporter.finish(results)
        say(f"start-up     {self._programs}")
        return results

    def _final_metrics(self, state: TrainState, step: int) -> list[dict[str, dict[str, Any]]]:
        """Returns for each replica the figures of all splits held out and sets of weights."""
        each: list[dict[str, dict[str, Any]]] = [{} for _ in self._setup.seeds]
        for name in ("val", "test"):
            if name not in self._setup.examples:
                continue
            for ending, variables in weight_sets(state).items():
                sums = self._evaluate(name, variables, step)
                for metrics, own in zip(each, replicas_of(sums, len(each)), strict=True):
                    _, count = own["loss"]
                    metrics[f"{name}{ending}"] = {
                        **self._setup.task.summary(own),
                        "examples": int(count),
                        **{f"{key}_interval": value for key, value in intervals(own).items()},
                    }
        return each

    def _with_statistics_of_the_mean(self, state: TrainState) -> TrainState:
        """Measures BatchNorm's statistics for the plain mean of weights, over one epoch."""
        sets = weight_sets(state)
        if "_swa" not in sets or not state.batch_stats or self._now.features is not None:
            return state  # in the last case they are all frozen
        setup, key, mean = self._now, self._now.make_key(), None
        steps = range(math.ceil(setup.plan.steps_per_epoch))
        for count, batch in enumerate(self._feed.train(steps)):
            mean = mean_tree(mean, setup.statistics_step(sets["_swa"], batch, key), count)
            self._watchdog.note("measuring BatchNorm's averages", steps_of(state), mean)
            if self._stop.pending:
                self._interrupt(self._stop.pending, steps_of(state))
        return dataclasses.replace(state, swa={**state.swa, "batch_stats": mean})

    def _export(self, state: TrainState) -> None:
        """Writes the weights as `zoo.load` takes them, with their preprocessing and classes.

        Of several replicas `weights` are those of the best, and all are in `seeds`.
        """
        sets = self._setup.parallel.gather(weight_sets(state))
        if jax.process_index() != 0:
            return
        seeds, prepared = self._setup.seeds, self._setup.preprocessing
        for ending, variables in sets.items():
            name = f"weights{ending}"
            if len(seeds) == 1:
                self._write_weights(self._workdir / name, variables, prepared)
                continue
            for i, seed in enumerate(seeds):
                own = replica(variables, i)
                self._write_weights(self._workdir / "seeds" / str(seed) / name, own, prepared)
                if i == self._leader:
                    self._write_weights(self._workdir / name, own, prepared)


def _mean_of(each: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the figures of one replica; of several, their means and deviations."""
    if len(each) == 1:
        return each[0]
    numbers = [{k: v for k, v in one.items() if isinstance(v, float)} for one in each]
    return {**mean_and_deviation(numbers), "examples": each[0]["examples"]}


def _by_set(values: dict[str, float], *, with_deviations: bool = False) -> str:
    """Returns figures in words, those of averaged weights behind the name of their average."""
    texts = []
    for group in dict.fromkeys(key.partition("/")[0] for key in values):
        own = {key: value for key, value in values.items() if key.startswith(f"{group}/")}
        text = words(own, with_deviations=with_deviations)
        texts.append(f"{group.removeprefix('val').removeprefix('_')} {text}".strip())
    return "  ".join(texts)
