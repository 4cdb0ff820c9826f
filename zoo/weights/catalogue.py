"""Every layout there is, by our name of the model and by framework."""

from zoo.weights import efficientnet, resnet
from zoo.weights.layouts import Layout

LAYOUTS: dict[str, dict[str, Layout]] = {
    **resnet.LAYOUTS,
    **efficientnet.LAYOUTS,
}
