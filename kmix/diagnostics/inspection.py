"""What enters the network: a look at mixed batches, or at the plans that mix them."""

import hashlib
import math
import time
from typing import Any, NamedTuple

import keras
import numpy as np

from kmix import _checks
from kmix.batch import INPUTS, LABELS
from kmix.diagnostics import faults
from kmix.diagnostics.data import batch_count, batches_of, read_batch
from kmix.diagnostics.label_summary import LabelSummary, label_summary
from kmix.diagnostics.plan_replay import (
    BatchPlan,
    PlanReplay,
    check_mixer,
    is_mixer,
    p_value_of_lam,
    share_without_candidate,
)
from kmix.diagnostics.report import Report, Reported
from kmix.plots.canvas import pyplot


class BatchSummary(NamedTuple):
    """What one batch shows.

    Attributes:
        size: Number of samples.
        digest: Hash of all bytes of inputs and targets.
        targets: The names of the targets, without boxes.
        labels: The labels by name: these targets without masks.
        faults: Sentences on masks and boxes that are wrong.
        weights: Sample weights `(B,)`, or None.
        low, high: Smallest and largest value of the inputs.
        finite: Whether all inputs and targets are finite.
        plan: The plan of a `mixer`, or None.
    """

    size: int
    digest: bytes
    targets: list[str]
    labels: dict[str, np.ndarray]
    faults: list[str]
    weights: np.ndarray | None
    low: float
    high: float
    finite: bool
    plan: BatchPlan | None = None


class Inspection(Reported):
    """What `inspect` found. It prints as a table.

    Args:
        first: The `BatchSummary` of each batch of an epoch.
        second: Those of the next, or an empty list.
        seconds: How long the first took, without its first batch.
        raw: The smallest and the largest value of the inputs before mixing, or None.

    Attributes:
        warnings: Sentences on what looks wrong, an empty list if nothing does.

    Example:
        See `inspect`.

        >>> batches = [(np.ones((4, 2), "float32"), np.eye(2, dtype="float32")[[0, 1, 1, 0]])] * 3
        >>> kmix.diagnostics.inspect(batches).warnings
        ['no label is mixed: alpha is 0, the data is not mixed yet, or its labels are kept']
    """

    def __init__(self, first: list[BatchSummary], second: list[BatchSummary], seconds: float, raw: Any = None) -> None:
        self._first, self._seconds = first, seconds
        labels = {name: label_summary([batch.labels[name] for batch in first]) for name in first[0].labels}
        shows = [name for name, one in labels.items() if one.share is not None]
        headline = next((name for name in [LABELS, *shows, *labels] if name in labels), None)
        self._labels = LabelSummary("other", []) if headline is None else labels[headline]
        self._plans = [batch.plan for batch in first if batch.plan is not None]
        self.p_value: float | None = p_value_of_lam(self._plans) if self._plans else None
        self._repeats, self.warnings = faults.find(first, second, labels, headline, self.p_value, raw)

    @property
    def lam(self) -> np.ndarray | None:
        """The lam of each sample as drawn, or the larger share of its label, `(n,)`; None if neither is known."""
        return np.concatenate([plan.lam for plan in self._plans]) if self._plans else self._labels.share

    def to_dict(self) -> dict[str, Any]:
        """The figures as a dictionary.

        Returns:
            `samples`; `mixed_share`, the share of samples that are mixed, or, without a mixer, of those whose label
            shows it, which is less; `lam_mean`; `label_entropy`, its mean in nats; `label_mass`, the mean sum of a
            label; `self_pair_share`, the share of samples that are their own partner; `no_candidate_share`, the share
            of those for which a rule of pairing such as `SameLabels` has no partner; `repeated_batches`;
            `samples_per_second`; `warnings`. None stands for what the data does not show.
        """

        def mean(values):
            return None if values is None else float(np.mean(values))

        sizes, lam, plans = [batch.size for batch in self._first], self.lam, self._plans
        timed = sum(sizes[1:]) or sum(sizes)
        return {
            "samples": sum(sizes),
            "mixed_share": mean(lam < 1 if plans and lam is not None else self._labels.mixed),
            "lam_mean": mean(lam),
            "label_entropy": mean(self._labels.entropy),
            "label_mass": mean(self._labels.mass),
            "self_pair_share": mean(np.concatenate([plan.own_partner for plan in plans]) if plans else None),
            "no_candidate_share": share_without_candidate(plans),
            "repeated_batches": self._repeats,
            "samples_per_second": timed / max(self._seconds, 1e-9),
            "warnings": list(self.warnings),
        }

    def report(self) -> Report:
        found = self.to_dict()

        def text(name, pattern):
            return "not shown" if found[name] is None else format(found[name], pattern)

        low, high = min(batch.low for batch in self._first), max(batch.high for batch in self._first)
        fit = f"; p = {self.p_value:.2g} against its Beta" if self.p_value is not None else ""
        # Partners of one class have the label of one of them.
        bound = "" if self._plans or found["mixed_share"] is None else "at least "
        rows = [
            ("samples", f"{found['samples']} in {len(self._first)} batches"),
            ("mixed", bound + text("mixed_share", ".1%")),
            ("mean lam, as drawn" if self._plans else "mean of the larger share", text("lam_mean", ".3f") + fit),
            ("label entropy (nats)", text("label_entropy", ".3f")),
            ("label mass", text("label_mass", ".4f")),
            ("own partners", text("self_pair_share", ".1%")),
            *([] if found["no_candidate_share"] is None else [("no candidate", text("no_candidate_share", ".1%"))]),
            ("batches that repeat", str(found["repeated_batches"])),
            ("inputs", f"{low:g} to {high:g}"),
            ("samples a second", text("samples_per_second", ",.0f")),
        ]
        findings = [f"Warning: {sentence}." for sentence in self.warnings] or ["Nothing looks wrong."]
        if found["mixed_share"] is None:
            findings.append("Such labels do not show how they were mixed: pass the layer or trainer, `mixer=`.")
        return Report("What enters the network", ("measure", "value"), rows, findings)

    def plot(self, figure: Any = None) -> Any:
        """Draw a histogram of lam, with the density of its Beta distribution, and one of the label entropy.

        Args:
            figure: Matplotlib `Figure` to draw into. Defaults to a new figure.

        Returns:
            The Matplotlib figure.
        """
        figure = figure or pyplot().figure(figsize=(8.0, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        if self.lam is not None:
            left.hist(self.lam, np.linspace(0 if self._plans else 0.5, 1, 26), color="0.6", density=True)
        alphas = {plan.alpha for plan in self._plans}
        if len(alphas) == 1 and not alphas & {None, 0.0}:
            from scipy import stats

            (alpha,) = alphas
            at = np.linspace(0.01, 0.99, 197)
            left.plot(at, stats.beta.pdf(at, alpha, alpha), color="black", label=f"Beta({alpha:g}, {alpha:g})")
            left.legend()
        left.set(xlabel="lam" if self._plans else "larger share", ylabel="density", title="share of a sample")
        if self._labels.entropy is not None:
            right.hist(self._labels.entropy, 25, color="0.6")
        right.set(xlabel="nats", ylabel="samples", title="label entropy")
        return figure


def inspect(data: Any, *, batches: int = 50, mixer: Any = None) -> Inspection:
    """Look at what enters the network, and tell in plain words what looks wrong.

    From mixed data alone, it reads what the labels and the bytes show: labels of partners that have the same class
    do not show that they were mixed, and ids, unions of tags and kept labels show nothing. With the layer or trainer
    that mixes the data, it also reads the plans that were drawn. It passes over the data twice, if it can, to see
    whether a second epoch repeats the plans of the first.

    Args:
        data: Labelled batches: a `tf.data.Dataset`, a loader, a `keras.utils.PyDataset`, or any iterable of `(x, y)`,
            `(x, y, sample_weight)` or dictionaries. Mixed ones, or with `mixer` those before mixing. A dictionary holds
            the inputs under the `inputs_key` of `mixer`, else under `"images"`.
        batches: Number of batches to look at in each epoch, at most. Defaults to 50.
        mixer: The layer that mixes the batches, here with the numbers 0, 1, 2, ..., or the `MixTrainer`, from its
            next step on. Neither counts them.

    Returns:
        An `Inspection`, which prints as a table, with `to_dict()`, `plot()` and a list `warnings`.

    Raises:
        ValueError: if there are no batches, or no labels, or the data gives single samples.
        TypeError: if `data` is not iterable, or `mixer` is no layer or trainer of kmix.

    Example:
        MixUp whose numbers begin at 0 in every epoch.

        >>> rng = np.random.default_rng(0)
        >>> data = [(rng.normal(size=(32, 4)).astype("float32"), rng.integers(0, 5, 32)) for _ in range(4)]
        >>> mixup = kmix.MixUp(1.0, num_classes=5, seed=1)
        >>> report = kmix.diagnostics.inspect([mixup.at_step(step, batch) for step, batch in enumerate(data)])
        >>> report.warnings[0][:60]
        'batches 0 to 3 of the second epoch repeat those of the first'
        >>> round(kmix.diagnostics.inspect(data, mixer=mixup).to_dict()["mixed_share"], 2)
        1.0
    """
    batches = _checks.integer(batches, "batches", 1)
    check_mixer(mixer)
    if is_mixer(data) or not (hasattr(data, "__iter__") or hasattr(data, "__getitem__")):
        _checks.fail(
            "`data` must be an iterable of batches.",
            f"a {type(data).__name__}",
            "To look at what a layer or trainer draws, write `inspect(data, mixer=layer)`.",
            TypeError,
        )
    first, seconds, raw = _look(data, batches, mixer and PlanReplay(mixer))
    if not first:
        _checks.fail("There must be a batch to look at.", "data without batches")
    # With a mixer, the numbers go on. An iterator is spent, and data without end is all of a training.
    ends = len(first) < batches or batch_count(data) not in (None, math.inf)
    second = _look(data, batches, None)[0] if mixer is None and ends and not hasattr(data, "__next__") else []
    return Inspection(first, second, seconds, raw)


def _look(data, count, replay):
    """The summaries of up to so many batches, the seconds after the first, and the range that mixed inputs keep."""
    found, raw, times, batches = [], [], [], batches_of(data)
    inputs_key = INPUTS if replay is None else replay.inputs_key
    for number in range(count):
        start = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            break
        plan, waited = None, time.perf_counter() - start
        if replay is not None:
            raw.append(_summarize(batch, inputs_key))
            start = time.perf_counter()
            batch, plan = replay.mix(replay.start + number, batch)
            waited += time.perf_counter() - start
        times.append(waited)
        found.append(_summarize(batch, inputs_key, plan))
    seconds = sum(times[1:]) or sum(times)
    bounded = raw and replay.keeps_range
    return found, seconds, (min(b.low for b in raw), max(b.high for b in raw)) if bounded else None


def _summarize(batch, inputs_key, plan=None):
    x, targets, weights = read_batch(batch, inputs_key)
    inputs = [np.asarray(leaf) for leaf in keras.tree.flatten(x)]
    arrays = [*inputs, *targets.values()]
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(array.tobytes() if array.dtype.kind != "O" else repr(array).encode())
    names = [name for name in targets if f"{name.rpartition('/')[0]}/boxes" not in targets]
    labels = {name: targets[name] for name in names if targets[name].ndim < 3}
    found = list(faults.of_masks_and_boxes(targets))
    weights = weights if isinstance(weights, np.ndarray) and weights.ndim == 1 else None
    ends = [end for leaf in inputs if leaf.dtype.kind in "fiu" and leaf.size for end in (leaf.min(), leaf.max())]
    low, high = (float(min(ends)), float(max(ends))) if ends else (np.nan, np.nan)
    finite = all(np.isfinite(array).all() for array in arrays if array.dtype.kind == "f")
    return BatchSummary(len(arrays[0]), digest.digest(), names, labels, found, weights, low, high, finite, plan)
