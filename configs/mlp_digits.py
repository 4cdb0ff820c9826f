"""A multilayer perceptron on the digits: any widths, dropout, L1 and L2.

    python train.py --config=configs/mlp_digits.py --workdir=runs/mlp \
        --config.model.arguments="{'widths': (64, 32), 'dropout_rate': 0.5}" --config.loss.l1=1e-5

1,258 training images of 8x8 pixels. The network has no paper; dropout is that of Srivastava et al.
2014, https://jmlr.org/papers/v15/srivastava14a.html. With `:linear` it is softmax regression, the
baseline of every course; with `:smoke` it trains for two epochs. For any CPU. Accuracy: see the
README, which says how long eight seeds take as well.
"""

from ml_collections import ConfigDict

from configs import default

VARIANTS = {
    "smoke": {"train_for": "2 epochs"},
    "linear": {"model.name": "linear", "model.arguments": {}, "optimizer.learning_rate": 1e-2},
}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe, or one of its variants "linear" and "smoke"."""
    config = default.get_config()
    config.batch_size = 64
    config.train_for = "40 epochs"
    config.evaluate_every = "2 epochs"
    config.checkpoint.every = "2 epochs"

    config.model.name = "mlp"
    config.model.arguments = {"widths": (256, 256), "dropout_rate": 0.2}
    config.loss.l2 = 1e-5

    config.data.name = "digits"
    config.data.image_size = 8
    config.data.mean = (0.305,)  # of the training images
    config.data.std = (0.376,)
    config.data.cache = True

    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup = "1 epoch"

    return default.variant(config, variant, **VARIANTS)
