/* Part of unit_cell.c and others: the points of a periodic square of n x n points, n even.

   Points are red where x + y is even, else black, so that neighbours differ. Each colour is stored by itself
   as [y][h], x = 2 h or 2 h + 1. unit_cell_space.h says the same of a cube. */

#define DIM 2
#define LOADS 2       /* solved together, as they share the faces */
#define SIDES 4       /* of a point */
#define CHILDREN 2    /* red points in an aggregate of 2 x 2 */
#define NCOMPONENT 3  /* xx, yy, xy */
/* The component c of a tensor has the indices (FIRST_INDEX(c), SECOND_INDEX(c)). */
#define FIRST_INDEX(c) ((c) < 2 ? (c) : 0)
#define SECOND_INDEX(c) ((c) < 2 ? (c) : 1)
#define RED 0
#define BLACK 1
enum { LEFT, RIGHT, DOWN, UP };

/* The place of a point of one colour: loops over it, and the arguments that name it. */
#define FOR_EACH_PLACE(n) FOR_EACH_POINT_2D(h, y, (n) / 2, n)
#define PLACE h, y
/* The same for the points of the next level, of both colours, and their red children. */
#define FOR_EACH_AGGREGATE(n) FOR_EACH_POINT_2D(X, Y, n, n)
#define CHILD(k) X, 2 * Y + (k)

typedef struct {
    long left, right, down, up;
} Around;

INLINE long number_of_points(long n) { return n * n; }

INLINE long point(long n, long h, long y) { return y * (n / 2) + h; }

INLINE long x_of(long h, long y, int colour) { return 2 * h + ((y + colour) & 1); }

/* Where a point stands in the arrays of a caller, [y][x]. */
INLINE long natural(long n, long h, long y, int colour) { return y * n + x_of(h, y, colour); }

/* Where the neighbours of a point, which all have the other colour, stand. */
INLINE Around around(long n, long h, long y, int colour)
{
    long shift = (y + colour + 1) & 1, half = n / 2;
    long left = h - shift, right = h + 1 - shift;
    Around at;
    at.left = y * half + (left < 0 ? half - 1 : left);
    at.right = y * half + (right == half ? 0 : right);
    at.down = (y == 0 ? n - 1 : y - 1) * half + h;
    at.up = (y == n - 1 ? 0 : y + 1) * half + h;
    return at;
}

INLINE void list_around(Around at, long list[SIDES])
{
    list[LEFT] = at.left, list[RIGHT] = at.right, list[DOWN] = at.down, list[UP] = at.up;
}

/* The point of the next level that holds a red point; both its colours stand one after the other. */
INLINE long parent(long coarse_n, long h, long y)
{
    long Y = y / 2;
    return ((h + Y) & 1) * (coarse_n * coarse_n / 2) + Y * (coarse_n / 2) + h / 2;
}

/* Number of the face of (x, y) on a side; it is kept by the black one of the two points. */
INLINE long face_of(long n, long x, long y, int side)
{
    if (((x + y) & 1) == RED) {
        x += (side == RIGHT) - (side == LEFT), y += (side == UP) - (side == DOWN), side ^= 1;
        x = x < 0 ? n - 1 : x == n ? 0 : x;
        y = y < 0 ? n - 1 : y == n ? 0 : y;
    }
    return (y * (n / 2) + x / 2) * SIDES + side;
}

/* The fine faces that make up one of a black point of the next level. */
INLINE void faces_across(long n, long h, long y, int side, long list[CHILDREN])
{
    long x = 2 * x_of(h, y, BLACK) + (side == RIGHT), low = 2 * y + (side == UP);
    int along_x = side == LEFT || side == RIGHT;
    for (int k = 0; k < CHILDREN; ++k)
        list[k] = along_x ? face_of(n, x, low + k, side) : face_of(n, x + k, low, side);
}

/* Phases of a point and of its neighbours in an image [y][x]. */
INLINE void read_labels(const int *labels, long n, long h, long y, int *own, int other[SIDES])
{
    long x = x_of(h, y, BLACK);
    *own = labels[y * n + x];
    other[LEFT] = labels[y * n + (x == 0 ? n - 1 : x - 1)];
    other[RIGHT] = labels[y * n + (x == n - 1 ? 0 : x + 1)];
    other[DOWN] = labels[(y == 0 ? n - 1 : y - 1) * n + x];
    other[UP] = labels[(y == n - 1 ? 0 : y + 1) * n + x];
}

/* Faces of one point and one lane, towards its neighbours, loaded once for all loads; and sums over them. */
#define STENCIL(number, Faces, of_black, of_red, sum_of, total_of, mul_add)                          \
    typedef struct {                                                                                 \
        number left, right, down, up;                                                                \
    } Faces;                                                                                         \
    INLINE Faces of_black(const number *face, long i, int l)                                         \
    {                                                                                                \
        Faces k = {face[FACE(i, LEFT)], face[FACE(i, RIGHT)], face[FACE(i, DOWN)], face[FACE(i, UP)]}; \
        return k;                                                                                    \
    }                                                                                                \
    INLINE Faces of_red(const number *face, Around at, int l)                                        \
    {                                                                                                \
        Faces k = {face[FACE(at.left, RIGHT)], face[FACE(at.right, LEFT)], face[FACE(at.down, UP)],  \
                   face[FACE(at.up, DOWN)]};                                                         \
        return k;                                                                                    \
    }                                                                                                \
    INLINE number sum_of(Faces k, const number *v, Around at, int j, int l)                          \
    {                                                                                                \
        number x = mul_add(k.left, v[AT(at.left, j)], k.right * v[AT(at.right, j)]);                 \
        return mul_add(k.up, v[AT(at.up, j)], mul_add(k.down, v[AT(at.down, j)], x));                \
    }                                                                                                \
    INLINE number total_of(Faces k) { return k.left + k.right + (k.down + k.up); }

/* ------------------------------------------------------------ points of both colours, as [y][x] */

/* The points around a point, itself in the middle, in the order -x to +x, then -y to +y. */
#define BLOCK 9
#define MIDDLE 4
#define FOR_EACH_PIXEL(n) FOR_EACH_POINT_2D(x, y, n, n)
#define PIXEL x, y
/* Every second one along each axis: `turn` 0 to 3 says which; no two of them share a corner. */
#define FOR_EACH_PIXEL_IN_TURN(n) FOR_EACH_POINT_2D(X, Y, (n) / 2, (n) / 2)
#define PIXEL_IN_TURN(turn) 2 * X + ((turn) & 1), 2 * Y + ((turn) >> 1)

/* Where the points of a block stand. */
INLINE void list_block(long n, long x, long y, long block[BLOCK])
{
    long column[3] = {x == 0 ? n - 1 : x - 1, x, x == n - 1 ? 0 : x + 1};
    long row[3] = {(y == 0 ? n - 1 : y - 1) * n, y * n, (y == n - 1 ? 0 : y + 1) * n};
    UNROLLED for (int k = 0; k < BLOCK; ++k) block[k] = row[k / 3] + column[k % 3];
}
