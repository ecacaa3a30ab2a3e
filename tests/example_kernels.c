// Not a kernel: KERNEL nothing( in a comment.
KERNEL saxpy(
    long n,              // number of cells
    real factor,         // [m] what x is multiplied with (a number)
    const real *x,       // (2 * (n + 1), n) [K] first summand
    const byte *mask,    // optional (n) where to add
    double *y            // (n) [J/(m3 K)] sum
) {
    FOR_EACH_CELL(c, n) y[c] = y[c] + (mask && !mask[c] ? 0.0 : (double)(factor * x[n + c]));
}

KERNEL mean_square(
    long n,             // number of cells
    long npoint,        // points of a cell
    const real *field,  // (npoint, n) [1] anything
    real *mean,         // (n) [1] mean of its square
    real *largest,      // (n) [1] largest value
    real *scratch       // scratch (npoint + 3) [1] the cell's own copy
) {
    FOR_EACH_TEAM(team, n) {
        real *u = TEAM_SCRATCH(scratch, npoint + 3);
        real sum[LANES], top[LANES];
        FOR_EACH_POINT(i, npoint) FOR_EACH_LANE(l) u[i * LANES + l] = field[i * n + CELL_OF(team, l, n)];
        TEAM_BARRIER;
        FOR_EACH_LANE(l) sum[l] = 0;
        FOR_EACH_LANE(l) top[l] = u[l];
        FOR_EACH_POINT(i, npoint) FOR_EACH_LANE(l) {
            sum[l] = MUL_ADD(u[i * LANES + l], u[i * LANES + l], sum[l]);
            top[l] = hp_max(u[i * LANES + l], top[l]);
        }
        TEAM_SUM(sum);
        TEAM_MAX(top);
        TEAM_ONCE FOR_EACH_LANE(l)
            if (HAS_CELL(team, l, n)) {
                mean[CELL_OF(team, l, n)] = sum[l] / (real)npoint;
                largest[CELL_OF(team, l, n)] = top[l];
            }
    }
}

KERNEL elementary(
    long n,         // number of values
    const real *x,  // (n) [1] arguments
    real *e,        // (n) [1] exp
    real *t,        // (n) [1] tanh
    real *g         // (n) [1] log
) {
    FOR_EACH_CELL(c, n) e[c] = hp_exp(x[c]);
    FOR_EACH_CELL(c, n) t[c] = hp_tanh(x[c]);
    FOR_EACH_CELL(c, n) g[c] = hp_log(x[c]);
}

KERNEL number_cells(
    long nx,   // along x
    long ny,   // along y
    long nz,   // along z
    long *id   // (nz, ny, nx) [1] x + 10 y + 100 z
) {
    FOR_EACH_CELL_3D(x, y, z, nx, ny, nz) id[(z * ny + y) * nx + x] = x + 10 * y + 100 * z;
}
