"""Batches that the actors of Ray read, decode and mix, for a plain `fit`; an actor that is killed changes nothing.

    pip install ".[tensorflow,ray]"                       # Ray and what it needs take 620 MB
    python examples/ray_pipeline.py
    KERAS_BACKEND=jax python examples/ray_pipeline.py     # or torch

A row of the data set is the *number* of a batch. An actor reads the records of that number, decodes them and mixes them
with `at_step`. So it does not matter which actor makes a batch, nor how often: one is killed at its work, Ray starts
another, and that makes the batch again. The batches are compared with those that one process makes, byte for byte.
"""

import argparse
import os
import pathlib
import signal
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import numpy as np
import ray
import ray.data

import kmix

RECORDS, BATCH, EPOCHS = 512, 32, 2
STEPS_PER_EPOCH = RECORDS // BATCH


def write_records(folder):
    """One compressed file for each image with its class: a bright square in one of four corners."""
    generator = np.random.default_rng(0)
    for record in range(RECORDS):
        label, image = record % 4, generator.integers(0, 128, (16, 16, 1), dtype="uint8")
        row, column = 8 * (label // 2), 8 * (label % 2)
        image[row : row + 8, column : column + 8] += 64
        np.savez_compressed(folder / f"{record}.npz", image=image, label=label)


def read(folder, number):
    """The records of a batch, decoded. Each epoch has an order of its own."""
    epoch, place = divmod(number, STEPS_PER_EPOCH)
    order = np.random.default_rng((1, epoch)).permutation(RECORDS)
    records = [np.load(folder / f"{record}.npz") for record in order[place * BATCH : (place + 1) * BATCH]]
    images = np.stack([record["image"] for record in records]).astype("float32") / 255
    return {"images": images, "labels": np.stack([record["label"] for record in records])}


class Mixed:
    """An actor: makes the mixed batch of a number. The first that comes to `killed_at` is killed."""

    def __init__(self, folder, killed_at=None):
        self.folder, self.killed_at, self.once = folder, killed_at, folder / "killed"
        layers = [kmix.MixUp(0.4, num_classes=4, seed=1), kmix.CutMix(num_classes=4, seed=2)]
        self.mixer = kmix.RandomChoice(layers, seed=3)

    def __call__(self, row):
        number = int(row["id"])
        batch = read(self.folder, number)
        if number == self.killed_at and not self.once.exists():
            self.once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.mixer.at_step(number, batch)


def pipeline(folder, steps, killed_at):
    """The mixed batches of all steps, in order, as a data set of Ray."""
    # Before the data set is made, which copies these options.
    options = ray.data.DataContext.get_current()
    options.execution_options.preserve_order = True
    options.enable_progress_bars = False
    actors = ray.data.ActorPoolStrategy(size=2)
    return ray.data.range(steps).map(Mixed, fn_constructor_args=(folder, killed_at), compute=actors)


def train(batches):
    """Plain `fit` on the batches."""
    model = keras.Sequential(
        [
            keras.Input((16, 16, 1)),
            keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(4, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), kmix.losses.SoftLabelCrossentropy())
    model.fit(batches, epochs=EPOCHS, steps_per_epoch=STEPS_PER_EPOCH, shuffle=False, verbose=2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--killed-at", type=int, default=11, help="number of the batch at which an actor is killed")
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    # The actors train nothing, so they need no framework.
    environment = {"KERAS_BACKEND": "numpy", "PYTHONPATH": os.pathsep.join(sys.path)}
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init(num_cpus=2, runtime_env={"env_vars": environment}, **quiet)
    with tempfile.TemporaryDirectory() as name:
        folder, received = pathlib.Path(name), []
        write_records(folder)

        def batches():
            for row in pipeline(folder, EPOCHS * STEPS_PER_EPOCH, options.killed_at).iter_rows():
                received.append(row)
                yield row["images"], row["labels"]

        train(batches())
        killed, alone = (folder / "killed").exists(), Mixed(folder)
        expected = [alone({"id": number}) for number in range(EPOCHS * STEPS_PER_EPOCH)]
    ray.shutdown()
    equal = sum(
        all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs)
        for ours, theirs in zip(received, expected, strict=True)
    )
    print(f"An actor was killed at batch {options.killed_at}." if killed else "No actor was killed.")
    print(f"Equal to the batches of one process, in order: {equal} of {len(expected)}.")
    return 0 if killed and equal == len(expected) else 1


if __name__ == "__main__":
    raise SystemExit(main())
