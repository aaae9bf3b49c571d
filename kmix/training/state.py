"""The step and alpha of a trainer as weights: in its files, and on JAX while `fit` holds all weights."""

import contextlib
import json
import math
import os
import zipfile
from collections.abc import Sequence
from typing import Any

import h5py
import keras
import numpy as np
from keras import ops

from kmix import _backend, _checks, _files
from kmix.layers.base import MixLayer

# The group of the state in a weights file. Keras reads only the names of the layers of a model.
_GROUP = "kmix"


class State:
    """The step and alpha of a trainer, which a compiled step reads and writes.

    Args:
        trainer: A `MixTrainer`.
        layers: The layers that draw with an alpha.
        one_alpha: Whether all layers share one weight, so that their alphas cannot differ.
    """

    def __init__(self, trainer: Any, layers: Sequence[MixLayer], one_alpha: bool) -> None:
        self._trainer, self._by_layer = trainer, {}
        self._held: list[tuple] = []
        self.alphas: list[keras.Variable] = []
        # The alphas that the trainer was built with: a file written with others changes alpha.
        self.built_with: list[float] = []
        settings = {"shape": (), "trainable": False, "autocast": False, "aggregation": "only_first_replica"}
        with _backend.device_of_plans():
            # JAX has 32 bits; of 64, the plan takes the lower 32.
            dtype = "uint32" if keras.backend.backend() == "jax" else "int64"
            self.step = trainer.add_weight(dtype=dtype, initializer="zeros", name="step", **settings)
            for layer in dict.fromkeys(layers):
                if callable(layer.alpha):
                    continue
                if not one_alpha or not self.alphas:
                    # Keras tells the weights of a state tree apart by their names.
                    name = f"alpha_{len(self.alphas)}" if self.alphas else "alpha"
                    self.built_with.append(layer.alpha)
                    self.alphas.append(trainer.add_weight(dtype="float32", initializer="zeros", name=name, **settings))
                self._by_layer[layer] = self.alphas[-1]
                layer._alpha.share(self.alphas[-1], trainer.refresh)

    def read(self) -> tuple[Any, dict[Any, Any]]:
        """The step, and alpha by layer: as values, or as tensors while a step is compiled."""

        def value(weight):
            tensor = _backend.namespace(weight.value).asarray(weight.value)
            return tensor if _backend.is_symbolic(tensor) else _backend.values(tensor)

        with _backend.device_of_plans():
            step = value(self.step)
            # Schedules calculate with the step, and below 0 as well. The plan takes these 32 bits as they are.
            step = ops.cast(step, "int32") if _backend.is_jax_tracer(step) else step
            return step, {layer: value(weight) for layer, weight in self._by_layer.items()}

    def advance(self) -> None:
        """Go on to the next step."""
        with _backend.device_of_plans():
            # A native sum stays int64: Keras 3.16 calculates in 32 bits on PyTorch.
            self.step.assign(self.step.value + 1)

    def hold(self) -> None:
        """Hold the weights of the trainer: on JAX, Keras takes them before a step, and would lose them if it raises."""
        if keras.backend.backend() == "jax":
            weights = [*self._trainer.variables, *(self.optimizer.variables if self.optimizer else ())]
            self._held = [(weight, weight.value) for weight in weights]

    def restore(self) -> None:
        """Restore the weights that are held."""
        for weight, value in self._held:
            if not value.is_deleted():
                weight.assign(value)

    def save(self, filepath: Any, overwrite: bool, settings: dict[str, Any]) -> None:
        """Save a weights file of the bare model with this state and that of the optimizer.

        A process that is killed leaves the file as it was, or no index of sharded weights, and never a file without its
        state.
        """
        if os.path.exists(filepath) and not overwrite:
            _checks.fail("The file exists.", f"filepath={str(filepath)!r}", "Write `overwrite=True`.")
        with _files.written_whole(filepath) as partial:
            self._trainer.model.save_weights(partial, **settings)
            self._write(_first_shard(partial))

    @property
    def optimizer(self) -> Any:
        """The optimizer of the trainer, or None."""
        # A model has none before `compile`.
        return getattr(self._trainer, "optimizer", None)

    def _write(self, path):
        optimizer = self.optimizer
        arrays = {"step": self.step, **{f"alpha/{i}": weight for i, weight in enumerate(self.alphas)}}
        if optimizer is not None and optimizer.built:
            arrays |= {f"optimizer/{i}": variable for i, variable in enumerate(optimizer.variables)}
        with h5py.File(path, "a") as file:
            group = file.create_group(_GROUP)
            for name, variable in arrays.items():
                array = ops.convert_to_numpy(variable.value)
                # HDF5 has no bfloat16.
                group[name] = array.astype("float32") if "bfloat16" in str(array.dtype) else array
            group["built_with"] = self.built_with

    def load(self, filepath: Any, resumes: bool, settings: dict[str, Any]) -> None:
        """Load a weights file of a trainer or of the bare model into the model, and the state if the file has one.

        Args:
            filepath, settings: As for `keras.Model.load_weights`.
            resumes: Whether training is to go on from the file.

        Raises:
            ValueError: if the file resumes no training, or its state cannot be one.
        """
        path, saved = _first_shard(filepath), {}
        if path.endswith(".h5") and os.path.exists(path):
            with _readable(path, OSError, AttributeError), h5py.File(path, "r") as file:
                if _GROUP in file:
                    file[_GROUP].visititems(
                        lambda name, item: saved.update({name: item[()]} if isinstance(item, h5py.Dataset) else {})
                    )
        if not saved and resumes:
            _checks.fail(
                "Training goes on from a file with the step of the trainer, and with its optimizer.",
                f"{str(filepath)!r}, which holds the weights of a model alone",
                "To begin with these weights, write `trainer.model.load_weights(path)` before `fit`, and remove the "
                "file from where a callback finds it.",
            )
        alphas = [saved[name] for i in range(len(saved)) if (name := f"alpha/{i}") in saved]
        states = {name.removeprefix("optimizer/"): value for name, value in saved.items() if "optimizer/" in name}
        if saved:
            check_saved(saved.get("step"), alphas, saved.get("built_with"))
        if states and not self._fits(states):
            if not settings.get("skip_mismatch"):
                _checks.fail(
                    "The state of the optimizer in the file must fit the weights of the trainer.",
                    f"other shapes in {str(filepath)!r}",
                    "To load what fits, write `skip_mismatch=True`.",
                )
            states = {}
            _checks.warn(f"The state of the optimizer in {str(filepath)!r} does not fit and is skipped.")
        self._trainer.model.load_weights(filepath, **settings)
        if not saved:
            return
        alphas = list(map(float, alphas))
        self.step.assign(saved["step"])
        if len(alphas) == len(self.alphas):
            before = [float(_backend.values(weight.value)) for weight in self.alphas]
            for weight, value in zip(self.alphas, alphas, strict=True):
                weight.assign(value)
            if not all(map(math.isclose, saved["built_with"], self.built_with)) and before != alphas:
                _checks.warn(
                    f"The file sets alpha to {alphas}, but the trainer was built with {self.built_with}. To train with "
                    "another alpha, set `trainer.alpha` after loading."
                )
        if self.optimizer is not None and states:
            self.optimizer.load_own_variables(states)

    def _fits(self, states):
        """Whether the optimizer has variables of these shapes. Of another number of them, Keras warns."""
        variables = self.optimizer.variables if self.optimizer is not None else []
        if len(variables) != len(states):
            return True
        saved = [np.asarray(states.get(str(i), "missing")) for i in range(len(variables))]
        return all(
            array.dtype.kind in "fiu" and array.shape == tuple(variable.shape)
            for array, variable in zip(saved, variables, strict=True)
        )


def _first_shard(filepath):
    """Where the state is: a file of weights, or the first of its shards."""
    return str(filepath).replace(".weights.json", "_00000.weights.h5")


def check_saved(step: Any, alphas: Sequence[Any], built_with: Sequence[Any] | None) -> None:
    """Raise unless these can be the step, the alphas and the alphas at the start of a saved trainer."""
    step, *alphas = (None if value is None else np.asarray(value) for value in (step, *alphas))
    if step is None or step.dtype.kind not in "iu" or step.ndim or not 0 <= step < 2**32:
        _checks.fail("The step of a saved trainer must be an integer >= 0.", f"step={step}", _DAMAGED)
    for values in (alphas, built_with):
        numbers = [] if values is None else list(map(np.asarray, values))
        valid = all(number.dtype.kind == "f" and number.ndim == 0 and 0 <= number < np.inf for number in numbers)
        if not valid or values is None or len(numbers) != len(alphas):
            _checks.fail(
                "The alpha of a saved trainer must be >= 0 for each of its layers, now and when it was built.",
                f"alpha={list(map(str, alphas))}, built_with={built_with}",
                _DAMAGED,
            )


@contextlib.contextmanager
def _readable(path, *errors):
    """A scope that reads a file, in which these errors say that it is damaged."""
    try:
        yield
    except errors as error:
        _checks.fail("The file must be one that Keras or kmix wrote.", f"{str(path)!r}: {error}", _DAMAGED)


_DAMAGED = "The file is damaged. Load an earlier one."


def is_trainer_file(filepath: Any) -> bool:
    """Whether a file was written by `trainer.save("name.keras")`."""
    if not str(filepath).endswith(".keras"):
        return False
    errors = zipfile.BadZipFile, KeyError, TypeError, ValueError
    with _readable(filepath, *errors), zipfile.ZipFile(filepath) as archive:
        return "mix_losses" in json.loads(archive.read("config.json"))["config"]


def shards(within: Any) -> int:
    """Number of equal parts of the batch within which partners stay: the devices of the batch axis, or 1."""
    distribution = keras.distribution.distribution()
    # On TensorFlow, `keras.distribution` has no effect. Under `tf.distribute`, a replica sees only its own batch.
    if within != "shard" or distribution is None or keras.backend.backend() == "tensorflow":
        return 1
    mesh = distribution.device_mesh
    return mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)]
