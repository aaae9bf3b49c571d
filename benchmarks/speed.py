"""Throughput of the mixing layers in a tf.data pipeline: kmix, Keras, KerasCV and the memory limit.

    python benchmarks/speed.py
    python benchmarks/speed.py --sizes 128x224x224x3/1000 256x32x32x3/10 --rounds 9 --parallel-calls 2

Each layer maps one batch in memory, over and over: `Dataset.from_tensors(batch).repeat(n).map(layer, N)`. The rounds
are interleaved, so that a slow moment of the machine meets all layers alike, and ratios are taken within a round. The
memory limit is one multi-threaded pass that reads two batches and writes one: the least that mixing can do.
"""

import argparse
import importlib.metadata
import os
import pathlib
import platform
import statistics
import time

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import kmix

try:
    import keras_cv
except ImportError:
    keras_cv = None

KINDS = {"MixUp": 0.2, "CutMix": 1.0}  # with their alphas


def parse_size(text):
    """`"256x32x32x3/10"` to the shape of a batch and its number of classes."""
    shape, _, classes = text.partition("/")
    return tuple(int(size) for size in shape.split("x")), int(classes)


def make_batch(shape, classes):
    """A batch of float32 images and one-hot labels."""
    generator = np.random.default_rng(0)
    labels = generator.integers(classes, size=shape[0])
    return generator.random(shape, dtype="float32"), np.eye(classes, dtype="float32")[labels]


def layers_to_time(name):
    """The layers of one kind, by library: kmix first."""
    alpha = KINDS[name]
    layers = {"kmix": getattr(kmix, name)(alpha), "keras.layers": getattr(keras.layers, name)(alpha)}
    if keras_cv is not None:
        layers["keras_cv"] = getattr(keras_cv.layers, name)(alpha)
    return layers


def memory_pass(batch):
    """A map function that reads two batches and writes one."""
    other = tf.constant(batch[0][::-1].copy())
    return lambda x, y: (x + other, y)


def build_source(batch, repeats):
    """A data set that repeats one batch."""
    options = tf.data.Options()
    # With a given number of parallel calls nothing is left to tune, but the end of an iterator waits for the tuner.
    options.autotune.enabled = False
    return tf.data.Dataset.from_tensors(batch).repeat(repeats).with_options(options)


def build_pipelines(batch, repeats, parallel_calls):
    """The mapped data sets by (kind, library)."""
    pairs = build_source(batch, repeats)
    dictionaries = build_source({"images": batch[0], "labels": batch[1]}, repeats)
    pipelines = {("", "memory limit"): pairs.map(memory_pass(batch), parallel_calls)}
    for name in KINDS:
        for library, layer in layers_to_time(name).items():
            source = pairs if library == "kmix" else dictionaries
            pipelines[name, library] = source.map(layer, parallel_calls)
    return pipelines


def time_batches(dataset, repeats):
    """Milliseconds per batch to run through a data set once: by the clock, and of all cores together."""
    start, start_cpu = time.perf_counter(), time.process_time()
    for _ in dataset:  # The batches stay tensors.
        pass
    return 1e3 * (time.perf_counter() - start) / repeats, 1e3 * (time.process_time() - start_cpu) / repeats


def measure(pipelines, repeats, rounds):
    """The times of every round, by pipeline. A first round, which compiles, is not counted."""
    times = {key: [] for key in pipelines}
    for _ in range(rounds + 1):
        for key, dataset in pipelines.items():
            times[key].append(time_batches(dataset, repeats))
    return {key: values[1:] for key, values in times.items()}


def table_rows(size, times):
    """One row of text per pipeline: median, spread, processor time, and the ratio to each layer of kmix concerned."""
    for (name, library), rounds in times.items():
        clock, cores = zip(*rounds, strict=True)
        ratios = [median_ratio(rounds, times[kind, "kmix"]) for kind in ([name] if name else KINDS)]
        yield [
            size,
            f"{library} {name}".strip(),
            f"{statistics.median(clock):.2f}",
            f"{min(clock):.2f} to {max(clock):.2f}",
            f"{statistics.median(cores):.2f}",
            " and ".join(f"{ratio:.2f}" for ratio in ratios),
        ]


def median_ratio(rounds, kmix_rounds):
    """Median over the rounds of the time of a pipeline, relative to kmix in the same round."""
    return statistics.median(clock / ours for (clock, _), (ours, _) in zip(rounds, kmix_rounds, strict=True))


def machine():
    """The processor, its cores and the versions that were measured."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    packages = ("keras", "keras-cv", "tensorflow", "numpy")
    versions = []
    for package in packages:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{package} not installed")
    processor = models[0] if models else platform.processor()
    return f"{processor}, {os.cpu_count()} cores; kmix {kmix.__version__}, {', '.join(versions)}"


def main():
    """Measure every size and print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = ["128x224x224x3/1000", "256x32x32x3/10", "128x28x28x1/10"]
    parser.add_argument("--sizes", nargs="+", default=sizes, help="shapes of a batch and numbers of classes")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--parallel-calls", type=int, default=os.cpu_count())
    arguments = parser.parse_args()

    print(f"{machine()}; Keras on {keras.backend.backend()}, num_parallel_calls={arguments.parallel_calls}\n")
    print("| batch / classes | layer | ms per batch, median | min to max | processor ms | relative to kmix |")
    print("| --- | --- | --- | --- | --- | --- |")
    for size in arguments.sizes:
        shape, classes = parse_size(size)
        # Enough batches that starting the pipeline does not count.
        repeats = int(np.clip(2e8 // np.prod(shape), 10, 200))
        pipelines = build_pipelines(make_batch(shape, classes), repeats, arguments.parallel_calls)
        for row in table_rows(size, measure(pipelines, repeats, arguments.rounds)):
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
