// Heat conduction as in heat.c, for a conductivity without cross terms: div(K grad T), K diagonal.
//
// The temperature is read where it stands, without ghosts; what lies beyond the block comes as one plane for
// each side. So no copy of the whole field is made for the sake of its rim, which costs as much as the
// stencil itself. With a length of the step the result is Forward Euler's. What enters through physical
// sides is added last.
//
// Memory is the limit. A row is done in strips: while one is computed, what strips further on are made of is
// on its way, and the result of a large block goes to memory past the caches. Strips at the rim of the block
// are done apart, so that the others are nothing but the sum.

// From so many bytes of result on, no second cache holds it together with what it is made of. The third may,
// but seldom does when the next step begins: the fine scale works in between.
#define LARGE (512 * 1024)

// The arguments of the kernels. Where there is no axis y or z, its n is 1 and nothing is given for it.
typedef struct {
    long nx, ny, nz;
    const real *faces, *behind_x, *behind_y, *behind_z;
    const real *t, *ghost_x, *ghost_y, *ghost_z;
    const real *side_x, *side_y, *side_z;
    real per_hx, per_hy, per_hz;
    const int *open_sides;
    real *result;
    int past_caches;
} Block;

INLINE Block block_of(long nx, long ny, long nz, const real *faces, const real *t, const int *open_sides,
                      real *result)
{
    Block block;
    block.nx = nx;
    block.ny = ny;
    block.nz = nz;
    block.faces = faces;
    block.t = t;
    block.open_sides = open_sides;
    block.result = result;
    block.past_caches = nz * ny * nx * (long)sizeof(real) >= LARGE;
    return block;
}

// What the result is made of: T counts `keep` times, and heat per volume and time `scale` times, over c.
typedef struct {
    real keep, scale;
    const real *c; // none: 1
} Step;

// The step of length dt; without one, the heat alone.
INLINE Step step_of(real dt, const real *c)
{
    Step step = {dt > 0 ? R(1) : R(0), dt > 0 ? dt : R(1), c};
    return step;
}

INLINE Step step_at(Step step, long cell)
{
    Step there = {step.keep, step.scale, step.c ? step.c + cell : step.c};
    return there;
}

// An axis across a row: conductances of the faces ahead and behind, temperatures of the rows there.
typedef struct {
    const real *face_ahead, *face_back, *back, *ahead;
} Across;

INLINE Across across_at(Across axis, long cell)
{
    Across there = {axis.face_ahead + cell, axis.face_back + cell, axis.back + cell, axis.ahead + cell};
    return there;
}

typedef struct {
    long j, l;              // its place along y and z
    long start;             // its first cell in the block
    const real *t, *fx;
    const real *low, *high; // what lies beyond its ends; none: the neighbour in memory will do
    real behind;            // conductance of the face at its low end
    Across y, z;
    int rim, begins, ends;  // whether all of it, its first, its last strip is at the rim of the block
} Row;

// No heat passes a physical side, as its conductance is 0: so the neighbour in memory, of another row, will do
// for what lies beyond it, if there is one and as long as it is finite.
INLINE Row row_of(const Block *block, int ndim, long number)
{
    long nx = block->nx, ny = block->ny, nz = block->nz, layer = ny * nx, last = ny * nz - 1;
    Row row;
    row.j = ndim == 3 ? number % ny : number;
    row.l = ndim == 3 ? number / ny : 0;
    row.start = number * nx;
    row.t = block->t + row.start;
    row.fx = block->faces + row.start;
    row.behind = block->behind_x[number];
    int low = number == 0 || row.behind != 0 || row.fx[-1] != 0;
    int high = number == last || row.fx[nx - 1] != 0;
    row.low = low ? block->ghost_x + number : 0;
    row.high = high ? block->ghost_x + last + 1 + number : 0;
    Across none = {row.fx, row.fx, row.t, row.t};
    row.y = none;
    if (ndim > 1) {
        row.y.face_ahead = row.fx + nz * layer;
        row.y.face_back = row.j > 0 ? row.y.face_ahead - nx : block->behind_y + row.l * nx;
        row.y.back = row.j > 0 ? row.t - nx : block->ghost_y + row.l * nx;
        row.y.ahead = row.j < ny - 1 ? row.t + nx : block->ghost_y + (nz + row.l) * nx;
    }
    row.z = row.y; // of the last axis, where there are two
    if (ndim > 2) {
        row.z.face_ahead = row.y.face_ahead + nz * layer;
        row.z.face_back = row.l > 0 ? row.z.face_ahead - layer : block->behind_z + row.j * nx;
        row.z.back = row.l > 0 ? row.t - layer : block->ghost_z + row.j * nx;
        row.z.ahead = row.l < nz - 1 ? row.t + layer : block->ghost_z + (ny + row.j) * nx;
    }
    const int *open = block->open_sides;
    row.begins = row.low || open[0];
    row.ends = row.high || open[1];
    row.rim = ndim > 1 && ((open[2] && row.j == 0) || (open[3] && row.j == ny - 1));
    if (ndim > 2)
        row.rim |= (open[4] && row.l == 0) || (open[5] && row.l == nz - 1);
    return row;
}

// Heat that flows into a cell along an axis, per volume: from the cell behind and from the one ahead.
INLINE real inflow(real face_ahead, real face_back, real back, real here, real ahead)
{
    return face_ahead * (ahead - here) - face_back * (here - back);
}

INLINE real inflow_across(Across axis, const real *t, long i)
{
    return inflow(axis.face_ahead[i], axis.face_back[i], axis.back[i], t[i], axis.ahead[i]);
}

// The cells of a strip, all arrays beginning with it; t has a cell more at both ends.
INLINE void strip_result(const real *fx, const real *t, Across y, Across z, int ndim, Step step, long count,
                         real *result)
{
    real heat[STRIP];
    FOR_EACH_IN_STRIP(i, count) {
        heat[i] = inflow(fx[i], fx[i - 1], t[i - 1], t[i], t[i + 1]);
        if (ndim > 1) heat[i] += inflow_across(y, t, i);
        if (ndim > 2) heat[i] += inflow_across(z, t, i);
    }
    // Two loops, as one with the choice inside is not vectorised.
    if (step.c)
        FOR_EACH_IN_STRIP(i, count) result[i] = step.keep * t[i] + step.scale * heat[i] / step.c[i];
    else
        FOR_EACH_IN_STRIP(i, count) result[i] = step.keep * t[i] + step.scale * heat[i];
}

// Heat that enters a cell through a physical side of nface faces, per volume. `side` holds for each face:
// coefficient [W/(m2 K)], value [K], flux [W/m2], share of the cross part [1].
INLINE real side_source(const real *side, long nface, long face, real t, real per_h)
{
    return (side[face] * (side[nface + face] - t) + side[2 * nface + face]) * per_h;
}

// What enters cells through a side, whose faces from `face` on are theirs.
INLINE void add_side(const real *side, long nface, long face, real per_h, const real *t, Step step, long count,
                     real *result)
{
    FOR_EACH_IN_STRIP(i, count) {
        real heat = side_source(side, nface, face + i, t[i], per_h);
        result[i] += step.scale * heat / (step.c ? step.c[i] : R(1));
    }
}

INLINE void add_sides(const Block *block, const Row *row, int ndim, const real *t, Step step, long first,
                      long count, real *result)
{
    long nx = block->nx, ny = block->ny, nz = block->nz;
    const int *open = block->open_sides;
    for (int high = 0; high < 2; ++high) {
        long nface = ny * nz, end = high ? count - 1 : 0;
        if (open[high] && first + end == (high ? nx - 1 : 0))
            add_side(block->side_x + high * 4 * nface, nface, row->l * ny + row->j, block->per_hx, t + end,
                     step_at(step, end), 1, result + end);
    }
    for (int high = 0; ndim > 1 && high < 2; ++high) {
        long nface = nx * nz;
        if (open[2 + high] && row->j == (high ? ny - 1 : 0))
            add_side(block->side_y + high * 4 * nface, nface, row->l * nx + first, block->per_hy, t, step, count,
                     result);
    }
    for (int high = 0; ndim > 2 && high < 2; ++high) {
        long nface = nx * ny;
        if (open[4 + high] && row->l == (high ? nz - 1 : 0))
            add_side(block->side_z + high * 4 * nface, nface, row->j * nx + first, block->per_hz, t, step, count,
                     result);
    }
}

// A strip at the rim, or a row that is shorter: where something else than their neighbours in memory lies
// beyond them, its temperatures are copied, and its faces with that behind the first.
INLINE void rim_strip(const Block *block, Row row, int ndim, Step step, long first, long count)
{
    const real *t = row.t + first, *fx = row.fx + first;
    const real *low = first == 0 ? row.low : 0, *high = first + count == block->nx ? row.high : 0;
    real t_copy[STRIP + 2], fx_copy[STRIP + 1], result[STRIP];
    if (low || high) {
        for (long i = 0; i < count; ++i) {
            t_copy[i + 1] = t[i];
            fx_copy[i + 1] = fx[i];
        }
        t_copy[0] = low ? *low : t[-1];
        t_copy[count + 1] = high ? *high : t[count];
        fx_copy[0] = low ? row.behind : fx[-1];
        t = t_copy + 1;
        fx = fx_copy + 1;
    }
    strip_result(fx, t, across_at(row.y, first), across_at(row.z, first), ndim, step, count, result);
    add_sides(block, &row, ndim, t, step, first, count, result);
    STORE_STRIP(block->result + row.start + first, result, count, block->past_caches);
}

// SEPARATE, so that they leave the registers to the other strips; a whole strip has loops of known length.
#define RIM_STRIP(name, ndim)                                                             \
    SEPARATE void name(const Block *block, Row row, Step step, long first)                \
    {                                                                                     \
        if (block->nx - first >= STRIP)                                                   \
            rim_strip(block, row, ndim, step, first, STRIP);                              \
        else                                                                              \
            rim_strip(block, row, ndim, step, first, block->nx - first);                  \
    }
RIM_STRIP(rim_strip_1d, 1)
RIM_STRIP(rim_strip_2d, 2)
RIM_STRIP(rim_strip_3d, 3)

// What comes from memory, and was not read for a row before.
INLINE void fetch_ahead(const real *fx, Across y, Across z, int ndim, Step step)
{
    FETCH_AHEAD(fx);
    if (ndim > 1)
        FETCH_AHEAD(y.face_ahead);
    if (ndim > 2)
        FETCH_AHEAD(z.face_ahead);
    FETCH_AHEAD(z.ahead);
    if (step.c)
        FETCH_AHEAD(step.c);
}

INLINE void do_strips(const Block *block, int ndim, Row row, Step step)
{
    FOR_EACH_STRIP(first, block->nx) {
        Across y = across_at(row.y, first), z = across_at(row.z, first);
        Step here = step_at(step, first);
        fetch_ahead(row.fx + first, y, z, ndim, here);
        long rest = block->nx - first;
        if (rest < STRIP || row.rim || (first == 0 && row.begins) || (rest == STRIP && row.ends)) {
            if (ndim == 1)
                rim_strip_1d(block, row, here, first);
            else if (ndim == 2)
                rim_strip_2d(block, row, here, first);
            else
                rim_strip_3d(block, row, here, first);
        } else {
            real result[STRIP];
            strip_result(row.fx + first, row.t + first, y, z, ndim, here, STRIP, result);
            STORE_STRIP(block->result + row.start + first, result, STRIP, block->past_caches);
        }
    }
}

INLINE void do_row(const Block *block, int ndim, real dt, const real *capacity, long number)
{
    Row row = row_of(block, ndim, number);
    // Twice, so that whether there is a capacity is known when the loops are compiled.
    if (capacity)
        do_strips(block, ndim, row, step_of(dt, capacity + row.start));
    else
        do_strips(block, ndim, row, step_of(dt, 0));
}

// K = (xx).
KERNEL heat_diagonal_1d(
    long nx,                  // owned cells along x
    real hx,                  // [m] cell size along x
    const int *open_sides,    // (2) 1 where heat may enter through the physical side x- x+, else 0
    const real *faces,        // (1, nx) [W/(m3 K)] what heat_faces gives along x
    const real *behind_x,     // (1) [W/(m3 K)] the same of the faces before the first cells
    const real *temperature,  // (nx) [K]
    const real *ghost_x,      // (2) [K] beyond the sides x- x+; any number beyond physical ones
    const real *side_x,       // (2, 4, 1) [SI] sides x- x+: coefficient, value, flux, share
    real dt,                  // [s] length of the step; 0: none, the divergence is asked
    const real *capacity,     // optional (nx) [J/(m3 K)] heat capacity rho c of a step, 1 if left out
    real *divergence          // (nx) [W/m3] div(K grad T); with a step [K] T after dt
) {
    Block block = block_of(nx, 1, 1, faces, temperature, open_sides, divergence);
    block.behind_x = behind_x;
    block.ghost_x = ghost_x;
    block.side_x = side_x;
    block.per_hx = R(1) / hx;
    FOR_EACH_ROW(row, 1) do_row(&block, 1, dt, capacity, row);
    STORED_PAST_CACHES;
}

// K = (xx, yy).
KERNEL heat_diagonal_2d(
    long nx,                  // owned cells along x
    long ny,                  // owned cells along y
    real hx,                  // [m] cell size along x
    real hy,                  // [m] cell size along y
    const int *open_sides,    // (4) 1 where heat may enter through the physical side x- x+ y- y+, else 0
    const real *faces,        // (2, ny, nx) [W/(m3 K)] what heat_faces gives along x, y
    const real *behind_x,     // (ny) [W/(m3 K)] the same of the faces before the first cells
    const real *behind_y,     // (nx) [W/(m3 K)] the same before the first cells along y
    const real *temperature,  // (ny, nx) [K]
    const real *ghost_x,      // (2, ny) [K] beyond the sides x- x+; any number beyond physical ones
    const real *ghost_y,      // (2, nx) [K] beyond the sides y- y+
    const real *side_x,       // (2, 4, ny) [SI] sides x- x+: coefficient, value, flux, share
    const real *side_y,       // (2, 4, nx) [SI] sides y- y+
    real dt,                  // [s] length of the step; 0: none, the divergence is asked
    const real *capacity,     // optional (ny, nx) [J/(m3 K)] heat capacity rho c of a step, 1 if left out
    real *divergence          // (ny, nx) [W/m3] div(K grad T); with a step [K] T after dt
) {
    Block block = block_of(nx, ny, 1, faces, temperature, open_sides, divergence);
    block.behind_x = behind_x;
    block.behind_y = behind_y;
    block.ghost_x = ghost_x;
    block.ghost_y = ghost_y;
    block.side_x = side_x;
    block.side_y = side_y;
    block.per_hx = R(1) / hx;
    block.per_hy = R(1) / hy;
    FOR_EACH_ROW(row, ny) do_row(&block, 2, dt, capacity, row);
    STORED_PAST_CACHES;
}

// K = (xx, yy, zz).
KERNEL heat_diagonal_3d(
    long nx,                  // owned cells along x
    long ny,                  // owned cells along y
    long nz,                  // owned cells along z
    real hx,                  // [m] cell size along x
    real hy,                  // [m] cell size along y
    real hz,                  // [m] cell size along z
    const int *open_sides,    // (6) 1 where heat may enter through the physical side x- x+ y- y+ z- z+, else 0
    const real *faces,        // (3, nz, ny, nx) [W/(m3 K)] what heat_faces gives along x, y, z
    const real *behind_x,     // (nz, ny) [W/(m3 K)] the same of the faces before the first cells
    const real *behind_y,     // (nz, nx) [W/(m3 K)] the same before the first cells along y
    const real *behind_z,     // (ny, nx) [W/(m3 K)] the same before the first cells along z
    const real *temperature,  // (nz, ny, nx) [K]
    const real *ghost_x,      // (2, nz, ny) [K] beyond the sides x- x+; any number beyond physical ones
    const real *ghost_y,      // (2, nz, nx) [K] beyond the sides y- y+
    const real *ghost_z,      // (2, ny, nx) [K] beyond the sides z- z+
    const real *side_x,       // (2, 4, nz, ny) [SI] sides x- x+: coefficient, value, flux, share
    const real *side_y,       // (2, 4, nz, nx) [SI] sides y- y+
    const real *side_z,       // (2, 4, ny, nx) [SI] sides z- z+
    real dt,                  // [s] length of the step; 0: none, the divergence is asked
    const real *capacity,     // optional (nz, ny, nx) [J/(m3 K)] heat capacity rho c of a step, 1 if left out
    real *divergence          // (nz, ny, nx) [W/m3] div(K grad T); with a step [K] T after dt
) {
    Block block = block_of(nx, ny, nz, faces, temperature, open_sides, divergence);
    block.behind_x = behind_x;
    block.behind_y = behind_y;
    block.behind_z = behind_z;
    block.ghost_x = ghost_x;
    block.ghost_y = ghost_y;
    block.ghost_z = ghost_z;
    block.side_x = side_x;
    block.side_y = side_y;
    block.side_z = side_z;
    block.per_hx = R(1) / hx;
    block.per_hy = R(1) / hy;
    block.per_hz = R(1) / hz;
    FOR_EACH_ROW(row, ny * nz) do_row(&block, 3, dt, capacity, row);
    STORED_PAST_CACHES;
}
