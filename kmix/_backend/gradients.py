"""Gradients of a function of Keras operations with respect to its inputs, on the backend of Keras."""

import keras

tree = keras.tree


def input_gradient(function, x):
    """The gradient of a scalar with respect to the inputs.

    State that the function would change, such as the counters of a layer, stays as it is on JAX. Pass
    `training=False` to a model.

    Args:
        function: A function of `x` that returns a scalar tensor, made of Keras operations or those of the backend.
        x: An array or tensor, or a structure of them. The function gets tensors of the backend.

    Returns:
        The gradients, tensors in the structure and the shapes of `x`: zeros where the scalar does not depend on a
        leaf, and `None` for each leaf that does not hold floats.

    Example:
    >>> from kmix._backend.gradients import input_gradient
    >>> x = {"a": np.array([1.0, 2.0], "float32"), "ids": np.array([1, 0])}
    >>> gradients = input_gradient(lambda x: keras.ops.sum(x["a"] ** 2), x)
    >>> keras.ops.convert_to_numpy(gradients["a"]).tolist(), gradients["ids"]
    ([2.0, 4.0], None)
    """
    x = tree.map_structure(keras.ops.convert_to_tensor, x)
    leaves = tree.flatten(x)
    floats = [i for i, leaf in enumerate(leaves) if "float" in keras.backend.standardize_dtype(leaf.dtype)]

    def of_floats(values):
        filled = list(leaves)
        for i, value in zip(floats, values, strict=True):
            filled[i] = value
        return function(tree.pack_sequence_as(x, filled))

    gradients = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[keras.backend.backend()]
    found = dict(zip(floats, gradients(of_floats, [leaves[i] for i in floats]), strict=True))
    return tree.pack_sequence_as(x, [found.get(i) for i in range(len(leaves))])


def _tensorflow(function, leaves):
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(leaves)
        value = function(leaves)
    return tape.gradient(value, leaves, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def _jax(function, leaves):
    import jax

    def stateless(leaves):
        # What layers would assign are tracers here, which must not stay in their variables.
        with keras.StatelessScope():
            return function(leaves)

    return jax.grad(stateless)(leaves)


def _torch(function, leaves):
    import torch

    leaves = [leaf.detach().clone().requires_grad_(True) for leaf in leaves]
    with torch.enable_grad():
        value = function(leaves)
    if not leaves or not value.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(value, leaves, allow_unused=True)
    return [torch.zeros_like(leaf) if one is None else one for one, leaf in zip(found, leaves, strict=True)]
