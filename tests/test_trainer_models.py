"""Which models a trainer takes: none that train in a way of their own; tasks; models that are not built."""

import keras
import numpy as np
import pytest
from helpers import (
    CLASSES,
    data,
    embedding,
    evaluate,
    fit,
    ids,
    mixed_loss,
    mixup,
    one_hot,
    raises,
    trainer_of,
    unbuilt,
)

import kmix

METHODS = ["train_step", "test_step", "predict_step", "compute_loss", "compute_metrics", "fit", "evaluate", "predict"]


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


@pytest.mark.parametrize("name", METHODS)
def test_a_functional_model_with_a_step_or_loss_of_its_own_is_refused(name):
    # Keras turns a class that is called with inputs and outputs into a functional model.
    child = type("Child", (overriding(name),), {})
    for model in (functional_of(overriding(name)), functional_of(child)):
        raises(lambda model=model: kmix.MixTrainer(model, mixer=mixup()), rf"\b{name}\b", r"ds\.map", errors=TypeError)


def test_each_way_to_mix_refuses_it():
    cls, inputs = overriding("compute_loss"), keras.Input((5,))
    placed = cls(inputs, keras.layers.Dense(CLASSES)(mixup()(inputs)))
    for make in (
        lambda: kmix.MixTrainer(placed),
        lambda: kmix.MixTrainer(functional_of(cls), mixer=embedding(), places=["top"]),
        lambda: kmix.MixTrainer(functional_of(cls), mixer=kmix.RandomChoice([mixup()])),
        lambda: kmix.MixTrainer(
            overriding("fit", base=keras.Sequential)([keras.Input((5,)), keras.layers.Dense(3)]), mixer=mixup()
        ),
    ):
        raises(make, r"compute_loss|\bfit\b", errors=TypeError)


def test_all_methods_are_named():
    model = functional_of(overriding("compute_loss", "test_step"))
    raises(lambda: kmix.MixTrainer(model, mixer=mixup()), "compute_loss", "test_step", errors=TypeError)


@pytest.mark.slow
def test_what_keras_has_of_its_own_and_other_methods_are_welcome():
    other = overriding("call", "compile", "get_config", "summary")
    sequential = keras.Sequential([keras.Input((5,)), keras.layers.Dense(CLASSES, "softmax")])
    inner = functional_of(overriding("compute_loss"))
    inputs = keras.Input((5,))
    around = keras.Model(inputs, keras.layers.Dense(CLASSES, "softmax")(inner(inputs)))
    x, y = data(6, (5,)), ids()
    for model in (sequential, functional_of(other), around):
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


@pytest.mark.slow
def test_a_task_without_a_preprocessor_trains():
    x, y = data(6, (5,)), ids()
    trainer = trainer_of(task(None), metrics=["accuracy"])
    assert fit(trainer, x, y)["loss"] == pytest.approx(mixed_loss(trainer, x, one_hot(y)), rel=1e-4)
    p = trainer.predict(x, batch_size=6, verbose=0)
    np.testing.assert_array_equal(p, trainer.model.predict(x, batch_size=6, verbose=0))
    assert evaluate(trainer, x, y)["accuracy"] == pytest.approx(np.mean(p.argmax(axis=1) == y))


@pytest.mark.slow
def test_a_task_of_keras_hub():
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
    raises(lambda: kmix.MixTrainer(model, mixer=mixup()), r"\bfit\b", r"ds\.map", errors=TypeError)
    model = hub.models.ImageClassifier(backbone, num_classes=CLASSES, preprocessor=None, activation="softmax")
    trainer = trainer_of(model)
    assert np.isfinite(fit(trainer, data(6, (16, 16, 3)), ids())["loss"])


def test_to_build_a_trainer_is_to_build_its_model():
    model = unbuilt()
    trainer = trainer_of(model, num_classes=CLASSES)
    assert not trainer.built
    trainer.build((None, 5))
    assert trainer.built
    assert model.built
    assert len(model.weights) == 6
    assert {id(weight) for weight in model.weights} <= {id(weight) for weight in trainer.weights}
    assert len(trainer.trainable_weights) == 6


def test_to_build_a_placed_layer_and_a_sub_classed_model():
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

    trainer = kmix.MixTrainer(Own(), mixer=mixup(num_classes=CLASSES))
    trainer.build((None, 5))
    assert len(trainer.model.weights) == 2


def test_inputs_and_outputs_are_those_of_the_model():
    inputs = {"a": keras.Input((3,), name="a"), "b": keras.Input((2,), name="b")}
    model = keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Concatenate()(list(inputs.values()))))
    trainer = kmix.MixTrainer(model, kmix.MixUp(0.2))
    for name in ("input", "output", "input_shape", "output_shape", "inputs", "outputs"):
        assert getattr(trainer, name) == getattr(model, name), name
    shapes = {"a": (None, 3), "b": (None, 2)}
    assert trainer.compute_output_shape(shapes) == model.compute_output_shape(shapes) == (None, 4)
