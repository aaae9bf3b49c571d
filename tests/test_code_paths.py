"""One plan, every code path, one result: NumPy, native tensors and tf.data against the NumPy oracle."""

import keras
import numpy as np
import pytest
from helpers import CODE_PATHS, at_step, at_steps, call, pipeline, tf, to_native, to_numpy
from oracle import crossentropy, cutmix, dense, kept_share, mixup, one_hot, softmax, weighted

import kmix
from kmix.targets import LabelPairs, Labels

pytestmark = pytest.mark.parametrize("path", CODE_PATHS)

CLASSES = 5
STEPS = (0, 7, 300)


def batch(shape=(9, 7, 6, 3), seed=0, dtype="float32"):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, shape).astype(dtype) if "int" in dtype else rng.normal(size=shape).astype(dtype)
    return x, rng.integers(0, CLASSES, shape[0])


def mixup_layer(**kwargs):
    return kmix.MixUp(0.7, **{"num_classes": CLASSES, "seed": 11, **kwargs})


def cutmix_layer(**kwargs):
    return kmix.CutMix(1.0, **{"num_classes": CLASSES, "seed": 12, "data_format": "channels_last", **kwargs})


@pytest.mark.parametrize("step", STEPS)
def test_mixup_is_the_formula(path, step):
    x, y = batch()
    layer = mixup_layer()
    plan = layer.plan(step, len(x))
    mixed_x, mixed_y = at_step(path, layer, step, (x, y))
    np.testing.assert_allclose(mixed_x, mixup(x, plan.lam, plan.permutation), atol=1e-5)
    np.testing.assert_allclose(mixed_y, mixup(one_hot(y, CLASSES), plan.lam, plan.permutation), atol=1e-5)
    # The labels must be those of this plan, not of 1 - lam or of unpermuted partners.
    assert plan.permutation.tolist() != list(range(len(x)))
    assert np.abs(plan.lam - 0.5).max() > 0.1


# Short lines are pasted sample by sample, and long ones line by line.
@pytest.mark.fast("*numpy", "*native", "7-spatial0-tfdata", "300-spatial1-tfdata")
@pytest.mark.parametrize("spatial", [(13, 6), (6, 13)])
@pytest.mark.parametrize("step", STEPS)
def test_cutmix_is_the_formula(path, step, spatial):
    x, y = batch((9, *spatial, 3))
    layer = cutmix_layer()
    plan = layer.plan(step, len(x), spatial_shape=spatial)
    mixed_x, mixed_y = at_step(path, layer, step, (x, y))
    np.testing.assert_array_equal(mixed_x, cutmix(x, plan.box, plan.permutation))
    share = kept_share(plan.box, spatial)
    np.testing.assert_allclose(plan.lam, share, atol=1e-6)
    np.testing.assert_allclose(mixed_y, mixup(one_hot(y, CLASSES), share, plan.permutation), atol=1e-5)


@pytest.mark.in_turn
@pytest.mark.fast("*spatial2-channels_last*")
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("spatial", [(11,), (7, 9), (64, 48), (5, 7, 6)])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mean_of_painted_images_is_the_mixed_label(path, kind, spatial, data_format):
    """Paint every image with its own one-hot label: the mean of the result is the mixed label."""
    size, classes = 6, 6
    y = np.eye(classes, dtype="float32")[np.arange(size)]
    ones = (1,) * len(spatial)
    if data_format == "channels_last":
        x, axes = np.tile(y.reshape(size, *ones, classes), (1, *spatial, 1)), tuple(range(1, len(spatial) + 1))
    else:
        x, axes = np.tile(y.reshape(size, classes, *ones), (1, 1, *spatial)), tuple(range(2, len(spatial) + 2))
    layer = kmix.MixUp(0.7, seed=3) if kind == "mixup" else kmix.CutMix(1.0, seed=3, data_format=data_format)
    kept = set()
    for mixed_x, mixed_y in at_steps(path, layer, 4, (x, y)):
        np.testing.assert_allclose(mixed_x.astype("float64").mean(axis=axes), mixed_y, atol=1e-5)
        kept |= set(mixed_y.max(axis=1).tolist())
    assert len(kept) > 3


@pytest.mark.parametrize("layer", [mixup_layer, cutmix_layer])
def test_weighted_pair_of_losses(path, layer):
    """The mixed batch has the loss of the weighted pairs, for any predictions."""
    rng = np.random.default_rng(1)
    (x, y), w = batch(), rng.uniform(0, 3, 9).astype("float32")
    w[2] = 0
    layer = layer()
    plan = layer.plan(3, 9, spatial_shape=(7, 6))
    _, mixed_y, mixed_w = at_step(path, layer, 3, (x, y, w))
    p = rng.dirichlet(np.ones(CLASSES), 9)
    pair = -(plan.lam * w * np.log(p[np.arange(9), y]))
    pair -= (1 - plan.lam) * w[plan.permutation] * np.log(p[np.arange(9), y[plan.permutation]])
    np.testing.assert_allclose(mixed_w * -np.sum(mixed_y * np.log(p), axis=1), pair, atol=1e-5)
    expected_y, expected_w = weighted(one_hot(y, CLASSES), w, plan.lam, plan.permutation)
    np.testing.assert_allclose(mixed_y, expected_y, atol=1e-5)
    np.testing.assert_allclose(mixed_w, expected_w, atol=1e-5)


@pytest.mark.fast("*numpy", "*native", "cutmix_layer-True-tfdata")
@pytest.mark.parametrize("with_weights", [False, True])
@pytest.mark.parametrize("layer", [mixup_layer, cutmix_layer])
def test_pairs_are_the_dense_labels(path, layer, with_weights):
    """The class of a sample, that of its partner, and the weight of the first, for the loss to read."""
    rng = np.random.default_rng(1)
    (x, y), w = batch(), rng.uniform(0, 3, 9).astype("float32")
    w[[2, 4]] = 0
    layer = kmix.RandomChoice([layer(target=LabelPairs(90), num_classes=None)], seed=1)
    plan = layer.plan(3, 9, spatial_shape=(7, 6))
    mixed = at_step(path, layer, 3, (x, y + 60, w) if with_weights else (x, y[:, None] + 60))
    assert mixed[1].shape == (9, 3)
    assert mixed[1].dtype == "float32"
    np.testing.assert_array_equal(mixed[1][:, 0], y + 60)
    np.testing.assert_array_equal(mixed[1][:, 1], np.where(plan.lam == 1, y, y[plan.permutation]) + 60)
    expected, weight = weighted(one_hot(y + 60, 90), w if with_weights else np.ones(9), plan.lam, plan.permutation)
    np.testing.assert_allclose(dense(mixed[1], 90), expected, atol=1e-5)
    if with_weights:
        np.testing.assert_allclose(mixed[2], weight, atol=1e-5)
    logits = rng.normal(size=(9, 90)).astype("float32")
    losses = kmix.losses.SoftLabelCrossentropy(from_logits=True, reduction=None)(mixed[1], logits)
    np.testing.assert_allclose(to_numpy(losses), crossentropy(expected, softmax(logits)), rtol=1e-4)


def test_pairs_that_are_off_are_the_class_alone(path):
    x, y = batch()
    w = np.ones(9, "float32")
    w[4], w[5] = 0, np.nan
    pairs = at_step(path, mixup_layer(target=LabelPairs(CLASSES), num_classes=None, rate=0.0), 0, (x, y, w))[1]
    np.testing.assert_array_equal(pairs, np.stack([y, y, np.ones(9)], axis=1))


def test_every_step_has_its_own_plan(path):
    """Includes steps 256 and 65536 apart, and beyond 2**31."""
    x, y = batch()
    steps = (0, 1, 2, 256, 512, 65536, 2**31 + 5, 2**31 + 6, 2**32 - 1)
    if path == "tfdata":
        mixed = tf.data.Dataset.from_tensor_slices(list(steps)).map(lambda step: mixup_layer().at_step(step, (x, y))[0])
        results = {to_numpy(x).tobytes() for x in mixed}
    else:
        results = {at_step(path, mixup_layer(), step, (x, y))[0].tobytes() for step in steps}
    assert len(results) == len(steps)


@pytest.mark.fast("numpy", "native")
def test_calls_count_their_steps(path):
    x, y = batch()
    layer, twin = mixup_layer(), mixup_layer()
    for step in range(3):
        np.testing.assert_allclose(call(path, layer, (x, y))[0], at_step(path, twin, step, (x, y))[0], atol=1e-6)


def test_alpha_takes_effect_on_the_next_batch(path):
    x, y = batch()
    layer = mixup_layer()
    if path == "tfdata":
        options = tf.data.Options()
        # tf.data may prefetch by itself: batches in the buffer keep their alpha.
        options.autotune.enabled = options.experimental_optimization.inject_prefetch = False
        batches = iter(pipeline(layer.at_step, [(x, y)] * 3).with_options(options))
        draw = lambda: to_numpy(next(batches))
    else:
        draw = lambda: at_step(path, layer, 0, (x, y))
    assert np.abs(draw()[0] - x).max() > 0.1
    layer.alpha = 0.0
    np.testing.assert_array_equal(draw()[0], x)
    layer.alpha = 1000.0
    mixed = draw()[1]
    assert ((mixed == 1) | (np.abs(mixed - 0.5) < 0.1) | (mixed == 0)).all()


@pytest.mark.fast("*numpy", "*native")
def test_seed_decides(path):
    x, y = batch()
    a, b = (at_step(path, mixup_layer(seed=seed), 0, (x, y))[0] for seed in (1, 2))
    assert np.abs(a - b).max() > 0.1
    np.testing.assert_array_equal(a, at_step(path, mixup_layer(seed=1), 0, (x, y))[0])


@pytest.mark.fast("*numpy", "*native")
@pytest.mark.parametrize("layer", [mixup_layer, cutmix_layer])
def test_per_batch_shares_one_lam(path, layer):
    y = np.eye(16, dtype="float32")
    x = np.tile(y[:, None, None, :], (1, 8, 8, 1))
    shared = at_step(path, layer(per="batch", num_classes=None), 2, (x, y))[1]
    weights = np.diag(shared)[np.diag(shared) < 1]
    assert np.ptp(weights) < 1e-6
    own = at_step(path, layer(per="sample", num_classes=None), 2, (x, y))[1]
    assert np.ptp(np.diag(own)) > 0.1


@pytest.mark.fast("*numpy", "*native")
@pytest.mark.parametrize("layer", [mixup_layer, cutmix_layer])
def test_rate_is_the_share_of_mixed_samples(path, layer):
    size = 400
    y = np.eye(size, dtype="float32")
    x = np.tile(y[:, None, None, :1], (1, 8, 8, 1))
    for rate in (0.0, 0.3, 1.0):
        mixed = at_step(path, layer(rate=rate, num_classes=None), 1, (x, y))[1]
        share = (np.diag(mixed) < 1).mean()
        # At rate 1, CutMix leaves samples whose box is smaller than a pixel, and MixUp samples paired with themselves.
        assert abs(share - rate) <= (0.0 if rate == 0 else 0.1)


@pytest.mark.fast("native")
def test_random_choice_takes_every_branch(path):
    x, y = batch((9, 8, 8, 3))
    choice = kmix.RandomChoice([mixup_layer(), cutmix_layer()], seed=4)
    taken = set()
    for step, (mixed_x, mixed_y) in enumerate(at_steps(path, choice, 8, (x, y))):
        plan = choice.plan(step, 9, spatial_shape=(8, 8))
        expected = mixup(x, plan.lam, plan.permutation) if plan.box is None else cutmix(x, plan.box, plan.permutation)
        np.testing.assert_allclose(mixed_x, expected, atol=1e-5)
        np.testing.assert_allclose(mixed_y, mixup(one_hot(y, CLASSES), plan.lam, plan.permutation), atol=1e-5)
        taken.add(int(plan.choice))
    assert taken == {0, 1}


@pytest.mark.fast("*numpy", "*native")
@pytest.mark.parametrize(
    ("policy", "dtype"),
    [
        ("float32", "float16"),
        ("float32", "bfloat16"),
        ("float32", "uint8"),
        ("mixed_float16", "float32"),
        ("mixed_float16", "uint8"),
        ("bfloat16", "float16"),
    ],
)
def test_dtypes(path, dtype, policy):
    """Inputs in the compute dtype; labels and lam in float32 under any policy."""
    import ml_dtypes

    x, y = batch((9, 8, 8, 3), dtype="uint8")
    x = x.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    layer = kmix.MixUp(0.7, num_classes=CLASSES, seed=1, dtype=policy)
    plan = layer.plan(1, 9)
    mixed_x, mixed_y = at_step(path, layer, 1, (x, y))
    assert str(mixed_x.dtype) == layer.compute_dtype
    assert mixed_y.dtype == "float32"
    tolerance = {"float32": 1e-4, "float16": 0.2, "bfloat16": 1.1}[layer.compute_dtype]
    np.testing.assert_allclose(mixed_x.astype("float64"), mixup(x, plan.lam, plan.permutation), atol=tolerance)
    np.testing.assert_allclose(mixed_y, mixup(one_hot(y, CLASSES), plan.lam, plan.permutation), atol=1e-5)
    cut = kmix.CutMix(num_classes=CLASSES, seed=1, dtype=policy, data_format="channels_last")
    mixed_x, mixed_y = at_step(path, cut, 1, (x, y))
    assert mixed_x.dtype == x.dtype
    assert mixed_y.dtype == "float32"
    assert np.isfinite(mixed_y).all()
    choice = kmix.RandomChoice([layer, cut], seed=1)
    kinds = {str(mixed_x.dtype) for mixed_x, _ in at_steps(path, choice, 6, (x, y))}
    assert kinds == {keras.backend.result_type(layer.compute_dtype, dtype)}


@pytest.mark.parametrize("size", [1, 2, 7])
def test_any_batch_size(path, size):
    x, y = batch((size, 4))
    plan = mixup_layer().plan(0, size)
    mixed_x, mixed_y = at_step(path, mixup_layer(), 0, (x, y))
    np.testing.assert_allclose(mixed_x, mixup(x, plan.lam, plan.permutation), atol=1e-5)
    assert mixed_y.shape == (size, CLASSES)
    if size == 1:
        np.testing.assert_allclose(mixed_x, x, rtol=1e-6)


@pytest.mark.fast("*numpy", "*native", "shape4-tfdata")
@pytest.mark.parametrize("shape", [(9,), (9, 4), (9, 16, 2), (9, 4, 4, 3), (9, 3, 4, 4, 2)])
def test_any_rank(path, shape):
    x, y = batch(shape)
    plan = mixup_layer().plan(5, 9)
    np.testing.assert_allclose(
        at_step(path, mixup_layer(), 5, (x, y))[0], mixup(x, plan.lam, plan.permutation), atol=1e-5
    )


def test_nested_inputs_and_labels_share_one_plan(path):
    image, y = batch()
    table = np.random.default_rng(2).normal(size=(9, 4)).astype("float32")
    targets = {"kind": y, "value": table[:, 0], "tags": (table > 0).astype("int32")}
    weights = {"kind": np.ones(9, "float32"), "value": np.arange(9.0), "tags": np.ones(9)}
    layer = mixup_layer(target={"kind": Labels(CLASSES), "value": "labels", "tags": "labels"}, num_classes=None)
    plan = layer.plan(2, 9)
    x, mixed, w = at_step(path, layer, 2, ({"image": image, "table": (table,)}, targets, weights))
    mix = lambda values: mixup(values, plan.lam, plan.permutation)
    np.testing.assert_allclose(x["image"], mix(image), atol=1e-5)
    np.testing.assert_allclose(x["table"][0], mix(table), atol=1e-5)
    np.testing.assert_allclose(mixed["kind"], mix(one_hot(y, CLASSES)), atol=1e-5)
    np.testing.assert_allclose(mixed["tags"], mix(table > 0), atol=1e-5)
    expected, weight = weighted(table[:, 0], weights["value"], plan.lam, plan.permutation)
    np.testing.assert_allclose(mixed["value"], expected, atol=1e-5)
    np.testing.assert_allclose(w["value"], weight, atol=1e-5)


@pytest.mark.fast("*numpy", "*native", "off0-tfdata")
@pytest.mark.parametrize("off", [{"alpha": 0.0}, {"rate": 0.0}])
def test_off_is_exactly_the_identity(path, off):
    """Even where 0 * partner is not 0."""
    x, y = batch()
    x[0, 0], x[1, 1], x[2, 2] = np.nan, np.inf, -np.inf
    w = np.random.default_rng(0).uniform(0, 1, 9).astype("float32")
    w[4] = 0
    for layer in (kmix.MixUp(**{"alpha": 1.0, **off}, num_classes=CLASSES), kmix.CutMix(**off, num_classes=CLASSES)):
        mixed_x, mixed_y, mixed_w = at_step(path, layer, 0, (x, y, w))
        np.testing.assert_array_equal(mixed_x, x)
        np.testing.assert_array_equal(mixed_y, one_hot(y, CLASSES))
        np.testing.assert_array_equal(mixed_w, w)


@pytest.mark.fast("*numpy", "*native")
def test_the_input_is_not_changed(path):
    x, y = batch((9, 8, 8, 3))
    w = np.ones(9, "float32")
    copies = x.copy(), y.copy(), w.copy()
    native = to_native((x, y, w)) if path == "native" else (x, y, w)
    for layer in (mixup_layer(), cutmix_layer()):
        layer.at_step(0, native) if path != "tfdata" else at_step(path, layer, 0, (x, y, w))
    for array, copy in zip(to_numpy(native), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_dictionaries(path):
    x, y = batch((9, 8, 8, 3))
    data = {"images": x, "labels": y, "sample_weight": np.arange(9.0, dtype="float32"), "id": np.arange(9)}
    layer = mixup_layer(target={"id": "keep"})
    mixed = at_step(path, layer, 1, data)
    expected = at_step(path, mixup_layer(), 1, (x, y, data["sample_weight"]))
    assert list(mixed) == list(data)
    for name, array in zip(("images", "labels", "sample_weight"), expected, strict=True):
        np.testing.assert_array_equal(mixed[name], array)
    np.testing.assert_array_equal(mixed["id"], data["id"])


@pytest.mark.fast("*numpy", "*native")
def test_schedule_as_alpha_follows_the_step(path):
    x, y = batch()
    schedule = kmix.schedules.Join([kmix.schedules.Linear(0.0, 1.0, 4), 0.7, 0.0], [4, 6])
    layer = kmix.MixUp(schedule, num_classes=CLASSES, seed=11)
    for step in (0, 2, 5, 6):
        fixed = mixup_layer()
        fixed.alpha = schedule(step)
        np.testing.assert_allclose(
            at_step(path, layer, step, (x, y))[0], at_step(path, fixed, step, (x, y))[0], atol=1e-4
        )
    np.testing.assert_array_equal(at_step(path, layer, 9, (x, y))[0], x)


def test_keras_schedule_as_alpha(path):
    x, y = batch()
    layer = kmix.MixUp(keras.optimizers.schedules.PolynomialDecay(0.7, 5, 0.0), num_classes=CLASSES, seed=11)
    first = at_step(path, layer, 0, (x, y))[0]
    np.testing.assert_allclose(first, at_step(path, mixup_layer(), 0, (x, y))[0], atol=1e-5)
    np.testing.assert_array_equal(at_step(path, layer, 5, (x, y))[0], x)


@pytest.mark.fast("*native", "*numpy", "16777217-tfdata")
@pytest.mark.parametrize("step", [3, 2**24 + 1, 2**31 + 3, 2**32 - 1])
def test_a_schedule_sees_the_exact_step(path, step):
    """Every odd step mixes as the first does; a ramp that has ended stays where it is."""
    x, y = batch()
    odd = kmix.MixUp(lambda step: 0.7 * (step % 2), num_classes=CLASSES, seed=11)
    ramp = kmix.MixUp(kmix.schedules.Linear(0.0, 0.7, 3), num_classes=CLASSES, seed=11)
    expected = mixup_layer().at_step(step, (x, y))
    for layer in (odd, ramp):
        for ours, other in zip(at_step(path, layer, step, (x, y)), expected, strict=True):
            np.testing.assert_allclose(ours, other, atol=1e-4)
    np.testing.assert_array_equal(at_step(path, odd, step - 1, (x, y))[0], x)


@pytest.mark.fast("*numpy", "*native")
def test_pieces_and_functions_as_alpha(path):
    """A Keras schedule inside a Join, and plain arithmetic on the step."""
    x, y = batch()
    decay = keras.optimizers.schedules.PolynomialDecay(0.7, 4, 0.0)
    layer = kmix.MixUp(kmix.schedules.Join([decay, 0.0], [4]), num_classes=CLASSES, seed=11)
    first = at_step(path, mixup_layer(), 0, (x, y))[0]
    np.testing.assert_allclose(at_step(path, layer, 0, (x, y))[0], first, atol=1e-5)
    np.testing.assert_array_equal(at_step(path, layer, 6, (x, y))[0], x)
    layer = kmix.MixUp(lambda step: 0.7 - 0.1 * step, num_classes=CLASSES, seed=11)
    np.testing.assert_allclose(at_step(path, layer, 0, (x, y))[0], first, atol=1e-5)


def test_loss_settings_matter(path):
    """`label_smoothing` and `multi_label`, with NumPy and with native labels."""
    y, p = np.array([[0.7, 0.3, 0.0]], "float32"), np.array([[0.5, 0.3, 0.2]], "float32")
    if path == "tfdata":
        y, p = tf.constant(y), tf.constant(p)
    elif path == "native":
        y, p = to_native((y, p))
    if path == "tfdata" and keras.backend.backend() != "tensorflow":
        y, p = to_numpy((y, p))
    value = lambda **kwargs: float(kmix.losses.SoftLabelCrossentropy(**kwargs)(y, p))
    log = np.log([0.5, 0.3, 0.2])
    np.testing.assert_allclose(value(), -(0.7 * log[0] + 0.3 * log[1]), rtol=1e-5)
    smooth = 0.9 * np.array([0.7, 0.3, 0.0]) + 0.1 / 3
    np.testing.assert_allclose(value(label_smoothing=0.1), -(smooth * log).sum(), rtol=1e-5)
    no = np.log([0.5, 0.7, 0.8])
    binary = -np.mean([0.7, 0.3, 0.0] * log + [0.3, 0.7, 1.0] * no)
    np.testing.assert_allclose(value(multi_label=True), binary, rtol=1e-5)
