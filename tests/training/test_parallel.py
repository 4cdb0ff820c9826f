"""Every mode on every number of devices: the same training, and what it sends."""

import collections
import functools
import re
import signal

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.training.test_loop import Tripwire, send
import zoo
from zoo.data.augment import make_augment
from zoo.data.loader import Order
from zoo.errors import ConfigError, Interrupted
from zoo.layers import Classifier
from zoo.tasks.classification import Classification
from zoo.training.checkpoint import Checkpoints, digest
from zoo.training.guard import guard
from zoo.training.loop import fit
from zoo.training.mesh import batch_sharding, replicated
from zoo.training.optimizer import make_optimizer
from zoo.training.parallel import SMALLEST_SPREAD, make_parallel
from zoo.training.state import create_state
from zoo.training.step import make_train_step
from zoo.weights.preprocessing import Preprocessing

BATCH = 32


class GroupedBatchNorm(nn.Module):
    """BatchNorm of several batches that lie behind one another, written out."""

    groups: int
    train: bool

    @nn.compact
    def __call__(self, x):
        channels = x.shape[-1]
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        var = self.variable("batch_stats", "var", jnp.ones, channels)
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        if not self.train:
            return (x - mean.value) / jnp.sqrt(var.value + 1e-3) * scale + bias
        grouped = x.reshape(self.groups, -1, channels)
        means, variances = grouped.mean(1, keepdims=True), grouped.var(1, keepdims=True)
        mean.value = 0.9 * mean.value + 0.1 * means.mean((0, 1))
        var.value = 0.9 * var.value + 0.1 * variances.mean((0, 1))
        return ((grouped - means) / jnp.sqrt(variances + 1e-3)).reshape(x.shape) * scale + bias


class Net(Classifier):
    """BatchNorm twice, stochastic depth, dropout, and layers large enough to be spread."""

    groups: int = 0  # in how many parts BatchNorm sees the batch; 0 for zoo's own layer

    @nn.compact
    def endpoints(self, images, *, train):
        norm = self.batch_norm(train, epsilon=1e-3, momentum=0.9)
        if self.groups:
            norm = functools.partial(GroupedBatchNorm, self.groups, train)
        x = nn.relu(norm(name="bn1")(nn.Conv(16, (3, 3), name="conv1")(images)))
        y = nn.relu(norm(name="bn2")(nn.Conv(16, (3, 3), name="conv2")(x)))
        drop = nn.Dropout(0.3, broadcast_dims=(1, 2, 3), deterministic=not train)
        x = (x + drop(y)).mean((1, 2))
        x = nn.relu(nn.Dense(SMALLEST_SPREAD // 8, name="hidden")(x))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return {"logits": nn.Dense(10, name="head")(x)}


AUGMENT = [("random_padding_crop", {"padding": 2}), ("random_horizontal_flip", {})]
OPTIMIZER = make_optimizer(
    "momentum", optax.constant_schedule(0.2), arguments={}, weight_decay=1e-4
)
MIX = {"mixup_alpha": 0.4, "cutmix_alpha": 1.0}


@functools.cache
def compiled(count, mode="jit", mix=True, parts=1, groups=0, **options):
    """Returns the initial state and the step of `Net` on so many devices, and how it lies."""
    net = Net(num_classes=10, groups=groups)
    parallel = make_parallel(mode, jax.devices()[:count], **options)
    rows, everywhere = batch_sharding(parallel.mesh), replicated(parallel.mesh)
    step = make_train_step(
        net,
        OPTIMIZER,
        Classification(),
        Preprocessing(8, (0.5,), (0.5,)).normalise,
        make_augment(AUGMENT, MIX if mix else {}, (8, 8, 1)),
        mixes=mix,
        parts=parts,
        parallel=parallel,
    )

    like = jax.eval_shape(lambda: initial(net))
    spread = parallel.spread(like)
    step = jax.jit(
        guard(step),
        in_shardings=(spread, rows, everywhere),
        out_shardings=(spread, everywhere),
        donate_argnums=0,
    )
    like = jax.tree.map(
        lambda array, sharding: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding),
        like,
        spread,
    )
    return lambda: jax.device_put(first_state(), spread), step, like


def initial(net):
    return create_state(
        net.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=False), OPTIMIZER
    )


@functools.cache
def first_state():
    """Returns what all begin with; compiled once."""
    return jax.device_get(jax.jit(lambda: initial(Net(num_classes=10)))())


def batches(splits, first, last):
    """Yields the batches of these steps; the data are 200 digits."""
    images = np.stack([splits.train[i][0] for i in range(len(splits.train))])
    order = Order(len(images), BATCH, seed=0)
    for step in range(first, last):
        indices, epochs = order.at(step)
        mask = np.ones(BATCH, np.float32)
        mask[step % BATCH] = 0
        yield {
            "image": images[indices],
            "label": splits.train.labels[indices].astype(np.int32),
            "mask": mask,
            "index": indices,
            "epoch": epochs,
        }


def train(splits, count, mode="jit", steps=20, **options):
    init, step, _ = compiled(count, mode, **options)
    state, losses = init(), []
    for batch in batches(splits, 0, steps):
        state, metrics = step(state, batch, jax.random.key(7))
        total, number = metrics["loss"]
        losses.append(float(total / number))
    return state, losses


def sent(count, mode, mix=False, **options):
    """Returns what the compiled step sends: kind of collective -> [how many, numbers in all]."""
    _, step, like = compiled(count, mode, mix=mix, **options)
    batch = {
        "image": jax.ShapeDtypeStruct((BATCH, 8, 8, 1), jnp.uint8),
        "mask": jax.ShapeDtypeStruct((BATCH,), jnp.float32),
        **{n: jax.ShapeDtypeStruct((BATCH,), jnp.int32) for n in ("label", "index", "epoch")},
    }
    key = jax.eval_shape(lambda: jax.random.key(0))
    found = collections.defaultdict(lambda: [0, 0])
    kinds = "all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all"
    for line in step.lower(like, batch, key).compile().as_text().splitlines():
        match = re.search(rf"= (.*?) ({kinds})(?:-start)?\(", line)
        if match:
            sizes = re.findall(r"\w+\[([\d,]*)\]", match[1])
            found[match[2]][0] += 1
            found[match[2]][1] += sum(
                int(np.prod([int(n) for n in size.split(",") if n])) for size in sizes
            )
    return dict(found)


def assert_same_training(splits, of_reference, count, mode, **options):
    """Within 1e-5 of every loss over 20 steps, and of every number in the state at the end."""
    reference, losses = of_reference
    state, found = train(splits, count, mode, **options)
    assert losses[-1] < losses[0]
    np.testing.assert_allclose(found, losses, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(reference), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("count", "mode", "options"),
    [
        pytest.param(2, "jit", {}, marks=slow),
        pytest.param(4, "jit", {}, marks=slow),
        pytest.param(8, "jit", {}, marks=slow),
        pytest.param(2, "jit", {"fsdp": 2}, marks=slow),
        pytest.param(4, "jit", {"fsdp": 2}, marks=slow),
        (8, "jit", {"fsdp": 4}),
        pytest.param(8, "jit", {"fsdp": 8}, marks=slow),
        pytest.param(1, "pmap", {}, marks=slow),
        pytest.param(2, "pmap", {"batch_norm": "global"}, marks=slow),
        pytest.param(4, "pmap", {"batch_norm": "4 devices"}, marks=slow),
        pytest.param(8, "pmap", {"batch_norm": "global"}, marks=slow),
        pytest.param(1, "jax.pmap", {}, marks=slow),
        pytest.param(8, "jax.pmap", {"batch_norm": "global"}, marks=slow),
        pytest.param(8, "jit", {"parts": 2}, marks=slow),
        pytest.param(8, "jit", {"parts": 2, "fsdp": 2}, marks=slow),
        pytest.param(8, "pmap", {"parts": 2, "batch_norm": "global"}, marks=slow),
    ],
)
def test_batch_norm_over_all_devices_is_one_device(splits, count, mode, options):
    one = train(splits, 1, parts=options.get("parts", 1))
    assert_same_training(splits, one, count, mode, **options)


@pytest.mark.parametrize(
    ("count", "mode", "batch_norm", "groups"),
    [
        pytest.param(2, "pmap", None, 2, marks=slow),
        pytest.param(4, "pmap", "device", 4, marks=slow),
        pytest.param(8, "pmap", None, 8, marks=slow),
        pytest.param(8, "pmap", "4 devices", 2, marks=slow),
        pytest.param(8, "pmap", "2 devices", 4, marks=slow),
        pytest.param(4, "pmap", "2 devices", 2, marks=slow),
        pytest.param(8, "jax.pmap", None, 8, marks=slow),
        pytest.param(4, "jax.pmap", "device", 4, marks=slow),
    ],
)
def test_batch_norm_of_some_devices_is_one_device_that_takes_these_rows_together(
    splits, count, mode, batch_norm, groups
):
    reference = train(splits, 1, groups=groups)
    assert_same_training(splits, reference, count, mode, batch_norm=batch_norm)
    _, together = train(splits, 1)
    assert np.abs(np.divide(together, reference[1]) - 1).max() > 1e-3  # it does matter


def numbers_in(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.slow
def test_what_each_mode_sends():
    _, _, like = compiled(8)
    weights, averages = numbers_in(like.params), numbers_in(like.batch_stats)
    counts = 5  # rows that count, and sums and counts of two metrics
    # BatchNorm of each device: gradients, averages and metrics meet, once, and nothing else.
    alone = {"all-reduce": [1, weights + averages + counts]}
    assert sent(8, "pmap") == sent(8, "jax.pmap") == alone
    in_each_norm = 2 * 2 * 16  # mean and mean of squares of 16 channels, forth and back
    together = [1 + 2 * 2, weights + averages + counts + 2 * in_each_norm]
    for batch_norm in ("global", "2 devices"):
        assert sent(8, "pmap", batch_norm=batch_norm) == {"all-reduce": together}
    # As one program: the same for less, as the averages need not meet.
    assert set(sent(8, "jit")) == {"all-reduce"}
    kinds = sent(8, "jit")["all-reduce"]
    assert kinds[0] == together[0]
    assert weights <= kinds[1] <= together[1]
    # A spread state: its two large layers are gathered once, the gradients summed.
    spread = sent(8, "jit", fsdp=8)
    assert spread["all-gather"] == [2, 16 * SMALLEST_SPREAD // 8 + SMALLEST_SPREAD // 8 * 10]
    assert set(spread) <= {"all-gather", "all-reduce", "reduce-scatter"}
    # Mixing sends what is mixed: bytes of images, once.
    mixed = sent(8, "pmap", mix=True)
    assert set(mixed) == {"all-gather", "all-reduce"}
    assert BATCH * 8 * 8 <= mixed["all-gather"][1] <= BATCH * (8 * 8 + 20)


TOPOLOGIES = [
    (1, "jit", {}),
    (8, "jit", {}),
    (8, "jit", {"fsdp": 4}),
    (4, "jit", {"fsdp": 4}),
    (2, "pmap", {}),
    (8, "pmap", {"batch_norm": "2 devices"}),
    (4, "jax.pmap", {}),
]


@pytest.mark.slow
def test_a_checkpoint_of_each_topology_restores_on_each_other(splits, tmp_path):
    def digests(state):
        return [digest(leaf).tolist() for leaf in jax.tree.leaves(state)]

    for i, (count, mode, options) in enumerate(TOPOLOGIES):
        state, _ = train(splits, count, mode, steps=2, **options)
        saved = digests(state)
        checkpoints = Checkpoints(tmp_path / str(i), keep=2, best_step=lambda: None)
        checkpoints.save(2, state, {})
        checkpoints.wait()
        for other_count, other_mode, other in TOPOLOGIES:
            _, _, like = compiled(other_count, other_mode, **other)
            restored, _ = checkpoints.restore(2, like)
            assert digests(restored) == saved
            places = jax.tree.map(lambda a, b: a.sharding == b.sharding, restored, like)
            assert jax.tree.all(places)
        checkpoints.close()


def test_a_group_holds_one_state_between_its_devices():
    init, _, _ = compiled(8, "jit", fsdp=4)
    kernel = init().params["hidden"]["kernel"]
    assert {shard.data.size for shard in kernel.addressable_shards} == {kernel.size // 4}
    assert init().params["bn1"]["scale"].is_fully_replicated


@pytest.mark.parametrize(
    ("mode", "options", "message"),
    [
        ("jit", {"fsdp": 3}, r"fsdp=3: 8 devices .* groups of 3; 1, 2, 4, 8 can"),
        ("jit", {"batch_norm": "device"}, r"batch_norm='device': .*parallel.mode=pmap"),
        ("pmap", {"fsdp": 2}, r"fsdp=2: in mode 'pmap' .*parallel.mode=jit"),
        ("pmap", {"batch_norm": "all"}, r"batch_norm='all': must be 'global', 'device' or"),
        ("pmap", {"batch_norm": "0 devices"}, "must be 'global', 'device' or"),
        ("pmap", {"batch_norm": "3 devices"}, r"8 devices cannot .* groups of 3; 1, 2, 4, 8"),
        ("jax.pmap", {"batch_norm": "4 devices"}, "one or all of them; 'pmap' does the same"),
    ],
)
def test_what_cannot_be_spread_is_refused(mode, options, message):
    with pytest.raises(ConfigError, match=message):
        make_parallel(mode, jax.devices(), **options)


@pytest.mark.slow
def test_a_run_goes_on_with_its_state_spread_otherwise(config, splits, devices, tmp_path):
    config.average.ema_decay = 0.9
    straight = fit(config, tmp_path / "straight", splits=splits, devices=devices[:1])
    trap = splits._replace(train=Tripwire(splits.train, 24 * 9, send(signal.SIGTERM)))
    config.data.cache = False
    config.parallel.fsdp = 4
    with pytest.raises(Interrupted):
        fit(config, tmp_path / "moved", splits=trap, devices=devices)
    config.parallel.fsdp = 2
    moved = fit(config, tmp_path / "moved", splits=splits, devices=devices[:2])
    for group, values in straight["metrics"].items():
        assert moved["metrics"][group]["loss"] == pytest.approx(values["loss"], rel=1e-3)
    one, two = (zoo.load("lenet5", tmp_path / run / "weights")[1] for run in ("straight", "moved"))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.slow
def test_another_number_of_devices_is_refused_where_it_is_another_batch_norm(
    config, splits, devices, tmp_path
):
    config.model.name = "resnet20"
    config.parallel.mode = "pmap"
    config.train_for = config.evaluate_every = "2 steps"
    fit(config, tmp_path, splits=splits, devices=devices[:4])
    config.train_for = "4 steps"
    config.checkpoint.allow_changes = True
    fit(config, tmp_path, splits=splits, devices=devices[:4])
    config.checkpoint.allow_changes = False
    (tmp_path / "results.json").unlink()
    with pytest.raises(ConfigError, match="examples that BatchNorm sees together changed"):
        fit(config, tmp_path, splits=splits, devices=devices[:2])
    config.parallel.batch_norm = "device"
    with pytest.raises(ConfigError, match=r"parallel\.batch_norm was None and is 'device'"):
        fit(config, tmp_path, splits=splits, devices=devices[:4])
