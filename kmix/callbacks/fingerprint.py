"""See that all processes of a training mix alike."""

from typing import Any

import keras

from kmix import _backend, _checks
from kmix.diagnostics.plan_replay import check_mixer, is_mixer
from kmix.training.trainer import MixTrainer


class Fingerprint(keras.callbacks.Callback):
    """Logs the fingerprint of the plans, and stops a training of several processes that do not mix alike.

    The log is called `fingerprint` and holds the number of the last step that was looked at, see
    `MixLayer.fingerprint`. In a training of several processes (JAX with `keras.distribution`, PyTorch with
    `torch.distributed`), all numbers are compared before the step: another seed or setting, or a checkpoint of another
    step in one of them would otherwise only show in the accuracy.

    The step is that of a `MixTrainer`; for a layer in a data pipeline it is the number of steps of the optimizer, which
    the numbers of a pipeline agree with if both go on from one checkpoint.

    Args:
        batch_size: Number of samples in the global batch, of all processes.
        every: Look at every n-th batch of an epoch, from the first.
        mixer: The layer that mixes in a data pipeline. Defaults to the model, if that is a `MixTrainer`.

    Raises:
        ValueError: if `batch_size` or `every` is less than 1; in training, if the fingerprints differ.
        TypeError: if `mixer` is no mixing layer or trainer; when training begins, if there is none.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation="softmax")])
        >>> trainer = kmix.MixTrainer(model, kmix.MixUp(0.4, seed=1), num_classes=2)
        >>> trainer.compile("sgd", kmix.losses.SoftLabelCrossentropy())
        >>> watch = kmix.callbacks.Fingerprint(batch_size=8)
        >>> log = trainer.fit(np.ones((16, 4)), np.arange(16) % 2, batch_size=8, verbose=0, callbacks=[watch])
        >>> log.history["fingerprint"] == [trainer.fingerprint(step=0, batch_size=8)]
        True
    """

    def __init__(self, batch_size: int, *, every: int = 100, mixer: Any = None) -> None:
        super().__init__()
        self.batch_size: int = _checks.integer(batch_size, "batch_size", 1)
        self.every: int = _checks.integer(every, "every", 1)
        self.mixer: Any = check_mixer(mixer)
        self._found: int | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not is_mixer(self._mixer()):
            _checks.fail(
                "A fingerprint is one of a mixing layer or a MixTrainer.",
                f"a {type(self.model).__name__}",
                "For a layer in a data pipeline, write `Fingerprint(batch_size, mixer=layer)`.",
                TypeError,
            )

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if batch % self.every == 0:
            step = self._step()
            self._found = self._mixer().fingerprint(step, self.batch_size)
            self._compare(step)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._report(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._report(logs)

    def _report(self, logs):
        if logs is not None:
            logs["fingerprint"] = self._found

    def _mixer(self):
        return self.model if self.mixer is None else self.mixer

    def _step(self):
        """The number of the step to come."""
        if isinstance(self.model, MixTrainer):
            self.model.refresh()
            return int(self.model.step)
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        return int(self.model.optimizer.iterations)

    def _compare(self, step):
        """Raise unless all processes found the same."""
        steps, found = _backend.of_all_processes(step), _backend.of_all_processes(self._found)
        if len(set(found)) > 1:
            pairs = zip(steps, found, strict=True)
            each = [f"{number:08x} at step {step} in process {i}" for i, (step, number) in enumerate(pairs)]
            _checks.fail(
                "All processes of a training must mix alike, but their fingerprints differ.",
                ", ".join(each),
                "Give all of them the same `seed`, settings and checkpoint.",
            )
