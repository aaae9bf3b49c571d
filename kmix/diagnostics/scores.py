"""What predictions are worth: scores of one model, and the difference of two over their seeds."""

from typing import NamedTuple

import numpy as np

from kmix import _backend, _checks
from kmix.metrics import ExpectedCalibrationError


class Metric(NamedTuple):
    """How a score is shown, and how the verdict calls it: `better` is 1 where more is better, -1 where less is."""

    title: str
    noun: str
    better: int
    factor: float = 1.0

    def show(self, value, sign=""):
        """A value, or a difference with its sign, as text in the unit of the metric."""
        return f"{value * self.factor:{sign}.{2 if self.factor > 1 else 3}f}"


METRICS = {
    "error": Metric("error (%)", "error", -1, 100),
    "nll": Metric("NLL (nats)", "likelihood", -1),
    "brier": Metric("Brier score", "Brier score", -1),
    "ece": Metric("ECE (%)", "calibration", -1, 100),
    "confidence_gap": Metric("overconfidence (%)", "confidence", 0, 100),
    "worst_recall": Metric("worst recall (%)", "worst-class recall", 1, 100),
    "auroc_out": Metric("AUROC, x_out", "detection of x_out", 1),
    "error_fgsm": Metric("FGSM error (%)", "error under FGSM", -1, 100),
}


def label_shares(y, classes):
    """Labels, class ids `(B,)` or `(B, 1)` or soft labels `(B, C)`, as float64 shares `(B, C)`. Raises for others.

    Example:
    >>> from kmix.diagnostics.scores import label_shares
    >>> label_shares(np.array([2, 0]), 3).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    y = _backend.values(y)
    expected = (
        f"`y` must hold class ids (B,) or (B, 1), or soft labels (B, C) for the {classes} classes of the outputs."
    )
    if y.dtype.kind not in "biuf" or y.ndim not in (1, 2) or (y.ndim == 2 and y.shape[1] not in (1, classes)):
        _checks.fail(expected, f"y of shape {y.shape} and dtype {y.dtype.name}")
    if not len(y):
        _checks.fail(expected, "no labels")
    if y.ndim == 2 and y.shape[1] == classes:
        y = y.astype("float64")
        if not (y.min() >= 0 and np.allclose(y.sum(axis=1), 1.0, atol=1e-3)):
            _checks.fail(
                "Soft labels must be shares >= 0 that sum to 1.",
                f"values from {y.min():g} to {y.max():g}, and rows that sum to {_range(y.sum(axis=1))}",
                "`compare` is for one class a sample, not for multi-hot labels.",
            )
        return y
    ids = y.reshape(-1)
    if not (ids.min() >= 0 and ids.max() < classes and np.all(ids == np.floor(ids))):
        _checks.fail(
            f"Class ids must be whole numbers from 0 to {classes - 1}: the outputs have {classes} classes.",
            f"y from {ids.min():g} to {ids.max():g}",
        )
    return np.eye(classes)[ids.astype(int)]


def probabilities(outputs, name, from_logits=False):
    """Outputs `(B, C)` of a model as float64 probabilities; a single column is that of the second of two classes.

    Example:
    >>> from kmix.diagnostics.scores import probabilities
    >>> probabilities(np.array([[0.25]]), "a").tolist()
    [[0.75, 0.25]]
    """
    p = _backend.values(outputs)
    if p.ndim != 2 or not p.size or p.dtype.kind not in "biufV":
        _checks.fail(
            "Predictions must have the shape (B, C), or (B, 1) for a single sigmoid column.",
            f"an array of shape {p.shape} and dtype {p.dtype.name} for {name!r}",
        )
    p = p.astype("float64")
    if not np.isfinite(p).all():
        _checks.fail("Predictions must be finite.", f"NaN or infinite predictions for {name!r}")
    if from_logits:
        p = np.concatenate([np.zeros_like(p), p], axis=1) if p.shape[1] == 1 else p
        p = np.exp(p - p.max(axis=1, keepdims=True))
        return p / p.sum(axis=1, keepdims=True)
    if p.shape[1] == 1:
        p = np.concatenate([1.0 - p, p], axis=1)
    # Half precision sums to 1 within a percent.
    if not (p.min() >= -1e-3 and p.max() <= 1 + 1e-3 and np.allclose(p.sum(axis=1), 1.0, rtol=0, atol=1e-2)):
        _checks.fail(
            "Outputs must be probabilities, whose rows sum to 1.",
            f"values from {p.min():g} to {p.max():g}, and rows that sum to {_range(p.sum(axis=1))}, for {name!r}",
            "If they are logits, write `from_logits=True`.",
        )
    return np.clip(p, 0.0, 1.0)


def _range(values):
    low, high = values.min(), values.max()
    return f"{low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} to {high:.3g}"


def wrong(y, p):
    """For each sample whether the predicted class is not that of the label, which is its largest share."""
    return p.argmax(axis=1) != y.argmax(axis=1)


def scores(y, p, out=None, attacked=None, n_bins=15):
    """The scores of one model.

    Args:
        y: Labels as shares `(B, C)`.
        p: Probabilities `(B, C)`.
        out: Probabilities for inputs from elsewhere, or None.
        attacked: Probabilities for the inputs after an attack, or None.
        n_bins: Number of bins of the calibration error.

    Returns:
        `{name: float}` in the order of `METRICS`.

    Example:
    >>> from kmix.diagnostics.scores import scores
    >>> scores(np.eye(2), np.array([[0.9, 0.1], [0.4, 0.6]]))["error"]
    0.0
    """
    with _checks.installed("scikit-learn", "diagnostics"):
        from sklearn.metrics import recall_score, roc_auc_score
    classes, predicted = y.argmax(axis=1), p.argmax(axis=1)
    # As in kmix's metrics, the accuracy that goes with a confidence is the share of the predicted class in the label.
    accuracy = np.take_along_axis(y, predicted[:, None], axis=1).mean()
    squares = ((p - y) ** 2).sum(axis=1).mean()
    found = {
        "error": wrong(y, p).mean(),
        # By their formulas, for scikit-learn takes no soft labels. Clipped as it does.
        "nll": -(y * np.log(np.maximum(p, np.finfo("float64").eps))).sum(axis=1).mean(),
        "brier": squares / 2 if p.shape[1] == 2 else squares,
        "ece": ExpectedCalibrationError(n_bins)(y, p),
        "confidence_gap": p.max(axis=1).mean() - accuracy,
        "worst_recall": recall_score(classes, predicted, labels=np.unique(classes), average=None).min(),
    }
    if out is not None:
        inside = np.repeat([1, 0], [len(p), len(out)])
        found["auroc_out"] = roc_auc_score(inside, np.concatenate([p.max(axis=1), out.max(axis=1)]))
    if attacked is not None:
        found["error_fgsm"] = wrong(y, attacked).mean()
    return {name: float(value) for name, value in found.items()}


class Difference(NamedTuple):
    """A paired difference to the reference: `low` and `high` are the ends of its 95 % interval, or None."""

    mean: float
    low: float | None
    high: float | None
    values: np.ndarray

    @property
    def has_width(self):
        """Whether there is an interval, and one with a width."""
        return self.low is not None and self.high is not None and self.high - self.low > 1e-9

    @property
    def direction(self):
        """-1 or 1 if the interval leaves no doubt about the sign, else 0."""
        # Discrete scores that differ by the same on each seed are a coincidence, and no proof: width 0 tells nothing.
        if self.low is None or self.high is None or not self.has_width:
            return 0
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


def difference(values, reference):
    """The difference of two lists of scores, paired by position, with its t interval over the seeds.

    Example:
    >>> from kmix.diagnostics.scores import difference
    >>> [round(float(end), 3) for end in difference([0.1, 0.3, 0.2], [0.3, 0.4, 0.3])[:3]]
    [-0.133, -0.277, 0.01]
    """
    values = np.subtract(values, reference)
    mean = float(values.mean())
    if len(values) == 1:
        return Difference(mean, None, None, values)
    with _checks.installed("scipy", "diagnostics"):
        from scipy.stats import t
    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return Difference(mean, mean - half, mean + half, values)


def difference_of_errors(wrong, reference):
    """The difference of the errors of two models, with an interval over the test samples both were asked about.

    Args:
        wrong: For each sample whether the model is wrong.
        reference: The same of the reference.

    Returns:
        A `Difference` with the adjusted Wald interval of paired proportions (Bonett and Price 2012), which is honest
        for few samples and for models that never disagree, where the plain one has no width.

    Example:
    >>> from kmix.diagnostics.scores import difference_of_errors
    >>> [round(end, 3) for end in difference_of_errors(np.array([0, 0, 0, 1]), np.array([0, 1, 0, 1]))[:3]]
    [-0.25, -0.717, 0.383]
    """
    change = np.subtract(wrong, reference, dtype="float64")
    size = len(change) + 2
    worse, better = ((change > 0).sum() + 1) / size, ((change < 0).sum() + 1) / size
    center, half = worse - better, 1.96 * np.sqrt((worse + better - (worse - better) ** 2) / size)
    mean = change.mean()
    low, high = max(-1.0, float(center - half)), min(1.0, float(center + half))
    return Difference(float(mean), low, high, np.array([mean]))
