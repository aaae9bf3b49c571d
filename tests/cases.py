"""Ways to send a batch to a layer, and what it means for a layer to refuse one."""

import re

import keras
import numpy as np
import pytest
import roads
import tensorflow as tf
from roads import to_native, to_numpy

# The values of symbolic tensors are known when the graph runs, and TensorFlow then raises its own error.
REFUSALS = (ValueError, tf.errors.InvalidArgumentError)


def data(n=6, shape=(8, 8, 3), seed=0):
    """Inputs in [0, 1)."""
    return np.random.default_rng(seed).uniform(size=(n, *shape)).astype("float32")


def ids(n=6, classes=3, seed=1):
    """Class ids that include every class."""
    return np.random.default_rng(seed).permutation(np.arange(n) % classes)


def native(batch):
    """A batch of Keras' backend. JAX has only 32 bits."""
    if keras.backend.backend() == "jax":
        batch = tf.nest.map_structure(lambda a: a.astype("float32") if a.dtype == "float64" else a, batch)
    return to_native(batch)


def ways(layer, batch):
    """Every way to send a batch, a tuple or a dictionary, to a layer, as functions without arguments."""
    ds = tf.data.Dataset.from_tensors(batch)
    layer.fuse = False
    return {
        "call with NumPy": lambda: layer(batch),
        "at_step with NumPy": lambda: layer.at_step(0, batch),
        "call with native tensors": lambda: layer(native(batch)),
        "at_step with native tensors": lambda: layer.at_step(0, native(batch)),
        "call with TensorFlow's": lambda: layer(tf.nest.map_structure(tf.constant, batch)),
        "ds.map(layer)": lambda: next(iter(ds.map(layer))),
        "ds.enumerate().map(layer.at_step)": lambda: next(iter(ds.enumerate().map(layer.at_step))),
    }


def refused(layer, batch, *words, good=None, every_way=True):
    """Assert that a layer refuses a batch on every way (or only with NumPy), with these words, and counts nothing.

    `good` is a batch (x, y) that it accepts.
    """
    for name, way in list(ways(layer, batch).items())[: None if every_way else 2]:
        if name == "ds.map(layer)" and good is not None:
            counts_from_zero(layer, good)
        raises(way, *words, name=name)
    if good is not None and not every_way:
        counts_from_zero(layer, good)


def counts_from_zero(layer, good):
    """Assert that a layer has not yet counted a batch."""
    for ours, expected in zip(*map(keras.tree.flatten, (layer(*good), layer.at_step(0, good))), strict=True):
        np.testing.assert_array_equal(ours, expected, err_msg="a refused batch was counted")


def raises(function, *words, name="", errors=REFUSALS):
    """Assert that a function raises one of `errors`, with these words (regular expressions) in any case."""
    text = returned = None
    try:
        returned = function()
    except errors as error:
        # TensorFlow escapes the quotes.
        text = str(error).replace('\\"', '"').replace("\\'", "'")
    if text is None:
        pytest.fail(f"{name}: nothing raised, but {returned!r:.200} was returned")
    missing = [word for word in words if not re.search(word, text, re.IGNORECASE)]
    assert not missing, f"{name}: the error does not say {missing}: {text}"


def at_step(road, layer, step, batch, fuse=False):
    """`layer.at_step(step, batch)` on a road, as NumPy. Few callers use XLA, which is slow to compile."""
    layer.fuse = fuse
    return roads.at_step(road, layer, step, batch)


def assert_near(ours, expected, atol=1e-5):
    """Arrays of any framework, in the same structure, within rounding."""
    tf.nest.assert_same_structure(ours, expected)
    for one, other in zip(tf.nest.flatten(to_numpy(ours)), tf.nest.flatten(expected), strict=True):
        assert np.shape(one) == np.shape(other)
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=atol)
