"""What a MixTrainer refuses, and what it says."""

import keras
import numpy as np
import oracle
import pytest

import kmix
from kmix.layers.training_step import TrainingStep, run_step

X, Y = np.zeros((8, 6), "float32"), np.arange(8) % 4


def functional(*layers):
    inputs = tensor = keras.Input((6,))
    for layer in layers:
        tensor = layer(tensor)
    return keras.Model(inputs, keras.layers.Dense(4, name="top")(tensor))


class Subclassed(keras.Model):
    def __init__(self, *layers):
        super().__init__()
        self.inner, self.top = list(layers), keras.layers.Dense(4)

    def call(self, x):
        for layer in self.inner:
            x = layer(x)
        return self.top(x)


def dense(name=None):
    return keras.layers.Dense(5, name=name)


PLAIN = functional(dense("hidden"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kmix.MixTrainer(PLAIN), "needs something that mixes"),
        (lambda: kmix.MixTrainer(functional(kmix.MixUp()), mixer=kmix.MixUp()), "Mix in one way.*`mixer`"),
        (lambda: kmix.MixTrainer(functional(kmix.MixUp()), places=["top"]), "Mix in one way.*`places`"),
        (lambda: kmix.MixTrainer(PLAIN, places=["top"]), "needs something that mixes"),
        (
            lambda: kmix.MixTrainer(PLAIN, mixer=kmix.CutMix(), places=["hidden"]),
            "only MixUp and EmbeddingMixup.*CutMix",
        ),
        (lambda: kmix.MixTrainer(PLAIN, mixer=kmix.RandomChoice([kmix.MixUp()]), places=["hidden"]), "RandomChoice"),
        (lambda: kmix.MixTrainer(PLAIN, mixer=kmix.MixUp(), places=["hiden"]), "'hiden'.*Near matches: hidden"),
        (lambda: kmix.MixTrainer(PLAIN, mixer=kmix.MixUp(), places=[]), "`places` must hold names"),
        (lambda: kmix.MixTrainer(PLAIN, mixer=kmix.MixUp(), places=["top", "top"]), "each once"),
        (lambda: kmix.MixTrainer(Subclassed(), mixer=kmix.MixUp(), places=["top"]), "sub-classed.*EmbeddingMixup"),
        (lambda: kmix.MixTrainer(keras.Sequential([dense()]), mixer=kmix.MixUp(), places=["x"]), "keras.Input"),
        (
            lambda: kmix.MixTrainer(keras.Sequential([keras.Input((8, 8, 3)), kmix.CutMix(), keras.layers.Flatten()])),
            "MixTrainer\\(model, kmix.CutMix",
        ),
        (lambda: kmix.MixTrainer(Subclassed(kmix.MixUp(0.1), kmix.MixUp(0.2))), "agree on `alpha`.*0.1.*0.2"),
        (lambda: kmix.MixTrainer(Subclassed(kmix.MixUp(per="batch"), kmix.MixUp())), "agree on `per`"),
        (lambda: kmix.MixTrainer(Subclassed(kmix.MixUp(rate=0.5), kmix.MixUp())), "agree on `rate`"),
        (lambda: kmix.MixTrainer(functional(kmix.MixUp(), dense(), kmix.EmbeddingMixup())), "one branch.*mix twice"),
        (lambda: kmix.MixTrainer(functional(kmix.MixUp(), functional(kmix.MixUp()))), "one branch"),
        (lambda: kmix.MixTrainer(functional(functional(kmix.MixUp(), kmix.MixUp()))), "one branch"),
        (lambda: kmix.MixTrainer(kmix.MixTrainer(PLAIN, mixer=kmix.MixUp()), mixer=kmix.MixUp()), "Wrap its `.model`"),
        (lambda: kmix.MixTrainer(PLAIN, mixer=kmix.MixUp(num_classes=3), num_classes=4), "agree on `num_classes`"),
        (lambda: kmix.MixTrainer(PLAIN, mixer=kmix.MixUp(), within="device"), "within"),
        (lambda: kmix.MixTrainer(PLAIN, mixer=kmix.MixUp(), seed=-1), "seed"),
    ],
)
def test_construction(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def called_twice(layer):
    inputs = keras.Input((6,))
    return keras.Model(inputs, keras.layers.Dense(4)(layer(layer(inputs))))


@pytest.mark.parametrize(
    ("make", "place", "message"),
    [
        (lambda: called_twice(keras.layers.Dense(6, name="d")), "d", "passed twice.*'d'"),
        (
            lambda: called_twice(keras.Sequential([keras.Input((6,)), keras.layers.Dense(6, name="d")], name="s")),
            "s/d",
            "'s'",
        ),
        (lambda: functional(dense("input")), "input", "stands for the inputs.*Give the layer another name"),
        (
            lambda: keras.Sequential([keras.Input((6,), dtype="uint8"), dense()]),
            "input",
            "dtype uint8.*Cast",
        ),
    ],
)
def test_places(make, place, message):
    with pytest.raises(ValueError, match=message):
        kmix.MixTrainer(make(), mixer=kmix.EmbeddingMixup(), places=[place])


def test_a_nested_layer_may_be_called_input():
    body = keras.Sequential([keras.Input((6,)), dense("input")], name="body")
    trainer = kmix.MixTrainer(functional(body), mixer=kmix.EmbeddingMixup(1.0, seed=1), places=["body/input"])
    plan = kmix.EmbeddingMixup(1.0, seed=1).plan(0, 8)._replace(place=0)
    x = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
    with run_step(TrainingStep(plan, places=1)):
        mixed = keras.ops.convert_to_numpy(trainer(x, training=True))
    # Everything is linear, so mixing the outputs equals mixing before.
    np.testing.assert_allclose(mixed, oracle.mixup(trainer.model.predict(x, verbose=0), *plan[:2]), atol=1e-5)


def residual():
    inputs = keras.Input((6,))
    return keras.Model(
        inputs, keras.layers.Add(name="add")([inputs, keras.layers.Dense(6, name="branch")(inputs)]), name="body"
    )


def early_output():
    inputs = keras.Input((6,))
    first = dense("first")(inputs)
    return keras.Model(inputs, [keras.layers.Dense(4)(first), keras.layers.Dense(4)(dense("second")(first))])


def two_inputs(mixup=None):
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    return keras.Model([a, b], keras.layers.Concatenate(name="joined")([mixup(a) if mixup else a, b]))


@pytest.mark.parametrize(
    ("make", "settings", "name"),
    [
        (residual, {"places": ["branch"]}, "branch"),
        (lambda: functional(residual()), {"places": ["body/branch"]}, "body/branch"),
        (early_output, {"places": ["input", "first", "second"]}, "second"),
        (two_inputs, {"places": ["a"]}, "a"),
        (lambda: two_inputs(kmix.EmbeddingMixup(name="mixup")), {}, "mixup"),
    ],
)
def test_ways_around_a_place_are_warned_of(make, settings, name):
    with pytest.warns(UserWarning, match=f"passes '{name}': what takes another path is not mixed"):
        kmix.MixTrainer(make(), mixer=kmix.MixUp() if settings else None, **settings)


def test_places_on_every_way_are_not_warned_of():
    for model, places in (
        (residual(), ["input", "add"]),
        (early_output(), ["first"]),
        (two_inputs(), ["input", "joined"]),
    ):
        kmix.MixTrainer(model, mixer=kmix.MixUp(), places=places)
    ids = keras.Input((6,), dtype="int32")
    tokens = keras.layers.Embedding(9, 4, name="tokens")(ids)
    counted = keras.ops.cast(keras.ops.not_equal(ids, 0), "float32")[..., None]
    kmix.MixTrainer(keras.Model(ids, tokens * counted), mixer=kmix.MixUp(), places=["tokens"])


class Wrapped(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.mixup = kmix.EmbeddingMixup()

    def call(self, x, training=None):
        return self.mixup(x, training=training)


def test_two_ways_to_mix_are_refused_where_they_meet():
    model = keras.Sequential([keras.Input((6,)), Wrapped(), dense("hidden")])
    with pytest.raises(ValueError, match="Mix in one way"):
        compiled(model, kmix.MixUp(), num_classes=5, places=["hidden"]).fit(X, Y, verbose=0)


class Forgetful(Subclassed):
    def call(self, x):
        return self.top(x)


class InInference(Subclassed):
    def call(self, x):
        return self.top(self.inner[0](x, training=False))


@pytest.mark.filterwarnings("ignore:.*unbuilt state")
@pytest.mark.parametrize("model", [Forgetful, InInference])
def test_a_model_that_mixes_nothing_is_refused(model):
    trainer = kmix.MixTrainer(model(kmix.MixUp()), num_classes=4)
    trainer.compile("sgd", "mse")
    with pytest.raises(ValueError, match="labels of this training step were mixed, the inputs were not"):
        trainer.fit(X, Y, verbose=0)


def test_two_branches_may_both_mix():
    a, b = keras.Input((6,)), keras.Input((6,))

    def trainer(**seeds):
        first, second = kmix.MixUp(seed=seeds.get("first")), kmix.EmbeddingMixup(seed=seeds.get("second"))
        return kmix.MixTrainer(keras.Model([a, b], keras.layers.Concatenate()([first(a), second(b)])))

    # Seeds that were drawn are not compared.
    for seeds in ({}, {"first": 1}, {"first": 1, "second": 1}):
        assert trainer(**seeds).alpha == 0.2
    with pytest.raises(ValueError, match="agree on `seed`"):
        trainer(first=1, second=2)


def test_wrong_types():
    with pytest.raises(TypeError, match=r"Keras model.*Dense"):
        kmix.MixTrainer(dense(), mixer=kmix.MixUp())
    with pytest.raises(TypeError, match=r"mixing layer.*Dense"):
        kmix.MixTrainer(PLAIN, mixer=dense())
    with pytest.raises(TypeError, match="list of names"):
        kmix.MixTrainer(PLAIN, mixer=kmix.MixUp(), places="hidden")


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "sparse_categorical_crossentropy"},
        {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
        {"loss": keras.losses.sparse_categorical_crossentropy},
        {"loss": "categorical_crossentropy", "metrics": ["accuracy", "sparse_categorical_accuracy"]},
        {"loss": "categorical_crossentropy", "metrics": [keras.metrics.SparseTopKCategoricalAccuracy(2)]},
        {"loss": {"top": "sparse_categorical_crossentropy"}},
        {"loss": "mse", "weighted_metrics": [[keras.metrics.SparseCategoricalAccuracy()]]},
        {"loss": "mse", "metrics": [keras.metrics.MeanIoU(2)]},
        {"loss": "mse", "metrics": [keras.metrics.IoU(2, [1])]},
    ],
)
def test_sparse_losses_and_metrics(settings):
    with pytest.raises(ValueError, match="SoftLabelCrossentropy"):
        kmix.MixTrainer(PLAIN, mixer=kmix.MixUp()).compile("sgd", **settings)


@pytest.mark.parametrize(
    "settings", [{"loss": "mse"}, {"loss": None, "metrics": [keras.metrics.CategoricalAccuracy()]}], ids=str
)
def test_losses_and_metrics_that_cannot_read_pairs(settings):
    with pytest.raises(ValueError, match="read `LabelPairs`"):
        kmix.MixTrainer(PLAIN, mixer=kmix.MixUp(target=kmix.targets.LabelPairs(9))).compile("sgd", **settings)


def compiled(model, mixer=None, loss="categorical_crossentropy", **settings):
    trainer = kmix.MixTrainer(model, mixer=mixer or kmix.MixUp(), **settings)
    trainer.compile("sgd", loss)
    return trainer


@pytest.mark.parametrize(
    ("trainer", "data", "message"),
    [
        (lambda: compiled(functional(dense())), (X,), "without labels"),
        (lambda: compiled(Subclassed()), (X, Y), "do not tell the number of classes.*num_classes="),
        (
            lambda: compiled(
                keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, "sigmoid")]), loss="binary_crossentropy"
            ),
            (X, Y),
            "Cast the labels",
        ),
        (lambda: compiled(functional(dense())), (X, np.zeros((8, 3), "int32")), "multi-hot"),
        (lambda: compiled(keras.Sequential([keras.Input((6, 1)), dense()])), (X[..., None], X.astype("int32")), "each"),
        (lambda: compiled(functional(dense())), (X, [Y, Y]), "do not tell"),
        (lambda: compiled(functional(dense())), (X.astype(int), Y), "Ids"),
        (lambda: compiled(functional(dense()), kmix.EmbeddingMixup()), (X.astype("uint8"), Y), "Embedding layer"),
        (lambda: compiled(functional(dense()), kmix.CutMix()), (X, Y), "spatial axes"),
    ],
)
def test_data(trainer, data, message):
    trainer = trainer()
    trainer(data[0])
    weights = trainer.get_weights()
    with pytest.raises(ValueError, match=message):
        trainer.fit(*data, batch_size=8, verbose=0)
    for before, after in zip(weights, trainer.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("make", [functional, Subclassed])
def test_evaluation_refuses_another_number_of_classes_than_the_model_has(make):
    trainer = compiled(make(), loss=kmix.losses.SoftLabelCrossentropy(from_logits=True), num_classes=5)
    with pytest.raises(ValueError, match="shape"):
        trainer.evaluate(X, Y, batch_size=8, verbose=0)


def test_the_batch_must_be_the_first_axis_inside_of_the_model():
    fold, unfold = (keras.layers.Lambda(lambda x, s=s: keras.ops.reshape(x, s)) for s in ((-1, 2), (-1, 6, 2)))
    target = kmix.targets.Labels(any_shape=True)
    trainer = kmix.MixTrainer(keras.Sequential([keras.Input((6, 2)), fold, kmix.MixUp(), unfold]), target=target)
    trainer.compile("sgd", "mse", run_eagerly=True)
    x = np.zeros((8, 6, 2), "float32")
    with pytest.raises(ValueError, match="first axis"):
        trainer.fit(x, x, batch_size=8, verbose=0)


def test_alpha_that_follows_a_schedule_cannot_be_set():
    trainer = kmix.MixTrainer(PLAIN, mixer=kmix.MixUp(kmix.schedules.Linear(0.0, 1.0, 10)))
    for assign in (lambda: setattr(trainer, "alpha", 0.1), lambda: kmix.callbacks.AlphaScheduler(trainer, lambda e: 1)):
        with pytest.raises(ValueError, match="follows a schedule"):
            assign()
    trainer = kmix.MixTrainer(PLAIN, mixer=kmix.MixUp(0.2))
    with pytest.raises(ValueError, match="when the layer is built"):
        trainer.alpha = kmix.schedules.Linear(0.0, 1.0, 10)


def test_alphas_that_differ_have_no_common_value():
    choice = kmix.RandomChoice([kmix.MixUp(0.1), kmix.CutMix(1.0)])
    trainer = kmix.MixTrainer(PLAIN, mixer=choice)
    with pytest.raises(ValueError, match=r"different alphas.*0\.1.*1\.0"):
        _ = trainer.alpha
    trainer.alpha = 0.3
    assert trainer.alpha == choice.layers[0].alpha == choice.layers[1].alpha == 0.3


def test_plain_fit_of_a_model_with_a_mixing_layer_names_the_trainer():
    model = functional(kmix.EmbeddingMixup())
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="MixTrainer"):
        model.fit(X, np.eye(4)[Y], verbose=0)


@pytest.mark.parametrize(
    "reads",
    [
        lambda: keras.layers.Embedding(9, 4),
        lambda: keras.Sequential([keras.Input((6,)), keras.layers.Embedding(9, 4)]),
        lambda: keras.layers.CategoryEncoding(9, output_mode="multi_hot"),
        lambda: keras.Sequential(
            [
                keras.Input((6,)),
                keras.layers.Reshape((6, 1)),
                keras.layers.TimeDistributed(keras.layers.Embedding(9, 4)),
            ]
        ),
    ],
    ids=["Embedding", "nested", "CategoryEncoding", "TimeDistributed"],
)
def test_float_ids_are_refused_before_layers_that_read_ids(reads):
    model = keras.Sequential([keras.Input((6,)), reads(), keras.layers.Flatten(), keras.layers.Dense(4)])
    with pytest.raises(ValueError, match="Ids cannot be blended"):
        kmix.MixTrainer(model, kmix.MixUp(1.0))


def test_class_ids_for_a_single_column_are_refused():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, activation="sigmoid")])
    trainer = kmix.MixTrainer(model, kmix.MixUp(1.0, num_classes=2))
    trainer.compile("sgd", "binary_crossentropy", run_eagerly=True)
    with pytest.raises(ValueError, match="cast the labels to float"):
        trainer.train_on_batch(np.ones((4, 6), "float32"), np.array([0, 1, 1, 0]))


def test_token_ids_are_refused_before_the_embedding():
    with pytest.raises(ValueError, match="after the Embedding layer"):
        keras.Sequential([keras.Input((6,), dtype="int32"), kmix.EmbeddingMixup()])
