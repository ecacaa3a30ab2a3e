// Heat conduction on a block of cubes or squares: div(K grad T) with a symmetric tensor K, cell-centred.
//
// Arrays with ghosts hold one more cell on every side; x is the fastest index. Ghosts carry the values of
// neighbouring ranks or of the periodic image, edges and corners too where K has cross terms. Beyond a
// physical side nothing is read.
//
// The flux through a face is one expression of the two cells beside it, the same seen from either: what
// leaves one cell enters the other to the last bit, and no cell can tell where a rank's block ends.
//   normal part: harmonic mean of the normal conductivity, times the difference over h
//   cross part:  arithmetic mean of the cross conductivity, times the mean of the slopes along the face
//                in both cells. A slope is a central difference, one-sided where a physical side is near
//                (second order in the mean; h^2 log(1/h) in the corner cells between two physical sides).
//   physical side: coefficient * (value - T) + flux, into the block. The cross part shifts the surface
//                temperature by h/(2k) k_cross slope and enters through the same coefficient: fully at a
//                given temperature, not at all at a given flux.

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

INLINE real face_conductivity(const real *k, long step) { return R(2) * k[0] * k[step] / (k[0] + k[step]); }

// Conduction towards lower indices through the face between a cell and the one a step ahead. With a step
// of 0 the difference vanishes.
INLINE real normal_flux(const real *k, const real *t, long step, real per_h)
{
    return face_conductivity(k, step) * ((t[step] - t[0]) * per_h);
}

INLINE real slope(const real *t, Axis axis) { return (t[axis.ahead] - t[-axis.back]) * axis.per_gap; }

INLINE real cross_flux(const real *k, const real *t, long step, Axis along)
{
    real quarter = step > 0 ? R(0.25) : R(0);
    return quarter * (k[0] + k[step]) * (slope(t, along) + slope(t + step, along));
}

INLINE real normal_divergence(const real *k, const real *t, Axis axis)
{
    real out = normal_flux(k, t, axis.ahead, axis.per_h);
    real in = normal_flux(k - axis.back, t - axis.back, axis.back, axis.per_h);
    return (out - in) * axis.per_h;
}

INLINE real cross_divergence(const real *k, const real *t, Axis axis, Axis along)
{
    real out = cross_flux(k, t, axis.ahead, along);
    real in = cross_flux(k - axis.back, t - axis.back, axis.back, along);
    return (out - in) * axis.per_h;
}

INLINE real divergence_2d(const real *k, long component, const real *t, Axis x, Axis y, int cross)
{
    const real *kxx = k, *kyy = k + component, *kxy = k + 2 * component;
    real sum = normal_divergence(kxx, t, x) + normal_divergence(kyy, t, y);
    if (cross)
        sum += cross_divergence(kxy, t, x, y) + cross_divergence(kxy, t, y, x);
    return sum;
}

INLINE real divergence_3d(const real *k, long component, const real *t, Axis x, Axis y, Axis z, int cross)
{
    const real *kyz = k + 3 * component, *kxz = k + 4 * component, *kxy = k + 5 * component;
    real sum = normal_divergence(k, t, x) + normal_divergence(k + component, t, y) +
               normal_divergence(k + 2 * component, t, z);
    if (cross) {
        sum += cross_divergence(kxy, t, x, y) + cross_divergence(kxz, t, x, z);
        sum += cross_divergence(kxy, t, y, x) + cross_divergence(kyz, t, y, z);
        sum += cross_divergence(kxz, t, z, x) + cross_divergence(kyz, t, z, y);
    }
    return sum;
}

// Heat that enters a cell through a physical side, per volume. `side` holds coefficient, value and flux of
// its nface faces; `shift` is what the cross part adds to the temperature of the surface.
INLINE real side_source(const real *side, long nface, long face, real t, real shift, real per_h)
{
    return (side[face] * (side[nface + face] - t + shift) + side[2 * nface + face]) * per_h;
}

// Added to the surface temperature, for the side at the high end; the negative of it at the low end.
INLINE real surface_shift(real k, real k_cross, real slope_along, real h)
{
    return k_cross * slope_along * h / (R(2) * k);
}

// Divergence of the conductive heat flux in 2D, K = (xx, yy, xy).
KERNEL heat_divergence_2d(
    long nx,                   // owned cells along x
    long ny,                   // owned cells along y
    real hx,                   // [m] cell size along x
    real hy,                   // [m] cell size along y
    int cross,                 // 0: the cross term xy of K is zero and not read
    const int *physical,       // (4) 1 where the side x- x+ y- y+ is a physical boundary, else 0
    const real *conductivity,  // (3, ny + 2, nx + 2) [W/(m K)] K with ghosts: xx yy xy
    const real *temperature,   // (ny + 2, nx + 2) [K] with ghosts
    const real *side_x,        // (2, 3, ny) [SI] sides x- x+: coefficient [W/(m2 K)], value [K], flux [W/m2]
    const real *side_y,        // (2, 3, nx) [SI] sides y- y+: coefficient [W/(m2 K)], value [K], flux [W/m2]
    real *divergence           // (ny, nx) [W/m3] div(K grad T)
) {
    FOR_EACH_ROW(row, ny) {
        long stride = nx + 2, component = (ny + 2) * stride;
        const real *t = temperature + (row + 1) * stride + 1;
        const real *k = conductivity + (row + 1) * stride + 1;
        real *result = divergence + row * nx;
        Axis y = axis_at(row, ny, stride, physical + 2, hy);
        long first = physical[0] ? 1 : 0, last = physical[1] ? nx - 1 : nx;
        Axis inside = axis_inside(1, hx);
        if (cross)
            FOR_EACH_IN_ROW(i, first, last) result[i] = divergence_2d(k + i, component, t + i, inside, y, 1);
        else
            FOR_EACH_IN_ROW(i, first, last) result[i] = divergence_2d(k + i, component, t + i, inside, y, 0);
        ROW_ONCE for (int high = 0; high < 2; ++high) {
            long i = high ? nx - 1 : 0;
            Axis x = axis_at(i, nx, 1, physical, hx);
            if (physical[high])
                result[i] = divergence_2d(k + i, component, t + i, x, y, cross);
        }
        ROW_ONCE for (int high = 0; high < 2; ++high) {
            long i = high ? nx - 1 : 0;
            real shift = cross ? surface_shift(k[i], k[i + 2 * component], slope(t + i, y), hx) : R(0);
            if (physical[high])
                result[i] += side_source(side_x + high * 3 * ny, ny, row, t[i], high ? shift : -shift, R(1) / hx);
        }
        ROW_BARRIER;
        for (int high = 0; high < 2; ++high)
            if (physical[2 + high] && row == (high ? ny - 1 : 0))
                FOR_EACH_IN_ROW(i, 0, nx) {
                    real along = slope(t + i, axis_at(i, nx, 1, physical, hx));
                    real shift = surface_shift(k[i + component], k[i + 2 * component], along, hy);
                    shift = cross ? (high ? shift : -shift) : R(0);
                    result[i] += side_source(side_y + high * 3 * nx, nx, i, t[i], shift, R(1) / hy);
                }
    }
}

// Divergence of the conductive heat flux in 3D, K = (xx, yy, zz, yz, xz, xy).
KERNEL heat_divergence_3d(
    long nx,                   // owned cells along x
    long ny,                   // owned cells along y
    long nz,                   // owned cells along z
    real hx,                   // [m] cell size along x
    real hy,                   // [m] cell size along y
    real hz,                   // [m] cell size along z
    int cross,                 // 0: the cross terms yz xz xy of K are zero and not read
    const int *physical,       // (6) 1 where the side x- x+ y- y+ z- z+ is a physical boundary, else 0
    const real *conductivity,  // (6, nz + 2, ny + 2, nx + 2) [W/(m K)] K with ghosts: xx yy zz yz xz xy
    const real *temperature,   // (nz + 2, ny + 2, nx + 2) [K] with ghosts
    const real *side_x,        // (2, 3, nz, ny) [SI] sides x- x+: coefficient, value, flux as in 2D
    const real *side_y,        // (2, 3, nz, nx) [SI] sides y- y+
    const real *side_z,        // (2, 3, ny, nx) [SI] sides z- z+
    real *divergence           // (nz, ny, nx) [W/m3] div(K grad T)
) {
    FOR_EACH_ROW(row, ny * nz) {
        long j = row % ny, l = row / ny;
        long stride = nx + 2, layer = (ny + 2) * stride, component = (nz + 2) * layer;
        const real *t = temperature + (l + 1) * layer + (j + 1) * stride + 1;
        const real *k = conductivity + (l + 1) * layer + (j + 1) * stride + 1;
        const real *kyz = k + 3 * component, *kxz = k + 4 * component, *kxy = k + 5 * component;
        real *result = divergence + row * nx;
        Axis y = axis_at(j, ny, stride, physical + 2, hy);
        Axis z = axis_at(l, nz, layer, physical + 4, hz);
        Axis inside = axis_inside(1, hx);
        long first = physical[0] ? 1 : 0, last = physical[1] ? nx - 1 : nx;
        if (cross)
            FOR_EACH_IN_ROW(i, first, last)
                result[i] = divergence_3d(k + i, component, t + i, inside, y, z, 1);
        else
            FOR_EACH_IN_ROW(i, first, last)
                result[i] = divergence_3d(k + i, component, t + i, inside, y, z, 0);
        ROW_ONCE for (int high = 0; high < 2; ++high) {
            long i = high ? nx - 1 : 0;
            Axis x = axis_at(i, nx, 1, physical, hx);
            if (physical[high])
                result[i] = divergence_3d(k + i, component, t + i, x, y, z, cross);
        }
        ROW_ONCE for (int high = 0; high < 2; ++high)
            if (physical[high]) {
                long i = high ? nx - 1 : 0;
                real shift = R(0);
                if (cross)
                    shift = surface_shift(k[i], kxy[i], slope(t + i, y), hx) +
                            surface_shift(k[i], kxz[i], slope(t + i, z), hx);
                result[i] += side_source(side_x + high * 3 * ny * nz, ny * nz, row, t[i],
                                         high ? shift : -shift, R(1) / hx);
            }
        ROW_BARRIER;
        for (int high = 0; high < 2; ++high)
            if (physical[2 + high] && j == (high ? ny - 1 : 0))
                FOR_EACH_IN_ROW(i, 0, nx) {
                    real along_x = slope(t + i, axis_at(i, nx, 1, physical, hx));
                    real shift = surface_shift(k[i + component], kxy[i], along_x, hy) +
                                 surface_shift(k[i + component], kyz[i], slope(t + i, z), hy);
                    shift = cross ? (high ? shift : -shift) : R(0);
                    result[i] += side_source(side_y + high * 3 * nx * nz, nx * nz, l * nx + i, t[i], shift,
                                             R(1) / hy);
                }
        for (int high = 0; high < 2; ++high)
            if (physical[4 + high] && l == (high ? nz - 1 : 0))
                FOR_EACH_IN_ROW(i, 0, nx) {
                    real along_x = slope(t + i, axis_at(i, nx, 1, physical, hx));
                    real shift = surface_shift(k[i + 2 * component], kxz[i], along_x, hz) +
                                 surface_shift(k[i + 2 * component], kyz[i], slope(t + i, y), hz);
                    shift = cross ? (high ? shift : -shift) : R(0);
                    result[i] += side_source(side_z + high * 3 * nx * ny, nx * ny, j * nx + i, t[i], shift,
                                             R(1) / hz);
                }
    }
}

// The same operator without cross terms as numbers per cell, to assemble a matrix: divergence = centre T
// + the sum over neighbours of coefficient T + constant. Coefficients through physical sides are 0.

INLINE real coefficient_back(const real *k, Axis axis)
{
    return axis.back > 0 ? face_conductivity(k - axis.back, axis.back) * axis.per_h * axis.per_h : R(0);
}

INLINE real coefficient_ahead(const real *k, Axis axis)
{
    return axis.ahead > 0 ? face_conductivity(k, axis.ahead) * axis.per_h * axis.per_h : R(0);
}

// Writes the coefficients of one axis, and adds the share of its physical sides to centre and constant.
// `side` is that of the low end, 3 * nface before that of the high end.
INLINE void axis_coefficients(const real *k, Axis axis, const real *side, long nface, long face, real *back,
                              real *ahead, real *centre, real *constant)
{
    const real *far = side + 3 * nface;
    real low = axis.back > 0 ? R(0) : axis.per_h, high = axis.ahead > 0 ? R(0) : axis.per_h;
    *back = coefficient_back(k, axis);
    *ahead = coefficient_ahead(k, axis);
    *centre -= *back + *ahead + low * side[face] + high * far[face];
    *constant += low * (side[face] * side[nface + face] + side[2 * nface + face]) +
                 high * (far[face] * far[nface + face] + far[2 * nface + face]);
}

KERNEL heat_coefficients_2d(
    long nx,                   // owned cells along x
    long ny,                   // owned cells along y
    real hx,                   // [m] cell size along x
    real hy,                   // [m] cell size along y
    const int *physical,       // (4) 1 where the side x- x+ y- y+ is a physical boundary, else 0
    const real *conductivity,  // (3, ny + 2, nx + 2) [W/(m K)] K with ghosts: xx yy xy
    const real *side_x,        // (2, 3, ny) [SI] sides x- x+: coefficient [W/(m2 K)], value [K], flux [W/m2]
    const real *side_y,        // (2, 3, nx) [SI] sides y- y+
    real *coefficients         // (6, ny, nx) [W/(m3 K)] centre, x-, x+, y-, y+; then constant [W/m3]
) {
    FOR_EACH_ROW(row, ny) {
        long stride = nx + 2, component = (ny + 2) * stride, n = ny * nx;
        const real *k = conductivity + (row + 1) * stride + 1;
        real *result = coefficients + row * nx;
        Axis y = axis_at(row, ny, stride, physical + 2, hy);
        FOR_EACH_IN_ROW(i, 0, nx) {
            Axis x = axis_at(i, nx, 1, physical, hx);
            real centre = R(0), constant = R(0);
            axis_coefficients(k + i, x, side_x, ny, row, &result[n + i], &result[2 * n + i], &centre,
                              &constant);
            axis_coefficients(k + component + i, y, side_y, nx, i, &result[3 * n + i], &result[4 * n + i],
                              &centre, &constant);
            result[i] = centre;
            result[5 * n + i] = constant;
        }
    }
}

KERNEL heat_coefficients_3d(
    long nx,                   // owned cells along x
    long ny,                   // owned cells along y
    long nz,                   // owned cells along z
    real hx,                   // [m] cell size along x
    real hy,                   // [m] cell size along y
    real hz,                   // [m] cell size along z
    const int *physical,       // (6) 1 where the side x- x+ y- y+ z- z+ is a physical boundary, else 0
    const real *conductivity,  // (6, nz + 2, ny + 2, nx + 2) [W/(m K)] K with ghosts: xx yy zz yz xz xy
    const real *side_x,        // (2, 3, nz, ny) [SI] sides x- x+: coefficient, value, flux as in 2D
    const real *side_y,        // (2, 3, nz, nx) [SI] sides y- y+
    const real *side_z,        // (2, 3, ny, nx) [SI] sides z- z+
    real *coefficients         // (8, nz, ny, nx) [W/(m3 K)] centre, x-, x+, y-, y+, z-, z+; constant [W/m3]
) {
    FOR_EACH_ROW(row, ny * nz) {
        long j = row % ny, l = row / ny, n = nz * ny * nx;
        long stride = nx + 2, layer = (ny + 2) * stride, component = (nz + 2) * layer;
        const real *k = conductivity + (l + 1) * layer + (j + 1) * stride + 1;
        real *result = coefficients + row * nx;
        Axis y = axis_at(j, ny, stride, physical + 2, hy);
        Axis z = axis_at(l, nz, layer, physical + 4, hz);
        FOR_EACH_IN_ROW(i, 0, nx) {
            Axis x = axis_at(i, nx, 1, physical, hx);
            real centre = R(0), constant = R(0);
            axis_coefficients(k + i, x, side_x, ny * nz, row, &result[n + i], &result[2 * n + i], &centre,
                              &constant);
            axis_coefficients(k + component + i, y, side_y, nx * nz, l * nx + i, &result[3 * n + i],
                              &result[4 * n + i], &centre, &constant);
            axis_coefficients(k + 2 * component + i, z, side_z, nx * ny, j * nx + i, &result[5 * n + i],
                              &result[6 * n + i], &centre, &constant);
            result[i] = centre;
            result[7 * n + i] = constant;
        }
    }
}
