/* Part of unit_cell_3d.c: the faces of a sphere on lines that follow it, see unit_cell_fitted.h. */

#define FITTED_SPHERES 5

INLINE void find_fitted_chords(long n, const Fit *fit, const real *square, real *chord)
{
    real size = R(1) / (n * STRIPS);
    FOR_EACH_POINT_2D(b, a, n / 2 * STRIPS, n / 2 * STRIPS) FOR_EACH_LANE(l) {
        real x = line_at(fit, (a + R(0.5)) * size, l), y = line_at(fit, (b + R(0.5)) * size, l);
        chord[(a * (n / 2 * STRIPS) + b) * LANES + l] = hp_sqrt(hp_max(square[l] - x * x - y * y, R(0)));
    }
    TEAM_BARRIER;
}

/* What links_of_sphere makes, with the same rules, of links that span lines of points at x(xi). */
INLINE void fitted_links_of_sphere(
    long n, const Fit *fit, const real *square, const real *phase, int by, const real *chord, real *link)
{
    real size = R(1) / n;
    long half = n / 2, nchord = half * STRIPS;
    FOR_EACH_POINT_3D(s, r, m, half, half, half + 1) {
        if (s > r) continue;
        real from = (m - R(0.5)) * size, to = (m + R(0.5)) * size;
        real low[3][LANES], high[3][LANES], sum[LANES], slope[LANES]; /* x, y, z of the ends */
        int outside[LANES], mixed[LANES];
        FOR_EACH_LANE(l) {
            low[0][l] = line_at(fit, from, l), high[0][l] = line_at(fit, to, l);
            low[1][l] = line_at(fit, r * size, l), high[1][l] = line_at(fit, (r + 1) * size, l);
            low[2][l] = line_at(fit, s * size, l), high[2][l] = line_at(fit, (s + 1) * size, l);
            real near = hp_max(low[0][l], R(0)), far = high[0][l] * high[0][l];
            near = near * near + low[1][l] * low[1][l] + low[2][l] * low[2][l];
            far += high[1][l] * high[1][l] + high[2][l] * high[2][l];
            outside[l] = near >= square[l];
            mixed[l] = !outside[l] && far > square[l];
            sum[l] = slope[l] = 0;
        }
        for (int a = 0; a < STRIPS && LANES_ANY(mixed); ++a) {
            long slice = m * STRIPS + a - STRIPS / 2;
            slice = slice < 0 ? -1 - slice : slice >= nchord ? 2 * nchord - 1 - slice : slice;
            real at = from + (a + R(0.5)) * size / STRIPS, whole[LANES], value[LANES], change[LANES];
            FOR_EACH_LANE(l) whole[l] = 0;
            for (int b = 0; b < STRIPS; ++b) FOR_EACH_LANE(l) {
                real k0 = phase[l], k1 = phase[LANES + l];
                int better = k1 >= k0;
                long strip = (r * STRIPS + a) * nchord + s * STRIPS + b, line = slice * nchord + r * STRIPS + b;
                real one = better ? covered(low[0][l], high[0][l], chord[strip * LANES + l])
                                  : covered(low[2][l], high[2][l], chord[line * LANES + l]);
                if (better) add_strip(k0, k1, one, 1, by, sum + l, slope + l);
                whole[l] += one;
            }
            FOR_EACH_LANE(l) {
                real k0 = phase[l], k1 = phase[LANES + l];
                /* Slices differ in thickness where a link leaves the box. */
                real weight = slope_at(fit, at, l) * size / (high[0][l] - low[0][l]);
                value[l] = change[l] = 0;
                if (k1 < k0) add_strip(k0, k1, whole[l] / STRIPS, 0, by, value + l, change + l);
                sum[l] += weight * value[l], slope[l] += weight * change[l];
            }
        }
        FOR_EACH_LANE(l) {
            real k0 = phase[l], k1 = phase[LANES + l];
            int better = k1 >= k0;
            real mean = mean_of_strips(sum[l], slope[l], better ? STRIPS * STRIPS : STRIPS, better, by);
            real k = mixed[l] ? mean : parallel(k0, k1, outside[l] ? R(0) : R(1), by);
            real area = (high[1][l] - low[1][l]) * (high[2][l] - low[2][l]);
            link[((m * half + r) * half + s) * LANES + l] = k * area * n / (high[0][l] - low[0][l]);
        }
    }
    TEAM_BARRIER;
}

INLINE void faces_of_fitted_sphere(const Level *level, const Input *in, int by, real *chord)
{
    real *link = chord + (number_of_chords(level->n) + PAD) * LANES;
    real square[LANES]; /* of the radius */
    Fit fit;
    square_of_radius(in, square);
    fit_lines(level->n, square, &fit);
    find_fitted_chords(level->n, &fit, square, chord);
    for (int axis = 0; axis < DIM; ++axis) {
        if (axis < in->naxis)
            fitted_links_of_sphere(level->n, &fit, square, along(in, axis), phase_of(in, by, axis), chord, link);
        faces_of_links(level, link, axis);
    }
}

/* Apart from the kernel, which otherwise grows so long that the solver's loops are not vectorised any more. */
SEPARATE void values_of_fitted_sphere(const Level *level, const Input *in, real *chord)
{
    faces_of_fitted_sphere(level, in, VALUE, chord);
}

SEPARATE void slopes_of_fitted_sphere(const Level *level, const Input *in, int by, real *chord)
{
    faces_of_fitted_sphere(level, in, by, chord);
}
