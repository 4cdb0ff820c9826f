"""Every layout there is, by our name of the model and by framework."""

from zoo.weights import mobilenet, resnet, xception
from zoo.weights.layouts import Layout

LAYOUTS: dict[str, dict[str, Layout]] = {
    **resnet.LAYOUTS,
    **xception.LAYOUTS,
    **mobilenet.LAYOUTS,
}
