/* Part of unit_cell.c: the faces of a cylinder on lines that follow it, see unit_cell_fitted.h. */

#define FITTED_CYLINDERS 4

/* What links_of_cylinder makes, with the same rules, of links that span lines of points at x(xi). */
INLINE void fitted_links_of_cylinder(
    long n, const Fit *fit, const real *square, const real *phase, int by, real *chord, real *link)
{
    real size = R(1) / n;
    long nchord = n / 2 * STRIPS;
    FOR_EACH_POINT(i, nchord) FOR_EACH_LANE(l) {
        real y = line_at(fit, (i + R(0.5)) * size / STRIPS, l);
        chord[i * LANES + l] = hp_sqrt(hp_max(square[l] - y * y, R(0)));
    }
    TEAM_BARRIER;
    FOR_EACH_POINT_2D(r, m, n / 2, n / 2 + 1) {
        real from = (m - R(0.5)) * size, to = (m + R(0.5)) * size, low = r * size, high = (r + 1) * size;
        real first_x[LANES], last_x[LANES], first_y[LANES], last_y[LANES], sum[LANES], slope[LANES];
        int outside[LANES], mixed[LANES];
        FOR_EACH_LANE(l) {
            first_x[l] = line_at(fit, from, l), last_x[l] = line_at(fit, to, l);
            first_y[l] = line_at(fit, low, l), last_y[l] = line_at(fit, high, l);
            real near_x = hp_max(first_x[l], R(0)), near = near_x * near_x + first_y[l] * first_y[l];
            outside[l] = near >= square[l];
            mixed[l] = !outside[l] && last_x[l] * last_x[l] + last_y[l] * last_y[l] > square[l];
            sum[l] = slope[l] = 0;
        }
        for (int strip = 0; strip < STRIPS && LANES_ANY(mixed); ++strip) {
            long slice = m * STRIPS + strip - STRIPS / 2;
            slice = slice < 0 ? -1 - slice : slice >= nchord ? 2 * nchord - 1 - slice : slice;
            real at = from + (strip + R(0.5)) * size / STRIPS, value[LANES], change[LANES];
            FOR_EACH_LANE(l) {
                real k0 = phase[l], k1 = phase[LANES + l];
                int better = k1 >= k0;
                real reach = better ? chord[(r * STRIPS + strip) * LANES + l] : chord[slice * LANES + l];
                real one = better ? covered(first_x[l], last_x[l], reach) : covered(first_y[l], last_y[l], reach);
                /* Slices differ in thickness where a link leaves the box. */
                real weight = better ? R(1) : slope_at(fit, at, l) * size / (last_x[l] - first_x[l]);
                value[l] = change[l] = 0;
                add_strip(k0, k1, one, better, by, value + l, change + l);
                sum[l] += weight * value[l], slope[l] += weight * change[l];
            }
        }
        FOR_EACH_LANE(l) {
            real k0 = phase[l], k1 = phase[LANES + l];
            real mean = mean_of_strips(sum[l], slope[l], STRIPS, k1 >= k0, by);
            real k = mixed[l] ? mean : parallel(k0, k1, outside[l] ? R(0) : R(1), by);
            real area = last_y[l] - first_y[l], length = last_x[l] - first_x[l];
            link[(m * (n / 2) + r) * LANES + l] = k * area / length;
        }
    }
    TEAM_BARRIER;
}

INLINE void faces_of_fitted_cylinder(const Level *level, const Input *in, int by, real *chord)
{
    real *link = chord + (level->n / 2 * STRIPS + PAD) * LANES, square[LANES]; /* of the radius */
    Fit fit;
    FOR_EACH_LANE(l) square[l] = in->fraction[l] * R(0.31830988618379067154);
    fit_lines(level->n, square, &fit);
    for (int axis = 0; axis < DIM; ++axis) {
        if (axis < in->naxis)
            fitted_links_of_cylinder(level->n, &fit, square, along(in, axis), phase_of(in, by, axis), chord, link);
        faces_of_links(level, link, axis);
    }
}

/* Apart from the kernel, which otherwise grows so long that the solver's loops are not vectorised any more. */
SEPARATE void values_of_fitted_cylinder(const Level *level, const Input *in, real *chord)
{
    faces_of_fitted_cylinder(level, in, VALUE, chord);
}

SEPARATE void slopes_of_fitted_cylinder(const Level *level, const Input *in, int by, real *chord)
{
    faces_of_fitted_cylinder(level, in, by, chord);
}
