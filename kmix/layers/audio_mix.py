"""AudioMix: add waves, as sounds do that are heard together."""

from collections.abc import Sequence
from typing import Any

import keras

from kmix import _backend, _checks
from kmix.batch import Batch
from kmix.layers.base import MixLayer
from kmix.layers.input_mixing import AddWaves, InputMixing
from kmix.mixing import waves
from kmix.pairing import RandomPairs
from kmix.plan import MixPlan, sample_audio_mix
from kmix.plan.audio import check_snr, check_sources
from kmix.typing import PairingLike, Per, ScalarOrSchedule, TargetLike


@keras.saving.register_keras_serializable(package="kmix")
class AudioMix(MixLayer):
    """Adds waves of several samples: at their own levels, at equal ones, or at signal-to-noise ratios.

    The sample and its partners have shares `s` with a sum of 1, by which labels are mixed. The waves are added with
    gains: `s` for the sample, and `s` for a partner, times `rms_sample / rms_partner` where levels count (with `snr` or
    `equal_levels`). The sum is divided by the root of the sum of their squares, so that noises of one level keep it
    (`constant_power`), or with `snr` by the gain of the sample, which then sounds as it did. It is never clipped.

    The level of a sample is its root mean square over time and channels, without values that are exactly 0, such as
    padding. Where levels count, a silent partner gives its share to the sample, a silent sample is not mixed, and NaN
    stays NaN. Partners are others of the batch, each a different one; a small batch (or group) may have fewer.

    Args:
        alpha: Parameter of the symmetric Dirichlet distribution of the shares, a float >= 0 or a schedule (a callable
            of the step). 0 is the identity, 1 is uniform, a very large one gives equal shares. Defaults to 1. With
            `snr`, the layer has no alpha.
        snr: The lowest and the highest signal-to-noise ratio in dB, `(0, 20)`: how far the sample is above a partner,
            uniform for each partner. The shares are those of the amplitudes: one half at 0 dB, 0.91 and 0.09 at 20 dB.
        num_sources: How many samples are added, with the sample itself: an int from 2 to 8, or the fewest and the most,
            `(1, 3)`, drawn uniformly. A sample that draws 1 is not mixed.
        equal_levels: Whether to bring partners to the level of the sample first.
        constant_power: Whether the squares of the gains sum to 1. By default they do, unless `snr` is given.
        num_classes, target: What `y` is, see `MixUp`. `"union"` keeps the tags of all that is heard.
        pairing: Who mixes with whom, see `MixUp`. With more than two sources, `RandomPairs` alone. No sample is its own
            partner by `"random"`.
        per: `"sample"` draws shares and the number of sources for each sample, `"batch"` once for the whole batch.
        rate: Probability in [0, 1] that a sample (or a batch, with `per="batch"`) is mixed at all, a float or a
            schedule.
        lam_at_least_half: Whether to take `max(lam, 1 - lam)` for lam, the share of the sample. Partners keep their
            proportion. With `snr`, choose a range >= 0 instead.
        include_clean: See `MixUp`.
        inputs_key: The key of the waves in a dictionary batch; a tuple of keys for several.
        jit_compile, seed, name, dtype: See `MixUp`.

    Call arguments:
        x: Float waves `(B, T)` or `(B, T, C)`, or a structure of them. The level of a sample is that of all its waves.
        y, sample_weight, training: As for `MixUp`.

    Returns:
        The batch in the same structure: waves in the compute dtype of the layer (float32 by default), labels and sample
        weights in float32.

    Raises:
        ValueError: if x holds integers, or arrays of another rank; if an argument is out of range, or two of them
            exclude each other; if a target or a rule of pairing is not made for several partners; and as for `MixUp`.
        TypeError: if an argument is of the wrong type.

    Reference:
        Y. Tokozume, Y. Ushiku, T. Harada, "Learning from Between-class Examples for Deep Sound Recognition", ICLR 2018,
        https://arxiv.org/abs/1711.10282; B. van Merriënboer et al., "Perch 2.0: The Bittern Lesson for Bioacoustics",
        2025, https://arxiv.org/abs/2508.04665

    Example:
        >>> waves = np.sin(np.arange(4)[:, None] + np.linspace(0, 500, 8000)).astype("float32")
        >>> layer = kmix.AudioMix(snr=(0, 20), num_classes=4, seed=1)
        >>> mixed, y = layer(waves, np.arange(4))
        >>> y.max(axis=1).round(2)
        array([0.61, 0.56, 0.59, 0.71], dtype=float32)
    """

    def __init__(
        self,
        alpha: ScalarOrSchedule = 1.0,
        *,
        snr: Sequence[float] | None = None,
        num_sources: int | Sequence[int] = 2,
        equal_levels: bool = False,
        constant_power: bool | None = None,
        num_classes: int | None = None,
        target: TargetLike | None = None,
        pairing: PairingLike = "random",
        per: Per = "sample",
        rate: ScalarOrSchedule = 1.0,
        lam_at_least_half: bool = False,
        include_clean: bool = False,
        inputs_key: str | Sequence[str] = "audio",
        jit_compile: bool = True,
        seed: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        ratios, sources = check_snr(snr), check_sources(num_sources)
        self._store(
            snr=ratios,
            num_sources=sources if isinstance(num_sources, (list, tuple)) else sources[0],
            equal_levels=_checks.boolean(equal_levels, "equal_levels"),
            constant_power=None if constant_power is None else _checks.boolean(constant_power, "constant_power"),
            _partners=sources[1] - 1,
            _has_alpha=snr is None,
        )
        if ratios:
            _check_alone(alpha, lam_at_least_half)
            self._store(_argument_names=tuple(each for each in self._argument_names if each != "alpha"))
        super().__init__(
            alpha,
            num_classes=num_classes,
            target=target,
            pairing=pairing,
            per=per,
            rate=rate,
            lam_at_least_half=lam_at_least_half,
            include_clean=include_clean,
            inputs_key=inputs_key,
            jit_compile=jit_compile,
            seed=seed,
            name=name,
            dtype=dtype,
        )
        self._pairing = _others(self._pairing, num_sources, sources[1])

    @property
    def input_mixing(self) -> InputMixing:
        return AddWaves(self.compute_dtype)

    def sample(self, seed: int, step: Any, alpha: Any, batch_size: Any, spatial_shape: Any, **settings: Any) -> MixPlan:
        settings |= {"snr": self.snr, "num_sources": self.num_sources}
        return sample_audio_mix(seed, step, alpha, batch_size, **settings)

    def resolve(self, plan: MixPlan, batch: Batch) -> MixPlan:
        """The plan with the gains of the waves, and where levels count without silent sources."""
        xp, plan, level = batch.xp, plan.without_own_partners(), None
        if self.snr or self.equal_levels:
            level = waves.levels(xp, keras.tree.flatten(batch.inputs))
            plan = waves.with_levels(xp, plan.as_arrays(xp), level)
        else:
            xp = _backend.namespace(plan.lam)
        constant_power = not self.snr if self.constant_power is None else self.constant_power
        return waves.with_gains(xp, plan, level, constant_power=constant_power, to_sample=bool(self.snr))

    def _without_alpha(self):
        return "Its shares follow from `snr`."


def _check_alone(alpha, lam_at_least_half):
    """Raise if there are settings beside `snr` that would change the ratios."""
    if callable(alpha) or alpha != 1.0:
        _checks.fail(
            "With `snr`, the shares of the sources follow from the ratios.", f"alpha={alpha!r}", "Leave out `alpha`."
        )
    if lam_at_least_half:
        _checks.fail(
            "With `snr`, the shares of the sources follow from the ratios.",
            "lam_at_least_half=True",
            "Choose a range >= 0, in which no partner is louder than its sample.",
        )


def _others(rule, num_sources, most):
    """The rule of pairing in which no sample is its own partner, or raise."""
    if type(rule) is RandomPairs:
        # All of the batch (or group) is one cycle, in which the next ones are others.
        return rule.replace(allow_self=False)
    if most > 2:
        _checks.fail(
            "AudioMix of more than two sources draws partners at random.",
            f"pairing={rule!r} with num_sources={num_sources!r}",
            "Write `num_sources=2`, or `pairing=kmix.pairing.RandomPairs()`.",
        )
    return rule
