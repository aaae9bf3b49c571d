"""Generated batches through every mixer, for as long as one likes: each must be what the formulas of the papers give.

    KERAS_BACKEND=jax python tests/soak.py --minutes 5
    KERAS_BACKEND=jax python tests/soak.py --path tfdata --plain --cases 2000
    KERAS_BACKEND=jax python tests/soak.py --first 1234 --cases 1       # one case again

Case `i` is a function of `i` alone, whatever the backend and the code path.
"""

import argparse
import collections
import json
import sys
import time
import traceback
from typing import Any, NamedTuple

import contract
import keras
import numpy as np
import oracle
from contract import assert_same, parts, rebuilt
from helpers import CODE_PATHS, at_step, to_native, to_numpy

import kmix
from kmix.pairing import RandomPairs
from kmix.targets import BoundingBoxes, LabelPairs, Labels, SegmentationMasks

tree = keras.tree
BLENDED = "float32", "float32", "float64", "float16", "uint8"
PASTED = *BLENDED, "int32", "bool"


class Case(NamedTuple):
    """A layer and a batch that it takes.

    Attributes:
        layer: The mixer.
        batch: `(x, y)`, `(x, y, sample_weight)` or a dictionary, NumPy arrays.
        step: The step.
        exact: Whether `contract.check_values` knows the formula: mixers with one partner.
    """

    layer: Any
    batch: Any
    step: int
    exact: bool


class Draw:
    """Random choices of one case."""

    def __init__(self, number):
        self.rng = np.random.default_rng([24, number])

    def pick(self, *options):
        return options[self.rng.integers(len(options))]

    def often(self, share=0.5):
        return bool(self.rng.random() < share)

    def size(self, low=1, high=7):
        return int(self.rng.integers(low, high))

    def array(self, shape, dtype):
        if dtype in ("float16", "float32", "float64"):
            return self.rng.normal(size=shape, scale=self.pick(1, 30)).astype(dtype)
        return self.rng.integers(0, 2 if dtype == "bool" else 256, shape).astype(dtype)


def alpha(draw):
    """From 0 to a million, and what people use."""
    return draw.pick(0.0, 0.2, 1.0, 1e6, 10 ** draw.rng.uniform(-3, 6))


def settings_of(draw, pairing=()):
    """Settings that every mixer with an alpha takes."""
    return {
        "rate": draw.pick(1.0, 1.0, 0.0, draw.rng.random()),
        "per": draw.pick("sample", "sample", "batch"),
        "lam_at_least_half": draw.often(0.2),
        "pairing": draw.pick("random", "random", RandomPairs(allow_self=False), RandomPairs(within=2), *pairing),
    }


def labels_of(draw, n):
    """`(y, settings, pairing rules that take them)`: labels of some kind."""
    classes = draw.size(1, 6)
    ids = draw.rng.integers(0, classes, n)
    by_class = "different_labels", "same_labels"
    kind = draw.pick("ids", "column", "soft", "tags", "values", "pairs", "several")
    if kind == "column":
        return ids[:, None].astype(draw.pick("int32", "uint8")), {"num_classes": classes}, by_class
    if kind == "soft":
        return draw.rng.dirichlet(np.ones(classes + 1), n).astype("float32"), {"num_classes": classes + 1}, ()
    if kind == "tags":
        return draw.rng.integers(0, 2, (n, classes + 1)), {"target": draw.pick(Labels(classes + 1), "union")}, ()
    if kind == "values":
        return draw.rng.normal(size=n).astype("float32"), {}, ("similar_labels",)
    if kind == "pairs":
        return ids, {"target": LabelPairs(classes + 3)}, by_class
    if kind == "several":
        y = {"class": ids, "value": draw.rng.normal(size=n).astype("float32"), "id": np.arange(n)}
        return y, {"target": {"class": Labels(classes), "value": "labels", "id": "keep"}}, ()
    return ids, {"num_classes": classes}, by_class


def weights_of(draw, n):
    """Sample weights, some of them 0, or none."""
    if not draw.often(0.4):
        return None
    return draw.rng.uniform(0, 3, n).astype("float32") * draw.rng.integers(0, 4, n).clip(0, 1)


def mixer_of(draw, n, kind, labels, pairing):
    """`(layer, inputs)` of a kind of mixer."""
    seed, settings = int(draw.rng.integers(2**32)), settings_of(draw, pairing) | labels
    middle = tuple(draw.size(3) for _ in range(draw.size(1, 4)))
    if kind == "CutMix":
        first = draw.often(0.3)
        shape = (draw.size(1, 4), *middle) if first else (*middle, draw.size(1, 4))
        layout = "channels_first" if first else "channels_last"
        layer = kmix.CutMix(alpha(draw), data_format=layout, seed=seed, **settings)
        return layer, draw.array((n, *shape), draw.pick(*PASTED))
    if kind == "EmbeddingMixup":
        x = draw.array((n, draw.size(), draw.size()), draw.pick("float32", "float16"))
        return kmix.EmbeddingMixup(alpha(draw), seed=seed, **settings), x
    if kind == "Mosaic":
        settings = {name: settings[name] for name in ("rate", *labels)}
        x = draw.array((n, draw.size(2), draw.size(2), 3), draw.pick("float32", "uint8"))
        return kmix.Mosaic(data_format="channels_last", seed=seed, **settings), x
    if kind == "AudioMix":
        x = draw.array((n, draw.size(4, 40)), "float32")
        if draw.often(0.3):
            del settings["lam_at_least_half"]
            return kmix.AudioMix(snr=(-5.0, 10.0), seed=seed, **settings), x
        return kmix.AudioMix(alpha(draw), equal_levels=draw.often(), seed=seed, **settings), x
    if kind == "RandomChoice":
        layers = [kmix.MixUp(alpha(draw), seed=seed, **settings)]
        layers.append(kmix.CutMix(alpha(draw), data_format="channels_last", seed=draw.size(), **settings))
        probabilities = draw.pick(None, [0.3, 0.7], [1, 0])
        return kmix.RandomChoice(layers, probabilities, seed=seed), draw.array((n, *middle, 2), draw.pick(*BLENDED))
    x = draw.array((n, *middle), draw.pick(*BLENDED))
    if draw.often(0.2):
        x = {"image": x, "table": (draw.array((n, 3), "float32"),)}
    return kmix.MixUp(alpha(draw), seed=seed, **settings), x


def spatial_case(draw, n):
    """Images with masks or with boxes."""
    height, width, classes = draw.size(3, 9), draw.size(3, 9), draw.size(2, 5)
    x = draw.array((n, height, width, 3), draw.pick("float32", "uint8"))
    if draw.often():
        target = SegmentationMasks(classes)
        y = draw.rng.integers(0, classes, (n, height, width, 1)[: draw.pick(3, 4)]).astype(draw.pick("uint8", "int32"))
    else:
        target, boxes = BoundingBoxes("xyxy", min_visibility=draw.pick(0.0, 0.1)), draw.size(1, 4)
        ends = np.sort(draw.rng.uniform(0, (width, height), (n, boxes, 2, 2)), axis=2)
        y = {"boxes": ends.reshape(n, boxes, 4).astype("float32")}
        y["labels"] = draw.rng.integers(-1, classes, (n, boxes)).astype("float32")
    seed, settings = int(draw.rng.integers(2**32)), {"target": target, "rate": draw.pick(1.0, 0.5)}
    pasting = settings | {"data_format": "channels_last"}
    kind = draw.pick("MixUp", "CutMix", "CutMix", "Mosaic", "RandomChoice")
    if kind == "Mosaic":
        layer = kmix.Mosaic(seed=seed, **pasting)
    elif kind == "RandomChoice":
        layer = kmix.RandomChoice([kmix.MixUp(0.4, seed=1, **settings), kmix.CutMix(1.0, seed=2, **pasting)], seed=seed)
    elif kind == "CutMix":
        layer = kmix.CutMix(alpha(draw), seed=seed, **pasting)
    else:
        layer = kmix.MixUp(alpha(draw), seed=seed, **settings)
    return Case(layer, (x, y), draw.size(0, 1000), False)


def case(number):
    """The case of a number."""
    draw = Draw(number)
    n = draw.size(1, 10)
    if draw.often(0.15):
        return spatial_case(draw, n)
    y, labels, pairing = labels_of(draw, n)
    one_partner = "MixUp", "MixUp", "CutMix", "CutMix", "EmbeddingMixup", "RandomChoice"
    several = () if isinstance(labels.get("target"), LabelPairs) else ("Mosaic",)
    kind = draw.pick(*one_partner, *several, "AudioMix")
    layer, x = mixer_of(draw, n, kind, labels, pairing)
    weight = weights_of(draw, n)
    batch = (x, y) if weight is None else (x, y, {"class": weight} if isinstance(y, dict) else weight)
    if kind in ("MixUp", "CutMix") and not isinstance(x, dict) and not isinstance(y, dict) and draw.often(0.2):
        batch = dict(zip(("images", "labels", "sample_weight"), batch, strict=False))
    step = draw.pick(0, 1, draw.size(2, 1000), 2**31 - 1, 2**40 + draw.size())
    return Case(layer, batch, step, kind in one_partner)


def check(one, path):
    """Assert that a case is mixed right on a code path."""
    layer, batch, step = one.layer, one.batch, one.step
    if path == "native":
        batch = to_numpy(to_native(batch))  # JAX has no types of 64 bits
    before = tree.map_structure(np.copy, batch)
    mixed = at_step(path, layer, step, batch)
    assert_same(at_step(path, layer, step, batch), mixed, "the same step again")
    assert_same(batch, before, "the given batch")
    config = json.loads(json.dumps(layer.get_config()))
    assert_same(at_step(path, type(layer).from_config(config), step, batch), mixed, "the layer of the config")
    for leaf in tree.flatten(mixed):
        assert np.all(np.isfinite(leaf)), "NaN or infinite"
    if path != "numpy":
        contract.assert_alike(mixed, at_step("numpy", layer, step, batch), "NumPy")
    off = at_step(path, rebuilt(layer, rate=0.0), step, batch)
    for ours, given in zip(tree.flatten(parts(off)[0]), tree.flatten(parts(batch)[0]), strict=True):
        # A blend rounds float64 to the dtype of its layer, also beside a layer that pastes.
        dtype = "float32" if given.dtype == "float64" else ours.dtype
        np.testing.assert_array_equal(ours.astype(dtype), given.astype(dtype), err_msg="rate 0")
    if not isinstance(layer, kmix.AudioMix):
        in_range(parts(mixed)[0], parts(batch)[0])
    masses(parts(off)[1], parts(mixed)[1], layer)
    if one.exact and path == "numpy":
        contract.check_values(layer, batch)
    if isinstance(layer, kmix.CutMix) and isinstance(layer.target, SegmentationMasks):
        plan = layer.plan(step, len(batch[0]), spatial_shape=batch[0].shape[1:3])
        np.testing.assert_array_equal(mixed[1], oracle.cutmix(batch[1], plan.box, plan.permutation), err_msg="masks")
    if isinstance(mixed, tuple) and isinstance(mixed[1], dict) and "boxes" in mixed[1]:
        check_boxes(mixed[1], batch)


def check_boxes(mixed, batch):
    """Boxes lie within the image, and their classes are those of the batch."""
    height, width = batch[0].shape[1:3]
    there = mixed["labels"] >= 0
    boxes = mixed["boxes"][there]
    assert np.all(boxes >= -1e-4)
    assert np.all(boxes <= np.array([width, height, width, height]) + 1e-4)
    assert np.all(boxes[:, 2:] >= boxes[:, :2])
    assert set(np.unique(mixed["labels"][there])) <= set(np.unique(batch[1]["labels"]))


def in_range(mixed, given):
    """No value lies outside those of its array."""
    for ours, x in zip(tree.flatten(mixed), tree.flatten(given), strict=True):
        low, high = (float(end) for end in (x.min(), x.max()))
        room = contract.rounding(ours) * max(1.0, abs(low), abs(high))
        assert low - room <= float(ours.min()), "below every input"
        assert float(ours.max()) <= high + room, "above every input"


def masses(clean, mixed, layer):
    """Class labels that sum to 1 do so when they are mixed."""
    takes_shares = isinstance(clean, np.ndarray) and clean.ndim == 2 and layer.num_classes is not None
    if takes_shares and np.allclose(clean.sum(axis=1), 1, atol=1e-5):
        np.testing.assert_allclose(mixed.sum(axis=1), 1, atol=1e-4, err_msg="the mass of the labels")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--cases", type=int, default=10**9)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--path", choices=CODE_PATHS, default="numpy")
    parser.add_argument("--plain", action="store_true", help="jit_compile=False: no shape is compiled")
    options = parser.parse_args()
    counts, failed, start = collections.Counter(), [], time.monotonic()
    for number in range(options.first, options.first + options.cases):
        if time.monotonic() - start > 60 * options.minutes:
            break
        one = case(number)
        if options.plain:
            one = one._replace(layer=rebuilt(one.layer, jit_compile=False))
        counts[type(one.layer).__name__] += 1
        try:
            check(one, options.path)
        except Exception:
            failed.append(number)
            print(f"Case {number}: {one.layer.get_config()}\n{traceback.format_exc()}")
            if len(failed) == 10:
                break
    kinds = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    seconds = time.monotonic() - start
    path = f"{options.path}, plain" if options.plain else options.path
    print(f"{keras.backend.backend()}, {path}: {counts.total()} cases in {seconds:.0f} s ({kinds})")
    print(f"Wrong: {len(failed)} {failed or ''}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
