/* How much of a variance known points explain: the squared length of L f for a triangular L.

   With L the inverse Cholesky factor of a covariance of the known points, and f the covariances with a cell,
   this is what they take off its variance. Lanes are cells: a cell's sums run in one order in any batch. */

#define ROWS 4 /* rows of L whose sums run side by side, so that each feature is loaded once for all */

#define AT(row) ((row) * LANES + l)

/* Products of ROWS rows of L, of which the first `last` columns count, with f. */
INLINE void multiply(const real *r0, const real *r1, const real *r2, const real *r3, const real *f, long last,
                     real *out)
{
    FOR_EACH_LANE(l) {
        real s0 = 0, s1 = 0, s2 = 0, s3 = 0;
        long k = 0;
        do { /* at least one turn: the compiler then vectorises around this loop */
            real value = f[AT(k)];
            s0 = MUL_ADD(r0[k], value, s0);
            s1 = MUL_ADD(r1[k], value, s1);
            s2 = MUL_ADD(r2[k], value, s2);
            s3 = MUL_ADD(r3[k], value, s3);
        } while (++k < last);
        out[AT(0)] = s0;
        out[AT(1)] = s1;
        out[AT(2)] = s2;
        out[AT(3)] = s3;
    }
}

KERNEL triangular_square(
    long ncells,        // number of cells
    long nrow,          // rows of L
    const real *lower,  // (nrow, nrow) [1] L, zero above its diagonal
    const real *values, // (nrow, ncells) [any] f of every cell
    real *square,       // (ncells) [any2] squared length of L f
    real *scratch       // scratch (nrow) [1] f of the cell
) {
    FOR_EACH_TEAM(team, ncells) {
        real *f = TEAM_SCRATCH(scratch, nrow);
        real total[LANES];
        FOR_EACH_POINT(i, nrow) FOR_EACH_LANE(l) f[AT(i)] = values[i * ncells + CELL_OF(team, l, ncells)];
        TEAM_BARRIER;
        FOR_EACH_LANE(l) total[l] = 0;
        FOR_EACH_POINT(block, (nrow + ROWS - 1) / ROWS) {
            long first = block * ROWS, left = nrow - first, last = left < ROWS ? nrow : first + ROWS;
            const real *row = lower + first * nrow;
            real out[ROWS * LANES];
            /* In the place of rows beyond the last it stands once more, and is not added. */
            multiply(row, row + (left > 1 ? nrow : 0), row + (left > 2 ? 2 * nrow : 0),
                     row + (left > 3 ? 3 * nrow : 0), f, last, out);
            for (long i = 0; i < ROWS && i < left; ++i)
                FOR_EACH_LANE(l) total[l] = MUL_ADD(out[AT(i)], out[AT(i)], total[l]);
        }
        TEAM_SUM(total);
        TEAM_ONCE FOR_EACH_LANE(l)
            if (HAS_CELL(team, l, ncells)) square[CELL_OF(team, l, ncells)] = total[l];
    }
}
