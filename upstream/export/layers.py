"""Which hidden states a file is to hold."""

from __future__ import annotations

from collections.abc import Sequence


def choose_states(layers: Sequence[str | int] | None, names: Sequence[str]) -> tuple[int, ...]:
    """Numbers of hidden states, in order, from numbers and names; all of them for ``None`` and ``"all"``.

    Raises:
        ValueError: there is no such hidden state.

    >>> names = ("projected", "layer_1", "layer_2", "prediction_4")
    >>> choose_states(["layer_2", 0], names), choose_states(None, names)
    ((0, 2), (0, 1, 2, 3))
    >>> choose_states(["layer_7"], names)
    Traceback (most recent call last):
    ValueError: layer 'layer_7': expected 0 to 3, or a name: projected, layer_1, layer_2, prediction_4, all
    """
    chosen = set()
    for layer in map(str, ["all"] if layers is None else layers):
        if layer == "all":
            chosen |= set(range(len(names)))
        elif layer in names:
            chosen.add(list(names).index(layer))
        elif layer.isascii() and layer.isdigit() and int(layer) < len(names):
            chosen.add(int(layer))
        else:
            listed = ", ".join([*names, "all"])
            raise ValueError(f"layer {layer!r}: expected 0 to {len(names) - 1}, or a name: {listed}")
    return tuple(sorted(chosen))
