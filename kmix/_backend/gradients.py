"""Gradients of a function of Keras operations with respect to its inputs, on the backend of Keras."""

import keras

tree = keras.tree


def input_gradient(function, variables=None):
    """A function that returns the gradient of a scalar with respect to inputs.

    State that `function` would change, such as the counters of a layer, stays as it is on JAX. Pass `training=False` to
    a model.

    Args:
        function: A function of `x`, and of further arrays, that returns a scalar tensor. It is made of Keras operations
            or those of the backend, and gets tensors of the backend.
        variables: The Keras variables that it reads. If they are given, JAX compiles the gradient, once for inputs of
            the same shapes: the function must be one that `jax.jit` takes, and must not make variables.

    Returns:
        A function of `x`, an array or a structure of them, and of the further arrays. It returns tensors in the
        structure and the shapes of `x`: zeros where the scalar does not depend on a leaf, and `None` for each leaf that
        does not hold floats.

    Example:
        >>> from kmix._backend.gradients import input_gradient
        >>> x = {"a": np.array([1.0, 2.0], "float32"), "ids": np.array([1, 0])}
        >>> gradient = input_gradient(lambda x, scale: keras.ops.sum(scale * x["a"] ** 2))
        >>> found = gradient(x, np.array([1.0, 10.0], "float32"))
        >>> keras.ops.convert_to_numpy(found["a"]).tolist(), found["ids"]
        ([2.0, 40.0], None)
    """

    def of_floats(floats, x, more):
        leaves = [floats.get(i, leaf) for i, leaf in enumerate(tree.flatten(x))]
        return function(tree.pack_sequence_as(x, leaves), *more)

    backend = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[keras.backend.backend()]
    gradients = backend(of_floats, variables)

    def gradient(x, *more):
        x, more = tree.map_structure(keras.ops.convert_to_tensor, (x, more))
        leaves = tree.flatten(x)
        floats = {i: v for i, v in enumerate(leaves) if "float" in keras.backend.standardize_dtype(v.dtype)}
        found = gradients(floats, x, more)
        return tree.pack_sequence_as(x, [found.get(i) for i in range(len(leaves))])

    return gradient


def _tensorflow(function, variables):
    import tensorflow as tf

    def gradients(floats, x, more):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(floats)
            value = function(floats, x, more)
        return tape.gradient(value, floats, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    return gradients


def _jax(function, variables):
    import jax

    read = variables or []

    def stateless(floats, x, more, values):
        # What layers would assign are tracers here, which must not stay in their variables.
        with keras.StatelessScope(zip(read, values, strict=True)):
            return function(floats, x, more)

    gradient = jax.grad(stateless) if variables is None else jax.jit(jax.grad(stateless))
    return lambda floats, x, more: gradient(floats, x, more, [variable.value for variable in read])


def _torch(function, variables):
    import torch

    def gradients(floats, x, more):
        floats = {i: leaf.detach().clone().requires_grad_(True) for i, leaf in floats.items()}
        with torch.enable_grad():
            value = function(floats, x, more)
        if not floats or not value.requires_grad:
            return {i: torch.zeros_like(leaf) for i, leaf in floats.items()}
        found = torch.autograd.grad(value, list(floats.values()), allow_unused=True)
        return {
            i: torch.zeros_like(leaf) if one is None else one
            for one, (i, leaf) in zip(found, floats.items(), strict=True)
        }

    return gradients
