"""What enters the network: a look at mixed batches, or at the plans that mix them."""

import operator
import sys
import time

import numpy as np

from kmix import _checks
from kmix.batch import LABELS
from kmix.diagnostics import faults, screen
from kmix.diagnostics.drawn import Mixer, check_mixer, p_value_of_lam
from kmix.diagnostics.seen import look_at
from kmix.layers.batch_layer import BatchLayer
from kmix.plots.canvas import pyplot
from kmix.training.trainer import MixTrainer


class Inspection:
    """What `inspect` found. It prints as a table.

    Args:
        first: The `Seen` batches of an epoch.
        second: Those of the next, or an empty list.
        seconds: How long the first took, without its first batch.
        raw: The smallest and the largest value of the inputs before mixing, or None.

    Attributes:
        warnings: Sentences on what looks wrong, an empty list if nothing does.

    Example: see `inspect`.

    >>> batches = [(np.ones((4, 2), "float32"), np.eye(2, dtype="float32")[[0, 1, 1, 0]])] * 3
    >>> kmix.diagnostics.inspect(batches).warnings
    ['no label is mixed: lam is 1 throughout (alpha is 0), or the data is not mixed yet']
    """

    def __init__(self, first, second, seconds, raw=None):
        self._first = first
        names = list(first[0].rows)
        shows = [name for name in names if first[0].rows[name].share is not None]
        self._headline = next((name for name in [LABELS, *shows] if name in names), names[0])
        self._drawn = [batch.drawn for batch in first if batch.drawn is not None]
        self.p_value = p_value_of_lam(self._drawn) if self._drawn else None
        repeats, self.warnings = faults.find(first, second, self._headline, self.p_value, raw)
        self._seconds, self._repeats = seconds, repeats

    @property
    def lam(self):
        """The lam of each sample as drawn, or the larger share of its label, `(n,)`; None if neither is known."""
        return np.concatenate([drawn.lam for drawn in self._drawn]) if self._drawn else self._rows("share")

    def _rows(self, name):
        found = [getattr(batch.rows[self._headline], name) for batch in self._first]
        return None if any(part is None for part in found) else np.concatenate(found)

    def to_dict(self):
        """The figures as a dictionary.

        Returns:
            `samples`; `mixed_share`, the share of samples that are mixed; `lam_mean`; `label_entropy`, its mean in
            nats; `label_mass`, the mean sum of a label; `self_pair_share`, the share of samples that are their own
            partner; `repeated_batches`; `samples_per_second`; `warnings`. None stands for what the data does not show.
        """

        def mean(values):
            return None if values is None else float(np.mean(values))

        sizes = [batch.size for batch in self._first]
        timed = sum(sizes[1:]) or sum(sizes)
        return {
            "samples": sum(sizes),
            "mixed_share": mean(self.lam < 1 if self._drawn else self._rows("mixed")),
            "lam_mean": mean(self.lam),
            "label_entropy": mean(self._rows("entropy")),
            "label_mass": mean(self._rows("mass")),
            "self_pair_share": mean(np.concatenate([drawn.own for drawn in self._drawn]) if self._drawn else None),
            "repeated_batches": self._repeats,
            "samples_per_second": timed / max(self._seconds, 1e-9),
            "warnings": list(self.warnings),
        }

    def __str__(self):
        found = self.to_dict()

        def text(name, pattern):
            return "not shown" if found[name] is None else format(found[name], pattern)

        low, high = min(batch.low for batch in self._first), max(batch.high for batch in self._first)
        fit = f"; p = {self.p_value:.2g} against its Beta" if self.p_value is not None else ""
        rows = [
            ("samples", f"{found['samples']} in {len(self._first)} batches"),
            ("mixed", text("mixed_share", ".1%")),
            ("mean lam, as drawn" if self._drawn else "mean of the larger share", text("lam_mean", ".3f") + fit),
            ("label entropy (nats)", text("label_entropy", ".3f")),
            ("label mass", text("label_mass", ".4f")),
            ("own partners", text("self_pair_share", ".1%")),
            ("batches that repeat", str(found["repeated_batches"])),
            ("inputs", f"{low:g} to {high:g}"),
            ("samples a second", text("samples_per_second", ",.0f")),
        ]
        notes = [f"Warning: {sentence}." for sentence in self.warnings] or ["Nothing looks wrong."]
        return screen.render("What enters the network", ("measure", "value"), rows, notes)

    __repr__ = __str__

    def plot(self, figure=None):
        """Draw a histogram of lam, with the density of its Beta distribution, and one of the label entropy.

        Args:
            figure: Matplotlib `Figure` to draw into. Defaults to a new figure.

        Returns:
            The Matplotlib figure.
        """
        figure = figure or pyplot().figure(figsize=(8.0, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        if self.lam is not None:
            left.hist(self.lam, np.linspace(0 if self._drawn else 0.5, 1, 26), color="0.6", density=True)
        alphas = {drawn.alpha for drawn in self._drawn}
        if len(alphas) == 1 and not alphas & {None, 0.0}:
            from scipy import stats

            (alpha,) = alphas
            at = np.linspace(0.01, 0.99, 197)
            left.plot(at, stats.beta.pdf(at, alpha, alpha), color="black", label=f"Beta({alpha:g}, {alpha:g})")
            left.legend()
        left.set(xlabel="lam" if self._drawn else "larger share", ylabel="density", title="share of a sample")
        if self._rows("entropy") is not None:
            right.hist(self._rows("entropy"), 25, color="0.6")
        right.set(xlabel="nats", ylabel="samples", title="label entropy")
        return figure


def inspect(data, batches=50, *, mixer=None):
    """Look at what enters the network, and tell in plain words what looks wrong.

    From mixed data alone, it reads what the labels and the bytes show. With the layer or trainer that mixes the data,
    it also reads the plans that were drawn. It passes over the data twice, if it can, to see whether a second epoch
    repeats the plans of the first.

    Args:
        data: Labelled batches: a `tf.data.Dataset`, a loader, a `keras.utils.PyDataset`, or any iterable of `(x, y)`,
            `(x, y, sample_weight)` or dictionaries. Mixed ones, or with `mixer` those before mixing.
        batches: Number of batches to look at in each epoch, at most. Defaults to 50.
        mixer: The layer that mixes the batches, here with the numbers 0, 1, 2, ..., or the `MixTrainer`, from its
            next step on. Neither counts them.

    Returns:
        An `Inspection`, which prints as a table, with `to_dict()`, `plot()` and a list `warnings`.

    Raises:
        ValueError: if there are no batches, or no labels.
        TypeError: if `data` is not iterable, or `mixer` is no layer or trainer of kmix.

    Example: MixUp whose numbers begin at 0 in every epoch.

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
    if isinstance(data, (BatchLayer, MixTrainer)) or not (hasattr(data, "__iter__") or hasattr(data, "__getitem__")):
        _checks.fail(
            "`data` must be an iterable of batches.",
            f"a {type(data).__name__}",
            "To look at what a layer or trainer draws, write `inspect(data, mixer=layer)`.",
            TypeError,
        )
    first, seconds, raw = _look(data, batches, mixer and Mixer(mixer))
    if not first:
        _checks.fail("There must be a batch to look at.", "data without batches")
    # With a mixer, the numbers go on.
    again = mixer is None and _has_second_epoch(data, len(first) < batches)
    second = _look(data, batches, None)[0] if again else []
    return Inspection(first, second, seconds, raw)


def _has_second_epoch(data, came_to_end):
    """Whether to iterate anew is another epoch. An iterator is spent, and data without end is all of a training."""
    length = operator.length_hint(data, 0)
    return not hasattr(data, "__next__") and (came_to_end or 0 < length < sys.maxsize)


def _look(data, count, mixer):
    """Up to so many batches as `Seen`, the seconds after the first, and the range of the inputs before mixing."""
    found, raw, times, batches = [], [], [], iter(data)
    for number in range(count):
        start = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            break
        drawn, waited = None, time.perf_counter() - start
        if mixer is not None:
            raw.append(look_at(batch))
            start = time.perf_counter()
            batch, drawn = mixer.mix(mixer.start + number, batch)
            waited += time.perf_counter() - start
        times.append(waited)
        found.append(look_at(batch, drawn))
    seconds = sum(times[1:]) or sum(times)
    return found, seconds, (min(b.low for b in raw), max(b.high for b in raw)) if raw else None
