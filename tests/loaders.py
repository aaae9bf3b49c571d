"""Data for worker processes, which import this file."""

import os
import signal

import keras
import numpy as np

SIZE, BATCHES = 6, 5
X = np.random.default_rng(0).normal(size=(SIZE * BATCHES, 4)).astype("float32")
Y = np.arange(SIZE * BATCHES) % 3
IMAGES = np.random.default_rng(1).normal(size=(SIZE * BATCHES, 8, 8, 3)).astype("float32")


class Examples:
    """A map-style data set, as PyTorch and Grain take it."""

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i], Y[i]


def rows(i):
    return slice(SIZE * i, SIZE * (i + 1))


def batch(i):
    return X[rows(i)], Y[rows(i)]


class Batches(keras.utils.PyDataset):
    num_batches = BATCHES

    def __getitem__(self, i):
        return batch(i)


class Endless(Batches):
    num_batches = None

    def __getitem__(self, i):
        return batch(i % BATCHES)


def number(step, mixed):
    """A batch whose inputs tell its number, and its row of the data."""
    first = np.flatnonzero((mixed[0][0] == X).all(1))[0]
    return np.full((2, 2), [step, first // SIZE], "float32"), np.zeros((2, 1), "float32")


def images(i):
    return IMAGES[rows(i)], Y[rows(i)]


class Images(Examples):
    """A map-style data set of images."""

    def __getitem__(self, i):
        return IMAGES[i], Y[i]


class KillsOnce(Images):
    """Kills the process that reads an example, the first time that it is read."""

    def __init__(self, example, mark):
        self.example, self.mark = example, mark

    def __getitem__(self, i):
        if i == self.example and not os.path.exists(self.mark):
            open(self.mark, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(i)


class ImageBatches(Batches):
    """Images in a `PyDataset`."""

    def __getitem__(self, i):
        return images(i)


def collate(examples):
    x, y = zip(*examples, strict=True)
    return [np.stack(x), np.stack(y)]


class Layers:
    """Makes batches from the alpha that a worker sees."""

    def __init__(self, layer):
        self.layer = layer

    def __call__(self, step, batch):
        return np.array([float(self.layer.alpha)]), batch[1]


KEPT = []


def keep(layer):
    KEPT.append(layer)


def set_kept_alpha(alpha):
    KEPT[-1].alpha = alpha


def make_batches(layer, numbers, sent, killed_at):
    """A worker: sends the mixed batches of the numbers that it takes, until it is killed at one of them."""
    for number in iter(numbers.get, None):
        batch = images(number % BATCHES)
        if number == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        sent.send((number, layer.at_step(number, batch)))


# For a process whose Keras runs on NumPy.
ON_NUMPY = """
import pickle, sys
import keras, kmix
assert keras.backend.backend() == "numpy"
layer, batch = pickle.load(sys.stdin.buffer)
counts = type(layer).from_config(layer.get_config())
plan = layer.plan(3, len(batch[1]), spatial_shape=(8, 8))
sys.stdout.buffer.write(pickle.dumps([layer.at_step(3, batch), counts(*batch), tuple(plan)]))
"""
