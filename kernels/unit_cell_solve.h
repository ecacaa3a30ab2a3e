/* Part of unit_cell.c and others: conjugate gradients for the cell problem of a periodic square or cube.

   The finite-volume equations (unit_cell_levels.h) are reduced to the red half of the points, S x = r, and
   solved by conjugate gradients with one multigrid V-cycle as preconditioner: Jacobi on S (red-black
   Gauss-Seidel on coarser levels), aggregates of two points a side, coarse faces half the sum of the fine
   ones. As each application of S is itself a red-black sweep, the cycle smooths once more for free: at
   contrast 10 the reduced system takes 7 to 8 iterations where the full one takes 9, and half the vectors.

   Order of calls, from the unscaled faces of level 0: set_up_levels, solve_loads (unit_cell_iterate.h), then
   what unit_cell_results.h makes of the solutions. */

/* Solution of load d at red point i, in Vectors.chi. */
#define CHI(i, d) ((((d) / LOADS * level->ncolour + (i)) * LOADS + (d) % LOADS) * LANES + l)

typedef struct {
    long npoint;         /* of a vector: those of one colour */
    real *chi;           /* [DIM / LOADS][ncolour][LOADS], of the red points: all loads */
    real *x, *r, *p, *q; /* [ncolour][LOADS], of the red points; x is the part of chi under way */
    real *black;         /* [ncolour][LOADS], of the black points */
} Vectors;

/* Cuts the team's memory into vectors and levels; returns the number of levels. */
INLINE int lay_out(long n, real *memory, Level *level, Vectors *v)
{
    long ncolour = number_of_points(n) / 2, vector = ncolour * LOADS + PAD;
    v->npoint = ncolour;
    v->chi = v->x = memory, v->r = v->x + (ncolour * DIM + PAD) * LANES;
    v->p = v->r + vector * LANES, v->q = v->p + vector * LANES, v->black = v->q + vector * LANES;
    return lay_out_levels(n, v->black + (ncolour * LOADS + PAD) * LANES, v->x, level, 0);
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
