"""Few training images: does mixing make up for the images that are missing, and which way of mixing does?

    python examples/experiments/few_samples.py            # prints a table, writes few_samples.json and a picture
    python examples/experiments/few_samples.py --quick    # one seed, few steps: only to check that it runs

Each method trains on 250, 1000 and 4000 images of Fashion-MNIST for the same number of steps, so a small training set
is seen more often. The alphas are those of the papers' experiments on CIFAR and were not tuned. The network after the
last step counts. `MixUp, clean too` trains on the clean batch beside the mixed one: on twice as many samples a step.
"""

import experiment
import numpy as np
from experiment import PLAIN, Method

import kmix
from kmix.diagnostics import compare

SIZES, TEST_SIZE, STEPS, PARTS = (250, 1000, 4000), 5000, 800, 5
PLACES = ["input", "conv1", "conv2"]
# What to fit, for a model.
METHODS = {
    PLAIN: lambda model: model,
    "MixUp": lambda model: kmix.MixTrainer(model, kmix.MixUp(1.0, seed=0)),
    "CutMix": lambda model: kmix.MixTrainer(model, kmix.CutMix(1.0, seed=0)),
    "Manifold": lambda model: kmix.MixTrainer(model, kmix.EmbeddingMixup(2.0, seed=0), at=PLACES),
    "MixUp or CutMix": lambda model: kmix.MixTrainer(
        model, kmix.RandomChoice([kmix.MixUp(1.0, seed=0), kmix.CutMix(1.0, seed=1)], seed=2)
    ),
    "MixUp, clean too": lambda model: kmix.MixTrainer(model, kmix.MixUp(1.0, keep_clean=True, seed=0)),
}
COLORS = dict(zip(METHODS, ("#666666", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"), strict=True))
MARKERS = dict(zip(METHODS, "xos^Dv", strict=True))
TITLES = {"error": ("test error (points)", 100), "nll": ("test NLL (nats)", 1), "ece": ("test ECE (points)", 100)}


class Runs:
    """All runs of the experiment.

    Attributes:
        predictions: After the last step, by size, method and seed.
        fits: The share of the training labels that a network reproduces then.
        curves: The test error after each fifth of the training.
    """

    def __init__(self, steps, sizes):
        self.data, (x, y) = experiment.load_data()
        self.x_test, self.y_test = x[:TEST_SIZE], y[:TEST_SIZE]
        self.sizes = sizes
        self.methods = {name: Method(steps, trainer_of) for name, trainer_of in METHODS.items()}
        self.predictions, self.fits, self.curves = {}, {}, {}

    def run(self, size, name, seed):
        x, y = experiment.draw_samples(self.data, size, seed)
        method, seen = self.methods[name], []
        method.train(x, y, seed, PARTS, lambda: seen.append(method.predict(self.x_test)))
        self.predictions[size, name, seed] = seen[-1]
        self.fits[size, name, seed] = np.mean(method.predict(x).argmax(axis=1) == y)
        self.curves[size, name, seed] = [np.mean(p.argmax(axis=1) != self.y_test) for p in seen]

    def of(self, found, size, seeds):
        return {name: [found[size, name, seed] for seed in seeds] for name in METHODS}

    def cases(self, seeds):
        """For each size the scores, the mean share of the training labels that is reproduced, and the mean curves."""
        scores = {size: compare(self.of(self.predictions, size, seeds), y=self.y_test).to_dict() for size in self.sizes}
        return scores, *(self.means(found, seeds) for found in (self.fits, self.curves))

    def means(self, found, seeds):
        return {
            size: {name: np.mean(values, axis=0) for name, values in self.of(found, size, seeds).items()}
            for size in self.sizes
        }


def draw(result, path):
    """What each method changes against plain training, with its interval."""
    title = f"Minus plain training, with 95 % interval; below 0 is better. {len(result['seeds'])} paired seed(s)"
    figure, panels = experiment.figure_of(len(TITLES), title)
    names = list(METHODS)[1:]
    for ax, (score, (label, factor)) in zip(panels, TITLES.items(), strict=True):
        for shift, name in zip(np.linspace(-0.3, 0.3, len(names)), names, strict=True):
            found = [case[name][score]["difference"] for case in result["cases"].values()]
            mean = factor * np.array([one["mean"] for one in found])
            ends = [[one[end] if one[end] is not None else one["mean"] for end in ("low", "high")] for one in found]
            reach = np.abs(factor * np.array(ends).T - mean)
            style = {"color": COLORS[name], "marker": MARKERS[name], "linestyle": "", "capsize": 3}
            ax.errorbar(np.arange(len(mean)) + shift, mean, reach, label=name, **style)
        ax.axhline(0, color="black", lw=1)
        ax.set_xticks(range(len(result["cases"])), result["cases"])
        ax.set(title=label, xlabel="training images")
        ax.grid(axis="y", alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(names))
    figure.savefig(path, dpi=80)


def main():
    options = experiment.options_of(__doc__, "few_samples", 5, "1 seed, 20 steps, 1 size")
    seeds, steps, sizes = (1, 20, SIZES[:1]) if options.quick else (options.seeds, STEPS, SIZES)
    seeds, runs = list(range(seeds)), Runs(steps, sizes)
    seconds = experiment.run_all([(n, name, s) for s in seeds for name in METHODS for n in sizes], runs.run)
    cases, fits, curves = runs.cases(seeds)
    settings = {"test images": TEST_SIZE, "steps": steps}
    result = experiment.save(options.result, "few_samples", seeds, settings, seconds, cases, fits=fits, curves=curves)
    draw(result, options.output)
    experiment.print_table(result, "Test scores with few training images")
    print(f"{seconds:.0f} s. The results: {options.result}. The picture: {options.output}")


if __name__ == "__main__":
    main()
