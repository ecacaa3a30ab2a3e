/* Part of unit_cell.c and others: how far the conjugate gradients of a cell are, and when they end. */

#define PATIENCE 30 /* iterations without progress before a cell is given up */

typedef struct {
    real faces[LOADS][LANES];  /* sum of the faces of a load less the energy found: n^DIM K_jj so far */
    real norm[LOADS][LANES];   /* right-hand side squared */
    real rz[LOADS][LANES];     /* r M^-1 r */
    real pmp[LOADS][LANES];    /* p M p */
    real lowest[LOADS][LANES]; /* least p S p / p M p, near the smallest eigenvalue of M^-1 S */
    real best[LOADS][LANES];   /* least rz */
    int active[LOADS][LANES], waited[LOADS][LANES], steps[LOADS][LANES], failed[LOADS][LANES];
} Progress;

/* What is told of a cell, the worst of its loads. */
typedef struct {
    real residual[LANES]; /* norm of the residual, relative to the right-hand side */
    int steps[LANES], open[LANES]; /* iterations; whether a load did not converge */
} Outcome;

/* Which cells go on. n^DIM K_jj is too large by e S e, e being the error of x; this is at most rz divided by
   the smallest eigenvalue of M^-1 S, of which the directions so far give an estimate. */
INLINE int judge(Progress *now, real tolerance, int j)
{
    FOR_EACH_LANE(l) {
        real rz = now->rz[j][l];
        int active = now->active[j][l], better = rz < now->best[j][l];
        int waited = better ? 0 : now->waited[j][l] + 1;
        int good = rz <= tolerance * now->faces[j][l] * now->lowest[j][l];
        int stuck = waited > PATIENCE || !(rz == rz);
        now->failed[j][l] |= active && !good && stuck;
        now->best[j][l] = better ? rz : now->best[j][l];
        now->waited[j][l] = waited;
        now->active[j][l] = active && !good && !stuck;
    }
    return LANES_ANY(now->active[j]);
}
