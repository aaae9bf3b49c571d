"""Batches by number: what a layer mixes in a step, and the plan of that step."""

from kmix import _backend, _checks
from kmix.batch import check_keys, is_labelled
from kmix.layers.config import Configured
from kmix.layers.partners import labels_for_plan
from kmix.layers.step import REPLICAS, StepKey, check_number
from kmix.plan import MixPlan


class Stepped(Configured):
    """A layer whose plans depend on the number of the batch."""

    def sample_plan(self, xp, key, batch_size, spatial_shape=None) -> MixPlan:
        """The plan of the step with a `StepKey`, in the array namespace `xp`."""
        raise NotImplementedError

    def mix_batch(self, key, batch, partner=None):
        """Mix a labelled batch with the `StepKey` of a step. `partner` is as for `at_step`."""
        raise NotImplementedError

    def at_step(self, step, batch, replica=0, *, partner=None):
        """Mix the batch with number `step`. A pure function: `ds.enumerate().map(layer.at_step)`.

        Args:
            step: Number of the batch: an integer >= 0 or an integer scalar tensor. Plans repeat after `2**32` steps.
            batch: `(x, y)`, `(x, y, sample_weight)`, or a dictionary with `"images"` and `"labels"`.
            replica: Number of the process in [0, 65536), where several processes load parts of the data and count
                the same steps: an int or an integer scalar tensor. Replicas draw different plans.
            partner: A second batch of the same structure, dtypes and shapes, from which all partners come: sample `i`
                is mixed with sample `plan.permutation[i]` of `partner`, by the same plan. Costs memory for a batch of
                twice the size.

        Returns:
            The mixed batch in the same structure and framework: NumPy for NumPy arrays (and for tensors of a
            framework that is neither TensorFlow nor Keras' backend). A list becomes a tuple, which `fit` takes.

        Raises:
            ValueError: if the batch has no labels, or cannot be mixed (see the class); if `partner` differs from it in
                more than its values, or the layer chooses partners by label or with `derange=True`.

        Example:
        >>> layer = kmix.MixUp(0.2, num_classes=3, seed=1)
        >>> x, y = layer.at_step(0, (np.ones((4, 2), "float32"), np.array([0, 1, 2, 1])))
        >>> y.shape
        (4, 3)
        """
        return _backend.as_written(self._at_step, step, batch, replica, partner)

    def _at_step(self, step, batch, replica, partner):
        key = StepKey(check_number(step, "step"), check_number(replica, "replica", REPLICAS))
        if partner is None:
            return self.mix_batch(key, self._labelled(batch))
        self.check_takes_partner()
        return self.mix_batch(key._replace(joined=True), self._labelled(batch), self._labelled(partner))

    def _labelled(self, batch):
        """A batch, or raise unless it has labels."""
        batch = tuple(batch) if isinstance(batch, list) else batch
        if isinstance(batch, dict):
            check_keys(batch, self.passthrough)
        elif not is_labelled(batch):
            _checks.fail(
                'Expected a labelled batch: (x, y), (x, y, sample_weight), or a dictionary with "images" and "labels".',
                f"a batch of type {type(batch).__name__}",
                "With tf.data write `ds.enumerate().map(layer.at_step)`.",
            )
        return batch

    def check_takes_partner(self):
        """Raise if the partners may not come from a second batch."""

    def plan(self, step, batch_size, spatial_shape=None, replica=0, *, labels=None):
        """The plan of one step as NumPy arrays: what the batch with that number is, or was, mixed with.

        Args:
            step: Number of the batch, an int >= 0.
            batch_size: Number of samples in the batch.
            spatial_shape: Sizes of the spatial axes, `(H, W)` for images. CutMix needs it.
            replica: Index of the replica under data parallelism, an int in [0, 65536).
            labels: The labels of the batch, by which `pairing="label"` chooses partners.

        Returns:
            A `kmix.MixPlan` for the current alpha of the layer. `RandomChoice` adds `choice`, the index of
            the layer it drew.

        Example:
        >>> kmix.MixUp(0.2, seed=1).plan(step=0, batch_size=4).permutation
        array([2, 0, 3, 1], dtype=int32)
        """
        step = _checks.integer(step, "step")
        batch_size = _checks.integer(batch_size, "batch_size", 1)
        replica = _checks.integer(replica, "replica", 0, REPLICAS)
        targets = labels_for_plan(labels, batch_size)
        return self.sample_plan(_backend.NUMPY, StepKey(step, replica, targets=targets), batch_size, spatial_shape)
