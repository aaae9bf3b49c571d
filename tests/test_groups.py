"""Partners within groups of rows: the parts of a batch are mixed as the whole is."""

import itertools

import keras
import numpy as np
import oracle
import pytest
from contract import cut
from helpers import (
    at_step,
    boxes,
    data,
    every_path,
    fit,
    ids,
    network,
    predictions,
    raises,
    tf,
    to_native,
    to_numpy,
    trainer_of,
)

import kmix
from kmix import _backend, prng
from kmix.pairing import DifferentLabels, Pairing, RandomPairs, SameLabels, SimilarLabels
from kmix.plan import streams

N, W, CLASSES = 40, 8, 5
X, Y = data(N), ids(N, CLASSES)
tree = keras.tree


def words(seed, step, stream, n):
    """The random words of a stream, for the whole batch."""
    xp = _backend.NUMPY
    return prng.bits(xp, prng.key(xp, seed, step), stream, 1, n)[0]


def sorted_in_groups(words, w):
    """The formula: a permutation of each group of consecutive rows, by its words."""
    starts = range(0, len(words), w)
    return np.concatenate([first + np.argsort(words[first : first + w]) for first in starts])


MAKE = {
    "MixUp": lambda **settings: kmix.MixUp(0.7, **settings),
    "EmbeddingMixup": lambda **settings: kmix.EmbeddingMixup(0.7, **settings),
    "CutMix": lambda **settings: kmix.CutMix(1.0, data_format="channels_last", **settings),
    "Mosaic": lambda **settings: kmix.Mosaic(data_format="channels_last", **settings),
    "RandomChoice": lambda **settings: kmix.RandomChoice(
        [kmix.MixUp(0.7, **settings), kmix.Mosaic(data_format="channels_last", **settings)], seed=4
    ),
}


def layer_of(name, w=W, **settings):
    return MAKE[name](**{"num_classes": CLASSES, "pairing": RandomPairs(within=w), "seed": 3, **settings})


def assert_parts_equal_whole(path, layer, batch, sizes, step=5):
    """Parts of these sizes, one after the other, are mixed as the whole batch is."""
    whole, first = at_step(path, layer, step, batch), 0
    parts = []
    for size in sizes:
        rows = slice(first, first + size)
        parts.append(at_step_from(path, layer, step, cut(batch, rows), first))
        first += size
    for ours, theirs in zip(tree.flatten(whole), zip(*map(tree.flatten, parts), strict=True), strict=True):
        np.testing.assert_allclose(np.concatenate(theirs), ours, atol=1e-6)


def at_step_from(path, layer, step, batch, first):
    if path == "numpy":
        return to_numpy(layer.at_step(step, batch, first_row=first))
    if path == "native":
        return to_numpy(layer.at_step(step, to_native(batch), first_row=first))
    ds = tf.data.Dataset.from_tensors((step, first, batch))
    (mixed,) = ds.map(lambda number, row, batch: layer.at_step(number, batch, first_row=row)).as_numpy_iterator()
    return mixed


@pytest.mark.fast("*-numpy", "*-native", "CutMix-tfdata")
@every_path
@pytest.mark.parametrize("name", MAKE)
def test_parts_are_mixed_as_the_whole(name, path):
    assert_parts_equal_whole(path, layer_of(name), (X, Y), [8, 16, 16])
    assert_parts_equal_whole(path, layer_of(name), (X[:36], Y[:36]), [24, 12])


@pytest.mark.parametrize(
    "settings",
    [{"per": "batch"}, {"rate": 0.5}, {"lam_at_least_half": True}, {"include_clean": True}],
    ids=str,
)
def test_every_setting(settings):
    layer = layer_of("MixUp", **settings)
    assert_parts_equal_whole("numpy", layer, (X, Y), [16, 24])


@pytest.mark.parametrize("name", ["CutMix", "Mosaic"])
def test_masks_boxes_weights_and_what_is_kept(name):
    batch = {
        "images": X,
        "labels": Y,
        "segmentation_masks": (X[..., :1] > 0.5).astype("uint8"),
        "bounding_boxes": boxes(n=N),
        "points": np.full((N, 2, 3, 3), 2, "float32"),
        "id": np.arange(N),
        "sample_weight": np.arange(1, N + 1, dtype="float32"),
    }
    target = {
        "labels": kmix.targets.Labels(CLASSES),
        "segmentation_masks": kmix.targets.SegmentationMasks(),
        "bounding_boxes": kmix.targets.BoundingBoxes("xyxy"),
        "points": kmix.targets.Keypoints(),
        "id": "keep",
    }
    for clean in (False, True):
        layer = layer_of(name, num_classes=None, target=target, include_clean=clean)
        assert_parts_equal_whole("numpy", layer, batch, [16, 24])


def test_partners_are_sorted_by_the_words_of_their_group():
    for n, w in itertools.product((1, 7, 16, 21), (2, 7, 16)):
        plan = layer_of("MixUp", w).plan(2, n)
        np.testing.assert_array_equal(plan.permutation, sorted_in_groups(words(3, 2, streams.MIXUP + 5, n), w))
        # Everything else is that of a batch without groups.
        np.testing.assert_array_equal(plan.lam, layer_of("MixUp", pairing="random").plan(2, n).lam)


def test_no_sample_is_its_own_partner_in_a_group():
    plan = layer_of("MixUp", pairing=RandomPairs(within=W, allow_self=False)).plan(2, N)
    assert not (plan.permutation == np.arange(N)).any()
    np.testing.assert_array_equal(plan.permutation // W, np.arange(N) // W)
    np.testing.assert_array_equal(np.sort(plan.permutation), np.arange(N))


@pytest.mark.fast("*numpy", "*native")
@every_path
@pytest.mark.parametrize("name", ["MixUp", "CutMix"])
def test_clean_samples_come_before_the_mixed_ones_in_each_group(name, path):
    n = 20
    both = at_step(path, layer_of(name, include_clean=True), 5, (X[:n], Y[:n]))
    mixed = at_step(path, layer_of(name), 5, (X[:n], Y[:n]))
    clean = X[:n], oracle.one_hot(Y[:n], CLASSES)
    for ours, first, second in zip(both, clean, mixed, strict=True):
        starts = range(0, n, W)
        expected = [part[start : min(start + W, n)] for start in starts for part in (first, second)]
        np.testing.assert_allclose(ours, np.concatenate(expected), atol=1e-6)


def test_a_second_batch_and_clean_samples():
    other = data(N, seed=4), ids(N, CLASSES, seed=5)
    for clean in (False, True):
        layer = layer_of("MixUp", include_clean=clean)
        plan, ours = layer.plan(5, N), layer.at_step(5, (X, Y), partner=other)[0]
        lam = plan.lam[:, None, None, None]
        mixed = lam * X + (1 - lam) * other[0][plan.permutation]
        if clean:
            mixed = np.concatenate([part[i : i + W] for i in range(0, N, W) for part in (X, mixed)])
        np.testing.assert_allclose(ours, mixed, atol=1e-6)


# Rules that read the labels.


def similar(y, bandwidth, w, seed, step):
    """The formula of C-Mixup in each group. The candidate j of row r has the word r * w + j."""
    n, partners = len(y), []
    uniform = (words(seed, step, streams.PAIRING, n * w) >> 9).reshape(n, w).astype("float64")
    gumbel = -np.log(-np.log((uniform + 0.5) * 2.0**-23))
    for first in range(0, n, w):
        group = y[first : first + w].astype("float64")
        distance = (group[:, None] - group) / group.std() / bandwidth
        score = gumbel[first : first + w, : len(group)] - 0.5 * distance**2
        partners.append(first + score.argmax(1))
    return np.concatenate(partners)


@pytest.mark.fast("numpy", "native")
@every_path
def test_similar_labels_in_groups(path):
    y = np.random.default_rng(2).normal(size=N - 4).astype("float32")
    layer = kmix.MixUp(0.7, seed=3, pairing=SimilarLabels(0.3, within=W))
    plan = layer.plan(5, len(y), targets=y)
    np.testing.assert_array_equal(plan.permutation, similar(y, 0.3, W, 3, 5))
    assert_parts_equal_whole(path, layer, (X[: len(y)], y), [16, 20])


@pytest.mark.fast("numpy", "native")
@every_path
def test_classes_in_groups(path):
    y = ids(N, 3)
    for rule, differ in ((DifferentLabels, True), (SameLabels, False)):
        layer = kmix.MixUp(0.7, num_classes=3, seed=3, pairing=rule(within=W))
        partners = layer.plan(5, N, targets=y).permutation
        assert (partners // W == np.arange(N) // W).all()
        mixed = partners != np.arange(N)
        assert mixed.sum() > N / 2
        assert ((y[partners] != y) == differ)[mixed].all()
        assert_parts_equal_whole(path, layer, (X, y), [16, 24])


def test_a_rule_of_ones_own_sees_one_group_at_a_time():
    seen = []

    class NextSample(Pairing):
        def partners(self, xp, words, key, targets):
            seen.append((len(words), key.first_row))
            return (xp.arange(xp.size(words, 0)) + 1) % xp.size(words, 0)

    plan = layer_of("MixUp", pairing=NextSample(within=W)).plan(0, 20, first_row=24)
    np.testing.assert_array_equal(plan.permutation, [*range(1, 8), 0, *range(9, 16), 8, *range(17, 20), 16])
    assert seen == [(8, 24), (8, 32), (4, 40)]


def test_a_score_needs_to_know_the_size_of_the_batch():
    layer = kmix.MixUp(0.7, pairing=SimilarLabels(within=W))
    y = np.zeros(N, "float32")
    raises(lambda: tf.data.Dataset.from_tensor_slices((X, y)).batch(16).map(layer), "drop_remainder", errors=ValueError)


# What does not fit.


def test_first_row_needs_groups_that_it_begins():
    grouped = layer_of("MixUp")
    raises(lambda: grouped.at_step(0, (X, Y), first_row=4), "multiple of `within=8`", "first_row=4")
    raises(lambda: grouped.plan(0, 8, first_row=-8), "first_row")
    raises(lambda: grouped.plan(0, 8, first_row=8.0), "first_row", errors=(TypeError, ValueError))
    raises(lambda: grouped.at_step(0, (X, Y), 1, first_row=8), "`replica`", "replica=1")
    raises(lambda: layer_of("MixUp", pairing="random").at_step(0, (X, Y), first_row=0), "within=16")
    raises(lambda: at_step_from("tfdata", grouped, 0, (X, Y), 4), "multiple of `within=8`")
    # Nothing was counted.
    np.testing.assert_array_equal(grouped(X, Y)[0], grouped.at_step(0, (X, Y))[0])


@pytest.mark.parametrize("within", [1, 0, -4, True, 2.5, "rows", None])
def test_groups_have_two_rows_or_more(within):
    for rule in (RandomPairs, SimilarLabels):
        raises(lambda: rule(within=within), "`within`", errors=(ValueError, TypeError))  # noqa: B023
    if within is not None:
        raises(lambda: trainer_of(network(CLASSES), within=within), "`within`", errors=(ValueError, TypeError))


def test_layers_of_a_choice_agree_on_groups():
    layers = [kmix.MixUp(pairing=RandomPairs(within=w)) for w in (8, 16)]
    raises(lambda: kmix.RandomChoice(layers), "agree on `within`")


# Training.


def test_a_training_step_is_that_of_the_layer():
    x = data(16, (5,))
    layer = kmix.MixUp(0.7, seed=3, num_classes=CLASSES, pairing=RandomPairs(within=4))
    trainer = kmix.MixTrainer(network(CLASSES), layer)
    plan = trainer.plan(3, 16)
    np.testing.assert_array_equal(plan.permutation, layer.plan(3, 16).permutation)
    assert kmix.MixTrainer(network(CLASSES), kmix.MixUp(0.7, seed=3), within=4).plan(
        3, 16
    ).permutation.tolist() == list(plan.permutation)
    np.testing.assert_allclose(layer.at_step(3, (x, Y[:16]))[0], oracle.mixup(x, plan.lam, plan.permutation), atol=1e-6)


@pytest.mark.parametrize("rule", [RandomPairs, DifferentLabels])
def test_a_step_mixes_within_groups(rule):
    x, y = data(16, (5,)), ids(16, CLASSES)
    mixer = kmix.MixUp(0.7, seed=3, num_classes=CLASSES, pairing=rule(within=4))
    trainer = trainer_of(network(CLASSES), mixer=mixer)
    plan = trainer.plan(0, 16, targets=y)
    assert (plan.permutation // 4 == np.arange(16) // 4).all()
    p = predictions(trainer.model, oracle.mixup(x, plan.lam, plan.permutation))
    loss = oracle.crossentropy(oracle.mixup(oracle.one_hot(y, CLASSES), plan.lam, plan.permutation), p).mean()
    assert fit(trainer, x, y)["loss"] == pytest.approx(loss, rel=1e-4)


def test_groups_round_trip():
    layer = layer_of("MixUp")
    copy = type(layer).from_config(layer.get_config())
    assert copy.pairing == RandomPairs(within=W)
    np.testing.assert_array_equal(copy.plan(1, N).permutation, layer.plan(1, N).permutation)
    trainer = kmix.MixTrainer(network(CLASSES), kmix.MixUp(0.7, seed=3), within=4)
    assert kmix.MixTrainer.from_config(trainer.get_config()).within == 4
