"""Packet loss: gaps, as in a call over a bad network."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .base import Effect, Parameters, Recordings, number

PACKET_S = 0.02


@dataclass(frozen=True)
class PacketLoss(Effect):
    """Packets of 20 ms are lost, single or several in a row, and silence is heard in their place.

    Losses follow the two-state model of Gilbert (1960): after a packet that arrived the next one is lost with one
    probability, after a lost one with another.

    Attributes:
        lost_share: expected share of lost packets.
        burst_packets: expected number of packets that are lost in a row; more where the share asks for it, since one
            packet at least arrives between two bursts.

    >>> PacketLoss.apply(np.ones(960, np.float32), {"lost_packets": [1]}, Recordings())[[319, 320, 639, 640]]
    array([1., 0., 0., 1.], dtype=float32)
    """

    name = "packet_loss"
    keys = ("lost_packets",)

    lost_share: Any = number(0, 0.9, default=(0.02, 0.2))
    burst_packets: Any = number(1, 100, default=2)

    def draw(self, rng: np.random.Generator, num_samples: int, recordings: Recordings) -> dict[str, Any]:
        """Which packets are lost, counted from 0."""
        share = self.lost_share.low
        lost_per_arrived = share / (1 - share)
        stays = 1 - 1 / max(self.burst_packets.low, lost_per_arrived)
        begins = min(lost_per_arrived * (1 - stays), 1.0)
        lost, is_lost = [], rng.random() < share
        for packet, u in enumerate(rng.random(-(-num_samples // _packet(recordings)))):
            if is_lost:
                lost.append(packet)
            is_lost = u < (stays if is_lost else begins)
        return {"lost_packets": lost}

    @staticmethod
    def apply(wave: np.ndarray, parameters: Parameters, recordings: Recordings) -> np.ndarray:
        """The last packet may be shorter."""
        heard, size = wave.copy(), _packet(recordings)
        for packet in parameters["lost_packets"]:
            heard[packet * size : (packet + 1) * size] = 0.0
        return heard


def _packet(recordings: Recordings) -> int:
    return round(PACKET_S * recordings.sample_rate_hz)
