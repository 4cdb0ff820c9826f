"""Every layout there is, by our name of the model and by framework."""

from zoo.weights import inception, resnet
from zoo.weights.layouts import Layout

LAYOUTS: dict[str, dict[str, Layout]] = {
    **resnet.LAYOUTS,
    **inception.LAYOUTS,
}
