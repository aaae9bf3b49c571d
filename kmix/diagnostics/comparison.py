"""Models side by side on the same held-out data, with what the seeds say about their differences."""

import os
import pathlib
from typing import Any

import numpy as np

from kmix import _checks, _files
from kmix.diagnostics import data
from kmix.diagnostics.models import attack, batches, probabilities_of
from kmix.diagnostics.report import Report, Reported, draw_comparison
from kmix.diagnostics.scores import (
    METRICS,
    Difference,
    difference,
    difference_of_errors,
    label_shares,
    scores,
    verdict,
    wrong,
)
from kmix.plots.canvas import pyplot

NOTES = {
    "seeds": "In brackets: the 95 % t interval over the seeds, paired by position. Of twenty, one is expected to miss.",
    "samples": "One seed each: the interval of the error is over test samples, and says nothing of other trainings.",
    "weights": "All scores weigh the samples.",
    "fgsm": "FGSM, one step by eps = {:g}, is a weak attack: a small error under it is no proof of robustness.",
}


def compare(
    models: dict[str, Any],
    x: Any = None,
    y: Any = None,
    *,
    sample_weight: Any = None,
    num_bins: int = 15,
    reference: str | None = None,
    x_out: Any = None,
    eps: float | None = None,
    bounds: tuple[float, float] | None = None,
    from_logits: bool = False,
    batch_size: int = 128,
) -> "Comparison":
    """Compare models on held-out data: error, likelihood, calibration, and how sure the differences are.

    The scores, by their keys in `to_dict()`:

    - `error`: share of samples whose predicted class is not that of the label (less is better).
    - `nll`: mean negative log-likelihood of the labels, in nats; the cross-entropy for soft labels (less is
      better).
    - `brier`: mean over samples of the sum over classes of squared differences; half of it for two classes
      (less is better).
    - `ece`: `kmix.metrics.ExpectedCalibrationError` (less is better).
    - `confidence_gap`: mean confidence - accuracy: above 0 is overconfident, below 0 underconfident (near 0 is
      better).
    - `worst_recall`: the smallest recall of a class that occurs in `y` (more is better).
    - `auroc_out`: with `x_out=`: how well the largest probability tells `x` (large) from `x_out` (small) (more
      is better).
    - `error_fgsm`: with `eps=`: the error on inputs moved by `eps` along the sign of the gradient of the loss
      (less is better).

    NLL, Brier score and AUROC are those of scikit-learn. The predicted class is the first of the largest; the class of
    a soft label is its largest share. NLL and Brier score take soft labels as they are, and so do `ece` and
    `confidence_gap`, whose accuracy is the share of the predicted class, as in kmix's metrics. A probability below
    2e-16 counts as that.

    **Intervals.** Each score has a mean and a standard deviation over the seeds. The difference to the reference is
    paired by position, and its 95 % interval is the t interval of its mean over the seeds: train the n-th model of each
    list with the same seed and on the same data. With one seed each there is no such interval. The error then has one
    over the test samples (Bonett and Price 2012), which tells how these two models differ on new samples, and nothing
    about another training. Each interval is for one score alone.

    Args:
        models: `{name: model}` or `{name: [a model for each seed]}`, at least two. A model is a Keras model, a
            `MixTrainer`, or anything else with `predict`, or a callable. Or predictions `(B, C)` in place of models.
            A single column is the probability of the second of two classes.
        x: Held-out inputs: an array or a structure of them; or a `tf.data.Dataset`, a `PyDataset` or another loader of
            `(x, y)` or `(x, y, sample_weight)`, without `y`. Models need it, predictions do not.
        y: Their labels: class ids `(B,)` or `(B, 1)`, or soft labels `(B, C)`.
        sample_weight: Weights `(B,)` of the samples in all scores. Over the samples, they count as Kish's effective
            number of samples. Defaults to none.
        num_bins: Number of bins of the calibration error. Defaults to 15.
        reference: The name to compare with. Defaults to the first.
        x_out: Inputs from elsewhere, which a model should be less sure about; for predictions in place of models
            `{name: predictions}`.
        eps: How far FGSM moves each input, in units of `x`; uint8 moves as floats.
        bounds: The smallest and largest value of `x`, to which FGSM clips what it moved. Defaults to none.
        from_logits: Whether the outputs are logits. Defaults to `False`.
        batch_size: Number of samples to predict at once. Defaults to 128.

    Returns:
        A `Comparison`. Print it.

    Raises:
        ValueError: if there are fewer than two models, or lists of different lengths; if the reference is unknown; if
            the outputs are not probabilities, or not of the same classes; if inputs or labels are missing, empty or of
            other shapes; if labels or outputs are several arrays, or labels are tags; if a data set has no end, or
            gives single samples; if `eps` is negative, or given for predictions; if FGSM finds no gradient.
        TypeError: if `models` is not a dictionary of models or predictions.
        ImportError: if scikit-learn or SciPy is not installed.

    Warns:
        UserWarning: if FGSM could not move some samples, because the gradient is 0 there: their error is that of `x`.

    Reference:
        A. Thulasidasan et al., "On Mixup Training: Improved Calibration", https://arxiv.org/abs/1905.11001;
        D. Hendrycks and K. Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution Examples",
        https://arxiv.org/abs/1610.02136; I. Goodfellow et al., "Explaining and Harnessing Adversarial Examples",
        https://arxiv.org/abs/1412.6572; D. Bonett and R. Price, "Adjusted Wald Confidence Interval for a Difference of
        Binomial Proportions Based on Paired Data", Journal of Educational and Behavioral Statistics 37 (2012)

    Example:
        >>> from kmix import diagnostics
        >>> y = np.array([0, 1, 1, 0])
        >>> sure = [np.array([[0.9, 0.1], [0.1, 0.9], [p, 1 - p], [0.9, 0.1]]) for p in (0.8, 0.7, 0.6)]
        >>> calm = [np.array([[0.8, 0.2], [0.2, 0.8], [p, 1 - p], [0.8, 0.2]]) for p in (0.5, 0.4, 0.3)]
        >>> result = diagnostics.compare({"plain": sure, "mixup": calm}, y=y)
        >>> round(result.to_dict()["mixup"]["error"]["difference"]["mean"], 3)
        -0.167
        >>> result.verdict.split(";")[0]
        'mixup against plain: error undecided (lower on 2 of 3 seeds, -52.5 to +19.2 points)'
    """
    num_bins, eps = _checks.integer(num_bins, "num_bins", 1), None if eps is None else _checks.real(eps, "eps")
    settings: dict[str, Any] = {"from_logits": _checks.boolean(from_logits, "from_logits")}
    settings["batch_size"] = _checks.integer(batch_size, "batch_size", 1)
    models, bounds = data.model_runs(models), data.interval(bounds, "bounds")
    reference = next(iter(models)) if reference is None else _checks.one_of(reference, "reference", list(models))
    if data.are_models(models):
        x, y, weights = data.samples(x, y, sample_weight)
        x_out = None if x_out is None else data.inputs(x_out, "x_out")[0]
        # Wrong outputs and labels are found on the first batch.
        part, own = batches((x, y), batch_size)[0]
        _shares(own, probabilities_of(models, part, **settings))
        found = probabilities_of(models, x, **settings)
        outside = None if x_out is None else probabilities_of(models, x_out, **settings)
    else:
        if eps is not None:
            _checks.fail("FGSM needs models and their inputs `x`.", "predictions", "Leave out `eps=`.")
        y, weights = data.labels(y, sample_weight)
        found = probabilities_of(models, **settings)
        outside = None if x_out is None else probabilities_of(data.predictions_like(models, x_out), **settings)
    y, attacked = _shares(y, found), None
    if eps is not None:
        move = lambda model, x: attack(model, x, y.argmax(axis=1), eps, bounds=bounds, **settings)  # noqa: E731
        attacked = probabilities_of(models, x, move=move, **settings)
    more: dict[str, Any] = {"outside": outside, "attacked": attacked, "num_bins": num_bins, "eps": eps}
    return Comparison(y, found, reference=reference, sample_weight=weights, **more)


def _shares(y, found):
    """Labels as shares of the classes that probabilities `{name: [one for each seed]}` have."""
    count, classes = next(iter(found.values()))[0].shape
    if len(y) != count:
        _checks.fail("`y` must hold a label for each prediction.", f"{len(y)} labels and {count} predictions")
    return label_shares(y, classes)


class Comparison(Reported):
    """Scores of models and their differences to a reference. `compare` makes it; print it to see its table.

    Args:
        y: Labels as shares `(B, C)`.
        probabilities: `{name: [probabilities (B, C) of each seed]}`.
        sample_weight: Weights `(B,)` of the samples, or None.
        outside: The same for inputs from elsewhere, or None.
        attacked: The same for inputs after FGSM, or None.
        reference: The name of the model to compare with.
        num_bins: Number of bins of the calibration error.
        eps: How far FGSM moved the inputs.

    Attributes:
        scores: `{name: {metric: array of the values of the seeds}}`.
        differences: `{name: {metric: Difference}}` for all names but the reference. A difference has `mean`, `low` and
            `high` (None without an interval), and `values`.
        interval: What the intervals are over: `"seeds"`, or, with one seed each, `"samples"` (and that of the error
            alone).
        verdict: A sentence for each model but the reference that claims no more than the intervals allow.

    Raises:
        ImportError: if scikit-learn or SciPy, or for `to_frame` pandas, is not installed.

    Example:
        >>> from kmix.diagnostics import Comparison
        >>> y, sure, calm = np.eye(2), np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([[0.6, 0.4], [0.4, 0.6]])
        >>> result = Comparison(y, {"plain": [sure], "mixup": [calm]}, reference="plain")
        >>> result.to_dict()["mixup"]["error"]["values"], result.interval
        ([0.0], 'samples')
    """

    def __init__(
        self,
        y: np.ndarray,
        probabilities: dict[str, list[np.ndarray]],
        *,
        reference: str,
        sample_weight: np.ndarray | None = None,
        outside: dict[str, list[np.ndarray]] | None = None,
        attacked: dict[str, list[np.ndarray]] | None = None,
        num_bins: int = 15,
        eps: float | None = None,
    ) -> None:
        self.y, self.probabilities, self.sample_weight = y, probabilities, sample_weight
        self.outside, self.attacked = outside, attacked
        self.reference: str = reference
        self.num_bins: int = num_bins
        self.eps: float | None = eps
        self.scores: dict[str, Any] = {}
        for name, seeds in probabilities.items():
            parts = [part[name] if part else [None] * len(seeds) for part in (outside, attacked)]
            found = [
                scores(y, p, sample_weight, out=out, attacked=moved, num_bins=num_bins)
                for p, out, moved in zip(seeds, *parts, strict=True)
            ]
            self.scores[name] = {metric: np.array([one[metric] for one in found]) for metric in found[0]}
        self.seeds: int = len(probabilities[reference])
        self.interval: str = "seeds" if self.seeds > 1 else "samples"
        self.differences: dict[str, dict[str, Difference]] = {
            name: self._to_reference(name) for name in probabilities if name != reference
        }

    def _to_reference(self, name):
        base = self.scores[self.reference]
        found = {metric: difference(values, base[metric]) for metric, values in self.scores[name].items()}
        if self.interval == "samples":
            own, other = (wrong(self.y, self.probabilities[one][0]) for one in (name, self.reference))
            found["error"] = difference_of_errors(own, other, self.sample_weight)
        return found

    @property
    def verdict(self) -> str:
        return " ".join(self.report().findings)

    def to_dict(self) -> dict[str, dict[str, dict[str, Any]]]:
        """`{name: {metric: {"mean", "std", "values", "difference": {"mean", "low", "high"}}}}`, in fractions.

        `std`, `low` and `high` are None where there are none; the reference has no `difference`.
        """
        result: dict = {}
        for name, found in self.scores.items():
            result[name] = {}
            for metric, values in found.items():
                std = float(values.std(ddof=1)) if self.seeds > 1 else None
                result[name][metric] = {"mean": float(values.mean()), "std": std, "values": values.tolist()}
                if name != self.reference:
                    one = self.differences[name][metric]
                    result[name][metric]["difference"] = {"mean": one.mean, "low": one.low, "high": one.high}
        return result

    def to_frame(self) -> Any:
        """A pandas `DataFrame`: a row for each model and metric, with mean, std, difference, low and high."""
        with _checks.installed("pandas", "diagnostics"):
            import pandas as pd
        lines = {}
        for name, found in self.to_dict().items():
            for metric, one in found.items():
                other = one.get("difference", {})
                lines[name, metric] = [one["mean"], one["std"], *(other.get(key) for key in ("mean", "low", "high"))]
        index = pd.MultiIndex.from_tuples(lines, names=["model", "metric"])
        columns = ["mean", "std", "difference", "low", "high"]
        return pd.DataFrame(list(lines.values()), index, columns, dtype="float64")

    def report(self) -> Report:
        size, seeds = self.y.shape, "1 seed each" if self.seeds == 1 else f"{self.seeds} seeds each"
        title = f"{', '.join(self.differences)} against {self.reference}: {size[0]} samples, {size[1]} classes, {seeds}"
        columns = ["score", "model", "mean ± std" if self.seeds > 1 else "value", "difference [95 %]", "is"]
        rows = [self._row(metric, name) for metric in self.scores[self.reference] for name in self.scores]
        findings = [
            verdict(name, self.reference, found, self.scores[name]["confidence_gap"], size[0])
            for name, found in self.differences.items()
        ]
        shown = {self.interval: True, "weights": self.sample_weight is not None, "fgsm": self.eps is not None}
        return Report(title, columns, rows, findings, [NOTES[name].format(self.eps) for name in shown if shown[name]])

    def _row(self, metric, name):
        """What the score is, the model, its value, the difference to the reference, and whether that is better."""
        (title, _, better, _), show, values = METRICS[metric], METRICS[metric].show, self.scores[name][metric]
        value = show(values.mean()) + (f" ± {show(values.std(ddof=1))}" if len(values) > 1 else "")
        row, change, word = ["" if name != next(iter(self.scores)) else title, name, value], "", ""
        if name != self.reference:
            one = self.differences[name][metric]
            change = show(one.mean, "+")
            if one.low is not None and one.high is not None:
                change += f" [{show(one.low, '+')}, {show(one.high, '+')}]"
                word = {0: "undecided", better: "better", -better: "worse"}[one.direction] if better else ""
        return [*row, change, word]

    def plot(self) -> Any:
        """One Matplotlib figure: reliability, confidence, and each difference with its interval. Returns the figure."""
        figure = pyplot().figure(figsize=(10.0, 9.0 + 0.5 * len(self.differences)), layout="constrained")
        above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.2, 1.0)).ravel()
        left, right = above.subplots(1, 2)
        draw_comparison(self, left, right, below, columns=4)
        return figure

    def save_html(self, path: str | os.PathLike[str]) -> None:
        """Write one page with the verdict, the table and the pictures, which needs no other file and no network."""
        with _checks.installed("Matplotlib", "diagnostics"):
            from matplotlib.figure import Figure
        height = 0.6 + (1.1 + 0.25 * len(self.differences)) * -(-len(self.scores[self.reference]) // 2)
        figures = [Figure(figsize=(5.0, size), layout="constrained") for size in (5.0, 5.0, height)]
        draw_comparison(self, figures[0].subplots(), figures[1].subplots(), figures[2], columns=2)
        described = zip(("Accuracy against confidence", "Confidence", "Differences"), figures, strict=True)
        with _files.written_whole(path) as partial:
            pathlib.Path(partial).write_text(self.report().page(described), encoding="utf-8")
