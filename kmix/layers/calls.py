"""The forms of a call."""

from typing import Any

import keras

from kmix import _backend, _checks

STEP_FIRST = (
    "Write `at_step(n, batch)`, in tf.data `numbering(ds).map(layer.at_step)`. For a second layer, write "
    "`lambda n, batch: second.at_step(n, first.at_step(n, batch))`."
)


def check_labelled(batch: Any) -> Any:
    """Return a batch that has labels, or raise."""
    batch = tuple(batch) if isinstance(batch, list) else batch
    if not isinstance(batch, dict) and not (isinstance(batch, tuple) and len(batch) in (2, 3) and batch[1] is not None):
        parts = f" with {len(batch)} parts" if isinstance(batch, tuple) else ""
        _checks.fail(
            "Expected a labelled batch: (x, y), (x, y, sample_weight), or a dictionary with inputs and labels.",
            f"a batch of type {type(batch).__name__}{parts}",
            "Write `dict(batch)` for another mapping. In tf.data, map `at_step` over `kmix.data.Numbering()(ds)`.",
        )
    return batch


def as_given(x: Any, y: Any = None, sample_weight: Any = None) -> Any:
    """The arguments of a call as a batch."""
    if sample_weight is not None:
        return x, y, sample_weight
    return x if y is None else (x, y)


def of_shape(x: Any) -> str:
    """The shapes of inputs, for an error."""
    shapes = [_backend.static_shape(leaf) for leaf in keras.tree.flatten(x) if is_array(leaf)]
    return f" of shape {', '.join(map(str, shapes))}" if shapes else f", a {type(x).__name__}"


def is_array(leaf: Any) -> bool:
    """Whether a value is an array of some framework."""
    return hasattr(leaf, "dtype")
