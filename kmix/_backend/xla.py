"""A function as one compiled program inside a TensorFlow graph."""

import keras

from kmix._backend import kinds


def fused(tf, function, *structures):
    """`function(*structures)` as one XLA program in a graph if the shapes allow it, else the plain call.

    XLA compiles once for each size of the batch, so all other sizes must be known. It drops assertions.
    """
    shapes = []
    leaves = {id(leaf): leaf for leaf in keras.tree.flatten(structures) if kinds.is_tensorflow(leaf)}
    if tf.executing_eagerly() or not tf.test.is_built_with_xla() or not all(map(_compiles, leaves.values())):
        return function(*structures)

    def unshaped(leaf):
        """The tensor before a final reshape: XLA may copy the batch to add an axis, which is free outside."""
        reshaped = leaf is not None and leaf.op.type == "Reshape" and {0, None}.isdisjoint(leaf.shape[1:])
        shapes.append(leaf.shape[1:] if reshaped else None)
        return leaf.op.inputs[0] if reshaped else leaf

    def on_leaves(*arrays):
        array = dict(zip(leaves, arrays, strict=True))
        mixed = function(*keras.tree.map_structure(lambda leaf: array.get(id(leaf), leaf), structures))
        shapes.clear()
        return keras.tree.map_structure(unshaped, mixed)

    mixed = tf.function(on_leaves, jit_compile=True, autograph=False)(*leaves.values())
    pairs = zip(keras.tree.flatten(mixed), shapes, strict=True)
    shaped = [leaf if shape is None else tf.reshape(leaf, (-1, *shape)) for leaf, shape in pairs]
    return keras.tree.pack_sequence_as(mixed, shaped)


def _compiles(x):
    """Whether XLA accepts the TensorFlow tensor `x`, and compiles again only if the first size changes."""
    known = x.dtype.is_floating or x.dtype.is_integer or x.dtype.is_bool or x.dtype.is_complex
    return known and x.shape.rank is not None and None not in x.shape[1:]
