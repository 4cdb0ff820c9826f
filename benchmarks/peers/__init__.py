"""The same work by zoo and by its peers, in turns, in one run.

    pip install -e '.[train]' && pip install -r tests/parity/oracles.txt
    python -m benchmarks.peers --prepare     # compile everything once; may run at any time
    python -m benchmarks.peers               # measure, on a machine that does nothing else

For each model every contender has a process of its own on the same cores, with as many
threads. All start and warm up; then they work in turns, A-B-C-A-B-C, and while one works the
others are stopped by a signal, so that no thread of theirs spins. A turn is some seconds of
steps, and one step at least. Ratios are taken within a round and are medians over the rounds.

What is the same for all: float32, batch, image size, random weights, no dropout and no
stochastic depth (rates of 0), cross-entropy, SGD with momentum, and the number of parameters,
which is asserted. Where a peer's network is built differently, the result says in what.

A contender that is slow has fewer rounds, at least two; one that fails is in the result with
its error; one that does not exist ("Keras has no AlexNet") is listed as not there.

`--resume` goes on with a run that was stopped. benchmarks/results/ gets a JSON file, to which
each model is added when it is finished, and a plot.
"""
