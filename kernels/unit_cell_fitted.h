/* Part of unit_cell.c and unit_cell_3d.c: lines of points that follow a round inclusion in the middle of the cell.

   On an even grid the inclusion crosses lines as it grows, and what the faces get wrong changes each time: K
   follows the fraction in steps of up to 1e-3 at 32 points a side. Here the lines go with it: x = x(xi), the same
   along all axes, xi even, so that |x| <= box holds 3/8 of the lines on each side and is as wide as the
   inclusion. In it x is a multiple of xi and the inclusion is round in xi, too, at the same points for any
   fraction. K(fraction) is then as smooth as the truth; how far it lies off hardly changes.
   With u = xi + chi the cell problem is that of the even grid, its faces times area over length. */

/* Half a side. Beyond, points would be too thin for the multigrid, and the lines stay where they are. */
#define SMALLEST_BOX R(0.03)
#define LARGEST_BOX R(0.498)

typedef struct {
    real edge;                                     /* of the box in xi, from the middle */
    real box[LANES], inner[LANES], outer[LANES]; /* half its side; dx/dxi in it and around it */
} Fit;

INLINE void fit_lines(long n, const real *square, Fit *fit)
{
    fit->edge = R(3 * n / 8) / n;
    FOR_EACH_LANE(l) {
        real box = hp_min(hp_max(hp_sqrt(square[l]), SMALLEST_BOX), LARGEST_BOX);
        fit->box[l] = box;
        fit->inner[l] = box / fit->edge;
        fit->outer[l] = (R(0.5) - box) / (R(0.5) - fit->edge);
    }
}

INLINE real slope_at(const Fit *fit, real xi, int l) { return xi < fit->edge ? fit->inner[l] : fit->outer[l]; }

/* Distance x from the middle of the cell, of a line at xi. */
INLINE real line_at(const Fit *fit, real xi, int l)
{
    return xi <= fit->edge ? fit->inner[l] * xi : fit->box[l] + fit->outer[l] * (xi - fit->edge);
}

/* Share of first .. last inside |x| < reach <= 1/2 and its periodic image. */
INLINE real covered(real first, real last, real reach)
{
    real inside = hp_min(last, reach) - hp_max(first, -reach);
    real image = hp_min(last, R(1) + reach) - hp_max(first, R(1) - reach);
    return (hp_max(inside, R(0)) + hp_max(image, R(0))) / (last - first);
}
