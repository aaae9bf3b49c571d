"""Does memory grow? Many steps on tiny batches, and the slope of the resident size, with its interval. Linux only.

    MALLOC_ARENA_MAX=1 KERAS_BACKEND=jax python tests/memory.py                     # 10^6 steps of each kind
    MALLOC_ARENA_MAX=1 KERAS_BACKEND=jax python tests/memory.py --steps 20000 --only eager

The allocator of the C library keeps what is free in one arena a thread or core; with several of them it may grow for
hours, though nothing is lost.
"""

import argparse
import os
import pathlib
import time

import keras
import numpy as np
from helpers import to_native
from scipy.stats import linregress, t

import kmix

POINTS, WARM_UP = 100, 0.2
X, Y = np.random.default_rng(0).random((8, 4), "float32"), np.arange(8) % 3


def mixup():
    return kmix.MixUp(0.4, num_classes=3, seed=1)


def by_numpy(steps, note):
    layer = mixup()
    for step in range(steps):
        layer.at_step(step, (X, Y))
        note(step)


def eager(steps, note):
    layer, batch = mixup(), (to_native(X), to_native(Y))
    for step in range(steps):
        layer.at_step(step, batch)
        note(step)


def tfdata(steps, note, function=None):
    import tensorflow as tf

    ds = tf.data.Dataset.from_tensors((X, Y)).repeat(steps)
    for step, _ in enumerate(kmix.data.Numbering()(ds).map(function or mixup().at_step)):
        note(step)


def tfdata_alone(steps, note):
    import tensorflow as tf

    # Compiled by XLA, as mixing is.
    tfdata(steps, note, tf.function(lambda number, batch: (2.0 * batch[0], batch[1]), jit_compile=True))


def fit(steps, note, mixer=None, batches=100):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    trainer = kmix.MixTrainer(model, mixer) if mixer else model
    trainer.compile("sgd", kmix.losses.SoftLabelCrossentropy())
    x, y = np.tile(X, (batches, 1)), np.tile(Y, batches)
    noted = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: note(epoch * batches))
    trainer.fit(x, y, len(X), steps // batches, shuffle=False, verbose=0, callbacks=[noted])


def trainer(steps, note):
    fit(steps, note, mixup())


KINDS = {
    "NumPy": by_numpy,
    "eager": eager,
    "tf.data": tfdata,
    "tf.data without kmix": tfdata_alone,
    "MixTrainer": trainer,
    "fit without kmix": fit,
}


def resident():
    """The resident size of this process, in KiB."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024


def slope(kind, steps):
    """The growth in KiB per 1000 steps after a warm-up: `(slope, half of its 95 % interval)`."""
    seen, every = [], (1 - WARM_UP) * steps / POINTS

    def note(step):
        if step >= WARM_UP * steps + len(seen) * every:
            seen.append((step / 1000, resident()))

    KINDS[kind](steps, note)
    line = linregress(*zip(*seen, strict=True))
    # Where the size never changes, SciPy has no error.
    return line.slope, np.nan_to_num(line.stderr) * t.ppf(0.975, len(seen) - 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10**6)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    for kind in options.only:
        start = time.monotonic()
        growth, reach = slope(kind, options.steps)
        seconds = time.monotonic() - start
        print(
            f"{keras.backend.backend()}, {kind}: {growth:+.3f} ± {reach:.3f} KiB per 1000 steps, "
            f"over {options.steps} steps in {seconds:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
