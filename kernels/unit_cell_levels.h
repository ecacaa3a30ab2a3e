/* Part of unit_cell.c: the grid of a unit cell, its coarser levels, and the multigrid cycle on them.

   Finite volumes on n x n points with periodic neighbours: one coefficient (face) for each pair. Every
   face joins a red and a black point, (x + y) even and odd. With the unknowns scaled by the square root
   of the diagonal, the matrix is [1 -B'; -B 1]; without the black points it is S = 1 - B'B.
   The cycle works in single precision: it only proposes directions, what they are worth is measured in
   `real`. Storage: [colour][y][x / 2][load][lane], and the four faces of a black point side by side. */

#define LOADS 2
#define RED 0
#define BLACK 1
#define MAX_LEVELS 16
#define PAD 9 /* cache lines between arrays: an odd number, so that they never alias */
#define FOR_EACH_LOAD(j) for (int j = 0; j < LOADS; ++j)
#define AT(point, j) (((point) * LOADS + (j)) * LANES + l)
#define FACE(point, side) (((point) * 4 + (side)) * LANES + l)
enum { LEFT, RIGHT, DOWN, UP };

typedef float small;

typedef struct {
    long n, half, ncolour;   /* points a side, of one colour in a row, of one colour */
    real *face, *scale;      /* [ncolour][4] of the black points; [2][ncolour], 1 / sqrt(diagonal) */
    small *scaled_face;      /* [ncolour][4] */
    small *weight;           /* [ncolour], of red points: transfer to and from the next level */
    small *rhs, *rhs_black;  /* [ncolour][LOADS]; not for black on the finest level */
    small *u, *u_black;      /* [ncolour][LOADS] */
} Level;

typedef struct {
    long left, right, down, up;
} Around;

/* Where the neighbours of a point, which all have the other colour, stand. */
INLINE Around around(const Level *level, long h, long y, int colour)
{
    long shift = (y + colour + 1) & 1, half = level->half;
    long left = h - shift, right = h + 1 - shift;
    Around at;
    at.left = y * half + (left < 0 ? half - 1 : left);
    at.right = y * half + (right == half ? 0 : right);
    at.down = (y == 0 ? level->n - 1 : y - 1) * half + h;
    at.up = (y == level->n - 1 ? 0 : y + 1) * half + h;
    return at;
}

/* The point of the next level that holds a red point. */
INLINE long parent(const Level *coarse, long h, long y)
{
    long Y = y / 2;
    return ((h + Y) & 1) * coarse->ncolour + Y * coarse->half + h / 2;
}

/* ------------------------------------------------------------------------------- set-up */

/* Half the sum of the two fine faces between two aggregates of 2 x 2 points. */
INLINE void coarsen(const Level *fine, const Level *coarse)
{
    FOR_EACH_POINT_2D(H, Y, coarse->half, coarse->n) {
        long i = Y * coarse->half + H, X = 2 * H + ((Y + 1) & 1), half = fine->half;
        long low = 2 * Y * half, high = low + half;
        long before = X == 0 ? half - 1 : X - 1, after = X == half - 1 ? 0 : X + 1;
        long below = Y == 0 ? (fine->n - 1) * half : low - half, above = Y == half - 1 ? 0 : high + half;
        FOR_EACH_LANE(l) {
            const real *k = fine->face;
            coarse->face[FACE(i, LEFT)] = R(0.5) * (k[FACE(low + before, RIGHT)] + k[FACE(high + X, LEFT)]);
            coarse->face[FACE(i, RIGHT)] = R(0.5) * (k[FACE(low + X, RIGHT)] + k[FACE(high + after, LEFT)]);
            coarse->face[FACE(i, DOWN)] = R(0.5) * (k[FACE(below + X, UP)] + k[FACE(low + X, DOWN)]);
            coarse->face[FACE(i, UP)] = R(0.5) * (k[FACE(high + X, UP)] + k[FACE(above + X, DOWN)]);
        }
    }
    TEAM_BARRIER;
}

INLINE void find_scale(const Level *level)
{
    FOR_EACH_POINT_2D(h, y, level->half, level->n) {
        long i = y * level->half + h;
        Around at = around(level, h, y, RED);
        const real *k = level->face;
        FOR_EACH_LANE(l) {
            real red = k[FACE(at.left, RIGHT)] + k[FACE(at.right, LEFT)] + k[FACE(at.down, UP)] +
                       k[FACE(at.up, DOWN)];
            real black = k[FACE(i, LEFT)] + k[FACE(i, RIGHT)] + k[FACE(i, DOWN)] + k[FACE(i, UP)];
            level->scale[i * LANES + l] = R(1) / hp_sqrt(red);
            level->scale[(level->ncolour + i) * LANES + l] = R(1) / hp_sqrt(black);
        }
    }
    TEAM_BARRIER;
}

INLINE void scale_faces(const Level *level)
{
    FOR_EACH_POINT_2D(h, y, level->half, level->n) {
        long i = y * level->half + h;
        Around at = around(level, h, y, BLACK);
        FOR_EACH_LANE(l) {
            real own = level->scale[(level->ncolour + i) * LANES + l];
            real scale[4] = {level->scale[at.left * LANES + l], level->scale[at.right * LANES + l],
                             level->scale[at.down * LANES + l], level->scale[at.up * LANES + l]};
            for (int side = 0; side < 4; ++side) {
                real face = level->face[FACE(i, side)] * own * scale[side];
                level->face[FACE(i, side)] = face;
                level->scaled_face[FACE(i, side)] = (small)face;
            }
        }
    }
    TEAM_BARRIER;
}

INLINE void find_weight(const Level *level, const Level *coarse)
{
    FOR_EACH_POINT_2D(h, y, level->half, level->n) {
        long i = y * level->half + h, c = parent(coarse, h, y);
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

/* All levels, from the faces of the first, which stay unscaled. */
INLINE void set_up_levels(const Level *level, int nlevel)
{
    find_scale(level);
    for (int k = 1; k < nlevel; ++k) {
        coarsen(level + k - 1, level + k);
        find_scale(level + k);
        find_weight(level + k - 1, level + k);
    }
    for (int k = 1; k < nlevel; ++k) scale_faces(level + k);
    if (level[nlevel - 1].n == 2) find_trace(level + nlevel - 1);
}

/* ------------------------------------------------------------------------------- the cycle */

/* Faces of one point and one lane, to its neighbours of the other colour; loaded once for both loads. */
typedef struct {
    small left, right, down, up;
} SmallFaces;

INLINE SmallFaces small_of_black(const small *face, long i, int l)
{
    SmallFaces k = {face[FACE(i, LEFT)], face[FACE(i, RIGHT)], face[FACE(i, DOWN)], face[FACE(i, UP)]};
    return k;
}

INLINE SmallFaces small_of_red(const small *face, Around at, int l)
{
    SmallFaces k = {face[FACE(at.left, RIGHT)], face[FACE(at.right, LEFT)], face[FACE(at.down, UP)],
                    face[FACE(at.up, DOWN)]};
    return k;
}

INLINE small small_sum(SmallFaces k, const small *v, Around at, int j, int l)
{
    return (k.left * v[AT(at.left, j)] + k.right * v[AT(at.right, j)]) +
           (k.down * v[AT(at.down, j)] + k.up * v[AT(at.up, j)]);
}

/* u_black = B red (+ rhs) */
INLINE void to_black(const Level *level, const small *rhs, const small *red)
{
    FOR_EACH_POINT_2D(h, y, level->half, level->n) {
        long i = y * level->half + h;
        Around at = around(level, h, y, BLACK);
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
    FOR_EACH_POINT_2D(h, y, level->half, level->n) {
        long i = y * level->half + h;
        Around at = around(level, h, y, RED);
        FOR_EACH_LANE(l) {
            SmallFaces k = small_of_red(level->scaled_face, at, l);
            FOR_EACH_LOAD(j) level->u[AT(i, j)] = small_sum(k, level->u_black, at, j, l) + level->rhs[AT(i, j)];
        }
    }
    TEAM_BARRIER;
}

/* Right-hand side of the next level: the residual B' u_black of the red points, added up over 2 x 2. */
INLINE void restrict_residual(const Level *level, const Level *coarse)
{
    FOR_EACH_POINT_2D(X, Y, coarse->n, coarse->n) {
        long i = 2 * Y * level->half + X, k = i + level->half, c = parent(coarse, X, 2 * Y);
        Around at_i = around(level, X, 2 * Y, RED), at_k = around(level, X, 2 * Y + 1, RED);
        const small *black = level->u_black;
        FOR_EACH_LANE(l) {
            SmallFaces face_i = small_of_red(level->scaled_face, at_i, l);
            SmallFaces face_k = small_of_red(level->scaled_face, at_k, l);
            small weight_i = level->weight[i * LANES + l], weight_k = level->weight[k * LANES + l];
            FOR_EACH_LOAD(j)
                coarse->rhs[AT(c, j)] = weight_i * small_sum(face_i, black, at_i, j, l) +
                                        weight_k * small_sum(face_k, black, at_k, j, l);
        }
    }
    TEAM_BARRIER;
}

/* u = rhs + the correction of the next level */
INLINE void correct(const Level *level, const Level *coarse)
{
    FOR_EACH_POINT_2D(h, y, level->half, level->n) {
        long i = y * level->half + h, c = parent(coarse, h, y);
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
    if (level->n == 2) {
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
