"""What Linux tells of the machine, as it is and as it is used."""

import os
from pathlib import Path


def processor() -> str:
    """Returns what Linux calls the processor, with the instructions that matter here."""
    text = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0]
    rows = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in rows.items()}
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
    has = [flag for flag in wanted if flag in fields.get("flags", "").split()]
    number = f"family {fields.get('cpu family')} model {fields.get('model')}"
    return f"{fields.get('model name', 'unknown')}, {number}, {' '.join(has)}"


def available_bytes() -> int:
    """Returns how much memory new programs could have."""
    rows = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(rows["MemAvailable"].split()[0]) * 1024


def busy_seconds() -> float:
    """Returns for how long the processors have been busy with anything, in all."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    ticks = [int(field) for field in fields[:8]]
    idle, waiting = ticks[3], ticks[4]
    return (sum(ticks) - idle - waiting) / os.sysconf("SC_CLK_TCK")
