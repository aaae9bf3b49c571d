"""What Keras has around `fit`, with a trainer: callbacks, frozen layers, moving averages, data sets, TFLite."""

import keras
import numpy as np
import pytest
from helpers import (
    CLASSES,
    assert_same_weights,
    data,
    deep,
    evaluate,
    fit,
    ids,
    mixup,
    network,
    on,
    predictions,
    tf,
    trainer_of,
)
from keras import ops

import kmix


@pytest.mark.slow
@on("tensorflow", why="TensorFlow alone")
def test_the_step_as_a_number_under_mirrored_strategy():
    """TensorFlow's own variable refuses `int(trainer.step)`; this is what to write."""
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        trainer = trainer_of()
        fit(trainer, data(6, (5,)), ids(), batch_size=3)
    assert int(ops.convert_to_numpy(trainer.step)) == 2
    assert int(trainer.step.numpy()) == 2


def test_the_step_as_a_number():
    trainer = trainer_of()
    fit(trainer, data(6, (5,)), ids(), batch_size=3)
    assert int(ops.convert_to_numpy(trainer.step)) == int(trainer.step) == 2


@pytest.mark.slow
@pytest.mark.parametrize("stops", ["early", "at the end"])
def test_early_stopping_restores_the_model_and_not_the_step(stops):
    x, y = data(12, (5,)), ids(12)
    weights = []
    trainer = trainer_of(rate=1.0)

    class Worse(keras.callbacks.Callback):
        """Says that the second epoch was the best."""

        def on_epoch_end(self, epoch, logs=None):
            logs["score"] = -abs(epoch - 1)
            weights.append(self.model.get_weights())
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
    for a, b in zip(trainer.model.get_weights(), weights[1], strict=True):
        np.testing.assert_array_equal(a, b)
    fit(trainer, x, y, batch_size=4)
    assert int(trainer.step) == 3 * epochs + 3


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
        mixer = kmix.RandomChoice([mixup(), kmix.CutMix(seed=2, data_format="channels_last")], seed=5)
        trainer = kmix.MixTrainer(model, mixer=mixer)
        trainer.compile(keras.optimizers.Adam(0.01), kmix.losses.SoftLabelCrossentropy())

        class Stop(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == stop_at:
                    raise Interrupted

        schedule = kmix.callbacks.AlphaScheduler(mixer.layers, lambda epoch: 0.2 + 0.3 * epoch)
        callbacks = [keras.callbacks.BackupAndRestore(str(tmp_path / directory)), schedule, Stop()]
        trainer.fit(x, y, batch_size=4, epochs=5, shuffle=False, verbose=0, callbacks=callbacks)
        return trainer

    with pytest.raises(Interrupted):
        run("stopped", stop_at=3)
    resumed, whole = run("stopped"), run("whole")
    assert int(resumed.step) == int(whole.step) == 15
    assert_same_weights(resumed.model, whole.model)


@pytest.mark.slow
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
    bare, trainer = trainer_of(rate=0.5), trainer_of()
    trainer.compile(keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.9), kmix.losses.SoftLabelCrossentropy())
    logs = fit(trainer, x, y, epochs=3, validation_data=(x, y), callbacks=[keras.callbacks.SwapEMAWeights()])
    average = None
    for _ in range(3):
        fit(bare, x, y)
        kernel = bare.model.get_weights()[0]
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


@pytest.mark.slow
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


@pytest.mark.slow
@on("tensorflow", why="TensorFlow alone")
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("which", ["model", "trainer"])
def test_tflite(which):
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
