/* Homogenised conductivity of periodic unit cells in 2D.

   div(k (e_j + grad chi_j)) = 0 with periodic chi_j, for the loads j = x, y; from the energy,
   K_ij = <(e_i + grad chi_i) k (e_j + grad chi_j)>, whose error is quadratic in that of chi.
   Solved in unit_cell_solve.h. */

#include "unit_cell_levels.h"
#include "unit_cell_solve.h"
#include "unit_cell_faces.h"

#define OK 0
#define NOT_CONVERGED 1
#define BAD_INPUT 2
#define IMAGE 0
#define LAMINATE 1
#define CYLINDERS 2

typedef struct {
    int bad[LANES];
    real fraction[LANES], contrast[LANES]; /* of phase 1; largest over smallest conductivity */
    real *phase;                           /* [nphase] */
} Input;

/* A cell with bad input is replaced by a harmless one and marked. */
INLINE void read_input(
    long team, long ncells, long nphase, int microstructure, const real *phases, const real *fraction, Input *in)
{
    real low[LANES], high[LANES], most = microstructure == CYLINDERS ? R(0.78539816339744830962) : R(1);
    FOR_EACH_LANE(l) {
        real f = fraction ? fraction[CELL_OF(team, l, ncells)] : 0;
        in->bad[l] = microstructure != IMAGE && !(f >= 0 && f <= most);
        in->fraction[l] = in->bad[l] ? 0 : f;
        low[l] = R(1e30), high[l] = 0;
    }
    for (long k = 0; k < nphase; ++k) FOR_EACH_LANE(l) {
        real value = phases[k * ncells + CELL_OF(team, l, ncells)];
        in->bad[l] |= !(value > 0 && value < R(1e30));
        low[l] = hp_min(value, low[l]), high[l] = hp_max(value, high[l]);
    }
    FOR_EACH_LANE(l) in->contrast[l] = in->bad[l] ? 1 : high[l] / low[l];
    FOR_EACH_POINT(k, nphase) FOR_EACH_LANE(l)
        in->phase[k * LANES + l] = in->bad[l] ? 1 : phases[k * ncells + CELL_OF(team, l, ncells)];
    TEAM_BARRIER;
}

/* Effective conductivity of unit cells. */
KERNEL unit_cell_2d(
    long ncells,            // number of cells
    long n,                 // points a side, even, at least 4
    long nphase,            // number of phases
    long nword,             // scratch numbers per point: 12 in float64, 16 in float32
    int microstructure,     // 0 image, 1 laminate, 2 cylinders
    long max_iterations,    // cap of the conjugate gradients
    real tolerance,         // relative error of the diagonal of the conductivity
    const int *labels,      // optional (n, n) phase of each point [y][x], for images
    const real *phases,     // (nphase, ncells) [W/(m K)] conductivities
    const real *fraction,   // optional (ncells) of phase 1, for laminates and cylinders
    real *conductivity,     // (3, ncells) [W/(m K)] xx, yy, xy
    real *residual,         // (ncells) of the scaled equations, relative to the right-hand side
    int *iterations,        // (ncells) the larger of the two loads
    int *status,            // (ncells) 0 good, 1 not converged, 2 bad input
    real *scratch           // scratch (nword * n * n + 600 + nphase) vectors and levels
)
{
    FOR_EACH_TEAM(team, ncells) {
        real *memory = TEAM_SCRATCH(scratch, nword * n * n + 600 + nphase), energy[3][LANES], worst[LANES];
        Level level[MAX_LEVELS];
        Vectors v;
        Progress now;
        Input in;
        in.phase = memory;
        int nlevel = lay_out(n, n * STRIPS / 2, memory + nphase * LANES, level, &v);

        read_input(team, ncells, nphase, microstructure, phases, fraction, &in);
        if (microstructure == LAMINATE) {
            faces_of_laminate(level, in.fraction, in.phase);
        } else if (microstructure == CYLINDERS) {
            links_of_cylinder(n, in.fraction, in.phase, v.p, v.x);
            faces_of_cylinder(level, v.x);
        } else {
            faces_of_image(level, labels, in.phase);
        }
        set_up_levels(level, nlevel);
        find_loads(level, v, &now);
        scale_faces(level);
        solve(level, nlevel, v, in.contrast, tolerance, max_iterations, &now);
        relative_residual(level, v, &now, worst);
        energies(level, v, energy);

        TEAM_ONCE FOR_EACH_LANE(l) if (HAS_CELL(team, l, ncells)) {
            long c = CELL_OF(team, l, ncells);
            int open = now.active[0][l] | now.active[1][l] | now.failed[0][l] | now.failed[1][l];
            real points = R(n) * R(n), spoil = in.bad[l] ? R(0) / R(!in.bad[l]) : 0; /* NaN */
            for (int k = 0; k < 3; ++k) conductivity[k * ncells + c] = energy[k][l] / points + spoil;
            residual[c] = worst[l];
            iterations[c] = now.steps[0][l] > now.steps[1][l] ? now.steps[0][l] : now.steps[1][l];
            status[c] = in.bad[l] ? BAD_INPUT : open ? NOT_CONVERGED : OK;
        }
        TEAM_BARRIER;
    }
}
