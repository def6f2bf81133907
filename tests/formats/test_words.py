"""Joining layers that cache alike."""

from llm_router.formats.words import Layers, merge_layers


def test_alike_layers_are_joined_and_empty_ones_left_out() -> None:
    full, windowed = Layers(1, 8, 64, 64), Layers(1, 8, 64, 64, 128)
    nothing = [Layers(1, 0, 64, 64), Layers(1, 8, 0, 0)]
    assert merge_layers([windowed, full, *nothing, windowed]) == (Layers(2, 8, 64, 64, 128), Layers(1, 8, 64, 64))
