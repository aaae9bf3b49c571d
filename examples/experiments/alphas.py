"""Alpha: one value for all of the training, or a schedule?

    python examples/experiments/alphas.py            # prints a table, writes alphas.json and a picture
    python examples/experiments/alphas.py --quick    # one seed, few steps: only to check that it runs

MixUp with three constant alphas, and with schedules that `kmix.callbacks.AlphaScheduler` sets before each batch: alpha
grows from 0 to 1, falls from 1 to 0, or is 1 and, in the last fifth of the training, 0, so that nothing is mixed there.
"""

from functools import partial

import cases
from cases import Case
from experiment import PLAIN, Method

import kmix

CASES = [Case(1000, 800), Case(1000, 800, noise=0.5)]
SCHEDULES = {
    "warm-up 0 to 1": lambda steps: kmix.schedules.Linear(0.0, 1.0, steps),
    "decay 1 to 0": lambda steps: kmix.schedules.Linear(1.0, 0.0, steps),
    "1, off at the end": lambda steps: kmix.schedules.Join([1.0, 0.0], boundaries=[4 * steps // 5]),
}


def mixup(alpha):
    return lambda model: kmix.MixTrainer(model, kmix.MixUp(alpha, seed=0))


def scheduled(schedule):
    return lambda steps: Method(steps, mixup(1.0), schedule=schedule(steps))


METHODS = {PLAIN: Method} | {f"{alpha:g}": partial(Method, trainer_of=mixup(alpha)) for alpha in (0.2, 1.0, 8.0)}
METHODS |= {name: scheduled(schedule) for name, schedule in SCHEDULES.items()}

if __name__ == "__main__":
    cases.main(__doc__, "alphas", "Test scores by alpha of MixUp", CASES, METHODS)
