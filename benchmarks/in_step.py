"""What mixing inside the training step costs: a step of `kmix.MixTrainer` and one of the bare model.

    KERAS_BACKEND=jax python benchmarks/in_step.py
    python benchmarks/in_step.py --all-backends
    KERAS_BACKEND=torch python benchmarks/in_step.py --network resnet50 --size 224 --classes 1000 --dtype mixed_bfloat16

All ways train the same network with the same optimizer, loss and batch, so that only the mixing differs. A round is one
block of steps of each way, in a new order every time, and ratios are taken within a round, so that a slow moment of the
machine affects all ways alike. The bare model runs twice; its second row shows how far noise alone moves a ratio.

`--path batch` (the default) calls `train_on_batch` with a batch that is already on the device, and waits for the loss
of each step. This is the strictest view: no cost hides behind the device's work or the transfer of data. `--path fit`
runs `fit` on NumPy arrays, with one epoch per block; use it with `--steps 20` or more.
"""

import argparse
import importlib.util
import os
import random
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import results

import kmix

BASELINE, CONTROL = "bare model", "bare model, again"


def small_resnet(size, classes, blocks):
    """A ResNet for small images with `6 * blocks + 2` layers (He et al. 2015, section 4.2)."""

    def convolved(x, filters, kernel_size=3, strides=1):
        x = keras.layers.Conv2D(filters, kernel_size, strides, padding="same", use_bias=False)(x)
        return keras.layers.BatchNormalization()(x)

    inputs = keras.Input((size, size, 3))
    x = keras.layers.ReLU()(convolved(inputs, 16))
    for stage, filters in enumerate((16, 32, 64), 1):
        for block in range(1, blocks + 1):
            strides = 2 if stage > 1 and block == 1 else 1
            shortcut = x if strides == 1 else convolved(x, filters, kernel_size=1, strides=2)
            residual = keras.layers.ReLU()(convolved(x, filters, strides=strides))
            residual = convolved(residual, filters)
            x = keras.layers.ReLU(name=f"stage{stage}_block{block}")(keras.layers.Add()([shortcut, residual]))
    outputs = keras.layers.Dense(classes, name="logits")(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs)


def resnet50(size, classes):
    """ResNet-50 from Keras, untrained."""
    return keras.applications.ResNet50(
        weights=None, input_shape=(size, size, 3), classes=classes, classifier_activation=None
    )


# By name: how to build the network, and the three places of Manifold Mixup in it.
NETWORKS = {
    "resnet8": (lambda *shape: small_resnet(*shape, blocks=1), ["input", "stage1_block1", "stage2_block1"]),
    "resnet20": (lambda *shape: small_resnet(*shape, blocks=3), ["input", "stage1_block3", "stage2_block3"]),
    "resnet50": (resnet50, ["input", "conv2_block3_out", "conv3_block4_out"]),
}


def ways_to_train(options):
    """The compiled models by name, the baseline first."""
    build, places = NETWORKS[options.network]
    trainers = {
        BASELINE: lambda model: model,
        CONTROL: lambda model: model,
        "MixUp": lambda model: kmix.MixTrainer(model, kmix.MixUp(0.2)),
        "CutMix": lambda model: kmix.MixTrainer(model, kmix.CutMix(1.0)),
        "Manifold, 3 places": lambda model: kmix.MixTrainer(model, kmix.MixUp(2.0), places=places),
    }
    models = {name: wrap(build(options.size, options.classes)) for name, wrap in trainers.items()}
    for model in models.values():
        loss = kmix.losses.SoftLabelCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), loss)
    if len({model.jit_compile for model in models.values()}) > 1:
        raise RuntimeError("Keras compiles only some of the models with XLA, so they cannot be compared.")
    return models


def make_data(options):
    """Images and one-hot labels: one batch on the device, or NumPy arrays with one batch for each step of a block."""
    generator, batches = np.random.default_rng(0), options.steps if options.path == "fit" else 1
    x = generator.random((options.batch, options.size, options.size, 3), dtype="float32")
    y = np.eye(options.classes, dtype="float32")[generator.integers(options.classes, size=options.batch)]
    if options.path == "fit":
        return np.tile(x, (batches, 1, 1, 1)), np.tile(y, (batches, 1))
    return keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(y)


def time_block(model, data, options):
    """Milliseconds per training step: on the clock, and summed over all cores."""
    start, start_cpu = time.perf_counter(), time.process_time()
    if options.path == "fit":
        model.fit(*data, batch_size=options.batch, shuffle=False, verbose=0)
    else:
        for _ in range(options.steps):
            model.train_on_batch(*data)  # returns numbers, so it waits for the device
    return 1e3 * (time.perf_counter() - start) / options.steps, 1e3 * (time.process_time() - start_cpu) / options.steps


def measure(models, data, options):
    """The times of every round, by name. The first two rounds, which compile, are not counted."""
    times, order = {name: [] for name in models}, list(models)
    for turn in range(-2, options.rounds):
        for name in order:
            spent = time_block(models[name], data, options)
            if turn >= 0:
                times[name].append(spent)
        random.Random(turn).shuffle(order)
    return times


def table_rows(times):
    """Cells of text for each way to train. The overhead over the baseline is the median over the rounds."""
    clocks, cores = ({name: [pair[i] for pair in pairs] for name, pairs in times.items()} for i in (0, 1))
    for name, values in clocks.items():
        cells = [f"{statistics.median(values):.1f}"]
        for spent in (clocks, cores):
            more = [100 * (ours / bare - 1) for ours, bare in zip(spent[name], spent[BASELINE], strict=True)]
            low, median, high = statistics.quantiles(more, n=4, method="inclusive")
            cells.append("" if name == BASELINE else f"{median:+.1f} ({low:+.1f} to {high:+.1f})")
        yield name, *cells


def compare(options):
    """Measure on this backend and print one Markdown table; with `--save`, also write it to RESULTS.md."""
    keras.config.set_dtype_policy(options.dtype)
    models = ways_to_train(options)
    times = measure(models, make_data(options), options)
    backend = keras.backend.backend()
    settings = f"batch {options.batch}, {options.dtype}, jit_compile={models[BASELINE].jit_compile}"
    rounds = f"{options.rounds} rounds of {options.steps} steps, path {options.path}"
    header = [backend, "ms per step", "overhead, % (quartiles)", "of processor time, % (quartiles)"]
    text = [
        f"## In the training step, {backend}",
        results.command(backend),
        results.machine("keras", backend),
        f"{options.network} at {options.size} x {options.size}, {settings}; {rounds}.",
        results.table(header, list(table_rows(times))),
    ]
    print("\n\n".join(text), flush=True)
    if options.save:
        results.write_section(f"in_step_{backend}", "\n\n".join(text))


def compare_all_backends():
    """Run this script once for each backend that is installed. Returns whether all ran."""
    backends = [name for name in ("tensorflow", "jax", "torch") if importlib.util.find_spec(name)]
    command = [sys.executable, __file__, *(word for word in sys.argv[1:] if word != "--all-backends")]
    runs = [subprocess.run(command, env={**os.environ, "KERAS_BACKEND": name}) for name in backends]
    return all(run.returncode == 0 for run in runs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="resnet20")
    parser.add_argument("--size", type=int, default=32, help="height and width of the images (default: 32)")
    parser.add_argument("--classes", type=int, default=10, help="number of classes (default: 10)")
    parser.add_argument("--batch", type=int, default=128, help="samples in a batch (default: 128)")
    parser.add_argument("--dtype", default="float32", help="Keras dtype policy, such as mixed_bfloat16")
    parser.add_argument("--path", choices=("batch", "fit"), default="batch", help="see above (default: batch)")
    parser.add_argument("--steps", type=int, default=1, help="steps in a block (default: 1)")
    parser.add_argument("--rounds", type=int, default=40, help="rounds that count, at least 2 (default: 40)")
    parser.add_argument("--save", action="store_true", help="write the table to RESULTS.md")
    parser.add_argument("--all-backends", action="store_true", help="one table for each installed backend")
    arguments = parser.parse_args()
    if arguments.all_backends:
        sys.exit(0 if compare_all_backends() else 1)
    compare(arguments)
