"""Molecular dynamics against all-pairs forces, conservation laws, the 0 K limit; and row by row."""

import crystal_oracles as oracle
import numpy as np
import pytest

from hpcmsm.batch import Batch
from hpcmsm.errors import ConfigError
from hpcmsm.kernels import Kernel
from hpcmsm.micro.crystal import Crystal, uniaxial
from hpcmsm.micro.lennard_jones import LennardJones, list_words
from hpcmsm.micro.trial import try_out

REDUCED = Crystal(1.0, 1.0, 1.0)
KELVIN = 1.380649e-23  # Boltzmann's constant: temperatures in kelvin are energies over it


def model(temperature, side=4, **options):
    """Atoms in reduced units at a reduced temperature."""
    return LennardJones(REDUCED, temperature / KELVIN, side=side, **options)


def forces_of(positions, deformation, side, cutoff=oracle.CUTOFF, dtype="float64", most=200):
    """What the kernel says of positions (3 natom, n) under deformations (9, n)."""
    kernel = Kernel.load("lennard_jones", "lennard_jones_forces", dtype=dtype)
    natom, n = positions.shape[0] // 3, positions.shape[1]
    force, energy, virial = np.empty((3 * natom, n), dtype), np.empty(n, dtype), np.empty((6, n), dtype)
    status = np.empty(n, np.int32)
    words = list_words(natom, most, kernel)
    where = (np.ascontiguousarray(a, dtype) for a in (deformation, positions))
    kernel(n, natom, most, words, cutoff, 0.3, side, *where, force, energy, virial, status)
    return force, energy, virial, status


def shaken(n, side=4, size=0.06, seed=4):
    """Random deformations (9, n), and crystals with shaken atoms under them, (3 natom, n)."""
    rng = np.random.default_rng(seed)
    deformation = np.eye(3).reshape(9, 1) + 0.02 * rng.standard_normal((9, n))
    sites = oracle.fcc(side, REDUCED.lattice)
    atoms = [sites + size * rng.standard_normal(sites.shape) for _ in range(n)]
    positions = [(x @ deformation[:, c].reshape(3, 3).T).ravel() for c, x in enumerate(atoms)]
    return deformation, np.stack(positions, axis=1)


# --------------------------------------------------------------------------------- forces and dynamics


@pytest.mark.parametrize(
    ("side", "dtype", "rtol"), [(4, "float64", 1e-12), (5, "float64", 1e-12), (4, "float32", 1e-4)]
)
def test_forces_are_those_of_all_pairs(side, dtype, rtol):
    deformation, positions = shaken(5, side)
    box = side * REDUCED.lattice
    force, energy, virial, status = forces_of(positions, deformation, box, dtype=dtype)
    assert not status.any()
    for c in range(5):
        f, e, w = oracle.all_pairs(positions[:, c].reshape(-1, 3), deformation[:, c].reshape(3, 3), box)
        np.testing.assert_allclose(force[:, c].reshape(-1, 3), f, atol=rtol * np.abs(f).max())
        assert energy[c] == pytest.approx(e, rel=rtol)
        np.testing.assert_allclose(
            virial[:, c], w[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]], atol=rtol * abs(e)
        )


def test_the_images_of_atoms_do_not_matter():
    deformation, positions = shaken(2)
    box, natom = 4 * REDUCED.lattice, 256
    turns = np.random.default_rng(1).integers(-3, 4, (natom, 3)) * box
    moved = positions + np.stack(
        [(turns @ deformation[:, c].reshape(3, 3).T).ravel() for c in range(2)], axis=1
    )
    np.testing.assert_allclose(
        forces_of(moved, deformation, box)[0], forces_of(positions, deformation, box)[0], atol=1e-9
    )


def drift(dt, steps, friction=0.0):
    """Energies of one box along a run without a thermostat, and its momentum before and after.

    The cut-off lies between shells of neighbours, which no atom crosses at this temperature: the
    truncated energy would jump.
    """
    kernel = Kernel.load("lennard_jones", "lennard_jones")
    rng = np.random.default_rng(7)
    x = oracle.fcc(4, REDUCED.lattice).reshape(-1, 1).copy()
    v = 0.3 * rng.standard_normal(x.shape)
    identity, cutoff, most = np.eye(3).reshape(9, 1), 2.566, 200
    outputs = [np.empty((9, 1)), np.empty((9, 1)), np.empty((2, 1)), np.empty(1, np.int32)]
    energies, momentum = [], [v.reshape(-1, 3).sum(axis=0)]
    for _ in range(12):
        words = list_words(256, most, kernel)
        head = (1, 4, 256, most, words, 0, 2, 1, steps // 2, dt, friction, cutoff, 0.3, REDUCED.lattice)
        kernel(*head, np.zeros(1), np.zeros(1, np.int64), identity, x, v, *outputs)
        potential = forces_of(x, identity, 4 * REDUCED.lattice, cutoff)[1][0]
        energies.append(potential + 0.5 * (v**2).sum())
    momentum.append(v.reshape(-1, 3).sum(axis=0))
    return np.array(energies), momentum


def test_energy_is_conserved_to_second_order_and_momentum_to_rounding():
    energies, scatter = {}, {}
    for dt, steps in ((0.008, 20), (0.004, 40), (0.002, 80)):
        energies[dt], momentum = drift(dt, steps)
        scatter[dt] = energies[dt].std()
        np.testing.assert_allclose(momentum[0], momentum[1], atol=1e-11)
    assert 3.2 < scatter[0.008] / scatter[0.004] < 4.8
    assert 3.2 < scatter[0.004] / scatter[0.002] < 4.8
    # No drift: the second half of the run has the energy of the first.
    middle = energies[0.004][:6].mean() - energies[0.004][6:].mean()
    assert abs(middle) < 2 * scatter[0.004]
    assert scatter[0.004] < 1e-3 * 256 * 0.3**2


# -------------------------------------------------------------------------- the thermostat and averages


def answer_of(found):
    assert not found.status.any()
    return found.stress, found.error, found.energy


def test_at_low_temperature_the_stress_is_that_of_cauchy_and_born():
    deformation = np.concatenate([uniaxial(np.array([0.97, 1.0, 1.03])), shaken(1)[0]], axis=1)
    cold = model(1e-6, blocks=2, samples=5, equilibration=50)
    stress, error, energy = answer_of(cold.run(deformation, np.full(4, 1e-6), np.arange(4)))
    static, exact, _ = REDUCED.lattice_sum(deformation)
    np.testing.assert_allclose(stress, exact, atol=1e-3)
    assert error.max() < 1e-4
    np.testing.assert_allclose(energy[0], static / REDUCED.density, atol=1e-5)


def test_the_thermostat_holds_its_temperature_and_noise_is_what_it_says():
    n, temperature = 16, 0.2
    warm = model(temperature, equilibration=300, blocks=8, samples=20)
    stress, error, energy = answer_of(
        warm.run(np.repeat(np.eye(3).reshape(9, 1), n, axis=1), np.full(n, temperature), np.arange(n))
    )
    # 768 velocities a box, some independent times, 16 boxes.
    assert energy[1].mean() == pytest.approx(1.5 * temperature, rel=0.02)
    # A warm crystal presses outwards, alike along all axes.
    assert -3.0 < stress[0].mean() < -1.0
    spread = stress[[0, 4, 8]].std(axis=1, ddof=1).mean()
    assert 0.5 < error[[0, 4, 8]].mean() / spread < 1.5
    assert np.abs(stress[[1, 2, 5]].mean(axis=1)).max() < 4 * error[[1, 2, 5]].mean() / np.sqrt(n)
    # Other keys, other noise; the same keys, the same bits.
    again = warm.run(uniaxial(np.ones(2)), np.full(2, temperature), np.array([0, 99]))
    assert again.stress[0, 0] == stress[0, 0]
    assert again.stress[0, 1] not in stress[0]


def test_noise_is_drawn_anew_for_every_step_cell_and_question():
    warm = model(0.1, equilibration=5, blocks=2, samples=2)
    batch = Batch(np.array([3, 4]), np.ones((1, 2)), np.empty((0, 2)))
    questions = [
        batch,
        Batch(np.array([5, 6]), batch.inputs, batch.state),
        Batch(batch.ids, batch.inputs, batch.state, step=1),
        Batch(batch.ids, batch.inputs, batch.state, iteration=1),
    ]
    stresses = np.concatenate([warm.evaluate(question).outputs[0] for question in questions])
    assert len(set(stresses)) == 8
    other = model(0.1, equilibration=5, blocks=2, samples=2, seed=1).evaluate(batch)
    assert other.outputs[0, 0] not in stresses


# --------------------------------------------------------------------------------- promises and failures


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_cell_does_not_depend_on_its_batch(dtype):
    n = 19
    rng = np.random.default_rng(6)
    warm = model(0.4, equilibration=60, blocks=2, samples=2, every=5)
    warm.kernel = Kernel.load("lennard_jones", "lennard_jones", dtype=dtype)
    deformation = shaken(n, seed=2)[0]
    temperature, keys = rng.uniform(0.05, 0.8, n), rng.integers(-(2**62), 2**62, n)

    def run(cells):
        arrays = (np.ascontiguousarray(a[..., cells]) for a in (deformation, temperature))
        outputs = [np.empty((size, len(cells)), dtype) for size in (9, 9, 2)]
        status = np.empty(len(cells), np.int32)
        words = list_words(256, warm.most, warm.kernel)
        head = (len(cells), 4, 256, warm.most, words, 60, 2, 2, 5, 0.005, 1.0, 2.5, 0.3, REDUCED.lattice)
        f, t = (a.astype(dtype) for a in arrays)
        warm.kernel(*head, t, keys[cells], f, None, None, *outputs, status)
        assert not status.any()
        return np.concatenate(outputs)

    whole, order = run(np.arange(n)), rng.permutation(n)
    assert np.array_equal(run(order), whole[:, order])
    parts = np.split(np.arange(n), [1, 4, 13])
    assert np.array_equal(np.concatenate([run(part) for part in parts], axis=1), whole)
    assert len(set(whole[0])) == n


def test_lists_change_no_bit():
    # Whether lists are renewed often or never needs to be: the pairs inside the cut-off are the same.
    found = [
        model(0.3, equilibration=40, blocks=2, samples=2, skin=skin).run(
            uniaxial(np.ones(3)), np.full(3, 0.3), np.arange(3)
        )
        for skin in (0.05, 0.3, 0.55)
    ]
    for other in found[1:]:
        for mine, theirs in zip(found[0], other, strict=True):
            assert np.array_equal(mine, theirs)


def test_a_cell_that_fails_says_so_and_harms_no_other():
    cold = model(0.1, equilibration=10, blocks=2, samples=2)
    stretch = np.array([1.0, 0.75, np.nan, 1.01, -1.0])
    found = cold.run(uniaxial(stretch), np.full(5, 0.1), np.arange(5))
    assert found.status.tolist() == [0, 2, 2, 0, 2]
    good = cold.run(uniaxial(stretch[[0, 3]]), np.full(2, 0.1), np.array([0, 3]))
    assert np.array_equal(found.stress[:, [0, 3]], good.stress)
    hasty = model(1e-3, equilibration=30, blocks=2, samples=2)
    hasty.time_step = 0.06  # near the limit of stability: only the compressed crystal is beyond it
    found = hasty.run(uniaxial(np.array([1.0, 0.86])), np.full(2, 1e-3), np.arange(2))
    assert found.status.tolist() == [0, 3]
    alone = hasty.run(uniaxial(np.ones(1)), np.full(1, 1e-3), np.arange(1))
    assert np.array_equal(found.stress[:, :1], alone.stress)


def test_the_trial_call_passes_and_outputs_are_declared():
    short = {"equilibration": 5, "blocks": 2, "samples": 2}
    batch = Batch(np.arange(3), np.array([[0.99, 1.0, 1.01]]), np.empty((0, 3)))
    with_noise, without = (
        LennardJones(temperature=10.0, **short),
        LennardJones(temperature=10.0, noise=False, **short),
    )
    try_out(with_noise, batch)
    answer, plain = with_noise.evaluate(batch), without.evaluate(batch)
    assert [f.name for f in with_noise.outputs] == ["stress", "stress_error"]
    assert np.array_equal(answer.outputs[:1], plain.outputs)
    assert np.array_equal(answer.outputs[1], answer.residual)
    by_field = LennardJones(**short)
    assert [f.name for f in by_field.inputs] == ["stretch", "temperature"]
    inputs = np.stack([batch.inputs[0], np.full(3, 10.0)])
    assert np.array_equal(by_field.evaluate(Batch(batch.ids, inputs, batch.state)).outputs, answer.outputs)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"side": 3}, "side must be from 4"),
        ({"time_step": 0.1}, "time_step must be"),
        ({"blocks": 1}, "blocks"),
    ],
)
def test_wrong_options_are_refused(options, text):
    with pytest.raises(ConfigError, match=text):
        LennardJones(**options)
    with pytest.raises(ConfigError, match="side must make the box wider than two cut-offs"):
        LennardJones(Crystal(1.0, 1.0, 1.0, cutoff=3.3))
