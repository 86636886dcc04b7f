"""The vocabulary of corruption: operations, kinds of noise, level handling, and what is planned for one utterance."""

from dataclasses import dataclass

DISTORTIONS = ("reverb", "pitch_shift", "band_reject")
"""What changes the speech itself, at most one of them, before noise is added."""

OPERATIONS = ("clean", "noise", *(prefix + name for name in DISTORTIONS for prefix in ("", "noise+")))
COLORS = ("white", "pink", "brown")
NOISE_KINDS = (*COLORS, "babble", "file")
REVERB_LEVELS = ("rms", "direct", "file")


@dataclass(frozen=True)
class Plan:
    """What a condition or a policy wants for one utterance, before files are chosen.

    Attributes:
        operation: one of ``OPERATIONS``.
        snr_db: signal-to-noise ratio in dB, None without noise.
        noise_kind: one of ``NOISE_KINDS``, None without noise.
        talkers: voices in babble.
        rt60_s: wanted reverberation time in seconds, None for any room.
        reverb_level: one of ``REVERB_LEVELS``; see ``corrupt``.
        pitch_cents: pitch shift in cents, None without one.
        band_hz: lowest and highest frequency of the rejected band, None without one.

    >>> Plan("noise", snr_db=5.0, noise_kind="white").has_noise
    True
    """

    operation: str = "clean"
    snr_db: float | None = None
    noise_kind: str | None = None
    talkers: int = 5
    rt60_s: float | None = None
    reverb_level: str = "rms"
    pitch_cents: float | None = None
    band_hz: tuple[float, float] | None = None

    @property
    def has_noise(self) -> bool:
        """Whether noise is added."""
        return "noise" in self.operation

    @property
    def has_reverb(self) -> bool:
        """Whether the speech is reverberated."""
        return "reverb" in self.operation
