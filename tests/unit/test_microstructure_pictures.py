"""Pictures of microstructures: what stands below them, and colours that mean the same in both."""

import matplotlib.colors
import numpy as np
import pytest
from matplotlib.figure import Figure

from hpcmsm.report import microstructures as pictures


@pytest.mark.parametrize(
    ("names", "below"),
    [
        (("resin", "fibre", "resin"), ["resin 50.0 %", "fibre 25.0 %", "resin 25.0 %"]),
        (("crystal",) * 3, "3 orientations of crystal"),
        ((), ["phase 0 50.0 %", "phase 1 25.0 %", "phase 2 25.0 %"]),
        (tuple(f"m{number}" for number in range(20)), ["m0 50.0 %", "m1 25.0 %", "m2 25.0 %"]),
    ],
)
def test_phases_are_named_in_the_colours_they_are_drawn_in(names, below, monkeypatch):
    labels, kept = np.array([[0, 0], [1, 2]]), []
    monkeypatch.setattr(pictures, "render", lambda drawing: kept.append(drawing) or b"")
    pictures.microstructures([("a cell", labels, names)])
    assert isinstance(kept[0], Figure)
    (panel,) = kept[0].axes
    legend = panel.get_legend()
    if isinstance(below, str):
        assert legend is None and panel.get_xlabel() == below
        return
    assert [text.get_text() for text in legend.get_texts()] == below
    drawn = panel.images[0].to_rgba(panel.images[0].get_array())
    for patch, (row, column) in zip(legend.get_patches(), ((0, 0), (1, 0), (1, 1)), strict=True):
        assert np.allclose(drawn[row, column], matplotlib.colors.to_rgba(patch.get_facecolor()), atol=0.01)
