/* Homogenised conductivity of periodic unit cells in 2D.

   div(k (e_j + grad chi_j)) = 0 with periodic chi_j, for the loads j = x, y; by the energy,
   K_ij = <(e_i + grad chi_i) k (e_j + grad chi_j)>, whose error is quadratic in that of chi.

   Finite volumes on n x n points give A chi = b with one coefficient (face) for each pair of neighbours.
   Every face joins a red and a black point, (x + y) even and odd. With the unknowns scaled by the square
   root of the diagonal, A = [1 -B'; -B 1], and black is eliminated: S r = r - B'B r on the red points.
   S is solved by conjugate gradients, preconditioned by one multigrid V-cycle: Jacobi on S (red-black
   Gauss-Seidel on the coarser levels), aggregates of 2 x 2 points, coarse faces half the sum of the fine
   ones. As each application of S is itself a red-black sweep, the cycle smooths once more for free.

   Storage: [colour][y][x / 2][load][lane], and the four faces of a black point side by side. */

#define LOADS 2
#define MAX_LEVELS 20
#define STRIPS 16        /* sub-samples across a link */
#define PATIENCE 30      /* iterations without progress before a cell is given up */
#define OK 0
#define NOT_CONVERGED 1
#define BAD_INPUT 2
#define IMAGE 0
#define LAMINATE 1
#define CYLINDERS 2
#define PAD 9            /* cache lines between arrays: an odd number, so that they never alias */
#define FOR_EACH_LOAD(j) for (int j = 0; j < LOADS; ++j)
#define AT(point, j) (((point) * LOADS + (j)) * LANES + l)
#define FACE(point, side) (((point) * 4 + (side)) * LANES + l)
enum { LEFT, RIGHT, DOWN, UP };

typedef struct {
    long n, half, ncolour; /* points a side, of one colour in a row, of one colour */
    real *face;            /* [ncolour][4], scaled, of the black points */
    real *weight;          /* [ncolour] of red points: transfer between scaled levels */
    real *rhs, *u;         /* [2][ncolour][LOADS] */
} Level;

typedef struct {
    real *x, *r, *p, *z, *black; /* red, but for black */
    real *scale;                 /* [2][ncolour], 1 / sqrt(diagonal) */
} Fine;

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

#define RED 0
#define BLACK 1

/* Coefficients of one point and one lane, to its neighbours of the other colour. */
typedef struct {
    real left, right, down, up;
} Faces;

INLINE Faces faces_of_black(const real *face, long i, int l)
{
    Faces k = {face[FACE(i, LEFT)], face[FACE(i, RIGHT)], face[FACE(i, DOWN)], face[FACE(i, UP)]};
    return k;
}

INLINE Faces faces_of_red(const real *face, Around at, int l)
{
    Faces k = {face[FACE(at.left, RIGHT)], face[FACE(at.right, LEFT)], face[FACE(at.down, UP)],
               face[FACE(at.up, DOWN)]};
    return k;
}

/* start + sum of faces times values of the neighbours */
INLINE real gather(real start, Faces k, const real *v, Around at, int j, int l)
{
    start = MUL_ADD(k.left, v[AT(at.left, j)], start);
    start = MUL_ADD(k.right, v[AT(at.right, j)], start);
    start = MUL_ADD(k.down, v[AT(at.down, j)], start);
    return MUL_ADD(k.up, v[AT(at.up, j)], start);
}

/* black = B red (+ rhs) */
INLINE void to_black(const Level *level, const real *rhs, const real *red, real *black)
{
    FOR_EACH_POINT_2D(h, y, level->half, level->n) {
        long i = y * level->half + h;
        Around at = around(level, h, y, BLACK);
        FOR_EACH_LANE(l) {
            Faces k = faces_of_black(level->face, i, l);
            FOR_EACH_LOAD(j) black[AT(i, j)] = gather(rhs ? rhs[AT(i, j)] : 0, k, red, at, j, l);
        }
    }
    TEAM_BARRIER;
}

/* red = rhs + B' black */
INLINE void to_red(const Level *level, const real *rhs, const real *black, real *red)
{
    FOR_EACH_POINT_2D(h, y, level->half, level->n) {
        long i = y * level->half + h;
        Around at = around(level, h, y, RED);
        FOR_EACH_LANE(l) {
            Faces k = faces_of_red(level->face, at, l);
            FOR_EACH_LOAD(j) red[AT(i, j)] = gather(rhs[AT(i, j)], k, black, at, j, l);
        }
    }
    TEAM_BARRIER;
}

/* Right-hand side of the next level: residual B' black of the red points, added up over the aggregates. */
INLINE void restrict_residual(const Level *level, const Level *coarse, const real *black)
{
    FOR_EACH_POINT_2D(X, Y, coarse->n, coarse->n) {
        long i = 2 * Y * level->half + X, k = i + level->half;
        long c = ((X + Y) & 1) * coarse->ncolour + Y * coarse->half + X / 2;
        Around at_i = around(level, X, 2 * Y, RED), at_k = around(level, X, 2 * Y + 1, RED);
        FOR_EACH_LANE(l) {
            Faces faces_i = faces_of_red(level->face, at_i, l), faces_k = faces_of_red(level->face, at_k, l);
            real weight_i = level->weight[i * LANES + l], weight_k = level->weight[k * LANES + l];
            FOR_EACH_LOAD(j)
                coarse->rhs[AT(c, j)] = weight_i * gather(0, faces_i, black, at_i, j, l) +
                                        weight_k * gather(0, faces_k, black, at_k, j, l);
        }
    }
    TEAM_BARRIER;
}

/* red = rhs + the coarse correction */
INLINE void correct(const Level *level, const Level *coarse, const real *rhs, real *red)
{
    FOR_EACH_POINT_2D(h, y, level->half, level->n) {
        long i = y * level->half + h, Y = y / 2;
        long c = ((h + Y) & 1) * coarse->ncolour + Y * coarse->half + h / 2;
        FOR_EACH_LOAD(j) FOR_EACH_LANE(l)
            red[AT(i, j)] = MUL_ADD(level->weight[i * LANES + l], coarse->u[AT(c, j)], rhs[AT(i, j)]);
    }
    TEAM_BARRIER;
}

INLINE void copy(long size, const real *from, real *to)
{
    FOR_EACH_POINT(i, size) FOR_EACH_LANE(l) to[i * LANES + l] = from[i * LANES + l];
    TEAM_BARRIER;
}

/* The coarsest level. On 2 x 2 points S has rank one, so that S u = r is solved by dividing by its trace,
   kept in weight[0]; otherwise sweeps, as many as points a side. */
INLINE void solve_coarsest(const Level *level)
{
    long black = level->ncolour * LOADS * LANES;
    if (level->n == 2) {
        to_red(level, level->rhs, level->rhs + black, level->u);
        FOR_EACH_POINT(i, level->ncolour) FOR_EACH_LOAD(j) FOR_EACH_LANE(l)
            level->u[AT(i, j)] *= level->weight[l];
        TEAM_BARRIER;
        to_black(level, level->rhs + black, level->u, level->u + black);
        return;
    }
    copy(level->ncolour * LOADS, level->rhs, level->u);
    for (long sweep = 0; sweep < level->n; ++sweep) {
        to_black(level, level->rhs + black, level->u, level->u + black);
        to_red(level, level->rhs, level->u + black, level->u);
    }
}

/* z = r + B'B z on the finest level, and rz = z r. */
INLINE void last_sweep(const Level *level, Fine fine, real rz[LOADS][LANES])
{
    to_black(level, 0, fine.z, fine.black);
    FOR_EACH_LOAD(j) FOR_EACH_LANE(l) rz[j][l] = 0;
    FOR_EACH_POINT_2D(h, y, level->half, level->n) {
        long i = y * level->half + h;
        Around at = around(level, h, y, RED);
        FOR_EACH_LANE(l) {
            Faces k = faces_of_red(level->face, at, l);
            FOR_EACH_LOAD(j) {
                real r = fine.r[AT(i, j)], z = gather(r, k, fine.black, at, j, l);
                fine.z[AT(i, j)] = z;
                rz[j][l] = MUL_ADD(r, z, rz[j][l]);
            }
        }
    }
    FOR_EACH_LOAD(j) TEAM_SUM(rz[j]);
    TEAM_BARRIER;
}

/* z = one V-cycle for S z = r, and rz = z r. */
INLINE void precondition(const Level *level, int nlevel, Fine fine, real rz[LOADS][LANES])
{
    if (nlevel == 1) {
        copy(level->ncolour * LOADS, fine.r, fine.z);
        for (long sweep = 0; sweep < level->n; ++sweep) last_sweep(level, fine, rz);
        return;
    }
    to_black(level, 0, fine.r, fine.black);
    restrict_residual(level, level + 1, fine.black);
    for (int k = 1; k < nlevel - 1; ++k) {
        const Level *here = level + k;
        long black = here->ncolour * LOADS * LANES;
        to_black(here, here->rhs + black, here->rhs, here->u + black);
        restrict_residual(here, here + 1, here->u + black);
    }
    solve_coarsest(level + nlevel - 1);
    for (int k = nlevel - 2; k > 0; --k) {
        const Level *here = level + k;
        long black = here->ncolour * LOADS * LANES;
        correct(here, here + 1, here->rhs, here->u);
        to_black(here, here->rhs + black, here->u, here->u + black);
        to_red(here, here->rhs, here->u + black, here->u);
    }
    correct(level, level + 1, fine.r, fine.z);
    last_sweep(level, fine, rz);
}

/* ---------------------------------------------------------------------------------- set-up */

INLINE real harmonic(real a, real b) { return R(2) * a * b / (a + b); }

/* Faces of an image: harmonic mean of the two points. */
INLINE void faces_of_image(const Level *level, const int *labels, const real *phase)
{
    long n = level->n;
    FOR_EACH_POINT_2D(h, y, level->half, n) {
        long i = y * level->half + h, x = 2 * h + ((y + 1) & 1);
        int own = labels[y * n + x];
        int other[4];
        other[LEFT] = labels[y * n + (x == 0 ? n - 1 : x - 1)];
        other[RIGHT] = labels[y * n + (x == n - 1 ? 0 : x + 1)];
        other[DOWN] = labels[(y == 0 ? n - 1 : y - 1) * n + x];
        other[UP] = labels[(y == n - 1 ? 0 : y + 1) * n + x];
        for (int side = 0; side < 4; ++side) FOR_EACH_LANE(l) {
            real a = phase[own * LANES + l], b = phase[other[side] * LANES + l];
            level->face[FACE(i, side)] = own == other[side] ? a : harmonic(a, b);
        }
    }
    TEAM_BARRIER;
}

/* Share of first .. first + 1/n (in units of the cell) inside |x - 1/2| < reach <= 1/2 and
   its periodic images. */
INLINE real share(real first, long n, real reach)
{
    real last = first + R(1) / n;
    real inside = hp_min(last, R(0.5) + reach) - hp_max(first, R(0.5) - reach);
    real image = hp_min(last, R(1.5) + reach) - hp_max(first, R(1.5) - reach);
    return (hp_max(inside, R(0)) + hp_max(image, R(0))) * n;
}

/* Layers normal to x; phase 1 fills |x - 1/2| < fraction / 2. */
INLINE void faces_of_laminate(const Level *level, const real *fraction, const real *phase)
{
    long n = level->n;
    real size = R(1) / n;
    FOR_EACH_POINT_2D(h, y, level->half, n) {
        long i = y * level->half + h, x = 2 * h + ((y + 1) & 1);
        real centre = (x + R(0.5)) * size, before = (x == 0 ? n - R(0.5) : x - R(0.5)) * size;
        FOR_EACH_LANE(l) {
            real k0 = phase[l], k1 = phase[LANES + l], reach = R(0.5) * fraction[l];
            real right = share(centre, n, reach), left = share(before, n, reach);
            real column = share(x * size, n, reach);
            level->face[FACE(i, LEFT)] = k0 * k1 / (left * k0 + (R(1) - left) * k1);
            level->face[FACE(i, RIGHT)] = k0 * k1 / (right * k0 + (R(1) - right) * k1);
            level->face[FACE(i, DOWN)] = level->face[FACE(i, UP)] = column * k1 + (R(1) - column) * k0;
        }
    }
    TEAM_BARRIER;
}

/* A quarter of the links of a centred cylinder, the others follow by symmetry. Link m of row r spans
   |x - 1/2| = (m - 1/2 .. m + 1/2) / n and |y - 1/2| = (r .. r + 1) / n. With exact shares of the phases,
   so that k(fraction) has no jumps, it gets
   - in a better conducting cylinder: of every strip along the link the harmonic mean, of these the
     arithmetic mean (a lower bound);
   - otherwise: of every slice across the link the arithmetic mean, of these the harmonic mean (an upper
     bound). This is the first rule for 1/k on the dual grid, as Keller's K(s) K(1/s) = 1 wants it.
   Either alone is four to six times less accurate on the other side of s = 1. */
INLINE void links_of_cylinder(long n, const real *fraction, const real *phase, real *chord, real *link)
{
    real size = R(1) / n;
    long nchord = n / 2 * STRIPS;
    FOR_EACH_POINT(i, nchord) FOR_EACH_LANE(l) {
        real y = (i + R(0.5)) * size / STRIPS;
        chord[i * LANES + l] = hp_sqrt(hp_max(fraction[l] * R(0.31830988618379067154) - y * y, R(0)));
    }
    TEAM_BARRIER;
    FOR_EACH_POINT_2D(r, m, n / 2, n / 2 + 1) {
        real near_x = m == 0 ? R(0) : (m - R(0.5)) * size, far_x = (m + R(0.5)) * size;
        real near_y = r * size, far_y = (r + 1) * size, sum[LANES];
        int outside[LANES], mixed[LANES];
        FOR_EACH_LANE(l) {
            real square = fraction[l] * R(0.31830988618379067154);
            outside[l] = near_x * near_x + near_y * near_y >= square;
            mixed[l] = !outside[l] && far_x * far_x + far_y * far_y > square;
            sum[l] = 0;
        }
        for (int strip = 0; strip < STRIPS && LANES_ANY(mixed); ++strip) {
            long slice = m * STRIPS + strip - STRIPS / 2;
            slice = slice < 0 ? -1 - slice : slice >= nchord ? 2 * nchord - 1 - slice : slice;
            FOR_EACH_LANE(l) {
                real k0 = phase[l], k1 = phase[LANES + l];
                real along = share(R(0.5) + (m - R(0.5)) * size, n, chord[(r * STRIPS + strip) * LANES + l]);
                real across = share(R(0.5) + r * size, n, chord[slice * LANES + l]);
                real strips = k0 * k1 / (along * k0 + (R(1) - along) * k1);
                real slices = R(1) / (across * k1 + (R(1) - across) * k0);
                sum[l] += k1 >= k0 ? strips : slices;
            }
        }
        FOR_EACH_LANE(l) {
            real pure = outside[l] ? phase[l] : phase[LANES + l];
            real mean = phase[LANES + l] >= phase[l] ? sum[l] / STRIPS : STRIPS / sum[l];
            link[(m * (n / 2) + r) * LANES + l] = mixed[l] ? mean : pure;
        }
    }
    TEAM_BARRIER;
}

INLINE long apart(long a, long b) { return a < b ? b - a : a - b; }

INLINE void faces_of_cylinder(const Level *level, const real *link)
{
    long half = level->half;
    FOR_EACH_POINT_2D(h, y, half, level->n) {
        long i = y * half + h, x = 2 * h + ((y + 1) & 1);
        long row = y < half ? half - 1 - y : y - half, column = x < half ? half - 1 - x : x - half;
        FOR_EACH_LANE(l) {
            level->face[FACE(i, LEFT)] = link[(apart(x, half) * half + row) * LANES + l];
            level->face[FACE(i, RIGHT)] = link[(apart(x + 1, half) * half + row) * LANES + l];
            level->face[FACE(i, DOWN)] = link[(apart(y, half) * half + column) * LANES + l];
            level->face[FACE(i, UP)] = link[(apart(y + 1, half) * half + column) * LANES + l];
        }
    }
    TEAM_BARRIER;
}

/* Half the sum of the two fine faces between two aggregates. */
INLINE void coarsen(const Level *fine, const Level *coarse)
{
    FOR_EACH_POINT_2D(H, Y, coarse->half, coarse->n) {
        long i = Y * coarse->half + H, X = 2 * H + ((Y + 1) & 1);
        long low = 2 * Y * fine->half, high = low + fine->half, half = fine->half;
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

/* 1 / sqrt(diagonal), [2][ncolour] */
INLINE void scales(const Level *level, real *scale)
{
    FOR_EACH_POINT_2D(h, y, level->half, level->n) {
        long i = y * level->half + h;
        Around at = around(level, h, y, RED);
        const real *k = level->face;
        FOR_EACH_LANE(l) {
            real red = k[FACE(at.left, RIGHT)] + k[FACE(at.right, LEFT)] + k[FACE(at.down, UP)] +
                       k[FACE(at.up, DOWN)];
            real black = k[FACE(i, LEFT)] + k[FACE(i, RIGHT)] + k[FACE(i, DOWN)] + k[FACE(i, UP)];
            scale[i * LANES + l] = R(1) / hp_sqrt(red);
            scale[(level->ncolour + i) * LANES + l] = R(1) / hp_sqrt(black);
        }
    }
    TEAM_BARRIER;
}

INLINE void scale_faces(const Level *level, const real *scale)
{
    FOR_EACH_POINT_2D(h, y, level->half, level->n) {
        long i = y * level->half + h;
        Around at = around(level, h, y, BLACK);
        FOR_EACH_LANE(l) {
            real own = scale[(level->ncolour + i) * LANES + l];
            level->face[FACE(i, LEFT)] *= own * scale[at.left * LANES + l];
            level->face[FACE(i, RIGHT)] *= own * scale[at.right * LANES + l];
            level->face[FACE(i, DOWN)] *= own * scale[at.down * LANES + l];
            level->face[FACE(i, UP)] *= own * scale[at.up * LANES + l];
        }
    }
    TEAM_BARRIER;
}

INLINE void weights(const Level *level, const Level *coarse, const real *scale, const real *coarse_scale)
{
    FOR_EACH_POINT_2D(h, y, level->half, level->n) {
        long i = y * level->half + h, Y = y / 2;
        long c = ((h + Y) & 1) * coarse->ncolour + Y * coarse->half + h / 2;
        FOR_EACH_LANE(l)
            level->weight[i * LANES + l] = coarse_scale[c * LANES + l] / scale[i * LANES + l];
    }
    TEAM_BARRIER;
}

/* 1 / trace(S) of the level of 2 x 2 points, see solve_coarsest. */
INLINE void trace_of_coarsest(const Level *level)
{
    FOR_EACH_POINT(i, 1) FOR_EACH_LANE(l) {
        real trace = 2;
        for (int k = 0; k < 2; ++k) {
            real a = level->face[FACE(k, LEFT)] + level->face[FACE(k, RIGHT)];
            real b = level->face[FACE(k, DOWN)] + level->face[FACE(k, UP)];
            trace -= a * a + b * b;
        }
        level->weight[i * LANES + l] = trace > 0 ? R(1) / trace : 0;
    }
    TEAM_BARRIER;
}

/* Red part of the right-hand side into r, black part into black; the sums over faces and squares. */
INLINE void loads_of(const Level *level, Fine fine, real faces[LOADS][LANES])
{
    FOR_EACH_LOAD(j) FOR_EACH_LANE(l) faces[j][l] = 0;
    FOR_EACH_POINT_2D(h, y, level->half, level->n) {
        long i = y * level->half + h;
        Around at = around(level, h, y, RED);
        const real *k = level->face;
        FOR_EACH_LANE(l) {
            real red = fine.scale[i * LANES + l], black = fine.scale[(level->ncolour + i) * LANES + l];
            fine.r[AT(i, 0)] = red * (k[FACE(at.right, LEFT)] - k[FACE(at.left, RIGHT)]);
            fine.r[AT(i, 1)] = red * (k[FACE(at.up, DOWN)] - k[FACE(at.down, UP)]);
            fine.black[AT(i, 0)] = black * (k[FACE(i, RIGHT)] - k[FACE(i, LEFT)]);
            fine.black[AT(i, 1)] = black * (k[FACE(i, UP)] - k[FACE(i, DOWN)]);
            faces[0][l] += k[FACE(i, LEFT)] + k[FACE(i, RIGHT)];
            faces[1][l] += k[FACE(i, DOWN)] + k[FACE(i, UP)];
        }
    }
    FOR_EACH_LOAD(j) TEAM_SUM(faces[j]);
    TEAM_BARRIER;
}

INLINE void square(long npoint, const real *v, int j, real sum[LANES])
{
    FOR_EACH_LANE(l) sum[l] = 0;
    FOR_EACH_POINT(k, npoint) FOR_EACH_LANE(l) sum[l] = MUL_ADD(v[AT(k, j)], v[AT(k, j)], sum[l]);
    TEAM_SUM(sum);
}

/* Cuts the team's memory into levels; returns their number. */
INLINE int lay_out(long n, real *memory, Level *level, Fine *fine)
{
    long vector = (n * n > n * STRIPS / 2 ? n * n : n * STRIPS / 2) + PAD;
    real **red[4] = {&fine->x, &fine->r, &fine->p, &fine->z};
    for (int k = 0; k < 4; ++k, memory += vector * LANES) *red[k] = memory;
    fine->black = memory, memory += (n * n + PAD) * LANES;
    fine->scale = memory, memory += (n * n + PAD) * LANES;
    int nlevel = 0;
    for (long m = n; m % 2 == 0 && nlevel < MAX_LEVELS; m /= 2, ++nlevel) {
        Level *here = level + nlevel;
        here->n = m, here->half = m / 2, here->ncolour = m * m / 2;
        here->face = memory, memory += (2 * m * m + PAD) * LANES;
        here->weight = memory, memory += (m * m / 2 + PAD) * LANES;
        here->rhs = here->u = 0;
        if (nlevel == 0) continue;
        here->rhs = memory, memory += (2 * m * m + PAD) * LANES;
        here->u = memory, memory += (2 * m * m + PAD) * LANES;
    }
    return nlevel;
}

/* ------------------------------------------------------------------------- conjugate gradients */

/* x, r and p of a step; lanes that are done have alpha = 0 and keep x and r. */
INLINE void direction(long npoint, Fine fine, real beta[LOADS][LANES])
{
    FOR_EACH_POINT(i, npoint) FOR_EACH_LOAD(j) FOR_EACH_LANE(l)
        fine.p[AT(i, j)] = MUL_ADD(beta[j][l], fine.p[AT(i, j)], fine.z[AT(i, j)]);
    TEAM_BARRIER;
}

/* z = S p, and pz = p z. */
INLINE void apply(const Level *level, Fine fine, real pz[LOADS][LANES])
{
    to_black(level, 0, fine.p, fine.black);
    FOR_EACH_LOAD(j) FOR_EACH_LANE(l) pz[j][l] = 0;
    FOR_EACH_POINT_2D(h, y, level->half, level->n) {
        long i = y * level->half + h;
        Around at = around(level, h, y, RED);
        FOR_EACH_LANE(l) {
            Faces k = faces_of_red(level->face, at, l);
            FOR_EACH_LOAD(j) {
                real p = fine.p[AT(i, j)], z = p - gather(0, k, fine.black, at, j, l);
                fine.z[AT(i, j)] = z;
                pz[j][l] = MUL_ADD(p, z, pz[j][l]);
            }
        }
    }
    FOR_EACH_LOAD(j) TEAM_SUM(pz[j]);
    TEAM_BARRIER;
}

INLINE void advance(long npoint, Fine fine, real alpha[LOADS][LANES])
{
    FOR_EACH_POINT(i, npoint) FOR_EACH_LOAD(j) FOR_EACH_LANE(l) {
        fine.x[AT(i, j)] = MUL_ADD(alpha[j][l], fine.p[AT(i, j)], fine.x[AT(i, j)]);
        fine.r[AT(i, j)] = MUL_ADD(-alpha[j][l], fine.z[AT(i, j)], fine.r[AT(i, j)]);
    }
    TEAM_BARRIER;
}

typedef struct {
    real faces[LOADS][LANES];  /* sum of the faces of a load less the energy found: n^2 K_jj so far */
    real rz[LOADS][LANES];     /* r M^-1 r */
    real pmp[LOADS][LANES];    /* p M p */
    real lowest[LOADS][LANES]; /* least p S p / p M p, near the smallest eigenvalue of M^-1 S */
    real best[LOADS][LANES];   /* least rz */
    int active[LOADS][LANES], waited[LOADS][LANES], steps[LOADS][LANES], failed[LOADS][LANES];
} Progress;

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

INLINE void solve(const Level *level, int nlevel, Fine fine, real tolerance, long max_iterations, Progress *now)
{
    long npoint = level->ncolour;
    real before[LOADS][LANES], step[LOADS][LANES];
    FOR_EACH_POINT(i, npoint * LOADS) FOR_EACH_LANE(l) fine.x[i * LANES + l] = fine.p[i * LANES + l] = 0;
    FOR_EACH_LOAD(j) FOR_EACH_LANE(l) {
        now->best[j][l] = R(1e30);
        now->pmp[j][l] = before[j][l] = 0;
        now->waited[j][l] = now->steps[j][l] = now->failed[j][l] = 0;
        now->active[j][l] = 1;
    }
    TEAM_BARRIER;
    precondition(level, nlevel, fine, now->rz);
    for (long iteration = 0;; ++iteration) {
        int any = judge(now, tolerance, 0);
        any |= judge(now, tolerance, 1);
        if (!any || iteration == max_iterations) break;
        FOR_EACH_LOAD(j) FOR_EACH_LANE(l) {
            real beta = before[j][l] > 0 ? now->rz[j][l] / before[j][l] : 0;
            now->pmp[j][l] = MUL_ADD(beta * beta, now->pmp[j][l], now->rz[j][l]);
            step[j][l] = beta;
        }
        direction(npoint, fine, step);
        apply(level, fine, step);
        FOR_EACH_LOAD(j) FOR_EACH_LANE(l) {
            real psp = step[j][l], rz = now->rz[j][l];
            real alpha = now->active[j][l] && psp > 0 ? rz / psp : 0;
            now->lowest[j][l] = alpha > 0 ? hp_min(now->lowest[j][l], psp / now->pmp[j][l]) : now->lowest[j][l];
            now->faces[j][l] = MUL_ADD(-alpha, rz, now->faces[j][l]);
            now->steps[j][l] += now->active[j][l];
            step[j][l] = alpha;
            before[j][l] = rz;
        }
        advance(npoint, fine, step);
        precondition(level, nlevel, fine, now->rz);
    }
}

/* Sums over all faces of (e_i + grad chi_i) k (e_j + grad chi_j): xx, yy, xy. Sums of squares, so that
   nothing cancels where K is far below the mean of k. */
INLINE void energies(const Level *level, Fine fine, real sum[3][LANES])
{
    FOR_EACH_POINT(i, level->ncolour) FOR_EACH_LANE(l) {
        real scale = fine.scale[i * LANES + l];
        FOR_EACH_LOAD(j) fine.x[AT(i, j)] *= scale;
        fine.z[AT(i, 0)] = R(1) / scale;
    }
    TEAM_BARRIER;
    for (int k = 0; k < 3; ++k) FOR_EACH_LANE(l) sum[k][l] = 0;
    FOR_EACH_POINT_2D(h, y, level->half, level->n) {
        long i = y * level->half + h;
        Around at = around(level, h, y, BLACK);
        FOR_EACH_LANE(l) {
            Faces k = faces_of_black(level->face, i, l);
            real scale = fine.scale[(level->ncolour + i) * LANES + l], unscale = R(1) / scale;
            k.left *= unscale * fine.z[AT(at.left, 0)], k.right *= unscale * fine.z[AT(at.right, 0)];
            k.down *= unscale * fine.z[AT(at.down, 0)], k.up *= unscale * fine.z[AT(at.up, 0)];
            real load[LOADS] = {k.right - k.left, k.up - k.down}, left[LOADS], right[LOADS], down[LOADS], up[LOADS];
            FOR_EACH_LOAD(j) {
                real chi = gather(load[j], k, fine.x, at, j, l) * scale * scale;
                left[j] = (j == 0) + chi - fine.x[AT(at.left, j)];
                right[j] = (j == 0) + fine.x[AT(at.right, j)] - chi;
                down[j] = (j == 1) + chi - fine.x[AT(at.down, j)];
                up[j] = (j == 1) + fine.x[AT(at.up, j)] - chi;
            }
            for (int e = 0; e < 3; ++e) {
                int a = e == 1, b = e > 0;
                sum[e][l] += k.left * left[a] * left[b] + k.right * right[a] * right[b] +
                             k.down * down[a] * down[b] + k.up * up[a] * up[b];
            }
        }
    }
    for (int k = 0; k < 3; ++k) TEAM_SUM(sum[k]);
    TEAM_BARRIER;
}

/* Effective conductivity of unit cells. */
KERNEL unit_cell_2d(
    long ncells,            // number of cells
    long n,                 // points a side, even, at least 4
    long nphase,            // number of phases
    int microstructure,     // 0 image, 1 laminate, 2 cylinders
    long max_iterations,    // cap of the conjugate gradients
    real tolerance,         // relative error of the diagonal of the conductivity
    const int *labels,      // optional (n, n) phase of each point [y][x], for images
    const real *phases,     // (nphase, ncells) [W/(m K)] conductivities
    const real *fraction,   // optional (ncells) of phase 1, for laminates and cylinders
    real *conductivity,     // (3, ncells) [W/(m K)] xx, yy, xy
    real *residual,         // (ncells) of the scaled equations, relative to the right-hand side
    int *iterations,        // (ncells) the larger of the two loads
    int *status,            // (ncells) 0 good, 1 not converged, 2 bad input
    real *scratch           // scratch (11 * n * n + 600 + nphase) levels and vectors
)
{
    FOR_EACH_TEAM(team, ncells) {
        real *memory = TEAM_SCRATCH(scratch, 11 * n * n + 600 + nphase);
        Level level[MAX_LEVELS];
        Fine fine;
        Progress now;
        int nlevel = lay_out(n, memory, level, &fine), bad[LANES];
        real *phase = memory + (11 * n * n + 600) * LANES;
        real share_1[LANES], lowest[LANES], highest[LANES], energy[3][LANES], norm[LOADS][LANES], size[LOADS][LANES];

        /* A cell with bad input is replaced by a harmless one and marked. */
        FOR_EACH_LANE(l) {
            real f = fraction ? fraction[CELL_OF(team, l, ncells)] : 0;
            real most = microstructure == CYLINDERS ? R(0.78539816339744830962) : R(1);
            bad[l] = microstructure != IMAGE && !(f >= 0 && f <= most);
            share_1[l] = bad[l] ? 0 : f;
            lowest[l] = R(1e30), highest[l] = 0;
        }
        for (long k = 0; k < nphase; ++k) FOR_EACH_LANE(l) {
            real value = phases[k * ncells + CELL_OF(team, l, ncells)];
            bad[l] |= !(value > 0 && value < R(1e30));
            lowest[l] = hp_min(value, lowest[l]), highest[l] = hp_max(value, highest[l]);
        }
        /* Where the contrast is high, small eigenvalues may show only late: a cautious first estimate. */
        FOR_EACH_LOAD(j) FOR_EACH_LANE(l)
            now.lowest[j][l] = bad[l] ? 1 : R(0.5) / (1 + highest[l] / (100 * lowest[l]));
        FOR_EACH_POINT(k, nphase) FOR_EACH_LANE(l)
            phase[k * LANES + l] = bad[l] ? 1 : phases[k * ncells + CELL_OF(team, l, ncells)];
        TEAM_BARRIER;

        if (microstructure == LAMINATE) {
            faces_of_laminate(level, share_1, phase);
        } else if (microstructure == CYLINDERS) {
            links_of_cylinder(n, share_1, phase, fine.p, fine.x);
            faces_of_cylinder(level, fine.x);
        } else {
            faces_of_image(level, labels, phase);
        }
        for (int k = 0; k < nlevel; ++k) {
            if (k > 0) coarsen(level + k - 1, level + k);
            scales(level + k, k ? level[k].u : fine.scale);
        }
        loads_of(level, fine, now.faces);
        for (int k = 0; k < nlevel; ++k) {
            scale_faces(level + k, k ? level[k].u : fine.scale);
            if (k + 1 < nlevel) weights(level + k, level + k + 1, k ? level[k].u : fine.scale, level[k + 1].u);
        }
        if (level[nlevel - 1].n == 2) trace_of_coarsest(level + nlevel - 1);

        long npoint = level->ncolour;
        FOR_EACH_LOAD(j) {
            square(npoint, fine.r, j, norm[j]);
            square(npoint, fine.black, j, size[j]);
        }
        FOR_EACH_LOAD(j) FOR_EACH_LANE(l) {
            norm[j][l] += size[j][l];
            now.faces[j][l] -= size[j][l];
        }
        to_red(level, fine.r, fine.black, fine.r);

        solve(level, nlevel, fine, tolerance, max_iterations, &now);

        FOR_EACH_LOAD(j) square(npoint, fine.r, j, size[j]);
        energies(level, fine, energy);
        TEAM_ONCE FOR_EACH_LANE(l) if (HAS_CELL(team, l, ncells)) {
            long c = CELL_OF(team, l, ncells);
            real points = R(n) * R(n), wrong = bad[l] ? R(0) / (R(bad[l]) - 1) : 0;
            for (int k = 0; k < 3; ++k) conductivity[k * ncells + c] = energy[k][l] / points + wrong;
            real x = norm[0][l] > 0 ? hp_sqrt(size[0][l] / norm[0][l]) : 0;
            real y = norm[1][l] > 0 ? hp_sqrt(size[1][l] / norm[1][l]) : 0;
            residual[c] = hp_max(x, y);
            iterations[c] = now.steps[0][l] > now.steps[1][l] ? now.steps[0][l] : now.steps[1][l];
            int open = now.active[0][l] | now.active[1][l] | now.failed[0][l] | now.failed[1][l];
            status[c] = bad[l] ? BAD_INPUT : open ? NOT_CONVERGED : OK;
        }
        TEAM_BARRIER;
    }
}
