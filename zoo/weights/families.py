"""Every layout there is, by our name of the model and by framework."""

from zoo.weights import alexnet, efficientnet, inception, mobilenet, resnet, vgg, xception
from zoo.weights.layouts import Layout

LAYOUTS: dict[str, dict[str, Layout]] = {
    **alexnet.LAYOUTS,
    **vgg.LAYOUTS,
    **resnet.LAYOUTS,
    **xception.LAYOUTS,
    **mobilenet.LAYOUTS,
    **inception.LAYOUTS,
    **efficientnet.LAYOUTS,
}
