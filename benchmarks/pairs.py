"""Time and memory of labels as pairs and of dense labels, for very many classes.

    python benchmarks/pairs.py
    KERAS_BACKEND=jax python benchmarks/pairs.py --classes 1000 100000 --save

This is timed for each form: `tf.data` draws, mixes and yields a batch of class ids (its inputs are single numbers, so
that there is little but labels to mix), and one compiled step (eager on PyTorch) computes the loss and its gradient
with respect to the predictions. A third row has no labels: the step computes the mean of the logarithm of the sum over
the classes, and its gradient, which is the part of the loss that no form of labels can avoid. The rounds are
interleaved, so that a slow moment of the machine affects all forms alike, and ratios are taken within a round.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import results
import tensorflow as tf

import kmix

DENSE, PAIR, NONE = FORMS = ("dense", "pair", "no labels")


def mixed_batches(form, batch, classes):
    """An endless iterator over mixed batches whose labels have that form."""
    options = tf.data.Options()
    # Each batch is mixed when it is requested, so that all mixing is timed.
    options.autotune.enabled = options.experimental_optimization.inject_prefetch = False
    ids = np.random.default_rng(0).integers(classes, size=batch)
    target = (kmix.targets.LabelPairs if form == PAIR else kmix.targets.Labels)(classes)
    layer = kmix.MixUp(1.0, target=target, seed=1)
    source = tf.data.Dataset.from_tensors((np.zeros((batch, 1), "float32"), ids)).repeat()
    return iter(source.enumerate().map(layer.at_step).with_options(options))


def compiled_step(loss, jit_compile):
    """`(labels, predictions) -> (loss, gradient)` on Keras' backend."""
    if keras.backend.backend() == "jax":
        import jax

        step = jax.jit(jax.value_and_grad(lambda y_pred, y: loss(y, y_pred)))
        return lambda y, y_pred: jax.block_until_ready(step(y_pred, np.asarray(y)))
    if keras.backend.backend() == "torch":
        import torch

        def step(y, y_pred):
            y_pred = y_pred.detach().requires_grad_()
            value = loss(torch.from_numpy(y.numpy()), y_pred)
            return value.detach(), torch.autograd.grad(value, y_pred)[0]

        return step

    @tf.function(jit_compile=jit_compile)
    def step(y, y_pred):
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            value = loss(y, y_pred)
        return value, tape.gradient(value, y_pred)

    return step


def loss_function(form, from_logits):
    """`(labels, predictions) -> loss`: the cross-entropy, or the part of it that does not depend on the labels."""
    if form != NONE:
        return kmix.losses.SoftLabelCrossentropy(from_logits=from_logits)
    if from_logits:
        return lambda y, y_pred: keras.ops.mean(keras.ops.logsumexp(y_pred, axis=-1))
    return lambda y, y_pred: keras.ops.mean(keras.ops.log(keras.ops.sum(y_pred, axis=-1)))


def measure(options, classes, from_logits):
    """By form: the milliseconds of every round for labels and step, the bytes of the labels, and the results."""
    y_pred = np.random.default_rng(1).normal(size=(options.batch, classes)).astype("float32")
    if not from_logits:
        y_pred = np.exp(y_pred) / np.exp(y_pred).sum(axis=-1, keepdims=True)
    y_pred = keras.ops.convert_to_tensor(y_pred)
    steps = {form: compiled_step(loss_function(form, from_logits), options.jit_compile) for form in FORMS}
    batches = {form: mixed_batches(form, options.batch, classes) for form in (DENSE, PAIR)}
    times, sizes, found, nothing = {form: [] for form in FORMS}, {}, {}, tf.zeros(0)
    for turn in range(options.rounds + 1):
        for form in FORMS:
            start = time.perf_counter()
            y = next(batches[form])[1] if form in batches else nothing
            mixed = time.perf_counter()
            value, gradient = steps[form](y, y_pred)
            value = float(value)
            times[form].append((1e3 * (mixed - start), 1e3 * (time.perf_counter() - mixed)))
            if turn == 0:  # This round compiles. All forms draw the same plan.
                sizes[form], found[form] = y.numpy().nbytes, (value, keras.ops.convert_to_numpy(gradient).copy())
            del gradient
    return {form: values[1:] for form, values in times.items()}, sizes, found


def rows_of(times, sizes):
    """The cells of a row after the number of classes and the kind of predictions, by form."""
    for form in FORMS:
        both = [sum(parts) for parts in times[form]]
        medians = [statistics.median(values) for values in (*zip(*times[form], strict=True), both)]
        ratio = statistics.median(sum(a) / sum(b) for a, b in zip(times[form], times[PAIR], strict=True))
        yield form, f"{sizes[form]:,}", *(f"{median:.2f}" for median in medians), f"{ratio:.2f}"


def main():
    """Measure every number of classes and print one Markdown table; with `--save`, also write it to RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", nargs="+", type=int, default=[1000, 10_000, 100_000], help="numbers of classes")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--jit-compile", action="store_true", help="compile the step on TensorFlow with XLA")
    parser.add_argument("--save", action="store_true", help="write the table to RESULTS.md")
    options = parser.parse_args()

    rows, differences = [], []
    for classes in options.classes:
        for from_logits in (False, True):
            times, sizes, found = measure(options, classes, from_logits)
            kind = "logits" if from_logits else "probabilities"
            rows += [[f"{classes:,}", kind, *cells] for cells in rows_of(times, sizes)]
            (loss, gradient), (other, other_gradient) = found[DENSE], found[PAIR]
            differences.append((abs(loss - other) / loss, np.abs(gradient - other_gradient).max()))
    loss, gradient = np.max(differences, axis=0)
    backend = keras.backend.backend()
    compiled = {"jax": "compiled by XLA", "torch": "eager"}.get(
        backend, "compiled by XLA" if options.jit_compile else "a graph"
    )
    header = [
        "classes",
        "y_pred",
        "labels",
        "bytes of labels",
        "labels, ms",
        "loss and gradient, ms",
        "both, ms",
        "to pair",
    ]
    text = f"""## Very many classes, {backend}

{results.command(backend)}

{results.machine("keras", "tensorflow", backend)}

Batches of {options.batch}, medians of {options.rounds} rounds; the step is {compiled}.

{results.table(header, rows)}

Largest difference between dense labels and pairs: losses {loss:.1e} (relative), gradients {gradient:.1e}.
"""
    print(text)
    if options.save:
        results.write_section(f"pairs_{backend}", text)


if __name__ == "__main__":
    main()
