"""Rules of pairing, partners from a second batch, shares of at least half, and clean samples with the mixed ones."""

import json

import keras
import numpy as np
import oracle
import pytest
from helpers import (
    WITH_TENSORFLOW,
    assert_near,
    at_step,
    data,
    every_path,
    ids,
    native,
    pipeline,
    raises,
    refused,
    tf,
    to_native,
    to_numpy,
)
from outside import RowMix
from scipy import stats
from test_losses_metrics import gradient

import kmix
from kmix import _backend
from kmix.layers.keras_masks import masks_of
from kmix.mixing import mix_inputs
from kmix.pairing import RandomPairs, SimilarLabels
from kmix.plan import PlanKey
from kmix.targets import LabelPairs, Labels

NAMESPACES = [_backend.NUMPY, *[_backend.TENSORFLOW] * WITH_TENSORFLOW, _backend.namespace(native(np.zeros(1)))]
NAMESPACES = list(dict.fromkeys(NAMESPACES))


def mixup(alpha=0.8, **settings):
    return kmix.MixUp(alpha, **{"seed": 3, **settings})


def cutmix(alpha=1.0, **settings):
    return kmix.CutMix(alpha, **{"seed": 4, "data_format": "channels_last", **settings})


def embedding(alpha=0.8, **settings):
    return kmix.EmbeddingMixup(alpha, **{"seed": 5, **settings})


every_mixer = pytest.mark.parametrize("make", [mixup, cutmix, embedding])


def others():
    """No sample is its own partner."""
    return RandomPairs(allow_self=False)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def one_hot(n=6, classes=3):
    return oracle.one_hot(ids(n, classes), classes).astype("float32")


# No sample is its own partner.


def cycle(permutation):
    """The samples from the first one on, each followed by its partner, until one returns."""
    seen = [0]
    while permutation[seen[-1]] not in seen:
        seen.append(permutation[seen[-1]])
    return seen


@every_mixer
def test_other_partners_form_one_cycle(make):
    for n in range(1, 20):
        plan = make(pairing=others()).plan(7, n, spatial_shape=(4, 4))
        assert sorted(cycle(plan.permutation)) == list(range(n))
        assert plan.permutation.dtype == "int32"
        expected = make().plan(7, n, spatial_shape=(4, 4))
        np.testing.assert_array_equal(plan.lam, expected.lam)
        # By the formula: the order of a random permutation, each followed by the next.
        sigma = expected.permutation
        np.testing.assert_array_equal(plan.permutation, np.roll(sigma, -1)[np.argsort(sigma)])


def test_other_partners_are_equally_likely():
    layer, counts = mixup(pairing=others()), np.zeros((4, 4))
    for step in range(3000):
        counts[np.arange(4), layer.plan(step, 4).permutation] += 1
    assert (np.diag(counts) == 0).all()
    assert stats.chisquare(counts[~np.eye(4, dtype=bool)]).pvalue > 1e-3


@pytest.mark.parametrize("xp", NAMESPACES, ids=lambda xp: type(xp).__name__)
def test_partners_stay_within_shards(xp):
    words = np.random.default_rng(0).permutation(15).astype("int32")
    order = np.argsort(words.reshape(3, 5), axis=1)
    key = PlanKey(0, shards=3)
    random = RandomPairs(within="shard").partners(xp, xp.asarray(words), key, {})
    np.testing.assert_array_equal(to_numpy(random), order)
    other = to_numpy(RandomPairs(within="shard", allow_self=False).partners(xp, xp.asarray(words), key, {}))
    for ours, sigma in zip(other, order, strict=True):
        np.testing.assert_array_equal(ours, np.roll(sigma, -1)[np.argsort(sigma)])


@every_path
def test_a_batch_of_one_is_the_identity(path):
    x, y = data(1, (4,)), normal(1)
    assert_near(at_step(path, mixup(pairing=others()), 0, (x, y)), (x, y))


# No sample is outweighed by its partner.


@every_mixer
def test_lam_is_at_least_half(make):
    plan, other = (make(0.4, lam_at_least_half=half).plan(2, 256, spatial_shape=(32, 32)) for half in (True, False))
    np.testing.assert_array_equal(plan.permutation, other.permutation)
    assert plan.lam.min() >= 0.5 > other.lam.min()
    if make is cutmix:
        lam = kmix.plan.sample_mixup(4, 2, 0.4, 256, stream=16).lam
        # A box of which nothing is clipped has `1 - lam` of the area, down to whole pixels.
        top, left, bottom, right = plan.box.T
        whole = (top > 0) & (left > 0) & (bottom < 32) & (right < 32)
        edge = np.floor(32 * np.sqrt(1 - np.maximum(lam, 1 - lam))) // 2 * 2
        np.testing.assert_array_equal((bottom - top)[whole], edge[whole])
        assert whole.sum() > 50
    else:
        np.testing.assert_array_equal(plan.lam, np.maximum(other.lam, 1 - other.lam))


def test_samples_that_are_not_mixed_keep_a_lam_of_1():
    plan, other = (mixup(0.4, rate=0.5, lam_at_least_half=half).plan(2, 256) for half in (True, False))
    np.testing.assert_array_equal(plan.lam, np.maximum(other.lam, np.where(other.lam == 1, 1, 1 - other.lam)))


# Partners by label.


def gaussian(y, bandwidth, others=False):
    """Yao et al. 2022, equation 6: the probability of each partner, for a bandwidth in standard deviations."""
    y = np.reshape(y, (len(y), -1)).astype("float64")
    deviation = y.std(axis=0)
    z = y / np.where(deviation == 0, np.inf, deviation)
    weights = np.exp(-np.square(z[:, None] - z[None]).sum(axis=-1) / (2 * bandwidth**2))
    weights = weights * (1 - np.eye(len(y))) if others else weights
    return weights / weights.sum(axis=1, keepdims=True)


LABELS = {
    "one": lambda: normal(32),
    "a column": lambda: 1e3 + normal(32, 1),
    "columns": lambda: np.stack([normal(32), 100 * normal(32, seed=1), np.full(32, 7.1, "float32")], axis=1),
    "all the same": lambda: np.full(32, 0.1, "float32"),
}


@pytest.mark.slow
@pytest.mark.alike
@pytest.mark.parametrize(("bandwidth", "others"), [(0.5, False), (2.0, True)])
@pytest.mark.parametrize("name", LABELS)
def test_the_frequencies_of_partners_are_gaussian(name, bandwidth, others):
    y = LABELS[name]()
    layer, counts = mixup(pairing=SimilarLabels(bandwidth, allow_self=not others)), np.zeros((32, 32))
    steps = 3200
    for step in range(steps):
        counts[np.arange(32), layer.plan(step, 32, targets=y).permutation] += 1
    assert counts.sum() > 100_000
    expected = steps * gaussian(y, bandwidth, others)
    if name == "all the same":
        np.testing.assert_allclose(expected[~np.eye(32, dtype=bool)], steps / (31 if others else 32))
    # Rare partners of a sample together.
    common = expected >= 5
    ours = np.append(counts[common], np.where(common, 0, counts).sum(axis=1))
    theirs = np.append(expected[common], np.where(common, 0, expected).sum(axis=1))
    ours, theirs = ours[theirs > 0], theirs[theirs > 0]
    assert stats.chisquare(ours, theirs * ours.sum() / theirs.sum(), ddof=31).pvalue > 1e-3
    if others:
        assert (np.diag(counts) == 0).all()


def similar(xp, seed, step, y, bandwidth, replica=0, allow_self=True):
    """Partners with similar labels on a framework."""
    rule, key = SimilarLabels(bandwidth, allow_self=allow_self), PlanKey(step, replica, seed=seed)
    return to_numpy(rule.partners(xp, None, key, {"labels": xp.asarray(y)}))


@pytest.mark.slow
@pytest.mark.parametrize("xp", NAMESPACES[1:], ids=lambda xp: type(xp).__name__)
def test_partners_by_label_are_equal_on_every_framework(xp):
    for name, make in LABELS.items():
        y, differ = make(), 0
        for step in range(20):
            expected, ours = (
                similar(each, 9, number, y, 0.5, replica=1, allow_self=step % 2 == 0)
                for each, number in ((_backend.NUMPY, step), (xp, xp.asarray(np.int32(step))))
            )
            differ += (ours != expected).sum()
        # Two sums may tie within rounding.
        assert differ <= 1, name


def test_replicas_and_seeds_draw_other_partners():
    draws = [
        similar(_backend.NUMPY, seed, step, normal(32), 5.0, replica=replica)
        for seed, step, replica in [(1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1)]
    ]
    assert len({tuple(draw) for draw in draws}) == 4


@pytest.mark.fast("*-native")
@every_path
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_batches_paired_by_label(path, dtype):
    if path == "native" and dtype == "float64":
        dtype = "float32"
    x, y, w = data(32, (4, 4, 1)), normal(32).astype(dtype), data(32, (), 2)
    for layer in (mixup(pairing="similar_labels"), cutmix(pairing=SimilarLabels(0.1))):
        plan = layer.plan(5, 32, spatial_shape=(4, 4), targets=y)
        assert len(set(plan.permutation)) < 32
        assert not plan.bijective
        mixed_x, mixed_y, mixed_w = at_step(path, layer, 5, (x, y, w))
        box = plan.box
        expected = oracle.mixup(x, *plan[:2]) if box is None else oracle.cutmix(x, box, plan.permutation)
        labels, weights = oracle.weighted(y, w, *plan[:2])
        assert_near((mixed_x, mixed_y, mixed_w), (expected, labels, weights), atol=1e-4)


@every_path
def test_one_of_several_labels_counts(path):
    x = data(16, (4,))
    y = {"age": normal(16), "sex": ids(16, 2)}
    layer = mixup(pairing=SimilarLabels(label="age"), target={"age": Labels(), "sex": Labels(2)})
    _, mixed = at_step(path, layer, 1, (x, y))
    plan = layer.plan(1, 16, targets=y)
    alone = mixup(pairing="similar_labels").plan(1, 16, targets=y["age"])
    np.testing.assert_array_equal(plan.permutation, alone.permutation)
    assert_near(mixed, {"age": oracle.mixup(y["age"], *plan[:2]), "sex": oracle.mixup(np.eye(2)[y["sex"]], *plan[:2])})


def test_a_label_by_its_index():
    y = (one_hot(16), normal(16))
    layer = mixup(pairing=SimilarLabels(label=1))
    plan = layer.plan(0, 16, targets=y)
    mixed = layer.at_step(0, (data(16, (4,)), y))[1]
    assert_near(mixed, tuple(oracle.mixup(part, *plan[:2]) for part in y))


def test_the_gradient_of_a_partner_that_was_drawn_twice():
    plan = mixup(pairing=SimilarLabels(0.1)).plan(0, 8, targets=np.repeat([0.0, 1.0], 4).astype("float32"))
    assert len(set(plan.permutation)) < 8
    plan = plan._replace(lam=native(plan.lam), permutation=native(plan.permutation))
    x, upstream = normal(8, 3), normal(8, 3, seed=1)
    loss = lambda upstream, x: keras.ops.sum(keras.ops.square(mix_inputs(x, plan)) * upstream)
    ours = gradient(loss, native(upstream), x)
    lam, partners = to_numpy(plan.lam).astype("float64"), to_numpy(plan.permutation)

    def value(x):
        return np.sum(np.square(oracle.mixup(x, lam, partners)) * upstream)

    numerical, step = np.zeros(x.shape), 1e-4
    for i in np.ndindex(*x.shape):
        bump = np.zeros(x.shape)
        bump[i] = step
        numerical[i] = (value(x + bump) - value(x - bump)) / (2 * step)
    np.testing.assert_allclose(ours, numerical, atol=1e-4)


IDS = {"class ids": {"num_classes": 4}, "pairs": {"target": LabelPairs(4)}}
# Settings of the layer, labels, the label to compare, words of the error.
NO_DISTANCES = {
    **{
        name: (settings, ids(), None, [r"float labels \(B,\)", "Class ids have no distances"])
        for name, settings in IDS.items()
    },
    "multi-hot": ({}, np.zeros((6, 2), "int32"), None, ["float labels", r"int32 and shape \(6, 2\)"]),
    "too many axes": (
        {"target": Labels(any_shape=True)},
        np.zeros((6, 2, 2), "float32"),
        None,
        ["float labels", r"\(6, 2, 2\)"],
    ),
    "none named": ({}, {"a": normal(6), "b": normal(6)}, None, ["label=None", "one of .*a.*b"]),
    "a wrong name": ({}, {"a": normal(6), "b": normal(6)}, "c", ["label='c'", "one of .*a.*b"]),
    "a name too many": ({}, normal(6), "a", ["label='a'", "Leave out `label`"]),
    "a name of several": ({}, {"a": {"b": normal(6)}}, "a", ["label='a'", "a/b"]),
}


@pytest.mark.parametrize("name", NO_DISTANCES)
def test_labels_without_distances_are_refused(name):
    settings, y, label, words = NO_DISTANCES[name]
    layer = mixup(pairing=SimilarLabels(label=label), **settings)
    refused(layer, (data(6, (4,)), y), *words, every_way=False)
    symbols = keras.tree.map_structure(lambda leaf: keras.KerasTensor(leaf.shape, dtype=str(leaf.dtype)), y)
    raises(lambda: layer(keras.KerasTensor((6, 4)), symbols), *words)
    raises(lambda: kmix.RandomChoice([mixup(**settings), layer])(data(6, (4,)), y), *words)
    raises(lambda: layer.plan(0, 6, targets=y), *words)


@pytest.mark.parametrize("name", IDS)
def test_labels_without_distances_are_refused_in_a_step(name):
    settings, y, _, words = NO_DISTANCES[name]
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    trainer = kmix.MixTrainer(model, mixup(pairing="similar_labels", **settings))
    trainer.compile("sgd", kmix.losses.SoftLabelCrossentropy())
    raises(lambda: trainer.fit(data(6, (4,)), y, verbose=0), *words)


@pytest.mark.slow
def test_labels_that_are_not_finite_are_refused():
    y = np.array([0, 1, np.nan, 0, 0, 0], "float32")
    refused(mixup(pairing="similar_labels"), (data(6, (4,)), y), "finite", good=(data(6, (4,)), normal(6)))


def test_arguments_that_are_refused():
    raises(lambda: SimilarLabels(0.0), "`bandwidth`", "> 0", "bandwidth=0.0")
    raises(lambda: SimilarLabels(-1.0), "`bandwidth`", "-1.0")
    raises(lambda: SimilarLabels("wide"), "`bandwidth`", errors=TypeError)
    raises(lambda: SimilarLabels(None), "`bandwidth`", errors=TypeError)
    raises(lambda: SimilarLabels(label=1.5), "`label`", errors=TypeError)
    raises(lambda: mixup(pairing=None), "`pairing`", "None", errors=TypeError)
    raises(lambda: mixup(pairing=RandomPairs), r"Write `RandomPairs\(\)`", errors=TypeError)
    raises(lambda: mixup(pairing="shard"), "`pairing`", "'random' or 'similar_labels'", "'shard'")
    raises(lambda: RandomPairs(within="shards"), "`within`", "'batch', 'shard'")
    for make in (lambda: RandomPairs(allow_self=1), lambda: SimilarLabels(allow_self="no")):
        raises(make, "`allow_self`", "True or False", errors=TypeError)
    for name in ("lam_at_least_half", "include_clean"):
        raises(lambda name=name: mixup(**{name: 1}), f"`{name}`", "True or False", errors=TypeError)
    raises(lambda: mixup(pairing="similar_labels").plan(0, 4), "depends on the targets", "targets=y")
    raises(lambda: mixup(pairing="similar_labels").plan(0, 4, targets=normal(5)), "one row", "4 samples")
    choice = [mixup(pairing=RandomPairs(within=within)) for within in ("batch", "shard")]
    raises(lambda: kmix.RandomChoice(choice), "agree on `within`")


def test_a_rule_is_its_settings():
    rule = SimilarLabels(0.3, label="age")
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(rule)))
    assert keras.saving.deserialize_keras_object(config) == rule == rule.replace()
    assert rule != rule.replace(bandwidth=0.4)
    assert len({rule, SimilarLabels(0.3, label="age"), RandomPairs(), RandomPairs(within="batch")}) == 2
    with pytest.raises(AttributeError, match="replace"):
        rule.bandwidth = 0.4
    layer = mixup(pairing=rule)
    assert layer.pairing is rule
    assert type(layer).from_config(json.loads(json.dumps(layer.get_config()))).pairing == rule


# A second batch.


def mixed_with(plan, x, others):
    """`lam * x_i + (1 - lam) * other_j`, or the box of the other, by the formulas for both batches in a row."""
    n, both = len(x), np.concatenate([x, others])
    permutation = np.concatenate([plan.permutation + n, np.arange(n)])
    if plan.box is not None and x.ndim == 4:
        return oracle.cutmix(both, np.concatenate([plan.box, 0 * plan.box]), permutation)[:n]
    return oracle.mixup(both, np.concatenate([plan.lam, np.ones(n)]), permutation)[:n]


def with_partner(path, layer, step, batch, partner):
    """`layer.at_step(step, batch, partner=partner)` on a path, as NumPy."""
    if path == "numpy":
        return layer.at_step(step, batch, partner=partner)
    if path == "native":
        return to_numpy(layer.at_step(step, to_native(batch), partner=to_native(partner)))
    mapped = pipeline(lambda step, both: layer.at_step(step, both[0], partner=both[1]), [(batch, partner)], start=step)
    return to_numpy(next(iter(mapped)))


@pytest.mark.fast("*numpy", "*native", "mixup-soft-tfdata", "cutmix-dense-tfdata")
@every_path
@pytest.mark.parametrize("form", ["dense", "pair", "soft"])
@pytest.mark.parametrize("make", [mixup, cutmix])
def test_partners_from_a_second_batch(make, form, path):
    target = {"dense": Labels(5), "pair": LabelPairs(5), "soft": Labels()}[form]
    layer = make(target=target, rate=0.7)
    x, others = data(16, (4, 4, 1)), 5 + data(16, (4, 4, 1), seed=1)
    classes, other_classes = ids(16, 5), ids(16, 5, seed=2)
    w, other_w = data(16, (), 3), data(16, (), 4)
    hot, other_hot = (oracle.one_hot(each, 5).astype("float32") for each in (classes, other_classes))
    y, other_y = (hot, other_hot) if form == "soft" else (classes, other_classes)
    mixed_x, mixed_y, mixed_w = with_partner(path, layer, 2, (x, y, w), (others, other_y, other_w))
    plan = layer.plan(2, 16, spatial_shape=(4, 4))
    assert (plan.lam == 1).any()
    weight = mixed_with(plan, w, other_w)
    own = np.where(plan.lam == 1, 1, plan.lam * w / weight)
    expected = own[:, None] * hot + (1 - own[:, None]) * other_hot[plan.permutation]
    assert_near(mixed_x, mixed_with(plan, x, others), atol=1e-4)
    assert_near(mixed_w, weight)
    assert_near(oracle.dense(mixed_y, 5) if form == "pair" else mixed_y, expected)


@every_path
def test_a_second_batch_of_every_kind_of_target(path):
    def stronger(y, plan):
        if tf.is_tensor(y):
            return tf.where(plan.lam < 0.5, tf.gather(y, plan.permutation), y)
        if isinstance(y, np.ndarray):
            return np.where(plan.lam < 0.5, y[plan.permutation], y)
        return keras.ops.where(plan.lam < 0.5, keras.ops.take(y, plan.permutation, 0), y)

    target = {"tags": "union", "id": "keep", "near": stronger, "value": "labels"}
    make = lambda seed: {
        "tags": data(8, (3,), seed).round(),
        "id": np.arange(8) + 8 * seed,
        "near": normal(8, seed=seed),
        "value": normal(8, seed=seed),
    }
    y, others = make(1), make(2)
    x, layer = data(8, (4,)), mixup(target=target)
    _, mixed = with_partner(path, layer, 1, (x, y), (x + 1, others))
    plan = layer.plan(1, 8)
    lam, of = plan.lam, lambda name: others[name][plan.permutation]
    assert_near(
        mixed,
        {
            "tags": np.maximum(y["tags"], of("tags")),
            "id": y["id"],
            "near": np.where(lam < 0.5, of("near"), y["near"]),
            "value": lam * y["value"] + (1 - lam) * of("value"),
        },
    )


@pytest.mark.parametrize("path", ["numpy", "native"])
def test_a_second_batch_of_a_mixer_from_outside_and_of_a_choice(path):
    x, others, y, other_y = data(8, (4, 4, 1)), 5 + data(8, (4, 4, 1), 1), one_hot(8), one_hot(8)[::-1].copy()
    rows = RowMix(1.0, seed=1)
    mixed, labels = with_partner(path, rows, 0, (x, y), (others, other_y))
    plan = rows.plan(0, 8, spatial_shape=(4, 4))
    kept = np.arange(4)[None, :, None, None] < plan.region.first[:, None, None, None]
    assert_near(mixed, np.where(kept, x, others[plan.permutation]))
    assert_near(labels, mixed_with(plan, y, other_y))
    choice, seen = kmix.RandomChoice([mixup(), cutmix()], seed=2), set()
    for step in range(8):
        mixed, labels = with_partner(path, choice, step, (x, y), (others, other_y))
        plan = choice.plan(step, 8, spatial_shape=(4, 4))
        assert_near((mixed, labels), (mixed_with(plan, x, others), mixed_with(plan, y, other_y)))
        seen.add(int(plan.choice))
    assert seen == {0, 1}


def test_a_second_batch_of_half_precision_and_masks():
    states, others = normal(8, 6, 4), normal(8, 6, 4, seed=1)
    mask, other_mask = (np.arange(6) < np.random.default_rng(i).integers(1, 6, (8, 1)) for i in (1, 2))
    layer = embedding(dtype="mixed_bfloat16")
    batch = ({"x": states, "mask": mask}, one_hot(8)), ({"x": others, "mask": other_mask}, one_hot(8))
    for path in ("numpy", "native"):
        mixed, _ = with_partner(path, layer, 0, *batch)
        plan = layer.plan(0, 8)
        assert str(mixed["x"].dtype) == "bfloat16"
        np.testing.assert_allclose(mixed["x"].astype("float64"), mixed_with(plan, states, others), atol=3e-2)
        np.testing.assert_array_equal(mixed["mask"], mask | other_mask[plan.permutation])


def test_masks_of_keras_come_from_the_second_batch():
    tokens, others = np.array([[4, 2, 0, 0], [1, 0, 0, 0]]), np.array([[1, 1, 1, 0], [1, 1, 1, 1]])
    embed = keras.layers.Embedding(9, 3, mask_zero=True)
    layer = embedding()
    mixed, _ = layer.at_step(0, (embed(tokens), native(one_hot(2))), partner=(embed(others), native(one_hot(2))))
    np.testing.assert_array_equal(
        to_numpy(masks_of(mixed)["0"]), (tokens > 0) | (others > 0)[layer.plan(0, 2).permutation]
    )


def test_the_gradient_flows_to_both_batches():
    layer = mixup()
    plan = layer.plan(0, 8)
    upstream = normal(8, 3, seed=2)
    y = native(one_hot(8))

    def loss(upstream, x):
        mixed, _ = layer.at_step(0, (x[:8], y), partner=(x[8:], y))
        return keras.ops.sum(mixed * upstream)

    ours = gradient(loss, native(upstream), normal(16, 3))
    np.testing.assert_allclose(ours[:8], plan.lam[:, None] * upstream, atol=1e-6)
    expected = np.zeros((8, 3))
    np.add.at(expected, plan.permutation, (1 - plan.lam[:, None]) * upstream)
    np.testing.assert_allclose(ours[8:], expected, atol=1e-6)


@pytest.mark.slow
def test_a_program_for_twice_the_batch_is_not_one_for_a_second_batch():
    x, y, layer = data(8, (4,)), one_hot(8), mixup()
    batch, halves = (x, y), ((x[:4], y[:4]), (x[4:], y[4:]))
    whole = tf.data.Dataset.from_tensors(batch).map(lambda *batch: layer.at_step(1, batch))
    split = tf.data.Dataset.from_tensors(halves).map(lambda batch, other: layer.at_step(1, batch, partner=other))
    assert_near(to_numpy(next(iter(whole))), layer.at_step(1, batch))
    assert_near(to_numpy(next(iter(split))), layer.at_step(1, halves[0], partner=halves[1]))


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="about the compiler of JAX")
def test_partners_inside_jit():
    import jax

    x, y = normal(8, 3), normal(8)
    layers = [
        mixup(pairing="similar_labels", include_clean=True),
        embedding(pairing=others(), lam_at_least_half=True),
    ]
    for layer in layers:
        expected = layer.at_step(3, (x, y))
        assert_near(jax.jit(lambda step, x, y, layer=layer: layer.at_step(step, (x, y)))(3, x, y), expected)
        assert_near(jax.jit(lambda step, layer=layer: layer.at_step(step, (x, y)))(3), expected)
    jitted = jax.jit(lambda step, *batch: mixup().at_step(step, batch, partner=(x + 1, y)))(3, x, y)
    assert_near(jitted, mixup().at_step(3, (x, y), partner=(x + 1, y)))


def test_second_batches_in_other_forms():
    x, y, layer = data(6, (4,)), one_hot(), mixup(target={"id": "keep", "labels": "labels"})
    plan = layer.plan(0, 6)
    batch = {"images": x, "labels": y, "id": np.arange(6)}
    mixed = layer.at_step(0, batch, partner={**batch, "images": x + 1})
    assert_near(mixed["images"], mixed_with(plan, x, x + 1))
    np.testing.assert_array_equal(mixed["id"], np.arange(6))
    assert_near(mixup().at_step(0, [x, y], partner=[x + 1, y]), (mixed["images"], mixed["labels"]))


BATCH = (data(6, (4,)), one_hot())
PARTNERS = {
    "another batch size": ((data(5, (4,)), one_hot(5)), r"\(5, 4\)"),
    "another shape": ((data(6, (5,)), one_hot()), r"\(6, 5\)"),
    "another rank": ((data(6, (4, 1)), one_hot()), r"\(6, 4, 1\)"),
    "another dtype": ((data(6, (4,)).astype("float16"), one_hot()), "float16"),
    "other labels": ((data(6, (4,)), one_hot(classes=4)), r"\(6, 4\)"),
    "weights": ((*BATCH, np.ones(6, "float32")), "sample weights"),
    "another structure": ((data(6, (4,)), {"a": one_hot()}), "other targets"),
    "other inputs": (({"a": data(6, (4,))}, one_hot()), "another structure"),
}


@pytest.mark.parametrize("name", PARTNERS)
def test_second_batches_that_differ_are_refused(name):
    partner, word = PARTNERS[name]
    expected = "must have the structure, dtypes, shapes and batch size"
    raises(lambda: mixup().at_step(0, BATCH, partner=partner), expected, word)
    raises(lambda: mixup().at_step(0, to_native(BATCH), partner=to_native(partner)), expected, word)


def test_second_batches_of_another_size_are_refused_when_a_graph_runs():
    layer = mixup()
    whole = lambda n: tf.data.Dataset.from_tensor_slices((data(12, (4,)), one_hot(12))).batch(n)
    mapped = tf.data.Dataset.zip(whole(4), whole(3)).map(lambda batch, other: layer.at_step(0, batch, partner=other))
    raises(lambda: next(iter(mapped)), "batch size")


def test_second_batches_that_a_layer_cannot_take():
    raises(lambda: mixup().at_step(0, BATCH, partner=data()), "labelled batch")
    raises(lambda: mixup(pairing=others()).at_step(0, BATCH, partner=BATCH), "allow_self=False", "leave out")
    similar = mixup(pairing="similar_labels")
    raises(lambda: similar.at_step(0, BATCH, partner=BATCH), "pairing='similar_labels'", "leave out")
    choice = kmix.RandomChoice([mixup(), mixup(pairing=others())])
    raises(lambda: choice.at_step(0, BATCH, partner=BATCH), "allow_self=False")


# Clean samples. `check_mixer` also compares them for every mixer and every kind of target.


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{}, {"target": LabelPairs(5)}, {"pairing": RandomPairs(allow_self=False), "dtype": "float16"}],
    ids=["plain", "pairs", "half precision"],
)
def test_clean_samples_in_tf_data(settings):
    x, y, w = data(8, (4, 4, 1)), ids(8, 5), data(8, (), 1)
    settings = {"target": Labels(5), "include_clean": True, **settings}
    for layer in (mixup(**settings), cutmix(target=Labels(5), include_clean=True)):
        expected = layer.at_step(1, (x, y, w))
        # Half precision: TensorFlow may round in between.
        assert_near(at_step("tfdata", layer, 1, (x, y, w)), expected, atol=2e-3 if "dtype" in settings else 1e-5)
        plan = layer.plan(1, 8, spatial_shape=(4, 4))
        assert plan.lam.shape == (8,)
        mixed_x, mixed_y, mixed_w = expected
        np.testing.assert_array_equal(mixed_x[:8], x.astype(mixed_x.dtype))
        np.testing.assert_array_equal(mixed_w[:8], w)
        dense = oracle.dense(mixed_y, 5) if layer.target == LabelPairs(5) else mixed_y
        np.testing.assert_array_equal(dense[:8], oracle.one_hot(y, 5))
        labels, weights = oracle.weighted(oracle.one_hot(y, 5), w, *plan[:2])
        assert_near((dense[8:], mixed_w[8:]), (labels, weights))
        mixed = oracle.mixup(x, *plan[:2]) if plan.box is None else oracle.cutmix(x, plan.box, plan.permutation)
        np.testing.assert_allclose(mixed_x[8:].astype("float64"), mixed, atol=2e-3 if "dtype" in settings else 1e-5)


@pytest.mark.slow
@pytest.mark.xla
@pytest.mark.parametrize("compiled", [False, True])
def test_static_shapes_in_tf_data(compiled):
    layers = [make(num_classes=5, include_clean=True) for make in (mixup, cutmix)]
    layer = kmix.RandomChoice(layers, seed=1, jit_compile=compiled)
    ds = tf.data.Dataset.from_tensor_slices({"images": data(12, (4, 4, 1)), "labels": ids(12, 5)})
    for drop, size in ((True, 8), (False, None)):
        spec = ds.batch(4, drop_remainder=drop).map(layer).element_spec
        assert spec["images"].shape.as_list()[1:] == [4, 4, 1]
        assert spec["labels"].shape.as_list()[1:] == [5]
        assert {leaf.shape[0] for leaf in spec.values()} <= {size, None}


@every_path
def test_what_is_kept_is_doubled(path):
    layer = mixup(target={"labels": Labels(3), "id": "keep", "names": "keep"}, include_clean=True)
    batch = {"images": data(), "labels": ids(), "id": np.arange(6), "names": {"a": np.arange(12).reshape(6, 2)}}
    mixed = at_step(path, layer, 0, batch)
    np.testing.assert_array_equal(mixed["id"], np.tile(np.arange(6), 2))
    np.testing.assert_array_equal(mixed["names"]["a"], np.tile(batch["names"]["a"], (2, 1)))
    assert len(mixed["labels"]) == 12
    np.testing.assert_array_equal(batch["id"], np.arange(6))


def test_what_cannot_be_doubled():
    layer = mixup(num_classes=3, include_clean=True, target={"id": "keep"})
    batch = {"images": data(), "labels": ids(), "id": 7}
    refused(layer, batch, "kept must be arrays with a batch axis", "'id'", every_way=False)


@every_path
def test_clean_samples_before_those_with_a_second_batch(path):
    x, others = data(8, (4, 4, 1)), 5 + data(8, (4, 4, 1), 1)
    layer = cutmix(target=Labels(class_weight={0: 2.0}), include_clean=True)
    mixed = with_partner(path, layer, 1, (x, one_hot(8)), (others, one_hot(8)[::-1].copy()))
    plan, y, other_y = layer.plan(1, 8, spatial_shape=(4, 4)), one_hot(8), one_hot(8)[::-1]
    w, other_w = 1 + y[:, 0], 1 + other_y[:, 0]
    weights = mixed_with(plan, w, other_w)
    assert_near(mixed[0], np.concatenate([x, mixed_with(plan, x, others)]))
    assert_near(mixed[2], np.concatenate([w, weights]))
    labels = mixed_with(plan, y * w[:, None], other_y * other_w[:, None]) / weights[:, None]
    assert_near(mixed[1], np.concatenate([y, labels]))


def test_clean_samples_of_a_choice():
    raises(lambda: kmix.RandomChoice([mixup(include_clean=True), cutmix()]), "agree on `include_clean`")
    layer = kmix.RandomChoice([mixup(include_clean=True), cutmix(include_clean=True)], seed=1)
    assert layer.include_clean
    copy = keras.layers.deserialize(json.loads(json.dumps(keras.layers.serialize(layer))))
    x = data(6, (4, 4, 1))
    assert_near(copy.at_step(0, (x, one_hot())), layer.at_step(0, (x, one_hot())))


def test_the_masks_of_keras_are_doubled():
    tokens = np.array([[4, 2, 0, 0], [1, 0, 0, 0]])
    layer = embedding(include_clean=True)
    mixed, _ = layer.at_step(0, (keras.layers.Embedding(9, 3, mask_zero=True)(tokens), native(one_hot(2))))
    mask = tokens > 0
    both = np.concatenate([mask, mask | mask[layer.plan(0, 2).permutation]])
    np.testing.assert_array_equal(to_numpy(masks_of(mixed)["0"]), both)


# All of it, each with each.

SETTINGS = [
    {"pairing": others()},
    {"lam_at_least_half": True, "include_clean": True},
    {"pairing": others(), "lam_at_least_half": True, "include_clean": True, "rate": 0.6},
    {"partner": True},
    {"partner": True, "include_clean": True, "lam_at_least_half": True},
]


@pytest.mark.fast("dense-float*", "pair-*")
@every_path
@pytest.mark.parametrize("dtype", ["float16", "mixed_bfloat16", "float32"])
@pytest.mark.parametrize("form", ["dense", "pair"])
def test_each_with_each(form, dtype, path):
    sides = [(side + data(12, (3, 2), side), ids(12, 5, side), data(12, (), 2 + side)) for side in (0, 1)]
    half = {"float16": 4e-3, "mixed_bfloat16": 3e-2, "float32": 1e-5}[dtype]
    for given in SETTINGS[2::2] if path == "tfdata" else SETTINGS:
        settings = {name: value for name, value in given.items() if name != "partner"}
        target = LabelPairs(5) if form == "pair" else Labels(5)
        layer = mixup(target=target, dtype=dtype, **settings)
        plan, second = layer.plan(3, 12), sides[1 if "partner" in given else 0]
        for weighted in (True,) if path == "tfdata" else (True, False):
            batch, other = (side if weighted else side[:2] for side in (sides[0], second))
            mix, given_batches = (with_partner, (batch, other)) if "partner" in given else (at_step, (batch,))
            mixed = mix(path, layer, 3, *given_batches)
            x, y, w = (*mixed, None)[:3]
            y = oracle.dense(y, 5) if form == "pair" else y
            expected = by_hand(plan, sides[0], second, weighted, "include_clean" in given)
            assert str(x.dtype) == ("bfloat16" if "bfloat16" in dtype else dtype)
            np.testing.assert_allclose(x.astype("float64"), expected[0], atol=half)
            np.testing.assert_allclose(y, expected[1], atol=1e-5)
            assert (w is None) == (not weighted)
            if weighted:
                np.testing.assert_allclose(w, expected[2], atol=1e-5)


def by_hand(plan, own, other, weighted, clean):
    """`own` mixed with samples of `other`, by the formulas, after `own` itself if `clean`."""
    (x, y, w), (other_x, other_y, other_w) = own, other
    y, other_y = (oracle.one_hot(each, 5) for each in (y, other_y))
    w, other_w = (each if weighted else np.ones(12) for each in (w, other_w))
    weight = mixed_with(plan, w, other_w)
    labels = mixed_with(plan, y * w[:, None], other_y * other_w[:, None]) / weight[:, None]
    mixed = mixed_with(plan, x, other_x), labels, weight
    return [np.concatenate([part, result]) if clean else result for part, result in zip((x, y, w), mixed, strict=True)]


def test_plan_takes_the_targets_of_a_dictionary_batch_with_several_inputs():
    labels = np.linspace(0, 1, 6, dtype="float32")
    layer = kmix.MixUp(0.4, pairing="similar_labels", inputs_key=("a", "b"), seed=3)
    alone = kmix.MixUp(0.4, pairing="similar_labels", seed=3).plan(1, 6, targets=labels)
    np.testing.assert_array_equal(layer.plan(1, 6, targets={"labels": labels}).permutation, alone.permutation)
    named = kmix.MixUp(0.4, pairing="similar_labels", target={"age": kmix.targets.Labels()}, seed=3)
    np.testing.assert_array_equal(named.plan(1, 6, targets={"age": labels}).permutation, alone.permutation)
