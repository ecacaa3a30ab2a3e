"""The Cauchy-Born rule against a plain lattice sum, finite differences, published statics and units."""

import crystal_oracles as oracle
import numpy as np
import pytest

from hpcmsm.batch import Batch
from hpcmsm.errors import ConfigError
from hpcmsm.kernels import Kernel
from hpcmsm.micro.cauchy_born import CauchyBorn
from hpcmsm.micro.crystal import BOLTZMANN, Crystal, uniaxial
from hpcmsm.micro.trial import try_out

REDUCED = Crystal(1.0, 1.0, 1.0)


def deformations(n, size=0.03, seed=3):
    """Random deformation gradients near the identity, shape (9, n)."""
    rng = np.random.default_rng(seed)
    return np.eye(3).reshape(9, 1) + size * rng.standard_normal((9, n))


def ask(model, inputs):
    inputs = np.atleast_2d(np.asarray(inputs, dtype=float))
    n = inputs.shape[1]
    return model.evaluate(Batch(np.arange(n), inputs, np.empty((0, n))))


# ----------------------------------------------------------------------------- against other answers


def test_sums_are_those_of_numpy():
    deformation = deformations(21)
    energy, stress, status = REDUCED.lattice_sum(deformation)
    assert not status.any()
    for c in range(21):
        e, p, a = oracle.lattice_sum(deformation[:, c].reshape(3, 3), REDUCED.lattice)
        assert energy[c] * REDUCED.lattice**3 / 4 == pytest.approx(e, rel=1e-13)
        np.testing.assert_allclose(stress[:, c].reshape(3, 3), p, atol=1e-12)
        for k in range(9):
            column = REDUCED.tangent(deformation[:, [c]], k // 3, k % 3).reshape(3, 3)
            np.testing.assert_allclose(column, a[:, :, k // 3, k % 3], atol=1e-11)


def test_stress_is_the_derivative_of_the_energy_and_the_tangent_that_of_the_stress():
    # Small enough a step that no neighbour crosses the cut-off, as energy jumps there.
    deformation, step = deformations(4, seed=8), 1e-6
    _, stress, _ = REDUCED.lattice_sum(deformation)
    for k in range(9):
        shift = np.zeros((9, 1))
        shift[k] = step
        up, down = (REDUCED.lattice_sum(deformation + sign * shift) for sign in (1, -1))
        np.testing.assert_allclose((up[0] - down[0]) / (2 * step), stress[k], rtol=1e-7, atol=1e-7)
        tangent = REDUCED.tangent(deformation, k // 3, k % 3)
        np.testing.assert_allclose((up[1] - down[1]) / (2 * step), tangent, rtol=1e-6, atol=1e-6)


def test_statics_are_the_known_ones():
    assert REDUCED.lattice == pytest.approx(oracle.LATTICE, abs=5e-7)
    energy, stress, _ = REDUCED.lattice_sum(np.eye(3).reshape(9, 1))
    assert energy[0] / REDUCED.density == pytest.approx(oracle.COHESION, abs=5e-7)
    assert np.abs(stress).max() < 1e-13
    tangents = [REDUCED.tangent(np.eye(3).reshape(9, 1), *at)[:, 0] for at in ((0, 0), (0, 1))]
    assert tangents[0][0] == pytest.approx(oracle.C11, abs=5e-4)
    assert tangents[0][4] == pytest.approx(oracle.C12, abs=5e-4)
    assert tangents[1][1] == pytest.approx(oracle.C44, abs=5e-4)
    assert REDUCED.lattice_sum(uniaxial(np.array([1.01])))[1][0, 0] == pytest.approx(0.934682, abs=5e-7)
    assert REDUCED.wave_speed(np.ones(1))[0] == pytest.approx(9.53400, abs=5e-6)


def test_a_turn_costs_no_energy_and_turns_the_stress():
    deformation = deformations(1, seed=5)
    turn = np.linalg.qr(np.random.default_rng(2).standard_normal((3, 3)))[0]
    turn *= np.linalg.det(turn)
    turned = (turn @ deformation.reshape(3, 3)).reshape(9, 1)
    energies, stresses, _ = zip(*map(REDUCED.lattice_sum, (deformation, turned)), strict=True)
    assert energies[0][0] == pytest.approx(energies[1][0], rel=1e-13)
    np.testing.assert_allclose(turn @ stresses[0].reshape(3, 3), stresses[1].reshape(3, 3), atol=1e-12)


def test_argon_in_si_units():
    argon = CauchyBorn()
    assert 1700 < argon.density < 1850  # solid argon near 0 K: 1770 kg/m3
    speed = argon.wave_speed(np.ones(1))[0]
    unit = np.sqrt(119.8 * BOLTZMANN / argon.crystal.mass)
    assert speed == pytest.approx(9.53400 * unit, rel=1e-5)
    answer = ask(argon, [0.99, 1.0, 1.01])
    _, stress, _ = REDUCED.lattice_sum(uniaxial(np.array([0.99, 1.0, 1.01])))
    unit = 119.8 * BOLTZMANN / 3.405e-10**3
    np.testing.assert_allclose(answer.outputs[0], stress[0] * unit, rtol=1e-12, atol=1e-6)


def test_both_kinds_of_strain_agree():
    stretch = np.array([0.93, 1.0, 1.07])
    alone = ask(CauchyBorn(REDUCED), stretch).outputs
    whole = ask(CauchyBorn(REDUCED, "deformation_gradient"), uniaxial(stretch)).outputs
    assert whole.shape == (9, 3)
    assert np.array_equal(alone[0], whole[0])


# ------------------------------------------------------------------------------- promises, failures


def test_a_cell_does_not_depend_on_its_batch():
    deformation = deformations(37)
    rng = np.random.default_rng(0)
    order = rng.permutation(37)
    parts = np.split(np.arange(37), [1, 9, 20])
    for sums in (REDUCED.lattice_sum, lambda f: (REDUCED.tangent(f, 1, 2),)):
        whole = sums(deformation)[:2]
        permuted = sums(np.ascontiguousarray(deformation[:, order]))[:2]
        split = [sums(np.ascontiguousarray(deformation[:, part]))[:2] for part in parts]
        for k, array in enumerate(whole):
            assert np.array_equal(array[..., order], permuted[k])
            assert np.array_equal(array, np.concatenate([piece[k] for piece in split], axis=-1))


def test_single_precision_comes_near():
    deformation = deformations(9)
    vectors = REDUCED._vectors(REDUCED.lattice).astype(np.float32)
    energy, stress, status = np.empty(9, "f4"), np.empty((9, 9), "f4"), np.empty(9, "i4")
    kernel = Kernel.load("cauchy_born", "cauchy_born", dtype="float32")
    volume = REDUCED.lattice**3 / 4
    sizes = (9, len(vectors), 2.5, 5.0, volume)
    kernel(*sizes, vectors, deformation.astype(np.float32), energy, stress, status)
    np.testing.assert_allclose(stress, REDUCED.lattice_sum(deformation)[1], atol=2e-4)


@pytest.mark.parametrize("bad", [0.45, -1.0, 0.0, np.nan])
def test_what_is_no_deformation_is_said_cell_by_cell(bad):
    stretch = np.array([1.0, bad, 1.01])
    _, stress, status = REDUCED.lattice_sum(uniaxial(stretch))
    assert status.tolist() == [0, 2, 0]
    assert np.array_equal(stress[:, [0, 2]], REDUCED.lattice_sum(uniaxial(stretch[[0, 2]]))[1])


def test_the_trial_call_passes():
    try_out(CauchyBorn(), Batch(np.arange(4), np.linspace(0.9, 1.1, 4)[None], np.empty((0, 4))))


@pytest.mark.parametrize(
    ("options", "text"),
    [({"cutoff": 1.0}, "cutoff must be from 1.6"), ({"sigma": -1.0}, "sigma must be positive")],
)
def test_wrong_options_are_refused(options, text):
    with pytest.raises(ConfigError, match=text):
        Crystal(**options)
    with pytest.raises(ConfigError, match="strain must be one of"):
        CauchyBorn(REDUCED, "shear")
