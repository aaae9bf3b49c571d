"""`mix_losses=True`: the pair of losses, sample by sample, for any loss; against NumPy and against mixed labels."""

import json

import keras
import numpy as np
import pytest
from helpers import to_numpy
from oracle import softmax

import kmix

N, CLASSES, FEATURES = 12, 4, 5
GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(N, FEATURES)).astype("float32")
IDS = np.arange(N) % CLASSES
BINARY = (np.arange(N) % 3 == 0).astype("float32")[:, None]
WEIGHTS = np.linspace(0.2, 2.0, N).astype("float32")
ops = keras.ops
# Compiling with XLA would take half of the time of these tests; other files test it.
PLAIN = {"jit_compile": False} if keras.backend.backend() == "tensorflow" else {}


def network(columns=CLASSES, activation="softmax", regularizer=None, hidden=False):
    keras.utils.set_random_seed(3)
    layers = [keras.Input((FEATURES,))]
    if hidden:
        layers.append(keras.layers.Dense(6, activation="tanh", name="hidden"))
    layers.append(keras.layers.Dense(columns, activation=activation, kernel_regularizer=regularizer))
    return keras.Sequential(layers)


def mixup(**settings):
    return kmix.MixUp(1.0, seed=4, **settings)


def mixed_by_hand():
    plan = mixup().plan(0, N)
    lam = plan.lam.astype("float64")[:, None]
    return plan, (lam * X + (1 - lam) * X[plan.permutation]).astype("float32")


def pair(losses, plan, weights=None):
    """The pair of losses `(B,)`, weighted, for a function of labels' indices that gives the losses `(B,)`."""
    w = np.ones(N) if weights is None else weights.astype("float64")
    own, other = losses(np.arange(N)), losses(plan.permutation)
    return plan.lam * w * own + (1 - plan.lam) * w[plan.permutation] * other


def step(trainer, x, y, weights=None):
    """The loss of one step, as logged."""
    return trainer.train_on_batch(x, y, sample_weight=weights, return_dict=True)


WAYS = {
    "mixer": lambda **settings: (network(hidden=True), {"mixer": mixup(), **settings}),
    "places": lambda **settings: (network(hidden=True), {"mixer": mixup(), "places": ["input", "hidden"], **settings}),
    "placed": lambda **settings: (
        keras.Sequential([keras.Input((FEATURES,)), mixup(), *network(hidden=True).layers]),
        settings,
    ),
    "choice": lambda **settings: (
        network(hidden=True),
        {"mixer": kmix.RandomChoice([mixup(), kmix.MixUp(0.2, seed=9)], seed=2), **settings},
    ),
}


@pytest.mark.in_turn
@pytest.mark.fast("places-True")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_sparse_loss_trains_as_the_soft_loss_on_mixed_labels(way, weighted):
    weights = {}
    for mix_losses, loss in (
        (False, kmix.losses.SoftLabelCrossentropy()),
        (True, "sparse_categorical_crossentropy"),
    ):
        model, settings = WAYS[way](mix_losses=mix_losses)
        trainer = kmix.MixTrainer(model, num_classes=CLASSES, **settings)
        trainer.compile(keras.optimizers.SGD(0.5), loss)
        for _ in range(3):
            step(trainer, X, IDS, WEIGHTS if weighted else None)
        weights[mix_losses] = model.get_weights()
    for ours, other in zip(weights[True], weights[False], strict=True):
        np.testing.assert_allclose(ours, other, atol=2e-6)
    assert not np.allclose(weights[True][0], network(hidden=True).get_weights()[0])


def test_cutmix_pairs_the_losses_by_the_kept_share():
    x = GENERATOR.random((N, 6, 6, 1)).astype("float32")
    results = {}
    for mix_losses, loss in ((False, "categorical_crossentropy"), (True, "sparse_categorical_crossentropy")):
        keras.utils.set_random_seed(1)
        layers = [keras.Input((6, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(CLASSES, activation="softmax")]
        model = keras.Sequential(layers)
        mix = kmix.CutMix(1.0, data_format="channels_last", seed=1)
        trainer = kmix.MixTrainer(model, mixer=mix, num_classes=CLASSES, mix_losses=mix_losses)
        trainer.compile(keras.optimizers.SGD(0.5), loss)
        step(trainer, x, IDS)
        results[mix_losses] = model.get_weights()[0]
    np.testing.assert_allclose(results[True], results[False], atol=2e-6)


def crossentropies(model, x, labels):
    """The cross-entropies of the predictions for the labels at some indices."""
    p = softmax(x.astype("float64") @ model.get_weights()[0] + model.get_weights()[1])
    return lambda indices: -np.log(p[np.arange(N), labels[indices]])


REDUCTIONS = {
    "sum_over_batch_size": lambda rows, w: rows.mean(),
    "sum": lambda rows, w: rows.sum(),
    "mean_with_sample_weight": lambda rows, w: rows.sum() / w.sum(),
}


@pytest.mark.in_turn
@pytest.mark.fast("*-sum", "False-mean*")
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_reductions_weights_and_regularisation(reduction, weighted):
    model = network(regularizer=keras.regularizers.L2(0.1))
    trainer = kmix.MixTrainer(model, mixer=mixup(), mix_losses=True)
    trainer.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(reduction=reduction))
    plan, x = mixed_by_hand()
    weights = WEIGHTS if weighted else None
    rows = pair(crossentropies(model, x, IDS), plan, weights)
    w = plan.lam * WEIGHTS + (1 - plan.lam) * WEIGHTS[plan.permutation] if weighted else np.ones(N)
    # Counted once.
    penalty = 0.1 * np.square(model.get_weights()[0]).sum()
    assert step(trainer, X, IDS, weights)["loss"] == pytest.approx(REDUCTIONS[reduction](rows, w) + penalty, rel=1e-5)


def focal(y, p, gamma=2.0):
    """Lin et al. 2017, equation 4, for binary labels."""
    right = np.where(y == 1, p, 1 - p)
    return (-((1 - right) ** gamma) * np.log(right)).mean(axis=-1)


def hinge(y, p):
    return np.maximum(0, 1 - np.where(y == 1, 1, -1) * p).mean(axis=-1)


@pytest.mark.in_turn
@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "by_hand"),
    [
        (lambda: keras.losses.BinaryFocalCrossentropy(), focal),
        (lambda: "hinge", hinge),
        (lambda: lambda y, p: ops.mean(ops.abs(y - p) ** 3, axis=-1), lambda y, p: np.abs(y - p).mean(axis=-1) ** 3),
    ],
    ids=["focal", "hinge", "a function"],
)
def test_losses_that_are_not_linear(loss, by_hand):
    model = network(1, "sigmoid")
    trainer = kmix.MixTrainer(model, mixer=mixup(), mix_losses=True)
    trainer.compile(keras.optimizers.SGD(0.1), loss())
    plan, x = mixed_by_hand()
    p = 1 / (1 + np.exp(-(x.astype("float64") @ model.get_weights()[0] + model.get_weights()[1])))
    expected = pair(lambda indices: by_hand(BINARY[indices], p), plan, WEIGHTS).mean()
    assert step(trainer, X, BINARY, WEIGHTS)["loss"] == pytest.approx(expected, rel=1e-5)
    bare = keras.losses.get(loss())
    evaluated = trainer.evaluate(X, BINARY, verbose=0, return_dict=True)["loss"]
    prediction = to_numpy(model(X))
    values = to_numpy(bare(ops.convert_to_tensor(BINARY), ops.convert_to_tensor(prediction)))
    assert evaluated == pytest.approx(float(np.mean(values)), rel=1e-5)


def two_outputs():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((FEATURES,))
    outputs = {
        "kind": keras.layers.Dense(CLASSES, activation="softmax", name="kind")(inputs),
        "size": keras.layers.Dense(1, name="size")(inputs),
    }
    return keras.Model(inputs, outputs)


@pytest.mark.slow
def test_several_outputs_and_loss_weights():
    model = two_outputs()
    size = GENERATOR.normal(size=(N, 1)).astype("float32")
    trainer = kmix.MixTrainer(model, mixer=mixup(), mix_losses=True)
    losses = {"kind": "sparse_categorical_crossentropy", "size": "mae"}
    trainer.compile(keras.optimizers.SGD(0.0), losses, loss_weights={"kind": 1.0, "size": 0.5})
    plan, x = mixed_by_hand()
    (kernel, bias), (w, b) = (model.get_layer(name).get_weights() for name in ("kind", "size"))
    p, prediction = softmax(x.astype("float64") @ kernel + bias), x.astype("float64") @ w + b
    kind = pair(lambda i: -np.log(p[np.arange(N), IDS[i]]), plan).mean()
    distance = pair(lambda i: np.abs(size[i] - prediction)[:, 0], plan).mean()
    logs = step(trainer, X, {"kind": IDS, "size": size})
    assert logs["loss"] == pytest.approx(kind + 0.5 * distance, rel=1e-5)
    # Another kind of target is mixed on its own way.
    kept = kmix.MixTrainer(two_outputs(), mixer=mixup(), mix_losses=True, target={"kind": "labels", "size": "keep"})
    kept.compile(keras.optimizers.SGD(0.0), losses)
    logs = step(kept, X, {"kind": IDS, "size": size})
    assert logs["loss"] == pytest.approx(kind + np.abs(size - prediction).mean(), rel=1e-5)
    with pytest.raises(ValueError, match="its own loss"):
        kept.compile("sgd", "mse")


METRICS = ["AUC", "Recall", "BinaryAccuracy"]


def metrics():
    return [getattr(keras.metrics, name)(name=name) for name in METRICS]


@pytest.mark.slow
@pytest.mark.parametrize("mix_losses", [False, True])
def test_metrics_see_the_label_with_the_larger_share(mix_losses):
    model = network(1, "sigmoid")
    trainer = kmix.MixTrainer(model, mixer=mixup(), mix_losses=mix_losses)
    trainer.compile(keras.optimizers.SGD(0.0), "binary_crossentropy", metrics=metrics())
    plan, x = mixed_by_hand()
    mixed = plan.lam[:, None] * BINARY + (1 - plan.lam[:, None]) * BINARY[plan.permutation]
    larger = np.where(plan.lam[:, None] >= 0.5, BINARY, BINARY[plan.permutation])
    hard = (mixed >= 0.5).astype("float32") if not mix_losses else larger
    logs = step(trainer, X, BINARY)
    evaluated = trainer.evaluate(X, BINARY, verbose=0, return_dict=True)
    for metric in metrics():
        metric.update_state(hard, model.predict(x, verbose=0))
        assert logs[metric.name] == pytest.approx(float(metric.result()), abs=1e-5)
        metric.reset_state()
        metric.update_state(BINARY, model.predict(X, verbose=0))
        assert evaluated[metric.name] == pytest.approx(float(metric.result()), abs=1e-5)


@pytest.mark.slow
# Keras' own MeanIoU asks JAX for int64.
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype int64:UserWarning")
def test_accuracy_and_intersection_over_union_of_class_ids():
    model = network()
    trainer = kmix.MixTrainer(model, mixer=mixup(), mix_losses=True)
    over_union = keras.metrics.MeanIoU(CLASSES, sparse_y_pred=False, name="iou")
    trainer.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy", metrics=["accuracy", over_union])
    plan, x = mixed_by_hand()
    larger = np.where(plan.lam >= 0.5, IDS, IDS[plan.permutation])
    predicted = model.predict(x, verbose=0).argmax(axis=-1)
    logs = step(trainer, X, IDS)
    assert logs["accuracy"] == pytest.approx(np.mean(predicted == larger), abs=1e-6)
    each = [
        np.sum((predicted == c) & (larger == c)) / np.sum((predicted == c) | (larger == c))
        for c in range(CLASSES)
        if np.any((predicted == c) | (larger == c))
    ]
    assert logs["iou"] == pytest.approx(np.mean(each), abs=1e-6)


@pytest.mark.slow
def test_partners_by_label():
    """The mean squared error of a mixed label has the gradient of the pair."""
    y, results = np.linspace(-1, 1, N).astype("float32")[:, None], {}
    for mix_losses in (False, True):
        model = network(1, None)
        trainer = kmix.MixTrainer(model, mixer=mixup(pairing=kmix.pairing.SimilarLabels(0.4)), mix_losses=mix_losses)
        trainer.compile(keras.optimizers.SGD(0.5), "mse")
        step(trainer, X, y)
        results[mix_losses] = model.get_weights()[0]
    np.testing.assert_allclose(results[True], results[False], atol=2e-6)


def test_class_weights_weigh_the_pair():
    model = network()
    trainer = kmix.MixTrainer(
        model, mixer=mixup(target=kmix.targets.Labels(CLASSES, class_weight={1: 3.0})), mix_losses=True
    )
    trainer.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    plan, x = mixed_by_hand()
    weights = np.where(IDS == 1, 3.0, 1.0)
    expected = pair(crossentropies(model, x, IDS), plan, weights).mean()
    assert step(trainer, X, IDS)["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_a_compiled_trainer_is_saved_with_the_losses_it_was_given(tmp_path):
    trainer = kmix.MixTrainer(network(), mixer=mixup(), mix_losses=True)
    trainer.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    step(trainer, X, IDS)
    assert json.loads(json.dumps(trainer.get_compile_config()))["loss"] == "sparse_categorical_crossentropy"
    trainer.save(tmp_path / "trainer.keras")
    loaded = keras.saving.load_model(tmp_path / "trainer.keras")
    assert loaded.mix_losses
    assert step(loaded, X, IDS)["loss"] == pytest.approx(step(trainer, X, IDS)["loss"], rel=1e-5)


def compiled(loss, **settings):
    trainer = kmix.MixTrainer(network(), **{"mixer": mixup(), "mix_losses": True, **settings})
    trainer.compile("sgd", loss)
    return trainer


REFUSED = {
    "pairs": (lambda: compiled("mse", mixer=mixup(target=kmix.targets.LabelPairs(9))), "LabelPairs"),
    "a scalar": (
        lambda: step(compiled(lambda y, p: ops.mean(ops.square(y - p))), X, np.eye(CLASSES, dtype="float32")[IDS]),
        "axis=",
    ),
    "a class to ignore": (
        lambda: compiled(keras.losses.SparseCategoricalCrossentropy(ignore_class=0)),
        "ignore_class",
    ),
    "clean samples": (lambda: compiled("mse", mixer=mixup(include_clean=True)), "include_clean"),
    "another word": (lambda: compiled("mse", mix_losses="losses"), "mix_losses"),
    "a Mosaic": (lambda: compiled("mse", mixer=kmix.Mosaic()), "Mosaic"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_paired_is_refused(name):
    function, match = REFUSED[name]
    with pytest.raises((ValueError, TypeError), match=match):
        function()


@pytest.mark.slow
def test_a_mosaic_gives_metrics_the_label_with_the_largest_share():
    x = GENERATOR.random((N, 6, 6, 1)).astype("float32")
    model = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(CLASSES, "softmax")])
    mix = kmix.Mosaic(data_format="channels_last", seed=1)
    trainer = kmix.MixTrainer(model, mixer=mix, num_classes=CLASSES)
    trainer.compile(
        keras.optimizers.SGD(0.0), "categorical_crossentropy", metrics=[keras.metrics.Recall(name="recall")]
    )
    mixed_x, mixed_y = kmix.Mosaic(data_format="channels_last", seed=1, num_classes=CLASSES).at_step(0, (x, IDS))
    assert (mixed_y.max(axis=1) < 0.5).any()
    metric = keras.metrics.Recall()
    half = mixed_y >= 0.5
    hard = np.where(half.any(axis=1, keepdims=True), half, np.eye(CLASSES)[mixed_y.argmax(axis=1)])
    metric.update_state(hard, model.predict(mixed_x, verbose=0))
    assert step(trainer, x, IDS)["recall"] == pytest.approx(float(metric.result()), abs=1e-6)


class Called(keras.losses.Loss):
    """A user's loss that does something of its own when it is called."""

    def __call__(self, y_true, y_pred, sample_weight=None):
        return super().__call__(y_true, 2.0 * y_pred, sample_weight)

    def call(self, y_true, y_pred):
        return ops.mean(ops.abs(y_true - y_pred) ** 3, axis=-1)


class CalledAlone(Called):
    """One that does everything when it is called."""

    def __call__(self, y_true, y_pred, sample_weight=None):
        return ops.mean(ops.abs(y_true - y_pred))


@pytest.mark.fast("sum")
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum"])
def test_a_loss_is_called_as_keras_calls_it(reduction):
    model = network(1, None)
    trainer = kmix.MixTrainer(model, mixup(), mix_losses=True)
    trainer.compile(keras.optimizers.SGD(0.0), Called(reduction=reduction), **PLAIN)
    plan, x = mixed_by_hand()
    p = to_numpy(model(x)).astype("float64")
    rows = pair(lambda i: np.abs(BINARY[i] - 2 * p)[:, 0] ** 3, plan, WEIGHTS)
    assert step(trainer, X, BINARY, WEIGHTS)["loss"] == pytest.approx(REDUCTIONS[reduction](rows, None), rel=1e-5)
    trainer.compile("sgd", CalledAlone(), **PLAIN)
    with pytest.raises(ValueError, match="one value for each sample"):
        step(trainer, X, BINARY)


def test_a_function_gets_labels_and_predictions_of_one_rank_as_from_keras():
    model = network(1, None)
    plan, x = mixed_by_hand()
    p, y = to_numpy(model(x)), BINARY[:, 0]
    expected = pair(lambda i: np.abs(y[i] - p[:, 0]) ** 3, plan).mean()
    trainer = kmix.MixTrainer(model, mixup(), mix_losses=True)
    trainer.compile(keras.optimizers.SGD(0.0), lambda y, p: ops.mean(ops.abs(y - p) ** 3, axis=-1), **PLAIN)
    assert step(trainer, X, y)["loss"] == pytest.approx(expected, rel=1e-5)


def image_trainer(**settings):
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 3, padding="same")])
    mixer = kmix.CutMix(data_format="channels_last", seed=1)
    trainer = kmix.MixTrainer(model, mixer, mix_losses=True, **settings)
    trainer.compile("sgd", "mse", **PLAIN)
    return trainer


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_labels_that_would_have_to_be_pasted_are_refused_though_losses_are_mixed(dtype):
    x = GENERATOR.random((N, 4, 4, 1)).astype("float32")
    y = (GENERATOR.random((N, 4, 4, 2)) > 0.5).astype(dtype)
    with pytest.raises(ValueError, match="target="):
        step(image_trainer(), x, y)
    kept = image_trainer(target="keep")
    assert np.isfinite(step(kept, x, y)["loss"])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_a_column_for_each_position_is_refused_though_losses_are_mixed(dtype):
    x = GENERATOR.random((N, 4, 4, 1)).astype("float32")
    y = (GENERATOR.random((N, 16)) > 0.5).astype(dtype)
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(16)])
    for target, mixer in ((None, kmix.CutMix), ("keep", kmix.CutMix), (None, kmix.MixUp)):
        settings = {"data_format": "channels_last"} if mixer is kmix.CutMix else {}
        trainer = kmix.MixTrainer(model, mixer(seed=1, **settings), mix_losses=True, target=target)
        trainer.compile("sgd", "mse", **PLAIN)
        if target is None and mixer is kmix.CutMix:
            with pytest.raises(ValueError, match="16 positions"):
                step(trainer, x, y)
        else:
            assert np.isfinite(step(trainer, x, y)["loss"])


@pytest.mark.slow
def test_masks_of_ids_and_a_loss_of_ids():
    x, y = GENERATOR.random((N, 4, 4, 1)).astype("float32"), GENERATOR.integers(0, 2, (N, 4, 4))
    for mix_losses in (True, False):
        for mixer in (kmix.CutMix(data_format="channels_last"), kmix.MixUp()):
            model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 3, padding="same")])
            masks = kmix.targets.SegmentationMasks(2)
            trainer = kmix.MixTrainer(model, mixer, target=masks, mix_losses=mix_losses)
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            if isinstance(mixer, kmix.MixUp):
                with pytest.raises(ValueError, match="SoftLabelCrossentropy"):
                    trainer.compile("sgd", loss)
            else:
                trainer.compile("sgd", loss, **PLAIN)
                assert np.isfinite(step(trainer, x, y)["loss"])


def test_boxes_are_boxes_though_losses_are_mixed():
    x = GENERATOR.random((N, 4, 4, 1)).astype("float32")
    inputs = keras.Input((4, 4, 1))
    hidden = keras.layers.Dense(10)(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, {"boxes": ops.reshape(hidden[:, :8], (-1, 2, 4)), "labels": hidden[:, 8:]})
    boxes = {"boxes": np.ones((N, 2, 4), "float32"), "labels": np.zeros((N, 2), "float32")}
    trainer = kmix.MixTrainer(model, kmix.CutMix(data_format="channels_last", seed=1), mix_losses=True)
    trainer.compile("sgd", "mae", **PLAIN)
    with pytest.raises(ValueError, match="target="):
        step(trainer, x, boxes)


def test_values_of_many_axes_that_look_unlike_labels_are_refused_though_losses_are_mixed():
    model = keras.Sequential([keras.Input((4, FEATURES)), keras.layers.Dense(2)])
    for settings in ({}, {"target": kmix.targets.Labels(any_shape=True)}):
        trainer = kmix.MixTrainer(model, mixup(), mix_losses=True, **settings)
        trainer.compile("sgd", "mae", run_eagerly=True)
        x, y = np.ones((N, 4, FEATURES), "float32"), np.full((N, 4, 2), 7.0, "float32")
        if settings:
            step(trainer, x, y)
        else:
            with pytest.raises(ValueError, match="target="):
                step(trainer, x, y)
