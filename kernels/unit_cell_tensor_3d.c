/* Homogenised conductivity of periodic unit cells in 3D whose phases have full symmetric tensors.

   As unit_cell_3d.c, which is faster where no phase has cross terms; both are then the same equations. */

#include "unit_cell_space.h"
#include "unit_cell_levels.h"
#include "unit_cell_progress.h"
#include "unit_cell_phases.h"
#include "unit_cell_corner.h"
#include "unit_cell_tensor_solve.h"
#include "unit_cell_iterate.h"
#include "unit_cell_tensor_results.h"

/* Effective conductivity of unit cells. */
KERNEL unit_cell_tensor_3d(
    long ncells,            // number of cells
    long n,                 // points a side, even, at least 4
    long npoint,            // points of a cell
    long nphase,            // number of phases
    long nimage,            // number of images
    long nword,             // scratch numbers per point: 28 in float64, 31 in float32
    long max_iterations,    // cap of the conjugate gradients
    real tolerance,         // relative error of the diagonal of the conductivity
    const int *labels,      // (nimage, n, n, n) phase of each point [z][y][x]
    const int *image,       // optional (ncells) which image a cell has; left out, the first
    const real *phases,     // (6, nphase, ncells) [W/(m K)] conductivities xx, yy, zz, yz, xz, xy
    const real *before,     // optional (3 * npoint, ncells) solutions to start from
    real *after,            // optional (3 * npoint, ncells) those found
    real *corrector,        // optional (3, n, n, n, ncells) chi of each load, unit 1/n of the cell's side
    real *gradient,         // optional (3, 3, 8, n, n, n, ncells) of [load][axis][part] at each corner
    real *tangent,          // optional (6, nphase, 6, ncells) derivative by each conductivity
    real *conductivity,     // (6, ncells) [W/(m K)] xx, yy, zz, yz, xz, xy
    real *residual,         // (ncells) of the scaled equations, relative to the right-hand side
    int *iterations,        // (ncells) the largest of the three loads
    int *status,            // (ncells) 0 good, 1 not converged, 2 bad input
    real *scratch           // scratch (nword * npoint + 1200 + 34 * nphase) vectors and levels, tensors
)
{
    FOR_EACH_TEAM(team, ncells) {
        real *memory = TEAM_SCRATCH(scratch, nword * npoint + 1200 + 34 * nphase);
        real energy[NCOMPONENT][LANES];
        Level level[MAX_LEVELS];
        Vectors v;
        Outcome told;
        Input in;
        in.phase = memory, in.nphase = nphase, in.naxis = DIM;
        real *table = memory + NCOMPONENT * nphase * LANES;
        int nlevel = lay_out(n, table + PAIRS * nphase * LANES, level, &v);

        read_input(team, ncells, nimage, image, phases, 0, R(1), &in);
        read_cross_terms(team, ncells, phases, &in);
        faces_of_image(level, labels, image, &in, VALUE);
        set_up_levels(level, nlevel);
        copy_scale(level, v);
        find_weights(level, v, labels, image, &in, table);
        solve_loads(level, nlevel, v, before, team, ncells, in.contrast, tolerance, max_iterations, &told);
        energies(level, v, energy);

        TEAM_ONCE FOR_EACH_LANE(l) if (HAS_CELL(team, l, ncells)) {
            long c = CELL_OF(team, l, ncells);
            real spoil = in.bad[l] ? R(0) / R(!in.bad[l]) : 0; /* NaN */
            for (int k = 0; k < NCOMPONENT; ++k) conductivity[k * ncells + c] = energy[k][l] / npoint + spoil;
            residual[c] = told.residual[l];
            iterations[c] = told.steps[l];
            status[c] = in.bad[l] ? BAD_INPUT : told.open[l] ? NOT_CONVERGED : OK;
        }
        if (after) write_solutions(v, team, ncells, 1, after);
        if (corrector) write_solutions(v, team, ncells, 0, corrector);
        if (gradient) write_gradients(level, v, labels, image, &in, team, ncells, gradient);
        for (int phase = 0; tangent && phase < nphase; ++phase) {
            real sum[NCOMPONENT][NCOMPONENT][LANES];
            add_products(level, v, labels, image, &in, phase, sum);
            TEAM_ONCE FOR_EACH_LANE(l) if (HAS_CELL(team, l, ncells))
                for (int by = 0; by < NCOMPONENT; ++by) for (int k = 0; k < NCOMPONENT; ++k) {
                    real spoil = in.bad[l] ? R(0) / R(!in.bad[l]) : 0;
                    tangent[((by * nphase + phase) * NCOMPONENT + k) * ncells + CELL_OF(team, l, ncells)] =
                        sum[by][k][l] / npoint + spoil;
                }
        }
        TEAM_BARRIER;
    }
}
