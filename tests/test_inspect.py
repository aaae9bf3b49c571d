"""`kmix.diagnostics.inspect`: its figures against NumPy, each warning from its fault, and none without one."""

import hashlib
import itertools
import re

import keras
import numpy as np
import pytest
from helpers import tf
from scipy import stats

import kmix
from kmix.diagnostics import inspect
from kmix.diagnostics.plan_replay import BatchPlan, p_value_of_lam
from kmix.pairing import RandomPairs
from kmix.targets import BoundingBoxes, LabelPairs

CLASSES = 10


def batches(count=12, size=32, seed=0, classes=CLASSES, shape=(8, 8, 1)):
    generator = np.random.default_rng(seed)
    return [
        (generator.random((size, *shape), dtype="float32"), generator.integers(0, classes, size)) for _ in range(count)
    ]


class Epochs:
    """Batches that a function makes from data, anew in every epoch."""

    def __init__(self, function, data):
        self.function, self.data, self.number = function, data, 0

    def __iter__(self):
        for batch in self.data:
            yield self.function(self.number, batch)
            self.number += 1


def mixup(alpha=1.0, **settings):
    return kmix.MixUp(alpha, seed=1, **({} if "target" in settings else {"num_classes": CLASSES}), **settings)


def numbered(layer, data):
    return Epochs(layer.at_step, data)


# The figures.


def test_the_figures_of_labels():
    data = batches(20)
    layer = mixup(0.7)
    found = inspect(numbered(layer, data)).to_dict()
    labels = np.concatenate([layer.at_step(step, batch)[1] for step, batch in enumerate(data)]).astype("float64")
    positive = np.where(labels > 0, labels, 1.0)
    assert found["samples"] == 640
    np.testing.assert_allclose(found["lam_mean"], labels.max(axis=1).mean(), atol=1e-6)
    np.testing.assert_allclose(found["mixed_share"], np.mean((labels > 1e-5).sum(axis=1) > 1), atol=1e-6)
    np.testing.assert_allclose(found["label_entropy"], -(labels * np.log(positive)).sum(axis=1).mean(), atol=1e-6)
    np.testing.assert_allclose(found["label_mass"], labels.sum(axis=1).mean(), atol=1e-6)
    assert found["self_pair_share"] is None
    assert found["samples_per_second"] > 0
    assert found["warnings"] == []


@pytest.mark.parametrize("layer", [mixup(0.7), kmix.CutMix(num_classes=CLASSES, seed=1, data_format="channels_last")])
def test_the_figures_of_plans(layer):
    data = batches(20)
    found = inspect(data, mixer=layer).to_dict()
    plans = [layer.plan(step, 32, spatial_shape=(8, 8)) for step in range(20)]
    lam = np.concatenate([plan.lam for plan in plans]).astype("float64")
    own = np.concatenate([plan.permutation == np.arange(32) for plan in plans]) & (lam < 1)
    np.testing.assert_allclose(found["lam_mean"], lam.mean(), atol=1e-6)
    np.testing.assert_allclose(found["mixed_share"], np.mean(lam < 1), atol=1e-6)
    np.testing.assert_allclose(found["self_pair_share"], own.mean(), atol=1e-6)
    labels = np.concatenate([layer.at_step(step, batch)[1] for step, batch in enumerate(data)]).astype("float64")
    np.testing.assert_allclose(found["label_mass"], labels.sum(axis=1).mean(), atol=1e-6)
    assert found["warnings"] == []
    # Nothing was counted.
    assert layer.plan(0, 4, spatial_shape=(8, 8)).lam.tolist() == plans[0].lam[:4].tolist() or layer.name.startswith(
        "cut"
    )


def test_labels_that_are_smoothed_or_pairs_show_the_same_shares():
    data, layer = batches(8), mixup(1.0)
    plain = inspect(numbered(layer, data)).to_dict()
    smoothed = inspect(
        Epochs(lambda step, batch: (batch[0], 0.9 * layer.at_step(step, batch)[1] + 0.01), data)
    ).to_dict()
    assert smoothed["warnings"] == []
    np.testing.assert_allclose(
        [smoothed[name] for name in ("mixed_share", "lam_mean")],
        [plain[name] for name in ("mixed_share", "lam_mean")],
        atol=1e-5,
    )
    pairs = inspect(numbered(mixup(1.0, target=LabelPairs(CLASSES)), data)).to_dict()
    np.testing.assert_allclose(pairs["mixed_share"], plain["mixed_share"], atol=1e-6)
    np.testing.assert_allclose(pairs["label_entropy"], plain["label_entropy"], atol=1e-6)


@pytest.mark.parametrize("alpha", [0.05, 0.4, 1.0, 8.0])
def test_lam_is_tested_against_its_distribution(alpha):
    generator = np.random.default_rng(0)
    values = [p_value_of_lam([BatchPlan(generator.beta(alpha, alpha, 500), None, alpha, 0.0)]) for _ in range(40)]
    # Uniform p-values, where the distribution is right.
    assert stats.kstest(values, "uniform").pvalue > 1e-3
    assert p_value_of_lam([BatchPlan(generator.beta(9 * alpha, 9 * alpha, 4000), None, alpha, 0.0)]) < 1e-3
    folded = np.maximum(lam := generator.beta(alpha, alpha, 500), 1 - lam)
    assert p_value_of_lam([BatchPlan(folded, None, alpha, 0.5)]) > 1e-4


def test_the_whole_distribution_is_that_of_scipy():
    lam = np.random.default_rng(0).uniform(0.01, 0.99, 100)
    inside = (lam - 1e-3) / (1 - 2e-3)
    np.testing.assert_allclose(
        p_value_of_lam([BatchPlan(lam, None, 1.0, 0.0)]), stats.kstest(inside, "uniform").pvalue, atol=1e-9
    )


def test_a_trainer_shows_its_next_steps():
    data = batches(6)
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(CLASSES, activation="softmax")]
    )
    trainer = kmix.MixTrainer(model, kmix.MixUp(0.3), seed=4)
    trainer.step.assign(7)
    found = inspect(data, mixer=trainer).to_dict()
    lam = np.concatenate([trainer.plan(7 + step, 32).lam for step in range(6)])
    np.testing.assert_allclose(found["lam_mean"], lam.mean(), atol=1e-6)
    assert found["warnings"] == []
    assert int(trainer.step) == 7


def test_a_trainer_that_mixes_hidden_states_or_keeps_clean_samples():
    data = batches(6)
    layers = [
        keras.layers.Flatten(),
        keras.layers.Dense(12, name="hidden"),
        keras.layers.Dense(CLASSES, activation="softmax"),
    ]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
    trainer = kmix.MixTrainer(model, kmix.EmbeddingMixup(1.0), places=["hidden"], seed=4)
    report = inspect(data, mixer=trainer)
    assert report.to_dict()["mixed_share"] == 1.0
    assert report.warnings == []
    found = inspect(data, mixer=mixup(1.0, include_clean=True)).to_dict()
    assert found["samples"] == 2 * 6 * 32
    np.testing.assert_allclose(found["mixed_share"], 0.5, atol=0.01)


# What labels can show.


def row(report, measure):
    """The value that a report prints for a measure."""
    return dict(report.report().rows)[measure]


def tagged(seed=0):
    generator = np.random.default_rng(seed)
    return [(x, (generator.random((len(x), 7)) < 0.3).astype("float32")) for x, _ in batches()]


@pytest.mark.parametrize("target", ["union", "keep"])
def test_labels_that_show_no_mixing(target):
    layer = kmix.MixUp(1.0, target=target, seed=1)
    report = inspect(numbered(layer, tagged()))
    assert report.warnings == []
    assert report.to_dict()["mixed_share"] is report.to_dict()["lam_mean"] is report.lam is None
    assert row(report, "mixed") == "not shown"
    assert "do not show how they were mixed" in str(report)
    assert inspect(tagged(), mixer=layer).to_dict()["mixed_share"] == 1.0


def test_tags_that_are_blended_show_lam():
    layer = kmix.MixUp(1.0, seed=1)
    report = inspect(numbered(layer, tagged()))
    labels = np.concatenate([layer.at_step(step, batch)[1] for step, batch in enumerate(tagged())])
    inside = (labels > 1e-5) & (labels < 1 - 1e-5)
    lam = np.concatenate([layer.plan(step, 32).lam for step in range(12)])
    larger = np.where(inside.any(axis=1), np.maximum(lam, 1 - lam), 1.0)
    np.testing.assert_allclose(report.lam, larger, atol=1e-5)
    np.testing.assert_allclose(report.to_dict()["mixed_share"], inside.any(axis=1).mean())


def test_one_column_of_two_classes_shows_lam():
    data = [(x, (y > 4).astype("float32")) for x, y in batches()]
    layer = kmix.MixUp(1.0, seed=1)
    report = inspect(numbered(layer, data))
    y = np.concatenate([layer.at_step(step, batch)[1] for step, batch in enumerate(data)]).astype("float64")
    assert report.warnings == []
    np.testing.assert_allclose(report.to_dict()["lam_mean"], np.maximum(y, 1 - y).mean(), atol=1e-6)
    np.testing.assert_allclose(report.to_dict()["mixed_share"], np.mean((y > 0) & (y < 1)))
    entropy = -np.mean([p * np.log(p) + (1 - p) * np.log(1 - p) if 0 < p < 1 else 0.0 for p in y])
    np.testing.assert_allclose(report.to_dict()["label_entropy"], entropy, atol=1e-6)
    assert "no label is mixed" in inspect(data).warnings[0]
    # Values to regress that lie in [0, 1].
    numbers = [(x, np.random.default_rng(0).random(len(x)).astype("float32")) for x, _ in batches()]
    report = inspect(numbered(layer, numbers))
    assert report.warnings == []
    assert report.to_dict()["mixed_share"] is None


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_two_classes_in_two_columns_show_lam(smoothing):
    layer = kmix.MixUp(1.0, num_classes=2, seed=1)
    data = [(x, y % 2) for x, y in batches()]
    plain = inspect(numbered(layer, data)).to_dict()
    smooth = Epochs(
        lambda step, batch: (batch[0], (1 - smoothing) * layer.at_step(step, batch)[1] + smoothing / 2), data
    )
    found = inspect(smooth).to_dict()
    assert found["warnings"] == []
    assert 0.3 < found["mixed_share"] < 0.7
    np.testing.assert_allclose(
        [found["mixed_share"], found["lam_mean"]], [plain["mixed_share"], plain["lam_mean"]], atol=1e-5
    )


def test_partners_of_one_class_do_not_show_mixing():
    report = inspect(numbered(mixup(), [(x, y % 3) for x, y in batches()]))
    assert 0.5 < report.to_dict()["mixed_share"] < 0.8
    assert row(report, "mixed").startswith("at least ")
    assert row(inspect(batches(), mixer=mixup()), "mixed") == "100.0%"


def test_boxes_alone():
    boxes = {"boxes": np.ones((4, 2, 4), "float32"), "labels": np.ones((4, 2), "float32")}
    data = [{"images": np.ones((4, 8, 8, 3), "float32"), "bounding_boxes": boxes}] * 3
    report = inspect(data)
    assert report.warnings == []
    assert report.to_dict()["samples"] == 12
    assert row(report, "mixed") == row(report, "label entropy (nats)") == "not shown"
    assert len(report.plot().axes) == 2
    layer = kmix.CutMix(1.0, target={"bounding_boxes": BoundingBoxes("xyxy")}, data_format="channels_last", seed=1)
    assert inspect(data, mixer=layer).to_dict()["mixed_share"] > 0.5


@pytest.mark.parametrize("key", ["image", ("left", "right")])
def test_the_inputs_have_the_key_of_the_layer(key):
    keys = key if isinstance(key, tuple) else (key,)
    data = [{**dict.fromkeys(keys, x), "labels": y} for x, y in batches()]
    layer = mixup(1.0, inputs_key=key)
    assert inspect(data, mixer=layer).to_dict() | {"samples_per_second": None} == inspect(
        batches(), mixer=mixup(1.0)
    ).to_dict() | {"samples_per_second": None}
    # Without the layer, nothing tells the key.
    with pytest.raises(ValueError, match="a dictionary with 'images'"):
        inspect(data)


def test_single_samples_are_refused():
    with pytest.raises(ValueError, match="single samples"):
        inspect(zip(*batches(1)[0], strict=True))


# Data without a fault.


def clean(seed):
    """Mixed data of some kind, from numbers of steps that go on."""
    generator = np.random.default_rng(seed)
    size, alpha = int(generator.choice([4, 8, 32, 64])), float(generator.choice([0.05, 0.2, 1.0, 8.0]))
    rate, per = float(generator.choice([1.0, 0.5])), str(generator.choice(["sample", "batch"]))
    common = {"seed": seed, "rate": rate, "per": per}
    where = {"data_format": "channels_last"}
    data = batches(12, size, seed)
    x = [batch[0] for batch in data]

    def both(y):
        return list(zip(x, y, strict=True))

    binary = [(y > 6).astype("float32") for _, y in data]
    two = [(y > 6).astype(int) for _, y in data]
    tags = [(generator.random((size, 7)) < 0.3).astype("int32") for _ in data]
    soft = [generator.dirichlet(np.ones(5), size).astype("float32") for _ in data]
    numbers = [generator.normal(20, 9, size).astype("float32") for _ in data]
    masks = [generator.integers(0, 4, (size, 8, 8)).astype("uint8") for _ in data]
    weights = [generator.choice([1.0, 5.0], size).astype("float32") for _ in data]
    corners = np.tile(np.array([1, 1, 6, 6], "float32"), (size, 3, 1))
    boxes = [{"boxes": corners, "labels": generator.integers(-1, 3, (size, 3)).astype("float32")} for _ in data]
    mix, cut = (
        kmix.MixUp(alpha, num_classes=CLASSES, **common),
        kmix.CutMix(alpha, num_classes=CLASSES, **common, **where),
    )
    ways = [
        lambda: numbered(mix, data),
        lambda: numbered(cut, data),
        lambda: numbered(kmix.RandomChoice([mix, cut], seed=seed), data),
        lambda: numbered(kmix.Mosaic(num_classes=CLASSES, seed=seed, **where), data),
        lambda: numbered(kmix.MixUp(alpha, target=LabelPairs(CLASSES), **common), data),
        lambda: numbered(kmix.MixUp(alpha, target="union", **common), both(tags)),
        lambda: numbered(kmix.MixUp(alpha, **common), both(tags)),
        lambda: numbered(kmix.MixUp(alpha, **common), both(soft)),
        lambda: numbered(kmix.MixUp(alpha, **common), both(numbers)),
        lambda: numbered(kmix.CutMix(alpha, target="segmentation_masks", **common, **where), both(masks)),
        lambda: numbered(mix, [(*batch, weight) for batch, weight in zip(data, weights, strict=True)]),
        lambda: numbered(
            kmix.CutMix(
                alpha, num_classes=CLASSES, target={"bounding_boxes": BoundingBoxes("xyxy")}, **common, **where
            ),
            [
                {"images": a, "labels": b, "bounding_boxes": c, "segmentation_masks": d}
                for (a, b), c, d in zip(data, boxes, masks, strict=True)
            ],
        ),
        lambda: numbered(kmix.MixUp(alpha, **common), both(binary)),
        lambda: numbered(kmix.MixUp(alpha, num_classes=2, **common), both(two)),
        lambda: numbered(kmix.MixUp(alpha, target="keep", **common), both(tags)),
        lambda: numbered(
            kmix.CutMix(alpha, target={"bounding_boxes": BoundingBoxes("xyxy")}, **common, **where),
            [{"images": image, "bounding_boxes": box} for image, box in zip(x, boxes, strict=True)],
        ),
    ]
    return ways[seed % len(ways)]()


@pytest.mark.alike
@pytest.mark.parametrize("seed", range(112))
def test_nothing_is_said_of_data_without_a_fault(seed):
    assert inspect(clean(seed)).warnings == []


@pytest.mark.fast("{}-0.4")
@pytest.mark.alike
@pytest.mark.parametrize("alpha", [0.05, 0.4, 8.0])
@pytest.mark.parametrize(
    "settings",
    [{}, {"per": "batch"}, {"rate": 0.5}, {"lam_at_least_half": True}, {"pairing": RandomPairs(allow_self=False)}],
    ids=str,
)
def test_nothing_is_said_of_layers_without_a_fault(alpha, settings):
    for seed in range(5):
        layer = kmix.MixUp(alpha, num_classes=CLASSES, seed=seed, **settings)
        report = inspect(batches(30), mixer=layer)
        assert report.warnings == []
        assert report.to_dict()["self_pair_share"] < (0.01 if "pairing" in settings else 0.1)


# Faults.


def keras_like(alpha):
    """Labels as `keras.layers.MixUp` mixes ids of shape (B,) on JAX: broadcast to (B, B)."""

    def mix(step, batch):
        x, y = batch
        generator = np.random.default_rng(step)
        lam, partner = generator.beta(alpha, alpha, len(x)), generator.permutation(len(x))
        return x, lam[:, None] * y + (1 - lam)[:, None] * y[partner]

    return mix


def interpolated_ids(step, batch):
    x, y = batch
    generator = np.random.default_rng(step)
    lam, partner = generator.beta(0.2, 0.2, len(x)), generator.permutation(len(x))
    return x, (lam * y + (1 - lam) * y[partner]).astype("float32")


def with_labels(change):
    layer = mixup(1.0)

    def mix(step, batch):
        x, y = layer.at_step(step, batch)[:2]
        return change(step, x, y)

    return Epochs(mix, batches(20))


def scaled(step, x, y):
    y = y.copy()
    y[::8] *= 0.9
    return x, y


def halved(step, x, y):
    return x, y / 2


def halves(step, x, y):
    """A fifth of the samples with lam of 0.5."""
    one_hot = np.eye(CLASSES, dtype="float32")[np.random.default_rng(step).integers(0, CLASSES, (2, len(x)))]
    y[::5] = one_hot.mean(axis=0)[::5]
    return x, y


def only_halves(step, x, y):
    return x, np.eye(CLASSES)[np.random.default_rng(step).integers(0, CLASSES, (2, len(x)))].mean(axis=0)


def multi_task(step, x, y):
    return x, {"mixed": y, "forgotten": np.eye(3, dtype="float32")[np.arange(len(x)) % 3]}


def unmixed_weights(step, x, y):
    return x, y, np.where(np.random.default_rng(step).random(len(x)) < 0.3, 5.0, 1.0).astype("float32")


def blended_masks(step, x, y):
    masks = np.random.default_rng(step).uniform(0, 4, (len(x), 8, 8, 1)).astype("float32")
    return {"images": x, "labels": y, "segmentation_masks": masks}


def torn_boxes(step, x, y):
    boxes = {"boxes": np.zeros((len(x), 6, 4), "float32"), "labels": np.zeros((2 * len(x), 3), "float32")}
    return {"images": x, "labels": y, "bounding_boxes": boxes}


def nan(step, x, y):
    x = x.copy()
    x[0, 0, 0, 0] = np.nan
    return x, y


FAULTS = {
    "class ids are interpolated": (lambda: Epochs(interpolated_ids, batches()), "if they were class ids"),
    "ids are broadcast": (lambda: Epochs(keras_like(0.4), batches()), r"are \(B, B\)"),
    "nothing is mixed": (lambda: batches(), "class ids, so they are not mixed"),
    "alpha is 0": (lambda: numbered(mixup(0.0), batches()), "no label is mixed"),
    "lam is always 0.5": (lambda: with_labels(only_halves), "exactly 0.5 in 100 %"),
    "lam is often 0.5": (lambda: with_labels(halves), r"exactly 0\.5 in \d\d %"),
    "rows that do not sum to 1": (lambda: with_labels(scaled), "labels of 12 % of the rows do not sum to 1"),
    "all rows sum to a half": (lambda: with_labels(halved), "100 % of the rows do not sum to 1, but to 0.5"),
    "a target is not mixed": (lambda: with_labels(multi_task), '"forgotten" are not mixed'),
    "weights are not mixed": (lambda: with_labels(unmixed_weights), "sample weights are not mixed"),
    "masks are blended": (lambda: with_labels(blended_masks), "between class ids"),
    "boxes lose their labels": (lambda: with_labels(torn_boxes), "no longer match"),
    "values that are not finite": (lambda: with_labels(nan), "NaN"),
    "each epoch begins at 0": (
        lambda: [mixup().at_step(step, batch) for step, batch in enumerate(batches())],
        "batches 0 to 11 of the second epoch repeat those of the first: number them on with kmix.data.Numbering",
    ),
    "each epoch begins at 0, in another order": (
        lambda: (
            tf.data.Dataset.from_tensor_slices(tuple(np.concatenate(part) for part in zip(*batches(), strict=True)))
            .shuffle(400)
            .batch(32)
            .enumerate()
            .map(mixup().at_step)
        ),
        "batches 0 to 11 of the second epoch repeat",
    ),
    "each batch has one number": (
        lambda: Epochs(lambda step, batch: mixup().at_step(3, batch), batches()),
        "11 of 12 batches repeat the plan",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named(name):
    data, match = FAULTS[name]
    warnings = inspect(data()).warnings
    assert len(warnings) == 1, warnings
    (warning,) = warnings
    assert re.search(match, warning)


def test_faults_that_only_plans_show():
    (warning,) = inspect(batches(), mixer=mixup(0.0)).warnings
    assert warning.startswith("lam is 1 throughout: alpha is 0")
    singles = inspect(batches(4, size=1), mixer=mixup()).warnings
    assert any("its own partner" in warning for warning in singles)

    class Skewed(kmix.MixUp):
        def plan(self, *args, **kwargs):
            plan = super().plan(*args, **kwargs)
            return plan._replace(lam=plan.lam**2)

    assert (
        "does not follow its Beta distribution" in inspect(batches(20), mixer=Skewed(1.0, num_classes=10)).warnings[0]
    )


def test_inputs_beyond_the_range_of_the_data():
    class Louder(kmix.MixUp):
        def at_step(self, *args, **kwargs):
            x, y = super().at_step(*args, **kwargs)
            return 3 * x, y

    (warning,) = inspect(batches(), mixer=Louder(1.0, num_classes=10)).warnings
    assert "beyond the [" in warning


def test_repeats_are_counted():
    data = [mixup().at_step(step, batch) for step, batch in enumerate(batches(6))]
    assert inspect(data).to_dict()["repeated_batches"] == 6
    assert inspect(iter(data)).to_dict()["repeated_batches"] == 0
    assert inspect(data, batches=4).to_dict()["samples"] == 4 * 32
    digests = {hashlib.md5(batch[0].tobytes()).hexdigest() for batch in data}
    assert len(digests) == 6


class Endless:
    """Batches by number that never end, of a length that is not known."""

    def __iter__(self):
        data = batches()
        return (mixup().at_step(step, data[step % 12]) for step in itertools.count())


def test_data_without_end_has_no_second_epoch():
    assert inspect(Endless(), batches=20).warnings == []
    assert inspect(iter(Endless()), batches=20).warnings == []


def test_an_endless_data_set_has_no_second_epoch():
    ds = tf.data.Dataset.from_tensor_slices(tuple(np.concatenate(part) for part in zip(*batches(), strict=True)))
    endless = ds.shuffle(400).repeat().batch(32).enumerate().map(mixup().at_step)
    report = inspect(endless, batches=10)
    assert report.warnings == []
    assert report.to_dict()["samples"] == 320


def test_samples_without_a_partner_are_counted():
    rng = np.random.default_rng(0)
    batches = [(rng.normal(size=(32, 4)).astype("float32"), rng.permutation(200)[:32]) for _ in range(4)]
    for _, y in batches:
        y[:4] = y[0]
    for settings in ({}, {"include_clean": True}):
        layer = kmix.MixUp(1.0, num_classes=200, pairing="same_labels", seed=1, **settings)
        report = inspect(batches, mixer=layer)
        share = np.mean([np.mean([(y == i).sum() == 1 for i in y]) for _, y in batches]) / (1 + len(settings))
        np.testing.assert_allclose(report.to_dict()["no_candidate_share"], share)
        assert "no candidate" in str(report)
        assert any("no partner by the rule" in warning for warning in report.warnings) == (share > 0.5)
    layers = [kmix.MixUp(1.0, num_classes=200, seed=1, pairing=rule) for rule in ("same_labels", "random")]
    mixed = inspect(batches, mixer=kmix.RandomChoice(layers, seed=4)).to_dict()
    assert 0 < mixed["no_candidate_share"] < share * 2
    assert inspect(batches, mixer=layers[1]).to_dict()["no_candidate_share"] is None


# The form of the report.


def test_the_report_prints_and_draws():
    report = inspect(batches(), mixer=mixup(0.4))
    text = str(report)
    for part in ("384 in 12 batches", "mean lam", "Nothing looks wrong.", "p = "):
        assert part in text
    assert set(report.to_dict()) == {
        "samples",
        "mixed_share",
        "lam_mean",
        "label_entropy",
        "label_mass",
        "self_pair_share",
        "no_candidate_share",
        "repeated_batches",
        "samples_per_second",
        "warnings",
    }
    figure = report.plot()
    left, right = figure.axes
    # A density over [0, 1], and the one it should be.
    np.testing.assert_allclose(sum(bar.get_height() * bar.get_width() for bar in left.patches), 1.0, atol=1e-6)
    (line,) = left.lines
    np.testing.assert_allclose(line.get_ydata(), stats.beta.pdf(line.get_xdata(), 0.4, 0.4))
    assert sum(bar.get_height() for bar in right.patches) == 384
    assert "<td>mixed</td>" in report._repr_html_()
    warned = inspect(batches())
    assert "Warning: the labels are class ids" in str(warned)
    assert len(warned.plot().axes) == 2


@pytest.mark.slow
def test_a_loader_of_pytorch_and_a_pydataset():
    class Data(keras.utils.PyDataset):
        def __len__(self):
            return 12

        def __getitem__(self, index):
            return DATA[index]

    layer, DATA = mixup(), batches()
    assert "class ids" in inspect(Data()).warnings[0]
    assert inspect(kmix.data.Numbering()(Data()).map(layer.at_step)).warnings == []
    torch = pytest.importorskip("torch")
    pairs = torch.utils.data.TensorDataset(*(torch.as_tensor(np.concatenate(part)) for part in zip(*DATA, strict=True)))
    loader = torch.utils.data.DataLoader(pairs, batch_size=32)
    assert inspect(loader, mixer=layer).warnings == []
    counted = Epochs(layer.at_step, loader)
    assert inspect(counted).to_dict()["mixed_share"] > 0.8


@pytest.mark.parametrize(
    ("arguments", "settings", "error", "match"),
    [
        (([],), {}, ValueError, "a batch to look at"),
        (([np.ones((4, 2))],), {}, ValueError, "labelled batches"),
        (([{"images": np.ones((4, 2))}],), {}, ValueError, "labelled batches"),
        ((mixup(),), {}, TypeError, r"inspect\(data, mixer=layer\)"),
        ((3,), {}, TypeError, "iterable"),
        ((batches(2),), {"mixer": 0.2}, TypeError, "mixing layer or a MixTrainer"),
        ((batches(2),), {"batches": 0}, ValueError, "batches"),
    ],
)
def test_wrong_arguments(arguments, settings, error, match):
    with pytest.raises(error, match=match):
        inspect(*arguments, **settings)
