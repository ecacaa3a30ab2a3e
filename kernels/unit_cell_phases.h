/* Part of unit_cell.c and unit_cell_3d.c: the phases of a cell, and its faces where an image says where they lie.

   Phases may conduct differently along x, y (, z): naxis is then DIM, otherwise 1. Functions that make faces
   are told `by`: VALUE for the faces themselves, or the number axis * nphase + phase of a conductivity for
   their derivatives with respect to it. */

#define OK 0
#define NOT_CONVERGED 1
#define BAD_INPUT 2
#define IMAGE 0
#define VALUE -1

typedef struct {
    long nphase, naxis;
    int bad[LANES];
    long image[LANES];                     /* which of the images */
    real fraction[LANES], contrast[LANES]; /* of phase 1; largest over smallest conductivity */
    real *phase;                           /* [naxis][nphase] */
} Input;

/* A cell with bad input is replaced by a harmless one and marked. `most` is the largest fraction that fits. */
INLINE void read_input(
    long team, long ncells, long nimage, const int *image, const real *phases, const real *fraction, real most, Input *in)
{
    real low[LANES], high[LANES];
    long nvalue = in->naxis * in->nphase;
    FOR_EACH_LANE(l) {
        real f = fraction ? fraction[CELL_OF(team, l, ncells)] : 0;
        long which = image ? image[CELL_OF(team, l, ncells)] : 0;
        in->bad[l] = !(f >= 0 && f <= most) || which < 0 || which >= nimage;
        in->fraction[l] = in->bad[l] ? 0 : f, in->image[l] = in->bad[l] ? 0 : which;
        low[l] = R(1e30), high[l] = 0;
    }
    for (long k = 0; k < nvalue; ++k) FOR_EACH_LANE(l) {
        real value = phases[k * ncells + CELL_OF(team, l, ncells)];
        in->bad[l] |= !(value > 0 && value < R(1e30));
        low[l] = hp_min(value, low[l]), high[l] = hp_max(value, high[l]);
    }
    FOR_EACH_LANE(l) in->contrast[l] = in->bad[l] ? 1 : high[l] / low[l];
    FOR_EACH_POINT(k, nvalue) FOR_EACH_LANE(l)
        in->phase[k * LANES + l] = in->bad[l] ? 1 : phases[k * ncells + CELL_OF(team, l, ncells)];
    TEAM_BARRIER;
}

/* Conductivities along an axis, [nphase]. */
INLINE const real *along(const Input *in, int axis)
{
    return in->phase + (in->naxis == 1 ? 0 : axis) * in->nphase * LANES;
}

/* Which phase's derivative is wanted of the faces across an axis: VALUE, or a phase, or none at all (-2). */
INLINE int phase_of(const Input *in, int by, int axis)
{
    if (by == VALUE || in->naxis == 1) return by;
    return by / (int)in->nphase == axis ? by % (int)in->nphase : -2;
}

INLINE real harmonic(real a, real b) { return R(2) * a * b / (a + b); }

/* The face between two points, or its derivative. */
INLINE real image_face(const real *phase, int own, int other, int by, int l)
{
    real a = phase[own * LANES + l], b = phase[other * LANES + l], total = a + b;
    if (by == VALUE) return own == other ? a : harmonic(a, b);
    real slope = (own == by ? b * b : R(0)) + (other == by ? a * a : R(0));
    return own == other ? (own == by ? R(1) : R(0)) : R(2) * slope / (total * total);
}

/* Faces of an image: harmonic mean of the two points. */
INLINE void faces_of_image(const Level *level, const int *labels, const int *image, const Input *in, int by)
{
    long n = level->n;
    FOR_EACH_PLACE(n) {
        long i = point(n, PLACE);
        int own, other[SIDES];
        read_labels(labels, n, PLACE, &own, other);
        FOR_EACH_SIDE(side) {
            const real *phase = along(in, side / 2);
            int want = phase_of(in, by, side / 2);
            if (image) {
                for (int l = 0; l < LANES; ++l) {
                    read_labels(labels + in->image[l] * number_of_points(n), n, PLACE, &own, other);
                    level->face[FACE(i, side)] = image_face(phase, own, other[side], want, l);
                }
            } else {
                FOR_EACH_LANE(l) level->face[FACE(i, side)] = image_face(phase, own, other[side], want, l);
            }
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

/* Layers in series and in parallel, of which phase 1 has the share `one`. */
INLINE real series(real k0, real k1, real one, int by)
{
    real other = R(1) - one, inverse = R(1) / (one * k0 + other * k1);
    if (by == VALUE) return k0 * k1 * inverse;
    return (by == 0 ? other * k1 * k1 : by == 1 ? one * k0 * k0 : R(0)) * inverse * inverse;
}

INLINE real parallel(real k0, real k1, real one, int by)
{
    real other = R(1) - one;
    return by == VALUE ? one * k1 + other * k0 : by == 0 ? other : by == 1 ? one : R(0);
}

/* One strip or slice of a link of which phase 1 has the share `one`, added to the sums: of conductivities
   in series (better), or of resistances of layers in parallel; slope is that of the derivative. */
INLINE void add_strip(real k0, real k1, real one, int better, int by, real *sum, real *slope)
{
    real other = R(1) - one;
    real inverse = (by == VALUE && better ? k0 * k1 : R(1)) / (one * (better ? k0 : k1) + other * (better ? k1 : k0));
    *sum += inverse;
    if (by != VALUE) {
        real part = by == 0 ? other * (better ? k1 * k1 : R(1)) : by == 1 ? one * (better ? k0 * k0 : R(1)) : R(0);
        *slope += part * inverse * inverse;
    }
}

INLINE real mean_of_strips(real sum, real slope, int nstrip, int better, int by)
{
    real value = better ? sum / nstrip : nstrip / sum;
    return by == VALUE ? value : (better ? R(1) : value * value) * slope / nstrip;
}
