/* Part of unit_cell_3d.c: the points of a periodic cube of n x n x n points, n even.

   Points are red where x + y + z is even, else black, so that neighbours differ. Each colour is stored by
   itself as [z][y][h], x = 2 h or 2 h + 1. unit_cell_plane.h says the same of a square. */

#define DIM 3
#define LOADS 1       /* solved together: the vectors of one fill the caches already */
#define SIDES 6       /* of a point */
#define CHILDREN 4    /* red points in an aggregate of 2 x 2 x 2 */
#define NCOMPONENT 6  /* xx, yy, zz, yz, xz, xy */
/* The component c of a tensor has the indices (FIRST_INDEX(c), SECOND_INDEX(c)). */
#define FIRST_INDEX(c) ((c) < 3 ? (c) : (c) == 3 ? 1 : 0)
#define SECOND_INDEX(c) ((c) < 3 ? (c) : (c) == 5 ? 1 : 2)
#define RED 0
#define BLACK 1
enum { LEFT, RIGHT, DOWN, UP, BACK, FRONT }; /* -x, +x, -y, +y, -z, +z */

/* The place of a point of one colour: loops over it, and the arguments that name it. */
#define FOR_EACH_PLACE(n) FOR_EACH_POINT_3D(h, y, z, (n) / 2, n, n)
#define PLACE h, y, z
/* The same for the points of the next level, of both colours, and their red children. */
#define FOR_EACH_AGGREGATE(n) FOR_EACH_POINT_3D(X, Y, Z, n, n, n)
#define CHILD(k) X, 2 * Y + ((k) & 1), 2 * Z + (k) / 2

typedef struct {
    long left, right, down, up, back, front;
} Around;

INLINE long number_of_points(long n) { return n * n * n; }

INLINE long point(long n, long h, long y, long z) { return (z * n + y) * (n / 2) + h; }

INLINE long x_of(long h, long y, long z, int colour) { return 2 * h + ((y + z + colour) & 1); }

/* Where a point stands in the arrays of a caller, [z][y][x]. */
INLINE long natural(long n, long h, long y, long z, int colour) { return (z * n + y) * n + x_of(h, y, z, colour); }

INLINE long step_down(long x, long n) { return x == 0 ? n - 1 : x - 1; }

INLINE long step_up(long x, long n) { return x == n - 1 ? 0 : x + 1; }

/* Where the neighbours of a point, which all have the other colour, stand. */
INLINE Around around(long n, long h, long y, long z, int colour)
{
    long shift = (y + z + colour + 1) & 1, half = n / 2, row = (z * n + y) * half;
    long left = h - shift, right = h + 1 - shift;
    Around at;
    at.left = row + (left < 0 ? half - 1 : left);
    at.right = row + (right == half ? 0 : right);
    at.down = (z * n + step_down(y, n)) * half + h;
    at.up = (z * n + step_up(y, n)) * half + h;
    at.back = (step_down(z, n) * n + y) * half + h;
    at.front = (step_up(z, n) * n + y) * half + h;
    return at;
}

INLINE void list_around(Around at, long list[SIDES])
{
    list[LEFT] = at.left, list[RIGHT] = at.right, list[DOWN] = at.down, list[UP] = at.up;
    list[BACK] = at.back, list[FRONT] = at.front;
}

/* The point of the next level that holds a red point; both its colours stand one after the other. */
INLINE long parent(long coarse_n, long h, long y, long z)
{
    long Y = y / 2, Z = z / 2, half = coarse_n / 2;
    return ((h + Y + Z) & 1) * (coarse_n * coarse_n * half) + (Z * coarse_n + Y) * half + h / 2;
}

/* Number of the face of (x, y, z) on a side; it is kept by the black one of the two points. */
INLINE long face_of(long n, long x, long y, long z, int side)
{
    if (((x + y + z) & 1) == RED) {
        x = side == LEFT ? step_down(x, n) : side == RIGHT ? step_up(x, n) : x;
        y = side == DOWN ? step_down(y, n) : side == UP ? step_up(y, n) : y;
        z = side == BACK ? step_down(z, n) : side == FRONT ? step_up(z, n) : z;
        side ^= 1;
    }
    return ((z * n + y) * (n / 2) + x / 2) * SIDES + side;
}

/* The fine faces that make up one of a black point of the next level. */
INLINE void faces_across(long n, long h, long y, long z, int side, long list[CHILDREN])
{
    long x = 2 * x_of(h, y, z, BLACK) + (side == RIGHT);
    long low_y = 2 * y + (side == UP), low_z = 2 * z + (side == FRONT);
    for (int k = 0; k < CHILDREN; ++k) {
        int a = k & 1, b = k / 2, axis = side / 2;
        list[k] = face_of(n, x + (axis > 0 ? a : 0), low_y + (axis == 0 ? a : axis == 2 ? b : 0),
                          low_z + (axis < 2 ? b : 0), side);
    }
}

/* Phases of a point and of its neighbours in an image [z][y][x]. */
INLINE void read_labels(const int *labels, long n, long h, long y, long z, int *own, int other[SIDES])
{
    long x = x_of(h, y, z, BLACK);
    *own = labels[(z * n + y) * n + x];
    other[LEFT] = labels[(z * n + y) * n + step_down(x, n)];
    other[RIGHT] = labels[(z * n + y) * n + step_up(x, n)];
    other[DOWN] = labels[(z * n + step_down(y, n)) * n + x];
    other[UP] = labels[(z * n + step_up(y, n)) * n + x];
    other[BACK] = labels[(step_down(z, n) * n + y) * n + x];
    other[FRONT] = labels[(step_up(z, n) * n + y) * n + x];
}

/* Faces of one point and one lane, towards its neighbours, loaded once for all loads; and sums over them. */
#define STENCIL(number, Faces, of_black, of_red, sum_of, total_of, mul_add)                            \
    typedef struct {                                                                                   \
        number left, right, down, up, back, front;                                                     \
    } Faces;                                                                                           \
    INLINE Faces of_black(const number *face, long i, int l)                                           \
    {                                                                                                  \
        Faces k = {face[FACE(i, LEFT)], face[FACE(i, RIGHT)], face[FACE(i, DOWN)],                     \
                   face[FACE(i, UP)],   face[FACE(i, BACK)],  face[FACE(i, FRONT)]};                   \
        return k;                                                                                      \
    }                                                                                                  \
    INLINE Faces of_red(const number *face, Around at, int l)                                          \
    {                                                                                                  \
        Faces k = {face[FACE(at.left, RIGHT)], face[FACE(at.right, LEFT)], face[FACE(at.down, UP)],    \
                   face[FACE(at.up, DOWN)],    face[FACE(at.back, FRONT)], face[FACE(at.front, BACK)]}; \
        return k;                                                                                      \
    }                                                                                                  \
    INLINE number sum_of(Faces k, const number *v, Around at, int j, int l)                            \
    {                                                                                                  \
        number x = mul_add(k.left, v[AT(at.left, j)], k.right * v[AT(at.right, j)]);                   \
        number y = mul_add(k.down, v[AT(at.down, j)], k.up * v[AT(at.up, j)]);                         \
        return mul_add(k.front, v[AT(at.front, j)], mul_add(k.back, v[AT(at.back, j)], x + y));          \
    }                                                                                                  \
    INLINE number total_of(Faces k) { return k.left + k.right + (k.down + k.up) + (k.back + k.front); }

/* ------------------------------------------------------------ points of both colours, as [z][y][x] */

/* The points around a point, itself in the middle, in the order -x to +x, then -y to +y, then -z to +z. */
#define BLOCK 27
#define MIDDLE 13
#define FOR_EACH_PIXEL(n) FOR_EACH_POINT_3D(x, y, z, n, n, n)
#define PIXEL x, y, z
/* Every second one along each axis: `turn` 0 to 7 says which; no two of them share a corner. */
#define FOR_EACH_PIXEL_IN_TURN(n) FOR_EACH_POINT_3D(X, Y, Z, (n) / 2, (n) / 2, (n) / 2)
#define PIXEL_IN_TURN(turn) 2 * X + ((turn) & 1), 2 * Y + ((turn) >> 1 & 1), 2 * Z + ((turn) >> 2)

/* Where the points of a block stand. */
INLINE void list_block(long n, long x, long y, long z, long block[BLOCK])
{
    long column[3] = {step_down(x, n), x, step_up(x, n)};
    long row[3] = {step_down(y, n) * n, y * n, step_up(y, n) * n};
    long layer[3] = {step_down(z, n) * n * n, z * n * n, step_up(z, n) * n * n};
    UNROLLED for (int k = 0; k < BLOCK; ++k) block[k] = layer[k / 9] + row[k / 3 % 3] + column[k % 3];
}
