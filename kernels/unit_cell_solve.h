/* Part of unit_cell.c and others: conjugate gradients for the cell problem of a periodic square.

   The finite-volume equations (unit_cell_levels.h) are reduced to the red half of the points, S x = r, and
   solved by conjugate gradients with one multigrid V-cycle as preconditioner: Jacobi on S (red-black
   Gauss-Seidel on coarser levels), aggregates of 2 x 2 points, coarse faces half the sum of the fine ones.
   As each application of S is itself a red-black sweep, the cycle smooths once more for free: at contrast
   10 the reduced system takes 7 to 8 iterations where the full one takes 9, and half the vectors.

   Order of calls, from the unscaled faces of level 0: set_up_levels, find_loads, scale_faces, solve,
   relative_residual, energies. */

#define PATIENCE 30 /* iterations without progress before a cell is given up */

typedef struct {
    real *x, *r, *p, *q; /* [ncolour][LOADS], of the red points */
    real *black;         /* [ncolour][LOADS], of the black points */
} Vectors;

typedef struct {
    real faces[LOADS][LANES];  /* sum of the faces of a load less the energy found: n^2 K_jj so far */
    real norm[LOADS][LANES];   /* right-hand side squared */
    real rz[LOADS][LANES];     /* r M^-1 r */
    real pmp[LOADS][LANES];    /* p M p */
    real lowest[LOADS][LANES]; /* least p S p / p M p, near the smallest eigenvalue of M^-1 S */
    real best[LOADS][LANES];   /* least rz */
    int active[LOADS][LANES], waited[LOADS][LANES], steps[LOADS][LANES], failed[LOADS][LANES];
} Progress;

/* Cuts the team's memory into vectors, of at least `least` numbers, and levels; returns the number of levels. */
INLINE int lay_out(long n, long least, real *memory, Level *level, Vectors *v)
{
    long vector = (n * n > least ? n * n : least) + PAD;
    v->x = memory, v->r = v->x + vector * LANES, v->p = v->r + vector * LANES, v->q = v->p + vector * LANES;
    v->black = v->q + vector * LANES;
    level[0].face = v->black + (n * n + PAD) * LANES;
    level[0].scale = level[0].face + (2 * n * n + PAD) * LANES;
    small *rest = (small *)(level[0].scale + (n * n + PAD) * LANES);
    real *spare = v->x; /* the coarser levels' own faces are needed only until they are scaled */
    int nlevel = 0;
    for (long m = n; m % 2 == 0 && nlevel < MAX_LEVELS; m /= 2, ++nlevel) {
        Level *here = level + nlevel;
        here->n = m, here->half = m / 2, here->ncolour = m * m / 2;
        here->scaled_face = rest, rest += (2 * m * m + PAD) * LANES;
        here->weight = rest, rest += (m * m / 2 + PAD) * LANES;
        here->rhs = rest, rest += ((nlevel ? 2 : 1) * m * m + PAD) * LANES;
        here->u = rest, rest += (2 * m * m + PAD) * LANES;
        here->u_black = here->u + m * m * LANES;
        here->rhs_black = nlevel ? here->rhs + m * m * LANES : 0;
        if (nlevel == 0) continue;
        here->face = spare, spare += (2 * m * m + PAD) * LANES;
        here->scale = spare, spare += (m * m + PAD) * LANES;
    }
    return nlevel;
}

/* As in the cycle, but in `real`. */
typedef struct {
    real left, right, down, up;
} Faces;

INLINE Faces of_black(const real *face, long i, int l)
{
    Faces k = {face[FACE(i, LEFT)], face[FACE(i, RIGHT)], face[FACE(i, DOWN)], face[FACE(i, UP)]};
    return k;
}

INLINE Faces of_red(const real *face, Around at, int l)
{
    Faces k = {face[FACE(at.left, RIGHT)], face[FACE(at.right, LEFT)], face[FACE(at.down, UP)],
               face[FACE(at.up, DOWN)]};
    return k;
}

INLINE real sum_of(Faces k, const real *v, Around at, int j, int l)
{
    real sum = MUL_ADD(k.left, v[AT(at.left, j)], k.right * v[AT(at.right, j)]);
    return MUL_ADD(k.up, v[AT(at.up, j)], MUL_ADD(k.down, v[AT(at.down, j)], sum));
}

/* Sums over the faces, and the right-hand side from the unscaled faces: red part into r, black into black. */
INLINE void find_loads(const Level *level, Vectors v, Progress *now)
{
    real faces[LOADS][LANES], norm[LOADS][LANES], black_norm[LOADS][LANES];
    FOR_EACH_LOAD(j) FOR_EACH_LANE(l) faces[j][l] = norm[j][l] = black_norm[j][l] = 0;
    FOR_EACH_POINT_2D(h, y, level->half, level->n) {
        long i = y * level->half + h;
        Around at = around(level, h, y, RED);
        const real *k = level->face;
        FOR_EACH_LANE(l) {
            real red = level->scale[i * LANES + l], black = level->scale[(level->ncolour + i) * LANES + l];
            real r[LOADS] = {red * (k[FACE(at.right, LEFT)] - k[FACE(at.left, RIGHT)]),
                             red * (k[FACE(at.up, DOWN)] - k[FACE(at.down, UP)])};
            real b[LOADS] = {black * (k[FACE(i, RIGHT)] - k[FACE(i, LEFT)]),
                             black * (k[FACE(i, UP)] - k[FACE(i, DOWN)])};
            faces[0][l] += k[FACE(i, LEFT)] + k[FACE(i, RIGHT)];
            faces[1][l] += k[FACE(i, DOWN)] + k[FACE(i, UP)];
            FOR_EACH_LOAD(j) {
                v.r[AT(i, j)] = r[j], v.black[AT(i, j)] = b[j];
                norm[j][l] = MUL_ADD(r[j], r[j], norm[j][l]);
                black_norm[j][l] = MUL_ADD(b[j], b[j], black_norm[j][l]);
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
    FOR_EACH_POINT_2D(h, y, level->half, level->n) {
        long i = y * level->half + h;
        Around at = around(level, h, y, RED);
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
    FOR_EACH_POINT_2D(h, y, level->half, level->n) {
        long i = y * level->half + h;
        Around at = around(level, h, y, RED);
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
    FOR_EACH_POINT_2D(h, y, level->half, level->n) {
        long i = y * level->half + h;
        Around at = around(level, h, y, BLACK);
        FOR_EACH_LANE(l) {
            Faces k = of_black(level->face, i, l);
            FOR_EACH_LOAD(j) v.black[AT(i, j)] = sum_of(k, v.p, at, j, l);
        }
    }
    TEAM_BARRIER;
    FOR_EACH_LOAD(j) FOR_EACH_LANE(l) pq[j][l] = 0;
    FOR_EACH_POINT_2D(h, y, level->half, level->n) {
        long i = y * level->half + h;
        Around at = around(level, h, y, RED);
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

/* Which cells go on. n^2 K_jj is too large by e S e, e being the error of x; this is at most rz divided by
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
    const Level *level, int nlevel, Vectors v, const real contrast[LANES], real tolerance, long max_iterations,
    Progress *now)
{
    real before[LOADS][LANES], step[LOADS][LANES];
    FOR_EACH_LOAD(j) FOR_EACH_LANE(l) {
        /* Where the contrast is high, small eigenvalues may show only late: a cautious first estimate. */
        now->lowest[j][l] = R(0.5) / (1 + contrast[l] / 100);
        now->best[j][l] = R(1e30), now->pmp[j][l] = before[j][l] = 0;
        now->waited[j][l] = now->steps[j][l] = now->failed[j][l] = 0;
        now->active[j][l] = 1;
    }
    start(level, v);
    precondition(level, nlevel, v, now->rz);
    for (long iteration = 0;; ++iteration) {
        int any = judge(now, tolerance, 0);
        any |= judge(now, tolerance, 1);
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

/* Sums over all faces of (e_i + grad chi_i) k (e_j + grad chi_j): xx, yy, xy. Sums of squares, so that
   nothing cancels where K is far below the mean of k. */
INLINE void energies(const Level *level, Vectors v, real sum[3][LANES])
{
    FOR_EACH_POINT(i, level->ncolour) FOR_EACH_LANE(l) {
        real scale = level->scale[i * LANES + l];
        FOR_EACH_LOAD(j) v.x[AT(i, j)] *= scale;
        v.q[AT(i, 0)] = R(1) / scale;
    }
    TEAM_BARRIER;
    for (int k = 0; k < 3; ++k) FOR_EACH_LANE(l) sum[k][l] = 0;
    FOR_EACH_POINT_2D(h, y, level->half, level->n) {
        long i = y * level->half + h;
        Around at = around(level, h, y, BLACK);
        FOR_EACH_LANE(l) {
            real scale = level->scale[(level->ncolour + i) * LANES + l], unscale = R(1) / scale;
            real k[4], grad[LOADS][4];
            k[LEFT] = level->face[FACE(i, LEFT)] * unscale * v.q[AT(at.left, 0)];
            k[RIGHT] = level->face[FACE(i, RIGHT)] * unscale * v.q[AT(at.right, 0)];
            k[DOWN] = level->face[FACE(i, DOWN)] * unscale * v.q[AT(at.down, 0)];
            k[UP] = level->face[FACE(i, UP)] * unscale * v.q[AT(at.up, 0)];
            real load[LOADS] = {k[RIGHT] - k[LEFT], k[UP] - k[DOWN]};
            FOR_EACH_LOAD(j) {
                real left = v.x[AT(at.left, j)], right = v.x[AT(at.right, j)];
                real down = v.x[AT(at.down, j)], up = v.x[AT(at.up, j)];
                real chi = load[j] + k[LEFT] * left + k[RIGHT] * right + k[DOWN] * down + k[UP] * up;
                chi *= scale * scale;
                grad[j][LEFT] = (j == 0) + chi - left, grad[j][RIGHT] = (j == 0) + right - chi;
                grad[j][DOWN] = (j == 1) + chi - down, grad[j][UP] = (j == 1) + up - chi;
            }
            for (int side = 0; side < 4; ++side) {
                sum[0][l] += k[side] * grad[0][side] * grad[0][side];
                sum[1][l] += k[side] * grad[1][side] * grad[1][side];
                sum[2][l] += k[side] * grad[0][side] * grad[1][side];
            }
        }
    }
    for (int k = 0; k < 3; ++k) TEAM_SUM(sum[k]);
    TEAM_BARRIER;
}

/* Norm of the residual relative to the right-hand side, of the worse load. */
INLINE void relative_residual(const Level *level, Vectors v, Progress *now, real worst[LANES])
{
    FOR_EACH_LANE(l) worst[l] = 0;
    FOR_EACH_LOAD(j) {
        real sum[LANES];
        FOR_EACH_LANE(l) sum[l] = 0;
        FOR_EACH_POINT(i, level->ncolour) FOR_EACH_LANE(l)
            sum[l] = MUL_ADD(v.r[AT(i, j)], v.r[AT(i, j)], sum[l]);
        TEAM_SUM(sum);
        FOR_EACH_LANE(l) {
            real norm = now->norm[j][l];
            worst[l] = hp_max(worst[l], norm > 0 ? hp_sqrt(sum[l] / norm) : 0);
        }
    }
}
