"""What was drawn for one utterance, as plain data that can be stored and replayed."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from robustdistiller.common.names import did_you_mean, refuse_unknown

from .effects import EFFECTS, in_order
from .effects.base import Parameters


def private_generator(seed: int, epoch: int, utterance_id: str, purpose: str = "") -> np.random.Generator:
    """A generator that depends on its arguments only (SHA-256), never on what was drawn before or elsewhere.

    >>> a, b = private_generator(0, 1, "utt", "noise"), private_generator(0, 1, "utt", "noise")
    >>> a.random() == b.random(), a.random() == private_generator(0, 2, "utt", "noise").random()
    (True, False)
    """
    key = repr((int(seed), int(epoch), str(utterance_id), purpose)).encode()
    digest = hashlib.sha256(key).digest()
    # NumPy takes the number in pieces of 32 bits anyway, and is slow to cut it.
    pieces = np.frombuffer(digest, "<u4")
    return np.random.Generator(np.random.PCG64(pieces if pieces[-1] else int.from_bytes(digest, "little")))


def effects_of(parameters: Parameters) -> list[str]:
    """The effects that were drawn, in the order in which they act; noise that is ``added`` first before all others.

    >>> effects_of({"operation": "noise+reverb"}), effects_of({"operation": "clean"})
    (['reverb', 'noise'], [])
    """
    first = "noise" if parameters.get("noise", {}).get("added") == "first" else ""
    return in_order(set(parameters["operation"].split("+")), first)


def check_parameters(parameters: Mapping[str, Any], where: str = "parameters") -> dict[str, Any]:
    """Parameters of unknown origin, as `Corruptor.apply` takes them: ``operation``, and what its effects' ``keys`` say.

    Recordings are named relative to their source, so the parameters mean the same on every machine.

    Raises:
        ValueError: an unknown effect, a key that is missing or belongs to none of them.

    >>> check_parameters({"operation": "noise", "snr_db": 5.0, "noise": {"kind": "white", "seed": 7}})["snr_db"]
    5.0
    >>> check_parameters({"operation": "gain", "gain": 3})
    Traceback (most recent call last):
    ValueError: unknown key 'gain' in parameters; did you mean 'gain_db'?
    """
    operation = parameters.get("operation", "clean")
    names = operation.split("+") if operation != "clean" else []
    for name in names:
        if name not in EFFECTS:
            raise ValueError(f"{where}: unknown effect {name!r}{did_you_mean(name, EFFECTS)}")
    keys = [key for name in names for key in EFFECTS[name].keys]
    refuse_unknown(parameters, ["operation", *(key.rstrip("?") for key in keys)], "key", where)
    missing = [key for key in keys if not key.endswith("?") and key not in parameters]
    if missing:
        raise ValueError(f"{where}: operation {operation!r} needs {missing[0]}")
    return {"operation": operation, **parameters}
