"""Another number of machines in the middle of a training, and the same batches: Grain's elastic iterator.

    pip install . grain jax
    python examples/grain_elastic.py

Four processes read and mix one global batch together. They are killed at a random step; two processes go on, are killed
as well, and one goes on to the end. Nothing is saved but the number of steps that are done. The batches are compared
with those of one process that was never stopped, byte for byte, at ten random pairs of stops.

What makes them equal: *groups* of rows are mixed, not batches. Grain deals groups to the processes, so which process
mixes a group changes nothing about it.
"""

import argparse
import multiprocessing
import os

os.environ.setdefault("KERAS_BACKEND", "numpy")  # Nothing is trained here.

import grain
import numpy as np
from grain.experimental import ElasticIterator

import kmix

BATCH, GROUP, STEPS = 64, 16, 24  # rows of the global batch, rows of a group, steps of the training
GROUPS = BATCH // GROUP  # of a global batch: as many processes can share it
PROCESSES = (4, 2, 1)


def samples():
    """Images with class ids."""
    generator = np.random.default_rng(0)
    images = generator.random((480, 8, 8, 1), dtype="float32")
    return list(zip(images, np.arange(480) % 10, strict=True))


def mixed_groups():
    """The mixed groups of the whole training, by number."""
    pairs = kmix.pairing.RandomPairs(within=GROUP)
    settings = {"num_classes": 10, "pairing": pairs}
    mixer = kmix.RandomChoice([kmix.MixUp(0.4, seed=1, **settings), kmix.CutMix(seed=2, **settings)], seed=3)

    def mix(number, group):
        step, place = divmod(number, GROUPS)
        return mixer.at_step(step, group, first_row=place * GROUP)

    # `repeat` before `batch`: 480 rows are no whole number of batches, and no group may be cut short.
    rows = grain.MapDataset.source(samples()).seed(1).shuffle().repeat()
    return rows.batch(GROUP).map_with_index(mix)


def batches_of(process, processes, first_step):
    """What one of several processes trains on, from a step on: its groups of each global batch."""
    shard = grain.sharding.ShardOptions(shard_index=process, shard_count=processes)
    read = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    batches = iter(ElasticIterator(mixed_groups(), GROUPS, shard, read_options=read))
    batches.set_state({"global_next_index": first_step * GROUPS})
    return batches


def rows_of(groups):
    """Groups `(n, GROUP, ...)` as the rows `(n * GROUP, ...)` of a batch, which a model trains on."""
    return groups.reshape(-1, *groups.shape[2:])


def in_order(parts):
    """The rows of a global batch, of which the process p of n holds the groups p, p + n, ..."""
    groups = np.stack(parts, axis=1)
    return rows_of(groups.reshape(-1, *groups.shape[2:]))


def run_process(process, processes, first_step, connection):
    """A training process: here, it sends its part of each batch to the main process, and never ends by itself."""
    for batch in batches_of(process, processes, first_step):
        connection.send(batch)


def global_batches(processes, first_step, steps, start):
    """The global batches of some steps, from processes that are killed then, wherever they are."""
    parts, started = [], []
    for process in range(processes):
        ours, theirs = multiprocessing.Pipe(duplex=False)
        started.append(start(target=run_process, args=(process, processes, first_step, theirs), daemon=True))
        started[-1].start()
        theirs.close()
        parts.append(ours)
    try:
        for _ in range(steps):
            received = [part.recv() for part in parts]
            yield tuple(map(in_order, zip(*received, strict=True)))
    finally:
        for process in started:
            process.kill()
            process.join()


def elastic_run(stops, start):
    """All batches of a training on 4, then 2, then 1 processes."""
    first, batches = 0, []
    for processes, stop in zip(PROCESSES, (*stops, STEPS), strict=True):
        batches += global_batches(processes, first, stop - first, start)
        first = stop
    return batches


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10, help="random pairs of stops (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the stops (default: 0)")
    options = parser.parse_args()
    # A server that has imported the libraries starts a process in a moment.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["grain.experimental", "kmix"])

    uninterrupted = batches_of(0, 1, 0)
    expected = [tuple(map(rows_of, next(uninterrupted))) for _ in range(STEPS)]
    generator, equal = np.random.default_rng(options.seed), 0
    for _ in range(options.trials):
        stops = np.sort(generator.choice(np.arange(1, STEPS), 2, replace=False)).tolist()
        batches = elastic_run(stops, context.Process)
        same = all(
            ours.tobytes() == theirs.tobytes()
            for pair in zip(batches, expected, strict=True)
            for ours, theirs in zip(*pair, strict=True)
        )
        equal += same
        answer = "equal" if same else "DIFFERENT"
        print(f"4 processes, stopped at step {stops[0]:2}; 2, at step {stops[1]:2}; 1: {answer}", flush=True)
    print(f"Equal to the uninterrupted run: {equal} of {options.trials}.")
    return 0 if equal == options.trials else 1


if __name__ == "__main__":
    raise SystemExit(main())
