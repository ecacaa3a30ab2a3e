// Heat conduction on a block of cubes or squares: div(K grad T) with a symmetric tensor K, cell-centred.
//
// Arrays with ghosts hold one more cell on every side; x is the fastest index. Ghosts carry the values of
// neighbouring ranks or of the periodic image, edges and corners too where K has cross terms. Beyond a
// physical side nothing is read.
//
// The flux through a face is one expression of the two cells beside it, the same seen from either: what
// leaves one cell enters the other to the last bit, and no cell can tell where a rank's block ends.
//   normal part: face conductance times the difference. The conductance holds the harmonic mean of the
//                normal conductivity, whose division is paid once for a K, not in every evaluation.
//   cross part:  arithmetic mean of the cross conductivity, times the mean of the slopes along the face
//                in both cells. A slope is a central difference, one-sided where a physical side is near
//                (second order in the mean; h^2 log(1/h) in the corner cells between two physical sides).
//   physical side: coefficient * (value - T) + flux, into the block. The cross part shifts the surface
//                temperature by h/(2k) k_cross slope and enters through the same coefficient: fully at a
//                given temperature, not at all at a given flux.
//
// With a length of the step the same kernels take Forward Euler's whole step: every array is read once.
//
// What is given at the faces of a side: coefficient [W/(m2 K)], value [K], flux [W/m2], and the share [1] of
// the cross part that enters: coefficient * h/(2k).

#include "heat_sides.h"

// Conductances of the faces across one axis: at a cell stands that of the face between it and the next
// one ahead, and 0 at physical sides. The block is seen as nouter * (n + 2) * ninner cells, n + 2 of them
// along the axis.
KERNEL heat_faces(
    long nouter,               // cells of all slower axes together, with ghosts
    long n,                    // owned cells along the axis
    long ninner,               // cells of all faster axes together, with ghosts
    real h,                    // [m] cell size along the axis
    const int *physical,       // (2) 1 where the low, high side of the axis is a physical boundary, else 0
    const real *conductivity,  // (nouter, n + 2, ninner) [W/(m K)] normal component of K with ghosts
    real *faces                // (nouter, n + 2, ninner) [W/(m3 K)] conductance over h^2; the last is not set
) {
    FOR_EACH_CELL_2D(i, outer, (n + 1) * ninner, nouter) {
        const real *k = conductivity + outer * (n + 2) * ninner + i;
        long first = physical[0] ? ninner : 0, last = physical[1] ? n * ninner : (n + 1) * ninner;
        real mean = R(2) * k[0] * k[ninner] / (k[0] + k[ninner]), scale = R(1) / (h * h);
        faces[outer * (n + 2) * ninner + i] = i >= first && i < last ? mean * scale : R(0);
    }
}

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

// Conduction towards lower indices through the face between a cell and the one a step ahead. With a step
// of 0 the difference vanishes.
INLINE real normal_flux(const real *face, const real *t, long step) { return face[0] * (t[step] - t[0]); }

INLINE real normal_divergence(const real *face, const real *t, Axis axis)
{
    return normal_flux(face, t, axis.ahead) - normal_flux(face - axis.back, t - axis.back, axis.back);
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

INLINE real normal_2d(const real *face, long n, const real *t, Axis x, Axis y)
{
    return normal_divergence(face, t, x) + normal_divergence(face + n, t, y);
}

INLINE real cross_2d(const real *kxy, const real *t, Axis x, Axis y)
{
    return cross_divergence(kxy, t, x, y) + cross_divergence(kxy, t, y, x);
}

INLINE real normal_3d(const real *face, long n, const real *t, Axis x, Axis y, Axis z)
{
    return normal_divergence(face, t, x) + normal_divergence(face + n, t, y) +
           normal_divergence(face + 2 * n, t, z);
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

// Divergence of the conductive heat flux in 1D, K = (xx).
KERNEL heat_divergence_1d(
    long nx,                  // owned cells
    real hx,                  // [m] cell size
    const int *physical,      // (2) 1 where the side x- x+ is a physical boundary, else 0
    const real *faces,        // (1, nx + 2) [W/(m3 K)] what heat_faces gives
    const real *temperature,  // (nx + 2) [K] with ghosts
    const real *side_x,       // (2, 4, 1) [SI] sides x- x+: coefficient, value, flux, share
    real dt,                  // [s] length of the step; 0: none, the divergence is asked
    const real *capacity,     // optional (nx) [J/(m3 K)] heat capacity rho c of a step, 1 if left out
    real *divergence          // (nx) [W/m3] div(K grad T); with a step [K] T after dt
) {
    FOR_EACH_ROW(row, 1) {
        const real *t = temperature + 1, *face = faces + 1;
        Axis inside = axis_inside(1, hx);
        long first = physical[0] ? 1 : 0, last = physical[1] ? nx - 1 : nx;
        FOR_EACH_IN_ROW(i, first, last) divergence[i] = normal_divergence(face + i, t + i, inside);
        ROW_ONCE for (int high = 0; high < 2; ++high)
            if (physical[high]) {
                long i = high ? nx - 1 : 0;
                divergence[i] = normal_divergence(face + i, t + i, axis_at(i, nx, 1, physical, hx));
            }
        ROW_ONCE for (int high = 0; high < 2; ++high)
            if (physical[high]) {
                long i = high ? nx - 1 : 0;
                divergence[i] += side_source(side_x + high * 4, 1, row, t[i], R(1) / hx);
            }
        ROW_BARRIER;
        if (dt > 0 && capacity)
            FOR_EACH_IN_ROW(i, 0, nx) divergence[i] = t[i] + dt * divergence[i] / capacity[i];
        else if (dt > 0)
            FOR_EACH_IN_ROW(i, 0, nx) divergence[i] = t[i] + dt * divergence[i];
    }
}

// Divergence of the conductive heat flux in 2D, K = (xx, yy, xy).
KERNEL heat_divergence_2d(
    long nx,                  // owned cells along x
    long ny,                  // owned cells along y
    real hx,                  // [m] cell size along x
    real hy,                  // [m] cell size along y
    const int *physical,      // (4) 1 where the side x- x+ y- y+ is a physical boundary, else 0
    const real *faces,        // (2, ny + 2, nx + 2) [W/(m3 K)] what heat_faces gives along x, y
    const real *cross,        // optional (ny + 2, nx + 2) [W/(m K)] component xy of K with ghosts
    const real *temperature,  // (ny + 2, nx + 2) [K] with ghosts
    const real *side_x,       // (2, 4, ny) [SI] sides x- x+: coefficient, value, flux, share
    const real *side_y,       // (2, 4, nx) [SI] sides y- y+
    real dt,                  // [s] length of the step; 0: none, the divergence is asked
    const real *capacity,     // optional (ny, nx) [J/(m3 K)] heat capacity rho c of a step, 1 if left out
    real *divergence          // (ny, nx) [W/m3] div(K grad T); with a step [K] T after dt
) {
    FOR_EACH_ROW(row, ny) {
        long stride = nx + 2, n = (ny + 2) * stride, start = (row + 1) * stride + 1;
        const real *t = temperature + start, *face = faces + start, *kxy = cross ? cross + start : cross;
        real *result = divergence + row * nx;
        Axis inside = axis_inside(1, hx), y = axis_at(row, ny, stride, physical + 2, hy);
        long first = physical[0] ? 1 : 0, last = physical[1] ? nx - 1 : nx;
        FOR_EACH_IN_ROW(i, first, last) result[i] = normal_2d(face + i, n, t + i, inside, y);
        if (cross)
            FOR_EACH_IN_ROW(i, first, last) result[i] += cross_2d(kxy + i, t + i, inside, y);
        ROW_ONCE for (int high = 0; high < 2; ++high) {
            long i = high ? nx - 1 : 0;
            Axis x = axis_at(i, nx, 1, physical, hx);
            if (physical[high])
                result[i] = normal_2d(face + i, n, t + i, x, y) +
                            (cross ? cross_2d(kxy + i, t + i, x, y) : R(0));
        }
        ROW_ONCE for (int high = 0; high < 2; ++high)
            if (physical[high]) {
                long i = high ? nx - 1 : 0;
                const real *side = side_x + high * 4 * ny;
                result[i] += side_source(side, ny, row, t[i], R(1) / hx);
                if (cross)
                    result[i] += side_shift(side, ny, row, high, kxy[i] * slope(t + i, y), R(1) / hx);
            }
        ROW_BARRIER;
        for (int high = 0; high < 2; ++high)
            if (physical[2 + high] && row == (high ? ny - 1 : 0)) {
                const real *side = side_y + high * 4 * nx;
                FOR_EACH_IN_ROW(i, 0, nx) result[i] += side_source(side, nx, i, t[i], R(1) / hy);
                if (cross)
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

// Divergence of the conductive heat flux in 3D, K = (xx, yy, zz, yz, xz, xy).
KERNEL heat_divergence_3d(
    long nx,                  // owned cells along x
    long ny,                  // owned cells along y
    long nz,                  // owned cells along z
    real hx,                  // [m] cell size along x
    real hy,                  // [m] cell size along y
    real hz,                  // [m] cell size along z
    const int *physical,      // (6) 1 where the side x- x+ y- y+ z- z+ is a physical boundary, else 0
    const real *faces,        // (3, nz + 2, ny + 2, nx + 2) [W/(m3 K)] what heat_faces gives along x, y, z
    const real *cross,        // optional (3, nz + 2, ny + 2, nx + 2) [W/(m K)] yz, xz, xy of K with ghosts
    const real *temperature,  // (nz + 2, ny + 2, nx + 2) [K] with ghosts
    const real *side_x,       // (2, 4, nz, ny) [SI] sides x- x+: coefficient, value, flux, share
    const real *side_y,       // (2, 4, nz, nx) [SI] sides y- y+
    const real *side_z,       // (2, 4, ny, nx) [SI] sides z- z+
    real dt,                  // [s] length of the step; 0: none, the divergence is asked
    const real *capacity,     // optional (nz, ny, nx) [J/(m3 K)] heat capacity rho c of a step, 1 if left out
    real *divergence          // (nz, ny, nx) [W/m3] div(K grad T); with a step [K] T after dt
) {
    FOR_EACH_ROW(row, ny * nz) {
        long j = row % ny, l = row / ny;
        long stride = nx + 2, layer = (ny + 2) * stride, n = (nz + 2) * layer;
        long start = (l + 1) * layer + (j + 1) * stride + 1;
        const real *t = temperature + start, *face = faces + start, *kyz = cross ? cross + start : cross;
        const real *kxz = cross ? kyz + n : cross, *kxy = cross ? kxz + n : cross;
        real *result = divergence + row * nx;
        Axis inside = axis_inside(1, hx);
        Axis y = axis_at(j, ny, stride, physical + 2, hy), z = axis_at(l, nz, layer, physical + 4, hz);
        long first = physical[0] ? 1 : 0, last = physical[1] ? nx - 1 : nx;
        FOR_EACH_IN_ROW(i, first, last) result[i] = normal_3d(face + i, n, t + i, inside, y, z);
        if (cross)
            FOR_EACH_IN_ROW(i, first, last) result[i] += cross_3d(kyz + i, n, t + i, inside, y, z);
        ROW_ONCE for (int high = 0; high < 2; ++high) {
            long i = high ? nx - 1 : 0;
            Axis x = axis_at(i, nx, 1, physical, hx);
            if (physical[high])
                result[i] = normal_3d(face + i, n, t + i, x, y, z) +
                            (cross ? cross_3d(kyz + i, n, t + i, x, y, z) : R(0));
        }
        ROW_ONCE for (int high = 0; high < 2; ++high)
            if (physical[high]) {
                long i = high ? nx - 1 : 0, nface = ny * nz;
                const real *side = side_x + high * 4 * nface;
                result[i] += side_source(side, nface, row, t[i], R(1) / hx);
                if (cross) {
                    real along = kxy[i] * slope(t + i, y) + kxz[i] * slope(t + i, z);
                    result[i] += side_shift(side, nface, row, high, along, R(1) / hx);
                }
            }
        ROW_BARRIER;
        for (int high = 0; high < 2; ++high)
            if (physical[2 + high] && j == (high ? ny - 1 : 0)) {
                long nface = nx * nz, face = l * nx;
                const real *side = side_y + high * 4 * nface;
                FOR_EACH_IN_ROW(i, 0, nx) result[i] += side_source(side, nface, face + i, t[i], R(1) / hy);
                if (cross)
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
                FOR_EACH_IN_ROW(i, 0, nx) result[i] += side_source(side, nface, face + i, t[i], R(1) / hz);
                if (cross)
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

// The same operator without cross terms as numbers per cell, to assemble a matrix: divergence = centre T
// + the sum over neighbours of coefficient T + constant. Coefficients through physical sides are 0.

// 1 / cell size at the low and high end of an axis where they are physical sides, else 0.
typedef struct {
    real low, high;
} Sides;

INLINE Sides sides_of(const int *physical, real h)
{
    Sides sides;
    sides.low = physical[0] ? R(1) / h : R(0);
    sides.high = physical[1] ? R(1) / h : R(0);
    return sides;
}

// The same as a cell sees it: 0 unless it stands at that end.
INLINE Sides sides_at(long index, long n, Sides of)
{
    of.low = index == 0 ? of.low : R(0);
    of.high = index == n - 1 ? of.high : R(0);
    return of;
}

// Writes the coefficients of one axis, and adds the share of its physical sides to centre and constant.
// `side` is that of the low end, 4 * nface before that of the high end.
INLINE void axis_coefficients(const real *face, long stride, Sides at_side, const real *side, long nface, long at,
                              real *back, real *ahead, real *centre, real *constant)
{
    const real *far = side + 4 * nface;
    real from_back = face[-stride], from_ahead = face[0], low = at_side.low, high = at_side.high;
    *back = from_back;
    *ahead = from_ahead;
    *centre -= from_back + from_ahead + low * side[at] + high * far[at];
    *constant += low * (side[at] * side[nface + at] + side[2 * nface + at]) +
                 high * (far[at] * far[nface + at] + far[2 * nface + at]);
}

KERNEL heat_coefficients_1d(
    long nx,              // owned cells
    real hx,              // [m] cell size
    const int *physical,  // (2) 1 where the side x- x+ is a physical boundary, else 0
    const real *faces,    // (1, nx + 2) [W/(m3 K)] what heat_faces gives
    const real *side_x,   // (2, 4, 1) [SI] sides x- x+: coefficient, value, flux, share
    real *coefficients    // (4, nx) [W/(m3 K)] centre, x-, x+; then constant [W/m3]
) {
    Sides ends = sides_of(physical, hx);
    FOR_EACH_CELL(i, nx) {
        Sides x = sides_at(i, nx, ends);
        real centre = R(0), constant = R(0);
        axis_coefficients(faces + i + 1, 1, x, side_x, 1, 0, &coefficients[nx + i], &coefficients[2 * nx + i],
                          &centre, &constant);
        coefficients[i] = centre;
        coefficients[3 * nx + i] = constant;
    }
}

KERNEL heat_coefficients_2d(
    long nx,              // owned cells along x
    long ny,              // owned cells along y
    real hx,              // [m] cell size along x
    real hy,              // [m] cell size along y
    const int *physical,  // (4) 1 where the side x- x+ y- y+ is a physical boundary, else 0
    const real *faces,    // (2, ny + 2, nx + 2) [W/(m3 K)] what heat_faces gives along x, y
    const real *side_x,   // (2, 4, ny) [SI] sides x- x+: coefficient, value, flux, share
    const real *side_y,   // (2, 4, nx) [SI] sides y- y+
    real *coefficients    // (6, ny, nx) [W/(m3 K)] centre, x-, x+, y-, y+; then constant [W/m3]
) {
    FOR_EACH_ROW(row, ny) {
        long stride = nx + 2, ghosted = (ny + 2) * stride, n = ny * nx;
        const real *face = faces + (row + 1) * stride + 1;
        real *result = coefficients + row * nx;
        Sides ends = sides_of(physical, hx), y = sides_at(row, ny, sides_of(physical + 2, hy));
        FOR_EACH_IN_ROW(i, 0, nx) {
            Sides x = sides_at(i, nx, ends);
            real centre = R(0), constant = R(0);
            axis_coefficients(face + i, 1, x, side_x, ny, row, &result[n + i], &result[2 * n + i], &centre,
                              &constant);
            axis_coefficients(face + ghosted + i, stride, y, side_y, nx, i, &result[3 * n + i],
                              &result[4 * n + i], &centre, &constant);
            result[i] = centre;
            result[5 * n + i] = constant;
        }
    }
}

KERNEL heat_coefficients_3d(
    long nx,              // owned cells along x
    long ny,              // owned cells along y
    long nz,              // owned cells along z
    real hx,              // [m] cell size along x
    real hy,              // [m] cell size along y
    real hz,              // [m] cell size along z
    const int *physical,  // (6) 1 where the side x- x+ y- y+ z- z+ is a physical boundary, else 0
    const real *faces,    // (3, nz + 2, ny + 2, nx + 2) [W/(m3 K)] what heat_faces gives along x, y, z
    const real *side_x,   // (2, 4, nz, ny) [SI] sides x- x+: coefficient, value, flux, share
    const real *side_y,   // (2, 4, nz, nx) [SI] sides y- y+
    const real *side_z,   // (2, 4, ny, nx) [SI] sides z- z+
    real *coefficients    // (8, nz, ny, nx) [W/(m3 K)] centre, x-, x+, y-, y+, z-, z+; constant [W/m3]
) {
    FOR_EACH_ROW(row, ny * nz) {
        long j = row % ny, l = row / ny, n = nz * ny * nx;
        long stride = nx + 2, layer = (ny + 2) * stride, ghosted = (nz + 2) * layer;
        const real *face = faces + (l + 1) * layer + (j + 1) * stride + 1;
        real *result = coefficients + row * nx;
        Sides ends = sides_of(physical, hx), y = sides_at(j, ny, sides_of(physical + 2, hy));
        Sides z = sides_at(l, nz, sides_of(physical + 4, hz));
        FOR_EACH_IN_ROW(i, 0, nx) {
            Sides x = sides_at(i, nx, ends);
            real centre = R(0), constant = R(0);
            axis_coefficients(face + i, 1, x, side_x, ny * nz, row, &result[n + i], &result[2 * n + i], &centre,
                              &constant);
            axis_coefficients(face + ghosted + i, stride, y, side_y, nx * nz, l * nx + i, &result[3 * n + i],
                              &result[4 * n + i], &centre, &constant);
            axis_coefficients(face + 2 * ghosted + i, layer, z, side_z, nx * ny, j * nx + i,
                              &result[5 * n + i], &result[6 * n + i], &centre, &constant);
            result[i] = centre;
            result[7 * n + i] = constant;
        }
    }
}
