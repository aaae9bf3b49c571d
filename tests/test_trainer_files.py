"""Files of a MixTrainer: written whole or not at all, checked when they are read, and those of the bare model."""

import io
import os
import signal
import subprocess
import sys
import warnings
import zipfile

import h5py
import keras
import numpy as np
import pytest
from helpers import data, ids

import kmix

BACKEND = keras.backend.backend()
X, Y = data(12, (5,)), ids(12)
# Compiling a step would take most of the time of these tests.
PLAIN = {"run_eagerly": True}


def network():
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((5,)), keras.layers.Dense(4), keras.layers.Dense(3, "softmax")])


def trainer_of(optimizer="adam", alpha=0.4):
    trainer = kmix.MixTrainer(network(), kmix.MixUp(alpha, seed=3))
    trainer.compile(optimizer, kmix.losses.SoftLabelCrossentropy(), **PLAIN)
    return trainer


def trained(steps=2, **settings):
    trainer = trainer_of(**settings)
    for _ in range(steps):
        trainer.train_on_batch(X, Y)
    return trainer


def same(one, other):
    return all(np.array_equal(*pair) for pair in zip(one.get_weights(), other.get_weights(), strict=True))


FILES = {
    "one file": ("trainer.weights.h5", {}),
    "shards": ("trainer.weights.json", {"max_shard_size": 1e-7}),
}
every_kind = pytest.mark.parametrize("name", ["trainer.weights.h5", "trainer.keras"])
every_file = pytest.mark.parametrize(("name", "settings"), FILES.values(), ids=FILES)


@pytest.mark.fast("one file")
@every_file
def test_training_goes_on_from_a_file(name, settings, tmp_path):
    trainer, path = trained(), tmp_path / name
    trainer.alpha = 0.7
    trainer.save_weights(path, **settings)
    assert len(os.listdir(tmp_path)) == 1 if name.endswith("h5") else len(os.listdir(tmp_path)) > 2
    resumed, bare = trainer_of(), network()
    resumed.load_weights(path)
    bare.load_weights(path)
    assert (int(resumed.step), resumed.alpha) == (2, pytest.approx(0.7))
    assert same(bare, trainer.model)
    for each in (trainer, resumed):
        each.train_on_batch(X, Y)
    assert same(resumed, trainer)


class Killed(BaseException):
    """What a simulated kill raises, which nothing catches."""


@pytest.mark.fast("before the last move-one file")
@every_file
@pytest.mark.parametrize("point", ["before the state", "before the first move", "before the last move"])
def test_a_process_killed_while_it_saves_leaves_no_file_without_its_state(name, settings, point, tmp_path, monkeypatch):
    path = tmp_path / name
    trained(1).save_weights(path, **settings)
    trainer, moves, move = trained(3), [], os.replace
    last = len([file for file in os.listdir(tmp_path) if not file.startswith(".")]) - 1

    def killed(*args):
        moves.append(args)
        if point == "before the first move" or len(moves) > last:
            raise Killed
        return move(*args)

    with monkeypatch.context() as patch:
        where = (h5py.File, "create_group") if point == "before the state" else (os, "replace")
        patch.setattr(*where, killed)
        last = 0 if point == "before the state" else last
        with pytest.raises(Killed):
            trainer.save_weights(path, **settings)
    resumed = trainer_of()
    if name.endswith(".json") and point != "before the state":
        # Several files cannot be moved at once: the index is gone until all of them are there.
        assert not path.exists()
    else:
        resumed.load_weights(path)
        assert int(resumed.step) == 1
        assert same(resumed, trained(1))
    trainer.save_weights(path, **settings)
    resumed.load_weights(path)
    assert int(resumed.step) == 3
    assert same(resumed, trainer)


def test_a_trainer_that_is_not_compiled_has_weights_in_files(tmp_path):
    path, trainer = tmp_path / "trainer.weights.h5", kmix.MixTrainer(network(), kmix.MixUp(0.4, seed=3))
    trainer.step.assign(7)
    trainer.save_weights(path)
    for other in (kmix.MixTrainer(network(), kmix.MixUp(0.4)), trainer_of()):
        other.model.layers[0].kernel.assign(np.zeros((5, 4)))
        other.load_weights(path)
        assert int(other.step) == 7
        assert same(other, trainer)


def test_a_file_that_is_not_to_be_overwritten_stays(tmp_path):
    path = tmp_path / "trainer.weights.h5"
    trained(1).save_weights(path)
    with pytest.raises(ValueError, match="overwrite=True"):
        trained(2).save_weights(path, overwrite=False)
    resumed = trainer_of()
    resumed.load_weights(path)
    assert int(resumed.step) == 1
    trained(0).save_weights(tmp_path / "other.weights.h5", overwrite=False)


SAVES = """
import sys; sys.path.insert(0, {tests!r})
import test_trainer_files as t
trainer = t.trained(1)
while True:
    trainer.save_weights({path!r})
    print("saved", flush=True)
    trainer.step.assign_add(1)
"""


@pytest.mark.slow
def test_a_real_kill_leaves_a_whole_file(tmp_path):
    path, tests = tmp_path / "trainer.weights.h5", os.path.dirname(__file__)
    process = subprocess.Popen(
        [sys.executable, "-c", SAVES.format(tests=tests, path=str(path))],
        stdout=subprocess.PIPE,
        env={**os.environ, "KERAS_BACKEND": BACKEND},
        text=True,
    )
    with process:
        for _ in range(20):
            assert process.stdout.readline() == "saved\n"
        process.send_signal(signal.SIGKILL)
    resumed = trainer_of()
    resumed.load_weights(path)
    assert int(resumed.step) >= 20
    assert resumed.optimizer.built


class Interrupted(Exception):
    pass


class Stop(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise Interrupted


@pytest.mark.slow
def test_backup_and_restore_refuses_a_file_without_its_state(tmp_path):
    path = tmp_path / "latest.weights.h5"
    fit = {"epochs": 4, "batch_size": 6, "shuffle": False, "verbose": 0}
    backup = lambda: keras.callbacks.BackupAndRestore(str(tmp_path), delete_checkpoint=False)
    with pytest.raises(Interrupted):
        trainer_of().fit(X, Y, callbacks=[backup(), Stop()], **fit)
    resumed = trainer_of()
    resumed.fit(X, Y, callbacks=[backup()], **fit)
    assert int(resumed.step) == 8
    # As a process left it that was killed between Keras' part of the file and that of the trainer.
    with h5py.File(path, "a") as file:
        del file["kmix"]
    before = trainer_of()
    with pytest.raises(ValueError, match=r"trainer\.model\.load_weights"):
        before.fit(X, Y, callbacks=[backup()], **fit)
    assert same(before, network())
    # To begin with the weights alone is another wish.
    before.load_weights(path)
    assert same(before, resumed)
    assert int(before.step) == 0
    before.fit(X, Y, **fit)


def test_a_keras_file_of_a_trainer_or_of_the_bare_model_loads_into_both(tmp_path):
    trainer, path = trained(), tmp_path / "trainer.keras"
    trainer.save(path)
    other = trainer_of()
    other.load_weights(path)
    assert int(other.step) == 2
    assert same(other, trainer)
    other.train_on_batch(X, Y)
    trainer.train_on_batch(X, Y)
    assert same(other, trainer)  # the state of the optimizer came along
    trainer.model.save(tmp_path / "bare.keras")
    fresh = trainer_of()
    fresh.load_weights(tmp_path / "bare.keras")
    assert same(fresh, trainer)
    assert int(fresh.step) == 0
    bare = network()
    bare.set_weights(keras.saving.load_model(path).model.get_weights())
    fresh.load_weights(path)
    assert same(bare, fresh)


def warned(function):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function()
    return [str(warning.message) for warning in caught if warning.category is UserWarning]


def test_an_optimizer_state_that_does_not_fit_is_warned_of_as_by_keras(tmp_path):
    path = tmp_path / "trainer.weights.h5"
    trained().save_weights(path)
    other = trainer_of("sgd")
    texts = warned(lambda: other.load_weights(path))
    assert len(texts) == 1
    assert "Skipping variable loading for optimizer" in texts[0]
    assert int(other.step) == 2
    assert not warned(lambda: trainer_of().load_weights(path))


def test_an_optimizer_state_of_other_shapes_is_skipped_if_one_says_so(tmp_path):
    path, other = tmp_path / "trainer.weights.h5", trainer_of()
    trained().save_weights(path)
    with h5py.File(path, "a") as file:
        del file["kmix/optimizer/2"]
        file["kmix/optimizer/2"] = np.zeros((2, 2))
    with pytest.raises(ValueError, match="skip_mismatch=True"):
        other.load_weights(path)
    assert same(other, trainer_of())
    texts = warned(lambda: other.load_weights(path, skip_mismatch=True))
    assert len(texts) == 1
    assert "does not fit" in texts[0]
    assert same(other, trained())
    assert int(other.step) == 2
    assert int(other.optimizer.iterations) == 0


@pytest.mark.parametrize("size", [0, 100, -10])
@every_kind
def test_a_file_that_is_cut_short_is_named(name, size, tmp_path):
    path, trainer = tmp_path / name, trained()
    (trainer.save if name.endswith(".keras") else trainer.save_weights)(path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=f"{name}.*damaged"):
        trainer_of().load_weights(path)


TAMPERED = {
    "no step": ("step", None, "step"),
    "a negative step": ("step", -3, "step"),
    "a step beyond": ("step", 2**32, "step"),
    "a negative alpha": ("alpha/0", np.float32(-1), "alpha"),
    "no number": ("alpha/0", np.float32("nan"), "alpha"),
    "half a step": ("step", 2.5, "step"),
    "several steps": ("step", np.array([1, 2]), "step"),
    "a text as step": ("step", "abc", "step"),
    "no alpha": ("alpha/0", None, "alpha"),
    "a text as alpha": ("alpha/0", "abc", "alpha"),
    "several alphas": ("alpha/0", np.ones(2, "float32"), "alpha"),
    "no alpha at the start": ("built_with", None, "alpha"),
    "too many alphas at the start": ("built_with", [0.1, 0.2], "alpha"),
}


@pytest.mark.in_turn
@pytest.mark.fast("no alpha")
@pytest.mark.parametrize("case", TAMPERED)
def test_a_file_that_was_tampered_with_is_refused_before_anything_changes(case, tmp_path):
    name, value, word = TAMPERED[case]
    path = tmp_path / "trainer.weights.h5"
    trained().save_weights(path)
    with h5py.File(path, "a") as file:
        del file["kmix"][name]
        if value is not None:
            file["kmix"][name] = value
    other = trainer_of()
    with pytest.raises(ValueError, match=f"`?{word}`? of a saved trainer|The {word} of a saved"):
        other.load_weights(path)
    assert same(other, network())
    assert (int(other.step), other.alpha) == (0, 0.4)


def test_a_keras_file_that_was_tampered_with_is_refused(tmp_path):
    trainer = trained()
    trainer.step.assign(5)
    for variable, value in (
        (next(each for each in trainer.non_trainable_variables if each.name == "alpha"), float("nan")),
        (next(each for each in trainer.non_trainable_variables if each.name == "alpha"), -1.0),
    ):
        before = keras.ops.convert_to_numpy(variable)
        variable.assign(value)
        trainer.save(tmp_path / "trainer.keras")
        variable.assign(before)
        with pytest.raises(ValueError, match="alpha of a saved trainer"):
            trainer_of().load_weights(tmp_path / "trainer.keras")


def test_a_keras_file_without_its_step_is_refused(tmp_path):
    trained().save(tmp_path / "trainer.keras")
    with zipfile.ZipFile(tmp_path / "trainer.keras") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    weights = io.BytesIO(files["model.weights.h5"])
    with h5py.File(weights, "a") as file:
        del file["vars/0"]
    with zipfile.ZipFile(tmp_path / "damaged.keras", "w") as archive:
        for name, content in {**files, "model.weights.h5": weights.getvalue()}.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match="step of a saved trainer"):
        trainer_of().load_weights(tmp_path / "damaged.keras")
    with pytest.raises(ValueError, match="step of a saved trainer"):
        keras.models.load_model(tmp_path / "damaged.keras")


def test_the_step_is_right_up_to_32_bits_and_in_older_files(tmp_path):
    trainer, path = trained(1), tmp_path / "trainer.weights.h5"
    for number in (2**31 - 1, 2**32 - 2):
        trainer.step.assign(number)
        trainer.train_on_batch(X, Y)
        assert int(trainer.step) == number + 1
        trainer.save_weights(path)
        other = trainer_of()
        other.load_weights(path)
        assert int(other.step) == number + 1
    with h5py.File(path, "a") as file:
        del file["kmix"]["step"]
        file["kmix"]["step"] = np.int32(7)
    other.load_weights(path)
    assert int(other.step) == 7


def test_a_step_beyond_31_bits_is_mixed_by_its_plan():
    trainer = trainer_of("sgd")
    trainer.step.assign(3_000_000_000)
    plan = trainer.plan(3_000_000_000, 12)
    p = trainer.model.predict(
        (plan.lam[:, None] * X + (1 - plan.lam[:, None]) * X[plan.permutation]).astype("float32"), verbose=0
    )
    y = np.eye(3)[Y]
    mixed = plan.lam[:, None] * y + (1 - plan.lam[:, None]) * y[plan.permutation]
    assert trainer.train_on_batch(X, Y) == pytest.approx(-(mixed * np.log(p)).sum(axis=1).mean(), rel=1e-4)
