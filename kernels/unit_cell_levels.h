/* Part of unit_cell.c and others: the levels of a unit cell's grid, and the multigrid cycle on them.

   Needs unit_cell_plane.h or unit_cell_space.h before it, which say where points stand.
   Finite volumes on n x n (x n) points with periodic neighbours: one coefficient (face) for each pair.
   Every face joins a red and a black point. With the unknowns scaled by the square root of the diagonal,
   the matrix is [1 -B'; -B 1]; without the black points it is S = 1 - B'B.
   The cycle works in single precision: it only proposes directions, what they are worth is measured in
   `real`. Storage: [colour][point][load][lane], and the faces of a black point side by side. */

#define MAX_LEVELS 16
#define PAD 9 /* cache lines between arrays: an odd number, so that they never alias */
#define FOR_EACH_LOAD(j) for (int j = 0; j < LOADS; ++j)
#define FOR_EACH_AXIS(d) for (int d = 0; d < DIM; ++d)
#define FOR_EACH_SIDE(side) for (int side = 0; side < SIDES; ++side)
#define FOR_EACH_CHILD(k) for (int k = 0; k < CHILDREN; ++k)
#define FOR_EACH_COMPONENT(c) for (int c = 0; c < NCOMPONENT; ++c)
#define AT(point, j) (((point) * LOADS + (j)) * LANES + l)
#define FACE(point, side) (((point) * SIDES + (side)) * LANES + l)

typedef float small;

typedef struct {
    long n, half, ncolour;  /* points a side, of one colour in a row, of one colour */
    real *face, *scale;     /* [ncolour][SIDES] of the black points; [2][ncolour], 1 / sqrt(diagonal) */
    small *scaled_face;     /* [ncolour][SIDES] */
    small *weight;          /* [ncolour], of red points: transfer to and from the next level */
    small *rhs, *rhs_black; /* [ncolour][LOADS]; for black on the finest level only if asked */
    small *u, *u_black;     /* [ncolour][LOADS] */
} Level;

STENCIL(real, Faces, of_black, of_red, sum_of, total_of, MUL_ADD)
STENCIL(small, SmallFaces, small_of_black, small_of_red, small_sum, small_total, MUL_ADD_FLOAT)

/* ------------------------------------------------------------------------------- set-up */

/* Cuts memory into levels; returns their number. The own faces of coarser levels are needed only until they are
   scaled, and lie in `spare`. black: whether the finest level holds a right-hand side of the black points. */
INLINE int lay_out_levels(long n, real *memory, real *spare, Level *level, int black)
{
    long ncolour = number_of_points(n) / 2;
    level[0].face = memory;
    level[0].scale = level[0].face + (SIDES * ncolour + PAD) * LANES;
    small *rest = (small *)(level[0].scale + (2 * ncolour + PAD) * LANES);
    int nlevel = 0;
    for (long m = n; m % 2 == 0 && nlevel < MAX_LEVELS; m /= 2, ++nlevel) {
        Level *here = level + nlevel;
        long half = number_of_points(m) / 2;
        int both = black || nlevel > 0;
        here->n = m, here->half = m / 2, here->ncolour = half;
        here->scaled_face = rest, rest += (SIDES * half + PAD) * LANES;
        here->weight = rest, rest += (half + PAD) * LANES;
        here->rhs = rest, rest += ((both ? 2 : 1) * LOADS * half + PAD) * LANES;
        here->u = rest, rest += (2 * LOADS * half + PAD) * LANES;
        here->u_black = here->u + LOADS * half * LANES;
        here->rhs_black = both ? here->rhs + LOADS * half * LANES : 0;
        if (nlevel == 0) continue;
        here->face = spare, spare += (SIDES * half + PAD) * LANES;
        here->scale = spare, spare += (2 * half + PAD) * LANES;
    }
    return nlevel;
}

/* Half the sum of the fine faces between two aggregates. */
INLINE void coarsen(const Level *fine, const Level *coarse)
{
    FOR_EACH_PLACE(coarse->n) {
        long i = point(coarse->n, PLACE), part[CHILDREN];
        FOR_EACH_SIDE(side) {
            faces_across(fine->n, PLACE, side, part);
            FOR_EACH_LANE(l) {
                real sum = 0;
                FOR_EACH_CHILD(k) sum += fine->face[part[k] * LANES + l];
                coarse->face[FACE(i, side)] = R(0.5) * sum;
            }
        }
    }
    TEAM_BARRIER;
}

INLINE void find_scale(const Level *level)
{
    FOR_EACH_PLACE(level->n) {
        long i = point(level->n, PLACE);
        Around at = around(level->n, PLACE, RED);
        FOR_EACH_LANE(l) {
            level->scale[i * LANES + l] = R(1) / hp_sqrt(total_of(of_red(level->face, at, l)));
            level->scale[(level->ncolour + i) * LANES + l] = R(1) / hp_sqrt(total_of(of_black(level->face, i, l)));
        }
    }
    TEAM_BARRIER;
}

INLINE void scale_faces(const Level *level)
{
    FOR_EACH_PLACE(level->n) {
        long i = point(level->n, PLACE), at[SIDES];
        list_around(around(level->n, PLACE, BLACK), at);
        FOR_EACH_SIDE(side) FOR_EACH_LANE(l) {
            real own = level->scale[(level->ncolour + i) * LANES + l];
            real face = level->face[FACE(i, side)] * own * level->scale[at[side] * LANES + l];
            level->face[FACE(i, side)] = face;
            level->scaled_face[FACE(i, side)] = (small)face;
        }
    }
    TEAM_BARRIER;
}

INLINE void find_weight(const Level *level, const Level *coarse)
{
    FOR_EACH_PLACE(level->n) {
        long i = point(level->n, PLACE), c = parent(coarse->n, PLACE);
        FOR_EACH_LANE(l)
            level->weight[i * LANES + l] = (small)coarse->scale[c * LANES + l] / (small)level->scale[i * LANES + l];
    }
    TEAM_BARRIER;
}

/* On 2 x 2 points S has rank one, so that S u = r is solved by dividing by its trace. */
INLINE void find_trace(const Level *level)
{
    FOR_EACH_POINT(i, 1) FOR_EACH_LANE(l) {
        real trace = 2;
        for (int k = 0; k < 2; ++k) {
            real a = level->face[FACE(k, LEFT)] + level->face[FACE(k, RIGHT)];
            real b = level->face[FACE(k, DOWN)] + level->face[FACE(k, UP)];
            trace -= a * a + b * b;
        }
        level->weight[i * LANES + l] = (small)(trace > 0 ? R(1) / trace : 0);
    }
    TEAM_BARRIER;
}

/* All levels, from the unscaled faces of the first; scales those, too. */
INLINE void set_up_levels(const Level *level, int nlevel)
{
    find_scale(level);
    for (int k = 1; k < nlevel; ++k) {
        coarsen(level + k - 1, level + k);
        find_scale(level + k);
        find_weight(level + k - 1, level + k);
    }
    for (int k = 0; k < nlevel; ++k) scale_faces(level + k);
    if (DIM == 2 && level[nlevel - 1].n == 2) find_trace(level + nlevel - 1);
}

/* ------------------------------------------------------------------------------- the cycle */

/* u_black = B red (+ rhs) */
INLINE void to_black(const Level *level, const small *rhs, const small *red)
{
    FOR_EACH_PLACE(level->n) {
        long i = point(level->n, PLACE);
        Around at = around(level->n, PLACE, BLACK);
        FOR_EACH_LANE(l) {
            SmallFaces k = small_of_black(level->scaled_face, i, l);
            FOR_EACH_LOAD(j) level->u_black[AT(i, j)] = small_sum(k, red, at, j, l) + (rhs ? rhs[AT(i, j)] : 0);
        }
    }
    TEAM_BARRIER;
}

/* u = rhs + B' u_black */
INLINE void to_red(const Level *level)
{
    FOR_EACH_PLACE(level->n) {
        long i = point(level->n, PLACE);
        Around at = around(level->n, PLACE, RED);
        FOR_EACH_LANE(l) {
            SmallFaces k = small_of_red(level->scaled_face, at, l);
            FOR_EACH_LOAD(j) level->u[AT(i, j)] = small_sum(k, level->u_black, at, j, l) + level->rhs[AT(i, j)];
        }
    }
    TEAM_BARRIER;
}

/* Right-hand side of the next level: the residual B' u_black of the red points, added up over aggregates. */
INLINE void restrict_residual(const Level *level, const Level *coarse)
{
    FOR_EACH_AGGREGATE(coarse->n) {
        long c = parent(coarse->n, CHILD(0));
        FOR_EACH_LANE(l) {
            small sum[LOADS];
            UNROLLED FOR_EACH_CHILD(k) {
                Around at = around(level->n, CHILD(k), RED);
                SmallFaces face = small_of_red(level->scaled_face, at, l);
                small weight = level->weight[point(level->n, CHILD(k)) * LANES + l];
                FOR_EACH_LOAD(j) {
                    small part = weight * small_sum(face, level->u_black, at, j, l);
                    sum[j] = k == 0 ? part : sum[j] + part;
                }
            }
            FOR_EACH_LOAD(j) coarse->rhs[AT(c, j)] = sum[j];
        }
    }
    TEAM_BARRIER;
}

/* u = rhs + the correction of the next level */
INLINE void correct(const Level *level, const Level *coarse)
{
    FOR_EACH_PLACE(level->n) {
        long i = point(level->n, PLACE), c = parent(coarse->n, PLACE);
        FOR_EACH_LOAD(j) FOR_EACH_LANE(l)
            level->u[AT(i, j)] = level->rhs[AT(i, j)] + level->weight[i * LANES + l] * coarse->u[AT(c, j)];
    }
    TEAM_BARRIER;
}

/* The coarsest level: exactly on 2 x 2 points, otherwise by as many sweeps as there are points a side. */
INLINE void solve_coarsest(const Level *level)
{
    FOR_EACH_POINT(i, level->ncolour * LOADS) FOR_EACH_LANE(l) {
        level->u[i * LANES + l] = level->rhs[i * LANES + l];
        level->u_black[i * LANES + l] = level->rhs_black[i * LANES + l];
    }
    TEAM_BARRIER;
    if (DIM == 2 && level->n == 2) {
        to_red(level);
        FOR_EACH_POINT(i, level->ncolour) FOR_EACH_LOAD(j) FOR_EACH_LANE(l)
            level->u[AT(i, j)] *= level->weight[l];
        TEAM_BARRIER;
        to_black(level, level->rhs_black, level->u);
        return;
    }
    for (long sweep = 0; sweep < level->n; ++sweep) {
        to_black(level, level->rhs_black, level->u);
        to_red(level);
    }
}

/* One V-cycle for S u = rhs, but for the last sweep on the red points of the finest level. */
INLINE void cycle(const Level *level, int nlevel)
{
    to_black(level, 0, level->rhs);
    if (nlevel == 1) {
        for (long sweep = 0; sweep < level->n; ++sweep) {
            to_red(level);
            to_black(level, 0, level->u);
        }
        return;
    }
    restrict_residual(level, level + 1);
    for (int k = 1; k < nlevel - 1; ++k) {
        to_black(level + k, level[k].rhs_black, level[k].rhs);
        restrict_residual(level + k, level + k + 1);
    }
    solve_coarsest(level + nlevel - 1);
    for (int k = nlevel - 2; k > 0; --k) {
        correct(level + k, level + k + 1);
        to_black(level + k, level[k].rhs_black, level[k].u);
        to_red(level + k);
    }
    correct(level, level + 1);
    to_black(level, 0, level->u);
}
