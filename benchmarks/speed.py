"""Throughput of the mixing layers in a tf.data pipeline: kmix, its peers, and the memory limit, in one run.

    python benchmarks/speed.py                  # everything, written to RESULTS.md
    python benchmarks/speed.py --only 28x28x1   # some of the cases, only printed

Each layer maps one batch in memory, over and over: `Dataset.from_tensors(batch).repeat().map(layer, calls)`, timed from
one batch to a later one. The rounds are interleaved, each in a new order, so that a slow moment of the machine affects
all layers alike. The memory limit is one multi-threaded pass that reads two batches and writes one, the least
that mixing can do; for MixUp of uint8 images it is the cast to float32, which reads one.

The formulas of torchvision and timm are written out in PyTorch and run on a batch in memory, outside any loader:
one lam and one box for the whole batch. The partner is the neighbour (roll), or the sample at the other end (flip, in
place). uint8 images are cast to float32 before they are blended.
"""

import argparse
import os
import random
import statistics
import time

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import results
import tensorflow as tf

import kmix

try:
    import keras_cv
except ImportError:
    keras_cv = None
try:
    import torch
except ImportError:
    torch = None

ALPHAS = {"MixUp": 0.2, "CutMix": 1.0}
LIMIT, KMIX, KERAS, KERAS_CV = "memory limit", "kmix", "keras.layers", "keras_cv"
LIBRARIES = [LIMIT, KMIX, KERAS, KERAS_CV, "torchvision's formula", "timm's formula"]

# Shape of a batch, number of classes, dtype, parallel calls.
CASES = [
    ((128, 28, 28, 1), 10, "float32", 2),
    ((128, 32, 32, 3), 10, "float32", 2),
    ((128, 64, 64, 3), 200, "float32", 2),
    ((128, 224, 224, 3), 1000, "float32", 2),
    ((32, 32, 32, 3), 10, "float32", 2),
    ((256, 32, 32, 3), 10, "float32", 2),
    ((512, 32, 32, 3), 10, "float32", 2),
    ((32, 224, 224, 3), 1000, "float32", 2),
    ((128, 28, 28, 1), 10, "float32", 1),
    ((128, 224, 224, 3), 1000, "float32", 1),
    ((128, 28, 28, 1), 10, "uint8", 2),
    ((128, 32, 32, 3), 10, "uint8", 2),
    ((128, 64, 64, 3), 200, "uint8", 2),
    ((128, 224, 224, 3), 1000, "uint8", 2),
]

# What kmix should reach: case, kind, library, and the least multiple of the speed of that library.
BOUNDS = [
    (CASES[3], "MixUp", KERAS, 3.0),
    (CASES[3], "MixUp", KERAS_CV, 2.0),
    (CASES[3], "CutMix", KERAS, 8.0),
    (CASES[3], "CutMix", KERAS_CV, 6.0),
    (CASES[3], "MixUp", LIMIT, 1 / 1.3),
    (CASES[3], "CutMix", LIMIT, 1 / 1.3),
    (CASES[13], "MixUp", KERAS, 4.0),
    (CASES[13], "MixUp", KERAS_CV, 4.0),
    *[(CASES[0], kind, library, 1.0) for kind in ALPHAS for library in (KERAS, KERAS_CV)],
    *[(CASES[5], "MixUp", library, 2.0) for library in (KERAS, KERAS_CV)],
]


def name_of(case):
    """A case as text."""
    shape, _, dtype, calls = case
    return f"{' x '.join(map(str, shape))} {dtype}, {calls} call{'s' * (calls > 1)}"


def make_batch(shape, classes, dtype):
    """A batch of images and one-hot labels."""
    generator = np.random.default_rng(0)
    images = generator.random(shape, dtype="float32")
    labels = np.eye(classes, dtype="float32")[generator.integers(classes, size=shape[0])]
    return ((images * 255).astype("uint8") if dtype == "uint8" else images), labels


def make_layer(library, kind, **settings):
    """A mixing layer of a library."""
    layers = {KMIX: kmix, KERAS: keras.layers, KERAS_CV: getattr(keras_cv, "layers", None)}[library]
    return getattr(layers, kind)(ALPHAS[kind], **settings)


def memory_pass(kind, images):
    """A map function that moves the memory that mixing must move."""
    if kind == "MixUp" and images.dtype == "uint8":
        return lambda x, y: (tf.cast(x, "float32"), y)
    other = tf.constant(images[::-1].copy())
    return lambda x, y: (x + other, y)


def source(batch, library):
    """A data set that repeats one batch endlessly, in the form that a library takes."""
    options = tf.data.Options()
    # The number of parallel calls is fixed: there is nothing to tune, yet the end of an iterator waits for the tuner.
    options.autotune.enabled = options.experimental_optimization.inject_prefetch = False
    batch = batch if library in (KMIX, LIMIT) else dict(zip(("images", "labels"), batch, strict=True))
    return tf.data.Dataset.from_tensors(batch).repeat().with_options(options)


def run_pipeline(dataset, count):
    """Milliseconds per batch, over `count` batches after the first."""
    batches = iter(dataset.take(count + 1))
    next(batches)
    start = time.perf_counter()
    for _ in batches:  # They stay tensors.
        pass
    return 1e3 * (time.perf_counter() - start) / count


def torch_formulas(batch, kind, calls):
    """The formulas of torchvision and timm as timed functions, by library."""
    from formulas import formulas

    def timed(function):
        def run(count):
            torch.set_num_threads(calls)
            start = time.perf_counter()
            for _ in range(count):
                function()
            return 1e3 * (time.perf_counter() - start) / count

        return run

    found = formulas(kind, ALPHAS[kind], *batch)
    return {LIBRARIES[4]: timed(found["torchvision's formula"]), LIBRARIES[5]: timed(found["timm's formula, in place"])}


def runners(case, kind):
    """By library: a function of a count that returns milliseconds per batch."""
    shape, classes, dtype, calls = case
    batch = make_batch(shape, classes, dtype)
    functions = {LIMIT: memory_pass(kind, batch[0])}
    for library in (KMIX, KERAS, KERAS_CV) if keras_cv else (KMIX, KERAS):
        functions[library] = make_layer(library, kind)
    pipelines = {library: source(batch, library).map(function, calls) for library, function in functions.items()}
    found = {library: lambda count, ds=ds: run_pipeline(ds, count) for library, ds in pipelines.items()}
    return {**found, **(torch_formulas(batch, kind, calls) if torch else {})}


def measure(case, rounds):
    """Milliseconds per batch of every round, by (kind, library). The first round, which compiles, is not counted."""
    # Enough batches that the one or two that wait when the clock starts do not matter.
    count = int(np.clip(3e8 // np.prod(case[0]), 16, 300))
    runs = {(kind, library): run for kind in ALPHAS for library, run in runners(case, kind).items()}
    times = {key: [] for key in runs}
    for _ in range(rounds + 1):
        for key in random.sample(list(runs), len(runs)):
            times[key].append(runs[key](count))
    return {key: values[1:] for key, values in times.items()}


def cell(values, base=None):
    """Median, spread, and how many times slower than `base`."""
    median = statistics.median(values)
    text = f"{median:.2f} ({min(values):.2f} to {max(values):.2f})"
    return text if base is None else f"{text} {median / base:.1f}x"


def throughput(cases, rounds):
    """The table of all cases, and the table of the bounds."""
    rows, medians = [], {}
    for case in cases:
        times = measure(case, rounds)
        medians.update({(case, *key): statistics.median(values) for key, values in times.items()})
        for kind in ALPHAS:
            base = medians[case, kind, KMIX]
            row = [f"{kind} {name_of(case)}", f"{1e6 * base / np.prod(case[0]):.2f}"]
            for library in LIBRARIES:
                values = times.get((kind, library))
                row.append("" if values is None else cell(values, None if library == KMIX else base))
            rows.append(row)
            print(" | ".join(row), flush=True)
    bounds = [
        [
            f"{kind} {name_of(case)}",
            library,
            f"{wanted:.2f}",
            f"{medians[case, kind, library] / medians[case, kind, KMIX]:.2f}",
        ]
        for case, kind, library, wanted in BOUNDS
        if (case, kind, library) in medians
    ]
    return (
        results.table(["batch", "kmix, ns per number", *LIBRARIES], rows),
        results.table(["batch", "than", "times as fast, at least", "measured"], bounds),
    )


def fixed_costs(rounds):
    """What a batch costs without its pixels: the plan alone in NumPy, and a whole map on images of one pixel."""
    rows = []
    for size in (32, 128, 512):
        row = [size]
        for kind in ALPHAS:
            layer, count = kmix.CutMix(1.0, seed=1) if kind == "CutMix" else kmix.MixUp(0.2, seed=1), 300
            dataset = source(make_batch((size, 1, 1, 1), 10, "float32"), KMIX).map(layer, 2)

            def plans(layer=layer, count=count, size=size):
                start = time.perf_counter()
                for step in range(count):
                    layer.plan(step, size, spatial_shape=(224, 224))
                return 1e3 * (time.perf_counter() - start) / count

            row += [cell([plans() for _ in range(rounds)]), cell([run_pipeline(dataset, count) for _ in range(rounds)])]
        rows.append(row)
    header = ["batch"]
    for kind in ALPHAS:
        header += [f"{kind}: plan in NumPy", f"{kind}: one pixel in tf.data"]
    return results.table(header, rows)


def starts(rounds):
    """Milliseconds to the first batch: with a new layer, and in another epoch of the same pipeline."""
    rows = []
    for shape, classes in (((128, 28, 28, 1), 10), ((128, 224, 224, 3), 1000)):
        batch = make_batch(shape, classes, "float32")
        for kind in ALPHAS:
            row = [f"{kind} {' x '.join(map(str, shape))}"]
            for library in (KMIX, "plain ops", KERAS, *([KERAS_CV] if keras_cv else [])):
                first, again = [], []
                for _ in range(rounds):
                    plain = {"jit_compile": False} if library == "plain ops" else {}
                    layer = make_layer(KMIX if plain else library, kind, **plain)
                    data = source(batch, KMIX if library == "plain ops" else library)
                    start = time.perf_counter()
                    dataset = data.map(layer, 2)
                    next(iter(dataset))
                    first.append(1e3 * (time.perf_counter() - start))
                    start = time.perf_counter()
                    next(iter(dataset))
                    again.append(1e3 * (time.perf_counter() - start))
                row.append(f"{statistics.median(first):.0f}, {statistics.median(again):.0f}")
            rows.append(row)
    return results.table(["batch", KMIX, "kmix, `jit_compile=False`", KERAS, KERAS_CV][: len(rows[0])], rows)


def main():
    """Measure, print, and write the section of RESULTS.md, unless only some of the cases ran."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help='a part of the name of a case: "28x28x1", "uint8", "1 call"')
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    cases = [case for case in CASES if options.only.replace(" ", "") in name_of(case).replace(" ", "")]

    machine = results.machine("keras", "keras-cv", "tensorflow", "torch", "numpy")
    table, bounds = throughput(cases, options.rounds)
    text = f"""## In tf.data: `make speed`

{machine}. Keras on {keras.backend.backend()}.

Milliseconds per batch: medians of {options.rounds} interleaved rounds (minimum to maximum), then as multiples of that
of kmix. Left out: batches of 512 larger images, and the other combinations of size, dtype, batch and parallel calls.

{table}

The bounds, by the medians of this run:

{bounds}

Without the pixels, by batch size:

{fixed_costs(options.rounds)}

Milliseconds to the first batch, with a new layer and in another epoch:

{starts(options.rounds)}
"""
    print(f"\n{text}")
    if not options.only:
        results.write_section("speed", text)


if __name__ == "__main__":
    main()
