"""The commands of `python -m zoo`, one file each: `add` says what it takes, `run` does it."""
