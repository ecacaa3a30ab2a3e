"""Orders of accuracy of the macro equation by manufactured solutions, on any number of ranks."""

import numpy as np
import pytest

from hpcmsm.errors import ConfigError
from tests.macro_harness import MacroRun, all_sides, isotropic, order

# scheme, coupling, nominal order, coarsest number of steps
SCHEMES = [
    ("euler", "stage", 1, 40),
    ("rk2", "stage", 2, 20),
    ("rk3", "stage", 3, 10),
    ("rk4", "stage", 4, 6),
    ("rk5", "stage", 5, 4),
    ("backward_euler", "picard", 1, 30),
    ("bdf2", "picard", 2, 40),
    ("arkimex2", "picard", 2, 10),
    ("arkimex3", "picard", 3, 6),
    ("arkimex4", "picard", 4, 4),
]
# T = (2 + x + y/2) g(t): the stencil and the boundaries are exact for it as long as K is constant, so
# what remains is the error in time. The source makes it stiff and nonlinear in T.
EXACT = "(2 + x + y / 2) * exp(sin(3 * t))"
SOURCE = f"{EXACT} * 3 * cos(3 * t) + 2 * ({EXACT} - temperature) * temperature / 10"


def exact(run):
    x, y = run.coordinates["x"], run.coordinates["y"]
    return (2 + x + y / 2) * np.exp(np.sin(3 * run.now))


def time_error(comm, scheme, coupling, nsteps):
    macro = dict(
        initial="2 + x + y / 2",
        source=SOURCE,
        coupling=coupling,
        picard_tolerance=1e-12,
        linear_tolerance=1e-12,
        boundary=all_sides(kind="temperature", temperature=EXACT),
    )
    time = dict(scheme=scheme, end=0.5, step=0.5 / nsteps)
    run = MacroRun(comm, (7, 5), (1.0, 1.0), time, macro, isotropic(lambda t: np.full_like(t, 0.02)))
    result = run.run()
    return run.norm(result - exact(run))


@pytest.mark.parametrize("scheme, coupling, nominal, nsteps", SCHEMES)
def test_order_in_time(comm, agree, scheme, coupling, nominal, nsteps):
    errors = [time_error(comm, scheme, coupling, nsteps * factor) for factor in (1, 2, 4)]
    found = order(errors)
    agree(comm, abs(found - nominal) < 0.35, f"{scheme}: order {found:.2f}, errors {errors}")
    agree(comm, errors[-1] < 2e-2, f"{scheme}: error {errors[-1]}")


def nonlinear_end(comm, scheme, coupling, nsteps):
    """A run whose K(T) and c(T) enter every stage, and its temperature at the end."""
    macro = dict(
        initial="1 + sin(pi * x) * cos(pi * y) / 2",
        coupling=coupling,
        picard_tolerance=1e-12,
        linear_tolerance=1e-12,
    )
    time = dict(scheme=scheme, end=0.2, step=0.2 / nsteps)
    k = isotropic(lambda t: 0.1 * (1 + t) ** 2)
    run = MacroRun(comm, (6, 7), (1.0, 1.0), time, macro, k, capacity=lambda t: 1 + t / 3)
    return run, run.run()


@pytest.fixture(scope="module")
def reference(comm):
    """The same problem by many steps of rk4 on the same grid."""
    return nonlinear_end(comm, "rk4", "stage", 1000)[1]


@pytest.mark.parametrize("scheme, coupling, nominal, nsteps", SCHEMES)
def test_order_in_time_with_conductivity_of_temperature(
    comm, agree, reference, scheme, coupling, nominal, nsteps
):
    errors = []
    for factor in (2, 4):
        run, result = nonlinear_end(comm, scheme, coupling, nsteps * factor)
        errors.append(run.norm(result - reference))
    found = order(errors)
    agree(comm, found > nominal - 0.35, f"{scheme}: order {found:.2f}, errors {errors}")


@pytest.mark.parametrize("cells", [(13,), (6, 7), (4, 5, 6)], ids=["1D", "2D", "3D"])
def test_one_heat_capacity_steps_as_the_same_in_every_cell(comm, agree, cells):
    """The step of Forward Euler reads no array of it then."""

    def end(capacity):
        macro = dict(initial="1 + sin(pi * x) / 2")
        time = dict(scheme="euler", end=0.2, step=0.01)
        size, ndim = {1: 1, 2: 3, 3: 6}[len(cells)], len(cells)

        def k(temperature, coordinates):
            return 0.05 * np.outer(np.arange(size) < ndim, 1 + temperature)

        return MacroRun(comm, cells, (1.0,) * ndim, time, macro, k, capacity=capacity).run()

    one, each = end(lambda t: np.float64(2.5)), end(lambda t: np.full_like(t, 2.5))
    agree(comm, np.allclose(one, each, rtol=1e-13, atol=0.0), f"{np.abs(one - each).max()}")
    other = end(lambda t: np.float64(5.0))
    agree(comm, np.abs(one - other).max() > 1e-3, "the heat capacity must matter")


def test_radiation_converges_with_its_own_derivative(comm, agree):
    """A flux and a source that depend steeply on T: Newton needs few iterations, the balance closes."""
    sides = {"x_low": dict(kind="flux", flux="5 - 5 * temperature**4")}
    macro = dict(initial=0.5, boundary=sides, coupling="picard", picard_tolerance=1e-12)
    time = dict(scheme="backward_euler", end=1000.0, step=100.0)
    run = MacroRun(comm, (9, 4), (1.0, 1.0), time, macro, isotropic(np.ones_like))
    result = run.run()
    agree(comm, np.allclose(result, 1.0, rtol=1e-9), f"steady state 1, got {result.min()}..{result.max()}")
    agree(comm, run.asked < 12 * run.steps, f"{run.asked} residuals in {run.steps} steps")


def test_lagged_conductivity_is_first_order(comm, agree):
    """What the documents say of coupling = "lagged": it costs the order, not the stability."""

    def end(coupling, nsteps):
        macro = dict(initial="1 + sin(pi * x) / 2", coupling=coupling)
        time = dict(scheme="rk3", end=0.2, step=0.2 / nsteps)
        run = MacroRun(comm, (8, 4), (1.0, 1.0), time, macro, isotropic(lambda t: 0.05 * (1 + t) ** 2))
        return run, run.run()

    _, reference = end("stage", 1000)
    errors = []
    for nsteps in (40, 80):
        run, result = end("lagged", nsteps)
        errors.append(run.norm(result - reference))
    found = order(errors)
    agree(comm, 0.8 < found < 1.3, f"order {found:.2f}, errors {errors}")


@pytest.mark.parametrize("kind", ["temperature", "periodic", "mixed"])
def test_order_in_space(comm, agree, kind):
    """A full tensor that varies in space; T = sin(2 pi x) cos(2 pi y), source by hand."""
    errors = []
    for n in (16, 32, 64):
        run, result = _anisotropic(comm, n, kind)
        errors.append(run.norm(result - _wave(run.coordinates)))
    found = order(errors)
    agree(comm, 1.7 < found < 2.4, f"{kind}: order {found:.2f}, errors {errors}")


def _wave(c):
    return np.sin(2 * np.pi * c["x"]) * np.cos(2 * np.pi * c["y"])


def _tensor(temperature, c):
    a = 1 + 0.3 * np.sin(2 * np.pi * c["x"])
    return np.stack([a, 1.5 * np.ones_like(a), 0.4 * np.ones_like(a)])


def _anisotropic(comm, n, kind):
    """Steady state by one huge backward Euler step."""
    s, c = "sin(2*pi*x)", "cos(2*pi*x)"
    t, u = "cos(2*pi*y)", "sin(2*pi*y)"
    # -div(K grad T) with Kxx = 1 + 0.3 sin(2 pi x), Kyy = 1.5, Kxy = 0.4
    flux_x = f"(0.3*2*pi*{c} * 2*pi*{c}*{t} - (1 + 0.3*{s}) * 4*pi**2*{s}*{t})"
    flux_y = f"(-1.5 * 4*pi**2*{s}*{t})"
    cross = f"(-2*0.4*4*pi**2*{c}*{u})"
    source = f"-({flux_x} + {flux_y} + {cross})"
    given = dict(kind="temperature", temperature=f"{s} * {t}")
    periodic = dict(kind="periodic")
    sides = {
        "temperature": dict.fromkeys(("x_low", "x_high", "y_low", "y_high"), given),
        "periodic": dict.fromkeys(("x_low", "x_high", "y_low", "y_high"), periodic),
        "mixed": {"x_low": given, "x_high": given, "y_low": periodic, "y_high": periodic},
    }[kind]
    # The relaxation term fixes the mean in the periodic case and vanishes in the solution.
    macro = dict(
        source=f"{source} + ({s}*{t} - temperature)",
        initial=0.0,
        boundary=sides,
        coupling="picard",
        picard_tolerance=1e-10,
        max_iterations=200,
    )
    time = dict(scheme="backward_euler", end=100.0, step=10.0)
    run = MacroRun(
        comm, (n, n + 3), (1.0, 1.0), time, macro, _tensor, capacity=lambda t: np.full_like(t, 3.0)
    )
    return run, run.run()


@pytest.mark.parametrize("scheme, coupling", [("rk3", "stage"), ("arkimex3", "picard")])
def test_adaptive_steps_meet_the_tolerance(comm, agree, scheme, coupling):
    """3D: a cosine decays exactly; the steps grow by more than ten times while the error stays small."""
    macro = dict(initial="cos(pi * x)", coupling=coupling, linear_tolerance=1e-11)
    time = dict(scheme=scheme, end=0.3, step=2e-4, adaptive=True, tolerance=1e-5)
    run = MacroRun(comm, (8, 3, 4), (1.0, 1.0, 1.0), time, macro, _isotropic_3d)
    result = run.run()
    h = 1.0 / 8
    rate = 4.0 / h**2 * np.sin(np.pi * h / 2) ** 2  # of the discrete cosine
    exact = np.cos(np.pi * run.coordinates["x"]) * np.exp(-rate * 0.3)
    agree(comm, run.now == pytest.approx(0.3, abs=1e-12), f"ends at {run.now}")
    agree(comm, run.norm(result - exact) < 1e-3, f"error {run.norm(result - exact)}")
    agree(comm, run.steps < 0.3 / 2e-4 / 4, f"{run.steps} steps")


def _isotropic_3d(temperature, coordinates):
    one = np.ones_like(temperature)
    return np.stack([one, one, one, 0 * one, 0 * one, 0 * one])


@pytest.mark.parametrize("nx", [1, 2])
def test_a_periodic_axis_of_few_cells_converges_as_one_of_many(comm, agree, nx):
    """Its neighbours share a column of the matrix, and one cell is its own neighbour."""
    iterations = []
    for cells in ((nx, 8), (8, 8)):
        if comm.size > 2:
            cells = (cells[0], 8 * comm.size)
        periodic = {f"x_{end}": dict(kind="periodic") for end in ("low", "high")}
        run = MacroRun(
            comm,
            cells,
            (0.1 * cells[0], 1.0),
            {"scheme": "backward_euler", "end": 0.4, "step": 0.1},
            {"initial": "cos(pi * y)", "boundary": periodic},
            isotropic(lambda temperature: 1.0 + 0.0 * temperature),
        )
        found = run.run()
        y = run.coordinates["y"]
        h = run.grid.spacing[1]
        rate = (2 - 2 * np.cos(np.pi * h)) / h**2  # of the discrete cosine
        wanted = np.cos(np.pi * y) / (1 + 0.1 * rate) ** 4
        agree(
            comm, np.abs(found - wanted).max(initial=0.0) < 1e-8, f"{np.abs(found - wanted).max(initial=0)}"
        )
        iterations.append(run.linear)
    agree(comm, iterations[0] <= iterations[1] + 4, f"{iterations}")


@pytest.mark.parametrize("scheme", ["backward_euler", "bdf2"])
@pytest.mark.parametrize("coupling", ["lagged", "picard"])
def test_implicit_steps_conserve_heat_whatever_the_heat_capacity(comm, agree, scheme, coupling):
    """c(T) rises threefold over the range: the enthalpy T + 2 T^2 must stay, though steps are coarse."""
    run = MacroRun(
        comm,
        (9, 7),
        (1.0, 0.8),
        {"scheme": scheme, "end": 0.2, "step": 0.05},
        {"initial": "0.6 + 0.4 * cos(3 * x) * cos(2 * y)", "coupling": coupling},
        isotropic(lambda temperature: 1.0 + temperature),
        capacity=lambda temperature: 1.0 + 4.0 * temperature,
    )

    def heat(temperature):
        return comm.allreduce(float((temperature + 2.0 * temperature**2).sum()))

    before, start = heat(run.heat.initial()), run.heat.initial()
    found = run.run()
    agree(comm, abs(heat(found) - before) < 1e-8 * before, f"{heat(found) - before:.1e} of {before:.1f}")
    moved = comm.allreduce(float(np.abs(found - start).sum()))
    agree(comm, moved > 0.05 * run.grid.total_cells, f"{moved}")


@pytest.mark.parametrize("scheme", ["rk3", "arkimex3"])
def test_cells_advance_as_far_as_a_step_that_was_shortened(comm, agree, scheme):
    """Asked before a step that PETSc then rejects, they are asked again for the one that it has taken."""
    time = dict(scheme=scheme, end=0.05, step=0.01, adaptive=True, tolerance=1e-5)
    macro = dict(initial="where(x < 0.5, 1, 2)", source="200 * sin(300 * t)")
    run = MacroRun(comm, (20, 3), (1.0, 0.2), time, macro, isotropic(lambda t: 1 + 0.5 * np.sin(50 * t)))
    asked, ask = [], run.stepper.ask
    run.stepper.ask = lambda *what: (asked.append(what[:2]), ask(*what))
    again = 0
    while run.now < run.time.end * (1 - 1e-12):
        before, dt = len(asked), min(run.dt, run.time.end - run.now)
        result = run.stepper.advance(run.steps + 1, run.now, dt)
        start, length = asked[-1]
        taken = result.time - run.now
        agree(comm, start == run.now and abs(length - taken) < 1e-9 * taken, f"{length} for {taken}")
        again += len(asked) - before - 1
        run.now, run.dt, run.steps = result.time, result.next_dt, run.steps + 1
    agree(comm, 0 < again < run.steps, f"{again} of {run.steps} steps were rejected")


@pytest.mark.parametrize("wrong", [0.0, -1.0, np.nan])
def test_a_heat_capacity_that_is_not_positive_is_refused_by_all(comm, agree, wrong):
    """Wrong in the last cell alone, which one rank has."""
    time = dict(scheme="euler", end=1.0, step=0.1)
    run = MacroRun(comm, (9, 7), (1.0, 1.0), time, {"initial": "1 + x"}, isotropic(np.ones_like))
    run.heat.heat_capacity = lambda temperature: np.where(run.grid.ids == 62, wrong, 1.0)
    refused = ""
    try:
        run.run()
    except ConfigError as error:
        refused = str(error)
    words = "the heat capacity must be positive, got"
    agree(comm, words in refused and "in cell 62 (temperature = 1.94" in refused, refused)


def test_a_latent_heat_that_a_step_passes_leaves_its_temperature(comm, agree):
    """Newton's method, left to itself, would put cells that warm from 315 to 325 K at 214 K."""
    time = dict(scheme="backward_euler", end=1.0, step=0.1)
    run = MacroRun(
        comm,
        (40, 5),
        (40.0, 1.0),
        time,
        {"initial": "300 + x"},
        isotropic(np.ones_like),
        capacity=lambda t: 2.0 + t / 1000 + 50.0 * np.exp(-((t - 320.0) ** 2)),
    )
    before = run.heat.initial()[0]
    after = before + 10.0
    run._ask(0.0, 0.1, before[None])
    found = run.heat.settled(before, after)
    heat, stored = 10.0 * run.heat.capacity, run.heat.gain(before, found)
    kept, conserving = found == after, np.abs(stored - heat) < 2e-6 * heat
    agree(comm, np.all(kept | conserving), f"{found[~(kept | conserving)]}")
    agree(comm, comm.allreduce(int(kept.sum())) > 20, "the peak is met")
    agree(comm, comm.allreduce(int(conserving.sum())) > 80, "and missed")
