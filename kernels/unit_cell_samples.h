/* Part of unit_cell.c and unit_cell_3d.c: the faces of an image that is finer than the grid.

   Every point has nsub^DIM sub-samples. A link between two points holds as many, half of each point's; where
   they differ, phases in it lie
   - in strips along the link: of each the harmonic mean, of these the arithmetic mean (a lower bound); or
   - in slices across it: of each the arithmetic mean, of these the harmonic mean (an upper bound).
   Inclusions that conduct better than what they lie in want the first, others the second, see
   unit_cell_faces.h; where no phase surrounds the others, their geometric mean is four times nearer.
   The first sub-sample of a link that is cut carries a mark, see hpcmsm/micro/subsamples.py. */

#define SAMPLES 6
#define SAMPLES_OF_INCLUSIONS 7
#define PHASE_OF(label) ((label) & 31)
#define IS_CUT(label, axis) ((label) >> (5 + (axis)) & 1)

typedef struct {
    const int *labels;
    long shift[LANES], period;          /* of a cell's image; sub-samples a side */
    long nsub, nlayer;                  /* of a link along and across; layers of strips: nsub or 1 */
    long start, along, first, across, beyond; /* on the link's axis, its stride; on the others, their strides */
} Link;

INLINE void lay_link(Link *link, long n, const long *x, int axis, int end)
{
    long nsub = link->nsub, stride[3] = {1, link->period, link->period * link->period};
    long at = end ? x[axis] : x[axis] == 0 ? n - 1 : x[axis] - 1;
    int other = axis == 0 ? 1 : 0, last = axis == 2 ? 1 : 2;
    link->start = at * nsub + nsub / 2, link->along = stride[axis];
    link->first = x[other] * nsub * stride[other] + (DIM == 3 ? x[last] * nsub * stride[last] : 0);
    link->across = stride[other], link->beyond = stride[last];
}

/* Where the first sub-sample of a slice stands. */
INLINE const int *slice_of(const Link *link, long slice)
{
    long at = link->start + slice;
    at -= at >= link->period ? link->period : 0;
    return link->labels + link->first + at * link->along;
}

/* The lower bound of a face, and its derivative by a phase (`by` >= 0); inverse holds 1/k. Where the
   cells of a team share an image, all lanes read the same label. */
INLINE void strips_of_samples(const Link *link, const real *inverse, int shared, int by, real *value, real *change)
{
    real sum[LANES], slope[LANES], resistance[LANES], part[LANES], share = R(1) / link->nsub;
    FOR_EACH_LANE(l) sum[l] = slope[l] = 0;
    for (long b = 0; b < link->nlayer; ++b) for (long a = 0; a < link->nsub; ++a) {
        FOR_EACH_LANE(l) resistance[l] = part[l] = 0;
        for (long slice = 0; slice < link->nsub; ++slice) {
            const int *label = slice_of(link, slice) + a * link->across + b * link->beyond;
            FOR_EACH_LANE(l) {
                int phase = PHASE_OF(label[link->shift[shared ? 0 : l]]);
                real one = inverse[phase * LANES + l];
                resistance[l] += one;
                part[l] += phase == by ? one * one : R(0);
            }
        }
        FOR_EACH_LANE(l) {
            real one = R(1) / (resistance[l] * share);
            sum[l] += one, slope[l] += one * one * part[l] * share;
        }
    }
    FOR_EACH_LANE(l) value[l] = sum[l] / (link->nsub * link->nlayer), change[l] = slope[l] / (link->nsub * link->nlayer);
}

/* The upper bound likewise. */
INLINE void slices_of_samples(
    const Link *link, const real *conductivity, int shared, int by, real *value, real *change)
{
    real sum[LANES], slope[LANES], mean[LANES], part[LANES], share = R(1) / (link->nsub * link->nlayer);
    FOR_EACH_LANE(l) sum[l] = slope[l] = 0;
    for (long slice = 0; slice < link->nsub; ++slice) {
        FOR_EACH_LANE(l) mean[l] = part[l] = 0;
        for (long b = 0; b < link->nlayer; ++b) for (long a = 0; a < link->nsub; ++a) {
            const int *label = slice_of(link, slice) + a * link->across + b * link->beyond;
            FOR_EACH_LANE(l) {
                int phase = PHASE_OF(label[link->shift[shared ? 0 : l]]);
                mean[l] += conductivity[phase * LANES + l];
                part[l] += phase == by ? R(1) : R(0);
            }
        }
        FOR_EACH_LANE(l) {
            real one = R(1) / (mean[l] * share);
            sum[l] += one, slope[l] += one * one * part[l] * share;
        }
    }
    FOR_EACH_LANE(l) {
        real k = link->nsub / sum[l];
        value[l] = k, change[l] = k * k * slope[l] / link->nsub;
    }
}

/* The face of a link, or its derivative, in lanes where the link is cut. */
INLINE void cut_face(
    const Link *link, const real *conductivity, const real *inverse, int shared, int inclusions, int by,
    const int *cut, real *face)
{
    real low[LANES], high[LANES], low_change[LANES], high_change[LANES];
    int better[LANES], worse[LANES];
    FOR_EACH_LANE(l) {
        better[l] = !inclusions || conductivity[LANES + l] >= conductivity[l];
        worse[l] = !inclusions || !better[l];
        low[l] = high[l] = 1, low_change[l] = high_change[l] = 0;
    }
    if (LANES_ANY(better)) strips_of_samples(link, inverse, shared, by, low, low_change);
    if (LANES_ANY(worse)) slices_of_samples(link, conductivity, shared, by, high, high_change);
    FOR_EACH_LANE(l) {
        real middle = hp_sqrt(low[l] * high[l]);
        real both = R(0.5) * middle * (low_change[l] / low[l] + high_change[l] / high[l]);
        real value = !inclusions ? middle : better[l] ? low[l] : high[l];
        real change = !inclusions ? both : better[l] ? low_change[l] : high_change[l];
        face[l] = !cut[l] ? face[l] : by == VALUE ? value : change;
    }
}

/* Apart from the kernel, whose loops are not vectorised any more where it grows too long. */
SEPARATE void faces_of_samples(
    const Level *level, const int *labels, const int *image, const Input *in, long nsub, int inclusions, int by,
    real *inverse)
{
    long n = level->n;
    Link link;
    link.labels = labels, link.nsub = nsub, link.period = n * nsub, link.nlayer = DIM == 3 ? nsub : 1;
    int differs[LANES];
    FOR_EACH_LANE(l) {
        link.shift[l] = image ? in->image[l] * number_of_points(link.period) : 0;
        differs[l] = in->image[l] != in->image[0];
    }
    int shared = !LANES_ANY(differs);
    for (int axis = 0; axis < DIM; ++axis) {
        const real *conductivity = along(in, axis);
        int want = phase_of(in, by, axis);
        FOR_EACH_POINT(k, in->nphase) FOR_EACH_LANE(l) inverse[k * LANES + l] = R(1) / conductivity[k * LANES + l];
        TEAM_BARRIER;
        FOR_EACH_PLACE(n) for (int end = 0; end < 2; ++end) {
            long i = point(n, PLACE), p = natural(n, PLACE, BLACK), x[3] = {p % n, p / n % n, p / (n * n)};
            real face[LANES];
            int cut[LANES];
            lay_link(&link, n, x, axis, end);
            const int *label = slice_of(&link, 0);
            FOR_EACH_LANE(l) {
                int first = label[link.shift[l]], phase = PHASE_OF(first);
                cut[l] = IS_CUT(first, axis);
                face[l] = want == VALUE ? conductivity[phase * LANES + l] : phase == want ? R(1) : R(0);
            }
            if (LANES_ANY(cut)) {
                if (shared)
                    cut_face(&link, conductivity, inverse, 1, inclusions, want, cut, face);
                else
                    cut_face(&link, conductivity, inverse, 0, inclusions, want, cut, face);
            }
            FOR_EACH_LANE(l) level->face[FACE(i, 2 * axis + end)] = face[l];
        }
        TEAM_BARRIER;
    }
}
