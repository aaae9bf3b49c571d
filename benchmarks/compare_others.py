"""Where other libraries differ from the papers in silence, next to kmix, in one table.

    make compare                                     # installs MONAI and the nightly Keras into .venv/peers
    PYTHONPATH=.venv/peers python benchmarks/compare_others.py --save     # also writes the table to RESULTS.md

Each row is a contract of kmix: a function below that runs a peer and kmix and returns what it saw. The nightly Keras,
on which kmix runs here too, has a `Mosaic` that is in no release yet. "By formula" stands for a library that cannot be
installed beside the others: its published formula, written out here. The exit code is 1 if kmix breaks a contract.
"""

import argparse
import os
import sys
import warnings

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import results
import tensorflow as tf

import kmix

B, STEPS = 64, 20
ONE_HOT = np.eye(B, dtype="float32")


def painted(*sizes):
    """Images that hold their own one-hot label in every pixel, so that the mean of a mixed image is its true label."""
    return np.broadcast_to(ONE_HOT.reshape(B, *[1] * len(sizes), B), (B, *sizes, B)).copy()


def shares(x):
    """What each mixed image holds of each original."""
    return x.mean(axis=tuple(range(1, x.ndim - 1)))


def off(batches):
    """By how much labels miss what is in their images, over all batches."""
    return max(np.abs(shares(x) - y).max() for x, y in batches)


def monai_cutmix(images):
    """Some batches, channels last: images, labels, and what was drawn: lam, the partners, the first corners."""
    import torch
    from monai.transforms import CutMix

    layer = CutMix(batch_size=B, alpha=1.0)
    layer.set_random_state(seed=0)
    given = torch.from_numpy(np.moveaxis(images, -1, 1).copy()), torch.from_numpy(ONE_HOT)
    for _ in range(STEPS):
        x, y = (np.asarray(part) for part in layer(*given))
        lam, permutation, corner = layer._params
        yield np.moveaxis(x, 1, -1), y, (np.asarray(lam), permutation, corner)


def keras_mosaic(**settings):
    """The `Mosaic` of the nightly Keras."""
    if not hasattr(keras.layers, "Mosaic"):
        raise ImportError(f"Keras {keras.__version__} has no Mosaic")
    return keras.layers.Mosaic(**settings)


def ours(layer, images, labels=ONE_HOT):
    """Some batches of a layer of kmix."""
    return [layer.at_step(step, (images, labels)) for step in range(STEPS)]


# The rows. Each returns what the peer does, what kmix does, and whether kmix keeps the contract.


def monai_labels():
    """The label weight of CutMix is the share of kept pixels."""
    images = painted(16, 16)
    found = [(np.diag(y).mean(), np.diag(shares(x)).mean()) for x, y, _ in monai_cutmix(images)]
    weight, share = np.mean(found, axis=0)
    error = off(ours(kmix.CutMix(1.0, data_format="channels_last", seed=0), images))
    theirs = f"mean weight of the sample in its label {weight:.2f}, of its pixels in the image {share:.2f}"
    return theirs, f"off by up to {error:.1g}", error < 1e-6


def monai_volumes():
    """The box of a volume holds 1 - lam of it, before it is cut off at the border."""
    numbers, size = np.arange(B, dtype="float32"), 32
    images = np.broadcast_to(numbers[:, None, None, None, None], (B, size, size, size, 1)).copy()
    drawn, pasted = [], []
    for x, _, (lam, permutation, corner) in monai_cutmix(images):
        whole = [size * np.sqrt(1 - lam) + int(start) <= size for start in corner]
        seen = np.all(whole, axis=0) & (permutation != numbers)
        drawn.append((1 - lam)[seen])
        pasted.append((x != images).mean(axis=(1, 2, 3, 4))[seen])
    drawn, pasted = np.concatenate(drawn).mean(), np.concatenate(pasted).mean()
    layer = kmix.CutMix(1.0, data_format="channels_last", seed=0)
    error = off(ours(layer, painted(8, 8, 8)))
    theirs = f"pastes {pasted:.2f} of the volume for 1 - lam = {drawn:.2f}, in boxes that are not cut off"
    return theirs, f"label off the kept voxels by up to {error:.1g}", error < 1e-6


def mosaic_labels():
    """The label weights of a Mosaic are the shares of its tiles."""
    images = painted(16, 16)
    peer = keras_mosaic(seed=0)
    theirs = [peer({"images": images, "labels": ONE_HOT}) for _ in range(STEPS)]
    theirs = off([(np.asarray(batch["images"]), np.asarray(batch["labels"])) for batch in theirs])
    error = off(ours(kmix.Mosaic(data_format="channels_last", seed=0), images))
    return f"off by up to {theirs:.1g}", f"off by up to {error:.1g}", error < 1e-6


def mosaic_ids():
    """Class ids of a Mosaic are encoded, and float ids are refused."""
    images, ids = painted(16, 16), np.arange(B)
    peer = attempt(lambda: keras_mosaic(seed=0)({"images": images, "labels": ids}))
    encoded = kmix.Mosaic(num_classes=B, data_format="channels_last", seed=0).at_step(0, (images, ids))[1]
    expected = kmix.Mosaic(data_format="channels_last", seed=0).at_step(0, (images, ONE_HOT))[1]
    return peer, f"as one-hot labels: {np.array_equal(encoded, expected)}", np.array_equal(encoded, expected)


def mosaic_boxes():
    """A box of which less than a tenth shows is dropped."""
    images = np.zeros((B, 32, 32, 3), "float32")
    objects = {"boxes": np.tile(np.array([2, 2, 30, 30], "float32"), (B, 1, 1)), "labels": np.zeros((B, 1), "float32")}
    batch = {"images": images, "bounding_boxes": objects}
    target = {"bounding_boxes": kmix.targets.BoundingBoxes("xyxy")}

    def smallest(mixed):
        x1, y1, x2, y2 = np.moveaxis(np.stack([one["boxes"] for one in mixed]), -1, 0)
        real = np.stack([one["labels"] for one in mixed]) >= 0
        return ((x2 - x1) * (y2 - y1) / 28**2)[real].min()

    peer, layer = keras_mosaic(seed=0, bounding_box_format="xyxy"), kmix.Mosaic(target=target, seed=0)
    theirs = smallest([peer(batch)["bounding_boxes"] for _ in range(STEPS)])
    found = smallest([layer.at_step(step, batch)["bounding_boxes"] for step in range(STEPS)])
    return f"keeps {theirs:.2f} of a box", f"keeps {found:.2f} of a box or more", found >= 0.1


def mosaic_seed():
    """One seed gives the same batches with parallel calls."""
    images, count = np.arange(B, dtype="float32")[:, None, None, None] * np.ones((1, 2, 2, 1), "float32"), 300

    def twice(run):
        first, second = (np.stack(list(run().as_numpy_iterator())) for _ in range(2))
        return (first != second).any(axis=-1).mean()

    def theirs():
        batch = tf.data.Dataset.from_tensors({"images": images, "labels": ONE_HOT}).repeat(count)
        return batch.map(keras_mosaic(seed=1), num_parallel_calls=8).map(lambda batch: batch["labels"])

    def own():
        batch = tf.data.Dataset.from_tensors((images, ONE_HOT)).repeat(count).enumerate()
        layer = kmix.Mosaic(data_format="channels_last", seed=1)
        return batch.map(layer.at_step, num_parallel_calls=8).map(lambda x, y: y)

    peer, found = attempt(lambda: f"{twice(theirs):.0%} of rows differ in a second run"), twice(own)
    return peer, f"{found:.0%} of rows differ in a second run", found == 0


def ultralytics_labels():
    """A blend of scenes tells how much of each there is."""
    lam = np.random.default_rng(0).beta(32.0, 32.0, B)
    scenes = {"boxes": np.tile(np.array([2, 2, 6, 6], "float32"), (B, 1, 1)), "labels": np.zeros((B, 1), "float32")}
    target = {"bounding_boxes": kmix.targets.BoundingBoxes("xyxy", weights=True)}
    batch = {"images": np.zeros((B, 8, 8, 3), "float32"), "bounding_boxes": scenes}
    layer = kmix.MixUp(32.0, target=target, seed=0)
    mixed, plan = layer.at_step(0, batch)["bounding_boxes"], layer.plan(0, B)
    both = plan.permutation != np.arange(B)
    expected = np.stack([plan.lam, 1 - plan.lam], axis=1)[both]
    right = np.allclose(mixed["weights"][both], expected)
    theirs = f"boxes of both scenes, each as if it were whole, at lam {lam.min():.2f} to {lam.max():.2f}"
    return theirs, f"boxes of both; with `weights=True` each has its share: {right}", right


def torch_audiomentations_mix():
    """A signal-to-noise ratio in dB is that of the two waves that are mixed."""
    waves = np.random.default_rng(0).normal(size=(B, 4000)).astype("float32")
    waves *= np.random.default_rng(1).uniform(0.1, 1.0, (B, 1)).astype("float32")
    layer = kmix.AudioMix(snr=(5.0, 5.0), seed=0)
    plan = layer.plan(0, B)
    mixed = layer.at_step(0, (waves, ONE_HOT))[0]
    partner = waves[plan.partners[0] if plan.partners is not None else plan.permutation]
    own, other = (np.sqrt(np.square(wave, dtype="float64").mean(axis=1)) for wave in (waves, partner))
    gain = own / other * 10 ** (-5 / 20)
    formula = waves + gain[:, None] * partner
    changed = np.asarray(plan.permutation) != np.arange(B)
    error = np.abs(mixed - formula)[changed].max()
    return "the formula", f"off the formula by up to {error:.1g}; labels by their share, or united", error < 1e-4


def attempt(function):
    """What a function returns, or the name of the exception that it raises."""
    try:
        return function()
    except ImportError:
        raise
    except Exception as error:
        return type(error).__name__


KERAS, MONAI = "keras.layers.Mosaic", "MONAI's CutMix"
ROWS = {
    "CutMix: label weight and kept pixels": (MONAI, monai_labels),
    "CutMix of volumes: size of the box": (MONAI, monai_volumes),
    "Mosaic: label weights and tiles": (KERAS, mosaic_labels),
    "Mosaic: class ids": (KERAS, mosaic_ids),
    "Mosaic: boxes of which little shows": (KERAS, mosaic_boxes),
    "Mosaic: same seed, `num_parallel_calls=8`": (KERAS, mosaic_seed),
    "MixUp of scenes": ("ultralytics, by formula", ultralytics_labels),
    "waves at 5 dB": ("torch-audiomentations' Mix, by formula", torch_audiomentations_mix),
}


def main():
    """Print the table. The exit code says whether kmix keeps every contract."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help="write the table to RESULTS.md")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows, held = [], True
    for title, (peer, row) in ROWS.items():
        try:
            theirs, found, kept = row()
        except ImportError as error:
            theirs, found, kept = f"not installed: {error}", "", True
        rows.append([title, peer, theirs, found, "yes" if kept else "NO"])
        held &= kept
    table = results.table(["contract", "peer", "what it does", "kmix", "kmix keeps it"], rows)
    print(table)
    if options.save:
        head = "## Contracts, other libraries\n\n`PYTHONPATH=.venv/peers python benchmarks/compare_others.py --save`"
        versions = results.machine("keras-nightly", "monai", "torch", "tensorflow")
        results.write_section("compare_others", f"{head}\n\n{versions}\n\n{table}")
    sys.exit(not held)


if __name__ == "__main__":
    main()
