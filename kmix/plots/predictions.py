"""What models predict: where they change their mind, and how well their confidence is calibrated."""

from typing import Any

import numpy as np

from kmix import _backend, _checks
from kmix.metrics import ExpectedCalibrationError, confidence_and_accuracy
from kmix.plots.canvas import pyplot

_MARKERS = "osD^vP*X"


def decision_boundary(model: Any, x: Any, y: Any, *, points: int = 200, ax: Any = None) -> Any:
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
    p = _backend.values(model.predict(grid, batch_size=4096, verbose=0) if hasattr(model, "predict") else model(grid))
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
    ax.legend(title="class", fontsize="small", loc="upper right")
    return ax


def reliability_diagram(
    y_true: Any,
    y_pred: Any,
    *,
    sample_weight: Any = None,
    num_bins: int = 15,
    ax: Any = None,
    label: str | None = None,
    **kwargs: Any,
) -> Any:
    """Plot accuracy against confidence: below the diagonal a model is overconfident, above it underconfident.

    The predictions are sorted into bins of confidence, as in `kmix.metrics.ExpectedCalibrationError`. Each point
    shows the mean confidence and the accuracy of one bin, and its area grows with the share of predictions
    in the bin. Bins without predictions have no point. To compare models, call it again with the same `ax`.

    Args:
        y_true: Labels: class ids `(...)` or `(..., 1)`, or soft labels `(..., C)`. For soft labels, accuracy is the
            label mass at the predicted class.
        y_pred: Predicted probabilities `(..., C)`. A single column is the probability of the positive class.
        sample_weight: Weights `(...)` of the predictions. Defaults to none.
        num_bins: Number of bins `(lo, hi]` of equal width on [0, 1]. Defaults to 15.
        ax: Matplotlib `Axes` to draw into. Defaults to a new figure.
        label: Text for the legend. Defaults to the calibration error, such as "ECE 0.050".
        **kwargs: Passed to `ax.plot`, such as `color`.

    Returns:
        The Matplotlib `Axes`.

    Raises:
        ValueError: if `num_bins < 1`; if the shapes of `y_true` and `y_pred` do not match; if `y_pred`
            is empty or does not hold probabilities.
        ImportError: if Matplotlib is not installed.

    Reference:
        C. Guo et al., "On Calibration of Modern Neural Networks", https://arxiv.org/abs/1706.04599

    Example:
        Four predictions with a confidence of 0.8, three of them correct.

        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> from kmix import plots
        >>> ax = plots.reliability_diagram(np.array([0, 0, 0, 1]), np.array([[0.8, 0.2]] * 4), num_bins=10)
        >>> ax.get_legend_handles_labels()[1]
        ['ECE 0.050']
    """
    plt = pyplot()
    y_true, y_pred = _backend.values(y_true), _backend.values(y_pred).astype("float32")
    if not y_pred.size or not (y_pred.min() >= 0 and y_pred.max() <= 1 + 1e-3):
        _checks.fail(
            "`y_pred` must hold probabilities.",
            f"values from {y_pred.min():g} to {y_pred.max():g}" if y_pred.size else "no predictions",
            "First take the softmax of logits: `keras.ops.softmax(logits)`.",
        )
    error = ExpectedCalibrationError(num_bins)
    if label is None:
        label = f"ECE {float(error(y_true, y_pred, sample_weight)):.3f}"
    confidence, accuracy = (_backend.values(part).ravel() for part in confidence_and_accuracy(y_true, y_pred))
    # The same bins as the metric, in float32 arithmetic like its own.
    index = np.clip(np.ceil(confidence * np.float32(error.num_bins)).astype(int) - 1, 0, error.num_bins - 1)
    weight = np.ones(len(index)) if sample_weight is None else _backend.values(sample_weight).ravel()
    size, confidence, accuracy = (
        np.bincount(index, weight * values, error.num_bins) for values in (1.0, confidence, accuracy)
    )
    filled = size > 0
    confidence, accuracy, share = confidence[filled] / size[filled], accuracy[filled] / size[filled], size[filled]
    if ax is None:
        ax = plt.figure(figsize=(5.0, 5.0), layout="constrained").subplots()
    if not any(line.get_gid() == "kmix-diagonal" for line in ax.lines):
        ax.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", gid="kmix-diagonal")
        ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy", aspect="equal")
    (line,) = ax.plot(confidence, accuracy, **{"linewidth": 1.2, **kwargs, "label": label})
    area = 12 + 150 * np.sqrt(share / share.sum())
    ax.scatter(confidence, accuracy, area, color=line.get_color(), alpha=0.7, zorder=3, clip_on=False, linewidths=0)
    return ax
