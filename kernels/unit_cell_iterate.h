/* Part of unit_cell.c and others: the conjugate gradients themselves.

   The same for all operators: unit_cell_solve.h (faces, the red half of the points) and unit_cell_tensor_solve.h
   (full tensors, all points) say what Vectors are, and how to find_loads, start, start_from, precondition,
   turn, apply and advance. */

INLINE void solve(
    const Level *level, int nlevel, Vectors v, const real *contrast, real tolerance, long max_iterations, Progress *now)
{
    real before[LOADS][LANES], step[LOADS][LANES];
    FOR_EACH_LOAD(j) FOR_EACH_LANE(l) {
        /* Where the contrast is high, small eigenvalues may show only late: a cautious first estimate. */
        now->lowest[j][l] = R(0.5) / (1 + contrast[l] / 100);
        now->best[j][l] = R(1e30), now->pmp[j][l] = before[j][l] = 0;
        now->waited[j][l] = now->steps[j][l] = now->failed[j][l] = 0;
        now->active[j][l] = 1;
    }
    for (long iteration = 0;; ++iteration) {
        precondition(level, nlevel, v, now->rz); /* here alone: it is long, and would be compiled again */
        int any = 0;
        FOR_EACH_LOAD(j) any |= judge(now, tolerance, j);
        if (!any || iteration == max_iterations) break;
        FOR_EACH_LOAD(j) FOR_EACH_LANE(l) {
            real beta = before[j][l] > 0 ? now->rz[j][l] / before[j][l] : 0;
            now->pmp[j][l] = MUL_ADD(beta * beta, now->pmp[j][l], now->rz[j][l]);
            step[j][l] = beta;
        }
        turn(level, v, step);
        apply(level, v, step);
        FOR_EACH_LOAD(j) FOR_EACH_LANE(l) {
            real psp = step[j][l], rz = now->rz[j][l], ratio = psp / now->pmp[j][l];
            real alpha = now->active[j][l] && psp > 0 ? rz / psp : 0;
            now->lowest[j][l] = alpha > 0 ? hp_min(now->lowest[j][l], ratio) : now->lowest[j][l];
            now->faces[j][l] = MUL_ADD(-alpha, rz, now->faces[j][l]);
            now->steps[j][l] += now->active[j][l];
            step[j][l] = alpha;
            before[j][l] = rz;
        }
        advance(level, v, step);
    }
}

/* Adds the loads just solved to what is told of the cell. */
INLINE void conclude(Vectors v, const Progress *now, Outcome *told)
{
    FOR_EACH_LOAD(j) {
        real sum[LANES];
        FOR_EACH_LANE(l) sum[l] = 0;
        FOR_EACH_POINT(i, v.npoint) FOR_EACH_LANE(l)
            sum[l] = MUL_ADD(v.r[AT(i, j)], v.r[AT(i, j)], sum[l]);
        TEAM_SUM(sum);
        FOR_EACH_LANE(l) {
            real norm = now->norm[j][l], relative = norm > 0 ? hp_sqrt(sum[l] / norm) : 0;
            told->residual[l] = hp_max(told->residual[l], relative);
            told->steps[l] = told->steps[l] > now->steps[j][l] ? told->steps[l] : now->steps[j][l];
            told->open[l] |= now->active[j][l] | now->failed[j][l];
        }
    }
    TEAM_BARRIER;
}

/* All loads of a cell, LOADS at a time, from the levels; from the solutions `before` [DIM * npoint][ncells] if
   there are some. */
INLINE void solve_loads(
    const Level *level, int nlevel, Vectors v, const real *before, long team, long ncells, const real *contrast,
    real tolerance, long max_iterations, Outcome *told)
{
    FOR_EACH_LANE(l) told->residual[l] = 0;
    FOR_EACH_LANE(l) told->steps[l] = told->open[l] = 0;
    for (int first = 0; first < DIM; first += LOADS) {
        Progress now;
        v.x = v.chi + first * v.npoint * LANES;
        find_loads(level, v, first, &now);
        start(level, v);
        if (before) start_from(level, v, before, team, ncells, first, &now);
        solve(level, nlevel, v, contrast, tolerance, max_iterations, &now);
        conclude(v, &now, told);
    }
}
