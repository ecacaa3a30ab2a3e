// Heat conduction as in heat.c, for a conductivity without cross terms: div(K grad T), K diagonal.
//
// The temperature is read where it stands, without ghosts; what lies beyond the block comes as one plane for
// each side. So no copy of the whole field is made for the sake of its rim, which costs as much as the
// stencil itself. Face conductances are those of heat_faces, 0 at physical sides, and the sums have the same
// order as in heat.c: both give the same bits. With a length of the step the result is Forward Euler's, to
// which the sides are added last: there both differ by rounding.

#include "heat_sides.h"

// Heat that flows into a cell along an axis, per volume: from the cell behind and from the one ahead.
INLINE real inflow(real face_ahead, real face_back, real back, real here, real ahead)
{
    return face_ahead * (ahead - here) - face_back * (here - back);
}

// Both axes of a plane at cell i of a row, given what lies around the row.
INLINE real heat_2d(const real *fx, long stride, const real *fy, const real *t, const real *back,
                    const real *ahead, const real *below, const real *above, long i)
{
    return inflow(fx[i], fx[i - 1], back[i], t[i], ahead[i]) +
           inflow(fy[i], fy[i - stride], below[i], t[i], above[i]);
}

// What the result is made of: T counts `keep` times, and heat per volume and time `scale` times, over c.
typedef struct {
    real keep, scale;
} Step;

// The step of length dt; without one, the heat alone.
INLINE Step step_of(real dt)
{
    Step step = {dt > 0 ? R(1) : R(0), dt > 0 ? dt : R(1)};
    return step;
}

INLINE real change(real heat, Step step, const real *c, long i)
{
    return c ? step.scale * heat / c[i] : step.scale * heat;
}

// K = (xx, yy).
KERNEL heat_diagonal_2d(
    long nx,                  // owned cells along x
    long ny,                  // owned cells along y
    real hx,                  // [m] cell size along x
    real hy,                  // [m] cell size along y
    const int *open_sides,    // (4) 1 where heat may enter through the physical side x- x+ y- y+, else 0
    const real *faces,        // (2, ny + 2, nx + 2) [W/(m3 K)] what heat_faces gives along x, y
    const real *temperature,  // (ny, nx) [K]
    const real *ghost_x,      // (2, ny) [K] beyond the sides x- x+; any number beyond physical ones
    const real *ghost_y,      // (2, nx) [K] beyond the sides y- y+
    const real *side_x,       // (2, 4, ny) [SI] sides x- x+: coefficient, value, flux, share
    const real *side_y,       // (2, 4, nx) [SI] sides y- y+
    real dt,                  // [s] length of the step; 0: none, the divergence is asked
    const real *capacity,     // optional (ny, nx) [J/(m3 K)] heat capacity rho c of a step, 1 if left out
    real *divergence          // (ny, nx) [W/m3] div(K grad T); with a step [K] T after dt
) {
    Step step = step_of(dt);
    real keep = step.keep, scale = step.scale;
    FOR_EACH_ROW(row, ny) {
        long stride = nx + 2, place = (row + 1) * stride + 1;
        const real *fx = faces + place, *fy = fx + (ny + 2) * stride;
        const real *t = temperature + row * nx;
        const real *below = row > 0 ? t - nx : ghost_y, *above = row < ny - 1 ? t + nx : ghost_y + nx;
        const real *c = capacity ? capacity + row * nx : capacity;
        real *result = divergence + row * nx;
        // Two loops, as one with the choice inside is not vectorised.
        if (c)
            FOR_EACH_IN_ROW(i, 1, nx - 1) {
                real heat = heat_2d(fx, stride, fy, t, t - 1, t + 1, below, above, i);
                result[i] = keep * t[i] + scale * heat / c[i];
            }
        else
            FOR_EACH_IN_ROW(i, 1, nx - 1) {
                real heat = heat_2d(fx, stride, fy, t, t - 1, t + 1, below, above, i);
                result[i] = keep * t[i] + scale * heat;
            }
        ROW_ONCE for (int high = 0; high < 2; ++high) {
            long i = high ? nx - 1 : 0;
            real back = i > 0 ? t[i - 1] : ghost_x[row], ahead = i < nx - 1 ? t[i + 1] : ghost_x[ny + row];
            real heat = inflow(fx[i], fx[i - 1], back, t[i], ahead) +
                        inflow(fy[i], fy[i - stride], below[i], t[i], above[i]);
            result[i] = keep * t[i] + change(heat, step, c, i);
        }
        ROW_ONCE for (int high = 0; high < 2; ++high)
            if (open_sides[high]) {
                long i = high ? nx - 1 : 0;
                result[i] += change(side_source(side_x + high * 4 * ny, ny, row, t[i], R(1) / hx), step, c, i);
            }
        ROW_BARRIER;
        for (int high = 0; high < 2; ++high)
            if (open_sides[2 + high] && row == (high ? ny - 1 : 0)) {
                const real *side = side_y + high * 4 * nx;
                FOR_EACH_IN_ROW(i, 0, nx)
                    result[i] += change(side_source(side, nx, i, t[i], R(1) / hy), step, c, i);
            }
    }
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
    const real *faces,        // (3, nz + 2, ny + 2, nx + 2) [W/(m3 K)] what heat_faces gives along x, y, z
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
    Step step = step_of(dt);
    real keep = step.keep, scale = step.scale;
    FOR_EACH_ROW(row, ny * nz) {
        long j = row % ny, l = row / ny, stride = nx + 2, layer = (ny + 2) * stride;
        const real *fx = faces + (l + 1) * layer + (j + 1) * stride + 1;
        const real *fy = fx + (nz + 2) * layer, *fz = fy + (nz + 2) * layer;
        const real *t = temperature + row * nx;
        const real *below_y = j > 0 ? t - nx : ghost_y + l * nx;
        const real *above_y = j < ny - 1 ? t + nx : ghost_y + (nz + l) * nx;
        const real *below_z = l > 0 ? t - ny * nx : ghost_z + j * nx;
        const real *above_z = l < nz - 1 ? t + ny * nx : ghost_z + (ny + j) * nx;
        const real *c = capacity ? capacity + row * nx : capacity;
        real *result = divergence + row * nx;
        if (c)
            FOR_EACH_IN_ROW(i, 1, nx - 1) {
                real heat = heat_2d(fx, stride, fy, t, t - 1, t + 1, below_y, above_y, i) +
                            inflow(fz[i], fz[i - layer], below_z[i], t[i], above_z[i]);
                result[i] = keep * t[i] + scale * heat / c[i];
            }
        else
            FOR_EACH_IN_ROW(i, 1, nx - 1) {
                real heat = heat_2d(fx, stride, fy, t, t - 1, t + 1, below_y, above_y, i) +
                            inflow(fz[i], fz[i - layer], below_z[i], t[i], above_z[i]);
                result[i] = keep * t[i] + scale * heat;
            }
        ROW_ONCE for (int high = 0; high < 2; ++high) {
            long i = high ? nx - 1 : 0;
            real back = i > 0 ? t[i - 1] : ghost_x[row];
            real ahead = i < nx - 1 ? t[i + 1] : ghost_x[ny * nz + row];
            real heat = inflow(fx[i], fx[i - 1], back, t[i], ahead) +
                        inflow(fy[i], fy[i - stride], below_y[i], t[i], above_y[i]) +
                        inflow(fz[i], fz[i - layer], below_z[i], t[i], above_z[i]);
            result[i] = keep * t[i] + change(heat, step, c, i);
        }
        ROW_ONCE for (int high = 0; high < 2; ++high)
            if (open_sides[high]) {
                long i = high ? nx - 1 : 0, nface = ny * nz;
                const real *side = side_x + high * 4 * nface;
                result[i] += change(side_source(side, nface, row, t[i], R(1) / hx), step, c, i);
            }
        ROW_BARRIER;
        for (int high = 0; high < 2; ++high)
            if (open_sides[2 + high] && j == (high ? ny - 1 : 0)) {
                const real *side = side_y + high * 4 * nx * nz;
                FOR_EACH_IN_ROW(i, 0, nx)
                    result[i] += change(side_source(side, nx * nz, l * nx + i, t[i], R(1) / hy), step, c, i);
            }
        for (int high = 0; high < 2; ++high)
            if (open_sides[4 + high] && l == (high ? nz - 1 : 0)) {
                const real *side = side_z + high * 4 * nx * ny;
                FOR_EACH_IN_ROW(i, 0, nx)
                    result[i] += change(side_source(side, nx * ny, j * nx + i, t[i], R(1) / hz), step, c, i);
            }
    }
}
