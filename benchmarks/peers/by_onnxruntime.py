"""The work as onnxruntime does it, on torch's network in torch's own export."""

from pathlib import Path
import tempfile
from typing import Any
import warnings

import onnxruntime
import torch

from benchmarks.peers.by_torch import count_parameters, make_images, make_network
from benchmarks.peers.checks import check_finite
from benchmarks.peers.worker import Job, Work


class Infer:
    """An inference session on the processor, with all graph optimisations."""

    def __init__(self, job: Job):
        torch.set_num_threads(job.threads)
        network, images = make_network(job.model).eval(), make_images(job)
        self.parameters = count_parameters(network)
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
            file = Path(folder) / "network.onnx"
            torch.onnx.export(
                network,
                (images,),
                file,
                dynamo=False,  # the newer exporter needs a further package; this one warns
                input_names=["images"],
                output_names=["logits"],
            )
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = job.threads
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
            self._session = onnxruntime.InferenceSession(
                file, options, providers=["CPUExecutionProvider"]
            )
        self._images = images.numpy()
        self.notes: dict[str, Any] = {"providers": self._session.get_providers()}

    def run(self, steps: int) -> None:
        for _ in range(steps):
            (logits,) = self._session.run(["logits"], {"images": self._images})
            check_finite(logits)


def load(job: Job, kind: str) -> Work:
    """Returns the work, which must be "infer"."""
    assert kind == "infer", f"onnxruntime does not {kind}"
    return Infer(job)
