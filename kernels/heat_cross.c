// Heat conduction as in heat.c: what cross terms of the conductivity add to what heat_diagonal.c gives.
//
// Arrays with ghosts hold one more cell on every side: ghosts carry the values of neighbouring ranks or of the
// periodic image, edges and corners too. Beyond a physical side nothing is read. With a length of the step
// the same pass takes Forward Euler's step with the whole divergence.

// Neighbours of a cell along an axis; a step of 0 stands for a physical side.
typedef struct {
    long back, ahead;
    real per_h;   // 1 / cell size
    real per_gap; // 1 / distance of the two neighbours that a slope uses
} Axis;

INLINE Axis axis_at(long index, long n, long stride, const int *physical, real h)
{
    Axis axis;
    axis.back = index == 0 && physical[0] ? 0 : stride;
    axis.ahead = index == n - 1 && physical[1] ? 0 : stride;
    axis.per_h = R(1) / h;
    axis.per_gap = (axis.back > 0) + (axis.ahead > 0) > 0
                       ? R(1) / (h * (real)((axis.back > 0) + (axis.ahead > 0)))
                       : R(0);
    return axis;
}

INLINE Axis axis_inside(long stride, real h)
{
    Axis axis;
    axis.back = stride;
    axis.ahead = stride;
    axis.per_h = R(1) / h;
    axis.per_gap = R(1) / (h * R(2));
    return axis;
}

INLINE real slope(const real *t, Axis axis) { return (t[axis.ahead] - t[-axis.back]) * axis.per_gap; }

INLINE real cross_flux(const real *k, const real *t, long step, Axis along)
{
    real quarter = step > 0 ? R(0.25) : R(0);
    return quarter * (k[0] + k[step]) * (slope(t, along) + slope(t + step, along));
}

INLINE real cross_divergence(const real *k, const real *t, Axis axis, Axis along)
{
    real out = cross_flux(k, t, axis.ahead, along);
    real in = cross_flux(k - axis.back, t - axis.back, axis.back, along);
    return (out - in) * axis.per_h;
}

INLINE real cross_2d(const real *kxy, const real *t, Axis x, Axis y)
{
    return cross_divergence(kxy, t, x, y) + cross_divergence(kxy, t, y, x);
}

INLINE real cross_3d(const real *kyz, long n, const real *t, Axis x, Axis y, Axis z)
{
    const real *kxz = kyz + n, *kxy = kyz + 2 * n;
    real sum = cross_divergence(kxy, t, x, y) + cross_divergence(kxz, t, x, z);
    sum += cross_divergence(kxy, t, y, x) + cross_divergence(kyz, t, y, z);
    sum += cross_divergence(kxz, t, z, x) + cross_divergence(kyz, t, z, y);
    return sum;
}

// What cross terms add to the heat that enters through a physical side; `along` is the sum of cross
// conductivity times slope along the side.
INLINE real side_shift(const real *side, long nface, long face, int high, real along, real per_h)
{
    return side[3 * nface + face] * (high ? along : -along) * per_h;
}

// K = (xx, yy, xy).
KERNEL heat_cross_2d(
    long nx,                  // owned cells along x
    long ny,                  // owned cells along y
    real hx,                  // [m] cell size along x
    real hy,                  // [m] cell size along y
    const int *physical,      // (4) 1 where the side x- x+ y- y+ is a physical boundary, else 0
    const real *cross,        // (ny + 2, nx + 2) [W/(m K)] component xy of K with ghosts
    const real *temperature,  // (ny + 2, nx + 2) [K] with ghosts
    const real *side_x,       // (2, 4, ny) [SI] sides x- x+: coefficient, value, flux, share
    const real *side_y,       // (2, 4, nx) [SI] sides y- y+
    real dt,                  // [s] length of the step; 0: none, the divergence is asked
    const real *capacity,     // optional (ny, nx) [J/(m3 K)] heat capacity rho c of a step, 1 if left out
    real *divergence          // (ny, nx) [W/m3] is added to; with a step [K] T after dt of it all
) {
    FOR_EACH_ROW(row, ny) {
        long stride = nx + 2, start = (row + 1) * stride + 1;
        const real *t = temperature + start, *kxy = cross + start;
        real *result = divergence + row * nx;
        Axis inside = axis_inside(1, hx), y = axis_at(row, ny, stride, physical + 2, hy);
        long first = physical[0] ? 1 : 0, last = physical[1] ? nx - 1 : nx;
        FOR_EACH_IN_ROW(i, first, last) result[i] += cross_2d(kxy + i, t + i, inside, y);
        ROW_ONCE for (int high = 0; high < 2; ++high) {
            long i = high ? nx - 1 : 0;
            Axis x = axis_at(i, nx, 1, physical, hx);
            int done = high && nx == 1 && physical[0];
            if (physical[high] && !done) result[i] += cross_2d(kxy + i, t + i, x, y);
        }
        ROW_ONCE for (int high = 0; high < 2; ++high)
            if (physical[high]) {
                long i = high ? nx - 1 : 0;
                const real *side = side_x + high * 4 * ny;
                result[i] += side_shift(side, ny, row, high, kxy[i] * slope(t + i, y), R(1) / hx);
            }
        ROW_BARRIER;
        for (int high = 0; high < 2; ++high)
            if (physical[2 + high] && row == (high ? ny - 1 : 0)) {
                const real *side = side_y + high * 4 * nx;
                FOR_EACH_IN_ROW(i, 0, nx) {
                    Axis x = axis_at(i, nx, 1, physical, hx);
                    result[i] += side_shift(side, nx, i, high, kxy[i] * slope(t + i, x), R(1) / hy);
                }
            }
        if (dt > 0 && capacity)
            FOR_EACH_IN_ROW(i, 0, nx) result[i] = t[i] + dt * result[i] / capacity[row * nx + i];
        else if (dt > 0)
            FOR_EACH_IN_ROW(i, 0, nx) result[i] = t[i] + dt * result[i];
    }
}

// K = (xx, yy, zz, yz, xz, xy).
KERNEL heat_cross_3d(
    long nx,                  // owned cells along x
    long ny,                  // owned cells along y
    long nz,                  // owned cells along z
    real hx,                  // [m] cell size along x
    real hy,                  // [m] cell size along y
    real hz,                  // [m] cell size along z
    const int *physical,      // (6) 1 where the side x- x+ y- y+ z- z+ is a physical boundary, else 0
    const real *cross,        // (3, nz + 2, ny + 2, nx + 2) [W/(m K)] yz, xz, xy of K with ghosts
    const real *temperature,  // (nz + 2, ny + 2, nx + 2) [K] with ghosts
    const real *side_x,       // (2, 4, nz, ny) [SI] sides x- x+: coefficient, value, flux, share
    const real *side_y,       // (2, 4, nz, nx) [SI] sides y- y+
    const real *side_z,       // (2, 4, ny, nx) [SI] sides z- z+
    real dt,                  // [s] length of the step; 0: none, the divergence is asked
    const real *capacity,     // optional (nz, ny, nx) [J/(m3 K)] heat capacity rho c of a step, 1 if left out
    real *divergence          // (nz, ny, nx) [W/m3] is added to; with a step [K] T after dt of it all
) {
    FOR_EACH_ROW(row, ny * nz) {
        long j = row % ny, l = row / ny;
        long stride = nx + 2, layer = (ny + 2) * stride, n = (nz + 2) * layer;
        long start = (l + 1) * layer + (j + 1) * stride + 1;
        const real *t = temperature + start, *kyz = cross + start, *kxz = kyz + n, *kxy = kxz + n;
        real *result = divergence + row * nx;
        Axis inside = axis_inside(1, hx);
        Axis y = axis_at(j, ny, stride, physical + 2, hy), z = axis_at(l, nz, layer, physical + 4, hz);
        long first = physical[0] ? 1 : 0, last = physical[1] ? nx - 1 : nx;
        FOR_EACH_IN_ROW(i, first, last) result[i] += cross_3d(kyz + i, n, t + i, inside, y, z);
        ROW_ONCE for (int high = 0; high < 2; ++high) {
            long i = high ? nx - 1 : 0;
            Axis x = axis_at(i, nx, 1, physical, hx);
            int done = high && nx == 1 && physical[0];
            if (physical[high] && !done) result[i] += cross_3d(kyz + i, n, t + i, x, y, z);
        }
        ROW_ONCE for (int high = 0; high < 2; ++high)
            if (physical[high]) {
                long i = high ? nx - 1 : 0, nface = ny * nz;
                const real *side = side_x + high * 4 * nface;
                real along = kxy[i] * slope(t + i, y) + kxz[i] * slope(t + i, z);
                result[i] += side_shift(side, nface, row, high, along, R(1) / hx);
            }
        ROW_BARRIER;
        for (int high = 0; high < 2; ++high)
            if (physical[2 + high] && j == (high ? ny - 1 : 0)) {
                long nface = nx * nz, face = l * nx;
                const real *side = side_y + high * 4 * nface;
                FOR_EACH_IN_ROW(i, 0, nx) {
                    Axis x = axis_at(i, nx, 1, physical, hx);
                    real along = kxy[i] * slope(t + i, x) + kyz[i] * slope(t + i, z);
                    result[i] += side_shift(side, nface, face + i, high, along, R(1) / hy);
                }
            }
        for (int high = 0; high < 2; ++high)
            if (physical[4 + high] && l == (high ? nz - 1 : 0)) {
                long nface = nx * ny, face = j * nx;
                const real *side = side_z + high * 4 * nface;
                FOR_EACH_IN_ROW(i, 0, nx) {
                    Axis x = axis_at(i, nx, 1, physical, hx);
                    real along = kxz[i] * slope(t + i, x) + kyz[i] * slope(t + i, y);
                    result[i] += side_shift(side, nface, face + i, high, along, R(1) / hz);
                }
            }
        if (dt > 0 && capacity)
            FOR_EACH_IN_ROW(i, 0, nx) result[i] = t[i] + dt * result[i] / capacity[row * nx + i];
        else if (dt > 0)
            FOR_EACH_IN_ROW(i, 0, nx) result[i] = t[i] + dt * result[i];
    }
}

