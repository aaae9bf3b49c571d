"""Other regularisers: what does MixUp buy with them, and they with MixUp?

    python examples/experiments/regularisers.py            # prints a table, writes regularisers.json and a picture
    python examples/experiments/regularisers.py --quick    # one seed, few steps: only to check that it runs

Each regulariser trains alone and with MixUp, and all of them together do. The augmentation flips images from left to
right and shifts them by up to two pixels, before they are mixed.
"""

from functools import partial

import cases
from cases import Case
from experiment import PLAIN, Method

import kmix

CASES = [Case(1000, 1600)]
ALONE = {
    "dropout": {"dropout": 0.5},
    "label smoothing": {"label_smoothing": 0.1},
    "weight decay": {"weight_decay": 2.0},
    "augmentation": {"augmented": True},
}
ALONE["all four"] = {key: value for one in ALONE.values() for key, value in one.items()}
MIXUP = "MixUp"


def mixup(model):
    return kmix.MixTrainer(model, kmix.MixUp(1.0, seed=0))


def with_mixup(name):
    """The name of a regulariser's training with MixUp."""
    return f"{MIXUP}, {name}"


METHODS = {PLAIN: Method} | {name: partial(Method, **settings) for name, settings in ALONE.items()}
METHODS |= {MIXUP: partial(Method, trainer_of=mixup)}
METHODS |= {with_mixup(name): partial(Method, trainer_of=mixup, **settings) for name, settings in ALONE.items()}


def added(runs, seeds):
    """The differences of training with MixUp to the same training without it."""
    pairs = {MIXUP: PLAIN} | {with_mixup(name): name for name in ALONE}
    (case,) = runs.cases
    pairs = {mixed: alone for mixed, alone in pairs.items() if mixed in runs.names}
    found = {mixed: runs.scores(seeds, [alone, mixed], alone)[case][mixed] for mixed, alone in pairs.items()}
    return {"added": {name: {s: one[s]["difference"] for s in cases.SCORES} for name, one in found.items()}}


def series(result):
    """The regularisers alone, and with MixUp."""
    (case,) = result["cases"].values()
    alone = [name for name in ALONE if name in case]
    mixed = {"nothing else": case[MIXUP]} | {name: case[with_mixup(name)] for name in alone}
    return {"with MixUp": mixed, "without MixUp": {name: case[name] for name in alone}}


if __name__ == "__main__":
    title = "Test scores of regularisers without and with MixUp"
    quick = (PLAIN, "all four", MIXUP, with_mixup("all four"))
    cases.main(__doc__, "regularisers", title, CASES, METHODS, added, series, quick)
