"""The real contenders: their networks, and a whole run."""

import json
from pathlib import Path
import subprocess
import sys

import pytest

from benchmarks.peers.contenders import image_size, network_of
from benchmarks.peers.models import MODELS
from benchmarks.record import RESULTS
from tests.parity.oracles import import_torchvision

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("model", MODELS)
def test_torch_networks_are_the_same_and_drop_nothing(model):
    import torch

    from benchmarks.peers.by_torch import count_parameters, make_network

    import_torchvision()  # once in a process: other tests may have done so, or will
    with torch.device("meta"):
        network = make_network(model)
    assert count_parameters(network) == network_of(model, "torch", image_size(model)).parameters
    assert not [m for m in network.modules() if isinstance(m, torch.nn.Dropout) and m.p]


def test_whole_run(tmp_path):
    name = f"peers_{tmp_path.name}"
    files = [RESULTS / f"{name}.{ending}" for ending in ("json", "png")]
    contenders = ["zoo_unfolded", "keras", "torch", "onnxruntime"]
    command = [
        *(sys.executable, "-m", "benchmarks.peers", "--models=mobilenet_v1", "--work=infer"),
        *(f"--contenders={','.join(contenders)}", "--size=32", "--batch=2", "--rounds=2"),
        *("--turn=0.1", "--warm_up=0.5", f"--cache={tmp_path}", f"--name={name}"),
    ]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert not done.returncode, done.stderr
        result = json.loads(files[0].read_text())["mobilenet_v1 infer"]
        assert files[1].stat().st_size > 10_000
    finally:
        for file in files:
            file.unlink(missing_ok=True)
    assert list(result["contenders"]) == contenders
    for contender, entry in result["contenders"].items():
        assert "error" not in entry, (contender, entry)
        assert entry["parameters"] == 4_231_976
        assert len(entry["turns"]) == 2
    assert "best of torch and onnxruntime" in done.stdout
