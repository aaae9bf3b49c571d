"""Schedules, AlphaScheduler, and the numbering of batches under fit."""

import copy
import csv
import math

import keras
import numpy as np
import pytest
from helpers import tf, to_numpy

import kmix
from kmix import schedules
from kmix.callbacks import AlphaScheduler

POINTS = {
    "constant": (schedules.Constant(0.3), lambda s: 0.3),
    "linear": (schedules.Linear(0.2, 1.0, 10, transition_begin=5), lambda s: 0.2 + 0.8 * np.clip((s - 5) / 10, 0, 1)),
    "cosine": (
        schedules.Cosine(1.0, 0.1, 10),
        lambda s: 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(s / 10, 1))),
    ),
    "polynomial": (schedules.Polynomial(1.0, 0.0, 8, power=3), lambda s: (1 - min(s / 8, 1)) ** 3),
    "piecewise": (schedules.Piecewise([0.2, 0.4, 0.0], [4, 9]), lambda s: 0.2 if s < 4 else 0.4 if s < 9 else 0.0),
    "join": (
        schedules.Join([schedules.Linear(0.0, 0.4, 5), 0.4, schedules.Cosine(0.4, 0.0, 4), 0.0], [5, 9, 14]),
        lambda s: (
            0.08 * s if s < 5 else 0.4 if s < 9 else 0.2 * (1 + math.cos(math.pi * min((s - 9) / 4, 1))) * (s < 14)
        ),
    ),
}
every_schedule = pytest.mark.parametrize("name", POINTS)


@pytest.mark.fast("linear", "cosine")
@every_schedule
def test_values_on_numbers_and_tensors(name):
    schedule, expected = POINTS[name]
    in_graph = tf.function(schedule)
    for step in (0, 1, 4, 5, 7, 9, 10, 13, 14, 15, 40):
        assert isinstance(schedule(step), float)
        np.testing.assert_allclose(schedule(step), expected(step), atol=1e-9)
        for tensor in (np.int64(step), keras.ops.convert_to_tensor(step), tf.constant(step, "int64")):
            np.testing.assert_allclose(to_numpy(schedule(tensor)), expected(step), atol=1e-6)
        np.testing.assert_allclose(in_graph(tf.constant(step)), expected(step), atol=1e-6)


LATE = (0, 2**24, 2**24 + 1, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 2, 2**32 - 1)
LATE_POINTS = {
    "linear": (schedules.Linear(0.2, 1.0, 4, transition_begin=2**32 - 4), lambda s: 0.2 + 0.2 * max(s - 2**32 + 4, 0)),
    "whole": (schedules.Linear(0.0, 1.0, 2**32 - 1), lambda s: s / (2**32 - 1)),
    "past": (schedules.Linear(0.4, 0.0, 1000), lambda s: 0.4 * (s == 0)),
    "to come": (schedules.Linear(0.4, 0.0, 2**40, transition_begin=2**33), lambda s: 0.4),
    "cosine": (
        schedules.Cosine(1.0, 0.0, 4, transition_begin=2**31 - 1),
        lambda s: 0.5 * (1 + math.cos(math.pi * min(max(s - 2**31 + 1, 0), 4) / 4)),
    ),
    "polynomial": (
        schedules.Polynomial(1.0, 0.0, 2, transition_begin=2**24, power=2),
        lambda s: (1 - min(max(s - 2**24, 0), 2) / 2) ** 2,
    ),
    "piecewise": (
        schedules.Piecewise([0.1, 0.2, 0.3, 0.4, 0.5], [2**24 + 1, 2**31 + 1, 2**32 - 1, 2**32]),
        lambda s: 0.1 if s < 2**24 + 1 else 0.2 if s < 2**31 + 1 else 0.3 if s < 2**32 - 1 else 0.4,
    ),
    "join": (
        schedules.Join([0.5, schedules.Linear(0.0, 0.4, 4)], [2**32 - 4]),
        lambda s: 0.5 if s < 2**32 - 4 else 0.1 * (s - 2**32 + 4),
    ),
}


@pytest.mark.parametrize("name", LATE_POINTS)
def test_late_steps_in_every_integer(name):
    """A float32 is exact up to 2**24, an int32 ends at 2**31."""
    schedule, expected = LATE_POINTS[name]
    in_graph = tf.function(schedule)
    for step in LATE:
        given = [step, np.int64(step), np.uint32(step), np.array(step), np.float64(step)]
        given += [tf.constant(step, dtype) for dtype in ("int64", "uint32", "float64")]
        given += [keras.ops.cast(np.array(step), "uint32" if keras.backend.backend() == "jax" else "int64")]
        if step < 2**31:
            given += [np.int32(step), keras.ops.convert_to_tensor(step, "int32")]
        for one in given:
            value = schedule(one)
            assert isinstance(value, float) if one is step else to_numpy(value).dtype == "float32"
            np.testing.assert_allclose(to_numpy(value), expected(step), rtol=1e-6, atol=1e-7)
        for dtype in ("int64", "float64"):
            np.testing.assert_allclose(in_graph(tf.constant(step, dtype)), expected(step), rtol=1e-6, atol=1e-7)
    if keras.backend.backend() == "jax":
        import jax

        values = jax.jit(jax.vmap(schedule))(np.array(LATE, "uint32"))
        np.testing.assert_allclose(values, [expected(step) for step in LATE], rtol=1e-6, atol=1e-7)


def test_a_join_evaluates_only_the_schedule_that_is_due():
    asked = []
    alpha = schedules.Join([lambda s: asked.append(s) or 0.1, lambda s: asked.append(s) or 0.2, 0.3], [5, 9])
    assert [alpha(step) for step in (0, 4, 5, 8, 9)] == [0.1, 0.1, 0.2, 0.2, 0.3]
    assert asked == [0, 4, 0, 3]
    np.testing.assert_allclose(
        [to_numpy(schedules.Join([0.1, 0.2], [5])(np.float32(s))) for s in (4.5, 5.5)], [0.1, 0.2]
    )
    # In a tensor, no step is before 0.
    alpha = schedules.Join([0.1, lambda s: keras.ops.sqrt(keras.ops.cast(s, "float32"))], [5])
    for step, value in ((0, 0.1), (4, 0.1), (5, 0.0), (9, 2.0)):
        np.testing.assert_allclose(to_numpy(alpha(keras.ops.convert_to_tensor(step))), value, rtol=1e-6)


@pytest.mark.parametrize("bad", [None, -0.1, float("nan"), "0.1", [0.1, 0.2]])
def test_a_join_of_what_gives_no_number(bad):
    with pytest.raises((TypeError, ValueError), match="finite number >= 0"):
        schedules.Join([lambda step: bad, 0.1], [5])(0)


@every_schedule
def test_schedules_are_serializable(name):
    schedule, _ = POINTS[name]
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert repr(copy) == repr(schedule)
    assert copy(7) == schedule(7)
    layer = kmix.MixUp(schedule, num_classes=2)
    again = kmix.MixUp.from_config(layer.get_config())
    assert repr(again.alpha) == repr(schedule)


def test_warm_up_hold_off_is_one_expression():
    alpha = schedules.Join([schedules.Linear(0.0, 0.4, 5), 0.4, 0.0], boundaries=[5, 90])
    assert [round(alpha(epoch), 3) for epoch in (0, 4, 5, 89, 90)] == [0.0, 0.32, 0.4, 0.4, 0.0]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: schedules.Linear(-1, 0, 5), "init_value"),
        (lambda: schedules.Linear(0, float("nan"), 5), "end_value"),
        (lambda: schedules.Linear(0, 1, 0), "transition_steps"),
        (lambda: schedules.Cosine(0, 1, 5, transition_begin=-1), "transition_begin"),
        (lambda: schedules.Join([0.1, 0.2], [5, 6]), "boundaries"),
        (lambda: schedules.Join([0.1, 0.2, 0.3], [6, 5]), "boundaries"),
        (lambda: schedules.Piecewise([], []), "boundaries"),
    ],
)
def test_bad_schedules(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def model_and_data(layer, batches=5):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4 * batches, 6)).astype("float32")
    y = rng.integers(0, 2, 4 * batches)
    model = keras.Sequential([keras.layers.Dense(2, activation="softmax")])
    model.compile("sgd", kmix.losses.SoftLabelCrossentropy())
    return model, tf.data.Dataset.from_tensor_slices((x, y)).batch(4).map(layer)


def test_alpha_per_epoch_is_set_and_logged(tmp_path):
    layer = kmix.MixUp(0.2, num_classes=2)
    model, ds = model_and_data(layer)
    scheduler = AlphaScheduler(layer, schedules.Linear(0.4, 0.0, 2))
    log = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    board = keras.callbacks.TensorBoard(tmp_path / "board")
    history = model.fit(ds, epochs=3, callbacks=[scheduler, log, board], verbose=0).history
    assert history["alpha"] == [0.4, 0.2, 0.0]
    with open(tmp_path / "log.csv") as file:
        assert [float(row["alpha"]) for row in csv.DictReader(file)] == [0.4, 0.2, 0.0]
    events = b"".join(path.read_bytes() for path in (tmp_path / "board" / "train").iterdir())
    assert b"epoch_alpha" in events
    assert layer.alpha == 0.0


@pytest.mark.slow
def test_alpha_is_in_the_progress_bar(capsys):
    layer = kmix.MixUp(0.2, num_classes=2)
    model, ds = model_and_data(layer)
    model.fit(ds, epochs=1, callbacks=[AlphaScheduler(layer, lambda epoch: 0.25)], verbose=1)
    assert "alpha: 0.25" in capsys.readouterr().out


@pytest.mark.slow
def test_alpha_per_batch_goes_on_across_epochs():
    layers = [kmix.MixUp(0.2, num_classes=2), kmix.CutMix(0.2, num_classes=2)]
    model, ds = model_and_data(layers[0])
    seen = []
    scheduler = AlphaScheduler(layers, lambda step: seen.append(step) or 0.01 * step, unit="batch")
    history = model.fit(ds, epochs=2, callbacks=[scheduler], verbose=0).history
    assert seen == list(range(10))
    np.testing.assert_allclose(history["alpha"], [0.04, 0.09])
    assert layers[0].alpha == layers[1].alpha == pytest.approx(0.09)


def steps_of_a_schedule():
    """A schedule that keeps the steps at which it was evaluated."""
    steps = []
    return steps, lambda step: steps.append(step) or 0.01 * step


@pytest.mark.slow
def test_alpha_per_batch_goes_on_from_initial_epoch():
    layer = kmix.MixUp(0.2, num_classes=2)
    (model, ds), (steps, schedule) = model_and_data(layer), steps_of_a_schedule()
    fit = lambda scheduler, **settings: model.fit(ds, callbacks=[scheduler], verbose=0, **settings)
    fit(AlphaScheduler(layer, schedule, unit="batch"), initial_epoch=2, epochs=4)
    assert steps == list(range(10, 20))
    # Parts of a training, each of which counts its epochs from 0, follow each other.
    scheduler = AlphaScheduler(layer, schedule, unit="batch")
    del steps[:]
    for _ in range(3):
        fit(scheduler, epochs=1)
    fit(scheduler, initial_epoch=1, epochs=2)
    assert steps == list(range(20))


@pytest.mark.slow
def test_alpha_per_batch_goes_on_from_a_backup(tmp_path):
    layer = kmix.MixUp(0.2, num_classes=2)
    (model, ds), (steps, schedule) = model_and_data(layer), steps_of_a_schedule()
    model.build((None, 6))

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if len(steps) == 8:
                raise KeyboardInterrupt

    fit = lambda scheduler, *callbacks: model.fit(ds, epochs=3, callbacks=[scheduler, *callbacks], verbose=0)
    scheduler, backup = AlphaScheduler(layer, schedule, unit="batch"), keras.callbacks.BackupAndRestore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(scheduler, backup, Stop())
    # Its second epoch was broken off, and begins again: here, and in a new process.
    resumed = AlphaScheduler(layer, schedule, unit="batch")
    for again in (scheduler, resumed):
        del steps[:]
        model._initial_epoch = None
        backup = keras.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=again is resumed)
        fit(again, backup)
        assert steps == list(range(5 if again is scheduler else 15, 15))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*Your input ran out of data")
def test_alpha_per_batch_of_data_of_unknown_length():
    layer = kmix.MixUp(0.2, num_classes=2)
    (model, ds), (steps, schedule) = model_and_data(layer), steps_of_a_schedule()
    ds = ds.filter(lambda x, y: True)
    scheduler = AlphaScheduler(layer, schedule, unit="batch")
    model.fit(ds, epochs=2, callbacks=[scheduler], verbose=0)
    model.fit(ds, initial_epoch=2, epochs=3, callbacks=[scheduler], verbose=0)
    # On TensorFlow and JAX, Keras begins one batch more, and finds that there is none.
    assert list(dict.fromkeys(steps)) == list(range(15 + (keras.backend.backend() != "torch")))
    with pytest.raises(ValueError, match=r"initial_epoch=3.*steps_per_epoch"):
        model.fit(ds, initial_epoch=3, epochs=4, callbacks=[AlphaScheduler(layer, schedule, unit="batch")], verbose=0)


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras has no steps_per_execution there")
def test_alpha_per_batch_with_several_steps_an_execution():
    layer = kmix.MixUp(0.2, num_classes=2)
    (model, ds), (steps, schedule) = model_and_data(layer), steps_of_a_schedule()
    model.compile("sgd", kmix.losses.SoftLabelCrossentropy(), steps_per_execution=2)
    model.fit(ds, epochs=2, callbacks=[AlphaScheduler(layer, schedule, unit="batch")], verbose=0)
    assert steps == [0, 2, 4, 5, 7, 9]


@pytest.mark.slow
def test_layers_of_one_name_have_alphas_of_their_own():
    layers = [kmix.MixUp(0.2, num_classes=2, name="mixup") for _ in range(2)]
    model, ds = model_and_data(layers[0])
    callbacks = [AlphaScheduler(layers[i], schedules.Constant((0.1, 0.5)[i])) for i in range(2)]
    for _ in range(2):
        history = model.fit(ds, epochs=1, callbacks=callbacks, verbose=0).history
        assert (history["alpha_mixup"], history["alpha_mixup_1"]) == ([0.1], [0.5])


@pytest.mark.slow
def test_alphas_of_several_schedulers_have_names_of_their_own():
    layers = [kmix.MixUp(0.2, num_classes=2, name="blend"), kmix.CutMix(0.5, num_classes=2, name="paste")]
    model, ds = model_and_data(layers[0])
    up, down = (AlphaScheduler(layers[i], schedules.Linear(i, 1 - i, 4)) for i in range(2))
    history = model.fit(ds, epochs=2, callbacks=[up, down], verbose=0).history
    assert (history["alpha_blend"], history["alpha_paste"]) == ([0.0, 0.25], [1.0, 0.75])
    assert "alpha" not in history
    # One alone, or with a copy of itself in another training, says `alpha`.
    history = model.fit(ds, epochs=1, callbacks=[copy.deepcopy(up)], verbose=0).history
    assert history["alpha"] == [0.0]
    history = model.fit(ds, epochs=1, callbacks=[AlphaScheduler(layers, lambda epoch: 0.3)], verbose=0).history
    assert history["alpha"] == [0.3]
    assert layers[1].alpha == 0.3


@pytest.mark.slow
def test_epochs_count_from_initial_epoch_and_keras_schedules_are_welcome():
    layer = kmix.MixUp(0.2, num_classes=2)
    model, ds = model_and_data(layer)
    decay = keras.optimizers.schedules.PolynomialDecay(1.0, 4, 0.0)
    history = model.fit(ds, initial_epoch=2, epochs=4, callbacks=[AlphaScheduler(layer, decay)], verbose=0).history
    np.testing.assert_allclose(history["alpha"], [0.5, 0.25])


class Counted:
    """A schedule that counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, step):
        self.calls += 1
        return 0.1 * step


@pytest.mark.parametrize("in_a_list", [False, True])
def test_a_deep_copy_sets_the_same_targets(in_a_list):
    """keras-tuner #574: tuners copy the callbacks for each trial."""
    layers = [kmix.MixUp(0.2, num_classes=2), kmix.MixUp(0.3, num_classes=2)]
    scheduler = AlphaScheduler(layers, Counted(), unit="batch")
    scheduler.on_train_batch_begin(0)
    copied = copy.deepcopy([scheduler])[0] if in_a_list else copy.deepcopy(scheduler)
    assert copied is not scheduler
    assert [id(layer) for layer in copied.layers] == [id(layer) for layer in layers]
    for batch in range(1, 4):
        copied.on_train_batch_begin(batch)
        assert layers[0].alpha == layers[1].alpha == pytest.approx(0.1 * batch)
    # The first one continues where it was, and so does its schedule.
    scheduler.on_train_batch_begin(1)
    assert layers[0].alpha == pytest.approx(0.1)
    assert (scheduler.schedule.calls, copied.schedule.calls) == (2, 4)
    copied.layers.append(kmix.CutMix(0.1))
    assert scheduler.layers == layers


@pytest.mark.slow
def test_a_deep_copy_trains_as_the_scheduler_does():
    """For one target, for a trainer, for a schedule that belongs to the target, and after training."""
    layer = kmix.MixUp(0.2, num_classes=2)
    model, ds = model_and_data(layer)
    scheduler = AlphaScheduler(layer, schedules.Linear(0.4, 0.0, 2))
    for _ in range(2):
        history = model.fit(ds, epochs=2, callbacks=[copy.deepcopy(scheduler)], verbose=0).history
        assert history["alpha"] == [0.4, 0.2]
        assert layer.alpha == 0.2
    model.fit(ds, callbacks=[scheduler], verbose=0)
    assert copy.deepcopy(scheduler).model is model
    inner = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2, activation="softmax")])
    trainer = kmix.MixTrainer(inner, mixer=kmix.MixUp(0.2, num_classes=2))
    trainer.compile("sgd", kmix.losses.SoftLabelCrossentropy())
    x, y = np.ones((4, 6), "float32"), np.array([0, 1, 1, 0])
    by_trainer = copy.deepcopy(AlphaScheduler(trainer, lambda epoch: trainer.alpha + 0.1))
    history = trainer.fit(x, y, epochs=2, callbacks=[by_trainer], verbose=0).history
    np.testing.assert_allclose(history["alpha"], [0.3, 0.4], rtol=1e-6)
    assert trainer.alpha == pytest.approx(0.4)
    bound = copy.deepcopy(AlphaScheduler(trainer, trainer.get_layer)).schedule
    assert bound.__self__ is trainer


def test_bad_schedulers():
    layer = kmix.MixUp(0.2)
    with pytest.raises(ValueError, match="unit"):
        AlphaScheduler(layer, schedules.Constant(0.1), unit="step")
    with pytest.raises(TypeError, match="schedule"):
        AlphaScheduler(layer, 0.1)
    with pytest.raises(TypeError, match="`layers`"):
        AlphaScheduler(keras.layers.Dense(1), schedules.Constant(0.1))
    with pytest.raises(TypeError, match="`layers`"):
        AlphaScheduler(kmix.MixUp, schedules.Constant(0.1))
    with pytest.raises(ValueError, match="`layers`"):
        AlphaScheduler([], schedules.Constant(0.1))
    with pytest.raises(TypeError, match="target"):
        AlphaScheduler(target=layer, schedule=schedules.Constant(0.1))
    with pytest.raises(TypeError, match="schedule"):
        AlphaScheduler(layer, schedules.Linear)
    with pytest.raises((ValueError, AttributeError), match="layers"):
        AlphaScheduler(kmix.RandomChoice([layer]), schedules.Constant(0.1))
    with pytest.raises(ValueError, match="schedule"):
        AlphaScheduler(kmix.MixUp(schedules.Constant(0.1)), schedules.Constant(0.1))
    for bad in (-0.1, float("nan"), float("inf"), None, "0.1", [0.1, 0.2], np.ones(2), tf.ones(2)):
        with pytest.raises((ValueError, TypeError), match="alpha"):
            AlphaScheduler(layer, lambda epoch, bad=bad: bad).on_epoch_begin(0)
    for good in (0.5, np.float64(0.5), tf.constant(0.5), keras.ops.convert_to_tensor(0.5), np.array([0.5])[0]):
        AlphaScheduler(layer, lambda epoch, good=good: good).on_epoch_begin(0)
        assert layer.alpha == 0.5
    layer.alpha = 0.2
    assert layer.alpha == 0.2


class Recorder(keras.Model):
    """Learns nothing, but records the first feature of each training batch."""

    def __init__(self):
        super().__init__()
        self.dense, self.numbers = keras.layers.Dense(1), []

    def call(self, x, training=False):
        if training:
            self.note(x[0, 0])
        return self.dense(x)

    def note(self, number):
        backend = keras.backend.backend()
        if backend == "tensorflow":
            tf.py_function(lambda n: self.numbers.append(int(n)), [number], [])
        elif backend == "jax":
            import jax

            jax.debug.callback(lambda n: self.numbers.append(int(n)), number, ordered=True)
        elif number.device.type != "meta":
            self.numbers.append(int(number))


def numbered(numbering, ds, prefetch):
    ds = numbering(ds)
    mapped = ds.map(lambda n, b: (tf.fill((2, 1), tf.cast(n, "float32")), b[1]), num_parallel_calls=2)
    return mapped.prefetch(prefetch) if prefetch else mapped


def source(batches=5):
    return tf.data.Dataset.from_tensor_slices((np.zeros((2 * batches, 1), "float32"),) * 2).batch(2)


def train(model, ds, numbering, **kwargs):
    del model.numbers[:]
    model.fit(ds, callbacks=[numbering], verbose=0, **kwargs)
    return list(model.numbers)


@pytest.mark.fast("1")
@pytest.mark.parametrize("prefetch", [0, 1, 8])
def test_numbers_go_on_across_epochs_and_fits(prefetch):
    numbering = kmix.data.Numbering()
    ds = numbered(numbering, source(), prefetch)
    assert ds.cardinality() == 5
    model = Recorder()
    model.compile("sgd", "mse")
    assert train(model, ds, numbering, epochs=3) == list(range(15))
    assert train(model, ds, numbering, epochs=2) == list(range(15, 25))
    assert train(model, ds, numbering, initial_epoch=7, epochs=8) == list(range(35, 40))


@pytest.mark.fast("start")
# Keras warns at the end of every data set of unknown length.
@pytest.mark.in_turn
@pytest.mark.filterwarnings("ignore:.*Your input ran out of data")
@pytest.mark.parametrize("kind", ["start", "steps", "endless", "unknown"])
def test_numbers_of_other_data_sets(kind):
    numbering = kmix.data.Numbering(start=7 if kind == "start" else 0)
    ds, kwargs = source(), {}
    if kind == "steps":
        kwargs = {"steps_per_epoch": 2}
    if kind == "endless":
        ds, kwargs = ds.repeat(), {"steps_per_epoch": 4}
    if kind == "unknown":
        ds = ds.filter(lambda x, y: True)
    ds = numbered(numbering, ds, 2)
    model = Recorder()
    model.compile("sgd", "mse")
    numbers = train(model, ds, numbering, epochs=2, **kwargs)
    count = {"steps": 4, "endless": 8}.get(kind, 10)
    assert numbers[:count] == list(range(numbering.start, numbering.start + count))
    assert ds.cardinality() == {"endless": tf.data.INFINITE_CARDINALITY, "unknown": tf.data.UNKNOWN_CARDINALITY}.get(
        kind, 5
    )


@pytest.mark.slow
def test_an_endless_data_set_goes_on_in_a_second_fit():
    numbering = kmix.data.Numbering()
    ds = numbered(numbering, source().repeat(), 3)
    model = Recorder()
    model.compile("sgd", "mse")
    assert train(model, ds, numbering, epochs=2, steps_per_epoch=4)[:8] == list(range(8))
    assert train(model, ds, numbering, epochs=4, initial_epoch=2, steps_per_epoch=4)[:8] == list(range(8, 16))


def test_numbers_in_a_loop_of_ones_own():
    ds = kmix.data.Numbering(2)(source(3))
    assert [int(number) for _ in range(3) for number, _ in ds] == list(range(2, 11))


def test_shuffling_is_left_alone():
    ds = kmix.data.Numbering()(tf.data.Dataset.range(50).shuffle(50, seed=1))
    first, second = ([int(value) for _, value in ds] for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second


def test_bad_numberings():
    with pytest.raises(ValueError, match="start"):
        kmix.data.Numbering(-1)
    numbering = kmix.data.Numbering()
    with pytest.raises(ValueError, match="no data set"):
        numbering.on_epoch_begin(0)
    numbering(source())
    with pytest.raises(ValueError, match="second"):
        numbering(source())


def test_every_epoch_has_new_plans():
    layer, numbering = kmix.MixUp(1.0, num_classes=2, seed=1), kmix.data.Numbering()
    x, y = np.eye(6, dtype="float32"), np.array([0, 1] * 3)
    ds = numbering(tf.data.Dataset.from_tensors((x, y))).map(layer.at_step)
    epochs = {to_numpy(next(iter(ds)))[0].tobytes() for _ in range(3)}
    assert len(epochs) == 3
