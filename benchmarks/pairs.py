"""Time and memory of labels as pairs beside dense labels, for very many classes.

    python benchmarks/pairs.py
    KERAS_BACKEND=jax python benchmarks/pairs.py --classes 1000 100000 --batch 128 --rounds 9

What is timed for each form: `tf.data` draws, mixes and yields a batch (of class ids and inputs of one number, so that
the labels are all there is to mix), and one compiled step (on PyTorch an eager one) takes it, computes the loss and its
gradient by the predictions. The rounds are interleaved, so that a slow moment of the machine meets both forms alike,
and ratios are taken within a round.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import kmix

FORMS = ("dense", "pair")


def mixed_batches(form, batch, classes):
    """An endless iterator over mixed batches whose labels have that form."""
    options = tf.data.Options()
    # Each batch is mixed when it is asked for, so that nothing is mixed outside of the clock.
    options.autotune.enabled = options.experimental_optimization.inject_prefetch = False
    ids = np.random.default_rng(0).integers(classes, size=batch)
    layer = kmix.MixUp(1.0, num_classes=classes, labels=form, seed=1)
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


def measure(batch, classes, from_logits, rounds, jit_compile):
    """By form: milliseconds of every round for labels and for the step, the bytes of the labels, and the results."""
    y_pred = np.random.default_rng(1).normal(size=(batch, classes)).astype("float32")
    if not from_logits:
        y_pred = np.exp(y_pred) / np.exp(y_pred).sum(axis=-1, keepdims=True)
    y_pred = keras.ops.convert_to_tensor(y_pred)
    step = compiled_step(kmix.losses.SoftLabelCrossentropy(from_logits=from_logits), jit_compile)
    batches = {form: mixed_batches(form, batch, classes) for form in FORMS}
    times, sizes, results = {form: [] for form in FORMS}, {}, {}
    for _ in range(rounds + 1):
        for form in FORMS:
            start = time.perf_counter()
            _, y = next(batches[form])
            mixed = time.perf_counter()
            value, gradient = step(y, y_pred)
            value, gradient = float(value), keras.ops.convert_to_numpy(gradient)
            times[form].append((1e3 * (mixed - start), 1e3 * (time.perf_counter() - mixed)))
            sizes[form], results[form] = y.numpy().nbytes, (value, gradient)
    # The first round compiles.
    return {form: values[1:] for form, values in times.items()}, sizes, results


def main():
    """Measure every number of classes and print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", nargs="+", type=int, default=[1000, 10_000, 100_000], help="numbers of classes")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--jit-compile", action="store_true", help="compile the step on TensorFlow with XLA")
    arguments = parser.parse_args()

    print(f"Batches of {arguments.batch}, Keras {keras.__version__} on {keras.backend.backend()}\n")
    print("| classes | y_pred | labels | bytes of labels | labels, ms | loss and gradient, ms | both, ms | to pair |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    differences = []
    for classes in arguments.classes:
        for from_logits in (False, True):
            times, sizes, results = measure(
                arguments.batch, classes, from_logits, arguments.rounds, arguments.jit_compile
            )
            for form in FORMS:
                both = [sum(parts) for parts in times[form]]
                medians = [statistics.median(values) for values in (*zip(*times[form], strict=True), both)]
                ratio = statistics.median(sum(a) / sum(b) for a, b in zip(times[form], times["pair"], strict=True))
                row = [f"{classes:,}", "logits" if from_logits else "probabilities", form, f"{sizes[form]:,}"]
                print("| " + " | ".join([*row, *(f"{median:.2f}" for median in medians), f"{ratio:.2f}"]) + " |")
            (loss, gradient), (other, other_gradient) = results.values()
            differences.append((abs(loss - other) / loss, np.abs(gradient - other_gradient).max()))
    loss, gradient = np.max(differences, axis=0)
    print(f"\nLargest difference of the losses (relative): {loss:.1e}; of the gradients: {gradient:.1e}")


if __name__ == "__main__":
    main()
