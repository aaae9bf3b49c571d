"""Where a model changes its mind."""

import numpy as np

from kmix import _backend, _checks
from kmix.plots.canvas import pyplot

_MARKERS = "osD^vP*X"


def decision_boundary(model, x, y, points=200, ax=None):
    """Plot the classes that a model predicts in a plane of two features, and how confident it is.

    The darker the ground, the less confident the model; a line divides the classes.

    Args:
        model: A Keras model of two features, or a function of inputs `(n, 2)` that returns probabilities `(n, C)`. A
            single column is the probability of the second of two classes.
        x: Samples `(n, 2)` to draw.
        y: Their class ids `(n,)` or `(n, 1)`.
        points: Number of points along each axis at which the model is asked.
        ax: Matplotlib `Axes` to draw into. Defaults to a new figure.

    Returns:
        The Matplotlib `Axes`.

    Raises:
        ValueError: if `x` does not hold two features, `y` does not hold a class for each sample, `points` is less than
            2, or the model does not return probabilities.
        ImportError: if Matplotlib is not installed.

    Example:
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from kmix import plots
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, activation="softmax")])
    >>> ax = plots.decision_boundary(model, np.random.rand(30, 2), np.arange(30) % 3, points=20)
    >>> len(ax.get_legend().get_texts())
    3
    """
    x, y = _backend.values(x), _backend.values(y)
    points = _checks.integer(points, "points", 2)
    if x.ndim != 2 or x.shape[1] != 2 or not len(x):
        _checks.fail("`x` must hold two features, (n, 2).", f"x of shape {x.shape}")
    if y.size != len(x) or y.ndim not in (1, 2) or y.dtype.kind not in "iu":
        _checks.fail(
            "`y` must hold integer class ids (n,) or (n, 1).", f"y of shape {y.shape} and dtype {y.dtype.name}"
        )
    y = y.ravel()
    ax = pyplot().figure(figsize=(5.0, 4.4), layout="constrained").subplots() if ax is None else ax
    low, high = x.min(axis=0), x.max(axis=0)
    margin = 0.08 * np.where(high > low, high - low, 1.0)
    sides = [np.linspace(a, b, points) for a, b in zip(low - margin, high + margin, strict=True)]
    grid = np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 2).astype("float32")
    p = _backend.values(model.predict(grid, verbose=0) if hasattr(model, "predict") else model(grid))
    if p.ndim != 2 or len(p) != len(grid) or p.min() < 0 or p.max() > 1 + 1e-3:
        _checks.fail(
            "The model must return probabilities (n, C).",
            f"outputs of shape {p.shape}, from {p.min():g} to {p.max():g}",
            "Take the softmax of logits.",
        )
    p = np.concatenate([1 - p, p], axis=1) if p.shape[1] == 1 else p
    classes, confidence = p.argmax(axis=1).reshape(points, points), p.max(axis=1).reshape(points, points)
    chance = 1 / p.shape[1]
    ax.pcolormesh(*sides, confidence, cmap="gray", vmin=chance - 0.6 * (1 - chance), vmax=1, shading="nearest")
    for one in np.unique(classes)[1:]:
        ax.contour(*sides, classes >= one, levels=[0.5], colors="black", linewidths=1.2)
    for one in np.unique(y):
        own, style = x[y == one], {"marker": _MARKERS[one % len(_MARKERS)], "color": f"C{one % 10}"}
        ax.scatter(*own.T, s=22, edgecolors="white", linewidths=0.6, label=str(one), zorder=3, **style)
    ax.legend(title="class", fontsize="small")
    return ax
