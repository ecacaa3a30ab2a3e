/* A grain that grows or dissolves in a periodic square, and what the cell then conducts.

   The phase field p is 1 in the conducting phase and 0 in the grain; over a macro step of length dt,
       lam^2 dp/dt + gam P'(p) = gam lam^2 lap(p) - 4 lam f(u) p (1 - p),
       P'(p) = 16 p (1 - p) (1 - 2 p),   f(u) = rate (u / u_eq)^2 - 1,
   by one step of backward Euler on n x n points and Newton's method. Its linear equations, a five-point
   operator with a positive diagonal, are reduced to the red half of the points and solved by conjugate
   gradients in single precision, each only as far as Newton's method can use it. Then the cell problem
   (unit_cell_solve.h) with conductivity p k_s + (1 - p) k_g, at the mean p of the two points of a face.

   Source: Bastidas Olivares, Bringedal and Pop 2021, doi 10.1016/j.amc.2020.125933 (the equations). */

#include "unit_cell_plane.h"
#include "unit_cell_levels.h"
#include "unit_cell_progress.h"
#include "unit_cell_solve.h"
#include "unit_cell_iterate.h"
#include "unit_cell_results.h"

#define OK 0
#define NOT_CONVERGED 1      /* the phase field */
#define BAD_INPUT 2
#define CELL_NOT_CONVERGED 3 /* the cell problem */
#define MOST_NEWTON 30
#define MOST_LINEAR 300      /* conjugate gradients of one Newton step */
#define ROUNDING (sizeof(real) == 4 ? R(1e-6) : R(2e-15))
/* The solver's caution grows with the contrast, for voxels strewn at random; a smooth grain needs no more. */
#define CAUTION R(100)

typedef struct {
    real *phase, *old;   /* [2][ncolour], after and before the step */
    real *residual;      /* [2][ncolour] of the nonlinear equations */
    small *diagonal;     /* [ncolour] of Newton's matrix, red points */
    small *inverse;      /* [2][ncolour] of the diagonal */
    small *x, *r, *p, *q; /* [ncolour], red points */
    small *black;        /* [ncolour], black points */
} Fields;

typedef struct {
    real neighbour;                        /* weight of a neighbour, dt gam n^2 */
    real well, drive[LANES];               /* of p (1 - p) (1 - 2 p), of p (1 - p) */
    real size[LANES];                      /* root mean square of the residual */
    int active[LANES], failed[LANES], bad[LANES], newton[LANES], linear[LANES];
} Step;

/* Until the cell problem begins, its memory belongs to the phase field. */
INLINE Fields borrow(const Level *level, Vectors v)
{
    long size = level->ncolour * LANES;
    Fields f;
    f.phase = v.x, f.old = v.r, f.residual = v.p;
    f.diagonal = (small *)v.q, f.inverse = f.diagonal + size, f.black = f.inverse + 2 * size;
    f.x = (small *)level->face, f.r = f.x + size, f.p = f.r + size, f.q = f.p + size;
    return f;
}

/* Where a point of a colour stands in the arrays of a caller. */
INLINE long place(const Level *level, long h, long y, int colour)
{
    return y * level->n + 2 * h + ((y + colour) & 1);
}

INLINE real sum_around(const real *other, Around at, int l)
{
    return (other[at.left * LANES + l] + other[at.right * LANES + l]) +
           (other[at.down * LANES + l] + other[at.up * LANES + l]);
}

INLINE small small_around(const small *other, Around at, int l)
{
    return (other[at.left * LANES + l] + other[at.right * LANES + l]) +
           (other[at.down * LANES + l] + other[at.up * LANES + l]);
}

/* Reads the cells; a bad one becomes a harmless one and is marked. Gives the porosity. */
INLINE void read_cells(
    const Level *level, Fields f, long team, long ncells, const real *u, const real *before, Step *now,
    real porosity[LANES])
{
    real wrong[LANES];
    FOR_EACH_LANE(l) {
        real value = u[CELL_OF(team, l, ncells)];
        /* A macro solver may leave a vanishing concentration a little below 0; only its square is used. */
        wrong[l] = value > R(-1e-6) && value < R(1e6) ? 0 : 1;
    }
    for (int colour = RED; colour <= BLACK; ++colour)
        FOR_EACH_POINT_2D(h, y, level->half, level->n) {
            long i = (colour * level->ncolour + y * level->half + h) * LANES, from = place(level, h, y, colour);
            FOR_EACH_LANE(l) {
                real p = before[from * ncells + CELL_OF(team, l, ncells)];
                f.old[i + l] = p;
                wrong[l] = p > R(-0.5) && p < R(1.5) ? wrong[l] : 1;
            }
        }
    TEAM_MAX(wrong);
    TEAM_BARRIER;
    FOR_EACH_LANE(l) porosity[l] = 0;
    FOR_EACH_POINT(i, 2 * level->ncolour) FOR_EACH_LANE(l) {
        real p = wrong[l] > 0 ? 1 : f.old[i * LANES + l];
        f.old[i * LANES + l] = f.phase[i * LANES + l] = p;
        porosity[l] += p;
    }
    TEAM_SUM(porosity);
    TEAM_BARRIER;
    FOR_EACH_LANE(l) now->bad[l] = wrong[l] > 0, porosity[l] /= R(2 * level->ncolour);
}

/* Residual of backward Euler and its size, and the diagonal of Newton's matrix. */
INLINE void find_residual(const Level *level, Fields f, Step *now)
{
    real sum[LANES];
    FOR_EACH_LANE(l) sum[l] = 0;
    for (int colour = RED; colour <= BLACK; ++colour) {
        const real *other = f.phase + (1 - colour) * level->ncolour * LANES;
        FOR_EACH_POINT_2D(h, y, level->half, level->n) {
            long i = (colour * level->ncolour + y * level->half + h) * LANES;
            Around at = around(level->n, h, y, colour);
            FOR_EACH_LANE(l) {
                real p = f.phase[i + l], both = p * (1 - p), odd = 1 - 2 * p;
                real change = p - f.old[i + l] + both * (now->well * odd + now->drive[l]);
                real residual = change + now->neighbour * (4 * p - sum_around(other, at, l));
                real slope = now->well * (1 - 6 * both) + now->drive[l] * odd;
                real diagonal = 1 + slope + 4 * now->neighbour;
                f.residual[i + l] = residual;
                if (colour == RED) f.diagonal[i + l] = (small)diagonal;
                f.inverse[i + l] = (small)(1 / diagonal);
                sum[l] = MUL_ADD(residual, residual, sum[l]);
            }
        }
    }
    TEAM_SUM(sum);
    TEAM_BARRIER;
    FOR_EACH_LANE(l) now->size[l] = hp_sqrt(sum[l] / R(2 * level->ncolour));
}

/* Reduced right-hand side: r of the red points less what the black ones bring; x = 0, p = r / diagonal. */
INLINE void start_linear(const Level *level, Fields f, const Step *now, real rz[LANES])
{
    long black = level->ncolour * LANES;
    small weight = (small)now->neighbour;
    FOR_EACH_POINT(i, level->ncolour) FOR_EACH_LANE(l) {
        long k = i * LANES + l;
        f.black[k] = (small)f.residual[black + k] * f.inverse[black + k];
    }
    TEAM_BARRIER;
    FOR_EACH_LANE(l) rz[l] = 0;
    FOR_EACH_POINT_2D(h, y, level->half, level->n) {
        long i = (y * level->half + h) * LANES;
        Around at = around(level->n, h, y, RED);
        FOR_EACH_LANE(l) {
            small r = -(small)f.residual[i + l] - weight * small_around(f.black, at, l);
            small z = r * f.inverse[i + l];
            f.x[i + l] = 0, f.r[i + l] = r, f.p[i + l] = z;
            rz[l] += (real)(r * z);
        }
    }
    TEAM_SUM(rz);
    TEAM_BARRIER;
}

/* q = S p, and pq = p q, for S = diagonal - neighbour^2 (black neighbours' inverse diagonal). */
INLINE void apply_reduced(const Level *level, Fields f, const Step *now, real pq[LANES])
{
    const small *inverse_black = f.inverse + level->ncolour * LANES;
    small weight = (small)(now->neighbour * now->neighbour);
    FOR_EACH_POINT_2D(h, y, level->half, level->n) {
        long i = (y * level->half + h) * LANES;
        Around at = around(level->n, h, y, BLACK);
        FOR_EACH_LANE(l) f.black[i + l] = inverse_black[i + l] * small_around(f.p, at, l);
    }
    TEAM_BARRIER;
    FOR_EACH_LANE(l) pq[l] = 0;
    FOR_EACH_POINT_2D(h, y, level->half, level->n) {
        long i = (y * level->half + h) * LANES;
        Around at = around(level->n, h, y, RED);
        FOR_EACH_LANE(l) {
            small p = f.p[i + l], q = f.diagonal[i + l] * p - weight * small_around(f.black, at, l);
            f.q[i + l] = q;
            pq[l] += (real)(p * q);
        }
    }
    TEAM_SUM(pq);
    TEAM_BARRIER;
}

/* Newton's matrix times x = - residual, until the residual has fallen to `wanted` of what it was. */
INLINE void solve_linear(const Level *level, Fields f, Step *now, real wanted[LANES])
{
    real rz[LANES], pq[LANES], target[LANES], factor[LANES];
    int open[LANES];
    start_linear(level, f, now, rz);
    FOR_EACH_LANE(l) target[l] = wanted[l] * wanted[l] * rz[l], open[l] = now->active[l] && rz[l] > 0;
    for (int iteration = 0; iteration < MOST_LINEAR && LANES_ANY(open); ++iteration) {
        apply_reduced(level, f, now, pq);
        FOR_EACH_LANE(l) {
            /* No positive curvature: the step is too long for a single solution. */
            now->failed[l] |= open[l] && !(pq[l] > 0);
            open[l] = open[l] && pq[l] > 0;
            factor[l] = open[l] ? rz[l] / pq[l] : 0;
            pq[l] = rz[l], rz[l] = 0;
            now->linear[l] += open[l];
        }
        FOR_EACH_POINT(i, level->ncolour) FOR_EACH_LANE(l) {
            long k = i * LANES + l;
            small r = f.r[k] - (small)factor[l] * f.q[k];
            f.x[k] += (small)factor[l] * f.p[k];
            f.r[k] = r;
            rz[l] += (real)(r * (r * f.inverse[k]));
        }
        TEAM_SUM(rz);
        FOR_EACH_LANE(l) {
            factor[l] = open[l] ? rz[l] / pq[l] : 0;
            open[l] = open[l] && rz[l] > target[l];
        }
        FOR_EACH_POINT(i, level->ncolour) FOR_EACH_LANE(l) {
            long k = i * LANES + l;
            f.p[k] = (small)factor[l] * f.p[k] + f.r[k] * f.inverse[k];
        }
        TEAM_BARRIER;
    }
}

/* phase += the solution, where a cell is not done; of the black points from that of the red ones. */
INLINE void correct_phase(const Level *level, Fields f, const Step *now)
{
    long black = level->ncolour * LANES;
    FOR_EACH_POINT_2D(h, y, level->half, level->n) {
        long i = (y * level->half + h) * LANES;
        Around at = around(level->n, h, y, BLACK);
        FOR_EACH_LANE(l) {
            real sum = now->neighbour * (real)small_around(f.x, at, l) - f.residual[black + i + l];
            real change = now->active[l] && !now->failed[l] ? (real)f.inverse[black + i + l] * sum : 0;
            f.phase[black + i + l] += change;
            f.phase[i + l] += now->active[l] && !now->failed[l] ? (real)f.x[i + l] : 0;
        }
    }
    TEAM_BARRIER;
}

/* One step of backward Euler in the active cells. */
INLINE void advance_phase(const Level *level, Fields f, Step *now, real tolerance)
{
    real goal = hp_max(tolerance, ROUNDING * (1 + 8 * now->neighbour)), wanted[LANES];
    for (int newton = 0; newton <= MOST_NEWTON && LANES_ANY(now->active); ++newton) {
        find_residual(level, f, now);
        FOR_EACH_LANE(l) {
            now->active[l] = now->active[l] && !now->failed[l] && now->size[l] > goal;
            now->failed[l] |= now->active[l] && newton == MOST_NEWTON;
            now->newton[l] += now->active[l];
            /* Quadratic convergence needs the square of the residual, and nobody more than the goal. */
            wanted[l] = hp_max(hp_min(now->size[l], R(0.03)), hp_max(R(0.3) * goal / now->size[l], R(1e-5)));
        }
        if (newton == MOST_NEWTON || !LANES_ANY(now->active)) break;
        solve_linear(level, f, now, wanted);
        correct_phase(level, f, now);
    }
}

/* Writes the phase field of the cells, and gives the porosity. */
INLINE void write_phase(
    const Level *level, Fields f, long team, long ncells, const Step *now, real *after, real porosity[LANES])
{
    FOR_EACH_LANE(l) porosity[l] = 0;
    for (int colour = RED; colour <= BLACK; ++colour)
        FOR_EACH_POINT_2D(h, y, level->half, level->n) {
            long i = (colour * level->ncolour + y * level->half + h) * LANES, to = place(level, h, y, colour);
            FOR_EACH_LANE(l) {
                porosity[l] += f.phase[i + l];
                real spoil = now->bad[l] ? R(0) / R(!now->bad[l]) : 0; /* NaN */
                if (HAS_CELL(team, l, ncells))
                    after[to * ncells + CELL_OF(team, l, ncells)] = f.phase[i + l] + spoil;
            }
        }
    TEAM_SUM(porosity);
    FOR_EACH_LANE(l) porosity[l] /= R(2 * level->ncolour);
}

/* Faces of the black points, from the mean phase of both points, which a coarse step may carry past 0 or 1. */
INLINE void faces_of_phase(const Level *level, const real *phase, real conducting, real grain)
{
    FOR_EACH_POINT_2D(h, y, level->half, level->n) {
        long i = y * level->half + h;
        Around at = around(level->n, h, y, BLACK);
        long other[4];
        other[LEFT] = at.left, other[RIGHT] = at.right, other[DOWN] = at.down, other[UP] = at.up;
        for (int side = 0; side < 4; ++side) FOR_EACH_LANE(l) {
            real p = R(0.5) * (phase[(level->ncolour + i) * LANES + l] + phase[other[side] * LANES + l]);
            p = hp_min(hp_max(p, 0), 1);
            level->face[FACE(i, side)] = MUL_ADD(conducting - grain, p, grain);
        }
    }
    TEAM_BARRIER;
}

/* Advance the phase fields of cells by dt, then porosity and conductivity. */
KERNEL grain_2d(
    long ncells,         // number of cells
    long n,              // points a side, even, at least 4
    long nword,          // scratch numbers per point: 12 in float64, 16 in float32
    long max_iterations, // cap of the conjugate gradients of the cell problem
    real dt,             // [s] length of the step; 0: only porosity and conductivity
    real lam,            // width of the interface
    real gam,            // mobility of the interface
    real rate,           // of the reaction
    real equilibrium,    // concentration at which the reaction rests
    real stop,           // porosity from which on a cell stays as it is
    real conducting,     // [m2/s] diffusivity of the conducting phase
    real grain,          // [m2/s] of the grain, positive
    real tolerance,      // relative error of the diagonal of the diffusivity
    real phase_tolerance,   // root mean square of the residual of backward Euler
    const real *concentration, // (ncells) of the macro scale
    const real *before,  // (n * n, ncells) phase field before the step, points [y][x]
    real *after,         // (n * n, ncells) phase field after it
    real *porosity,      // (ncells) mean of the phase field
    real *diffusivity,   // (3, ncells) [m2/s] xx, yy, xy
    real *residual,      // (ncells) of the cell problem, relative to its right-hand side
    int *newton,         // (ncells) iterations of Newton's method
    int *linear,         // (ncells) conjugate gradients in them
    int *iterations,     // (ncells) of the cell problem, the larger of the two loads
    int *status,         // (ncells) 0 good, 1 phase not converged, 2 bad input, 3 cell problem not converged
    real *scratch        // scratch (nword * n * n + 600) vectors and levels
)
{
    FOR_EACH_TEAM(team, ncells) {
        real *memory = TEAM_SCRATCH(scratch, nword * n * n + 600);
        real energy[NCOMPONENT][LANES], mean[LANES], contrast[LANES];
        Level level[MAX_LEVELS];
        Vectors v;
        Outcome told;
        Step now;
        int nlevel = lay_out(n, memory, level, &v);
        Fields f = borrow(level, v);

        read_cells(level, f, team, ncells, concentration, before, &now, mean);
        now.neighbour = dt * gam * R(n) * R(n), now.well = 16 * dt * gam / (lam * lam);
        FOR_EACH_LANE(l) {
            real u = now.bad[l] ? 1 : concentration[CELL_OF(team, l, ncells)] / equilibrium;
            now.drive[l] = 4 * dt / lam * (rate * u * u - 1);
            now.active[l] = dt > 0 && !now.bad[l] && mean[l] < stop;
            now.failed[l] = now.newton[l] = now.linear[l] = 0;
            contrast[l] = CAUTION;
        }
        advance_phase(level, f, &now, phase_tolerance);
        write_phase(level, f, team, ncells, &now, after, mean);
        faces_of_phase(level, f.phase, conducting, grain);
        set_up_levels(level, nlevel);
        solve_loads(level, nlevel, v, 0, team, ncells, contrast, tolerance, max_iterations, &told);
        energies(level, v, energy);

        TEAM_ONCE FOR_EACH_LANE(l) if (HAS_CELL(team, l, ncells)) {
            long c = CELL_OF(team, l, ncells);
            real points = R(n) * R(n), spoil = now.bad[l] ? R(0) / R(!now.bad[l]) : 0; /* NaN */
            for (int k = 0; k < 3; ++k) diffusivity[k * ncells + c] = energy[k][l] / points + spoil;
            porosity[c] = mean[l] + spoil;
            residual[c] = told.residual[l];
            newton[c] = now.newton[l];
            linear[c] = now.linear[l];
            iterations[c] = told.steps[l];
            status[c] = now.bad[l] ? BAD_INPUT : now.failed[l] ? NOT_CONVERGED : told.open[l] ? CELL_NOT_CONVERGED : OK;
        }
        TEAM_BARRIER;
    }
}
