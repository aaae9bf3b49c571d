"""Labels of a trainer by output: evaluation as of the bare model, and what can read mixed labels."""

import functools

import keras
import numpy as np
import oracle
import pytest
from helpers import data, ids, raises, to_numpy
from keras import ops

import kmix

CLASSES = 3
# Compiling with XLA would take half of the time of these tests; other files test it.
PLAIN = {"jit_compile": False} if keras.backend.backend() == "tensorflow" else {}
SGD = keras.optimizers.SGD

GAPS = kmix.targets.Labels(nan_is_missing=True)


def mixup(**settings):
    return kmix.MixUp(**{"alpha": 1.0, "seed": 3, **settings})


def cutmix(**settings):
    return kmix.CutMix(1.0, data_format="channels_last", seed=3, **settings)


def network(columns=CLASSES, activation="softmax", shape=(5,), padding=False):
    keras.utils.set_random_seed(1)
    inputs = tensor = keras.Input(shape)
    tensor = keras.layers.Masking(0.0)(tensor) if padding else tensor
    return keras.Model(inputs, keras.layers.Dense(columns, activation=activation, name="top")(tensor))


def trainer_of(model, mixer, loss, metrics=None, weighted_metrics=None, **settings):
    trainer = kmix.MixTrainer(model, mixer, **settings)
    trainer.compile(SGD(0.0), loss, metrics=metrics, weighted_metrics=weighted_metrics, **PLAIN)
    return trainer


def scores(model, x, y):
    return model.evaluate(x, y, batch_size=len(x), verbose=0, return_dict=True)


# Evaluation.


def padded():
    x = data(6, (4, 2))
    x[:, 2:] = 0
    return x


PICTURES = {
    # The labels, the model, the loss, the mixer and the settings of the trainer.
    "masks": lambda: (
        data(6, (4, 4, 2)),
        ids(96).reshape(6, 4, 4),
        network(shape=(4, 4, 2)),
        kmix.losses.SoftLabelCrossentropy(),
        cutmix(target="segmentation_masks"),
    ),
    "masks with an axis": lambda: (
        data(6, (4, 4, 2)),
        ids(96).reshape(6, 4, 4, 1),
        network(shape=(4, 4, 2)),
        kmix.losses.SoftLabelCrossentropy(),
        cutmix(target="segmentation_masks"),
    ),
    "ids that are kept": lambda: (
        data(6, (5,)),
        ids(6),
        network(),
        "sparse_categorical_crossentropy",
        mixup(target="keep"),
    ),
    "a column with padding": lambda: (
        padded(),
        ids(24, 2).reshape(6, 4, 1).astype("float32"),
        network(1, "sigmoid", (4, 2), padding=True),
        "binary_crossentropy",
        mixup(target=kmix.targets.Labels(any_shape=True)),
    ),
    "a column of integers": lambda: (
        data(6, (5,)),
        ids(6, 2),
        network(1, "sigmoid"),
        "binary_crossentropy",
        mixup(),
    ),
    "one-hot": lambda: (
        data(6, (5,)),
        oracle.one_hot(ids(6), CLASSES),
        network(),
        "categorical_crossentropy",
        mixup(),
    ),
}


@pytest.mark.in_turn
@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES)
def test_evaluate_is_that_of_the_bare_model_metric_by_metric(name):
    x, y, model, loss, mixer = PICTURES[name]()
    trainer = trainer_of(model, mixer, loss, ["accuracy", "acc"], ["accuracy"])
    ours = scores(trainer, x, y)
    model.compile(SGD(0.0), loss, metrics=["accuracy", "acc"], weighted_metrics=["accuracy"], **PLAIN)
    assert ours == pytest.approx(scores(model, x, y), rel=1e-6)
    if name != "a column of integers":  # which are refused in a step
        logs = trainer.fit(x, y, batch_size=6, validation_data=(x, y), verbose=0).history
        assert logs["val_accuracy"][0] == pytest.approx(ours["accuracy"], rel=1e-6)


def two_outputs(columns=CLASSES):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,))
    activation = "sigmoid" if columns == 1 else "softmax"
    outputs = {name: keras.layers.Dense(columns, activation, name=name)(inputs) for name in ("kind", "group")}
    return keras.Model(inputs, outputs)


@pytest.mark.in_turn
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")  # for an output without a loss
@pytest.mark.parametrize("way", ["kept", "without a loss", "without a loss or classes"])
def test_ids_of_an_output_that_no_mixed_label_meets_are_those_of_the_model(way):
    x, model = data(6, (5,)), two_outputs(1 if way.endswith("classes") else CLASSES)
    kept = way == "kept"
    y = {"kind": oracle.one_hot(ids(), CLASSES)[:, : model.output["kind"].shape[-1]], "group": ids(seed=2) % 2}
    losses = {"kind": "categorical_crossentropy" if kept else kmix.losses.SoftLabelCrossentropy(multi_label=True)}
    losses |= {"group": "sparse_categorical_crossentropy"} if kept else {}
    target = {"kind": "labels", "group": "keep"} if kept else None
    metrics = {"group": ["accuracy"]}
    trainer = trainer_of(model, mixup(target=target), losses, metrics)
    logged = trainer.train_on_batch(x, y, return_dict=True)
    ours = scores(trainer, x, y)
    model.compile(SGD(0.0), losses, metrics=metrics, **PLAIN)
    assert ours == pytest.approx(scores(model, x, y), rel=1e-6)
    if way != "without a loss":  # where they are mixed
        plan = trainer.plan(0, 6)
        p = to_numpy(model(oracle.mixup(x, *plan[:2]).astype("float32"))["group"])
        predicted = p.argmax(axis=1) if kept else p[:, 0] > 0.5
        assert logged["group_accuracy"] == pytest.approx(np.mean(predicted == y["group"]), abs=1e-6)


def test_accuracy_in_a_step_is_the_share_of_the_predicted_class_with_padding():
    x, y, model, loss, mixer = PICTURES["a column with padding"]()
    trainer = trainer_of(model, mixer, loss, ["accuracy"])
    logged, plan = trainer.train_on_batch(x, y, return_dict=True)["accuracy"], trainer.plan(0, 6)
    p = to_numpy(model(oracle.mixup(x, *plan[:2]).astype("float32")))[..., 0]
    mixed = oracle.mixup(y, *plan[:2])[..., 0]
    share = np.where(p > 0.5, mixed, 1 - mixed)
    # Metrics of a training step on JAX see no masks of Keras, whatever the model.
    share = share if keras.backend.backend() == "jax" else share[:, :2]
    assert logged == pytest.approx(share.mean(), abs=1e-5)


# Keras' BinaryIoU requests int64 from JAX.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype int64")
def test_integer_masks_meet_metrics_of_one_column_as_in_keras():
    x, y = data(6, (4, 4, 2)), ids(96, 2).reshape(6, 4, 4, 1).astype("int32")
    model, mixer = network(1, "sigmoid", (4, 4, 2)), cutmix(target="segmentation_masks")
    make = lambda: [
        "binary_accuracy",
        keras.metrics.BinaryIoU(target_class_ids=[1], name="iou"),
        keras.metrics.AUC(name="auc"),
    ]
    trainer = trainer_of(model, mixer, "binary_crossentropy", make())
    logged, (mixed_x, mixed_y) = trainer.train_on_batch(x, y, return_dict=True), mixer.at_step(0, (x, y))
    model.compile(SGD(0.0), "binary_crossentropy", metrics=make(), **PLAIN)
    assert logged == pytest.approx(scores(model, mixed_x, mixed_y), abs=1e-5)


# Codes.


class OwnCodes(keras.losses.SparseCategoricalCrossentropy):
    """A user's loss that subclasses one that reads codes."""


@pytest.mark.parametrize(
    "loss",
    [
        "ctc",
        keras.losses.CTC(),
        keras.losses.ctc,
        OwnCodes(),
        functools.partial(keras.losses.sparse_categorical_crossentropy, from_logits=True),
        {"top": "ctc"},
    ],
)
def test_losses_that_read_codes_are_refused_in_label_mode(loss):
    make = functools.partial(trainer_of, network(CLASSES, None, (6, 2)), mixup(), loss)
    raises(make, "reads class ids", "mix_losses=True", errors=ValueError)
    make(mix_losses=True)
    make(target="keep")


def test_codes_of_one_of_several_targets_are_refused_too():
    losses = {"kind": "categorical_crossentropy", "group": "sparse_categorical_crossentropy"}
    settings = {"mixer": mixup(), "loss": losses}
    both = {"kind": "labels", "group": "labels"}
    raises(lambda: trainer_of(two_outputs(), target=both, **settings), "reads class ids")
    trainer_of(two_outputs(), target={"kind": "labels", "group": "keep"}, **settings)


def test_integer_codes_get_the_way_to_mix_losses():
    codes = ids(18, 9).reshape(6, 3)
    loss = lambda y, p: ops.mean(p, axis=(1, 2))  # which might read codes
    trainer = trainer_of(network(CLASSES, None, (6, 2)), mixup(), loss)
    raises(lambda: trainer.train_on_batch(data(6, (6, 2)), codes), "mix_losses=True", errors=ValueError)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_the_losses_of_codes_are_mixed(dtype):
    x, codes = data(6, (8, 2)), (ids(18, 2).reshape(6, 3) + 1).astype(dtype)
    model = network(CLASSES, None, (8, 2))
    trainer = trainer_of(model, mixup(), "ctc", mix_losses=True)
    logged, plan = trainer.train_on_batch(x, codes), trainer.plan(0, 6)
    p = model(oracle.mixup(x, *plan[:2]).astype("float32"))
    own, other = (to_numpy(keras.losses.ctc(ops.convert_to_tensor(y), p)) for y in (codes, codes[plan.permutation]))
    assert logged == pytest.approx(np.mean(plan.lam * own + (1 - plan.lam) * other), rel=1e-4)


# Gaps.


def gaps(n):
    y = np.random.default_rng(0).normal(size=(n, CLASSES)).astype("float32")
    y[np.arange(n), np.arange(n) % CLASSES] = np.nan
    return y


@pytest.mark.parametrize("loss", ["mse", keras.losses.MeanAbsoluteError(), kmix.losses.SoftLabelCrossentropy()])
def test_gaps_in_several_columns_are_refused_where_only_samples_have_weights(loss):
    raises(
        lambda: trainer_of(network(activation=None), mixup(target=GAPS), loss),
        "weights",
        "one output",
        "multi_label=True",
        errors=ValueError,
    )


def test_gaps_of_a_model_without_known_outputs_are_refused_in_the_first_step():
    model = keras.Sequential([keras.layers.Dense(CLASSES)])
    trainer = trainer_of(model, mixup(target=GAPS), "mse")
    # With as many samples as classes, Keras would find no error.
    raises(lambda: trainer.train_on_batch(data(CLASSES, (5,)), gaps(CLASSES)), "multi_label=True", errors=ValueError)


def test_gaps_meet_the_loss_that_weighs_classes():
    x, model = data(6, (5,)), network(activation="sigmoid")
    y = np.where(np.isnan(gaps(6)), np.nan, oracle.one_hot(ids(), CLASSES)).astype("float32")
    loss = kmix.losses.SoftLabelCrossentropy(multi_label=True)
    trainer = trainer_of(model, mixup(target=GAPS), loss)
    logged, plan = trainer.train_on_batch(x, y), trainer.plan(0, 6)
    p = to_numpy(model(oracle.mixup(x, *plan[:2]).astype("float32"))).astype("float64")
    lam, partner = plan.lam[:, None], y[plan.permutation]
    terms = [
        np.where(np.isnan(t), 0, -np.nan_to_num(t) * np.log(p) - (1 - np.nan_to_num(t)) * np.log(1 - p))
        for t in (y, partner)
    ]
    assert logged == pytest.approx(np.mean(lam * terms[0] + (1 - lam) * terms[1]), rel=1e-4)
    raises(
        lambda: trainer_of(model, mixup(target=GAPS), loss, weighted_metrics=["mae"]),
        "multi_label",
        errors=ValueError,
    )
    trainer_of(network(1, None), mixup(target=GAPS), "mse", weighted_metrics=["mae"])


# As of the model.


def test_a_trainer_shows_the_layers_inputs_and_outputs_of_its_model():
    model = network()
    trainer = kmix.MixTrainer(model, mixup())
    assert trainer.get_layer("top") is model.get_layer("top")
    assert trainer.get_layer(index=1) is model.layers[1]
    assert trainer.inputs is model.inputs
    assert trainer.outputs is model.outputs
    assert trainer.layers == model.layers
    assert not hasattr(kmix.MixTrainer(keras.Sequential([keras.layers.Dense(2)]), mixup()), "no such thing")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"target": {"kind": kmix.targets.Labels(3), "group": "keep"}},
        {"target": {"kind": "labels", "group": "keep"}},
    ],
)
def test_a_trainer_can_be_cloned(settings):
    trainer = kmix.MixTrainer(two_outputs(), mixup(), within="batch", seed=5, **settings)
    clone = keras.models.clone_model(trainer)
    assert clone.get_config() == trainer.get_config()
    assert clone.model is not trainer.model
    np.testing.assert_array_equal(clone.plan(0, 6).lam, trainer.plan(0, 6).lam)


# Ids as inputs.


def of_ids(dtype, between=(), nested=False):
    inputs = tensor = keras.Input((5,), dtype=dtype, name="ids")
    for layer in between:
        tensor = layer(tensor)
    tensor = keras.layers.Embedding(9, 4, name="table")(tensor)
    model = keras.Model(inputs, keras.layers.Dense(CLASSES, "softmax")(keras.layers.Flatten()(tensor)))
    if not nested:
        return model
    outer = keras.Input((5,), dtype=dtype)
    return keras.Model(outer, model(outer))


REFUSED_INPUTS = {
    "float ids": lambda: (of_ids("float32"), mixup()),
    "float ids behind a cast": lambda: (of_ids("float32", [keras.layers.Rescaling(1.0)]), mixup()),
    "float ids in a nested model": lambda: (of_ids("float32", nested=True), mixup()),
    "uint8 ids": lambda: (of_ids("uint8"), mixup()),
    "one of several mixers blends": lambda: (of_ids("float32"), kmix.RandomChoice([mixup(), kmix.CutMix(axes=1)])),
    "a model that is not built": lambda: (keras.Sequential([keras.layers.Embedding(9, 4)]), mixup()),
    "images of integers": lambda: (
        keras.Sequential([keras.Input((4, 4, 1), dtype="uint8"), keras.layers.Flatten()]),
        mixup(),
    ),
}


@pytest.mark.parametrize("name", REFUSED_INPUTS)
def test_blended_inputs_that_a_model_reads_as_ids_are_refused(name):
    raises(lambda: kmix.MixTrainer(*REFUSED_INPUTS[name]()), "places|keras.Input", errors=ValueError)


def test_float_ids_at_the_inputs_as_a_place_or_behind_a_layer_in_the_model_are_refused():
    raises(lambda: kmix.MixTrainer(of_ids("float32"), mixup(), places=["ids"]), "table", errors=ValueError)
    raises(lambda: kmix.MixTrainer(of_ids("float32"), mixup(), places=["input", "table"]), "table", errors=ValueError)
    raises(lambda: kmix.MixTrainer(of_ids("float32", [mixup()])), "table", errors=ValueError)
    kmix.MixTrainer(of_ids("float32"), mixup(), places=["table"])


class Positions(keras.layers.Layer):
    """As in a transformer of images: an Embedding that reads no inputs."""

    def __init__(self):
        super().__init__()
        self.table = keras.layers.Embedding(5, 4)

    def call(self, x):
        return x + self.table(ops.arange(5))


def test_embeddings_of_anything_else_are_welcome():
    inputs = keras.Input((5, 4))
    kmix.MixTrainer(keras.Model(inputs, Positions()(inputs)), mixup())
    codes = ops.argmax(keras.layers.Dense(9)(inputs), axis=-1)
    kmix.MixTrainer(keras.Model(inputs, keras.layers.Embedding(9, 4)(codes)), mixup())
    kmix.MixTrainer(of_ids("int32"), kmix.CutMix(axes=1))
