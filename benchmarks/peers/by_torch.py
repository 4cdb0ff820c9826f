"""The work as torch does it, with torchvision's networks, and timm's where it has none."""

import math
import sys
from typing import Any
import warnings

import torch

from benchmarks.peers.checks import check_finite
from benchmarks.peers.models import CLASSES, MODELS
from benchmarks.peers.worker import Job, Work


def make_network(model: str) -> torch.nn.Module:
    """Returns a network with random weights and auxiliary heads, which drops nothing at random."""
    torch.manual_seed(0)
    library, name = MODELS[model].torch
    torchvision = import_torchvision()  # timm imports it as well
    with warnings.catch_warnings(action="ignore"):
        if library == "timm":
            import timm

            network: Any = timm.create_model(name, pretrained=False)
        else:
            # Inception's own initial weights take minutes to draw.
            slow = {"init_weights": False} if model in ("googlenet", "inception_v3") else {}
            network = torchvision.models.get_model(name, weights=None, **slow)
    for layer in network.modules():
        if isinstance(layer, torch.nn.Dropout) or type(layer).__name__ == "StochasticDepth":
            layer.p = 0.0
    return network


def import_torchvision() -> Any:
    """Returns torchvision, whose compiled part may be made for another build of torch."""
    if "torchvision" not in sys.modules:
        # Its Python part wants two detection operators to exist; no classifier calls them.
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        globals()["_library"] = library  # it must stay alive
    import torchvision

    return torchvision


def count_parameters(network: torch.nn.Module) -> int:
    """Returns how many parameters train."""
    return sum(p.numel() for p in network.parameters())


def make_images(job: Job) -> torch.Tensor:
    """Returns normal noise [B, 3, S, S]."""
    return torch.randn(job.batch, 3, job.size, job.size, generator=torch.manual_seed(0))


class Train:
    """Forward in training mode, cross-entropy of all heads, backward, SGD with momentum."""

    def __init__(self, job: Job):
        self._network, self._images, self.notes = prepare(job)
        self._network.train()
        self.parameters = count_parameters(self._network)
        self._labels = torch.randint(CLASSES, (job.batch,), generator=torch.manual_seed(0))
        fused = bool(job.options.get("fused"))
        self._optimizer = torch.optim.SGD(
            self._network.parameters(), lr=job.rate, momentum=0.9, fused=fused or None
        )
        self._aux_weight = job.aux_weight
        self._loss_of = self._loss
        if job.options.get("compiled"):
            self._loss_of = torch.compile(self._loss)

    def _loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        out = self._network(images)
        # torchvision returns a named tuple where there are auxiliary heads.
        logits, *auxiliary = (out,) if isinstance(out, torch.Tensor) else out
        loss = torch.nn.functional.cross_entropy(logits, labels)
        for other in auxiliary:
            loss = loss + self._aux_weight * torch.nn.functional.cross_entropy(other, labels)
        return loss

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self._optimizer.zero_grad(set_to_none=True)
            loss = self._loss_of(self._images, self._labels)
            loss.backward()
            self._optimizer.step()
            assert math.isfinite(loss.item()), "the loss is not finite"


class Infer:
    """Forward in evaluation mode, without anything kept for a gradient."""

    def __init__(self, job: Job):
        self._network, self._images, self.notes = prepare(job)
        self.parameters = count_parameters(self._network)
        self._network.eval()
        self._forward: Any = self._network
        if job.options.get("compiled"):
            import torch._inductor.config

            torch._inductor.config.freezing = True  # weights become constants, BatchNorm folds
            self._forward = torch.compile(self._network)
            self.notes["freezing"] = True

    def run(self, steps: int) -> None:
        with torch.inference_mode():
            for _ in range(steps):
                check_finite(self._forward(self._images).numpy())


def prepare(job: Job) -> tuple[torch.nn.Module, torch.Tensor, dict[str, Any]]:
    """Returns network and images in their layout, and notes."""
    torch.set_num_threads(job.threads)
    network, images = make_network(job.model), make_images(job)
    if job.options.get("channels_last"):
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = images.contiguous(memory_format=torch.channels_last)
    notes = {
        "torch_threads": torch.get_num_threads(),
        "float32_precision": torch.get_float32_matmul_precision(),
        **job.options,
    }
    return network, images, notes


def load(job: Job, kind: str) -> Work:
    """Returns the work of a kind, "train" or "infer"."""
    return {"train": Train, "infer": Infer}[kind](job)
