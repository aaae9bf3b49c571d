"""Borderline requests: intents that overlap and requests out of scope, with plain training, dropout and mixing.

    python examples/experiments/borderline_intents.py     # downloads CLINC150 (2.5 MB), writes a result file, a picture
    python examples/experiments/borderline_intents.py --quick    # one seed, few steps: only to check that it runs

Each method trains on 10 requests for each of the 150 intents of CLINC150, with the two encoders of `text_intents.py`,
its alpha, and its pretrained word vectors, which are frozen. It mixes in every step; `first half` stops halfway, as
`text_intents.py` does. Partners are drawn at random from the batch, or from its requests of other intents, or of the
same one. The 20 pairs of intents that overlap most are chosen before any training: the mean word vectors of all their
training requests have the largest cosines. "Between" follows a network along the segments that join a test request of
one intent of a pair to one of the other, at the sentence vector: how often it predicts neither intent, and the norm of
the gradient of the loss at the middle, with half of each label. That norm is multiplied by the mean length of the
segments, because a trained encoder sets the scale of its vectors itself.
"""

import pathlib
import sys
from functools import partial

import experiment
import keras
import numpy as np
import tables
from experiment import PLAIN, SEED_STEPS, Method
from matplotlib.figure import Figure

import kmix
from kmix.diagnostics import compare, interpolation
from kmix.diagnostics.scores import difference

sys.path.append(str(pathlib.Path(__file__).parent.parent))
import text_intents
from text_intents import ALPHA, CLASSES, ENCODERS

SIZE, PAIRS, POINTS, STEPS, PARTS, DROPOUT = 10, 20, 5, 1000, 5, 0.5
# Method: where it mixes, in which share of the steps, with whom, and the dropout before the last layer.
METHODS = {
    PLAIN: (PLAIN, 1.0, "random", 0.0),
    "dropout": (PLAIN, 1.0, "random", DROPOUT),
    "wordMixup": ("wordMixup", 1.0, "random", 0.0),
    "senMixup": ("senMixup", 1.0, "random", 0.0),
    "senMixup, first half": ("senMixup", 0.5, "random", 0.0),
    "senMixup, other intents": ("senMixup", 1.0, "different_labels", 0.0),
    "senMixup, same intent": ("senMixup", 1.0, "same_labels", 0.0),
}
COLORS = dict(zip(METHODS, ("#666666", "#e69f00", "#0072b2", "#d55e00", "#cc79a7", "#56b4e9", "#009e73"), strict=True))
MARKERS = dict(zip(METHODS, "xvosD^P", strict=True))


def network(encoder, place, vectors, trainable, alpha, pairing, dropout):
    """The network of `text_intents.py`, with dropout before its last layer, and probabilities out."""
    base = text_intents.network(encoder, place, vectors, trainable, alpha, seed=0, pairing=pairing)
    *_, hidden, last = base.layers
    x = keras.layers.Dropout(dropout)(hidden.output)
    return keras.Model(base.input, keras.layers.Softmax()(last(x)))


def method_of(name, encoder, vectors, trainable, steps):
    place, share, pairing, dropout = METHODS[name]
    schedule = kmix.schedules.Join([ALPHA, 0.0], boundaries=[round(share * steps)])

    def alpha(step):
        return schedule(step % SEED_STEPS)

    trainer_of = (lambda model: model) if place == PLAIN else kmix.MixTrainer
    model_of = partial(network, encoder, place, vectors, trainable, alpha, pairing)
    return Method(steps, trainer_of, dropout, model_of=model_of)


def overlapping(tokens, labels, vectors):
    """The pairs of intents `(PAIRS, 2)` whose training requests have the most similar mean vectors."""
    requests = vectors[tokens].sum(axis=1) / np.maximum(1, (tokens > 0).sum(axis=1, keepdims=True))
    means = np.stack([requests[labels == intent].mean(axis=0) for intent in range(CLASSES)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    cosines = means @ means.T
    pairs = np.transpose(np.triu_indices(CLASSES, 1))
    return pairs[np.argsort(-cosines[tuple(pairs.T)], kind="stable")[:PAIRS]]


class Runs:
    """All runs of the experiment.

    Attributes:
        predictions: For test requests and for those out of scope, by encoder, method and seed.
        found: By the same, the share of training labels that is reproduced, and what is found between intents.
        curves: The test error after each fifth of the training.
    """

    def __init__(self, steps, encoders, data, scratch):
        self.tokens, self.labels, vectors = data
        self.encoders, self.scratch = encoders, scratch
        self.pairs = overlapping(self.tokens["train"], self.labels["train"], vectors)
        rows = [[np.flatnonzero(self.labels["test"] == intent) for intent in pair] for pair in self.pairs]
        self.ends = np.concatenate(rows, axis=1)  # as many test requests of each intent
        self.methods = {(e, name): method_of(name, e, vectors, scratch, steps) for e in encoders for name in METHODS}
        self.halves = {key: halves(method.model) for key, method in self.methods.items()}
        self.predictions, self.found, self.curves = {}, {}, {}

    def run(self, encoder, name, seed):
        generator, y = np.random.default_rng(seed), self.labels["train"]
        rows = np.concatenate([generator.permutation(np.flatnonzero(y == c))[:SIZE] for c in range(CLASSES)])
        tokens = text_intents.without_unknown(self.tokens, rows) if self.scratch else self.tokens
        method, seen, key = self.methods[encoder, name], [], (encoder, name, seed)
        x, y = tokens["train"][rows], y[rows]
        method.train(x, y, seed, PARTS, lambda: seen.append(method.predict(tokens["test"])))
        self.predictions[key] = {"test": seen[-1], "out": method.predict(tokens["out of scope"])}
        self.curves[key] = [np.mean(p.argmax(axis=1) != self.labels["test"]) for p in seen]
        fits = np.mean(method.predict(x).argmax(axis=1) == y)
        self.found[key] = {"fits": fits} | self.between(*self.halves[encoder, name], tokens["test"])

    def between(self, encode, classify, tokens):
        """How often the prediction is neither intent of a pair, along segments, and the gradient at their middle."""
        vectors, pairs = encode.predict(tokens, batch_size=1000, verbose=0), self.ends.T
        found = interpolation(classify, vectors, self.labels["test"], points=POINTS, pairs=pairs, batch_size=1000)
        lengths = np.linalg.norm(vectors[pairs[:, 0]] - vectors[pairs[:, 1]], axis=1)
        middle = POINTS // 2
        return {
            "neither": found.neither[middle],
            "gradient": found.gradient[middle] * lengths.mean(),
            "curve": found.neither,
        }

    def cases(self, seeds):
        """For each encoder the scores on all requests and on overlapping ones, and what is between and fitted."""
        cases, curves, y = {}, {}, self.labels["test"]
        near = np.isin(y, self.pairs)
        for encoder in self.encoders:
            given, found, errors = (
                {name: [part[encoder, name, seed] for seed in seeds] for name in METHODS}
                for part in (self.predictions, self.found, self.curves)
            )
            test, out = ({name: [one[part] for one in given[name]] for name in METHODS} for part in ("test", "out"))
            cases[ENCODERS[encoder]] = {
                "all": compare(test, y=y, x_out=out).to_dict(),
                "overlapping": compare({name: [p[near] for p in test[name]] for name in METHODS}, y=y[near]).to_dict(),
                "between": {name: summary(found[name], found[PLAIN], name) for name in METHODS},
            }
            curves[ENCODERS[encoder]] = {
                name: {
                    "error": np.mean(errors[name], axis=0),
                    "neither": np.mean([one["curve"] for one in found[name]], axis=0),
                }
                for name in METHODS
            }
        return cases, curves


def halves(model):
    """A network up to the sentence vector, and from it on."""
    hidden = next(layer for layer in model.layers if isinstance(layer, keras.layers.Dense))
    return keras.Model(model.input, hidden.input), keras.Model(hidden.input, model.output)


def summary(found, plain, name):
    """What `compare` tells of its scores, for those that it does not have."""
    result = {}
    for score in ("neither", "gradient", "fits"):
        values = [one[score] for one in found]
        result[score] = experiment.summary(values)
        if name != PLAIN:
            mean, low, high, _ = difference(values, [one[score] for one in plain])
            result[score]["difference"] = {"mean": mean, "low": low, "high": high}
    return result


def draw(result, path):
    """What each method changes against plain training, with its interval."""
    title = f"Minus plain training, with 95 % interval. {len(result['seeds'])} paired seed(s)"
    figure = Figure(figsize=(14, 8), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(2, 3).ravel()
    names, cases = list(METHODS)[1:], result["cases"]
    for ax, (label, (part, score, unit)) in zip(panels, tables.BORDERLINE.items(), strict=True):
        factor = tables.SCORES[unit][1]
        for shift, name in zip(np.linspace(-0.3, 0.3, len(names)), names, strict=True):
            found = [case[part][name][score]["difference"] for case in cases.values()]
            mean, reach = experiment.reach(found, factor)
            style = {"color": COLORS[name], "marker": MARKERS[name], "linestyle": "", "capsize": 3}
            ax.errorbar(np.arange(len(mean)) + shift, mean, reach, label=name, **style)
        ax.axhline(0, color="black", lw=1)
        ax.set_xticks(range(len(cases)), cases)
        ax.set(title=label.replace("%", "points"), xlim=(-0.5, len(cases) - 0.5))
        ax.grid(axis="y", alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(names))
    figure.savefig(path, dpi=80)


def main():
    more = {
        "--data": {"help": "data_full.json of CLINC150 (default: download it)"},
        "--scratch": {"action": "store_true", "help": "train word vectors from scratch"},
    }
    options = experiment.options_of(__doc__, "borderline_intents", 5, "1 seed, 20 steps, 1 encoder", more)
    seeds, steps, encoders = (1, 20, list(ENCODERS)[:1]) if options.quick else (options.seeds, STEPS, list(ENCODERS))
    requests = text_intents.load_requests(options.data)
    intents = np.array(sorted({intent for _, intent in requests["train"]}))
    data = text_intents.vectorize(requests, options.scratch)
    seeds, runs = list(range(seeds)), Runs(steps, encoders, data, options.scratch)
    seconds = experiment.run_all([(e, name, s) for s in seeds for name in METHODS for e in encoders], runs.run)
    cases, curves = runs.cases(seeds)
    settings = {"requests per intent": SIZE, "steps": steps, "alpha": ALPHA, "dropout": DROPOUT}
    settings |= {
        "word vectors": "from scratch" if options.scratch else "wordllama",
        "pairs": intents[runs.pairs].tolist(),
    }
    result = experiment.save(options.result, "borderline_intents", seeds, settings, seconds, cases, curves=curves)
    experiment.report(result, "Borderline requests", draw, options)


if __name__ == "__main__":
    main()
