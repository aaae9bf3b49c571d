"""What a model answers between pairs of samples."""

import keras
import numpy as np
from keras import ops

from kmix import _backend, _checks
from kmix._backend.gradients import input_gradient
from kmix.diagnostics import arguments, screen
from kmix.diagnostics.outputs import bare, batches, predict, two_columns, variables
from kmix.diagnostics.scores import label_shares, probabilities
from kmix.plan import sample_mixup
from kmix.plan.pairing import derange
from kmix.plots.canvas import pyplot

tree = keras.tree


class Interpolation:
    """What `interpolation` found. It prints as a table.

    Args:
        positions: Where on the segments, from 0 (a sample) to 1 (its partner), `(points,)`.
        neither: The share of predictions that are neither partner's class, at each position.
        gradient: The mean norm of the gradient at each position.
        pairs: Number of pairs.

    Example: see `interpolation`.

    >>> found = kmix.diagnostics.Interpolation(np.array([0.0, 1.0]), np.array([0.0, 0.1]), np.array([1.0, 1.0]), 20)
    >>> found.to_dict()["neither"]
    [0.0, 0.1]
    """

    def __init__(self, positions, neither, gradient, pairs):
        self.positions, self.neither, self.gradient, self.pairs = positions, neither, gradient, pairs

    def to_dict(self):
        """The curves as lists: `positions`, `neither` and `gradient`; and `pairs`, their number."""
        curves = {name: getattr(self, name).tolist() for name in ("positions", "neither", "gradient")}
        return {**curves, "pairs": self.pairs}

    def __str__(self):
        curves = zip(self.positions, self.neither, self.gradient, strict=True)
        rows = [(f"{at:.2f}", f"{neither:.1%}", f"{norm:.3g}") for at, neither, norm in curves]
        return screen.render(f"Between {self.pairs} pairs", ("position", "neither class", "gradient"), rows)

    __repr__ = __str__

    def plot(self, figure=None, label=None):
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


def interpolation(model, x, y, points=11, *, at=None, seed=0, pairs=None, from_logits=False, batch_size=128):
    """Follow a model along the segments between pairs of samples, as in Figure 2 of the mixup paper.

    Each sample is paired with another one at random, or as `pairs` say. On the way from the one to the other, this
    counts the predictions that are the class of neither, and measures the norm of the gradient, with respect to the
    input, of the cross-entropy with the label that is mixed in the same proportion. A model that changes evenly between
    samples has few of the former and a small gradient.

    Args:
        model: A Keras model that classifies, or a `MixTrainer`.
        x: Inputs: a float array, or a structure of them.
        y: Labels: class ids `(B,)` or `(B, 1)`, or soft labels `(B, C)`.
        points: Number of positions on each segment, both ends included. Defaults to 11.
        at: Name of a layer of a `Sequential` or functional model: the segments join the outputs of this layer, and the
            gradient is with respect to them. Inputs may then be integers.
        seed: Seed of the pairs that are drawn.
        pairs: Rows of the samples to join, integers `(P, 2)`. Default: each sample and another one, drawn by the seed.
        from_logits: Whether the model returns logits. Defaults to `False`.
        batch_size: Number of samples to predict at once. Defaults to 128.

    Returns:
        An `Interpolation`, with arrays `positions`, `neither` and `gradient`.

    Raises:
        ValueError: if there are fewer than two samples or points; if labels do not match; if outputs are not
            probabilities; if the inputs are integers; if `pairs` are no pairs of rows of `x`; if the model has no layer
            `at`, or does not pass through it alone.

    Reference:
        H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", https://arxiv.org/abs/1710.09412

    Example:
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    >>> found = kmix.diagnostics.interpolation(model, np.eye(4, dtype="float32"), np.array([0, 1, 2, 0]), points=5)
    >>> found.positions.tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    points = _checks.integer(points, "points", 2)
    x, y = arguments.samples(x, y)
    model, count = bare(model), len(tree.flatten(x)[0])
    if count < 2:
        _checks.fail("A pair needs two samples.", f"{count} sample")
    if at is not None:
        head, model = _cut(model, at)
        x = tree.map_structure(_backend.values, predict(head, x, batch_size))
    x = tree.map_structure(_as_float, x)
    first = probabilities(predict(model, x, batch_size), "model", from_logits)
    shares = label_shares(y, first.shape[1])
    classes = shares.argmax(axis=1)
    pairs = _pairs(pairs, seed, count)
    positions, neither, gradient = np.linspace(0.0, 1.0, points), [], []
    gradient_of = _gradient_of_loss(model, from_logits)
    for position in positions:
        between = tree.map_structure(lambda leaf, t=position: _mixed(leaf, pairs, t), x)
        found = probabilities(predict(model, between, batch_size), "model", from_logits).argmax(axis=1)
        neither.append(np.mean((found != classes[pairs.T]).all(axis=0)))
        gradient.append(_norms(gradient_of, between, _mixed(shares, pairs, position), batch_size).mean())
    return Interpolation(positions, np.array(neither), np.array(gradient), len(pairs))


def _pairs(pairs, seed, count):
    """The pairs of rows to join."""
    if pairs is None:
        # One cycle through all samples, so that none is its own partner.
        partner = derange(_backend.NUMPY, sample_mixup(_checks.seed(seed), 0, 1.0, count).permutation)
        return np.stack([np.arange(count), partner], axis=1)
    rows = _backend.values(pairs)
    if rows.ndim != 2 or rows.shape[-1] != 2 or not len(rows) or rows.dtype.kind not in "iu":
        expected = "`pairs` must be integers of shape (P, 2), at least one pair."
        _checks.fail(expected, f"{rows.dtype} of shape {rows.shape}")
    if rows.min() < 0 or rows.max() >= count:
        _checks.fail(f"`pairs` must hold rows of `x`: 0 to {count - 1}.", f"{rows.min()} to {rows.max()}")
    return rows


def _mixed(array, pairs, position):
    own, partner = pairs.T
    return ((1.0 - position) * array[own] + position * array[partner]).astype("float32")


def _as_float(leaf):
    if "float" not in _backend.dtype(leaf):
        _checks.fail(
            "Segments join inputs of floats.",
            f"x of dtype {_backend.dtype(leaf)}",
            "Scale images to floats first. For ids of tokens, name the layer that embeds them: `at=`.",
        )
    return leaf.astype("float32")


def _cut(model, name):
    """The models up to the layer of a name, and from it on."""
    names = [layer.name for layer in getattr(model, "layers", ())]
    if name not in names:
        _checks.fail("`at` must name a layer of the model.", f"at={name!r} of layers {names}")
    output = getattr(model.get_layer(name), "output", None)
    try:
        return keras.Model(model.inputs, output), keras.Model(output, model.outputs[0])
    except (AttributeError, TypeError, ValueError) as error:
        _checks.fail(
            "The model must be a `Sequential` or functional one, and must pass through the layer `at` alone.",
            f"at={name!r} ({str(error).splitlines()[0]})",
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
        gradients = [_backend.values(leaf) for leaf in tree.flatten(gradient_of(part, own))]
        squares = sum(np.square(leaf.astype("float64")).reshape(len(own), -1).sum(axis=1) for leaf in gradients)
        norms.append(np.sqrt(squares))
    return np.concatenate(norms)
