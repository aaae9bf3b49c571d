"""The padding masks that Keras holds for tensors. Layers, which are public API, read and set them."""

from typing import Any

import keras

from kmix import _backend
from kmix.layers.training_step import current_step
from kmix.mixing.padding_masks import mix_masks

tree = keras.tree


def masks_of(x: Any) -> dict[str, Any]:
    """The masks that Keras holds for the tensors of a structure: `{position in the flattened structure: mask}`."""
    found: dict[str, Any] = {}
    for position, leaf in enumerate(tree.flatten(x)):
        if keras.ops.is_tensor(leaf) and not _backend.is_foreign(leaf):
            reader = _Reader(name="mask_reader", dtype=_backend.dtype(leaf))
            reader(leaf)
            if reader.found[0] is not None:
                found[str(position)] = reader.found[0]
    return found


def set_masks(x: Any, masks: dict[str, Any]) -> Any:
    """The tensors of a structure, with the masks that `masks_of` would find."""
    leaves = tree.flatten(x)
    for position, mask in masks.items():
        leaf = leaves[int(position)]
        leaves[int(position)] = _Writer(mask, name="mask_writer", dtype=_backend.dtype(leaf))(leaf)
    return tree.pack_sequence_as(x, leaves)


class _Reader(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = self.built = True
        self.found = (None,)

    def call(self, x, mask=None):
        self.found = (mask,)
        return x


class _Writer(keras.layers.Layer):
    def __init__(self, mask, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = self.built = True
        self.mask = mask

    def call(self, x):
        return x

    def compute_mask(self, inputs, previous_mask=None):
        return self.mask


@keras.saving.register_keras_serializable(package="kmix")
class MixMask(keras.layers.Layer):
    """The padding mask of what an `EmbeddingMixup` mixed.

    Keras computes masks when it builds a graph. This mask is therefore the output of a layer, which reads the plan
    when it runs.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.built = True

    def call(self, mask: Any, training: bool | None = None) -> Any:
        step = current_step() if training else None
        return mask if step is None or step.plan is None else mix_masks(mask, step.plan)

    def compute_output_spec(self, mask: Any, training: bool | None = None) -> Any:
        return keras.KerasTensor(mask.shape, dtype=mask.dtype)
