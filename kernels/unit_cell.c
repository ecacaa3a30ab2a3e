/* Homogenised conductivity of periodic unit cells in 2D.

   div(k (e_j + grad chi_j)) = 0 with periodic chi_j, for the loads j = x, y; from the energy,
   K_ij = <(e_i + grad chi_i) k (e_j + grad chi_j)>, whose error is quadratic in that of chi.
   Solved in unit_cell_solve.h. */

#include "unit_cell_plane.h"
#include "unit_cell_levels.h"
#include "unit_cell_progress.h"
#include "unit_cell_solve.h"
#include "unit_cell_iterate.h"
#include "unit_cell_results.h"
#include "unit_cell_phases.h"
#include "unit_cell_faces.h"
#include "unit_cell_samples.h"
#include "unit_cell_fitted.h"
#include "unit_cell_fitted_plane.h"

/* The faces of level 0, or their derivatives. */
INLINE void make_faces(
    int microstructure, const Level *level, const int *labels, long nsub, const int *image, const Input *in, int by)
{
    if (microstructure == LAMINATE)
        faces_of_laminate(level, in, by);
    else if (microstructure == CYLINDERS)
        faces_of_cylinder(level, in, by, spare_memory(level));
    else if (microstructure == FITTED_CYLINDERS && by == VALUE)
        values_of_fitted_cylinder(level, in, spare_memory(level));
    else if (microstructure == FITTED_CYLINDERS)
        slopes_of_fitted_cylinder(level, in, by, spare_memory(level));
    else if (microstructure == SAMPLES || microstructure == SAMPLES_OF_INCLUSIONS) {
        int inclusions = microstructure == SAMPLES_OF_INCLUSIONS;
        faces_of_samples(level, labels, image, in, nsub, inclusions, by, spare_memory(level));
    } else
        faces_of_image(level, labels, image, in, by);
}

/* Effective conductivity of unit cells. */
KERNEL unit_cell_2d(
    long ncells,            // number of cells
    long n,                 // points a side, even, at least 4
    long nred,              // red points, half of all
    long nphase,            // number of phases
    long naxis,             // 1, or 2 where phases conduct differently along x and y
    long nimage,            // number of images
    long nsub,              // sub-samples of a point, a side, even; 1 without
    long nword,             // scratch numbers per point: 12 in float64, 16 in float32
    int microstructure,     // 0 image, 1 laminate, 2 cylinders, 4 on lines that follow them, 6, 7 finer images
    long max_iterations,    // cap of the conjugate gradients
    real tolerance,         // relative error of the diagonal of the conductivity
    const int *labels,      // optional (nimage, n * nsub, n * nsub) phase of each point or sub-sample [y][x]
    const int *image,       // optional (ncells) which image a cell has; left out, the first
    const real *phases,     // (naxis, nphase, ncells) [W/(m K)] conductivities
    const real *fraction,   // optional (ncells) of phase 1, for laminates and cylinders
    const real *before,     // optional (2 * nred, ncells) solutions at the red points to start from
    real *after,            // optional (2 * nred, ncells) those found
    real *corrector,        // optional (2, n, n, ncells) chi of each load, unit 1/n of the cell's side
    real *tangent,          // optional (naxis, nphase, 3, ncells) derivative by each conductivity
    real *conductivity,     // (3, ncells) [W/(m K)] xx, yy, xy
    real *residual,         // (ncells) of the scaled equations, relative to the right-hand side
    int *iterations,        // (ncells) the larger of the two loads
    int *status,            // (ncells) 0 good, 1 not converged, 2 bad input
    real *scratch           // scratch (2 * nword * nred + 600 + naxis * nphase) vectors and levels
)
{
    FOR_EACH_TEAM(team, ncells) {
        real *memory = TEAM_SCRATCH(scratch, 2 * nword * nred + 600 + naxis * nphase), energy[NCOMPONENT][LANES];
        Level level[MAX_LEVELS];
        Vectors v;
        Outcome told;
        Input in;
        in.phase = memory, in.nphase = nphase, in.naxis = naxis;
        int nlevel = lay_out(n, memory + naxis * nphase * LANES, level, &v);

        int round = microstructure == CYLINDERS || microstructure == FITTED_CYLINDERS;
        real most = round ? R(0.78539816339744830962) : R(1);
        read_input(team, ncells, nimage, image, phases, fraction, most, &in);
        make_faces(microstructure, level, labels, nsub, image, &in, VALUE);
        set_up_levels(level, nlevel);
        solve_loads(level, nlevel, v, before, team, ncells, in.contrast, tolerance, max_iterations, &told);
        energies(level, v, energy);

        TEAM_ONCE FOR_EACH_LANE(l) if (HAS_CELL(team, l, ncells)) {
            long c = CELL_OF(team, l, ncells);
            real points = number_of_points(n), spoil = in.bad[l] ? R(0) / R(!in.bad[l]) : 0; /* NaN */
            for (int k = 0; k < NCOMPONENT; ++k) conductivity[k * ncells + c] = energy[k][l] / points + spoil;
            residual[c] = told.residual[l];
            iterations[c] = told.steps[l];
            status[c] = in.bad[l] ? BAD_INPUT : told.open[l] ? NOT_CONVERGED : OK;
        }
        if (after) write_state(level, v, team, ncells, after);
        if (tangent || corrector) find_black(level, v);
        if (corrector) write_corrector(level, v, team, ncells, corrector);
        for (int by = 0; tangent && by < naxis * nphase; ++by) {
            make_faces(microstructure, level, labels, nsub, image, &in, by);
            add_products(level, v, energy);
            TEAM_ONCE FOR_EACH_LANE(l) if (HAS_CELL(team, l, ncells)) for (int k = 0; k < NCOMPONENT; ++k) {
                real spoil = in.bad[l] ? R(0) / R(!in.bad[l]) : 0;
                tangent[(by * NCOMPONENT + k) * ncells + CELL_OF(team, l, ncells)] =
                    energy[k][l] / number_of_points(n) + spoil;
            }
        }
        TEAM_BARRIER;
    }
}
