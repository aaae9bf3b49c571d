"""The step and alpha of a trainer as weights: in its files, and on JAX while `fit` holds all weights."""

import math
import os

import h5py
import keras
from keras import ops

from kmix import _backend, _checks

# The group of the state in a weights file. Keras reads only the names of the layers of a model.
_GROUP = "kmix"


class State:
    """The step and alpha of a trainer, which a compiled step reads and writes.

    Args:
        trainer: A `MixTrainer`.
        layers: The layers that draw with an alpha.
        one_alpha: Whether all layers share one weight, so that their alphas cannot differ.
    """

    def __init__(self, trainer, layers, one_alpha):
        self._trainer, self._by_layer = trainer, {}
        self.alphas: list[keras.Variable] = []
        # The alphas that the trainer was built with: a file written with others changes alpha.
        self.built_with: list[float] = []
        settings = {"shape": (), "trainable": False, "autocast": False, "aggregation": "only_first_replica"}
        with _backend.beside_the_plan():
            self.step = trainer.add_weight(dtype="int", initializer="zeros", name="step", **settings)
            for layer in dict.fromkeys(layers):
                if callable(layer.alpha):
                    continue
                if not one_alpha or not self.alphas:
                    # Keras tells the weights of a state tree apart by their names.
                    name = f"alpha_{len(self.alphas)}" if self.alphas else "alpha"
                    self.built_with.append(layer.alpha)
                    self.alphas.append(trainer.add_weight(dtype="float32", initializer="zeros", name=name, **settings))
                self._by_layer[layer] = self.alphas[-1]
                layer.share_alpha(self.alphas[-1], trainer.refresh)

    def _values(self):
        return [float(_backend.values(weight.value)) for weight in self.alphas]

    def read(self):
        """The step, and alpha by layer: as values, or as tensors while a step is compiled."""

        def value(weight):
            tensor = _backend.namespace(weight.value).asarray(weight.value)
            return tensor if _backend.is_symbolic(tensor) else _backend.values(tensor)

        with _backend.beside_the_plan():
            return value(self.step), {layer: value(weight) for layer, weight in self._by_layer.items()}

    def advance(self):
        """Go on to the next step."""
        with _backend.beside_the_plan():
            self.step.assign_add(1)

    def save(self, filepath, optimizer):
        """Add this state and the optimizer state to a weights file of the bare model."""
        arrays = {"step": self.step, **{f"alpha/{i}": weight for i, weight in enumerate(self.alphas)}}
        if optimizer is not None and optimizer.built:
            arrays |= {f"optimizer/{i}": variable for i, variable in enumerate(optimizer.variables)}
        with h5py.File(_file_of(filepath), "a") as file:
            file.pop(_GROUP, None)
            group = file.create_group(_GROUP)
            for name, variable in arrays.items():
                array = ops.convert_to_numpy(variable.value)
                # HDF5 has no bfloat16.
                group[name] = array.astype("float32") if "bfloat16" in str(array.dtype) else array
            group["built_with"] = self.built_with

    def load(self, filepath, optimizer):
        """Load the state from a file, if it has one; warn if the file was written with another alpha."""
        path = _file_of(filepath)
        if not path.endswith(".h5") or not os.path.exists(path):
            return
        with h5py.File(path, "r") as file:
            if _GROUP not in file:
                return
            group = file[_GROUP]
            self._assign(group, optimizer)

    def _assign(self, group, optimizer):
        self.step.assign(group["step"][()])
        loaded = [group["alpha"][str(i)][()] for i in range(len(group.get("alpha", ())))]
        built_with = [float(value) for value in group["built_with"]]
        if len(loaded) == len(self.alphas):
            before = self._values()
            for weight, value in zip(self.alphas, loaded, strict=True):
                weight.assign(value)
            alike = all(map(math.isclose, built_with, self.built_with))
            if not alike and self._values() != before:
                _checks.warn(
                    f"The file sets alpha to {self._values()}, but the trainer was built with {self.built_with}. "
                    "To train with another alpha, set `trainer.alpha` after loading."
                )
        saved = group.get("optimizer")
        if optimizer is None or saved is None:
            return
        if not optimizer.built:
            optimizer.build(self._trainer.trainable_variables)
        if len(saved) == len(optimizer.variables):
            for i, variable in enumerate(optimizer.variables):
                variable.assign(saved[str(i)][()])


def _file_of(filepath):
    """The file that holds the state: the weights file, or a file beside the index of a sharded one."""
    return str(filepath).replace(".weights.json", ".state.h5")


class HeldWeights:
    """Weights to restore if the first step on JAX raises: Keras takes them before the step, and would lose them.

    Args:
        trainer: A `MixTrainer`.
    """

    def __init__(self, trainer=None):
        self._held = []
        if trainer is not None and keras.backend.backend() == "jax":
            weights = [*trainer.variables, *(trainer.optimizer.variables if trainer.optimizer else ())]
            self._held = [(weight, weight.value) for weight in weights]

    def restore(self):
        """Restore the weights."""
        for weight, value in self._held:
            if not value.is_deleted():
                weight.assign(value)


def shards(pairing):
    """Number of equal parts of the batch within which partners stay: the devices of the batch axis, or 1."""
    distribution = keras.distribution.distribution()
    # On TensorFlow, `keras.distribution` has no effect. Under `tf.distribute`, a replica sees only its own batch.
    if pairing != "shard" or distribution is None or keras.backend.backend() == "tensorflow":
        return 1
    mesh = distribution.device_mesh
    return mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)]
