"""Does mixup help? Train on a few seeds, with and without it, and compare on held-out data.

    python examples/does_it_help.py            # prints a table, writes does_it_help.html and does_it_help.txt
    python examples/does_it_help.py --quick    # two epochs: only to check that it runs

300 of scikit-learn's handwritten digits, about a fifth of them with a random label, train a small network. 1000 others,
with right labels, test it, and noise stands for inputs that are no digits. In a checkout, run
`pip install ".[jax,examples]"`.
"""

import argparse
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import numpy as np
from rich.progress import track
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import kmix
from kmix.diagnostics import compare

CLASSES, TRAIN_SIZE, TEST_SIZE, WRONG, ALPHA, EPS = 10, 300, 1000, 0.2, 1.0, 0.1


def network():
    inputs = keras.Input((64,))
    hidden = keras.layers.Dense(128, activation="relu")(inputs)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, activation="softmax")(hidden))


def train(x, y, seed, epochs, mixup=None):
    """A trained network. A seed gives both ways of training the same weights to begin with, and the same batches."""
    keras.utils.set_random_seed(seed)
    model = network()
    trainer = model if mixup is None else kmix.MixTrainer(model, mixup)
    trainer.compile(keras.optimizers.Adam(3e-3), kmix.losses.SoftLabelCrossentropy())
    trainer.fit(x, y, batch_size=50, epochs=epochs, verbose=0)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: 3)")
    parser.add_argument("--output", default="does_it_help.html", help="the page (default: does_it_help.html)")
    parser.add_argument("--quick", action="store_true", help="2 epochs")
    options = parser.parse_args()
    output, epochs = pathlib.Path(options.output), 2 if options.quick else 100

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    x, x_test, y, y_test = train_test_split(
        x, y, train_size=TRAIN_SIZE, test_size=TEST_SIZE, stratify=y, random_state=0
    )
    generator = np.random.default_rng(0)
    y = np.where(generator.random(TRAIN_SIZE) < WRONG, generator.integers(0, CLASSES, TRAIN_SIZE), y)
    noise = generator.random((TEST_SIZE, 64)).astype("float32")

    models = {"plain": [], "mixup": []}
    for seed in track(range(options.seeds), "seeds"):
        models["plain"].append(train(x, y, seed, epochs))
        models["mixup"].append(train(x, y, seed, epochs, kmix.MixUp(ALPHA, seed=seed)))
    result = compare(models, x_test, y_test, x_out=noise, eps=EPS)
    print(result)
    output.with_suffix(".txt").write_text(f"{result}\n")
    result.save_html(output)
    print(f"The page: {output}")


if __name__ == "__main__":
    main()
