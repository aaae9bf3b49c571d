"""Compare ways of training on one or more training sets: what most experiments do, each with its own methods."""

import dataclasses

import experiment
import numpy as np

from kmix.diagnostics import compare

TEST_SIZE, PARTS = 5000, 5
SCORES = {"error": ("test error (points)", 100), "nll": ("test NLL (nats)", 1), "ece": ("test ECE (points)", 100)}
# Told apart without colour, too.
STYLES = [("#0072b2", "o"), ("#d55e00", "s"), ("#009e73", "^"), ("#cc79a7", "D"), ("#e69f00", "v")]


@dataclasses.dataclass(frozen=True)
class Case:
    """A training set.

    Attributes:
        size: Number of images, as many of each class.
        steps: Number of training steps.
        noise: Share of the labels to replace by random ones.
    """

    size: int
    steps: int
    noise: float = 0.0

    @property
    def name(self):
        return f"{self.size}, {100 * self.noise:.0f} % wrong labels" if self.noise else f"{self.size}"

    def draw(self, data, seed):
        """The images and labels of a seed."""
        x, y = experiment.draw_samples(data, self.size, seed)
        return x, experiment.replace_labels(y, self.noise, seed)


class Runs:
    """All runs of an experiment.

    Args:
        cases: The training sets, a list of `Case`.
        methods: What to compare: functions that make an `experiment.Method` of a number of steps, by name.

    Attributes:
        predictions: After the last step, by case, method and seed.
        fits: The share of the training labels that a network reproduces then.
        curves: The test error after each fifth of the training.
    """

    def __init__(self, cases, methods):
        self.data, (x, y) = experiment.load_data()
        self.x_test, self.y_test = x[:TEST_SIZE], y[:TEST_SIZE]
        self.cases = {case.name: case for case in cases}
        # A method is compiled once for all training sets that it trains equally long on.
        self.methods = {
            (name, steps): method(steps) for name, method in methods.items() for steps in {case.steps for case in cases}
        }
        self.names, self.predictions, self.fits, self.curves = list(methods), {}, {}, {}

    def run(self, case, name, seed):
        """Train one method, and keep what it predicts."""
        x, y = self.cases[case].draw(self.data, seed)
        method, seen = self.methods[name, self.cases[case].steps], []
        method.train(x, y, seed, PARTS, lambda: seen.append(method.predict(self.x_test)))
        self.predictions[case, name, seed] = seen[-1]
        self.fits[case, name, seed] = np.mean(method.predict(x).argmax(axis=1) == y)
        self.curves[case, name, seed] = [np.mean(p.argmax(axis=1) != self.y_test) for p in seen]

    def of(self, found, case, seeds):
        """What was found in a case: a list over the seeds for each method."""
        return {name: [found[case, name, seed] for seed in seeds] for name in self.names}

    def scores(self, seeds, chosen=None, reference=experiment.PLAIN):
        """For each case the scores of the methods, and their differences to the reference."""
        found = {case: self.of(self.predictions, case, seeds) for case in self.cases}
        chosen = chosen or self.names
        return {
            case: compare({name: one[name] for name in chosen}, y=self.y_test, reference=reference).to_dict()
            for case, one in found.items()
        }

    def means(self, found, seeds):
        """For each case the mean of what was found with each method."""
        return {
            case: {name: np.mean(values, axis=0) for name, values in self.of(found, case, seeds).items()}
            for case in self.cases
        }


def draw(result, path, series=None):
    """What each method changes against plain training, with its interval.

    Args:
        result: The result of an experiment.
        path: Where to write the picture.
        series: The scores of the methods to draw with one marker each, by name. Default: the cases of the result.
    """
    legend = {"title": "training images"} if series is None else {}
    series = result["cases"] if series is None else series
    series = {name: {key: one for key, one in case.items() if key != experiment.PLAIN} for name, case in series.items()}
    names = list(dict.fromkeys(name for case in series.values() for name in case))
    title = f"Minus plain training, with 95 % interval; left of 0 is better. {len(result['seeds'])} paired seed(s)"
    figure, panels = experiment.figure_of(len(SCORES), title)
    for ax, (score, (label, factor)) in zip(panels, SCORES.items(), strict=True):
        shifts = min(0.18, 0.8 / len(series)) * (np.arange(len(series)) - (len(series) - 1) / 2)
        styles = STYLES[: len(series)]
        for shift, (color, marker), (name, case) in zip(shifts, styles, series.items(), strict=True):
            found = [one[score]["difference"] for one in case.values()]
            mean, reach = experiment.reach(found, factor)
            at = [names.index(key) + shift for key in case]
            style = {"color": color, "marker": marker, "linestyle": "", "capsize": 3}
            ax.errorbar(mean, at, xerr=reach, label=name, **style)
        ax.axvline(0, color="black", lw=1)
        ax.set_yticks(range(len(names)), names if ax is panels[0] else [""] * len(names))
        ax.invert_yaxis()
        ax.set(xlabel=label)
        ax.grid(axis="x", alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(series), **legend)
    figure.savefig(path, dpi=80)


def main(doc, name, title, cases, methods, more=None, series=lambda result: None, quick=()):
    """Run an experiment from the command line.

    Args:
        doc: The help text.
        name: The name of the script and of its files.
        title: The title of the table.
        cases: The training sets, a list of `Case`.
        methods: See `Runs`.
        more: Makes further parts of the result from the runs and the seeds.
        series: Makes the series of the picture of the result, see `draw`.
        quick: The names of the methods that `--quick` runs. Default: plain training and the last two.
    """
    options = experiment.options_of(doc, name, 5, "1 seed, 20 steps, 1 training set, some of the methods")
    if options.quick:
        options.seeds, cases = 1, [dataclasses.replace(cases[0], steps=20)]
        methods = {name: methods[name] for name in quick or (experiment.PLAIN, *list(methods)[-2:])}
    seeds, runs = list(range(options.seeds)), Runs(cases, methods)
    seconds = experiment.run_all([(c, m, s) for s in seeds for m in methods for c in runs.cases], runs.run)
    more = more(runs, seeds) if more else {}
    more |= {"fits": runs.means(runs.fits, seeds), "curves": runs.means(runs.curves, seeds)}
    settings = {"test images": TEST_SIZE, "steps": {case.name: case.steps for case in cases}}
    result = experiment.save(options.result, name, seeds, settings, seconds, runs.scores(seeds), **more)
    experiment.report(result, title, lambda result, path: draw(result, path, series(result)), options)
