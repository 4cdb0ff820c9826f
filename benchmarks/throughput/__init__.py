"""How many images per second models train on, or classify: `python -m benchmarks.throughput`."""
