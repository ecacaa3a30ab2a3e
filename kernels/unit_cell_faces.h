/* Part of unit_cell.c: the faces of laminates and cylinders from the fraction of phase 1. For `by` see
   unit_cell_phases.h; phase 0 is the matrix. */

#define LAMINATE 1
#define CYLINDERS 2
#define STRIPS 16 /* sub-samples across a link */

/* Layers normal to x; phase 1 fills |x - 1/2| < fraction / 2. */
INLINE void faces_of_laminate(const Level *level, const Input *in, int by)
{
    long n = level->n;
    real size = R(1) / n;
    const real *across = along(in, 0), *in_plane = along(in, 1);
    int by_x = phase_of(in, by, 0), by_y = phase_of(in, by, 1);
    FOR_EACH_PLACE(n) {
        long i = point(n, PLACE), x = x_of(PLACE, BLACK);
        real centre = (x + R(0.5)) * size, before = (x == 0 ? n - R(0.5) : x - R(0.5)) * size;
        FOR_EACH_LANE(l) {
            real k0 = across[l], k1 = across[LANES + l], reach = R(0.5) * in->fraction[l];
            level->face[FACE(i, LEFT)] = series(k0, k1, share(before, n, reach), by_x);
            level->face[FACE(i, RIGHT)] = series(k0, k1, share(centre, n, reach), by_x);
            real column = parallel(in_plane[l], in_plane[LANES + l], share(x * size, n, reach), by_y);
            level->face[FACE(i, DOWN)] = level->face[FACE(i, UP)] = column;
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
INLINE void links_of_cylinder(long n, const real *fraction, const real *phase, int by, real *chord, real *link)
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
        real near_y = r * size, far_y = (r + 1) * size, sum[LANES], slope[LANES];
        int outside[LANES], mixed[LANES];
        FOR_EACH_LANE(l) {
            real square = fraction[l] * R(0.31830988618379067154);
            outside[l] = near_x * near_x + near_y * near_y >= square;
            mixed[l] = !outside[l] && far_x * far_x + far_y * far_y > square;
            sum[l] = slope[l] = 0;
        }
        for (int strip = 0; strip < STRIPS && LANES_ANY(mixed); ++strip) {
            long slice = m * STRIPS + strip - STRIPS / 2;
            slice = slice < 0 ? -1 - slice : slice >= nchord ? 2 * nchord - 1 - slice : slice;
            FOR_EACH_LANE(l) {
                real k0 = phase[l], k1 = phase[LANES + l];
                int better = k1 >= k0;
                real first = better ? R(0.5) + (m - R(0.5)) * size : R(0.5) + r * size;
                real reach = better ? chord[(r * STRIPS + strip) * LANES + l] : chord[slice * LANES + l];
                add_strip(k0, k1, share(first, n, reach), better, by, sum + l, slope + l);
            }
        }
        FOR_EACH_LANE(l) {
            real k0 = phase[l], k1 = phase[LANES + l];
            real mean = mean_of_strips(sum[l], slope[l], STRIPS, k1 >= k0, by);
            link[(m * (n / 2) + r) * LANES + l] = mixed[l] ? mean : parallel(k0, k1, outside[l] ? R(0) : R(1), by);
        }
    }
    TEAM_BARRIER;
}

INLINE long apart(long a, long b) { return a < b ? b - a : a - b; }

/* The faces across an axis. */
INLINE void faces_of_links(const Level *level, const real *link, int axis)
{
    long n = level->n, half = n / 2;
    FOR_EACH_PLACE(n) {
        long i = point(n, PLACE), x = x_of(PLACE, BLACK);
        long at = axis == 0 ? x : y, beside = axis == 0 ? y : x;
        long row = beside < half ? half - 1 - beside : beside - half;
        FOR_EACH_LANE(l) {
            level->face[FACE(i, 2 * axis)] = link[(apart(at, half) * half + row) * LANES + l];
            level->face[FACE(i, 2 * axis + 1)] = link[(apart(at + 1, half) * half + row) * LANES + l];
        }
    }
    TEAM_BARRIER;
}

INLINE void faces_of_cylinder(const Level *level, const Input *in, int by, real *chord)
{
    real *link = chord + (level->n / 2 * STRIPS + PAD) * LANES;
    for (int axis = 0; axis < DIM; ++axis) {
        /* Both axes have the same links where the phases are isotropic. */
        if (axis < in->naxis)
            links_of_cylinder(level->n, in->fraction, along(in, axis), phase_of(in, by, axis), chord, link);
        faces_of_links(level, link, axis);
    }
}
