/* Part of unit_cell_3d.c: the faces of a simple cubic array of spheres from the fraction of phase 1. For `by`
   see unit_cell_phases.h; phase 0 is the matrix. */

#define SPHERES 3
#define STRIPS 8 /* sub-samples across a link, each way */

/* Numbers of the tables below: half a chord at each sub-sample of a quarter of a face of the cell. */
INLINE long number_of_chords(long n) { return n / 2 * STRIPS * (n / 2 * STRIPS); }

INLINE void find_chords(long n, const real *square, real *chord)
{
    real size = R(1) / (n * STRIPS);
    FOR_EACH_POINT_2D(b, a, n / 2 * STRIPS, n / 2 * STRIPS) {
        real x = (a + R(0.5)) * size, y = (b + R(0.5)) * size;
        FOR_EACH_LANE(l) chord[(a * (n / 2 * STRIPS) + b) * LANES + l] = hp_sqrt(hp_max(square[l] - x * x - y * y, R(0)));
    }
    TEAM_BARRIER;
}

/* A sixteenth of the links of a centred sphere across one axis, s <= r; the others follow by symmetry. Link m
   of row (r, s) spans |x - 1/2| = (m - 1/2 .. m + 1/2) / n, |y - 1/2| = (r .. r + 1) / n, |z - 1/2| = (s .. s + 1) / n.
   It gets what unit_cell_faces.h gives the links of a cylinder: in a better conducting sphere of every strip
   along the link the harmonic mean, of these the arithmetic mean; otherwise of every slice across the link
   the arithmetic mean, of these the harmonic mean. */
INLINE void links_of_sphere(
    long n, const real *square, const real *phase, int by, const real *chord, real *link)
{
    real size = R(1) / n;
    long half = n / 2, nchord = half * STRIPS;
    FOR_EACH_POINT_3D(s, r, m, half, half, half + 1) {
        if (s > r) continue;
        real near_x = m == 0 ? R(0) : (m - R(0.5)) * size, far_x = (m + R(0.5)) * size;
        real near = near_x * near_x + R(r * r + s * s) * size * size, sum[LANES], slope[LANES];
        real far = far_x * far_x + R((r + 1) * (r + 1) + (s + 1) * (s + 1)) * size * size;
        int outside[LANES], mixed[LANES];
        FOR_EACH_LANE(l) {
            outside[l] = near >= square[l];
            mixed[l] = !outside[l] && far > square[l];
            sum[l] = slope[l] = 0;
        }
        for (int a = 0; a < STRIPS && LANES_ANY(mixed); ++a) {
            long slice = m * STRIPS + a - STRIPS / 2;
            slice = slice < 0 ? -1 - slice : slice >= nchord ? 2 * nchord - 1 - slice : slice;
            real whole[LANES];
            FOR_EACH_LANE(l) whole[l] = 0;
            for (int b = 0; b < STRIPS; ++b) FOR_EACH_LANE(l) {
                real k0 = phase[l], k1 = phase[LANES + l];
                int better = k1 >= k0;
                real first = R(0.5) + (better ? (m - R(0.5)) * size : s * size);
                long strip = (r * STRIPS + a) * nchord + s * STRIPS + b, line = slice * nchord + r * STRIPS + b;
                real one = share(first, n, better ? chord[strip * LANES + l] : chord[line * LANES + l]);
                if (better) add_strip(k0, k1, one, 1, by, sum + l, slope + l);
                whole[l] += one;
            }
            FOR_EACH_LANE(l) {
                real k0 = phase[l], k1 = phase[LANES + l];
                if (k1 < k0) add_strip(k0, k1, whole[l] / STRIPS, 0, by, sum + l, slope + l);
            }
        }
        FOR_EACH_LANE(l) {
            real k0 = phase[l], k1 = phase[LANES + l];
            int better = k1 >= k0;
            real mean = mean_of_strips(sum[l], slope[l], better ? STRIPS * STRIPS : STRIPS, better, by);
            link[((m * half + r) * half + s) * LANES + l] =
                mixed[l] ? mean : parallel(k0, k1, outside[l] ? R(0) : R(1), by);
        }
    }
    TEAM_BARRIER;
}

/* Distance of a point or a link from the middle, in points. */
INLINE long apart(long a, long b) { return a < b ? b - a : a - b; }

INLINE long row_of(long x, long half) { return x < half ? half - 1 - x : x - half; }

/* The faces across an axis. */
INLINE void faces_of_links(const Level *level, const real *link, int axis)
{
    long n = level->n, half = n / 2;
    FOR_EACH_PLACE(n) {
        long i = point(n, PLACE), x = x_of(PLACE, BLACK);
        long at = axis == 0 ? x : axis == 1 ? y : z;
        long a = row_of(axis == 0 ? y : x, half), b = row_of(axis == 2 ? y : z, half);
        long r = a < b ? b : a, s = a < b ? a : b;
        FOR_EACH_LANE(l) {
            level->face[FACE(i, 2 * axis)] = link[((apart(at, half) * half + r) * half + s) * LANES + l];
            level->face[FACE(i, 2 * axis + 1)] = link[((apart(at + 1, half) * half + r) * half + s) * LANES + l];
        }
    }
    TEAM_BARRIER;
}

INLINE void square_of_radius(const Input *in, real *square)
{
    FOR_EACH_LANE(l) square[l] = hp_exp(hp_log(in->fraction[l] * R(0.23873241463784300365)) * R(2) / R(3));
}

INLINE void faces_of_sphere(const Level *level, const Input *in, int by, real *chord)
{
    real *link = chord + (number_of_chords(level->n) + PAD) * LANES;
    real square[LANES]; /* of the radius */
    square_of_radius(in, square);
    find_chords(level->n, square, chord);
    for (int axis = 0; axis < DIM; ++axis) {
        /* All axes have the same links where the phases are isotropic. */
        if (axis < in->naxis)
            links_of_sphere(level->n, square, along(in, axis), phase_of(in, by, axis), chord, link);
        faces_of_links(level, link, axis);
    }
}
