"""Numbers that go on in every loader: across epochs, in worker processes, from a checkpoint."""

import copy
import gc
import itertools
import pickle
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor

import keras
import loaders
import numpy as np
import pytest
from helpers import tf, to_numpy
from loaders import BATCHES, SIZE
from test_schedules_callbacks import Recorder

import kmix

BACKEND = keras.backend.backend()
torch_workers = pytest.mark.skipif(BACKEND != "torch", reason="JAX and TensorFlow warn of a fork, and start slowly")


def mixup(**settings):
    return kmix.MixUp(**{"alpha": 1.0, "num_classes": 3, "seed": 5, **settings})


def assert_steps(batches, layer, first=0, count=3 * BATCHES):
    """Assert that batches in the order of the data are mixed with the plans of the steps from `first` on."""
    batches = list(batches)
    assert len(batches) == count
    for step, mixed in enumerate(batches, first):
        expected = layer.at_step(step, loaders.batch(step % BATCHES))
        for ours, other in zip(mixed, expected, strict=True):
            np.testing.assert_allclose(to_numpy(ours), other, atol=1e-6)


# In a loop of one's own.


def torch_loader(workers=0, persistent=False, method=None):
    data = pytest.importorskip("torch.utils.data")
    return data.DataLoader(
        loaders.Examples(),
        batch_size=SIZE,
        num_workers=workers,
        persistent_workers=persistent,
        multiprocessing_context=method,
        collate_fn=loaders.collate,
    )


def grain_source():
    grain = pytest.importorskip("grain", reason="grain is not installed")
    return grain.MapDataset.source(loaders.Examples()).batch(SIZE)


LOADERS = {
    "list": lambda: [loaders.batch(i) for i in range(BATCHES)],
    "tf.data": lambda: tf.data.Dataset.from_tensor_slices((loaders.X, loaders.Y)).batch(SIZE),
    "PyDataset": loaders.Batches,
    "PyTorch": torch_loader,
    "Grain MapDataset": grain_source,
    "Grain IterDataset": lambda: grain_source().to_iter_dataset(),
}
WORKERS = {
    "fork": lambda: torch_loader(2, False, "fork"),
    "spawn, persistent": lambda: torch_loader(2, True, "spawn"),
    "fork, persistent": lambda: torch_loader(2, True, "fork"),
}
every_loader = pytest.mark.parametrize(
    "make",
    [*LOADERS.values(), *(pytest.param(make, marks=torch_workers) for make in WORKERS.values())],
    ids=[*LOADERS, *WORKERS],
)


def own_loop(numbering, loader, layer, epochs=3):
    for _ in range(epochs):
        for step, batch in numbering(loader):
            yield layer.at_step(int(step), to_numpy(batch) if tf.is_tensor(batch[0]) else batch)


@pytest.mark.fast("tf.data", "Grain*")
@every_loader
def test_a_loop_goes_on_across_epochs(make):
    if make is LOADERS["tf.data"]:
        # A data set is numbered once.
        ds, layer = kmix.data.Numbering()(make()).map(mixup().at_step), mixup()
        batches = [batch for _ in range(3) for batch in ds]
    else:
        layer = mixup()
        batches = own_loop(kmix.data.Numbering(), make(), layer)
    assert_steps(batches, layer)


@pytest.mark.fast("tf.data", "Grain*")
@every_loader
def test_a_loop_resumes_in_the_middle_of_an_epoch(make):
    loader = make()
    if make is LOADERS["tf.data"]:
        first = kmix.data.Numbering()
        taken = [int(number) for number, _ in first(loader).take(7 % BATCHES)]
        state, second = first.state_dict(), kmix.data.Numbering()
        second.load_state_dict(state)
        assert taken + [int(number) for number, _ in second(loader)] == list(range(2 + BATCHES))
        return
    first, second = kmix.data.Numbering(), kmix.data.Numbering()
    numbers, states = [], []
    for _ in range(2):
        for step, _ in first(loader):
            numbers.append(step)
            states.append(first.state_dict())
            if step == 6:
                break
    assert numbers == list(range(7))
    second.load_state_dict(pickle.loads(pickle.dumps(states[-1])))
    assert [step for step, _ in second(loader)] == list(range(7, 7 + BATCHES))


def test_a_state_in_a_running_pipeline():
    numbering = kmix.data.Numbering()
    ds = numbering(tf.data.Dataset.range(5))
    assert [int(number) for number, _ in ds] == [0, 1, 2, 3, 4]
    numbering.load_state_dict({"version": 1, "step": 3})
    assert numbering.state_dict() == {"version": 1, "step": 3}
    assert [int(number) for number, _ in ds] == [3, 4, 5, 6, 7]
    assert numbering.state_dict() == {"version": 1, "step": 8}


def test_generators_and_lengths():
    numbering = kmix.data.Numbering(start=4)
    steps = [step for _ in range(3) for step, _ in numbering(loaders.batch(i) for i in range(2))]
    assert steps == [4, 5, 6, 7, 8, 9]
    assert len(numbering([1, 2, 3])) == 3
    numbered = numbering([1, 2])
    assert [list(numbered), list(numbered)] == [[(10, 1), (11, 2)], [(12, 1), (13, 2)]]


@pytest.mark.parametrize("kind", ["list", "PyDataset", "tf.data"])
def test_a_numbering_for_two_loaders_at_once(kind):
    first, second = LOADERS[kind](), LOADERS["list"]()
    numbering = kmix.data.Numbering()
    numbered = numbering(first)
    running = iter(numbered)
    next(running)
    with pytest.raises(ValueError, match=r"one loader.*second `Numbering"):
        numbering(second)
    assert int(next(running)[0]) == 1


def test_two_iterations_at_once():
    numbering, loader = kmix.data.Numbering(), LOADERS["list"]()
    first, second = iter(numbering(loader)), iter(numbering(loader))
    assert [next(first)[0], next(second)[0]] == [0, 1]
    with pytest.raises(ValueError, match="one iteration"):
        next(first)
    assert next(second)[0] == 2


@pytest.mark.slow
def test_a_loader_that_is_left_makes_room_for_another():
    numbering = kmix.data.Numbering()
    for step, _ in numbering(LOADERS["list"]()):
        if step == 2:
            break
    gc.collect()
    assert next(iter(numbering(LOADERS["list"]())))[0] == 3


@pytest.mark.parametrize("loader", [5, "abc", {"a": 1}, None, list])
def test_what_is_no_loader(loader):
    with pytest.raises(TypeError, match="iterable"):
        kmix.data.Numbering()(loader)


@pytest.mark.parametrize("state", [{}, {"step": 3}, {"version": 2, "step": 3}, {"version": 1}, 5, None])
def test_a_state_of_another_version(state):
    numbering = kmix.data.Numbering(2)
    with pytest.raises(ValueError, match="version 1"):
        numbering.load_state_dict(state)
    assert numbering.state_dict() == {"version": 1, "step": 2}
    for step, error in ((-1, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="step"):
            numbering.load_state_dict({"version": 1, "step": step})


def test_a_copy_steers_the_same_pipeline():
    numbering = kmix.data.Numbering()
    ds = numbering(tf.data.Dataset.range(3)).map(lambda n, _: n)
    copied = copy.deepcopy({"callbacks": [numbering]})["callbacks"][0]
    copied.load_state_dict({"version": 1, "step": 9})
    assert [int(n) for n in ds] == [9, 10, 11]


# In `fit`.


def trained_on(data, callbacks, built=True, **settings):
    """The numbers of the batches that `fit` trains on, and what data these hold."""
    model = Pairs()
    model.compile("sgd", "mse")
    if built:
        model(np.zeros((2, 2), "float32"))
    model.fit(data, callbacks=callbacks, verbose=0, **settings)
    return [tuple(pair) for pair in model.numbers]


class Pairs(Recorder):
    """Records two features of each training batch."""

    def note(self, _):
        """See `call`."""

    def call(self, x, training=False):
        if training:
            self.note_pair(x)
        return self.dense(x)

    def note_pair(self, x):
        add = lambda pair: self.numbers.append([int(value) for value in np.asarray(pair)])
        if BACKEND == "tensorflow":
            tf.py_function(lambda pair: add(pair.numpy()), [x[0]], [])
        elif BACKEND == "jax":
            import jax

            jax.debug.callback(add, x[0], ordered=True)
        elif x.device.type != "meta":
            add(x[0].detach())


def expected(first, count):
    return [(step, step % BATCHES) for step in range(first, first + count)]


def test_fit_on_a_py_dataset():
    numbering = kmix.data.Numbering()
    train = numbering(loaders.Batches()).map(loaders.number)
    assert train.num_batches == BATCHES
    run = lambda **settings: trained_on(train, [numbering], shuffle=False, **settings)
    assert run(epochs=3) == expected(0, 3 * BATCHES)
    assert numbering.state_dict() == {"version": 1, "step": 3 * BATCHES}
    assert run(epochs=1) == expected(3 * BATCHES, BATCHES)
    resumed = kmix.data.Numbering()
    resumed.load_state_dict({"version": 1, "step": 2 * BATCHES})
    train = resumed(loaders.Batches()).map(loaders.number)
    assert trained_on(train, [resumed], shuffle=False, initial_epoch=2, epochs=4) == expected(2 * BATCHES, 2 * BATCHES)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [False, pytest.param(True, marks=torch_workers)])
def test_fit_on_a_py_dataset_with_workers(processes):
    """Keras itself trains again on the batches that wait in the queue when it has built the model from the first.

    So later batches may come in the next epoch, and some that wait at its end may be lost, as threads will have it.
    """
    train = loaders.Batches(workers=2, use_multiprocessing=processes, max_queue_size=3)
    numbering = kmix.data.Numbering()
    pairs = trained_on(numbering(train).map(loaders.number), [numbering], shuffle=False, epochs=4)
    assert all(step % BATCHES == row for step, row in pairs)
    assert {row for _, row in pairs} == set(range(BATCHES))
    assert len(set(pairs)) > 2 * BATCHES


def test_fit_builds_the_model_from_a_batch_of_a_py_dataset():
    numbering = kmix.data.Numbering()
    train = numbering(loaders.Batches()).map(loaders.number)
    assert trained_on(train, [numbering], built=False, shuffle=False, epochs=2) == expected(0, 2 * BATCHES)


def test_shuffled_batches_of_a_py_dataset_have_numbers_of_their_own():
    numbering = kmix.data.Numbering()
    train = numbering(loaders.Batches()).map(loaders.number)
    pairs = trained_on(train, [numbering], epochs=3)
    assert sorted(pairs) == expected(0, 3 * BATCHES)


@pytest.mark.slow
def test_an_endless_py_dataset():
    numbering = kmix.data.Numbering()
    train = numbering(loaders.Endless()).map(loaders.number)
    steps = {"shuffle": False, "steps_per_epoch": 3}
    assert trained_on(train, [numbering], epochs=2, **steps) == expected(0, 6)
    assert [step for step, _ in trained_on(train, [numbering], epochs=1, **steps)] == [6, 7, 8]


@pytest.mark.slow
def test_a_py_dataset_mixes_in_fit_as_at_step_does():
    layer, numbering = mixup(), kmix.data.Numbering()
    train = numbering(loaders.Batches()).map(layer.at_step)
    assert_steps([batch for _ in range(3) for batch in train], layer)
    model = keras.Sequential([keras.layers.Dense(3, activation="softmax")])
    model.compile("sgd", kmix.losses.SoftLabelCrossentropy())
    model.fit(train, epochs=2, callbacks=[numbering], verbose=0)
    assert numbering.state_dict()["step"] == 5 * BATCHES


def test_a_py_dataset_without_its_callback():
    train = kmix.data.Numbering()(loaders.Batches()).map(loaders.number)
    with pytest.raises(ValueError, match=r"callbacks=\[numbering\]"):
        trained_on(train, [], epochs=3)
    numbering = kmix.data.Numbering()
    train = numbering(loaders.Batches()).map(loaders.number)
    with pytest.raises(ValueError, match="steps_per_epoch"):
        trained_on(train, [numbering], epochs=3, steps_per_epoch=2)
    with pytest.raises(TypeError, match="at_step"):
        kmix.data.Numbering()(loaders.Batches()).map(3)


class FourBatches(loaders.Batches):
    num_batches = 4


def test_a_py_dataset_of_which_two_processes_take_batches_in_turn(monkeypatch):
    """As Keras deals them from 3.16 on. The processes count all batches of the data set."""
    dealt = types.SimpleNamespace(auto_shard_dataset=True, num_data_shards=2)
    monkeypatch.setattr(keras.distribution, "distribution", lambda: dealt)
    processes = [kmix.data.Numbering() for _ in range(2)]
    train = [numbering(FourBatches()) for numbering in processes]
    for process, numbering in enumerate(processes):
        numbering.set_model(keras.Sequential())
        numbering.set_params({"steps": 2})
        numbering.on_train_begin()
        for epoch in range(2):
            numbering.on_epoch_begin(epoch)
            for batch in range(2):
                assert train[process][2 * batch + process][0] == 4 * epoch + 2 * batch + process
                numbering.on_train_batch_end(batch)
                assert numbering.state_dict()["step"] == 4 * epoch + 2 * batch + 2
            numbering.on_epoch_end(epoch)
        numbering.on_train_end()
        numbering.set_params({"steps": 3})
        with pytest.raises(ValueError, match=r"4 batches of 2 processes.*equally many"):
            numbering.on_epoch_begin(2)


def test_fit_on_a_generator():
    numbering, loader = kmix.data.Numbering(), LOADERS["list"]()

    def forever():
        while True:
            for step, batch in numbering(loader):
                yield loaders.number(step, batch)

    steps = {"steps_per_epoch": BATCHES - 1}
    assert trained_on(forever(), [numbering], epochs=3, **steps)[: 3 * BATCHES - 3] == expected(0, 3 * BATCHES - 3)
    assert numbering.state_dict()["step"] == 3 * BATCHES - 3


def test_batches_read_ahead_of_fit_are_not_trained_on_but_those_of_a_loop_are_produced():
    numbering = kmix.data.Numbering()
    numbers = []

    def batches():
        while True:
            for step, batch in numbering(loader):
                numbers.append(step)
                yield loaders.number(step, batch)

    loader, iterator = LOADERS["list"](), batches()
    trained_on((next(iterator) for _ in range(3)), [numbering], epochs=1, steps_per_epoch=2)
    for _ in range(2 * BATCHES):
        ahead = threading.Thread(target=next, args=[iterator])
        ahead.start()
        ahead.join()
        assert numbering.state_dict()["step"] == 2
    next(iterator)
    assert numbering.state_dict()["step"] == numbers[-1] + 1 == len(numbers)


def numbered_for_fit(numbering, kind, prefetch=4):
    """Numbered data whose inputs tell their numbers."""
    numbered = numbering(LOADERS[kind]())
    if kind == "PyDataset":
        return numbered.map(loaders.number)
    numbered = numbered.map(lambda n, b: (tf.fill((2, 2), tf.cast(n, "float32")), tf.zeros((2, 1))))
    if prefetch:
        return numbered.prefetch(prefetch)
    # tf.data adds buffers of its own.
    options = tf.data.Options()
    options.autotune.enabled = False
    return numbered.with_options(options)


class Stop(keras.callbacks.Callback):
    """Breaks training off in the middle of an epoch."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tf.data", "PyDataset"])
def test_fit_goes_on_after_it_was_broken_off(kind):
    numbering = kmix.data.Numbering()
    train = numbered_for_fit(numbering, kind)
    with pytest.raises(KeyboardInterrupt):
        trained_on(train, [numbering, Stop()], epochs=3)
    pairs = trained_on(train, [numbering], epochs=2, shuffle=False)
    assert [step for step, _ in pairs] == list(range(2, 2 + 2 * BATCHES))


class Saver(keras.callbacks.Callback):
    """Saves the state of a numbering after a batch."""

    def __init__(self, numbering, after):
        super().__init__()
        self.numbering, self.after, self.state = numbering, after, None

    def on_train_batch_end(self, batch, logs=None):
        self.after -= 1
        if self.after == 0:
            self.state = self.numbering.state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tf.data", "PyDataset"])
def test_a_state_saved_in_the_middle_of_an_epoch_of_fit(kind):
    numbering = kmix.data.Numbering()
    saver = Saver(numbering, BATCHES + 2)
    trained_on(numbered_for_fit(numbering, kind), [numbering, saver], epochs=3)
    assert saver.state == {"version": 1, "step": BATCHES + 2}
    resumed = kmix.data.Numbering()
    resumed.load_state_dict(saver.state)
    pairs = trained_on(numbered_for_fit(resumed, kind), [resumed], initial_epoch=1, epochs=3, shuffle=False)
    assert [step for step, _ in pairs] == list(range(BATCHES + 2, 3 * BATCHES + 2))


# `fit` and loops of one's own, one after the other: the state is the highest number that either used.


class Run:
    """A model that `fit` trains, and loops over the same data."""

    def __init__(self, kind, state=None):
        self.kind, self.numbering, self.model = kind, kmix.data.Numbering(), Pairs()
        if state is not None:
            self.numbering.load_state_dict(state)
        self.model.compile("sgd", "mse")
        self.model(np.zeros((2, 2), "float32"))
        self.data = LOADERS["list"]() if kind == "generator" else numbered_for_fit(self.numbering, kind, prefetch=0)

    def batches(self):
        if self.kind == "generator":
            return (loaders.number(step, batch) for step, batch in self.numbering(self.data))
        return self.data

    def fit(self, *callbacks, **settings):
        """The numbers that an epoch of `fit` trains on."""
        del self.model.numbers[:]
        if self.kind == "PyDataset":
            settings["shuffle"] = False
        self.model.fit(self.batches(), callbacks=[self.numbering, *callbacks], verbose=0, **settings)
        return [step for step, _ in self.model.numbers]

    def loop(self, count=BATCHES):
        """The numbers of the first batches in a loop."""
        return [int(np.asarray(x)[0, 0]) for x, _ in itertools.islice(self.batches(), count)]

    @property
    def step(self):
        return self.numbering.state_dict()["step"]


every_kind = pytest.mark.parametrize("kind", ["tf.data", "PyDataset", "generator"])
# Keras warns when a generator ends.
ended = pytest.mark.filterwarnings("ignore:.*Your input ran out of data")


@pytest.mark.fast("tf.data")
@ended
@every_kind
def test_a_loop_after_fit_counts(kind):
    run = Run(kind)
    assert (run.fit(), run.step) == ([0, 1, 2, 3, 4], 5)
    assert (run.loop(), run.step) == ([5, 6, 7, 8, 9], 10)
    assert (run.loop(2), run.step) == ([10, 11], 12)
    # Both for the state, and for what comes next here.
    resumed = Run(kind, run.numbering.state_dict())
    assert run.fit() == resumed.fit() == [12, 13, 14, 15, 16]
    assert run.step == resumed.step == 17


@pytest.mark.fast("PyDataset")
@ended
@every_kind
def test_fit_goes_on_after_a_loop_whose_state_nobody_asked_for(kind):
    run = Run(kind)
    assert run.fit() + run.loop() + run.fit() == list(range(3 * BATCHES))


@pytest.mark.in_turn
@pytest.mark.fast("False-tf.data", "True-PyDataset")
@ended
@every_kind
@pytest.mark.parametrize("asked", [False, True])
def test_a_loop_after_a_fit_that_was_broken_off_counts(kind, asked):
    run = Run(kind)
    with pytest.raises(KeyboardInterrupt):
        run.fit(Stop())
    if asked:
        assert run.step == 2
    numbers = run.loop(3)
    assert numbers[0] >= 2
    assert numbers == list(range(numbers[0], numbers[0] + 3))
    assert run.step == numbers[-1] + 1
    trained = run.fit()
    assert trained[0] == numbers[-1] + 1
    assert run.step == trained[-1] + 1


@ended
def test_a_second_generator_after_a_fit_that_was_broken_off():
    run = Run("generator")
    with pytest.raises(KeyboardInterrupt):
        run.fit(Stop())
    numbers = run.fit()
    assert numbers == list(range(numbers[0], numbers[0] + BATCHES))
    assert numbers[0] >= 2
    assert run.step == numbers[-1] + 1


@pytest.mark.skipif(BACKEND == "tensorflow", reason="tf.data may still read ahead of the generator")
def test_a_second_fit_on_one_generator():
    numbering, numbers, model = kmix.data.Numbering(), [], Pairs()
    model.compile("sgd", "mse")
    model(np.zeros((2, 2), "float32"))

    def forever():
        while True:
            for step, batch in numbering(loaders.batch(i) for i in range(BATCHES)):
                numbers.append(step)
                yield loaders.number(step, batch)

    generator = forever()
    for _ in range(3):
        model.fit(generator, callbacks=[numbering], steps_per_epoch=3, verbose=0)
        assert numbering.state_dict()["step"] == model.numbers[-1][0] + 1
    next(generator)
    assert numbering.state_dict()["step"] == numbers[-1] + 1
    model.fit(generator, callbacks=[numbering], steps_per_epoch=3, verbose=0)
    assert numbering.state_dict()["step"] == model.numbers[-1][0] + 1
    steps = [step for step, _ in model.numbers]
    assert steps == sorted(set(steps))


@pytest.mark.fast("halves")
# Keras warns at the end of every data set of unknown length.
@pytest.mark.in_turn
@ended
@pytest.mark.parametrize("kind", ["unbatch", "rebatch", "pairs", "halves", "unknown"])
def test_batches_regrouped_after_mixing(kind):
    """A batch of `fit` is not a number."""
    ds, numbering, model = LOADERS["tf.data"](), kmix.data.Numbering(), Pairs()
    model.compile("sgd", "mse")
    model(np.zeros((2, 2), "float32"))
    ds = numbering(ds.filter(lambda x, y: True) if kind == "unknown" else ds)
    ds = ds.map(lambda n, b: (tf.fill((SIZE, 2), tf.cast(n, "float32")), tf.zeros((SIZE, 1))))
    if kind == "rebatch":
        ds = ds.rebatch(2 * SIZE)
    elif kind == "pairs":
        ds = ds.batch(2).map(lambda x, y: (tf.reshape(x, (-1, 2)), tf.reshape(y, (-1, 1))))
    else:
        ds = ds.unbatch().batch(SIZE // 2 if kind == "halves" else 2 * SIZE)
    states = []
    saver = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: states.append(numbering.state_dict()))
    model.fit(ds, epochs=2, callbacks=[numbering, saver], verbose=0)
    assert numbering.state_dict()["step"] == 2 * BATCHES
    highest = [step for step, _ in model.numbers]
    assert max(highest) == 2 * BATCHES - 1
    # In the middle of an epoch, what was read ahead counts as used.
    if kind != "unknown":
        assert all(state["step"] > number for state, number in zip(states, highest, strict=True))
    model.fit(ds, epochs=3, initial_epoch=2, callbacks=[numbering], verbose=0)
    assert numbering.state_dict()["step"] == 3 * BATCHES


def test_skipped_epochs_of_regrouped_batches_are_counted():
    run = Run("tf.data")
    run.data = run.data.batch(2).map(lambda x, y: (x[0], y[0]))
    assert run.fit(initial_epoch=2, epochs=3)[0] == 2 * BATCHES
    assert run.step == 3 * BATCHES


@pytest.mark.skipif(BACKEND == "torch", reason="Keras has no steps_per_execution there")
def test_several_steps_an_execution():
    run = Run("tf.data")
    run.model.compile("sgd", "mse", steps_per_execution=2)
    run.fit(epochs=2)
    assert run.step == 2 * BATCHES


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=torch_workers)])
def test_fit_on_a_pytorch_loader_with_the_callback(workers):
    """Keras begins an iteration to build the model, and leaves it."""
    numbering = kmix.data.Numbering()
    loader = mixed_loader(numbering, loaders.number, workers)
    pairs = trained_on(loader, [numbering], built=False, epochs=2)
    assert numbering.state_dict()["step"] == pairs[-1][0] + 1
    assert [row for _, row in pairs] == 2 * list(range(BATCHES))
    steps = [step for step, _ in pairs]
    assert steps == sorted(set(steps))


@pytest.mark.slow
def test_a_state_asked_for_before_fit_is_where_it_begins():
    numbering = kmix.data.Numbering()
    train = numbered_for_fit(numbering, "tf.data", prefetch=0)
    next(iter(train))
    assert [step for step, _ in trained_on(train, [numbering], shuffle=False)] == list(range(BATCHES))
    numbering = kmix.data.Numbering()
    train = numbered_for_fit(numbering, "tf.data", prefetch=0)
    assert len(list(train)) == numbering.state_dict()["step"] == BATCHES
    assert [step for step, _ in trained_on(train, [numbering], shuffle=False)] == list(range(BATCHES, 2 * BATCHES))


def test_an_iterable_does_not_tell_how_many_epochs_were_skipped():
    run = Run("generator")
    with pytest.raises(ValueError, match=r"initial_epoch=2.*start"):
        run.fit(initial_epoch=2, epochs=3)
    run = Run("generator", {"version": 1, "step": 10})
    assert run.fit(initial_epoch=2, epochs=3, steps_per_epoch=3)[:3] == [10, 11, 12]


class Slow(int):
    """A number of a batch: to compute with it lets other threads run."""

    def __add__(self, other):
        time.sleep(1e-4)
        return int(self) + other

    __radd__ = __add__


def test_batches_may_end_in_several_threads_at_once():
    numbering = kmix.data.Numbering()
    assert numbering(loaders.Endless()).num_batches is None
    numbering.set_params({"steps": 64})
    numbering.on_train_begin()
    numbering.on_epoch_begin(0)
    batches = np.random.default_rng(0).permutation(64)
    for part in np.split(batches, 4):
        with ThreadPoolExecutor(8) as pool:
            states = list(pool.map(lambda batch: ended_batch(numbering, int(batch)), part))
        assert min(states) > 0
        done = batches[: np.flatnonzero(batches == part[-1])[0] + 1]
        assert numbering.state_dict()["step"] == done.max() + 1


def ended_batch(numbering, batch):
    numbering.on_train_batch_end(Slow(batch))
    return numbering.state_dict()["step"]


# In worker processes.


def mixed_loader(numbering, function, workers, persistent=False, method=None):
    data = pytest.importorskip("torch.utils.data")
    mixed = kmix.data.MixedBatches(loaders.Examples(), function, collate_fn=loaders.collate)
    batches = data.BatchSampler(data.SequentialSampler(mixed), SIZE, drop_last=True)
    return data.DataLoader(
        mixed,
        sampler=numbering(batches),
        batch_size=None,
        num_workers=workers,
        persistent_workers=persistent,
        multiprocessing_context=method,
    )


@pytest.mark.parametrize(
    ("workers", "persistent", "method"),
    [
        (0, False, None),
        *(pytest.param(2, *how, marks=torch_workers) for how in ((False, "fork"), (True, "fork"), (True, "spawn"))),
    ],
)
@pytest.mark.parametrize("alpha", [1.0, kmix.schedules.Linear(0.0, 1.0, 10)], ids=["float", "schedule"])
def test_pytorch_workers_mix(workers, persistent, method, alpha):
    layer, numbering = mixup(alpha=alpha), kmix.data.Numbering()
    loader = mixed_loader(numbering, layer.at_step, workers, persistent, method)
    assert len(loader) == BATCHES
    assert_steps([batch for _ in range(3) for batch in loader], layer)
    resumed = kmix.data.Numbering(start=2 * BATCHES)
    assert_steps(mixed_loader(resumed, layer.at_step, workers, False, method), layer, 2 * BATCHES, BATCHES)


@torch_workers
@pytest.mark.fast("*-fork")
@pytest.mark.parametrize(("name", "method"), [("rate", "fork"), ("probabilities", "fork"), ("both", "spawn")])
def test_mixing_ends_in_workers_at_exactly_the_step(name, method):
    """Schedules of the rate and of probabilities go along with the layer."""
    end = BATCHES + 1
    off = kmix.schedules.Piecewise([1.0, 0.0], [end])
    on = kmix.schedules.Piecewise([0.0, 1.0], [end])
    layer = mixup(rate=1.0 if name == "probabilities" else off)
    if name != "rate":
        layer = kmix.RandomChoice([layer, mixup(alpha=0.0)], [off, on], seed=1)
    loader = mixed_loader(kmix.data.Numbering(), layer.at_step, 2, True, method)
    batches = [tuple(map(to_numpy, batch)) for _ in range(3) for batch in loader]
    assert_steps(batches, layer)
    clean = [np.array_equal(x, loaders.batch(step % BATCHES)[0]) for step, (x, _) in enumerate(batches)]
    assert clean == [step >= end for step in range(3 * BATCHES)]


@torch_workers
def test_fit_on_a_loader_whose_workers_mix():
    loader = mixed_loader(kmix.data.Numbering(), loaders.number, 2)
    pairs = trained_on(loader, [], epochs=2)
    assert [row for _, row in pairs] == 2 * list(range(BATCHES))
    # `fit` begins some iterations and leaves them, so numbers are missing, but none comes twice.
    steps = [step for step, _ in pairs]
    assert steps == sorted(set(steps))


def test_without_shared_memory_a_worker_is_not_reached(monkeypatch):
    """Some systems have none."""
    import multiprocessing

    def refuse(*_):
        raise OSError

    monkeypatch.setattr(multiprocessing, "RawValue", refuse)
    layer = mixup(alpha=0.25)
    layer.alpha = 0.5
    assert (layer.alpha, layer.plan(0, 4).lam.shape) == (0.5, (4,))
    monkeypatch.setattr(multiprocessing.context, "get_spawning_popen", lambda: 1)
    assert pickle.loads(pickle.dumps(layer)).alpha == 0.5
    with pytest.raises(ValueError, match="pickled"):
        layer.alpha = 0.75


@torch_workers
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_alpha_reaches_persistent_workers(method):
    layer = mixup(alpha=0.25)
    loader = mixed_loader(kmix.data.Numbering(), loaders.Layers(layer), 2, True, method)
    assert {float(alpha) for alpha, _ in loader} == {0.25}
    layer.alpha = 0.75
    assert {float(alpha) for alpha, _ in loader} == {0.75}
    assert layer.alpha == 0.75
    choice = kmix.RandomChoice([layer, mixup(alpha=0.5)])
    loader = mixed_loader(kmix.data.Numbering(), choice.at_step, 1, False, method)
    assert_steps(loader, choice, count=BATCHES)


@torch_workers
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_worker_does_not_set_alpha(method):
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    layer = mixup(alpha=0.25)
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, context, initializer=loaders.keep, initargs=(layer,)) as pool:
        with pytest.raises(ValueError, match="process that built"):
            pool.submit(loaders.set_kept_alpha, 0.9).result()
        pool.submit(loaders.set_kept_alpha, 0.25).result()
    assert layer.alpha == 0.25


def test_a_pickled_layer_keeps_its_alpha():
    layer = mixup(alpha=0.25)
    copied, pickled = copy.deepcopy(layer), None
    copied.alpha = layer.alpha = 0.5
    pickled = pickle.loads(pickle.dumps(layer))
    layer.alpha = 0.5
    with pytest.raises(ValueError, match=r"pickled.*schedule"):
        layer.alpha = 0.75
    assert (layer.alpha, pickled.alpha, copied.alpha) == (0.5, 0.5, 0.5)
    pickled.alpha = copied.alpha = 0.1
    own = copy.deepcopy(layer)
    own.alpha = 0.2
    assert layer.alpha == 0.5
    # A schedule has no alpha to set, and goes along.
    pickle.dumps(mixup(alpha=kmix.schedules.Constant(0.3)))


@pytest.mark.parametrize(("function", "collate"), [(None, None), (3, None), (len, 5)])
def test_bad_mixed_batches(function, collate):
    with pytest.raises(TypeError, match="callable"):
        kmix.data.MixedBatches(loaders.Examples(), function, collate_fn=collate)


@pytest.mark.parametrize("kind", ["IterableDataset", "generator", "class", "set"])
def test_what_is_no_data_set_of_examples(kind):
    data = pytest.importorskip("torch.utils.data")

    class Stream(data.IterableDataset):
        def __iter__(self):
            return iter(range(3))

    given = {"IterableDataset": Stream(), "generator": iter([1]), "class": loaders.Examples, "set": {1, 2}}[kind]
    with pytest.raises(TypeError, match=r"by their index.*for step, batch in numbering\(loader\)"):
        kmix.data.MixedBatches(given, mixup().at_step)


@pytest.mark.parametrize("item", [3, (0, 3), [0, [1, 2]]])
def test_an_item_of_mixed_batches_is_a_batch(item):
    mixed = kmix.data.MixedBatches(loaders.Examples(), mixup().at_step, collate_fn=loaders.collate)
    with pytest.raises(ValueError, match=r"sampler=numbering"):
        mixed[item]


# Replicas.


@pytest.mark.fast("*native", "*numpy")
@pytest.mark.parametrize("path", ["numpy", "native", "tfdata"])
def test_replicas_draw_different_plans(path):
    layer, given = mixup(), loaders.batch(0)

    def mixed(replica):
        if path == "tfdata":
            ds = tf.data.Dataset.from_tensors(given).enumerate(3)
            return to_numpy(next(iter(ds.map(lambda step, batch: layer.at_step(step, batch, replica=replica)))))
        batch = given if path == "numpy" else [keras.ops.convert_to_tensor(part) for part in given]
        return to_numpy(layer.at_step(3, batch, replica=replica))

    for replica in (0, 1, 7):
        lam, permutation = layer.plan(3, SIZE, replica=replica)[:2]
        expected = lam[:, None] * given[0] + (1 - lam[:, None]) * given[0][permutation]
        np.testing.assert_allclose(mixed(replica)[0], expected, atol=1e-5)
    assert np.abs(mixed(0)[0] - mixed(1)[0]).max() > 0.1
    np.testing.assert_array_equal(mixed(0)[0], mixed(np.int64(0))[0])


def test_a_replica_that_only_the_graph_knows():
    batch, layer = loaders.batch(0), mixup()
    for first in (0, 5):
        ds = tf.data.Dataset.range(2).map(lambda i, first=first: layer.at_step(3, batch, replica=i + first))
        for replica, (x, *_) in enumerate(ds, first):
            np.testing.assert_allclose(x, layer.at_step(3, batch, replica=replica)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("replica", "error"), [(-1, ValueError), (2**16, ValueError), (0.5, TypeError), ("1", TypeError)]
)
def test_a_wrong_replica(replica, error):
    with pytest.raises(error, match="replica"):
        mixup().at_step(0, loaders.batch(0), replica=replica)
    with pytest.raises(error, match="replica"):
        mixup().plan(0, 4, replica=replica)


# Lists, as PyTorch's loaders form batches.


@pytest.mark.parametrize("weights", [False, True])
def test_a_list_is_a_batch(weights):
    given = [*loaders.batch(0), np.linspace(0.5, 1.5, SIZE, dtype="float32")][: 2 + weights]
    layer, expected = mixup(), mixup().at_step(0, tuple(given))
    for mixed in (layer.at_step(0, given), layer(*given), mixup()(*map(keras.ops.convert_to_tensor, given))):
        assert type(mixed) is tuple
        for ours, other in zip(mixed, expected, strict=True):
            np.testing.assert_allclose(to_numpy(ours), other, atol=1e-6)
    soft = [given[0], np.eye(3, dtype="float32")[given[1]]]
    assert np.abs(mixup(num_classes=None)(*soft)[0] - given[0]).max() > 0.1


def test_a_list_is_several_inputs_inside_a_model():
    inputs = [keras.Input((4,)), keras.Input((4,))]
    mixed = mixup(num_classes=None)(inputs)
    assert isinstance(mixed, list)
    model = keras.Model(inputs, keras.layers.Add()(mixed))
    x = loaders.X[:SIZE]
    np.testing.assert_allclose(to_numpy(model([x, x])), 2 * x, atol=1e-6)


def test_batches_may_end_in_any_order():
    """Keras runs the hooks of callbacks that are safe for it in several threads."""
    numbering = kmix.data.Numbering()
    mixed = numbering(loaders.Batches())
    numbering.set_params({"steps": BATCHES})
    numbering.on_train_begin()
    numbering.on_epoch_begin(0)
    for batch in (0, 1, 2, 4, 3):
        numbering.on_train_batch_end(batch)
    assert numbering.state_dict()["step"] == BATCHES == mixed.num_batches
