"""The roads by which a batch can reach a layer. All of them must give the same result."""

import keras
import numpy as np
import tensorflow as tf

import kmix

ROADS = ("numpy", "native", "tfdata")


def to_numpy(structure):
    """Tensors of any framework as NumPy arrays."""
    return keras.tree.map_structure(
        lambda t: None if t is None else t.numpy() if tf.is_tensor(t) else keras.ops.convert_to_numpy(t), structure
    )


def to_native(structure):
    """NumPy arrays as tensors of Keras' backend."""
    return keras.tree.map_structure(lambda a: None if a is None else keras.ops.convert_to_tensor(a), structure)


def at_step(road, layer, step, batch):
    """`layer.at_step(step, batch)` on one of the roads, as NumPy."""
    if road == "numpy":
        result = layer.at_step(step, batch)
        assert all(isinstance(leaf, np.ndarray) for leaf in keras.tree.flatten(result))
        return result
    if road == "native":
        result = layer.at_step(step, to_native(batch))
        assert all(keras.ops.is_tensor(leaf) for leaf in keras.tree.flatten(result))
        if layer.jit_compile:
            assert_fused_like_plain(result, layer, step, batch)
        return to_numpy(result)
    return to_numpy(next(iter(pipeline(layer.at_step, [batch], start=step))))


def assert_fused_like_plain(result, layer, step, batch):
    """Assert that plain operations give the same result as the short cuts that eager tensors take."""
    plain = plain_copy(layer).at_step(step, to_native(batch))
    for ours, other in zip(*map(keras.tree.flatten, (to_numpy(result), to_numpy(plain))), strict=True):
        assert ours is None or ours.dtype == other.dtype
        rounding = 1e-2 if ours is not None and ours.itemsize == 2 else 1e-5
        if ours is not None:
            np.testing.assert_allclose(ours.astype("float64"), other.astype("float64"), rounding, rounding)


def at_steps(road, layer, steps, batch):
    """`layer.at_step(step, batch)` for the steps 0, 1, ... on one of the roads, as a list."""
    if road == "tfdata":
        return [to_numpy(mixed) for mixed in pipeline(layer.at_step, [batch] * steps)]
    return [at_step(road, layer, step, batch) for step in range(steps)]


def call(road, layer, batch):
    """`layer(*batch)` on one of the roads, as NumPy."""
    if road == "tfdata":
        return to_numpy(next(iter(tf.data.Dataset.from_tensors(batch).map(layer))))
    batch = batch if road == "numpy" else to_native(batch)
    return to_numpy(layer(batch) if isinstance(batch, dict) else layer(*batch))


def pipeline(function, batches, start=0, parallel=None):
    """`function(number, batch)` mapped over batches in tf.data. Each batch may have its own shape."""
    numbers = tf.data.Dataset.range(start, start + len(batches))
    if len(batches) == 1:
        return tf.data.Dataset.zip(numbers, tf.data.Dataset.from_tensors(batches[0])).map(function)
    stacked = keras.tree.map_structure(lambda *leaves: np.stack(leaves), *batches)
    data = tf.data.Dataset.from_tensor_slices(stacked)
    return tf.data.Dataset.zip(numbers, data).map(function, num_parallel_calls=parallel)


def plain_copy(layer):
    """A copy of a layer that mixes with plain operations."""
    if isinstance(layer, kmix.RandomChoice):
        return type(layer)(layer.layers, layer.probabilities, seed=layer.seed, jit_compile=False, name=layer.name)
    return type(layer).from_config({**layer.get_config(), "jit_compile": False})
