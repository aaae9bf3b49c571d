"""What an array is: its framework, the namespace that serves it, and what can be read from it now."""

import sys
from typing import Any, NamedTuple

import keras
import numpy as np


class Kind(NamedTuple):
    """What the type of a value tells.

    Attributes:
        framework: `"numpy"`, `"tensorflow"`, `"jax"` or `"torch"`; `"keras"` for a KerasTensor; None for what is no
            array.
        symbolic: Whether it has no values yet: a tensor of a graph, a tracer, a KerasTensor.
        xp: The array namespace that serves it.
    """

    framework: str | None
    symbolic: bool
    xp: Any


# By name: "numpy", "tensorflow" and "keras". The module of each puts it here.
NAMESPACES: dict[str, Any] = {}

_KINDS: dict[type, Kind] = {}
_DTYPES: dict[Any, str] = {}


def kind(x):
    """The `Kind` of `x`, looked up by its type."""
    return _KINDS.get(type(x)) or _look_up(x)


def _look_up(x):
    """The `Kind` of a value of a type that is not known yet. The framework of a tensor has been imported."""

    def is_a(module, name):
        return isinstance(x, getattr(sys.modules.get(module), name, ()))

    framework, symbolic, lasting = None, False, True
    if isinstance(x, (np.ndarray, np.generic)):
        framework = "numpy"
    elif is_a("tensorflow", "Tensor"):
        framework, symbolic = "tensorflow", not hasattr(x, "numpy")
    elif is_a("tensorflow", "Variable"):
        # Its values can be read outside of graphs.
        framework, symbolic, lasting = "tensorflow", not tensorflow().executing_eagerly(), False
    elif isinstance(x, keras.KerasTensor):
        framework, symbolic = "keras", True
    elif is_a("jax", "Array"):
        framework, symbolic = "jax", is_a("jax.core", "Tracer")
    elif is_a("torch", "Tensor"):
        framework = "torch"
    else:
        # A class of somebody else may be registered with a framework later.
        lasting = type(x).__module__ == "builtins"
    served = {keras.backend.backend(): "keras", "keras": "keras", "tensorflow": "tensorflow", "numpy": "numpy"}
    found = Kind(framework, symbolic, NAMESPACES[served.get(framework, "numpy")])
    return _KINDS.setdefault(type(x), found) if lasting else found


def namespace(*arrays):
    """The namespace that serves these arrays: TensorFlow's if one is its tensor, NumPy's if none is a tensor."""
    found = NAMESPACES["numpy"]
    for x in arrays:
        xp = (_KINDS.get(type(x)) or _look_up(x)).xp
        if xp is NAMESPACES["tensorflow"]:
            return xp
        found = found if xp is NAMESPACES["numpy"] else xp
    return found


def plan_namespace(xp, batch, step, replica):
    """The namespace, the step and the replica to draw a plan with: NumPy if nothing is symbolic.

    A plan takes a hundred tiny operations, which eager frameworks dispatch one by one.
    """
    if kind(batch).symbolic or kind(step).symbolic or kind(replica).symbolic:
        return xp, step, replica
    return NAMESPACES["numpy"], int(step), int(replica)


def tensorflow():
    """TensorFlow, if it is in use."""
    tf = sys.modules.get("tensorflow")
    return tf if hasattr(tf, "Tensor") else None


def is_tensorflow(x):
    """Whether `x` is a TensorFlow tensor, eager or symbolic."""
    return kind(x).framework == "tensorflow"


def is_dataset(x):
    """Whether `x` is a `tf.data.Dataset`."""
    tf = tensorflow()
    return tf is not None and isinstance(x, tf.data.Dataset)


def is_symbolic(x):
    """Whether `x` has no values yet: a tensor of a graph, a tracer, a KerasTensor."""
    return kind(x).symbolic


def is_jax_tracer(x):
    """Whether `x` stands for a value inside a JAX transformation."""
    return kind(x)[:2] == ("jax", True)


def is_foreign(*arrays):
    """Whether Keras would convert these arrays to its backend, or cannot take them at all (unknown rank)."""
    if any(kind(x).framework == "keras" for x in arrays):
        return False
    xp = namespace(*arrays)
    if xp is NAMESPACES["tensorflow"]:
        return keras.backend.backend() != "tensorflow" or any(static_shape(x) is None for x in arrays)
    return xp is NAMESPACES["numpy"]


def irregular(x):
    """Return "ragged" or "sparse" for a tensor of that kind, else None."""
    name, framework = type(x).__name__, kind(x).framework
    if framework == "numpy":
        return None
    if "Ragged" in name or getattr(x, "ragged", False) or getattr(x, "is_nested", False):
        return "ragged"
    sparse = x.layout is not sys.modules["torch"].strided if framework == "torch" else getattr(x, "sparse", False)
    if sparse or name in ("SparseTensor", "BCOO", "BCSR") or type(x).__module__.startswith("scipy.sparse"):
        return "sparse"
    return None


def values(x):
    """`x` as a NumPy array if its values can be read, else None."""
    framework, symbolic, _ = kind(x)
    if symbolic:
        return None
    if framework == "numpy":
        return np.asarray(x)
    if framework == "tensorflow":
        return x.numpy()
    try:
        return np.asarray(keras.ops.convert_to_numpy(x))
    except RuntimeError:
        if framework != "torch" or within_vmap(x):
            return None
        # Within `torch.func.grad`, no tensor can share its memory.
        return np.asarray(sys.modules["torch"].func.debug_unwrap(x).tolist(), dtype(x))


def within_vmap(x):
    """Whether a tensor of PyTorch is one of many within `torch.func.vmap`, so that its own values cannot be read."""
    unwrap = getattr(sys.modules["torch"].func, "debug_unwrap", None)
    return unwrap is not None and unwrap(x).shape != x.shape


def on_host(x):
    """Whether the values of `x` can be read without waiting for an accelerator."""
    framework, symbolic, _ = kind(x)
    if symbolic or framework == "numpy":
        return not symbolic
    if framework == "torch" and within_vmap(x):
        return False
    device = getattr(x, "device", "cpu")
    return getattr(device, "type", None) == "cpu" or "cpu" in str(device).lower()


def numpy_if_on_host(xp, x):
    """NumPy and the values of `x`, if they can be read without waiting; else `xp` and `x`.

    Eager frameworks take a hundredth of a millisecond and more for an operation, however few values it has. Only for
    arrays without a gradient, such as integers.
    """
    return (NAMESPACES["numpy"], values(x)) if on_host(x) else (xp, x)


def dtype(x):
    """The name of the dtype of `x`."""
    given = x.dtype
    name = _DTYPES.get(given)
    if name is None:
        name = _DTYPES[given] = getattr(given, "name", None) or str(given).removeprefix("torch.")
    return name


def static_shape(x):
    """The shape of `x`, with None for each unknown size; None if even the rank is unknown."""
    shape = x.shape
    # Only TensorFlow has shapes of unknown rank.
    return None if getattr(shape, "rank", 0) is None else tuple(shape)
