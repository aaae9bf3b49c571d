"""Validation, and the one wording of every error: what was expected, what was received, what to write instead."""

import math
import numbers
import os
import sys
import warnings
from typing import Any, NoReturn

_HERE = os.path.dirname(__file__) + os.sep


def fail(expected, received, mend="", error: type[Exception] = ValueError) -> NoReturn:
    """Raise `error` in the one wording that all of kmix shares."""
    raise error(f"{expected} Received: {received}." + (f" {mend}" if mend else ""))


def warn(message):
    """Warn with a `UserWarning` that names the line of the user's code, outside kmix and Keras, that led here."""
    level, frame = 1, sys._getframe()
    while frame.f_back and (frame.f_code.co_filename.startswith(_HERE) or _module(frame) == "keras"):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)


def _module(frame):
    return frame.f_globals.get("__name__", "").split(".")[0]


def real(value, name, low=0.0, high=math.inf):
    """Return `value` as a Python float within `[low, high]`, or raise."""
    expected = f"`{name}` must be a finite number >= {low:g}" + (f" and <= {high:g}." if high < math.inf else ".")
    if isinstance(value, (str, bytes, bool)) or not hasattr(value, "__float__") or getattr(value, "shape", ()) != ():
        fail(expected, f"{name}={value!r} of type {type(value).__name__}", error=TypeError)
    number = float(value)
    if not math.isfinite(number) or not low <= number <= high:
        fail(expected, f"{name}={number!r}")
    return number


def alpha(value):
    """Return `value` as a float >= 0, or unchanged if it is a schedule (a callable of the step)."""
    if callable(value):
        return value
    if isinstance(value, str) or not hasattr(value, "__float__"):
        fail(
            "`alpha` must be a number >= 0 or a schedule (a callable of the step).",
            f"alpha={value!r} of type {type(value).__name__}",
            "For example `alpha=0.2`, or `alpha=kmix.schedules.Linear(0.0, 0.4, 1000)`.",
            TypeError,
        )
    return real(value, "alpha")


def integer(value, name, low=0, high=None):
    """Return `value` as a Python int within `[low, high)`, or raise."""
    expected = f"`{name}` must be an integer >= {low}" + (f" and < {high}." if high is not None else ".")
    if isinstance(value, bool) or not (isinstance(value, numbers.Integral) or hasattr(value, "__index__")):
        fail(expected, f"{name}={value!r} of type {type(value).__name__}", error=TypeError)
    number = int(value)
    if number < low or (high is not None and number >= high):
        fail(expected, f"{name}={number}")
    return number


def one_of(value, name, options):
    """Return `value` if it is one of `options`, or raise."""
    if value not in options:
        fail(f"`{name}` must be one of {', '.join(map(repr, options))}.", f"{name}={value!r}")
    return value


def seed(value):
    """Return `value` as an int in `[0, 2**32)`, or raise."""
    return integer(value, "seed", 0, 2**32)


def names(value, name):
    """Return `value` as a tuple of strings, or raise."""
    if isinstance(value, str):
        fail(f"`{name}` must be a list of names.", f"{name}={value!r}", f"Write `{name}=[{value!r}]`.", TypeError)
    items = sequence(value, name)
    if not all(isinstance(item, str) for item in items):
        fail(f"`{name}` must be a list of names.", f"{name}={value!r}", error=TypeError)
    return tuple(items)


def sequence(value, name):
    """Return `value` as a list, or raise."""
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        fail(f"`{name}` must be a list.", f"{name}={value!r}", f"Write `{name}=[...]`.", TypeError)
    return list(value)


def inputs_alone(batch):
    """Raise where inputs without labels look like a batch in a form that is not read as one."""
    if isinstance(batch, tuple) and len(batch) > 3:
        fail("A batch is (x, y) or (x, y, sample_weight).", f"a tuple of {len(batch)}")
    if isinstance(batch, list) and any("int" in str(getattr(leaf, "dtype", "")) for leaf in batch):
        fail(
            "A list stands for several inputs, without labels.",
            "a list with an integer tensor",
            "For a batch of inputs and labels write `layer(*batch)`.",
        )


def irregular(leaf):
    """Return "ragged" or "sparse" for a tensor of that kind, else None."""
    kind = type(leaf).__name__
    if "Ragged" in kind or getattr(leaf, "ragged", False):
        return "ragged"
    torch: Any = sys.modules.get("torch")
    is_torch = torch is not None and isinstance(leaf, getattr(torch, "Tensor", ()))
    sparse = leaf.layout is not torch.strided if is_torch else getattr(leaf, "sparse", False)
    if sparse or kind in ("SparseTensor", "BCOO", "BCSR") or type(leaf).__module__.startswith("scipy.sparse"):
        return "sparse"
    return None


def array(leaf):
    """Raise unless `leaf` is a dense array with a shape and a dtype."""
    kind, irregularity = type(leaf).__name__, irregular(leaf)
    if irregularity:
        mend = "Pad it first, e.g. `x.to_tensor()`." if irregularity == "ragged" else "Make it dense first."
        fail("A batch must hold dense tensors.", f"a {irregularity} tensor ({kind})", mend)
    if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
        fail("A batch must hold arrays or tensors.", f"a {kind}", "Wrap it with `np.asarray(...)`.", TypeError)


def batch_shapes(shapes):
    """Raise unless all static `shapes` (None: unknown) have a batch axis of one size."""
    known = [tuple(shape) for shape in shapes if shape is not None]
    if any(len(shape) == 0 for shape in known):
        fail(
            "Mixing pairs the examples of a batch, so every tensor needs a batch axis.",
            f"tensors of shapes {', '.join(map(str, known))}",
            BATCH_FIRST,
        )
    if len({shape[0] for shape in known if shape[0] is not None}) > 1:
        fail(BATCH_SIZES, f"tensors of shapes {', '.join(map(str, known))}", BATCH_FIRST)


def batch_of_plan(shape, lam):
    """Raise unless a tensor of static `shape` inside of a model has one row for each sample of the plan."""
    if shape is not None and (not shape or (None not in (shape[0], lam[0]) and shape[0] != lam[0])):
        fail(
            "A mixing layer inside of a model pairs the samples of the batch, which must be the first axis.",
            f"a tensor of shape {tuple(shape)} in a step on {lam[0]} samples",
            "Place the layer where the batch is not folded with another axis.",
        )


def weight_shape(weight, label):
    """Raise unless sample weights of static shape `weight` go with labels of static shape `label`."""
    if weight is None:
        fail(
            "The rank of sample weights must be known.", "sample_weight of unknown rank", "Call `w.set_shape([None])`."
        )
    if label is None:
        fail(
            "With sample weights the rank of the labels must be known.", "labels of unknown rank", "Call `y.set_shape`."
        )
    column = len(weight) == len(label) + 1 and weight[-1] == 1
    if column or (
        len(weight) <= len(label)
        and all(w in (1, None) or size in (w, None) for w, size in zip(weight, label, strict=False))
    ):
        return
    fail(
        "Sample weights must have the shape (B,), or the leading axes of the labels.",
        f"sample_weight of shape {tuple(weight)} with labels of shape {tuple(label)}",
    )


def keys(batch, passthrough):
    """Raise unless every key of a dictionary is mixed or passed through by name."""
    if "images" not in batch:
        fail(
            'A batch as a dictionary needs the inputs under "images" and the labels under "labels".',
            f"keys {sorted(batch)}",
            "Rename the key, or pass a tuple (x, y): x may be a dictionary of any keys.",
        )
    for key in batch:
        if key in ("segmentation_masks", "bounding_boxes"):
            fail(
                "Segmentation masks and bounding boxes are not mixed yet.",
                f"key {key!r}",
                "Leave it out of the batch; to pass it through unmixed would not match the mixed images.",
            )
        if key not in ("images", "labels", "sample_weight", *passthrough):
            fail(
                'Only "images", "labels" and "sample_weight" of a dictionary are mixed.',
                f"key {key!r}",
                f"Name it in `passthrough=[{key!r}]` to pass it through unmixed.",
            )


FLOAT_IDS = (
    "With `num_classes` float labels (B,) are expected to be probabilities. Received whole numbers above 1, which look "
    "like class ids that were cast to float, as Keras' own preprocessing layers do in tf.data. Give integers: map kmix "
    "before those layers, or one-hot encode the labels in the data set."
)
BATCH_SIZES = "All tensors of a batch must have the same batch size."
BATCH_FIRST = "Was the data set batched? Write `ds.batch(32).map(layer)`, not `ds.map(layer).batch(32)`."
INTEGER_INPUT = (
    "Ids cannot be interpolated: mix after the Embedding layer, one-hot encode, or cast to float "
    "if these are measurements. uint8 images are fine."
)


def blendable(dtype):
    """Raise unless values of `dtype` can be interpolated."""
    if not (dtype == "uint8" or "float" in dtype):
        fail("x must be float, or uint8 images.", f"dtype {dtype}", INTEGER_INPUT)


def embedding(dtype):
    """Raise unless values of `dtype` can be embeddings or hidden states."""
    if "float" not in dtype:
        fail(
            "EmbeddingMixup blends float embeddings or hidden states.",
            f"x of dtype {dtype}",
            "Token ids cannot be interpolated: put it after the Embedding layer.",
        )


def label_form(labels, num_classes):
    """Return `labels` if labels of `num_classes` (None: not known yet) can have that form, or raise."""
    one_of(labels, "labels", ("dense", "pair"))
    if labels == "pair" and num_classes is not None and not 3 < num_classes <= 2**24:
        fail(
            '`labels="pair"` needs more than 3 classes, since (B, 3) labels are dense with 3, and at most 2**24, up to '
            "which float32 holds class ids exactly.",
            f"num_classes={num_classes}",
            'Write `labels="dense"`.',
        )
    return labels


def label_kind(shape, dtype, num_classes, labels="dense"):
    """Tell how labels of this static shape and dtype are read: "dense", "ids" or "multi_hot"."""
    if label_form(labels, num_classes) == "pair" and (
        "int" not in dtype or (shape is not None and (len(shape) > 2 or shape[1:] not in ((), (1,), (None,))))
    ):
        fail(
            'With `labels="pair"` labels must be class ids (B,) or (B, 1) of an integer dtype.',
            f"labels of shape {shape} and dtype {dtype}",
            'Write `labels="dense"` for soft or multi-hot labels, and for regression.',
        )
    if "float" in dtype:
        return "dense"
    if not ("int" in dtype or dtype == "bool"):
        fail("Labels must be float or integer.", f"dtype {dtype}")
    if shape is None:
        fail(
            "The rank of integer labels must be known, to tell class ids from multi-hot labels.",
            "labels of unknown rank",
            "Call `y.set_shape([None])` on them first.",
        )
    shape = tuple(shape)
    if len(shape) >= 3:
        fail(
            "Integer labels must be class ids (B,) or (B, 1), or multi-hot (B, C).",
            f"labels of shape {shape} and dtype {dtype}",
            "Cast per-pixel or per-step targets to float, one-hot encoded, to have them interpolated.",
        )
    if len(shape) == 2 and shape[1] is None:
        fail(
            "The last dimension of integer labels must be known, to tell class ids (B, 1) from multi-hot (B, C).",
            f"labels of shape {shape}",
            "Call `y.set_shape([None, 1])` on them first.",
        )
    if len(shape) == 2 and shape[1] != 1:
        return "multi_hot"
    if num_classes is None:
        fail(
            "Integer labels are class ids and are one-hot encoded before mixing, which needs `num_classes`.",
            f"labels of shape {shape} and dtype {dtype} with num_classes=None",
            "Pass `num_classes=`, or cast the labels to float if this is regression.",
        )
    return "ids"


def integer_labels(shape, dtype, output):
    """Raise unless integer labels can be encoded for the output of a model, of a shape or None."""
    mend = "Pass `MixTrainer(..., num_classes=...)`, or cast the labels to float if this is regression."
    if output is None:
        fail(
            "Integer labels are one-hot encoded before mixing, but the outputs of the model do not tell the number of "
            "classes.",
            f"labels of shape {shape} and dtype {dtype}",
            mend,
        )
    output = tuple(output)
    ids = shape is None or len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)
    if ids and (len(output) != 2 or output[-1] in (1, None)):
        fail(
            "Integer labels are class ids and are one-hot encoded before mixing, which needs an output (B, C) with C "
            "> 1.",
            f"labels of shape {shape} and dtype {dtype} for an output of shape {output}",
            "Cast the labels to float: for a single column they are probabilities of yes, or values to regress. Labels "
            "for each position are one-hot encoded in the data.",
        )
    if not ids and tuple(shape[1:]) != output[1:] and None not in (*shape[1:], *output[1:]):
        fail(
            "Integer labels with several columns are multi-hot, one column for each of the output.",
            f"labels of shape {shape} and dtype {dtype} for an output of shape {output}",
            "One-hot encode labels for each position in the data, as float.",
        )


def takes_soft_labels(item, labels):
    """Raise if a loss or metric, or its name, cannot take mixed labels of the form `labels`."""
    named = isinstance(item, str)
    name = item if named else getattr(item, "__name__", type(item).__name__)
    mend = (
        "Write `kmix.losses.SoftLabelCrossentropy()` and `kmix.metrics.SoftLabelAccuracy()`, which take all kinds of "
        'labels{}, or "accuracy".'
    )
    if "sparse" in name.lower():
        fail(
            "Mixed labels are probabilities, which a sparse loss or metric would read as class ids.",
            name,
            mend.format(', "categorical_crossentropy"'),
        )
    module = getattr(item, "__module__", "") if hasattr(item, "__name__") else type(item).__module__
    foreign = item not in ("accuracy", "acc") if named else module.startswith("keras")
    if labels == "pair" and item is not None and foreign:
        fail('Only losses and metrics of kmix read labels that are pairs, `labels="pair"`.', name, mend.format(""))


def spatial(shape):
    """Raise unless a static shape has a batch axis, one to three spatial axes, and channels."""
    if shape is None:
        fail("CutMix needs the rank of its inputs to be known.", "x of unknown rank", "Call `x.set_shape(...)` first.")
    if not 3 <= len(shape) <= 5:
        fail(
            "CutMix needs one to three spatial axes between the batch and the channels: (B, T, C), (B, H, W, C) or "
            "(B, D, H, W, C).",
            f"x of shape {tuple(shape)}",
            "For tabular data use MixUp. For images without channels add an axis: `x[..., None]`. " + BATCH_FIRST,
        )


SAME_SPATIAL = "CutMix pastes one box into all inputs, so they must have the same spatial sizes."


def same_spatial(sizes):
    """Raise unless all lists of static spatial sizes (None: unknown) agree."""
    if (
        any(len({known for known in axis if known is not None}) > 1 for axis in zip(*sizes, strict=False))
        or len({len(size) for size in sizes}) > 1
    ):
        fail(SAME_SPATIAL, f"spatial sizes {', '.join(map(str, sizes))}")


def spatial_shape(sizes):
    """Raise unless the spatial sizes that a box is drawn for are given."""
    if not isinstance(sizes, (tuple, list)) or not 1 <= len(sizes) <= 3:
        fail(
            "CutMix draws a box, which needs the sizes of one to three spatial axes.",
            f"spatial_shape={sizes}",
            "Write `layer.plan(step, batch_size, spatial_shape=(height, width))`.",
        )
    return tuple(integer(size, "spatial_shape", 1) if isinstance(size, (int, float, str)) else size for size in sizes)


def probabilities(weights, count):
    """Return `count` weights, equal by default, scaled to the sum 1, or raise."""
    weights = [1.0] * count if weights is None else [real(weight, "weights") for weight in sequence(weights, "weights")]
    if len(weights) != count or not sum(weights) > 0:
        fail(
            f"`weights` must be {count} numbers >= 0, one for each layer, and not all 0.",
            f"weights={weights}",
        )
    return tuple(weight / sum(weights) for weight in weights)
