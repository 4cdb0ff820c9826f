"""Accelerators: what each can compute, hold and move, from its maker's data sheets.

All figures are those of one chip (one card, one package), which JAX may show as two devices:
divide by chips, not by devices. Peaks are of dense matrices, never of sparse ones, and are what
nobody reaches; they are there to be divided by.

Columns of `ACCELERATORS`, in units of 1e12/s, GiB, 1e9 B/s and 1e9 B/s:

* half: FLOP/s in bfloat16, in float16 where there is no bfloat16, summed in float32;
* tf32, float32: FLOP/s of float32 matrices on tensor cores, which JAX uses by default where
  there are some, and of plain float32 arithmetic. TPUs have neither: they multiply float32 by
  one or more passes in bfloat16, one by default;
* memory and its bandwidth;
* network: what a chip can send to its neighbours over all links at once, in one direction. Data
  sheets often count both directions: half of theirs. Of cards without links, PCI Express.

Sources:

* [tpu] https://docs.cloud.google.com/tpu/docs/v3 (likewise v4, v5e, v5p, v6e and tpu7x). The
  network of v4 and later is their all-reduce bandwidth of a pod by its chips, or half of their
  bidirectional bandwidth of a chip.
* [domain] Jouppi et al. 2020, "A domain-specific supercomputer for training deep neural
  networks", https://doi.org/10.1145/3360307, tables 2 and 3: four links of 496 and 656 Gbit/s.
* [volta] [turing] [ampere] [hopper] NVIDIA's white papers and data sheets of V100, T4, A100,
  H100 and H200. Those of H100 and H200 print sparse peaks: half of them.
* [ada] NVIDIA's data sheet of L4 (sparse peaks) and its white papers of GA102, AD102 and GB202,
  float16 summed in float32.
* [blackwell] NVIDIA's data sheet of HGX B200, an eighth of it; bandwidth of its memory from bus
  and clock as the driver states them, https://github.com/pytorch/ao/pull/4002.
* [jax] names of devices: jax/_src/pallas/mosaic/tpu_info.py of JAX 0.10.2; those of GPUs are
  CUDA's.
"""

import dataclasses
from typing import Any

from zoo.errors import ConfigError, suggest


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """One kind of chip.

    Attributes:
      name: ours.
      half: FLOP/s, dense, bfloat16 or float16.
      tf32: FLOP/s of float32 matrices on tensor cores; None if there are none.
      float32: FLOP/s of plain float32; None where there is no such figure.
      memory: bytes.
      bandwidth: bytes/s of that memory.
      network: bytes/s that a chip can send in one direction over all links together.
      axes: of the torus in which chips are connected; 0 if every chip reaches every other.
      devices: that JAX shows for one chip.
      kinds: how JAX calls them, `device_kind`.
      source: see above.
    """

    name: str
    half: float
    tf32: float | None
    float32: float | None
    memory: int
    bandwidth: float
    network: float
    axes: int
    devices: int
    kinds: tuple[str, ...]
    source: str

    @property
    def link(self) -> float:
        """Bytes/s of one link of the torus in one direction; each axis has two for each chip."""
        return self.network / (2 * self.axes) if self.axes else self.network

    def peak(self, dtype: str) -> float:
        """Returns the FLOP/s that bound a network computing in this type, "bfloat16" or so.

        Of float32 what JAX computes by default: TF32 where there are tensor cores for it, one
        pass of bfloat16 on TPUs.

        Raises:
          ConfigError: for a type that has no peak here.
        """
        if dtype in ("bfloat16", "float16"):
            return self.half
        if dtype == "float32":
            return self.tf32 or self.float32 or self.half
        raise ConfigError(f"dtype={dtype!r}: there are peaks of bfloat16, float16 and float32")


# name: half, tf32, float32 | memory, bandwidth | network, axes | devices, kinds | source
# fmt: off
_TABLE: dict[str, tuple[Any, ...]] = {
    "v2":  (46,   None, None, 16,  700,  248, 2, 2, ("TPU v2",), "domain"),
    "v3":  (123,  None, None, 32,  900,  328, 2, 2, ("TPU v3",), "tpu, domain"),
    "v4":  (275,  None, None, 32,  1200, 270, 3, 1, ("TPU v4",), "tpu"),
    "v5e": (197,  None, None, 16,  819,  200, 2, 1, ("TPU v5 lite", "TPU v5e"), "tpu, jax"),
    "v5p": (459,  None, None, 95,  2765, 600, 3, 1, ("TPU v5", "TPU v5p"), "tpu, jax"),
    "v6e": (918,  None, None, 32,  1638, 400, 2, 1, ("TPU v6 lite", "TPU v6e"), "tpu, jax"),
    "7x":  (2307, None, None, 192, 7380, 600, 3, 2, ("TPU7x",), "tpu, jax"),
    "V100 SXM2 16GB": (125, None, 15.7, 16, 900, 150, 0, 1, ("Tesla V100-SXM2-16GB",), "volta"),
    "V100 SXM2 32GB": (125, None, 15.7, 32, 900, 150, 0, 1, ("Tesla V100-SXM2-32GB",), "volta"),
    "V100 PCIe 16GB": (112, None, 14, 16, 900, 16, 0, 1, ("Tesla V100-PCIE-16GB",), "volta"),
    "V100 PCIe 32GB": (112, None, 14, 32, 900, 16, 0, 1, ("Tesla V100-PCIE-32GB",), "volta"),
    "T4": (65, None, 8.1, 16, 320, 16, 0, 1, ("Tesla T4", "NVIDIA T4"), "turing"),
    "A100 SXM 40GB":
        (312, 156, 19.5, 40, 1555, 300, 0, 1, ("NVIDIA A100-SXM4-40GB",), "ampere"),
    "A100 SXM 80GB":
        (312, 156, 19.5, 80, 2039, 300, 0, 1, ("NVIDIA A100-SXM4-80GB",), "ampere"),
    "A100 PCIe 40GB":
        (312, 156, 19.5, 40, 1555, 32, 0, 1, ("NVIDIA A100-PCIE-40GB",), "ampere"),
    "A100 PCIe 80GB":
        (312, 156, 19.5, 80, 1935, 32, 0, 1, ("NVIDIA A100 80GB PCIe",), "ampere"),
    "H100 SXM": (989.4, 494.7, 66.9, 80, 3350, 450, 0, 1, ("NVIDIA H100 80GB HBM3",), "hopper"),
    "H100 PCIe": (756, 378, 51.2, 80, 2000, 64, 0, 1, ("NVIDIA H100 PCIe",), "hopper"),
    "H200": (989.4, 494.7, 66.9, 141, 4800, 450, 0, 1, ("NVIDIA H200",), "hopper"),
    "B200": (2250, 1125, 75, 180, 7672, 900, 0, 1, ("NVIDIA B200",), "blackwell"),
    "L4": (121, 60, 30.3, 24, 300, 32, 0, 1, ("NVIDIA L4",), "ada"),
    "RTX 3090": (71, 35.6, 35.6, 24, 936, 32, 0, 1, ("NVIDIA GeForce RTX 3090",), "ada"),
    "RTX 4090": (165.2, 82.6, 82.6, 24, 1008, 32, 0, 1, ("NVIDIA GeForce RTX 4090",), "ada"),
    "RTX 5090": (209.5, 104.8, 104.8, 32, 1792, 64, 0, 1, ("NVIDIA GeForce RTX 5090",), "ada"),
}
# fmt: on


def _row(
    name: str,
    half: float,
    tf32: float | None,
    float32: float | None,
    memory: int,
    bandwidth: float,
    network: float,
    axes: int,
    devices: int,
    kinds: tuple[str, ...],
    source: str,
) -> Accelerator:
    return Accelerator(
        name=name,
        half=half * 1e12,
        tf32=tf32 and tf32 * 1e12,
        float32=float32 and float32 * 1e12,
        memory=memory * 2**30,
        bandwidth=bandwidth * 1e9,
        network=network * 1e9,
        axes=axes,
        devices=devices,
        kinds=kinds,
        source=source,
    )


ACCELERATORS = {name: _row(name, *columns) for name, columns in _TABLE.items()}
_BY_KIND = {kind.lower(): a for a in ACCELERATORS.values() for kind in a.kinds}


def find_accelerator(device_kind: str) -> Accelerator | None:
    """Returns the chip of a device that JAX calls so, None for one that is not in the table.

    Args:
      device_kind: `jax.devices()[0].device_kind`.

    Example:
      >>> find_accelerator("NVIDIA H100 80GB HBM3").half / 1e12
      989.4
      >>> print(find_accelerator("cpu"))
      None
    """
    return _BY_KIND.get(device_kind.strip().lower())


def named_accelerator(name: str) -> Accelerator:
    """Returns the chip of that name.

    Args:
      name: of `ACCELERATORS`, such as "v5e"; case does not count.

    Raises:
      ConfigError: for a name that is not there.
    """
    for key in ACCELERATORS:
        if key.lower() == name.strip().lower():
            return ACCELERATORS[key]
    names = ", ".join(ACCELERATORS)
    raise ConfigError(
        f"accelerator {name!r}: there are {names}.{suggest(name, ACCELERATORS)} Add a row to "
        "benchmarks/hardware.py for another"
    )
