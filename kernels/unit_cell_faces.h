/* Part of unit_cell.c: the faces of a cell from its microstructure and the conductivities of its phases. */

#define STRIPS 16 /* sub-samples across a link */

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
                int better = k1 >= k0;
                real first = better ? R(0.5) + (m - R(0.5)) * size : R(0.5) + r * size;
                real reach = better ? chord[(r * STRIPS + strip) * LANES + l] : chord[slice * LANES + l];
                real one = share(first, n, reach), other = R(1) - one;
                /* conductivity of a strip, or resistance of a slice */
                sum[l] += (better ? k0 * k1 : R(1)) / (one * (better ? k0 : k1) + other * (better ? k1 : k0));
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
