"""Simple cubic spheres against their multipole solution, bounds and finer grids."""

import numpy as np
import oracles
import pytest
import sphere_oracle
from unit_cell_harness import conductivity

# Relative error that the grid leaves at 16 and 32 points a side.
BOUNDS = {10.0: (8e-3, 5e-3), 0.1: (2.5e-3, 2e-3), 50.0: (4.5e-2, 4e-2)}


def test_the_expansion_about_another_point_holds():
    """The addition theorem that the oracle rests on."""
    near, far = np.array([[0.1], [0.05], [-0.07]]), np.array([[1.0], [0.3], [0.5]])

    def regular(degree, order):
        r = np.linalg.norm(near)
        legendre = sphere_oracle.scipy.special.lpmv(abs(order), degree, near[2] / r)
        value = r**degree * legendre * np.exp(1j * abs(order) * np.arctan2(near[1], near[0]))
        value = value / float(sphere_oracle.factorial(degree + abs(order)))
        return value if order >= 0 else (-1) ** order * np.conj(value)

    def irregular(degree, order):
        value = sphere_oracle.irregular(degree, abs(order), far)
        return value if order >= 0 else (-1) ** order * np.conj(value)

    terms = [
        (-1) ** a * np.conj(regular(a, b)) * irregular(3 + a, b) for a in range(14) for b in range(-a, a + 1)
    ]
    np.testing.assert_allclose(sum(terms), sphere_oracle.irregular(3, 0, near + far), rtol=1e-9)


def test_oracle_of_the_spheres():
    # Dipoles alone are Maxwell's formula, exact for few spheres.
    maxwell = 1 + 3 * 0.3 * 0.75 / (1 - 0.3 * 0.75)
    assert sphere_oracle.simple_cubic(0.3, 10.0, most=1) == pytest.approx(maxwell, rel=1e-12)
    assert sphere_oracle.simple_cubic(0.001, 10.0) == pytest.approx(
        1 + 0.003 * 0.75 / (1 - 0.00075), rel=1e-6
    )
    assert sphere_oracle.simple_cubic(0.3, 10.0) == pytest.approx(1.88774, abs=1e-5)
    for fraction in (0.1, 0.3, 0.5):
        low, high = oracles.hashin_shtrikman_3d(fraction, 1.0, 10.0)
        assert low < sphere_oracle.simple_cubic(fraction, 10.0) < high


@pytest.mark.parametrize("fraction", [0.2, 0.4, 0.5])
@pytest.mark.parametrize("contrast", BOUNDS)
def test_spheres_come_near_the_multipole_solution(fraction, contrast):
    exact = sphere_oracle.simple_cubic(fraction, contrast)
    for resolution, bound in zip((16, 32), BOUNDS[contrast], strict=True):
        k = conductivity("spheres", 1.0, contrast, fraction=fraction, resolution=resolution)
        assert abs(k[0] / exact - 1.0) < bound
        np.testing.assert_allclose(k, [k[0]] * 3 + [0] * 3, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n", [4, 6, 10])
@pytest.mark.parametrize(("fraction", "contrast"), [(0.1, 30.0), (0.35, 4.0), (np.pi / 6, 2.0)])
def test_spheres_against_subsampled_faces(n, fraction, contrast):
    exact = oracles.sparse_conductivity(*sphere_oracle.sphere_faces(fraction, contrast, n))
    k = conductivity("spheres", 1.0, contrast, fraction=fraction, resolution=n, tolerance=1e-12)
    np.testing.assert_allclose(k, exact, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("contrast", [10.0, 0.1])
def test_finer_grids_come_nearer(contrast):
    exact = sphere_oracle.simple_cubic(0.25, contrast)
    errors = [
        abs(conductivity("spheres", 1.0, contrast, fraction=0.25, resolution=n)[0] / exact - 1)
        for n in (16, 32, 64)
    ]
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 3e-3


def test_conductivity_grows_smoothly_with_the_fraction():
    """No steps of whole voxels: the second difference is that of a smooth curve."""
    for contrast in (10.0, 0.1):
        fractions = np.linspace(0.2, 0.22, 21)
        k = np.array([conductivity("spheres", 1.0, contrast, fraction=f, resolution=8)[0] for f in fractions])
        slope = np.diff(k)
        assert np.all(slope * (contrast - 1) > 0)
        assert np.ptp(slope) < 0.35 * abs(slope.mean())
