"""Files of weights: between a trainer and its model, a training that goes on, and alphas that a file changes."""

import warnings

import keras
import numpy as np
import pytest
from helpers import (
    CLASSES,
    assert_same_weights,
    data,
    deep,
    embedding,
    fit,
    ids,
    mixup,
    network,
    placed_model,
    predictions,
    trainer_of,
    unbuilt,
)

import kmix


def sequential():
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((5,)), keras.layers.Dense(6), keras.layers.Dense(CLASSES, "softmax")])


def nested():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,))
    return keras.Model(inputs, keras.layers.Dense(CLASSES, "softmax")(deep()(inputs)))


def subclassed():
    keras.utils.set_random_seed(1)

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.top = keras.layers.Dense(6), keras.layers.Dense(CLASSES, "softmax")

        def call(self, x):
            return self.top(self.hidden(x))

    model = Own()
    model(np.zeros((2, 5), "float32"))
    return model


MODELS = {
    "functional": deep,
    "sequential": sequential,
    "nested": nested,
    "sub-classed": subclassed,
    "placed": placed_model,
    "places": deep,
    "choice": deep,
}


def of_kind(kind):
    settings = {
        "sub-classed": {"num_classes": CLASSES},
        "placed": {"placed": True},
        "places": {"mixer": embedding(), "places": ["input", "hidden_1"]},
        "choice": {"mixer": kmix.RandomChoice([mixup(), mixup(alpha=0.2, seed=8)], seed=1)},
    }
    return trainer_of(MODELS[kind](), rate=0.5, **settings.get(kind, {}))


def mixers(trainer):
    if trainer.mixer is not None:
        return getattr(trainer.mixer, "layers", [trainer.mixer])
    return [layer for layer in trainer.model.layers if isinstance(layer, kmix.EmbeddingMixup)]


@pytest.mark.slow
def test_a_checkpoint_of_weights_loads_into_the_bare_model(tmp_path):
    x, y, path = data(12, (5,)), ids(12), str(tmp_path / "best.weights.h5")
    trainer, bare = of_kind("functional"), deep()
    checkpoint = keras.callbacks.ModelCheckpoint(path, save_weights_only=True)
    fit(trainer, x, y, batch_size=4, epochs=2, callbacks=[checkpoint])
    assert not np.array_equal(bare.get_weights()[0], trainer.model.get_weights()[0])
    bare.load_weights(path)
    assert_same_weights(bare, trainer.model)


@pytest.mark.in_turn
@pytest.mark.fast("places", "functional")
@pytest.mark.parametrize("kind", MODELS)
def test_weights_of_the_trainer_load_into_the_bare_model(kind, tmp_path):
    trainer, path, bare = of_kind(kind), str(tmp_path / "trainer.weights.h5"), MODELS[kind]()
    trainer.model.set_weights([weight + 1 for weight in trainer.model.get_weights()])
    trainer.save_weights(path)
    bare.load_weights(path)
    assert_same_weights(bare, trainer.model)


@pytest.mark.in_turn
@pytest.mark.fast("functional")
@pytest.mark.parametrize("kind", MODELS)
def test_weights_of_the_bare_model_load_into_the_trainer(kind, tmp_path):
    trainer, path, bare = of_kind(kind), str(tmp_path / "bare.weights.h5"), MODELS[kind]()
    bare.set_weights([weight + 1 for weight in bare.get_weights()])
    bare.save_weights(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        trainer.load_weights(path)
    assert_same_weights(bare, trainer.model)
    assert int(trainer.step) == 0
    assert [layer.alpha for layer in mixers(trainer)] == [layer.alpha for layer in mixers(of_kind(kind))]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["placed", "choice"])
def test_training_goes_on_from_a_file_of_weights(kind, tmp_path):
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


def test_the_weights_of_a_trainer_are_those_of_its_model():
    trainer = of_kind("functional")
    fit(trainer, data(12, (5,)), ids(12), batch_size=4)
    assert_same_weights(trainer, trainer.model)
    new = [weight + 1 for weight in deep().get_weights()]
    trainer.set_weights(new)
    for a, b in zip(trainer.model.get_weights(), new, strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(trainer.step) == 3
    assert trainer.alpha == 1.0


@pytest.mark.slow
def test_what_a_model_file_keeps(tmp_path):
    x, y = data(12, (5,)), ids(12)
    trainer = of_kind("choice")
    fit(trainer, x, y, batch_size=4)
    trainer.mixer.layers[0].alpha = 0.7
    trainer.save(tmp_path / "trainer.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        loaded = keras.saving.load_model(tmp_path / "trainer.keras")
    assert int(loaded.step) == 3
    assert [layer.alpha for layer in loaded.mixer.layers] == pytest.approx([0.7, 0.2])
    for each in (trainer, loaded):
        fit(each, x, y, batch_size=4, epochs=2)
    assert_same_weights(trainer.model, loaded.model)


@pytest.mark.filterwarnings("ignore:Skipping nested container:UserWarning")
def test_a_file_of_another_model_is_refused(tmp_path):
    path = str(tmp_path / "other.weights.h5")
    network(7).save_weights(path)
    with pytest.raises(ValueError, match=r"shape"):
        trainer_of().load_weights(path)


def loaded_with(alpha, path):
    """A trainer built with an alpha, after it has loaded a file, and the warnings it gave."""
    trainer = trainer_of(deep(), mixer=mixup(alpha=alpha))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.load_weights(path)
    return trainer, [str(warning.message) for warning in caught if warning.category is UserWarning]


def test_a_file_that_changes_the_alpha_of_the_constructor_warns(tmp_path):
    path = str(tmp_path / "trainer.weights.h5")
    trainer_of(deep(), mixer=mixup(alpha=0.4)).save_weights(path)
    trainer, texts = loaded_with(0.0, path)
    assert trainer.alpha == pytest.approx(0.4)
    assert len(texts) == 1
    for word in ("alpha", "0.4", "0.0"):
        assert word in texts[0]


def test_a_file_of_the_same_training_does_not_warn(tmp_path):
    path = str(tmp_path / "trainer.weights.h5")
    first = trainer_of(deep(), mixer=mixup(alpha=0.4))
    for alpha in (0.4, 0.1):  # set during training, for example by a schedule
        first.alpha = alpha
        first.save_weights(path)
        trainer, texts = loaded_with(0.4, path)
        assert trainer.alpha == pytest.approx(alpha)
        assert not texts


@pytest.mark.slow
def test_weights_are_loaded_after_build(tmp_path):
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


@pytest.mark.slow
def test_a_file_of_a_trainer_that_was_never_given_a_shape(tmp_path):
    x, y = data(12, (5,)), ids(12)
    trainer = trainer_of(unbuilt(), rate=0.5, num_classes=CLASSES)
    fit(trainer, x, y, batch_size=4)
    trainer.save(tmp_path / "trainer.keras")
    loaded = keras.saving.load_model(tmp_path / "trainer.keras")
    assert_same_weights(loaded.model, trainer.model)
    assert int(loaded.step) == 3
