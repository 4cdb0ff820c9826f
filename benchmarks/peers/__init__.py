"""The same work by zoo and by its peers, in turns, in one run.

    pip install -e '.[train]' && pip install -r tests/parity/oracles.txt
    python -m benchmarks.peers --prepare     # compile everything once; may run at any time
    python -m benchmarks.peers               # measure, on a machine that does nothing else

torch.compile needs g++ and Python's headers. For each model every contender has a process of
its own on the same cores, with as many threads. All build and compile, two at a time, and warm
up; then they work in turns, A-B-C-A-B-C, and while one works the others are stopped by a
signal, so that no thread of theirs spins. A turn is some seconds of steps, and one step at
least; below a quarter of a second a step that is not timed comes first. Ratios are taken within
a round and are medians over the rounds; where zoo is compared with the best of several rows,
that is the one with the largest median, in all rounds.

What is the same for all: float32, batch, image size, random weights, no dropout and no
stochastic depth (rates of 0), cross-entropy, auxiliary heads in training where the network has
them, SGD with momentum, and the number of parameters, which is asserted: by a variant of zoo's
network where a peer's is built differently, and the result says how they differ. A training step
takes a batch in memory. zoo's is the whole step of its trainer, which also normalises pixels,
counts top-1 and top-5 and undoes a step that is not finite; the others get normalised floats
(Keras's EfficientNet scales its input nevertheless). In inference all get floats.

A contender that is slow has fewer rounds, two at least; one that fails is in the result with
its error; one that does not exist (Keras has no AlexNet) is listed as not there.

`--resume` goes on with a run that was stopped, `--show` prints and plots what is there.
benchmarks/results/ gets a JSON file, to which each model is added when it is finished, and a
plot. "others" in a turn is the part of the processors that programs outside of the comparison
took meanwhile: where it is not near 0, the turn is worth little.
"""
