"""Names for what users pass to kmix, for type annotations."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from kmix.pairing import Pairing
from kmix.targets.base import Target

__all__ = [
    "Array",
    "BatchLike",
    "BoxFormat",
    "DataFormat",
    "PairingLike",
    "Per",
    "ScalarOrSchedule",
    "TargetLike",
    "TargetName",
    "Within",
]

#: An array or tensor of NumPy, TensorFlow, JAX or PyTorch.
Array: TypeAlias = Any
#: A number, or a schedule: a callable of the step that returns a number.
ScalarOrSchedule: TypeAlias = float | Callable[[Any], Any]
#: `(x, y)`, `(x, y, sample_weight)`, or a dictionary with the inputs and the labels.
BatchLike: TypeAlias = tuple[Any, ...] | list[Any] | dict[Any, Any]
#: Targets that need no settings.
TargetName: TypeAlias = Literal["labels", "union", "keep", "segmentation_masks"]
# Of a structure, its parts are not checked: a string is a sequence of strings, so that a recursive type would take any,
# and a checker reads `{"class": Labels(10), "id": "keep"}` in a variable as a dictionary of objects.
#: What a label is: an object, a name, a callable `(y, plan) -> y`, or a structure of these.
TargetLike: TypeAlias = Target | TargetName | Callable[[Any, Any], Any] | dict[Any, Any] | list[Any] | tuple[Any, ...]
#: Who mixes with whom: an object, or a name for the default one.
PairingLike: TypeAlias = Literal["random", "similar_labels", "different_labels", "same_labels"] | Pairing
#: Where partners come from; an int is a number of rows.
Within: TypeAlias = Literal["batch", "shard"] | int
#: Whether each sample has its own lam.
Per: TypeAlias = Literal["sample", "batch"]
#: Where the channels are.
DataFormat: TypeAlias = Literal["channels_last", "channels_first"]
#: The formats of bounding boxes.
BoxFormat: TypeAlias = Literal[
    "xyxy", "yxyx", "xywh", "center_xywh", "center_yxhw", "rel_xyxy", "rel_yxyx", "rel_xywh", "rel_center_xywh"
]
