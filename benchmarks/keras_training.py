"""Trains what a recipe trains in Keras on JAX: the other side of the comparison.

    pip install keras
    python -m benchmarks.keras_training \
        --config=configs/resnet_mnist.py:idx=/usr/share/datasets/fashion-mnist

JAX and zoo's own extra `train` are supposed to be there. `--check` compares the Keras network
with zoo's, weights copied, and trains nothing. Otherwise one line is printed, and
benchmarks/results/ gets a JSON file.

All numbers come from the recipe. Data, splits, preprocessing, the order of the examples and
the curve of the learning rate are made by zoo's own functions. Initial weights, shifts, flips
and dropout come from the same distributions, drawn by other generators. What remains different:

* Keras has the learning rate inside the momentum of SGD, optax outside; the same as long as
  the rate does not change.
* Keras adds epsilon to Adam's root before the correction of its bias, optax after it.
* An epoch is a whole number of batches, so that the last one of `fit` may run a few steps
  past the end of the recipe. The rate must be 0 there, else the recipe is refused.

Keras is used as its guides say: `fit` with `jit_compile`, data in memory, and batches
augmented ahead by threads, by whole-array operations of NumPy.
"""

from collections.abc import Callable, Iterator, Sequence
import os
from pathlib import Path
import sys
import tempfile
import time
from typing import Any, NamedTuple

os.environ["KERAS_BACKEND"] = "jax"

from absl import app, flags
from flax import traverse_util
import jax
import jax.numpy as jnp
import keras
from ml_collections import config_flags
import numpy as np
import optax

from benchmarks.record import surroundings, write
from configs import default
import zoo
from zoo.data.loader import Order, map_ahead
from zoo.data.source import Source, open_splits
from zoo.errors import ConfigError, ZooError
from zoo.registry import find_model
from zoo.training.config import Config, flatten, make_preprocessing, to_steps
from zoo.training.schedules import make_schedule
from zoo.weights.preprocessing import Preprocessing

PROGRAM = "benchmarks.keras_training"
TOLERANCE = 1e-5  # of logits and running averages, relative, in float32

# Of the random weights that are compared: they let differences of images pass through.
RANDOM = {"gamma": (0.8, 1.6), "moving_variance": (0.5, 1.0)}

CONFIG = config_flags.DEFINE_config_file("config", None, "The recipe, as of train.py.")
CHECK = flags.DEFINE_bool("check", False, "Compare the networks and train nothing.")

# What this program translates. A recipe that changes another key is refused, for Keras would
# train something else.
TRANSLATED = {
    *("seed", "batch_size", "train_for", "model.name", "model.arguments"),
    *("data.name", "data.data_dir", "data.image_key", "data.label_key"),
    *("data.train_split", "data.validation_split", "data.test_split"),
    *("data.image_size", "data.channels", "data.fit", "data.crop_fraction"),
    *("data.interpolation", "data.mean", "data.std", "augment.images"),
    *("optimizer.name", "optimizer.arguments", "optimizer.learning_rate"),
    *("optimizer.schedule", "optimizer.schedule_arguments", "optimizer.final_fraction"),
    *("optimizer.warmup", "optimizer.warmup_fraction", "optimizer.weight_decay"),
    # These change how a run is kept and how fast it is, not what it trains.
    *("log_every", "data.cache", "data.threads", "data.prefetch"),
    *("checkpoint.every", "checkpoint.keep", "checkpoint.allow_changes"),
}


def lenet5(image_shape: Sequence[int]) -> keras.Model:
    """Returns zoo's `lenet5`; layers have the names of zoo's."""
    images = x = keras.Input(image_shape)
    for name, features in (("c1", 6), ("c3", 16)):
        x = keras.layers.Conv2D(features, 5, activation="tanh", name=name)(x)
        x = keras.layers.AveragePooling2D(2)(x)
    x = keras.layers.Conv2D(120, 5, activation="tanh", name="c5")(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(84, activation="tanh", name="f6")(x)
    return keras.Model(images, keras.layers.Dense(10, name="head")(x))


def resnet20(image_shape: Sequence[int]) -> keras.Model:
    """Returns zoo's `resnet20`; layers have the names of zoo's, with dots."""

    def conv(x: Any, features: int, strides: int, name: str) -> Any:
        x = keras.layers.ZeroPadding2D(1)(x)  # "same" would pad otherwise at stride 2
        return keras.layers.Conv2D(features, 3, strides, use_bias=False, name=name)(x)

    def norm(x: Any, name: str, **arguments: Any) -> Any:
        return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name, **arguments)(
            x
        )

    def shortcut(x: Any, features: int, strides: int) -> Any:
        missing = features - x.shape[-1]
        if not missing:
            return x
        sides = [(0, 0), (0, 0), (0, 0), (missing // 2, missing - missing // 2)]
        return keras.ops.pad(x[:, ::strides, ::strides], sides)

    images = keras.Input(image_shape)
    x = keras.layers.ReLU()(norm(conv(images, 16, 1, "stem_conv"), "stem_bn"))
    for stage, features in enumerate((16, 32, 64), 1):
        for block in (1, 2, 3):
            name, strides = f"stage{stage}_block{block}.", 2 if stage > 1 and block == 1 else 1
            y = norm(conv(x, features, strides, name + "conv1"), name + "bn1")
            y = conv(keras.layers.ReLU()(y), features, 1, name + "conv2")
            y = norm(y, name + "bn2", gamma_initializer="zeros")
            x = keras.layers.ReLU()(y + shortcut(x, features, strides))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, keras.layers.Dense(10, name="head")(x))


def mobilenet_v1_025(image_shape: Sequence[int]) -> keras.Model:
    """Returns `keras.applications.MobileNet`, a quarter as wide, without its softmax."""
    return keras.applications.MobileNet(
        image_shape, alpha=0.25, weights=None, classes=10, classifier_activation=None
    )


class Network(NamedTuple):
    """A network in Keras, and how zoo draws the kernels of its convolutions."""

    make: Callable[[Sequence[int]], keras.Model]
    conv_init: Callable[..., Any]


def _normal_fan_out(seed: int) -> Any:
    """He et al. 2015, https://arxiv.org/abs/1502.01852, section 2.2, backward case."""
    return keras.initializers.VarianceScaling(2, "fan_out", "untruncated_normal", seed=seed)


NETWORKS = {
    "lenet5": Network(lenet5, keras.initializers.LecunNormal),
    "resnet20": Network(resnet20, _normal_fan_out),
    "mobilenet_v1_025": Network(mobilenet_v1_025, _normal_fan_out),
}


def shift(images: np.ndarray, rng: np.random.Generator, *, padding: int) -> np.ndarray:
    """Pads [B, H, W, C] with black and cuts each image at a place of its own."""
    batch, height, width, _ = images.shape
    sides = (padding, padding)
    padded = np.pad(images, ((0, 0), sides, sides, (0, 0)))
    top, left = rng.integers(0, 2 * padding + 1, (2, batch, 1, 1))
    rows = top + np.arange(height)[:, None]
    columns = left + np.arange(width)
    return padded[np.arange(batch)[:, None, None], rows, columns]


def flip(images: np.ndarray, rng: np.random.Generator, *, probability: float = 0.5) -> np.ndarray:
    """Mirrors each of [B, H, W, C] left to right with a probability."""
    chosen = rng.random((len(images), 1, 1, 1)) < probability
    return np.where(chosen, images[:, :, ::-1], images)


AUGMENTATIONS = {"random_padding_crop": shift, "random_horizontal_flip": flip}


def check_translatable(config: Config) -> None:
    """Refuses a recipe that Keras would not train as zoo does.

    Raises:
      ConfigError: naming the key.
    """
    usual = dict(flatten(default.get_config()))
    for key, value in flatten(config):
        if key not in TRANSLATED and value != usual.get(key):
            raise ConfigError(
                f"config.{key}={value!r}: this program translates nothing but "
                f"{', '.join(sorted(TRANSLATED))}; leave it at {usual.get(key)!r}, or translate it"
            )
    names = [name for name, _ in config.augment.images]
    for key, name, table in (
        ("model.name", config.model.name, NETWORKS),
        ("optimizer.name", config.optimizer.name, OPTIMIZERS),
        *(("augment.images", name, AUGMENTATIONS) for name in names),
    ):
        if name not in table:
            raise ConfigError(
                f"config.{key}: {name!r} is not written in Keras here; {', '.join(table)} are"
            )


class Curve(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule of optax as one of Keras; both count steps from 0."""

    def __init__(self, schedule: optax.Schedule):
        self._schedule = schedule

    def __call__(self, step: Any) -> Any:
        return jnp.asarray(self._schedule(keras.ops.convert_to_tensor(step)), jnp.float32)


def kernels(network: keras.Model) -> list[Any]:
    """Returns the variables that weight decay applies to: those of two axes or more."""
    return [v for v in network.trainable_variables if len(v.shape) > 1]


def others(network: keras.Model) -> list[Any]:
    """Returns the biases and scales, which do not decay."""
    return [v for v in network.trainable_variables if len(v.shape) <= 1]


def _l2(network: keras.Model, weight_decay: float) -> None:
    """Adds the decay to the gradient, as zoo does for optimisers without one of their own."""
    for variable in kernels(network):
        variable.regularizer = keras.regularizers.L2(weight_decay / 2)


def _sgd(network: keras.Model, rate: Curve, weight_decay: float, **arguments: Any) -> Any:
    if weight_decay:
        _l2(network, weight_decay)
    return keras.optimizers.SGD(rate, **arguments)


def _adam(network: keras.Model, rate: Curve, weight_decay: float, **arguments: Any) -> Any:
    if weight_decay:
        _l2(network, weight_decay)
    return keras.optimizers.Adam(rate, **_adam_arguments(**arguments))


def _adamw(network: keras.Model, rate: Curve, weight_decay: float, **arguments: Any) -> Any:
    made = keras.optimizers.AdamW(rate, weight_decay, **_adam_arguments(**arguments))
    made.exclude_from_weight_decay(var_list=others(network))
    return made


def _adam_arguments(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> dict[str, float]:
    """Returns optax's names and defaults as Keras's names."""
    return {"beta_1": b1, "beta_2": b2, "epsilon": eps}


OPTIMIZERS = {"sgd": _sgd, "adam": _adam, "adamw": _adamw}


def make_network(config: Config, image_shape: Sequence[int]) -> keras.Model:
    """Returns the recipe's network in Keras, its kernels drawn as zoo draws them."""
    make, conv_init = NETWORKS[config.model.name]
    keras.utils.set_random_seed(config.seed)
    network = make(image_shape)
    for i, variable in enumerate(kernels(network)):
        init = conv_init if len(variable.shape) == 4 else keras.initializers.LecunNormal
        variable.assign(init(seed=config.seed + i)(variable.shape))
    return network


def zoo_network(config: Config) -> Any:
    """Returns the recipe's network in zoo."""
    return zoo.create_model(config.model.name, num_classes=10, **config.model.arguments.to_dict())


def _in_colour(config: Config, network: keras.Model) -> keras.Model:
    """Returns a grey network with the three channels that `zoo.load_weights` expects in a file.

    Two of them have kernels of zero: to adapt it to one channel again, zoo adds them up.
    """
    colour = NETWORKS[config.model.name].make((*network.input_shape[1:3], 3))
    first, *rest = network.get_weights()
    colour.set_weights([np.pad(first, ((0, 0), (0, 0), (0, 2), (0, 0))), *rest])
    return colour


def zoo_variables(config: Config, network: keras.Model) -> Any:
    """Returns the variables of a Keras network as zoo's, {"params": …, "batch_stats": …}."""
    if config.model.name.startswith("mobilenet"):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "network.weights.h5"
            _in_colour(config, network).save_weights(file)
            return zoo.load_weights(config.model.name, file, num_classes=10, channels=1).variables
    renamed = {
        **{"kernel": ("params", "kernel"), "bias": ("params", "bias")},
        **{"gamma": ("params", "scale"), "beta": ("params", "bias")},
        "moving_mean": ("batch_stats", "mean"),
        "moving_variance": ("batch_stats", "var"),
    }
    flat = {}
    for layer in network.layers:
        for variable in layer.weights:
            collection, name = renamed[variable.name]
            flat[collection, *layer.name.split("."), name] = np.asarray(variable)
    return traverse_util.unflatten_dict(flat)


def compare(config: Config, image_shape: Sequence[int]) -> dict[str, float]:
    """Returns how far the two networks are apart, of all weights drawn at random.

    Compared are the logits in evaluation mode, and BatchNorm's running averages after a pass
    in training mode, which depend on its momentum.

    Args:
      config: the recipe.
      image_shape: [H, W, C].

    Returns:
      The largest difference of each, as a part of the largest value (of a layer's averages).

    Raises:
      AssertionError: if one is over `TOLERANCE`.
    """
    network, model = make_network(config, image_shape), zoo_network(config)
    rng = np.random.default_rng(config.seed)
    for variable in network.weights:
        if len(variable.shape) == 1:  # biases, scales and averages: all 0 or 1 until now
            low, high = RANDOM.get(variable.name, (-0.5, 0.5))
            variable.assign(rng.uniform(low, high, variable.shape))
    # Coarse patterns: fine noise is nearly the same image to the end of a network, each time.
    coarse = rng.normal(size=(16, 4, 4, image_shape[2])).astype(np.float32)
    images = coarse.repeat(image_shape[0] // 4, 1).repeat(image_shape[1] // 4, 2)
    variables = zoo_variables(config, network)
    ours = model.apply(variables, images, train=False)
    theirs = np.asarray(network(images, training=False))
    apart = {"logits": float(np.abs(ours - theirs).max() / np.abs(theirs).max())}
    if "batch_stats" in variables:
        _, ours = model.apply(
            variables,
            images,
            train=True,
            mutable="batch_stats",
            rngs={"dropout": jax.random.key(0)},
        )
        network(images, training=True)
        theirs = zoo_variables(config, network)["batch_stats"]
        gaps = jax.tree.map(
            lambda a, b: np.abs(a - b).max() / np.abs(b).max(), ours["batch_stats"], theirs
        )
        apart["averages"] = float(max(jax.tree.leaves(gaps)))
    assert max(apart.values()) <= TOLERANCE, f"not the same network: {apart}"
    return apart


class Data(NamedTuple):
    """One split in memory: images uint8 [N, S, S, C], fitted, and labels int32 [N]."""

    images: np.ndarray
    labels: np.ndarray


def load(config: Config) -> tuple[dict[str, Data], Preprocessing]:
    """Returns the splits by name, and how their images are prepared, as zoo does."""
    data = config.data
    splits = open_splits(
        data.name,
        train=data.train_split,
        validation=data.validation_split,
        test=data.test_split,
        data_dir=data.data_dir,
        image_key=data.image_key,
        label_key=data.label_key,
    )
    if splits.validation is None or splits.test is None:
        raise ConfigError("config.data: give a validation_split and a test_split")
    shape = find_model(config.model.name).image_shape
    preprocessing = make_preprocessing(config, None, shape, splits.train.class_names)

    def read(source: Source) -> Data:
        images, labels = zip(*(source[i] for i in range(len(source))), strict=True)
        pixels = np.stack([preprocessing.pixels(image) for image in images])
        return Data(pixels, np.array(labels, np.int32))

    return {k: read(s) for k, s in splits._asdict().items()}, preprocessing


class Length(NamedTuple):
    """How long a training is, in steps, and in what Keras calls epochs."""

    total_steps: int
    warmup_steps: int
    steps_per_epoch: int
    epochs: int


def make_length(config: Config, num_examples: int) -> Length:
    """Returns the recipe's durations for so many training images."""

    def steps(duration: str) -> int:
        return to_steps(duration, batch_size=config.batch_size, num_examples=num_examples)

    total, per_epoch = steps(config.train_for), steps("1 epoch")
    return Length(total, steps(config.optimizer.warmup), per_epoch, -(-total // per_epoch))


def make_curve(config: Config, length: Length) -> Curve:
    """Returns the recipe's learning rates.

    Raises:
      ConfigError: if the recipe ends within an epoch at a rate that is not 0.
    """
    optimizer = config.optimizer
    schedule = make_schedule(
        optimizer.schedule,
        learning_rate=optimizer.learning_rate,
        total_steps=length.total_steps,
        warmup_steps=length.warmup_steps,
        arguments=optimizer.schedule_arguments.to_dict(),
        final_fraction=optimizer.final_fraction,
        warmup_fraction=optimizer.warmup_fraction,
    )
    curve, steps = Curve(schedule), length.epochs * length.steps_per_epoch
    if steps > length.total_steps and float(curve(length.total_steps)):
        raise ConfigError(
            f"config.train_for={config.train_for!r} is {length.total_steps} steps, in Keras "
            f"{steps}; take a schedule that falls to 0, or a whole number of batches per epoch"
        )
    return curve


def batches(
    config: Config, data: Data, preprocessing: Preprocessing, steps: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields zoo's own sequence of training batches, augmented by other draws.

    Yields:
      images float32 [B, S, S, C], normalised, and labels int32 [B].
    """
    order = Order(len(data.labels), config.batch_size, config.seed)

    def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([config.seed, step])
        indices, _ = order.at(step)
        images = data.images[indices]
        for name, arguments in config.augment.images:
            images = AUGMENTATIONS[name](images, rng, **arguments)
        return preprocessing.normalise(images), data.labels[indices]

    return map_ahead(batch, range(steps), threads=2, prefetch=4)


class Clock(keras.callbacks.Callback):
    """Notes how long each epoch took with its validation, in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds.append(round(time.perf_counter() - self._began, 2))


def train(config: Config) -> dict[str, Any]:
    """Trains the recipe in Keras and returns what came out, as JSON values.

    Raises:
      ConfigError: for a recipe that this program does not translate.
      DataError: for missing or damaged data.
    """
    data, preprocessing = load(config)
    shape = data["train"].images.shape[1:]
    length = make_length(config, len(data["train"].labels))
    network = make_network(config, shape)
    parameters = count_parameters(config, network, shape)
    optimizer = OPTIMIZERS[config.optimizer.name](
        network,
        make_curve(config, length),
        config.optimizer.weight_decay,
        **config.optimizer.arguments.to_dict(),
    )
    network.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=True,
    )
    held = {
        key: (preprocessing.normalise(data[key].images), data[key].labels)
        for key in ("validation", "test")
    }
    best = keras.callbacks.EarlyStopping(
        "val_accuracy", mode="max", patience=length.epochs, restore_best_weights=True
    )
    clock, load_before = Clock(), os.getloadavg()
    began, worked = time.perf_counter(), time.process_time()
    history = network.fit(
        batches(config, data["train"], preprocessing, length.epochs * length.steps_per_epoch),
        epochs=length.epochs,
        steps_per_epoch=length.steps_per_epoch,
        validation_data=held["validation"],
        validation_batch_size=config.batch_size,
        callbacks=[clock, best],
        verbose=2,
    ).history
    seconds, processor = time.perf_counter() - began, time.process_time() - worked
    _, top1 = network.evaluate(*held["test"], batch_size=config.batch_size, verbose=0)
    return {
        "parameters": parameters,
        "test_top1": round(float(top1), 4),
        "best_epoch": best.best_epoch + 1,
        "val_top1": [round(float(v), 4) for v in history["val_accuracy"]],
        # Keras counts the L2 penalty of weight decay in both losses; zoo has none in its.
        "val_loss": [round(float(v), 4) for v in history["val_loss"]],
        "train_loss": [round(float(v), 4) for v in history["loss"]],
        "seconds": round(seconds, 1),  # of fit: compilation, training, validation
        "processor_seconds": round(processor, 1),  # likewise; it depends less on other programs
        "seconds_per_epoch": clock.seconds,
        "load_average": {"before": load_before, "after": os.getloadavg()},  # of 1, 5, 15 minutes
        **length._asdict(),
    }


def count_parameters(config: Config, network: keras.Model, image_shape: Sequence[int]) -> int:
    """Returns how many parameters train, having asserted that zoo's network has as many."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    ours = jax.eval_shape(
        lambda x: zoo_network(config).init(jax.random.key(0), x, train=False), images
    )
    count = sum(p.size for p in jax.tree.leaves(ours["params"]))
    theirs = sum(int(np.prod(v.shape)) for v in network.trainable_variables)
    assert theirs == count, f"Keras's network has {theirs:,} parameters, zoo's {count:,}"
    return count


def main(argv: Sequence[str]) -> None:
    """Trains or checks, prints one line and, having trained, writes the result."""
    if len(argv) > 1:
        sys.exit(f"{argv[1]!r} is not a flag; flags begin with --")
    config = CONFIG.value
    recipe = Path(config_flags.get_config_filename(flags.FLAGS["config"]).split(":")[0]).stem
    try:
        check_translatable(config)
        if CHECK.value:
            size = config.data.image_size or find_model(config.model.name).image_shape[0]
            apart = compare(config, (size, size, config.data.channels or 1))
            print(f"{recipe}: the same network; largest differences {apart}")
            return
        result = {"recipe": recipe} | surroundings(PROGRAM, keras=keras.__version__) | train(config)
    except ZooError as error:
        sys.exit(f"keras_training: {error}")
    file = write(f"keras_training_{recipe}", result)
    print(
        f"{recipe} in Keras {keras.__version__}: {result['parameters']:,} parameters, test "
        f"{result['test_top1']:.2%} after epoch {result['best_epoch']} of {result['epochs']} "
        f"(the best in validation), {result['seconds']:.0f} s; {file}"
    )


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
