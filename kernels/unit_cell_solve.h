/* Part of unit_cell.c and others: conjugate gradients for the cell problem of a periodic square or cube.

   The finite-volume equations (unit_cell_levels.h) are reduced to the red half of the points, S x = r, and
   solved by conjugate gradients with one multigrid V-cycle as preconditioner: Jacobi on S (red-black
   Gauss-Seidel on coarser levels), aggregates of two points a side, coarse faces half the sum of the fine
   ones. As each application of S is itself a red-black sweep, the cycle smooths once more for free: at
   contrast 10 the reduced system takes 7 to 8 iterations where the full one takes 9, and half the vectors.

   Order of calls, from the unscaled faces of level 0: set_up_levels, solve_loads, then what
   unit_cell_results.h makes of the solutions. */

#define PATIENCE 30 /* iterations without progress before a cell is given up */

/* Solution of load d at red point i, in Vectors.chi. */
#define CHI(i, d) ((((d) / LOADS * level->ncolour + (i)) * LOADS + (d) % LOADS) * LANES + l)

typedef struct {
    real *chi;           /* [DIM / LOADS][ncolour][LOADS], of the red points: all loads */
    real *x, *r, *p, *q; /* [ncolour][LOADS], of the red points; x is the part of chi under way */
    real *black;         /* [ncolour][LOADS], of the black points */
} Vectors;

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

/* Cuts the team's memory into vectors and levels; returns the number of levels. */
INLINE int lay_out(long n, real *memory, Level *level, Vectors *v)
{
    long ncolour = number_of_points(n) / 2, vector = ncolour * LOADS + PAD;
    v->chi = v->x = memory, v->r = v->x + (ncolour * DIM + PAD) * LANES;
    v->p = v->r + vector * LANES, v->q = v->p + vector * LANES, v->black = v->q + vector * LANES;
    level[0].face = v->black + (ncolour * LOADS + PAD) * LANES;
    level[0].scale = level[0].face + (SIDES * ncolour + PAD) * LANES;
    small *rest = (small *)(level[0].scale + (2 * ncolour + PAD) * LANES);
    real *spare = v->x; /* the coarser levels' own faces are needed only until they are scaled */
    int nlevel = 0;
    for (long m = n; m % 2 == 0 && nlevel < MAX_LEVELS; m /= 2, ++nlevel) {
        Level *here = level + nlevel;
        long half = number_of_points(m) / 2;
        here->n = m, here->half = m / 2, here->ncolour = half;
        here->scaled_face = rest, rest += (SIDES * half + PAD) * LANES;
        here->weight = rest, rest += (half + PAD) * LANES;
        here->rhs = rest, rest += ((nlevel ? 2 : 1) * LOADS * half + PAD) * LANES;
        here->u = rest, rest += (2 * LOADS * half + PAD) * LANES;
        here->u_black = here->u + LOADS * half * LANES;
        here->rhs_black = nlevel ? here->rhs + LOADS * half * LANES : 0;
        if (nlevel == 0) continue;
        here->face = spare, spare += (SIDES * half + PAD) * LANES;
        here->scale = spare, spare += (2 * half + PAD) * LANES;
    }
    return nlevel;
}

/* Memory that is free but between set_up_levels and the end of solve_loads. */
INLINE real *spare_memory(const Level *level) { return (real *)level->scaled_face; }

/* Sums over the faces, and the right-hand side of the loads from `first` on: red part into r, black into black.
   Takes p and q for the square roots of the diagonal. */
INLINE void find_loads(const Level *level, Vectors v, int first, Progress *now)
{
    real faces[LOADS][LANES], norm[LOADS][LANES], black_norm[LOADS][LANES], *red = v.p, *black = v.q;
    FOR_EACH_LOAD(j) FOR_EACH_LANE(l) faces[j][l] = norm[j][l] = black_norm[j][l] = 0;
    FOR_EACH_POINT(i, level->ncolour) FOR_EACH_LANE(l) {
        red[i * LANES + l] = R(1) / level->scale[i * LANES + l];
        black[i * LANES + l] = R(1) / level->scale[(level->ncolour + i) * LANES + l];
    }
    TEAM_BARRIER;
    FOR_EACH_PLACE(level->n) {
        long i = point(level->n, PLACE), of_red[SIDES], of_black[SIDES];
        list_around(around(level->n, PLACE, RED), of_red);
        list_around(around(level->n, PLACE, BLACK), of_black);
        const real *k = level->face;
        FOR_EACH_LOAD(j) {
            int low = 2 * (first + j), high = low + 1;
            long back = of_red[low], ahead = of_red[high], before = of_black[low], after = of_black[high];
            FOR_EACH_LANE(l) {
                real r = k[FACE(ahead, low)] * black[ahead * LANES + l] - k[FACE(back, high)] * black[back * LANES + l];
                real left = k[FACE(i, low)] * red[before * LANES + l];
                real right = k[FACE(i, high)] * red[after * LANES + l], b = right - left;
                v.r[AT(i, j)] = r, v.black[AT(i, j)] = b;
                faces[j][l] += (left + right) * black[i * LANES + l];
                norm[j][l] = MUL_ADD(r, r, norm[j][l]);
                black_norm[j][l] = MUL_ADD(b, b, black_norm[j][l]);
            }
        }
    }
    FOR_EACH_LOAD(j) {
        TEAM_SUM(faces[j]);
        TEAM_SUM(norm[j]);
        TEAM_SUM(black_norm[j]);
        FOR_EACH_LANE(l) {
            now->faces[j][l] = faces[j][l] - black_norm[j][l];
            now->norm[j][l] = norm[j][l] + black_norm[j][l];
        }
    }
    TEAM_BARRIER;
}

/* The reduced right-hand side r + B' black, x = p = 0. */
INLINE void start(const Level *level, Vectors v)
{
    FOR_EACH_PLACE(level->n) {
        long i = point(level->n, PLACE);
        Around at = around(level->n, PLACE, RED);
        FOR_EACH_LOAD(j) FOR_EACH_LANE(l) {
            real r = v.r[AT(i, j)] + sum_of(of_red(level->face, at, l), v.black, at, j, l);
            v.r[AT(i, j)] = r;
            v.x[AT(i, j)] = v.p[AT(i, j)] = 0;
            level->rhs[AT(i, j)] = (small)r;
        }
    }
    TEAM_BARRIER;
}

/* u = M^-1 r by one cycle, and rz = r u. */
INLINE void precondition(const Level *level, int nlevel, Vectors v, real rz[LOADS][LANES])
{
    cycle(level, nlevel);
    FOR_EACH_LOAD(j) FOR_EACH_LANE(l) rz[j][l] = 0;
    FOR_EACH_PLACE(level->n) {
        long i = point(level->n, PLACE);
        Around at = around(level->n, PLACE, RED);
        FOR_EACH_LANE(l) {
            SmallFaces k = small_of_red(level->scaled_face, at, l);
            FOR_EACH_LOAD(j) {
                small z = small_sum(k, level->u_black, at, j, l) + level->rhs[AT(i, j)];
                level->u[AT(i, j)] = z;
                rz[j][l] = MUL_ADD(v.r[AT(i, j)], (real)z, rz[j][l]);
            }
        }
    }
    FOR_EACH_LOAD(j) TEAM_SUM(rz[j]);
    TEAM_BARRIER;
}

/* p = u + beta p */
INLINE void turn(const Level *level, Vectors v, real beta[LOADS][LANES])
{
    FOR_EACH_POINT(i, level->ncolour) FOR_EACH_LOAD(j) FOR_EACH_LANE(l)
        v.p[AT(i, j)] = MUL_ADD(beta[j][l], v.p[AT(i, j)], (real)level->u[AT(i, j)]);
    TEAM_BARRIER;
}

/* q = S p, and pq = p q. */
INLINE void apply(const Level *level, Vectors v, real pq[LOADS][LANES])
{
    FOR_EACH_PLACE(level->n) {
        long i = point(level->n, PLACE);
        Around at = around(level->n, PLACE, BLACK);
        FOR_EACH_LANE(l) {
            Faces k = of_black(level->face, i, l);
            FOR_EACH_LOAD(j) v.black[AT(i, j)] = sum_of(k, v.p, at, j, l);
        }
    }
    TEAM_BARRIER;
    FOR_EACH_LOAD(j) FOR_EACH_LANE(l) pq[j][l] = 0;
    FOR_EACH_PLACE(level->n) {
        long i = point(level->n, PLACE);
        Around at = around(level->n, PLACE, RED);
        FOR_EACH_LANE(l) {
            Faces k = of_red(level->face, at, l);
            FOR_EACH_LOAD(j) {
                real p = v.p[AT(i, j)], q = p - sum_of(k, v.black, at, j, l);
                v.q[AT(i, j)] = q;
                pq[j][l] = MUL_ADD(p, q, pq[j][l]);
            }
        }
    }
    FOR_EACH_LOAD(j) TEAM_SUM(pq[j]);
    TEAM_BARRIER;
}

/* x and r after a step; where a cell is done, alpha is 0 and both stay. */
INLINE void advance(const Level *level, Vectors v, real alpha[LOADS][LANES])
{
    FOR_EACH_POINT(i, level->ncolour) FOR_EACH_LOAD(j) FOR_EACH_LANE(l) {
        real r = MUL_ADD(-alpha[j][l], v.q[AT(i, j)], v.r[AT(i, j)]);
        v.x[AT(i, j)] = MUL_ADD(alpha[j][l], v.p[AT(i, j)], v.x[AT(i, j)]);
        v.r[AT(i, j)] = r;
        level->rhs[AT(i, j)] = (small)r;
    }
    TEAM_BARRIER;
}

/* Starts from the solutions before[d][i], of the red points, instead of 0. */
INLINE void start_from(
    const Level *level, Vectors v, const real *before, long team, long ncells, int first, Progress *now)
{
    real gained[LOADS][LANES];
    FOR_EACH_POINT(i, level->ncolour) FOR_EACH_LOAD(j) FOR_EACH_LANE(l) {
        real chi = before[((first + j) * level->ncolour + i) * ncells + CELL_OF(team, l, ncells)];
        v.x[AT(i, j)] = v.p[AT(i, j)] = chi / level->scale[i * LANES + l];
    }
    TEAM_BARRIER;
    apply(level, v, gained);
    FOR_EACH_LOAD(j) FOR_EACH_LANE(l) gained[j][l] = 0;
    FOR_EACH_POINT(i, level->ncolour) FOR_EACH_LOAD(j) FOR_EACH_LANE(l) {
        real r = v.r[AT(i, j)] - v.q[AT(i, j)];
        gained[j][l] = MUL_ADD(v.x[AT(i, j)], v.r[AT(i, j)] + r, gained[j][l]);
        v.r[AT(i, j)] = r;
        v.p[AT(i, j)] = 0;
        level->rhs[AT(i, j)] = (small)r;
    }
    FOR_EACH_LOAD(j) {
        TEAM_SUM(gained[j]);
        FOR_EACH_LANE(l) now->faces[j][l] -= gained[j][l];
    }
    TEAM_BARRIER;
}

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
    precondition(level, nlevel, v, now->rz);
    for (long iteration = 0;; ++iteration) {
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
        precondition(level, nlevel, v, now->rz);
    }
}

/* Adds the loads just solved to what is told of the cell. */
INLINE void conclude(const Level *level, Vectors v, const Progress *now, Outcome *told)
{
    FOR_EACH_LOAD(j) {
        real sum[LANES];
        FOR_EACH_LANE(l) sum[l] = 0;
        FOR_EACH_POINT(i, level->ncolour) FOR_EACH_LANE(l)
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

/* All loads of a cell, LOADS at a time, from the levels; from the solutions `before` [DIM * ncolour][ncells] if
   there are some. */
INLINE void solve_loads(
    const Level *level, int nlevel, Vectors v, const real *before, long team, long ncells, const real *contrast,
    real tolerance, long max_iterations, Outcome *told)
{
    FOR_EACH_LANE(l) told->residual[l] = 0;
    FOR_EACH_LANE(l) told->steps[l] = told->open[l] = 0;
    for (int first = 0; first < DIM; first += LOADS) {
        Progress now;
        v.x = v.chi + first * level->ncolour * LANES;
        find_loads(level, v, first, &now);
        start(level, v);
        if (before) start_from(level, v, before, team, ncells, first, &now);
        solve(level, nlevel, v, contrast, tolerance, max_iterations, &now);
        conclude(level, v, &now, told);
    }
}
