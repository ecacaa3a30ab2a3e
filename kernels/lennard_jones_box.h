/* A periodic box of atoms, eight boxes side by side on a CPU: where atoms are, and who sees whom.

   The lanes of a team share one neighbour list: the pairs, with the periodic image through which they see
   each other, that are near in any of the boxes. In crystals these are nearly the same pairs in all, so
   that every load is a whole vector. A pair outside a box's own cut-off adds nothing to it, and those
   inside come in the order of (atom, neighbour, image), so neither the list, nor when it is made anew, nor
   the other boxes of the team can change a bit of the answer. At up to a thousand atoms a box is hardly
   three ranges wide, and a grid of cells would leave no pair out: lists are made from all pairs. */

#define IMAGE_REACH 2 /* images up to two boxes away ... */
#define IMAGE_SIDE (2 * IMAGE_REACH + 1)
#define NIMAGE (IMAGE_SIDE * IMAGE_SIDE * IMAGE_SIDE)
#define IMAGE_BITS 7 /* ... fit into so many bits of a list's entry */
/* Where the atoms of a box are walked through one after another, a pair is listed with its first atom
   alone, and its force given to both; where they are spread over threads, with both. */
#define EACH_PAIR_ONCE (LANES > 1)
#define SMALLEST_SKIN R(0.05)
#define PAD 1 /* so that the arrays do not lie in step with pages */

typedef struct {
    real edge[9][LANES];    /* H: its columns are the edges of the box */
    real inverse[9][LANES]; /* H^-1 */
    real skin[LANES]; /* how far beyond the cut-off pairs are listed */
    int bad[LANES];
} Box;

typedef struct {
    long natom, most; /* most: neighbours that an atom of one box may have */
    real *x, *v, *f;  /* [natom][3] positions, velocities, forces */
    real *listed;     /* [natom][3] positions when the lists were made ... */
    real *part;       /* [natom][3] ... and in units of the edges */
    real *shift;      /* [NIMAGE][3] vectors of the images */
    int *count;       /* [natom] entries of a list: atom << IMAGE_BITS | image */
    int *list;        /* [natom][most * LANES] */
} Atoms;

INLINE Atoms lay_out(long natom, long most, real *memory)
{
    long vector = (3 * natom + PAD) * LANES;
    Atoms a;
    a.natom = natom, a.most = most;
    a.x = memory, a.v = a.x + vector, a.f = a.v + vector, a.listed = a.f + vector;
    a.part = a.listed + vector, a.shift = a.part + vector;
    a.count = (int *)(a.shift + 3 * NIMAGE * LANES);
    a.list = a.count + natom;
    return a;
}

/* The box F * side of a lane, its inverse, and whether atoms see at most one image of each other. */
INLINE void make_box(Box *box, int l, const real *deformation, real side, real cutoff, real skin)
{
    real h[9], cofactor[9];
    for (int k = 0; k < 9; ++k)
        h[k] = deformation[k] * side;
    for (int k = 0; k < 9; ++k) {
        int i = k / 3, j = k % 3, a = (i + 1) % 3, b = (i + 2) % 3, c = (j + 1) % 3, d = (j + 2) % 3;
        cofactor[k] = h[3 * a + c] * h[3 * b + d] - h[3 * a + d] * h[3 * b + c];
    }
    real volume = h[0] * cofactor[0] + h[1] * cofactor[1] + h[2] * cofactor[2], widest = 0;
    for (int i = 0; i < 3; ++i) { /* the distance of opposite sides is 1 / |row of H^-1| */
        real row = 0;
        for (int j = 0; j < 3; ++j)
            row = MUL_ADD(cofactor[3 * j + i] / volume, cofactor[3 * j + i] / volume, row);
        widest = hp_max(widest, row);
    }
    real room = R(0.5) / hp_sqrt(widest) - cutoff;
    int bad = !(volume > 0) || !(room >= SMALLEST_SKIN);
    for (int k = 0; k < 9; ++k) { /* a bad box is replaced by one that does no harm */
        box->edge[k][l] = bad ? (k % 4 ? R(0) : side) : h[k];
        box->inverse[k][l] = bad ? (k % 4 ? R(0) : R(1) / side) : cofactor[k % 3 * 3 + k / 3] / volume;
    }
    box->skin[l] = bad ? skin : hp_min(skin, room);
    box->bad[l] = bad;
}

/* The boxes of a team; returns how far beyond the cut-off its lists may reach. */
INLINE real make_boxes(Box *box, long team, long ncells, const real *deformation, real side, real cutoff,
                       real skin)
{
    real reach = skin;
    for (int l = 0; l < LANES; ++l) {
        real f[9];
        for (int k = 0; k < 9; ++k)
            f[k] = deformation[k * ncells + CELL_OF(team, l, ncells)];
        make_box(box, l, f, side, cutoff, skin);
        reach = hp_min(reach, box->skin[l]);
    }
    return reach;
}

/* Vectors from the box to its images; the opposite image has the opposite vector, bit by bit. */
INLINE void make_images(Atoms *a, const Box *box)
{
    FOR_EACH_POINT(image, NIMAGE) for (int i = 0; i < 3; ++i) FOR_EACH_LANE(l) {
        real x = R(image / (IMAGE_SIDE * IMAGE_SIDE) - IMAGE_REACH);
        real y = R(image / IMAGE_SIDE % IMAGE_SIDE - IMAGE_REACH), z = R(image % IMAGE_SIDE - IMAGE_REACH);
        a->shift[(3 * image + i) * LANES + l] =
            box->edge[3 * i][l] * x + box->edge[3 * i + 1][l] * y + box->edge[3 * i + 2][l] * z;
    }
    TEAM_BARRIER;
}

/* Row i of a lane's matrix times the vector (x, y, z). */
INLINE real row_times(const real m[9][LANES], int i, int l, real x, real y, real z)
{
    return MUL_ADD(m[3 * i + 2][l], z, MUL_ADD(m[3 * i + 1][l], y, m[3 * i][l] * x));
}

/* Brings every atom back into the box: the image of a pair must stay among those of the list. */
INLINE void wrap(Atoms *a, const Box *box)
{
    FOR_EACH_POINT(i, a->natom) {
        real *x = a->x + 3 * i * LANES, turns[3][LANES];
        for (int k = 0; k < 3; ++k)
            FOR_EACH_LANE(l) {
                real part = row_times(box->inverse, k, l, x[l], x[LANES + l], x[2 * LANES + l]) - R(0.5);
                turns[k][l] = (part + HP_SHIFT) - HP_SHIFT;
            }
        for (int k = 0; k < 3; ++k)
            FOR_EACH_LANE(l)
                x[k * LANES + l] -= row_times(box->edge, k, l, turns[0][l], turns[1][l], turns[2][l]);
    }
    TEAM_BARRIER;
}

/* Where the atoms are in units of the edges. */
INLINE void find_fractions(Atoms *a, const Box *box)
{
    FOR_EACH_POINT(i, a->natom) {
        const real *x = a->x + 3 * i * LANES;
        for (int k = 0; k < 3; ++k)
            FOR_EACH_LANE(l) {
                a->part[(3 * i + k) * LANES + l] =
                    row_times(box->inverse, k, l, x[l], x[LANES + l], x[2 * LANES + l]);
                a->listed[(3 * i + k) * LANES + l] = x[k * LANES + l];
            }
    }
    TEAM_BARRIER;
}

/* Whether the nearest image of atom j is within a range of atom i, in each lane; and its turns. */
INLINE void look(const Atoms *a, const Box *box, long i, long j, real range, real turns[3][LANES], int *near)
{
    const real *si = a->part + 3 * i * LANES, *sj = a->part + 3 * j * LANES;
    real s[3][LANES];
    for (int k = 0; k < 3; ++k)
        FOR_EACH_LANE(l) {
            real apart = si[k * LANES + l] - sj[k * LANES + l];
            turns[k][l] = (apart + HP_SHIFT) - HP_SHIFT;
            s[k][l] = apart - turns[k][l];
        }
    FOR_EACH_LANE(l) {
        real x = row_times(box->edge, 0, l, s[0][l], s[1][l], s[2][l]);
        real y = row_times(box->edge, 1, l, s[0][l], s[1][l], s[2][l]);
        real z = row_times(box->edge, 2, l, s[0][l], s[1][l], s[2][l]);
        near[l] = MUL_ADD(z, z, MUL_ADD(y, y, x * x)) < range * range;
    }
}

/* Adds atom j to a list, once for each image in which a lane sees it near; images in rising order. */
INLINE int list_images(int *list, int count, long j, real turns[3][LANES], int *near)
{
    int image[LANES];
    for (int k = 0; k < 3; ++k)
        FOR_EACH_LANE(l) turns[k][l] = hp_min(hp_max(turns[k][l], R(-IMAGE_REACH)), R(IMAGE_REACH));
    FOR_EACH_LANE(l)
        image[l] = (int)((turns[0][l] * IMAGE_SIDE + turns[1][l]) * IMAGE_SIDE + turns[2][l]) + NIMAGE / 2;
    while (LANES_ANY(near)) {
        int next = NIMAGE;
        for (int l = 0; l < LANES; ++l)
            next = near[l] && image[l] < next ? image[l] : next;
        for (int l = 0; l < LANES; ++l)
            near[l] = near[l] && image[l] != next;
        list[count++] = (int)(j << IMAGE_BITS) | next;
    }
    return count;
}

/* Lists, for each atom, who may come inside the cut-off before the lists are made anew. A box that is
   crowded beyond what a lattice could be has blown up; its velocities tell. */
INLINE void make_lists(Atoms *a, const Box *box, real range)
{
    find_fractions(a, box);
    FOR_EACH_POINT(i, a->natom) {
        int count = 0, *list = a->list + i * a->most * LANES, own[LANES];
        FOR_EACH_LANE(l) own[l] = 0;
        for (long j = EACH_PAIR_ONCE ? i + 1 : 0; j < a->natom; ++j) {
            real turns[3][LANES];
            int near[LANES];
            look(a, box, i, j, range, turns, near);
            if (j == i || !LANES_ANY(near))
                continue;
            FOR_EACH_LANE(l) {
                own[l] += near[l];
                near[l] = near[l] && own[l] <= a->most;
            }
            count = list_images(list, count, j, turns, near);
        }
        a->count[i] = count;
        FOR_EACH_LANE(l) a->v[3 * i * LANES + l] = own[l] > a->most ? HP_LARGEST : a->v[3 * i * LANES + l];
    }
}

/* Whether an atom of any lane has moved so far that a pair may have come inside unlisted. */
INLINE int lists_are_old(const Atoms *a, real skin)
{
    real largest[LANES];
    int old[LANES];
    FOR_EACH_LANE(l) largest[l] = 0;
    FOR_EACH_POINT(i, a->natom) {
        const real *x = a->x + 3 * i * LANES, *before = a->listed + 3 * i * LANES;
        FOR_EACH_LANE(l) {
            real dx = x[l] - before[l], dy = x[LANES + l] - before[LANES + l];
            real dz = x[2 * LANES + l] - before[2 * LANES + l];
            largest[l] = hp_max(largest[l], MUL_ADD(dz, dz, MUL_ADD(dy, dy, dx * dx)));
        }
    }
    TEAM_MAX(largest);
    real allowed = R(0.25) * skin * skin;
    FOR_EACH_LANE(l) old[l] = largest[l] > allowed;
    return LANES_ANY(old);
}
