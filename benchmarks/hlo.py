"""What a compiled program reads, writes and sends, from the text of its optimised HLO.

The compiler's own count, "bytes accessed", adds up what each instruction touches in any memory.
A TPU program also moves arrays into fast on-chip memory ahead of time, in slices that it then
joins, and that count takes such an array several times though it is read once. `hbm_bytes`
therefore counts what crosses the pins of the slow memory: layouts marked `S(1)` are of the fast
one.
"""

from collections.abc import Iterator
import dataclasses
import math
import re

WIDTHS = {"pred": 1, "bf16": 2, "f16": 2} | {
    f"{kind}{bits}": bits // 8 for kind in "suf" for bits in (8, 16, 32, 64)
}
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# What moves nothing, or whose movement is counted where it starts.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
    *("partition-id", "replica-id", "iota", "optimization-barrier"),
}
_SHAPE = re.compile(r"\b(pred|bf16|[suf]\d+)\[([\d,]*)\](\{[^{}]*\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_LINE = re.compile(r"\s*(?:ROOT )?%([\w.\-]+) = (.*)")
_COPY = re.compile(r"(?:copy|slice|async|dynamic-slice)-start")


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of an instruction: how large it is and where it lies."""

    bytes: int
    fast: bool  # in on-chip memory


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: without "%".
      opcode: such as "fusion".
      out: arrays that it puts out.
      operands: names of what it reads.
      text: from the opcode on.
    """

    name: str
    opcode: str
    out: tuple[Array, ...]
    operands: tuple[str, ...]
    text: str


def arrays(text: str) -> tuple[Array, ...]:
    """Returns the arrays of a type as HLO writes it, tiling and padding left out.

    Example:
      >>> arrays("(bf16[8,128]{1,0:T(8,128)(2,1)S(1)}, f32[3]{0})")
      (Array(bytes=2048, fast=True), Array(bytes=12, fast=False))
    """
    found = []
    for kind, sizes, layout in _SHAPE.findall(text):
        count = math.prod(int(n) for n in sizes.split(",") if n)
        found.append(Array(count * WIDTHS.get(kind, 4), "S(1)" in layout))
    return tuple(found)


def computations(text: str) -> Iterator[tuple[str, list[Instruction]]]:
    """Yields (name, instructions) of each computation of a module; "ENTRY" is the main one."""
    name, lines = "", []
    for line in text.splitlines():
        if line.endswith("{") and (line.startswith("ENTRY ") or line.startswith("%")):
            name, lines = line.split()[0].lstrip("%"), []
        elif line.startswith("}") and name:
            yield name, lines
            name = ""
        elif name and (match := _LINE.match(line)):
            lines.append(_instruction(match[1], match[2]))


def _instruction(name: str, text: str) -> Instruction:
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    kind, rest = text[:end], text[end:].strip()
    start = rest.index("(")
    operands = _NAME.findall(rest[start : _closing(rest, start)])
    return Instruction(name, rest[:start], arrays(kind), tuple(operands), rest)


def _closing(text: str, start: int) -> int:
    """Returns where the bracket closes that opens at `start`."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if not depth:
            return i
    raise ValueError(f"no end of the bracket in {text[start : start + 80]!r}")


def hbm_bytes(text: str) -> int:
    """Returns the bytes that the main computation of a TPU program reads from and writes to HBM.

    What is copied into on-chip memory or out of it counts once, on its slow side. Branches of
    conditionals are left out: they pass on what they are given.
    """
    total = 0
    for name, lines in computations(text):
        if name == "ENTRY":
            values = {line.name: line for line in lines}
            total += sum(_traffic(line, values) for line in lines)
    return total


def _traffic(line: Instruction, values: dict[str, Instruction]) -> int:
    ends = ("-done", "-update")
    if line.opcode in _FREE or line.opcode.endswith(ends) or line.opcode == "conditional":
        return 0
    read = [a for name in line.operands if name in values for a in values[name].out]
    if _COPY.fullmatch(line.opcode):
        # Its type is (what is read, what is written, flags), in one or the other order.
        moved = min(a.bytes for a in line.out if a.bytes > 8)
        sides = [a for a in (*read, *line.out) if a.bytes > 8]
        return moved * (any(a.fast for a in sides) or 2)
    if line.opcode == "custom-call" and "ConcatBitcast" in line.text:
        return 0  # slices that already lie side by side
    return sum(a.bytes for a in (*read, *line.out) if not a.fast)


def collectives(text: str) -> dict[str, tuple[int, int]]:
    """Returns {kind: (how many, bytes)} of what devices send each other, in one run.

    Bytes are those of the larger side: of an all-gather what comes out, else what goes in. Of
    a loop the body counts once.
    """
    found: dict[str, tuple[int, int]] = {}
    for _, lines in computations(text):
        sizes = {line.name: sum(a.bytes for a in line.out) for line in lines}
        for line in lines:
            kind = line.opcode.removesuffix("-start")
            if kind in KINDS:
                read = sum(sizes.get(name, 0) for name in line.operands)
                # What starts puts out its operands as well.
                put = sizes[line.name] - (read if line.opcode != kind else 0)
                size = max(read, put)
                number, total = found.get(kind, (0, 0))
                found[kind] = (number + 1, total + size)
    return found


def estimated_cycles(text: str) -> int | None:
    """Returns the sum of what the compiler thinks each instruction takes; None if it says nothing.

    Instructions overlap with copies, and there is a figure only after code was generated.
    """
    cycles = re.findall(r'"estimated_cycles":"(\d+)"', text)
    return sum(map(int, cycles)) if cycles else None
