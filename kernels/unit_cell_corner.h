/* Part of unit_cell_tensor.c and others: what pixels conduct around the corner that they share.

   Each pixel has 2^DIM parts, one at each of its corners, with one gradient each: from the value at the middle
   of the pixel to those at the joints, where two parts touch. A corner has the energy
   sum over its parts of g k g / 2^DIM, of which the joints take the least. So it is a sum over pairs of its
   pixels of w (u - u')^2, positive definite whatever the tensors are, and
   - with tensors along the axes: the harmonic faces of unit_cell_phases.h;
   - in layers across an axis: exact, as gradients are constant in each layer and fluxes match at the joints.
   Known as the symmetric multi-point flux approximation (Aavatsmark 2002, doi 10.1023/A:1021291114475). */

#define PARTS (1 << DIM)
#define JOINTS (DIM * PARTS / 2)
#define PAIRS (PARTS * (PARTS - 1) / 2)
#define SLOTS (BLOCK / 2) /* pairs that a pixel keeps: with those after it in the block around it */
#define FOR_EACH_PART(c) for (int c = 0; c < PARTS; ++c)
#define FOR_EACH_SLOT(s) for (int s = 0; s < SLOTS; ++s)
/* Component (a, b), a != b, of a tensor. */
#define CROSS(a, b) (NCOMPONENT - (a) - (b))
/* Where a pixel of a corner stands in the block around the first of them: offset, in the units of slots. */
#define OFFSET(part) (((part) & 1) + 3 * ((part) >> 1 & 1) + 9 * ((part) >> 2))
#define WEIGHT(i, slot) (((i) * SLOTS + (slot)) * LANES + l)
/* Twice the gradient of a part along an axis is SIGN * (joint - middle). */
#define SIGN(part, axis) ((part) >> (axis) & 1 ? R(-1) : R(1))

typedef struct {
    real k[NCOMPONENT][PARTS][LANES];          /* tensors of the parts */
    real row[JOINTS][JOINTS + PARTS][LANES];   /* of the joints, by joints and middles: eliminated, upper half */
    real inverse[JOINTS][LANES];               /* of the pivots */
} Corner;

/* The joint of a part along an axis; parts are numbered by x + 2 y + 4 z, joints axis by axis. */
INLINE int joint_of(int part, int axis)
{
    return axis * PARTS / 2 + ((part & ((1 << axis) - 1)) | part >> (axis + 1) << axis);
}

/* How often step `offset` of a block goes along an axis: -1, 0 or 1. */
INLINE int step_along(int offset, int axis)
{
    int place = offset + MIDDLE;
    return (axis == 0 ? place : axis == 1 ? place / 3 : place / 9) % 3 - 1;
}

/* Phases of the pixels of a corner, of which `block` lists the surroundings of the first. Whether all of all
   lanes are the same. */
INLINE int read_corner(
    const int *labels, const int *image, const Input *in, long npoint, const long *block, int label[PARTS][LANES])
{
    int alike = 1;
    FOR_EACH_PART(c) for (int l = 0; l < LANES; ++l) {
        label[c][l] = labels[(image ? in->image[l] * npoint : 0) + block[MIDDLE + OFFSET(c)]];
        alike &= label[c][l] == label[0][0];
    }
    return alike;
}

INLINE void take_tensors(const Input *in, int label[PARTS][LANES], Corner *corner)
{
    for (int m = 0; m < NCOMPONENT; ++m) FOR_EACH_PART(c) FOR_EACH_LANE(l)
        corner->k[m][c][l] = in->phase[(m * in->nphase + label[c][l]) * LANES + l];
}

/* The equations of the joints, and their elimination. */
SEPARATE void eliminate_joints(Corner *corner)
{
    for (int i = 0; i < JOINTS; ++i) for (int m = i; m < JOINTS + PARTS; ++m) FOR_EACH_LANE(l)
        corner->row[i][m][l] = 0;
    FOR_EACH_PART(c) FOR_EACH_AXIS(a) {
        int i = joint_of(c, a);
        FOR_EACH_AXIS(b) {
            int m = joint_of(c, b);
            real sign = SIGN(c, a) * SIGN(c, b) * R(4) / PARTS;
            FOR_EACH_LANE(l) {
                real k = sign * corner->k[a == b ? a : CROSS(a, b)][c][l];
                corner->row[i][JOINTS + c][l] -= k;
                if (b >= a) corner->row[i][m][l] += k;
            }
        }
    }
    for (int i = 0; i < JOINTS; ++i) {
        /* Joint i of the first axis touches only those of its parts 2 i and 2 i + 1: the others stay 0. */
        int first = i < PARTS / 2, list[JOINTS + PARTS], njoint = 0, ncolumn;
        for (int axis = 1; first && axis < DIM; ++axis) {
            list[njoint++] = joint_of(2 * i, axis);
            list[njoint++] = joint_of(2 * i + 1, axis);
        }
        for (int j = i + 1; !first && j < JOINTS; ++j) list[njoint++] = j;
        ncolumn = njoint;
        for (int c = first ? 2 * i : 0; c < (first ? 2 * i + 2 : PARTS); ++c) list[ncolumn++] = JOINTS + c;
        FOR_EACH_LANE(l) corner->inverse[i][l] = R(1) / corner->row[i][i][l];
        for (int p = 0; p < njoint; ++p) {
            int j = list[p];
            real factor[LANES];
            FOR_EACH_LANE(l) factor[l] = -corner->row[i][j][l] * corner->inverse[i][l];
            for (int q = p; q < ncolumn; ++q) {
                int m = list[q];
                FOR_EACH_LANE(l)
                    corner->row[j][m][l] = MUL_ADD(factor[l], corner->row[i][m][l], corner->row[j][m][l]);
            }
        }
    }
}

/* What remains of the energy: a weight for each pair of pixels, the first pixel's with all others first. */
SEPARATE void find_pairs(const Corner *corner, real *pair)
{
    for (int c = 0, number = 0; c < PARTS; ++c) {
        real scaled[JOINTS][LANES];
        for (int i = 0; i < JOINTS; ++i) FOR_EACH_LANE(l)
            scaled[i][l] = corner->row[i][JOINTS + c][l] * corner->inverse[i][l];
        for (int d = c + 1; d < PARTS; ++d, ++number) {
            real sum[LANES];
            int first = c / 2; /* the joint of the first axis between c and c + 1, if there is one */
            FOR_EACH_LANE(l) sum[l] = d / 2 == first ? scaled[first][l] * corner->row[first][JOINTS + d][l] : R(0);
            for (int i = PARTS / 2; i < JOINTS; ++i) FOR_EACH_LANE(l)
                sum[l] = MUL_ADD(scaled[i][l], corner->row[i][JOINTS + d][l], sum[l]);
            FOR_EACH_LANE(l) pair[number * LANES + l] = sum[l];
        }
    }
}

/* Gradients g[axis] of the parts from the values u at the middles. */
SEPARATE void find_gradients(const Corner *corner, real u[PARTS][LANES], real g[DIM][PARTS][LANES])
{
    real joint[JOINTS][LANES];
    for (int i = JOINTS - 1; i >= 0; --i) {
        real sum[LANES];
        FOR_EACH_LANE(l) sum[l] = 0;
        FOR_EACH_PART(c) FOR_EACH_LANE(l) sum[l] = MUL_ADD(corner->row[i][JOINTS + c][l], u[c][l], sum[l]);
        for (int j = i + 1; j < JOINTS; ++j) FOR_EACH_LANE(l)
            sum[l] = MUL_ADD(corner->row[i][j][l], joint[j][l], sum[l]);
        FOR_EACH_LANE(l) joint[i][l] = -sum[l] * corner->inverse[i][l];
    }
    FOR_EACH_AXIS(a) FOR_EACH_PART(c) FOR_EACH_LANE(l)
        g[a][c][l] = R(2) * SIGN(c, a) * (joint[joint_of(c, a)][l] - u[c][l]);
}

/* Tensors must be positive definite; those of a bad cell lose their cross terms. Raises the contrast, as
   unit_cell_progress.h understands it, to what the diagonal alone makes of them as a preconditioner: its
   smallest eigenvalue is that of k, scaled to a diagonal of 1. */
SEPARATE void read_cross_terms(long team, long ncells, const real *phases, Input *in)
{
    real least[LANES];
    FOR_EACH_LANE(l) least[l] = 1;
    for (long phase = 0; phase < in->nphase; ++phase) FOR_EACH_LANE(l) {
        real square = 0, product = 2;
        for (int m = DIM; m < NCOMPONENT; ++m) {
            real a = in->phase[(FIRST_INDEX(m) * in->nphase + phase) * LANES + l];
            real b = in->phase[(SECOND_INDEX(m) * in->nphase + phase) * LANES + l];
            real part = phases[(m * in->nphase + phase) * ncells + CELL_OF(team, l, ncells)] / hp_sqrt(a * b);
            in->bad[l] |= !(part > -1 && part < 1);
            square = MUL_ADD(part, part, square), product *= part;
        }
        real det = R(1) - square + (DIM == 3 ? product : R(0)), linear = R(DIM) - square, root = 0;
        in->bad[l] |= !(det > 0);
        /* Newton's iterates from 0 stay below the smallest root of det - linear x + 3 x^2 - x^3, or of
           det - 2 x + x^2. */
        for (int i = 0; i < 5; ++i) {
            real slope = DIM == 3 ? linear - root * (R(6) - R(3) * root) : R(2) - R(2) * root;
            real value = DIM == 3 ? det - root * (linear - root * (R(3) - root)) : det - root * (R(2) - root);
            root += slope > 0 ? value / slope : R(0);
        }
        least[l] = hp_min(least[l], root);
    }
    FOR_EACH_LANE(l) {
        real worst = hp_max(least[l], R(1e-6));
        in->contrast[l] = in->bad[l] ? 1 : R(100) * ((1 + in->contrast[l] / 100) / worst - 1);
    }
    long first = DIM * in->nphase, ncross = (NCOMPONENT - DIM) * in->nphase;
    FOR_EACH_POINT(k, ncross) FOR_EACH_LANE(l) {
        real value = phases[(first + k) * ncells + CELL_OF(team, l, ncells)];
        in->phase[(first + k) * LANES + l] = in->bad[l] ? 0 : value;
    }
    TEAM_BARRIER;
}
