"""Training runs that users of other libraries reported: MixTrainer is correct, or refuses before a step."""

import contextlib
import itertools
import json
import warnings

import keras
import numpy as np
import oracle
import pytest
import tensorflow as tf
from cases import REFUSALS, data, ids, raises
from keras import ops
from roads import to_numpy

import kmix

BACKEND = keras.backend.backend()
CLASSES = 3
on = lambda *backends, why: pytest.mark.skipif(BACKEND not in backends, reason=why)
on_tensorflow = on("tensorflow", why="TensorFlow alone")


def mixup(**settings):
    return kmix.MixUp(**{"alpha": 1.0, "seed": 3, **settings})


def embedding(**settings):
    return kmix.EmbeddingMixup(**{"alpha": 1.0, "seed": 4, **settings})


def network(columns=CLASSES, activation="softmax", shape=(5,), hidden=()):
    """Dense layers on vectors. Seeded, so that each call gives the same weights."""
    keras.utils.set_random_seed(1)
    inputs = tensor = keras.Input(shape)
    for i, units in enumerate(hidden):
        tensor = keras.layers.Dense(units, activation="tanh", name=f"hidden_{i}")(tensor)
    return keras.Model(inputs, keras.layers.Dense(columns, activation=activation, name="top")(tensor))


def trainer_of(
    model=None,
    loss=None,
    rate=0.0,
    mix=None,
    metrics=None,
    weighted_metrics=None,
    jit_compile="auto",
    **settings,
):
    """A compiled trainer. At a learning rate of 0 no weight changes, and one can compute the loss of a step by hand."""
    mix = mixup() if mix is None and not settings.get("placed") else mix
    settings.pop("placed", None)
    trainer = kmix.MixTrainer(network() if model is None else model, mix=mix, **settings)
    loss = kmix.losses.SoftLabelCrossentropy() if loss is None else loss
    settings = {"metrics": metrics, "weighted_metrics": weighted_metrics, "jit_compile": jit_compile}
    trainer.compile(keras.optimizers.SGD(rate), loss, **settings)
    return trainer


def one_hot(y, classes=CLASSES):
    return oracle.one_hot(y, classes).astype("float32")


def fit(trainer, x, y, **settings):
    """The logs of one step on one batch."""
    settings = {"batch_size": len(keras.tree.flatten(x)[0]), "shuffle": False, "verbose": 0, **settings}
    return {name: values[-1] for name, values in trainer.fit(x, y, **settings).history.items()}


def evaluate(model, x, y, **settings):
    return model.evaluate(x, y, batch_size=len(keras.tree.flatten(x)[0]), verbose=0, return_dict=True, **settings)


def predictions(model, x):
    """What a model predicts. Eagerly, since to compile `predict` takes long."""
    return to_numpy(model(ops.convert_to_tensor(np.asarray(x, "float32")), training=False))


def mixed_loss(trainer, x, y, step=0, weights=None):
    """The cross-entropy of a step on mixed inputs and labels, in NumPy, from the current predictions of the model."""
    plan = trainer.plan(step, len(x))
    p = predictions(trainer.model, oracle.mixup(x, *plan[:2]))
    if weights is None:
        return oracle.crossentropy(oracle.mixup(y, *plan[:2]), p).mean()
    labels, weights = oracle.weighted(y, weights, *plan[:2])
    return (weights * oracle.crossentropy(labels, p)).mean()


@contextlib.contextmanager
def no_weight_changes(model):
    before = model.get_weights()
    yield
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def right_or_refused(model, function, expected, *words):
    """Assert that a function returns the expected logs, or raises with these words before a weight changes."""
    before, text, logs = model.get_weights(), None, {}
    try:
        logs = function()
    except REFUSALS as error:
        text = str(error)
    if text is not None:
        assert all(word in text for word in words)
        for one, other in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
        return False
    for name, value in expected.items():
        assert logs[name] == pytest.approx(value, rel=1e-4), name
    return True


# Cases 4 and 16: user code that a trainer would not run.


HOOKS = (
    "train_step",
    "test_step",
    "predict_step",
    "compute_loss",
    "compute_metrics",
    "fit",
    "evaluate",
    "predict",
)


def overriding(*names, base=keras.Model):
    """A model class that overrides methods. Each override does what Keras' own method does."""

    def method(name):
        def run(self, *args, **kwargs):
            return getattr(super(cls, self), name)(*args, **kwargs)

        return run

    cls = type("Distiller", (base,), {name: method(name) for name in names})
    return cls


def functional_of(cls):
    inputs = keras.Input((5,))
    return cls(inputs, keras.layers.Dense(CLASSES, "softmax", name="top")(inputs))


@pytest.mark.parametrize("name", HOOKS)
def test_case_4_a_model_with_a_step_or_loss_of_its_own_is_refused(name):
    # Keras turns a class that is called with inputs and outputs into a functional model.
    child = type("Child", (overriding(name),), {})
    for model in (functional_of(overriding(name)), functional_of(child), subclassed(overriding(name))):
        raises(lambda model=model: kmix.MixTrainer(model, mix=mixup()), rf"\b{name}\b", r"ds\.map", errors=TypeError)


def subclassed(cls):
    class Own(cls):
        def __init__(self):
            super().__init__()
            self.mixing, self.top = mixup(), keras.layers.Dense(CLASSES, "softmax")

        def call(self, x):
            return self.top(x)

    model = Own()
    model(np.zeros((2, 5), "float32"))
    return model


def test_case_4_on_each_of_the_three_ways():
    cls, inputs = overriding("compute_loss"), keras.Input((5,))
    placed = cls(inputs, keras.layers.Dense(CLASSES)(mixup()(inputs)))
    for make in (
        lambda: kmix.MixTrainer(placed),
        lambda: kmix.MixTrainer(functional_of(cls), mix=embedding(), at=["top"]),
        lambda: kmix.MixTrainer(functional_of(cls), mix=kmix.RandomChoice([mixup()])),
        lambda: kmix.MixTrainer(
            overriding("fit", base=keras.Sequential)([keras.Input((5,)), keras.layers.Dense(3)]), mix=mixup()
        ),
    ):
        raises(make, r"compute_loss|\bfit\b", errors=TypeError)


def test_case_4_all_methods_are_named():
    model = functional_of(overriding("compute_loss", "test_step"))
    raises(lambda: kmix.MixTrainer(model, mix=mixup()), "compute_loss", "test_step", errors=TypeError)


def test_case_4_what_keras_has_of_its_own_and_other_methods_are_welcome():
    class Named(keras.Model):
        def call(self, *args, **kwargs):
            return super().call(*args, **kwargs)

        def compile(self, *args, **kwargs):
            return super().compile(*args, **kwargs)

        def get_config(self):
            return super().get_config()

        def summary(self, *args, **kwargs):
            return super().summary(*args, **kwargs)

    sequential = keras.Sequential([keras.Input((5,)), keras.layers.Dense(CLASSES, "softmax")])
    inner = functional_of(overriding("compute_loss"))
    inputs = keras.Input((5,))
    around = keras.Model(inputs, keras.layers.Dense(CLASSES, "softmax")(inner(inputs)))
    x, y = data(6, (5,)), ids()
    for model in (sequential, functional_of(Named), around):
        trainer = trainer_of(model)
        assert fit(trainer, x, y)["loss"] == pytest.approx(mixed_loss(trainer, x, one_hot(y)), rel=1e-4)


def task(preprocessor):
    """A model that preprocesses its training data, as the tasks of KerasHub do."""

    class PipelineModel(keras.Model):
        def preprocess_samples(self, x, y=None, sample_weight=None):
            x = x if self.preprocessor is None else self.preprocessor(x)
            return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)

        def fit(self, x=None, y=None, **kwargs):
            return super().fit(*self.preprocess_samples(x, y), **kwargs)

        def evaluate(self, x=None, y=None, **kwargs):
            return super().evaluate(*self.preprocess_samples(x, y), **kwargs)

        def predict(self, x=None, **kwargs):
            return super().predict(self.preprocess_samples(x), **kwargs)

    class ImageClassifier(PipelineModel):
        pass

    for cls in (PipelineModel, ImageClassifier):
        cls.__module__ = "keras_hub.src.models.task"
    model = functional_of(ImageClassifier)
    model.preprocessor = preprocessor
    return model


def test_case_16_a_task_with_a_preprocessor_is_refused():
    model = task(lambda x: x / 255)
    raises(lambda: kmix.MixTrainer(model, mix=mixup()), r"\bfit\b", r"ds\.map", "preprocessor=None", errors=TypeError)


def test_case_16_a_task_without_a_preprocessor_trains():
    x, y = data(6, (5,)), ids()
    trainer = trainer_of(task(None), metrics=["accuracy"])
    assert fit(trainer, x, y)["loss"] == pytest.approx(mixed_loss(trainer, x, one_hot(y)), rel=1e-4)
    p = trainer.predict(x, batch_size=6, verbose=0)
    np.testing.assert_array_equal(p, trainer.model.predict(x, batch_size=6, verbose=0))
    assert evaluate(trainer, x, y)["accuracy"] == pytest.approx(np.mean(p.argmax(axis=1) == y))


def test_case_16_a_task_that_overrides_its_step_is_refused_without_a_preprocessor_too():
    class Own(type(task(None))):
        def train_step(self, *args):
            return super().train_step(*args)

    model = functional_of(Own)
    model.preprocessor = None
    raises(lambda: kmix.MixTrainer(model, mix=mixup()), "train_step", errors=TypeError)


@pytest.mark.slow
def test_case_16_a_real_task():
    hub = pytest.importorskip("keras_hub", reason="KerasHub is not installed")
    backbone = hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
        image_shape=(16, 16, 3),
    )
    rescale = keras.layers.Rescaling(1 / 255)
    model = hub.models.ImageClassifier(backbone, num_classes=CLASSES, preprocessor=rescale, activation="softmax")
    raises(lambda: kmix.MixTrainer(model, mix=mixup()), r"\bfit\b", r"ds\.map", errors=TypeError)
    model = hub.models.ImageClassifier(backbone, num_classes=CLASSES, preprocessor=None, activation="softmax")
    trainer = trainer_of(model)
    assert np.isfinite(fit(trainer, data(6, (16, 16, 3)), ids())["loss"])


# Case 5: metrics that cast or threshold their labels.


THRESHOLDS = {
    "AUC": lambda: keras.metrics.AUC(),
    "Precision": lambda: keras.metrics.Precision(),
    "Recall": lambda: keras.metrics.Recall(thresholds=0.4),
    "TruePositives": lambda: keras.metrics.TruePositives(),
    "TrueNegatives": lambda: keras.metrics.TrueNegatives(),
    "FalsePositives": lambda: keras.metrics.FalsePositives(),
    "FalseNegatives": lambda: keras.metrics.FalseNegatives(),
    "SensitivityAtSpecificity": lambda: keras.metrics.SensitivityAtSpecificity(0.5),
    "SpecificityAtSensitivity": lambda: keras.metrics.SpecificityAtSensitivity(0.5),
    "PrecisionAtRecall": lambda: keras.metrics.PrecisionAtRecall(0.5),
    "RecallAtPrecision": lambda: keras.metrics.RecallAtPrecision(0.5),
    "BinaryAccuracy": lambda: keras.metrics.BinaryAccuracy(name="hits"),
    "BinaryIoU": lambda: keras.metrics.BinaryIoU(target_class_ids=[0, 1], threshold=0.5),
    "named": lambda: keras.metrics.Precision(name="how precise"),
}


class OwnRecall(keras.metrics.Recall):
    """A user's metric that subclasses one that thresholds."""


THRESHOLDS["sub-classed"] = lambda: OwnRecall(name="own")


def binary_batch(n=32):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 5)).astype("float32"), rng.integers(0, 2, n).astype("float32")[:, None]


def hard(y, plan):
    return (oracle.mixup(y, *plan[:2]) >= 0.5).astype("float32")


def of_keras(make, y, p, weights=None):
    metric = make()
    metric.update_state(y, p, sample_weight=weights)
    return to_numpy(metric.result())


@pytest.mark.fast("one column")
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype int64:UserWarning")  # BinaryIoU of Keras on JAX
@pytest.mark.parametrize("columns", ["one column", "one-hot"])
def test_case_5_metrics_see_hard_labels_in_a_training_step(columns):
    """All of them at once. In `evaluate` they get the labels unchanged."""
    x, y = binary_batch()
    if columns == "one-hot":
        y = one_hot(ids(32))
        model, loss = network(), "categorical_crossentropy"
    else:
        model, loss = network(1, "sigmoid"), "binary_crossentropy"
    makes = list(THRESHOLDS.values())[:: 1 if columns == "one column" else 5]
    metrics = [make() for make in makes]
    trainer = trainer_of(model, loss, metrics=metrics)
    logs = fit(trainer, x, y)
    plan = trainer.plan(0, 32)
    p = predictions(model, oracle.mixup(x, *plan[:2]))
    clean, scores = predictions(model, x), evaluate(trainer, x, y)
    assert not np.array_equal(oracle.mixup(y, *plan[:2]) > 0, hard(y, plan) > 0)
    for make, metric in zip(makes, metrics, strict=True):
        np.testing.assert_allclose(logs[metric.name], of_keras(make, hard(y, plan), p), rtol=1e-4, err_msg=metric.name)
        np.testing.assert_allclose(scores[metric.name], of_keras(make, y, clean), rtol=1e-4, err_msg=metric.name)


@pytest.mark.fast("AUC")
@pytest.mark.parametrize("name", ["AUC", "BinaryAccuracy", "binary_accuracy"])
def test_case_5_metrics_by_name(name):
    x, y = binary_batch()
    trainer = trainer_of(network(1, "sigmoid"), "binary_crossentropy", metrics=[name])
    logs = fit(trainer, x, y)
    plan = trainer.plan(0, 32)
    p = predictions(trainer.model, oracle.mixup(x, *plan[:2]))
    bare = network(1, "sigmoid")
    bare.compile("sgd", "binary_crossentropy", metrics=[name])
    expected, clean = evaluate(bare, oracle.mixup(x, *plan[:2]).astype("float32"), hard(y, plan)), evaluate(bare, x, y)
    np.testing.assert_array_equal(p, predictions(bare, oracle.mixup(x, *plan[:2])))
    (key,) = set(expected) - {"loss"}
    assert logs[key] == pytest.approx(expected[key], rel=1e-4)
    assert evaluate(trainer, x, y)[key] == pytest.approx(clean[key], rel=1e-4)


def test_case_5_a_perfect_classifier_and_the_toss_of_a_coin():
    y = (np.arange(512) % 2).astype("float32")[:, None]
    x = np.concatenate([y, data(512, (4,))], axis=1)
    for column, expected in ((0, (1.0, 1.0)), (1, (0.5, 0.5))):
        model = network(1, "sigmoid")
        kernel = np.zeros((5, 1))
        kernel[column] = 20
        model.set_weights([kernel, np.array([-10.0])])
        metrics = [keras.metrics.AUC(name="auc"), keras.metrics.BinaryAccuracy(name="hits")]
        logs = fit(trainer_of(model, "binary_crossentropy", mix=mixup(alpha=0.4), metrics=metrics), x, y)
        assert (logs["auc"], logs["hits"]) == pytest.approx(expected, abs=0.005 if column == 0 else 0.08)


def test_case_5_with_class_ids_and_a_class_of_its_own():
    x, y = data(32, (5,)), ids(32)
    make = lambda: keras.metrics.Precision(thresholds=0.2, class_id=1, name="of_one")
    trainer = trainer_of(metrics=[make(), "accuracy"])
    logs, plan = fit(trainer, x, y, validation_data=(x, y)), trainer.plan(0, 32)
    p = predictions(trainer.model, oracle.mixup(x, *plan[:2]))
    np.testing.assert_allclose(logs["of_one"], of_keras(make, hard(one_hot(y), plan), p), rtol=1e-4)
    labels = oracle.mixup(one_hot(y), *plan[:2])
    assert logs["of_one"] != pytest.approx(of_keras(make, labels, p))
    assert logs["accuracy"] == pytest.approx(np.mean(labels.argmax(axis=1) == p.argmax(axis=1)))
    expected = of_keras(make, one_hot(y), predictions(trainer, x))
    for value in (evaluate(trainer, x, y)["of_one"], logs["val_of_one"]):
        np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_case_5_weighted_metrics_and_many_outputs():
    (x, y), w = binary_batch(), np.linspace(0.2, 2, 32, dtype="float32")
    inputs = keras.Input((5,))
    outputs = {name: keras.layers.Dense(1, "sigmoid", name=name)(inputs) for name in ("a", "b")}
    model = keras.Model(inputs, outputs)
    make = lambda: keras.metrics.Recall(name="recall")
    trainer = trainer_of(
        model,
        {"a": "binary_crossentropy", "b": "mse"},
        metrics={"a": [make()]},
        weighted_metrics={"b": [make(), "mae"]},
    )
    logs = fit(trainer, x, {"a": y, "b": y}, sample_weight={"a": w, "b": w})
    plan = trainer.plan(0, 32)
    p = predictions(model, oracle.mixup(x, *plan[:2]))
    mixed, weights = oracle.weighted(y, w, *plan[:2])
    labels = (mixed >= 0.5).astype("float32")
    np.testing.assert_allclose(logs["a_recall"], of_keras(make, labels, p["a"]), rtol=1e-4)
    np.testing.assert_allclose(logs["b_recall"], of_keras(make, labels, p["b"], weights), rtol=1e-4)
    mae = np.average(np.abs(mixed - p["b"])[:, 0], weights=weights)
    assert logs["b_mae"] == pytest.approx(mae, rel=1e-4)


def test_case_5_metrics_that_are_right_on_soft_labels_see_them():
    x, y = data(32, (5,)), one_hot(ids(32))
    makes = [
        lambda: keras.metrics.CategoricalAccuracy(),
        lambda: keras.metrics.TopKCategoricalAccuracy(2),
        lambda: keras.metrics.CategoricalCrossentropy(),
        lambda: keras.metrics.MeanSquaredError(),
        lambda: keras.metrics.F1Score(),
    ]
    metrics = [make() for make in makes]
    trainer = trainer_of(metrics=metrics)
    logs, plan = fit(trainer, x, y), trainer.plan(0, 32)
    labels = oracle.mixup(y, *plan[:2]).astype("float32")
    p = predictions(trainer.model, oracle.mixup(x, *plan[:2]))
    for make, metric in zip(makes, metrics, strict=True):
        np.testing.assert_allclose(logs[metric.name], of_keras(make, labels, p), rtol=1e-4, err_msg=metric.name)


@pytest.mark.slow
def test_case_5_metrics_survive_a_file(tmp_path):
    x, y = binary_batch()
    metrics = [keras.metrics.AUC(name="auc"), keras.metrics.Recall(thresholds=0.4, name="r")]
    trainer = trainer_of(network(1, "sigmoid"), "binary_crossentropy", metrics=metrics)
    before = fit(trainer, x, y), evaluate(trainer, x, y)
    trainer.save(tmp_path / "trainer.keras")
    loaded = keras.saving.load_model(tmp_path / "trainer.keras")
    assert evaluate(loaded, x, y) == pytest.approx(before[1], rel=1e-5)
    # The second step on the same weights has another plan.
    logs, plan = fit(loaded, x, y), loaded.plan(1, 32)
    p = predictions(loaded.model, oracle.mixup(x, *plan[:2]))
    expected = of_keras(lambda: keras.metrics.Recall(thresholds=0.4), hard(y, plan), p)
    np.testing.assert_allclose(logs["r"], expected, rtol=1e-4)


# Cases 7 and 8: files of weights.


def deep():
    return network(hidden=(6, 4))


def placed_model():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,))
    hidden = embedding(name="mixing")(keras.layers.Dense(6, name="hidden")(inputs))
    return keras.Model(inputs, keras.layers.Dense(CLASSES, "softmax", name="top")(hidden))


def sequential():
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((5,)), keras.layers.Dense(6), keras.layers.Dense(CLASSES, "softmax")])


def nested():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,))
    return keras.Model(inputs, keras.layers.Dense(CLASSES, "softmax")(deep()(inputs)))


def own():
    keras.utils.set_random_seed(1)
    return subclassed_plainly()


def subclassed_plainly():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.top = keras.layers.Dense(6), keras.layers.Dense(CLASSES, "softmax")

        def call(self, x):
            return self.top(self.hidden(x))

    model = Own()
    model(np.zeros((2, 5), "float32"))
    return model


WEIGHTS = {
    "functional": (deep, {}),
    "sequential": (sequential, {}),
    "nested": (nested, {}),
    "sub-classed": (own, {"num_classes": CLASSES}),
    "placed": (placed_model, {"placed": True}),
    "at": (deep, {"mix": "embedding", "at": ["input", "hidden_1"]}),
    "choice": (deep, {"mix": "choice"}),
}


def of_kind(kind, rate=0.5, alpha=1.0):
    make, settings = WEIGHTS[kind]
    mixes = {
        "embedding": lambda: embedding(alpha=alpha),
        "choice": lambda: kmix.RandomChoice([mixup(alpha=alpha), mixup(alpha=0.2, seed=8)], seed=1),
    }
    mix = mixes[settings["mix"]]() if "mix" in settings else None if settings.get("placed") else mixup(alpha=alpha)
    return trainer_of(make(), rate=rate, **{**settings, "mix": mix})


def assert_same_weights(one, other):
    assert len(one.get_weights()) == len(other.get_weights())
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_case_7_a_checkpoint_of_weights_loads_into_the_bare_model(tmp_path):
    x, y, path = data(12, (5,)), ids(12), str(tmp_path / "best.weights.h5")
    trainer, bare = of_kind("functional"), WEIGHTS["functional"][0]()
    checkpoint = keras.callbacks.ModelCheckpoint(path, save_weights_only=True)
    fit(trainer, x, y, batch_size=4, epochs=2, callbacks=[checkpoint])
    assert not np.array_equal(bare.get_weights()[0], trainer.model.get_weights()[0])
    bare.load_weights(path)
    assert_same_weights(bare, trainer.model)


@pytest.mark.parametrize("kind", WEIGHTS)
def test_case_7_weights_of_the_trainer_load_into_the_bare_model(kind, tmp_path):
    trainer, path, bare = of_kind(kind), str(tmp_path / "trainer.weights.h5"), WEIGHTS[kind][0]()
    trainer.model.set_weights([weight + 1 for weight in trainer.model.get_weights()])
    trainer.save_weights(path)
    bare.load_weights(path)
    assert_same_weights(bare, trainer.model)


@pytest.mark.fast("functional", "nested", "placed", "at")
@pytest.mark.parametrize("kind", WEIGHTS)
def test_case_7_weights_of_the_bare_model_load_into_the_trainer(kind, tmp_path):
    trainer, path, bare = of_kind(kind), str(tmp_path / "bare.weights.h5"), WEIGHTS[kind][0]()
    bare.set_weights([weight + 1 for weight in bare.get_weights()])
    bare.save_weights(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        trainer.load_weights(path)
    assert_same_weights(bare, trainer.model)
    assert int(trainer.step) == 0
    assert [layer.alpha for layer in mixers(trainer)] == [layer.alpha for layer in mixers(of_kind(kind))]


def mixers(trainer):
    if trainer.mix is not None:
        return getattr(trainer.mix, "layers", [trainer.mix])
    return [layer for layer in trainer.model.layers if isinstance(layer, kmix.EmbeddingMixup)]


@pytest.mark.fast("placed")
@pytest.mark.parametrize("kind", ["placed", "choice"])
def test_case_7_training_goes_on_from_a_file_of_weights(kind, tmp_path):
    x, y, path = data(12, (5,)), ids(12), str(tmp_path / "trainer.weights.h5")
    trainer = of_kind(kind)
    fit(trainer, x, y, batch_size=4)
    for layer in mixers(trainer):
        layer.alpha = 0.3
    trainer.save_weights(path)
    fit(trainer, x, y, batch_size=4, epochs=2)
    resumed = of_kind(kind)
    resumed.load_weights(path)
    assert int(resumed.step) == 3
    assert [layer.alpha for layer in mixers(resumed)] == [pytest.approx(0.3)] * len(mixers(resumed))
    fit(resumed, x, y, batch_size=4, epochs=2)
    assert_same_weights(trainer.model, resumed.model)
    assert int(resumed.step) == int(trainer.step) == 9


def test_case_7_the_weights_of_a_trainer_are_those_of_its_model():
    trainer = of_kind("functional")
    fit(trainer, data(12, (5,)), ids(12), batch_size=4)
    assert_same_weights(trainer, trainer.model)
    new = [weight + 1 for weight in deep().get_weights()]
    trainer.set_weights(new)
    for a, b in zip(trainer.model.get_weights(), new, strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(trainer.step) == 3
    assert trainer.alpha == 1.0


def test_case_7_what_a_model_file_keeps(tmp_path):
    x, y = data(12, (5,)), ids(12)
    trainer = of_kind("choice")
    fit(trainer, x, y, batch_size=4)
    trainer.mix.layers[0].alpha = 0.7
    trainer.save(tmp_path / "trainer.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        loaded = keras.saving.load_model(tmp_path / "trainer.keras")
    assert int(loaded.step) == 3
    assert [layer.alpha for layer in loaded.mix.layers] == pytest.approx([0.7, 0.2])
    for network in (trainer, loaded):
        fit(network, x, y, batch_size=4, epochs=2)
    assert_same_weights(trainer.model, loaded.model)


@pytest.mark.filterwarnings("ignore:Skipping nested container:UserWarning")
def test_case_7_a_file_of_another_model_is_still_refused(tmp_path):
    path = str(tmp_path / "other.weights.h5")
    network(7).save_weights(path)
    with pytest.raises(ValueError, match=r"shape"):
        trainer_of().load_weights(path)


def loaded_with(alpha, path):
    """A trainer built with an alpha, after it has loaded a file, and the warnings it gave."""
    trainer = trainer_of(deep(), mix=mixup(alpha=alpha))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.load_weights(path)
    return trainer, [str(warning.message) for warning in caught if warning.category is UserWarning]


def test_case_8_a_file_that_changes_the_alpha_of_the_constructor_warns(tmp_path):
    path = str(tmp_path / "trainer.weights.h5")
    trainer_of(deep(), mix=mixup(alpha=0.4)).save_weights(path)
    trainer, texts = loaded_with(0.0, path)
    assert trainer.alpha == pytest.approx(0.4)
    assert len(texts) == 1
    for word in ("alpha", "0.4", "0.0"):
        assert word in texts[0]


def test_case_8_a_file_of_the_same_training_does_not_warn(tmp_path):
    path = str(tmp_path / "trainer.weights.h5")
    first = trainer_of(deep(), mix=mixup(alpha=0.4))
    for alpha in (0.4, 0.1):  # set during training, for example by a schedule
        first.alpha = alpha
        first.save_weights(path)
        trainer, texts = loaded_with(0.4, path)
        assert trainer.alpha == pytest.approx(alpha)
        assert not texts


# Case 10: a number of classes for each output.


def many(as_dict):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,))
    outputs = {n: keras.layers.Dense(c, "softmax", name=n)(inputs) for n, c in (("root", 7), ("vowel", 3))}
    return keras.Model(inputs, outputs if as_dict else list(outputs.values()))


@pytest.mark.fast("True-trainer")
@pytest.mark.parametrize(
    ("as_dict", "where"), [(True, "trainer"), (True, "layer"), (False, "trainer"), (False, "inferred")]
)
def test_case_10_a_number_of_classes_for_each_output(where, as_dict):
    classes = {"root": 7, "vowel": 3}
    x, y = data(14, (5,)), {"root": ids(14, 7), "vowel": ids(14, 3)}
    settings = {"num_classes": classes if as_dict else list(classes.values())}
    loss = dict.fromkeys(classes, "categorical_crossentropy")
    trainer = trainer_of(
        many(as_dict),
        loss if as_dict else list(loss.values()),
        mix=mixup(**(settings if where == "layer" else {})),
        **(settings if where == "trainer" else {}),
    )
    given = y if as_dict else list(y.values())
    logged, plan = fit(trainer, x, given)["loss"], trainer.plan(0, 14)

    def loss_of(inputs, labels):
        p = predictions(trainer.model, inputs)
        p = p if as_dict else dict(zip(classes, p, strict=True))
        return sum(oracle.crossentropy(labels[name], p[name]).mean() for name in classes)

    encoded = {name: one_hot(y[name], classes[name]) for name in classes}
    mixed = {name: oracle.mixup(labels, *plan[:2]) for name, labels in encoded.items()}
    assert logged == pytest.approx(loss_of(oracle.mixup(x, *plan[:2]), mixed), rel=1e-4)
    assert evaluate(trainer, x, given)["loss"] == pytest.approx(loss_of(x, encoded), rel=1e-4)


def test_case_10_trainer_and_layer_agree():
    raises(
        lambda: kmix.MixTrainer(many(True), mix=mixup(num_classes={"root": 7}), num_classes={"root": 8}),
        "num_classes",
        errors=ValueError,
    )
    trainer = trainer_of(
        many(True), dict.fromkeys(("root", "vowel"), "categorical_crossentropy"), num_classes={"tone": 2}
    )
    y = {"root": ids(14, 7), "vowel": ids(14, 3)}
    with no_weight_changes(trainer.model):
        raises(lambda: fit(trainer, data(14, (5,)), y), "num_classes", "tone")


def test_case_10_in_the_config():
    trainer = kmix.MixTrainer(many(True), mix=mixup(), num_classes={"root": 7, "vowel": 3})
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(trainer)))
    assert keras.saving.deserialize_keras_object(serialized).num_classes == {"root": 7, "vowel": 3}


# target= of a trainer


@pytest.mark.fast("layer")
@pytest.mark.parametrize("where", ["trainer", "layer"])
def test_target_union_in_a_step(where):
    x, y = data(16, (5,)), data(16, (4,), 1).round()
    target = {"target": "union"}
    trainer = trainer_of(
        network(4, "sigmoid"),
        kmix.losses.SoftLabelCrossentropy(multi_label=True),
        mix=mixup(**(target if where == "layer" else {})),
        **(target if where == "trainer" else {}),
    )
    for labels in (y, y.astype("int32")):
        step = int(trainer.step)
        logged, plan = fit(trainer, x, labels)["loss"], trainer.plan(step, 16)
        assert ((plan.lam > 0) & (plan.lam < 1)).all()
        p = predictions(trainer.model, oracle.mixup(x, *plan[:2]))
        expected = oracle.binary_crossentropy(np.maximum(y, y[plan.permutation]), p).mean()
        assert logged == pytest.approx(expected, rel=1e-4)
    p = predictions(trainer.model, x)
    assert evaluate(trainer, x, y)["loss"] == pytest.approx(oracle.binary_crossentropy(y, p).mean(), rel=1e-4)


def test_target_of_each_output_and_weights():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,))
    outputs = {n: keras.layers.Dense(CLASSES, "softmax", name=n)(inputs) for n in ("mixed", "kept", "swapped")}
    model = keras.Model(inputs, outputs)
    trainer = trainer_of(
        model,
        dict.fromkeys(outputs, "categorical_crossentropy"),
        target={"mixed": "labels", "kept": "keep", "swapped": lambda y, plan: ops.take(y, plan.permutation, axis=0)},
    )
    x, w = data(12, (5,)), np.linspace(0.2, 2, 12, dtype="float32")
    y = {name: one_hot(ids(12, seed=i)) for i, name in enumerate(outputs)}
    logged, plan = fit(trainer, x, y, sample_weight=dict.fromkeys(y, w))["loss"], trainer.plan(0, 12)
    p = predictions(model, oracle.mixup(x, *plan[:2]))
    labels, weights = oracle.weighted(y["mixed"], w, *plan[:2])
    expected = {"mixed": labels, "kept": y["kept"], "swapped": y["swapped"][plan.permutation]}
    losses = [(weights * oracle.crossentropy(expected[name], p[name])).mean() for name in outputs]
    assert logged == pytest.approx(sum(losses), rel=1e-4)
    clean = predictions(model, x)
    losses = [oracle.crossentropy(y[name], clean[name]).mean() for name in outputs]
    assert evaluate(trainer, x, y)["loss"] == pytest.approx(sum(losses), rel=1e-4)


@pytest.mark.parametrize("way", ["mix", "placed", "at"])
def test_target_on_each_of_the_three_ways(way):
    x, y = data(12, (5,)), one_hot(ids(12))
    model = placed_model() if way == "placed" else deep()
    settings = {"placed": {"placed": True}, "at": {"mix": embedding(), "at": ["input"]}, "mix": {}}[way]
    trainer = trainer_of(model, target="keep", **settings)
    logged, plan = fit(trainer, x, y)["loss"], trainer.plan(0, 12)
    # Everything before the mixing layer of `placed` is linear, so mixing there equals mixing the inputs.
    p = predictions(deep() if way != "placed" else model, oracle.mixup(x, *plan[:2]))
    assert logged == pytest.approx(oracle.crossentropy(y, p).mean(), rel=1e-4)


def test_target_labels_is_written_out_for_positions_to_regress():
    x, y = data(6, (4, 2)), data(6, (4, 3), 1) * 9 - 4
    trainer = trainer_of(network(3, None, (4, 2)), "mse", target="labels")
    logged, plan = fit(trainer, x, y)["loss"], trainer.plan(0, 6)
    p = predictions(trainer.model, oracle.mixup(x, *plan[:2]))
    assert logged == pytest.approx(np.mean((oracle.mixup(y, *plan[:2]) - p) ** 2), rel=1e-4)


def test_target_of_a_trainer_that_is_unknown_or_unlike_the_labels():
    for target in ("mask", {"a": "boxes"}):
        raises(lambda target=target: kmix.MixTrainer(network(), mix=mixup(), target=target), "labels", "keep", "union")
    trainer = trainer_of(target={"a": "keep"})
    with no_weight_changes(trainer.model):
        raises(lambda: fit(trainer, data(6, (5,)), one_hot(ids())), "target")


def test_target_in_the_config():
    for target in ("keep", {"a": "labels", "b": "union"}, None):
        trainer = kmix.MixTrainer(network(), mix=mixup(), target=target)
        serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(trainer)))
        copy = keras.saving.deserialize_keras_object(serialized)
        assert copy.get_config()["target"] == trainer.get_config()["target"]


# Case 9: class weights of the layer, in the step.


def test_case_9_class_weights_of_the_layer_in_a_step():
    class_weight, x, y = {0: 1.0, 1: 3.0}, data(12, (5,)), ids(12)
    w = np.array([class_weight.get(int(label), 1.0) for label in y])
    for labels, settings, weights in (
        (y, {}, w),
        (one_hot(y), {}, w),
        (y, {"sample_weight": np.linspace(0.2, 2, 12, dtype="float32")}, w * np.linspace(0.2, 2, 12)),
    ):
        trainer = trainer_of(mix=mixup(class_weight=class_weight))
        logged = fit(trainer, x, labels, **settings)["loss"]
        assert logged == pytest.approx(mixed_loss(trainer, x, one_hot(y), weights=weights), rel=1e-4)
        clean = oracle.crossentropy(one_hot(y), predictions(trainer.model, x)).mean()
        assert evaluate(trainer, x, labels)["loss"] == pytest.approx(clean, rel=1e-4)


# Case 15: the step.


@pytest.mark.slow
@on_tensorflow
def test_case_15_the_step_as_a_number_under_mirrored_strategy():
    """TensorFlow's own variable refuses `int(trainer.step)`; this is what to write."""
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        trainer = trainer_of()
        fit(trainer, data(6, (5,)), ids(), batch_size=3)
    assert int(ops.convert_to_numpy(trainer.step)) == 2
    assert int(trainer.step.numpy()) == 2


def test_case_15_the_same_without_a_strategy():
    trainer = trainer_of()
    fit(trainer, data(6, (5,)), ids(), batch_size=3)
    assert int(ops.convert_to_numpy(trainer.step)) == int(trainer.step) == 2


@pytest.mark.fast("early")
@pytest.mark.parametrize("stops", ["early", "at the end"])
def test_case_15_early_stopping_restores_the_model_and_not_the_step(stops):
    x, y = data(12, (5,)), ids(12)
    seen = []
    trainer = trainer_of(rate=1.0)

    class Worse(keras.callbacks.Callback):
        """Says that the second epoch was the best."""

        def on_epoch_end(self, epoch, logs=None):
            logs["score"] = -abs(epoch - 1)
            seen.append(self.model.get_weights())
            trainer.alpha = 0.9 - epoch / 10

    stopping = keras.callbacks.EarlyStopping(
        "score", mode="max", patience=2 if stops == "early" else 9, restore_best_weights=True
    )
    logs = trainer.fit(
        x, y, batch_size=4, epochs=4 if stops == "early" else 3, verbose=0, callbacks=[Worse(), stopping]
    )
    epochs = len(logs.history["score"])
    assert int(trainer.step) == 3 * epochs
    assert trainer.alpha == pytest.approx(0.9 - (epochs - 1) / 10)
    for a, b in zip(trainer.model.get_weights(), seen[1], strict=True):
        np.testing.assert_array_equal(a, b)
    fit(trainer, x, y, batch_size=4)
    assert int(trainer.step) == 3 * epochs + 3


# Case 25: masks that the user computes from the ids.


TOKENS = np.array(
    [[4, 2, 7, 0, 0], [1, 9, 0, 0, 0], [3, 0, 0, 0, 0], [5, 6, 7, 8, 9], [2, 2, 0, 0, 0], [8, 0, 0, 0, 0]]
)


class Pool(keras.layers.Layer):
    """The mean over the positions that count. The mask has the name that KerasHub uses."""

    def call(self, x, padding_mask=None, attention_mask=None):
        mask = ops.cast(padding_mask if attention_mask is None else attention_mask, "float32")[..., None]
        return ops.sum(x * mask, axis=1) / ops.sum(mask, axis=1)


def with_own_mask(form, mixing):
    keras.utils.set_random_seed(1)
    tokens = keras.Input((5,), dtype="int32", name="tokens")
    inputs, mask = tokens, ops.not_equal(tokens, 0)
    if form == "input":
        mask = keras.Input((5,), dtype="bool", name="mask")
        inputs = [tokens, mask]
    if form == "integer":
        mask = ops.cast(mask, "int32")
    x = mixing(keras.layers.Embedding(10, 4, name="embed")(tokens))
    if form == "attention":
        pooled = Pool()(x, attention_mask=mask)
    elif form == "keras":
        pooled = keras.layers.GlobalAveragePooling1D()(x, mask=mask)
    else:
        pooled = Pool()(x, padding_mask=mask)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, "softmax", name="top")(pooled))


def united_loss(trainer, y):
    """The loss of the first step with united masks."""
    table, kernel, bias = trainer.model.get_weights()
    plan, mask = trainer.plan(0, len(y)), TOKENS != 0
    mask = mask | mask[plan.permutation]
    x = oracle.mixup(table[TOKENS], *plan[:2])
    pooled = np.einsum("bt,btd->bd", mask / mask.sum(axis=1, keepdims=True), x)
    return oracle.crossentropy(oracle.mixup(one_hot(y), *plan[:2]), oracle.softmax(pooled @ kernel + bias)).mean()


@pytest.mark.fast("attention")
@pytest.mark.parametrize("form", ["attention", "keras", "integer", "input"])
def test_case_25_masks_of_ones_own_are_united_or_the_way_is_named(form):
    y = ids()
    x = [TOKENS, TOKENS != 0] if form == "input" else TOKENS
    model = with_own_mask(form, embedding(name="mixing"))
    refusal = None
    try:
        trainer = trainer_of(model, placed=True)
        logged = fit(trainer, x, y)["loss"]
    except ValueError as error:
        refusal = str(error)
    if refusal is None:
        assert logged == pytest.approx(united_loss(trainer, y), rel=1e-4)
    else:
        assert "at=" in refusal


@pytest.mark.fast("padding")
@pytest.mark.parametrize("form", ["padding", "integer", "input"])
def test_case_25_and_18_the_way_unites_masks_of_every_form(form):
    """The same with `at=`. An integer mask is read as `mask != 0`."""
    y = ids()
    x = [TOKENS, TOKENS != 0] if form == "input" else TOKENS
    trainer = trainer_of(with_own_mask(form, lambda tensor: tensor), mix=embedding(), at=["embed"])
    assert fit(trainer, x, y)["loss"] == pytest.approx(united_loss(trainer, y), rel=1e-4)


# Case 26: class ids that came as floats.


FLOATS = {
    "(B,)": ids().astype("float32"),
    "(B, 1)": ids().astype("float32")[:, None],
    "float64": ids().astype("float64"),
}


@pytest.mark.fast("(B, 1)-kmix-3", "(B,)-categorical_crossentropy-None")
@pytest.mark.xla
@pytest.mark.parametrize(
    ("name", "loss", "num_classes"),
    [
        ("(B,)", "kmix", None),
        ("(B, 1)", "kmix", None),
        ("(B, 1)", "kmix", CLASSES),
        ("float64", "kmix", None),
        ("(B,)", "categorical_crossentropy", None),
        ("(B, 1)", "categorical_crossentropy", CLASSES),
    ],
)
def test_case_26_float_ids_are_encoded_or_refused(name, num_classes, loss):
    x, y = data(6, (5,)), one_hot(ids())
    loss = kmix.losses.SoftLabelCrossentropy() if loss == "kmix" else loss
    trainer = trainer_of(loss=loss, rate=0.5, metrics=["accuracy"], num_classes=num_classes)
    p = predictions(trainer.model, x)
    expected = {"loss": oracle.crossentropy(y, p).mean(), "accuracy": np.mean(p.argmax(axis=1) == ids())}
    right_or_refused(trainer.model, lambda: evaluate(trainer, x, FLOATS[name]), expected, "float")
    expected = {"loss": mixed_loss(trainer, x, y)}
    right_or_refused(trainer.model, lambda: fit(trainer, x, FLOATS[name]), expected, "float")
    assert all(np.isfinite(weight).all() for weight in trainer.model.get_weights())


def test_case_26_float_labels_of_one_column_are_probabilities():
    x, y = binary_batch()
    for loss in ("binary_crossentropy", kmix.losses.SoftLabelCrossentropy(multi_label=True)):
        trainer = trainer_of(network(1, "sigmoid"), loss)
        logged, plan = fit(trainer, x, y)["loss"], trainer.plan(0, 32)
        p = predictions(trainer.model, oracle.mixup(x, *plan[:2]))
        assert logged == pytest.approx(oracle.binary_crossentropy(oracle.mixup(y, *plan[:2]), p).mean(), rel=1e-4)


def test_case_26_values_to_regress_stay_values():
    x, y = data(6, (5,)), np.linspace(-3, 9, 6, dtype="float32")
    for values in (y, y[:, None]):
        trainer = trainer_of(network(1, None), "mse")
        logged, plan = fit(trainer, x, values)["loss"], trainer.plan(0, 6)
        p = predictions(trainer.model, oracle.mixup(x, *plan[:2]))[:, 0]
        assert logged == pytest.approx(np.mean((oracle.mixup(y, *plan[:2]) - p) ** 2), rel=1e-4)


# Case 27: labels whose form changes between calls.


FORMS = {
    "ids": ids(),
    "column": ids()[:, None],
    "one-hot": one_hot(ids()),
    "float column": ids().astype("float32")[:, None],
}


# The other backends trace each form separately.
ORDERS = list(itertools.permutations(FORMS, 2))[:: 1 if BACKEND == "tensorflow" else 4]


@pytest.mark.fast("ids-one-hot", "one-hot-float column")
@pytest.mark.parametrize(("first", "second"), ORDERS)
def test_case_27_every_order_of_the_forms(first, second):
    """TensorFlow traces the second form with an unknown last axis."""
    x, y = data(6, (5,)), one_hot(ids())
    trainer = trainer_of(metrics=["accuracy"])
    p = predictions(trainer.model, x)
    clean = {"loss": oracle.crossentropy(y, p).mean(), "accuracy": np.mean(p.argmax(axis=1) == ids())}
    for name in (first, second):
        right_or_refused(trainer.model, lambda name=name: evaluate(trainer, x, FORMS[name]), clean)
        mixed = {"loss": mixed_loss(trainer, x, y, step=int(trainer.step))}
        taken = right_or_refused(trainer.model, lambda name=name: fit(trainer, x, FORMS[name]), mixed)
        assert taken or name == "float column", "a form that is right alone is right in every order"


@pytest.mark.fast("ids-None", "column-rank")
@pytest.mark.parametrize(
    ("form", "known"),
    [(form, known) for form in FORMS for known in (None, "rank") if BACKEND == "tensorflow" or form == "column"],
)
def test_case_27_labels_of_a_python_function(known, form):
    x, labels, y = data(6, (5,)), FORMS[form], one_hot(ids())

    def vague(x, y):
        hidden = tf.numpy_function(lambda value: value, [y], labels.dtype)
        if known:
            hidden = tf.ensure_shape(hidden, [None] * labels.ndim)
        return tf.ensure_shape(x, (None, 5)), hidden

    ds = tf.data.Dataset.from_tensors((x, labels)).map(vague)
    trainer = trainer_of(rate=0.5)
    clean = {"loss": oracle.crossentropy(y, predictions(trainer.model, x)).mean()}
    mixed = {"loss": mixed_loss(trainer, x, y)}
    right_or_refused(trainer.model, lambda: trainer.evaluate(ds, verbose=0, return_dict=True), clean)
    right_or_refused(
        trainer.model,
        lambda: {name: values[0] for name, values in trainer.fit(ds, verbose=0).history.items()},
        mixed,
    )


# Case 28: a model that is not yet built.


def unbuilt():
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.layers.Dense(6), keras.layers.Dense(4), keras.layers.Dense(CLASSES, "softmax")])


def test_case_28_to_build_a_trainer_is_to_build_its_model():
    model = unbuilt()
    trainer = trainer_of(model, num_classes=CLASSES)
    assert not trainer.built
    trainer.build((None, 5))
    assert trainer.built
    assert model.built
    assert len(model.weights) == 6
    assert {id(weight) for weight in model.weights} <= {id(weight) for weight in trainer.weights}
    assert len(trainer.trainable_weights) == 6


def test_case_28_weights_are_loaded_after_build(tmp_path):
    x, y, path = data(12, (5,)), ids(12), str(tmp_path / "trainer.weights.h5")
    first = trainer_of(unbuilt(), rate=0.5, num_classes=CLASSES)
    fit(first, x, y, batch_size=4)
    first.save_weights(path)
    # As tuners do: build a new trainer and load the best weights.
    again = trainer_of(unbuilt(), num_classes=CLASSES)
    again.build((None, 5))
    again.load_weights(path)
    assert_same_weights(again.model, first.model)
    np.testing.assert_array_equal(predictions(again, x), predictions(first, x))
    bare = unbuilt()
    bare.build((None, 5))
    bare.load_weights(path)
    assert_same_weights(bare, first.model)


def test_case_28_with_a_layer_placed_and_a_sub_classed_model():
    model = keras.Sequential([keras.layers.Dense(6), mixup(), keras.layers.Dense(CLASSES, "softmax")])
    trainer = kmix.MixTrainer(model, num_classes=CLASSES)
    trainer.build((None, 5))
    assert len(model.weights) == 4

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.top = keras.layers.Dense(CLASSES)

        def build(self, input_shape):
            self.top.build(input_shape)
            self.built = True

        def call(self, x):
            return self.top(x)

    trainer = kmix.MixTrainer(Own(), mix=mixup(num_classes=CLASSES))
    trainer.build((None, 5))
    assert len(trainer.model.weights) == 2


@pytest.mark.slow
def test_case_28_a_file_of_a_trainer_that_was_never_given_a_shape(tmp_path):
    x, y = data(12, (5,)), ids(12)
    trainer = trainer_of(unbuilt(), rate=0.5, num_classes=CLASSES)
    fit(trainer, x, y, batch_size=4)
    trainer.save(tmp_path / "trainer.keras")
    loaded = keras.saving.load_model(tmp_path / "trainer.keras")
    assert_same_weights(loaded.model, trainer.model)
    assert int(loaded.step) == 3


# Case 30: padding that both partners have, in a compiled step.


@pytest.mark.fast("-10.0")
@pytest.mark.parametrize("value", [-10.0, -0.1])
def test_case_30_masking_behind_mixed_inputs(value):
    padded = np.arange(9) >= (np.arange(32) % 7 + 1)[:, None]
    x, y = data(32, (9, 2)), ids(32)
    x[padded] = value
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((9, 2)), keras.layers.Masking(value), keras.layers.GlobalAveragePooling1D()])
    model.add(keras.layers.Dense(CLASSES, "softmax"))
    # Small, so that no probability falls below what the loss clips.
    model.set_weights([weight / 10 for weight in model.get_weights()])
    trainer = trainer_of(model)
    logged, plan = fit(trainer, x, y)["loss"], trainer.plan(0, 32)
    counts = ~(padded & padded[plan.permutation])
    mixed = oracle.mixup(x, *plan[:2])
    pooled = np.einsum("bt,btd->bd", counts / counts.sum(axis=1, keepdims=True), mixed)
    kernel, bias = model.get_weights()
    p = oracle.softmax(pooled @ kernel + bias)
    assert logged == pytest.approx(oracle.crossentropy(oracle.mixup(one_hot(y), *plan[:2]), p).mean(), rel=1e-4)


# Case 32: columns that are not classes.


def metric_loss(y_true, y_pred):
    """A loss on embeddings and one-hot labels: embeddings of one class should be close."""
    near = ops.matmul(y_true, ops.transpose(y_true))
    return ops.mean((ops.matmul(y_pred, ops.transpose(y_pred)) - near) ** 2, axis=-1)


NO_CLASSES = {
    "function": lambda: metric_loss,
    "mse": lambda: "mse",
    "cosine": lambda: keras.losses.CosineSimilarity(),
}
TELLING = {
    "kmix": lambda: kmix.losses.SoftLabelCrossentropy(),
    "name": lambda: "categorical_crossentropy",
    "function": lambda: keras.losses.categorical_crossentropy,
    "focal": lambda: keras.losses.CategoricalFocalCrossentropy(),
    "binary": lambda: keras.losses.BinaryCrossentropy(),
    "binary focal": lambda: keras.losses.BinaryFocalCrossentropy(),
    "hinge": lambda: keras.losses.CategoricalHinge(),
    "divergence": lambda: keras.losses.KLDivergence(),
}


@pytest.mark.fast("function")
@pytest.mark.parametrize("name", NO_CLASSES)
def test_case_32_the_number_of_classes_is_asked_for(name):
    x, y, loss = data(12, (5,)), ids(12), NO_CLASSES[name]()
    trainer = trainer_of(network(8, None), loss, rate=0.5)
    with no_weight_changes(trainer.model):
        raises(lambda: fit(trainer, x, y), "num_classes")
        raises(lambda: evaluate(trainer, x, y), "num_classes")


def test_case_32_with_the_number_the_labels_have_it():
    x, y = data(12, (5,)), ids(12)
    trainer = trainer_of(network(8, None), metric_loss, num_classes=CLASSES)
    logged, plan = fit(trainer, x, y)["loss"], trainer.plan(0, 12)
    p = predictions(trainer.model, oracle.mixup(x, *plan[:2]))
    labels = oracle.mixup(one_hot(y), *plan[:2])
    assert logged == pytest.approx(np.mean((p @ p.T - labels @ labels.T) ** 2), rel=1e-3)


@pytest.mark.fast("kmix", "binary focal", "function")
@pytest.mark.parametrize("name", TELLING)
def test_case_32_the_loss_may_tell_that_columns_are_classes(name):
    x, y = data(12, (5,)), ids(12)
    # On TensorFlow, Keras takes the input of a softmax for the logits of a binary loss.
    trainer = trainer_of(network(activation="sigmoid" if "binary" in name else "softmax"), TELLING[name]())
    logged, plan = fit(trainer, x, y)["loss"], trainer.plan(0, 12)
    labels, p = oracle.mixup(one_hot(y), *plan[:2]), predictions(trainer.model, oracle.mixup(x, *plan[:2]))
    loss = keras.losses.get(TELLING[name]())
    expected = float(np.mean(to_numpy(loss(labels.astype("float32"), p))))
    assert logged == pytest.approx(expected, rel=1e-4)


def test_case_32_each_output_by_its_own_loss():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,))
    outputs = {"kind": keras.layers.Dense(CLASSES, "softmax", name="kind")(inputs)}
    outputs["code"] = keras.layers.Dense(8, name="code")(inputs)
    losses = {"kind": "categorical_crossentropy", "code": metric_loss}
    y = {"kind": ids(12), "code": ids(12)}
    trainer = trainer_of(keras.Model(inputs, outputs), losses)
    with no_weight_changes(trainer.model):
        raises(lambda: fit(trainer, data(12, (5,)), y), "num_classes")
    trainer = trainer_of(keras.Model(inputs, outputs), losses, num_classes={"code": CLASSES})
    x = data(12, (5,))
    logged, plan = fit(trainer, x, y)["loss"], trainer.plan(0, 12)
    p, labels = predictions(trainer.model, oracle.mixup(x, *plan[:2])), oracle.mixup(one_hot(y["kind"]), *plan[:2])
    expected = oracle.crossentropy(labels, p["kind"]).mean()
    expected += np.mean((p["code"] @ p["code"].T - labels @ labels.T) ** 2)
    assert logged == pytest.approx(expected, rel=1e-3)


# Case 34: targets of several integer columns, and TFLite.


@pytest.mark.xla
@pytest.mark.parametrize("loss", ["mse", "kmix"])
def test_case_34_integer_columns_that_are_not_multi_hot_are_not_trained_in_silence(loss):
    x, y = data(6, (5,)), ids(18, 9).reshape(6, 3)
    trainer = trainer_of(network(3, None), "mse" if loss == "mse" else None)
    try:
        logged = fit(trainer, x, y)["loss"]
    except REFUSALS:
        return
    assert np.isnan(logged)


def test_case_34_multi_hot_columns_and_floats_are_right():
    x, bits = data(6, (5,)), data(6, (3,), 1).round()
    for y in (bits.astype("int32"), bits.astype("bool"), bits * 9 - 3):
        multi_hot = y.dtype != "float32"
        loss = "binary_crossentropy" if multi_hot else "mse"
        trainer = trainer_of(network(3, "sigmoid" if multi_hot else None), loss)
        logged, plan = fit(trainer, x, y)["loss"], trainer.plan(0, 6)
        p, labels = predictions(trainer.model, oracle.mixup(x, *plan[:2])), oracle.mixup(y, *plan[:2])
        expected = oracle.binary_crossentropy(labels, p) if multi_hot else (labels - p) ** 2
        assert logged == pytest.approx(np.mean(expected), rel=1e-4)


@pytest.mark.fast("model")
@on_tensorflow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("which", ["model", "trainer"])
def test_case_34_tflite(which):
    x, y = data(6, (5,)), ids()
    trainer = trainer_of(rate=0.5)
    fit(trainer, x, y)
    converted = trainer.model if which == "model" else trainer
    content = tf.lite.TFLiteConverter.from_keras_model(converted).convert()
    interpreter = tf.lite.Interpreter(model_content=content)
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], (6, 5))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    served = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(served, predictions(trainer.model, x), atol=1e-5)


# What was already correct.


class Interrupted(Exception):
    pass


@pytest.mark.slow
def test_backup_and_restore_with_a_choice_and_a_schedule_is_bitwise(tmp_path):
    x, y = data(12, (4, 4, 1)), ids(12)

    def run(directory, stop_at=None):
        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(CLASSES, "softmax")]
        )
        mix = kmix.RandomChoice([mixup(), kmix.CutMix(seed=2, data_format="channels_last")], seed=5)
        trainer = kmix.MixTrainer(model, mix=mix)
        trainer.compile(keras.optimizers.Adam(0.01), kmix.losses.SoftLabelCrossentropy())

        class Stop(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == stop_at:
                    raise Interrupted

        schedule = kmix.callbacks.AlphaScheduler(mix.layers, lambda epoch: 0.2 + 0.3 * epoch)
        callbacks = [keras.callbacks.BackupAndRestore(str(tmp_path / directory)), schedule, Stop()]
        trainer.fit(x, y, batch_size=4, epochs=5, shuffle=False, verbose=0, callbacks=callbacks)
        return trainer

    with pytest.raises(Interrupted):
        run("stopped", stop_at=3)
    resumed, whole = run("stopped"), run("whole")
    assert int(resumed.step) == int(whole.step) == 15
    assert_same_weights(resumed.model, whole.model)


@pytest.mark.fast("label smoothing")
@pytest.mark.parametrize("kind", ["label smoothing", "binary cross-entropy"])
def test_losses_with_settings_under_a_choice(kind):
    x, y = data(12, (4, 4, 1)), ids(12)
    keras.utils.set_random_seed(1)
    smooth = kind == "label smoothing"
    top = keras.layers.Dense(CLASSES, "softmax" if smooth else "sigmoid")
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), top])
    mix = kmix.RandomChoice([mixup(), kmix.CutMix(seed=2, data_format="channels_last")], seed=5)
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1) if smooth else "binary_crossentropy"
    trainer = trainer_of(model, loss, mix=mix)
    kinds = set()
    for step in range(6):
        logged, plan = fit(trainer, x, y)["loss"], trainer.plan(step, 12, (4, 4))
        blended = plan.box is None
        mixed = oracle.mixup(x, *plan[:2]) if blended else oracle.cutmix(x, plan.box, plan.permutation)
        p, labels = predictions(model, mixed), oracle.mixup(one_hot(y), *plan[:2])
        smoothed = labels * 0.9 + 0.1 / CLASSES
        expected = oracle.crossentropy(smoothed, p) if smooth else oracle.binary_crossentropy(labels, p)
        assert logged == pytest.approx(expected.mean(), rel=1e-4)
        kinds.add(blended)
    assert kinds == {True, False}


def test_freezing_and_unfreezing():
    x, y = data(12, (5,)), ids(12)
    trainer = trainer_of(deep(), rate=0.5)
    hidden, top = trainer.model.get_layer("hidden_0"), trainer.model.get_layer("top")
    for trainable in (False, True):
        hidden.trainable = trainable
        trainer.compile(keras.optimizers.SGD(0.5), kmix.losses.SoftLabelCrossentropy())
        before = hidden.get_weights()[0], top.get_weights()[0]
        fit(trainer, x, y, batch_size=4)
        assert np.array_equal(before[0], hidden.get_weights()[0]) is not trainable
        assert not np.array_equal(before[1], top.get_weights()[0])
    assert int(trainer.step) == 6


@pytest.mark.slow
def test_swapped_weights_of_a_moving_average():
    x, y = data(12, (5,)), ids(12)
    plain, trainer = trainer_of(rate=0.5), trainer_of()
    trainer.compile(keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.9), kmix.losses.SoftLabelCrossentropy())
    logs = fit(trainer, x, y, epochs=3, validation_data=(x, y), callbacks=[keras.callbacks.SwapEMAWeights()])
    average = None
    for _ in range(3):
        fit(plain, x, y)
        kernel = plain.model.get_weights()[0]
        average = kernel if average is None else 0.9 * average + 0.1 * kernel
    np.testing.assert_allclose(trainer.model.get_weights()[0], average, atol=1e-6)
    assert not np.allclose(average, kernel)
    assert int(trainer.step) == 3
    assert logs["val_loss"] == pytest.approx(evaluate(trainer, x, y)["loss"], rel=1e-5)


class Mixed(keras.utils.PyDataset):
    """Batches mixed by their number, on access or in advance."""

    def __init__(self, layer, x, y, before=False, **settings):
        super().__init__(**settings)
        self.layer, self.x, self.y = layer, x, y
        self.batches = [self.mixed(i) for i in range(4)] if before else None

    def __len__(self):
        return 4

    def mixed(self, i):
        rows = slice(3 * i, 3 * i + 3)
        return self.layer.at_step(i, (self.x[rows], self.y[rows]))

    def __getitem__(self, i):
        return self.mixed(i) if self.batches is None else self.batches[i]


@pytest.mark.fast("threads")
@pytest.mark.parametrize(
    "settings",
    [{}, {"workers": 3}, {"workers": 2, "use_multiprocessing": True}],
    ids=["one", "threads", "processes"],
)
@pytest.mark.filterwarnings("ignore:.*fork:RuntimeWarning", "ignore:.*fork:DeprecationWarning")
def test_batches_of_threads_and_processes_are_mixed_at_their_step(settings):
    x, y, layer, trained = data(12, (5,)), ids(12), mixup(num_classes=CLASSES), []
    for before in (False, True):
        model = network()
        model.compile(keras.optimizers.SGD(0.5), "categorical_crossentropy")
        model.fit(Mixed(layer, x, y, before, **settings), shuffle=False, verbose=0)
        trained.append(model)
    assert_same_weights(*trained)
