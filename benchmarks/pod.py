"""Plans throughput on a TPU pod without a TPU, by compiling the real training step for it.

    python -m benchmarks.pod --model=resnet50 --topology=v5e:4x4
    python -m benchmarks.pod --model=resnet50 --topology=v5e:4x4 --mode=jit,pmap --peer=flax,keras
    python -m benchmarks.pod --config=configs/vgg_imagenet.py:vgg16 --topology=v4:2x2x1

It needs `pip install -e '.[train,tpu]'` (the `tpu` extra brings the compiler), and Keras for
`--peer=keras`; no TPU. A column is printed for each mode and each peer, and
benchmarks/results/ gets a JSON file.

EVERY FIGURE IS PROJECTED: nothing was run. What is counted in the compiled program (memory, bytes,
FLOPs, collectives) is exact for that program; images/s are roofs, which a program can come near
and cannot pass: bandwidth / bytes, and peak / FLOPs. The roof of "bytes accessed", the compiler's
own count, is the one to expect: for the plain Flax ResNet-50 on v4, each core a device of its own,
it said 3,558 images/s per chip where 3,452 were published (MLPerf 1.0, 64 chips). That is one
point. The count takes what is copied into on-chip memory several times; the roof of HBM traffic
counts it once, and is an upper bound.

Larger slices: the same program on each chip, and its all-reduces, of V bytes, take 2 V / W and a
microsecond for each hop, where W is what a chip can send over all axes of the slice's torus. Both
ends are printed: all of it hidden behind computation, and none of it.

Without `--full` a program is given up once it is optimised, before machine code is made of it:
seconds in place of minutes, with the same counts, but without cycles.
"""

from collections.abc import Sequence
import importlib.metadata
import json
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import app, flags
import jax
from ml_collections import config_flags

from benchmarks import hlo
from benchmarks.pod_compile import DUMPED, FACTS, HLO, MEMORY, Program, compile_into
from benchmarks.pod_peers import PEERS
from benchmarks.record import surroundings, write
from benchmarks.topologies import Slice, parse_slice
from configs import resnet_imagenet
from zoo.description import describe
from zoo.errors import ConfigError, ZooError
from zoo.training.config import Config

# Apart from those of train.py, which has some of the same names.
OWN = flags.FlagValues()
MODEL = flags.DEFINE_string(
    "model", None, "A registered model; by default the recipe's.", flag_values=OWN
)
TOPOLOGY = flags.DEFINE_string(
    "topology", "v5e:4x4", "GENERATION:SHAPE of a slice.", flag_values=OWN
)
BATCH = flags.DEFINE_integer("batch_per_chip", 128, "Images.", flag_values=OWN)
DTYPE = flags.DEFINE_enum(
    "dtype", "bfloat16", ["bfloat16", "float32"], "What to compute in.", flag_values=OWN
)
MODE = flags.DEFINE_list(
    "mode", ["jit"], "Of config.parallel.mode: jit, pmap; '' for none.", flag_values=OWN
)
FSDP = flags.DEFINE_integer(
    "fsdp", 1, "Chips that hold one state between them, in jit.", flag_values=OWN
)
PEER = flags.DEFINE_list(
    "peer", [], f"Of {', '.join(PEERS)}: ResNet-50 as others train it.", flag_values=OWN
)
FULL = flags.DEFINE_bool("full", False, "Compile to the end, which adds cycles.", flag_values=OWN)
SECONDS = flags.DEFINE_integer(
    "limit", 3600, "Seconds that one program may take to compile.", flag_values=OWN
)
CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The recipe, ResNet-50's by default.", flag_values=OWN
)
SUFFIX = flags.DEFINE_string(
    "suffix", "", "Ends the name of the file that is written.", flag_values=OWN
)
INTO = flags.DEFINE_string("compile_into", None, "(Used by the program itself.)", flag_values=OWN)
NAME = flags.DEFINE_string("program", None, "(Likewise.)", flag_values=OWN)

ROOT = Path(__file__).parent.parent
LABEL = "PROJECTED"


def recipe() -> Config:
    """Returns the configuration: the recipe's, on noise, with the model that is asked for."""
    config = CONFIG.value or resnet_imagenet.get_config()
    config = config.copy_and_resolve_references()
    changes: dict[str, Any] = {"data.name": "mock:1000", "data.train_split": "train"}
    changes |= {"data.validation_split": "validation[:8]", "data.test_split": ""}
    if MODEL.value:
        changes["model.name"] = MODEL.value
    config.update_from_flattened_dict(changes)
    return config


def measure(program: Program, where: Slice) -> dict[str, Any]:
    """Compiles in a process of its own and returns what there is to say of one device's program.

    Returns:
      {"does_not_fit": {"need", "have"}} or bytes, FLOPs, memory, collectives and cycles.
    """
    with tempfile.TemporaryDirectory(prefix="zoo_pod_") as name:
        folder, began = Path(name), time.perf_counter()
        command = [sys.executable, "-m", "benchmarks.pod", *sys.argv[1:]]
        command += [f"--compile_into={folder}", f"--program={program.name}"]
        log = folder / "log.txt"
        with log.open("w") as out:
            child = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out)
            try:
                _wait(child, folder, began)
            finally:
                child.kill()
                code = child.wait()
        seconds = time.perf_counter() - began
        facts = folder / FACTS
        result = json.loads(facts.read_text()) if facts.exists() else {}
        text = folder / HLO if (folder / HLO).exists() else _dumped(folder, DUMPED)
        if "does_not_fit" not in result:
            if text is None or (FULL.value and not result):
                said = [s for s in log.read_text().splitlines() if s and " RAW: " not in s]
                raise ConfigError(f"{program.name} did not compile ({code}): {' '.join(said[-3:])}")
            result |= _read(text.read_text(), result, _dumped(folder, MEMORY))
    return result | {"compile_seconds": round(seconds)}


def _wait(child: subprocess.Popen, folder: Path, began: float) -> None:
    """Returns when the process has ended, or has written all that is wanted of it."""
    while child.poll() is None:
        if time.perf_counter() - began > SECONDS.value:
            raise ConfigError(f"not compiled within --limit={SECONDS.value} seconds")
        if not FULL.value and _dumped(folder, DUMPED) is not None:
            time.sleep(2)  # until it is written to the end
            return
        time.sleep(0.5)


def _dumped(folder: Path, pattern: str) -> Path | None:
    """Returns the dump of the step, which is the last program for a TPU."""
    found = [f for f in sorted(folder.glob(pattern)) if ".cpu_" not in f.name]
    return found[-1] if found else None


def _read(text: str, facts: dict[str, Any], memory: Path | None) -> dict[str, Any]:
    """Returns what the text of a program says, and what its compiler left unsaid."""
    found = {
        "hbm_bytes": hlo.hbm_bytes(text),
        "collectives": hlo.collectives(text),
        "cycles": hlo.estimated_cycles(text),
    }
    if facts:
        sizes = facts["memory"]
        total = sizes["argument"] + sizes["output"] - sizes["alias"] + sizes["temp"] + sizes["code"]
        return found | {"memory_total": total}
    cost = _cost(text)
    total = re.search(r"^Total bytes: (\d+)", memory.read_text(), re.M) if memory else None
    found["memory_total"] = int(total[1]) if total else None
    return found | {"bytes_accessed": cost["bytes accessed"], "flops": cost["flops"]}


def _cost(text: str) -> dict[str, float]:
    """Returns the compiler's own analysis of a program; the same as of an executable's.

    jaxlib has no public name for it.
    """
    from jaxlib import _hlo, _jax

    client = jax.devices("cpu")[0].client
    return _jax.hlo_module_cost_analysis(client, _hlo.hlo_module_from_text(text))


def project(
    facts: dict[str, Any], program: Program, where: Slice, model_flops: float
) -> dict[str, Any]:
    """Returns the figures of a chip, and images/s on all slices.

    Args:
      facts: of one device's program.
      program: what was compiled.
      where: for which slice.
      model_flops: of a forward and backward pass of one image.
    """
    chip, images = where.accelerator, program.batch_per_chip
    per = chip.devices / images  # from a device's program to an image
    byte_roof = chip.bandwidth / (facts["bytes_accessed"] * per)
    flop_roof = chip.peak(program.dtype) / model_flops
    expected = min(byte_roof, flop_roof)
    sent = [size for _, size in facts["collectives"].values()]
    number = sum(number for number, _ in facts["collectives"].values())
    return {
        "memory_bytes_per_chip": facts["memory_total"] and facts["memory_total"] * chip.devices,
        "hbm_bytes_per_chip": chip.memory,
        "bytes_accessed_per_image": facts["bytes_accessed"] * per,
        "hbm_traffic_per_image": facts["hbm_bytes"] * per,
        "compiler_flops_per_image": facts["flops"] * per,
        "model_flops_per_image": model_flops,
        "collectives_per_step": facts["collectives"],
        "cycles": facts["cycles"],
        "roof_of_bytes_accessed": byte_roof,
        "roof_of_hbm_traffic": chip.bandwidth / (facts["hbm_bytes"] * per),
        "roof_of_flops": flop_roof,
        "expected_images_per_second_per_chip": expected,
        "expected_mfu": expected / flop_roof,
        "scaling": [_scaled(s, images, images / expected, sum(sent), number) for s in where.others],
    }


def _scaled(where: Slice, images: int, step: float, size: float, number: int) -> dict[str, Any]:
    """Returns images/s of all chips of a slice, with communication hidden and in the open."""
    sending = where.all_reduce_seconds(size, number)
    rates = [images * where.chips / seconds for seconds in (max(step, sending), step + sending)]
    return {
        "topology": where.name,
        "chips": where.chips,
        "all_reduce_seconds": sending,
        "images_per_second_hidden": rates[0],
        "images_per_second_in_the_open": rates[1],
        "efficiency_in_the_open": step / (step + sending),
    }


def rows_of(result: dict[str, Any]) -> dict[str, str]:
    """Returns a column of the table: what is printed of one program."""
    if "does_not_fit" in result:
        sizes = result["does_not_fit"]
        if sizes["need"] is None:
            return {"memory": f"does not fit: {result.get('message', 'no figures')[:200]}"}
        need, have = (f"{sizes[k] / 2**30:.2f} GiB" for k in ("need", "have"))
        return {"memory": f"does not fit: needs {need}, has {have}"}
    memory, own = result["memory_bytes_per_chip"], result["hbm_bytes_per_chip"]
    sent = [f"{n} {kind}, {size / 1e6:.1f} MB" for kind, (n, size) in _sent(result)]
    return {
        "memory": f"{memory / 2**30:.2f} of {own / 2**30:.0f} GiB" if memory else "unknown",
        "bytes accessed per image": f"{result['bytes_accessed_per_image'] / 1e6:.1f} MB",
        "HBM traffic per image": f"{result['hbm_traffic_per_image'] / 1e6:.1f} MB",
        "FLOPs per image, model": f"{result['model_flops_per_image'] / 1e9:.2f} G",
        "FLOPs per image, compiled": f"{result['compiler_flops_per_image'] / 1e9:.2f} G",
        "collectives per step": "; ".join(sent) or "none",
        "compiler's cycles": f"{result['cycles']:,}" if result["cycles"] else "(with --full)",
        "roof of bytes accessed": f"{result['roof_of_bytes_accessed']:,.0f} images/s",
        "roof of HBM traffic": f"{result['roof_of_hbm_traffic']:,.0f} images/s",
        "roof of FLOPs": f"{result['roof_of_flops']:,.0f} images/s",
        "to expect": f"{result['expected_images_per_second_per_chip']:,.0f} images/s",
        "  of the FLOPs' peak": f"{result['expected_mfu']:.1%}",
    }


def _sent(result: dict[str, Any]) -> list[tuple[str, tuple[int, int]]]:
    return sorted(result["collectives_per_step"].items())


def show(where: Slice, results: dict[str, dict[str, Any]]) -> None:
    """Prints the table, and what larger slices would do."""
    columns = {name: rows_of(result) for name, result in results.items()}
    print(f"{LABEL}: {where.name}, {BATCH.value} images per chip, {DTYPE.value}; per chip:")
    print(f"{LABEL}  {'':26}" + "".join(f"{name:>32}" for name in columns))
    for row in max(columns.values(), key=len):
        cells = "".join(f"{c.get(row, ''):>32}" for c in columns.values())
        print(f"{LABEL}  {row:26}{cells}")
    for name, result in results.items():
        for s in result.get("scaling", []):
            print(
                f"{LABEL}  {name} on {s['topology']:12} {s['chips']:6,} chips: "
                f"{s['images_per_second_in_the_open']:13,.0f} to "
                f"{s['images_per_second_hidden']:13,.0f} images/s, all-reduces "
                f"{1e3 * s['all_reduce_seconds']:.2f} ms"
            )


def programs() -> list[Program]:
    """Returns what is to be compiled, having checked the flags."""
    names = [*filter(None, MODE.value), *PEER.value]
    known = ["jit", "pmap", *PEERS]
    for name in names:
        if name not in known:
            raise ConfigError(f"--mode or --peer {name!r}: there are {', '.join(known)}")
    if BATCH.value < 1:
        raise ConfigError(f"--batch_per_chip={BATCH.value}: give 1 or more")
    return [
        Program(name, BATCH.value, DTYPE.value, FSDP.value if name == "jit" else 1)
        for name in names
    ]


def main(argv: Sequence[str]) -> None:
    """Compiles, prints and writes; in a child process only compiles."""
    if len(argv) > 1:
        sys.exit(f"{argv[1]!r} is not a flag; flags begin with --")
    try:
        where, wanted, config = parse_slice(TOPOLOGY.value), programs(), recipe()
        where.prepare()
        jax.config.update("jax_platforms", "cpu")
        if INTO.value:
            program = next(p for p in wanted if p.name == NAME.value)
            compile_into(Path(INTO.value), program, where, config)
            return
        # Ended from outside, it ends what it has started as well.
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        size = config.data.image_size
        shape = None if size is None else (size, size, config.data.channels or 3)
        flops = 3.0 * describe(config.model.name, image_shape=shape).flops
        result: dict[str, Any] = {"label": LABEL, "topology": where.name}
        result |= surroundings("benchmarks.pod", libtpu=importlib.metadata.version("libtpu"))
        result |= {"device": where.accelerator.kinds[0], "compiled_on": "CPU"}
        result |= {"model": config.model.name, "dtype": DTYPE.value, "batch_per_chip": BATCH.value}
        columns = {}
        for program in wanted:
            facts = measure(program, where)
            own = 3.0 * describe("resnet50").flops if program.name in PEERS else flops
            if "does_not_fit" not in facts:
                facts |= project(facts, program, where, own)
            columns[program.name] = result[program.name] = facts
    except (ZooError, importlib.metadata.PackageNotFoundError) as error:
        sys.exit(f"pod: {error}")
    show(where, columns)
    result["load_average"] = os.getloadavg()
    slice_name = where.name.replace(":", "_")
    print(write(f"pod_{config.model.name}_{slice_name}_{DTYPE.value}{SUFFIX.value}", result))


def parse(argv: Sequence[str]) -> list[str]:
    """Parses the flags, as `app.run` has it done."""
    flags.FLAGS(argv[:1])  # absl's own
    return OWN(argv)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
