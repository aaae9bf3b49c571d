"""What a model answers between pairs of samples."""

from typing import Any

import keras
import numpy as np
from keras import ops

from kmix import _backend, _checks
from kmix._backend.gradients import input_gradient
from kmix.diagnostics import data
from kmix.diagnostics.models import bare, batches, predict, two_columns, variables
from kmix.diagnostics.report import Report, Reported
from kmix.diagnostics.scores import label_shares, probabilities
from kmix.layers import MixUp
from kmix.pairing import RandomPairs
from kmix.plots.canvas import pyplot
from kmix.training import graph as graphs

tree = keras.tree


class Interpolation(Reported):
    """What `interpolation` found. It prints as a table.

    Args:
        positions: Where on the segments, from 0 (a sample) to 1 (its partner), `(points,)`.
        neither: The share of predictions that are neither partner's class, at each position.
        gradient: The mean norm of the gradient at each position.
        pairs: Number of pairs.

    Example:
        See `interpolation`.

        >>> found = kmix.diagnostics.Interpolation(np.array([0.0, 1.0]), np.array([0.0, 0.1]), np.ones(2), 20)
        >>> found.to_dict()["neither"]
        [0.0, 0.1]
    """

    def __init__(self, positions: np.ndarray, neither: np.ndarray, gradient: np.ndarray, pairs: int) -> None:
        self.positions, self.neither, self.gradient, self.pairs = positions, neither, gradient, pairs

    def to_dict(self) -> dict[str, Any]:
        """The curves as lists: `positions`, `neither` and `gradient`; and `pairs`, their number."""
        curves = {name: getattr(self, name).tolist() for name in ("positions", "neither", "gradient")}
        return {**curves, "pairs": self.pairs}

    def report(self) -> Report:
        curves = zip(self.positions, self.neither, self.gradient, strict=True)
        rows = [(f"{position:.2f}", f"{neither:.1%}", f"{norm:.3g}") for position, neither, norm in curves]
        return Report(f"Between {self.pairs} pairs", ("position", "neither class", "gradient"), rows)

    def plot(self, figure: Any = None, *, label: str | None = None) -> Any:
        """Draw both curves. To compare models, pass the same figure again, and a label for each.

        Args:
            figure: Matplotlib `Figure` to draw into. Defaults to a new figure.
            label: Text for the legend.

        Returns:
            The Matplotlib figure.
        """
        figure = figure or pyplot().figure(figsize=(8.0, 3.4), layout="constrained")
        axes = figure.axes or figure.subplots(1, 2)
        titles = ("predictions of neither class", "norm of the gradient")
        # Lines of several models differ without colours, too.
        style = {"linestyle": ("-", "--", ":", "-.")[len(axes[0].lines) % 4], "marker": "osD^"[len(axes[0].lines) % 4]}
        for ax, curve, title in zip(axes, (self.neither, self.gradient), titles, strict=True):
            ax.plot(self.positions, curve, label=label, markersize=4, **style)
            ax.set(xlabel="position between two samples", title=title, ylim=(0, None))
            ax.autoscale(axis="y")
            ax.set_ylim(bottom=0)
        if label is not None:
            axes[0].legend()
        return figure


def interpolation(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    points: int = 11,
    layer_name: str | None = None,
    seed: int = 0,
    pairs: Any = None,
    from_logits: bool = False,
    batch_size: int = 128,
) -> Interpolation:
    """Follow a model along the segments between pairs of samples, as in Figure 2 of the mixup paper.

    Each sample is paired with another one at random, or as `pairs` say. On the way from the one to the other, this
    counts the predictions that are the class of neither, and measures the norm of the gradient, with respect to the
    input, of the cross-entropy with the label that is mixed in the same proportion. A model that changes evenly between
    samples has few of the former and a small gradient.

    Args:
        model: A Keras model that classifies, with one output, or a `MixTrainer`.
        x: Inputs: a float array, or a structure of them, with boolean padding masks; or a data set of `(x, y)`, without
            `y`.
        y: Labels: class ids `(B,)` or `(B, 1)`, or soft labels `(B, C)`.
        points: Number of positions on each segment, both ends included. Defaults to 11.
        layer_name: Name of a layer of a `Sequential` or functional model: the segments join the outputs of this layer,
            and the gradient is with respect to them. Inputs may then be integers. Padding masks of Keras are united
            between the ends, as by `EmbeddingMixup`.
        seed: Seed of the pairs that are drawn.
        pairs: Rows of the samples to join, integers `(P, 2)`. Default: each sample and another one, drawn by the seed.
        from_logits: Whether the model returns logits. Defaults to `False`.
        batch_size: Number of samples to predict at once. Defaults to 128.

    Returns:
        An `Interpolation`, with arrays `positions`, `neither` and `gradient`.

    Raises:
        ValueError: if there are fewer than two samples or points; if labels do not match, or are several arrays; if
            there are sample weights; if outputs are not probabilities; if the inputs are integers; if `pairs` are no
            pairs of rows of `x`; if the model has no layer `layer_name`, or does not pass through it alone.

    Reference:
        H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", https://arxiv.org/abs/1710.09412

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
        >>> x, y = np.eye(4, dtype="float32"), np.array([0, 1, 2, 0])
        >>> kmix.diagnostics.interpolation(model, x, y, points=5).positions.tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    points, seed = _checks.integer(points, "points", 2), _checks.seed(seed)
    from_logits = _checks.boolean(from_logits, "from_logits")
    batch_size = _checks.integer(batch_size, "batch_size", 1)
    x, y, weights = data.samples(x, y)
    if weights is not None:
        _checks.fail("All pairs count alike.", "sample weights", "Leave them out: `ds.map(lambda x, y, w: (x, y))`.")
    pairs, model = _pairs(pairs, seed, len(y)), bare(model)
    if layer_name is not None:
        head, model = _split(model, layer_name)
        x = head.predict(x, batch_size=batch_size, verbose=0)
    x = _floats(x)

    def classes_of(x):
        return probabilities(predict(model, x, batch_size), "model", from_logits)

    shares = label_shares(y, classes_of(batches(x, batch_size)[0]).shape[1])
    classes = shares.argmax(axis=1)
    positions, neither, gradient = np.linspace(0.0, 1.0, points), [], []
    gradient_of = _gradient_of_loss(model, from_logits)
    for position in positions:
        joined = tree.map_structure(lambda leaf, t=position: _mixed(leaf, pairs, t), x)
        found = classes_of(joined).argmax(axis=1)
        neither.append(np.mean((found != classes[pairs.T]).all(axis=0)))
        gradient.append(_norms(gradient_of, joined, _mixed(shares, pairs, position), batch_size).mean())
    return Interpolation(positions, np.array(neither), np.array(gradient), len(pairs))


def _pairs(pairs, seed, count):
    """The pairs of rows to join."""
    if count < 2:
        _checks.fail("A pair needs two samples.", f"{count} sample")
    if pairs is None:
        # One cycle through all samples, so that none is its own partner.
        partner = MixUp(1.0, pairing=RandomPairs(allow_self=False), seed=seed).plan(0, count).permutation
        return np.stack([np.arange(count), partner], axis=1)
    rows = _backend.values(pairs)
    if rows.ndim != 2 or rows.shape[-1] != 2 or not len(rows) or rows.dtype.kind not in "iu":
        expected = "`pairs` must be integers of shape (P, 2), at least one pair."
        _checks.fail(expected, f"{rows.dtype} of shape {rows.shape}")
    if rows.min() < 0 or rows.max() >= count:
        _checks.fail(f"`pairs` must hold rows of `x`: 0 to {count - 1}.", f"{rows.min()} to {rows.max()}")
    return rows


def _mixed(array, pairs, position):
    own, partner = (array[rows] for rows in pairs.T)
    if array.dtype == bool:
        return own if position == 0 else partner if position == 1 else own | partner
    return ((1.0 - position) * own + position * partner).astype("float32")


def _floats(x):
    """Inputs as float32. Boolean arrays among them are padding masks."""
    dtypes = {_backend.dtype(leaf) for leaf in tree.flatten(x)} - {"bool"}
    if not dtypes or any("float" not in dtype for dtype in dtypes):
        _checks.fail(
            "Segments join inputs of floats.",
            f"x of dtype {', '.join(sorted(dtypes)) or 'bool'}",
            "Scale images to floats first. For ids of tokens, name the layer that embeds them: `layer_name=`.",
        )
    return tree.map_structure(lambda leaf: leaf if leaf.dtype == bool else leaf.astype("float32"), x)


class _MaskReader(keras.layers.Layer):
    """Reads the padding mask that Keras holds for a tensor of a graph."""

    def __init__(self):
        super().__init__(autocast=False)
        self.supports_masking = self.built = True
        # In a tuple, so that Keras does not track it.
        self.found = (None,)

    def call(self, x):
        return x

    def compute_mask(self, inputs, previous_mask):
        self.found = (previous_mask,)
        return previous_mask


class _MaskWriter(keras.layers.Layer):
    """Gives a tensor its padding mask again: attention reads the mask of a tensor when it runs, not in the graph."""

    def __init__(self):
        super().__init__(autocast=False)
        self.supports_masking = self.built = True

    def call(self, inputs):
        return inputs[0]

    def compute_mask(self, inputs, previous_mask):
        return inputs[1]


def _with_masks(model, owners):
    """A model of states and of their masks behind them, whose states have these masks: each that of an owner."""
    inputs = [keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype) for tensor in model.inputs]
    masked = {}
    for owner, mask in zip(owners, inputs[len(inputs) - len(owners) :], strict=True):
        masked[id(inputs[owner])] = _MaskWriter()([inputs[owner], mask])

    def call(layer, *args, **kwargs):
        args, kwargs = tree.map_structure(lambda leaf: masked.get(id(leaf), leaf), (args, kwargs))
        return layer(*args, **kwargs)

    return graphs.walk(model, call, inputs)


def _split(model, name):
    """The models up to the layer of a name, and from it on, with the padding masks as further tensors between them."""
    names = [layer.name for layer in getattr(model, "layers", ())]
    if name not in names:
        _checks.fail("`layer_name` must name a layer of the model.", f"layer_name={name!r} of layers {names}")
    try:
        states = tree.flatten(model.get_layer(name).output)
        masks: list[Any] = []
        owners: list[int] = []
        for position, state in enumerate(states):
            reader = _MaskReader()
            reader(state)
            masks += [mask for mask in reader.found if mask is not None]
            owners += [position] * (len(masks) - len(owners))
        outputs = model.outputs[0] if len(model.outputs) == 1 else model.outputs
        head, tail = keras.Model(model.inputs, states + masks), keras.Model(states + masks, outputs)
        return head, tail if not masks else _with_masks(tail, owners)
    except (AttributeError, TypeError, ValueError) as error:
        _checks.fail(
            "The model must be a `Sequential` or functional one, and all that leads to its output must pass the layer.",
            f"layer_name={name!r} ({str(error).splitlines()[0]})",
            "Choose another layer, before or after branches.",
        )


def _gradient_of_loss(model, from_logits):
    """The gradient of the cross-entropy with respect to inputs: a function of these and of the labels."""

    def loss(x, shares):
        p = two_columns(ops.cast(model(x, training=False), "float32"), from_logits)
        return ops.sum(keras.losses.categorical_crossentropy(shares, p, from_logits=from_logits))

    return input_gradient(loss, variables(model))


def _norms(gradient_of, x, shares, batch_size):
    """The norm of the gradient of each sample."""
    norms = []
    for part, own in zip(batches(x, batch_size), batches(shares, batch_size), strict=True):
        gradients = [_backend.values(leaf) for leaf in tree.flatten(gradient_of(part, own)) if leaf is not None]
        squares = sum(np.square(leaf.astype("float64")).reshape(len(own), -1).sum(axis=1) for leaf in gradients)
        norms.append(np.sqrt(squares))
    return np.concatenate(norms)
