// Advection and diffusion of several fields by one velocity and one diffusivity, cell-centred:
//
//     rate = -u . grad v + 1/density div(diffusion grad v)
//
// Advection: third-order upwind, which is the central difference of fourth order plus a fourth difference
// times |u|, so that no branch is needed. It is linear in v: what adds up to a constant over the fields
// (mass fractions to 1) goes on doing so. Diffusion: the face's coefficient is the mean of the two cells,
// and what leaves one cell enters the other.
//
// Arrays with ghosts hold two more cells on every side, of which corners are not read; x is the fastest
// index. The caller fills ghosts beyond physical sides.

INLINE real along(const real *v, const real *g, long step, real u, real mobility, real per_h)
{
    real near = v[step] - v[-step], far = v[2 * step] - v[-2 * step];
    real bend = v[2 * step] + v[-2 * step] - R(4) * (v[step] + v[-step]) + R(6) * v[0];
    real advected = (u * (R(8) * near - far) + hp_abs(u) * bend) * (per_h * R(0.083333333333333333));
    real ahead = (g[0] + g[step]) * (v[step] - v[0]), back = (g[-step] + g[0]) * (v[0] - v[-step]);
    return R(0.5) * (ahead - back) * (mobility * per_h * per_h) - advected;
}

KERNEL transport_1d(
    long ncomponent,        // number of fields
    long nx,                // owned cells
    real hx,                // [m] cell size
    const real *values,     // (ncomponent, nx + 4) [1] the fields v with ghosts
    const real *diffusion,  // (nx + 4) [kg/(m s)] density times diffusivity, with ghosts
    const real *density,    // (nx) [kg/m3]
    const real *velocity,   // (1, nx) [m/s]
    real *rate              // (ncomponent, nx) [1/s] dv/dt
) {
    FOR_EACH_ROW(row, ncomponent) {
        const real *v = values + row * (nx + 4) + 2, *g = diffusion + 2;
        FOR_EACH_IN_ROW(i, 0, nx)
            rate[row * nx + i] = along(v + i, g + i, 1, velocity[i], R(1) / density[i], R(1) / hx);
    }
}

KERNEL transport_2d(
    long ncomponent,        // number of fields
    long nx,                // owned cells along x
    long ny,                // owned cells along y
    real hx,                // [m] cell size along x
    real hy,                // [m] cell size along y
    const real *values,     // (ncomponent, ny + 4, nx + 4) [1] the fields v with ghosts
    const real *diffusion,  // (ny + 4, nx + 4) [kg/(m s)] density times diffusivity, with ghosts
    const real *density,    // (ny, nx) [kg/m3]
    const real *velocity,   // (2, ny, nx) [m/s]
    real *rate              // (ncomponent, ny, nx) [1/s] dv/dt
) {
    FOR_EACH_ROW(row, ncomponent * ny) {
        long field = row / ny, j = row % ny, stride = nx + 4, at = (j + 2) * stride + 2;
        const real *v = values + field * (ny + 4) * stride + at, *g = diffusion + at;
        const real *rho = density + j * nx, *u = velocity + j * nx, *w = u + ny * nx;
        FOR_EACH_IN_ROW(i, 0, nx) {
            real mobility = R(1) / rho[i];
            rate[row * nx + i] = along(v + i, g + i, 1, u[i], mobility, R(1) / hx) +
                                 along(v + i, g + i, stride, w[i], mobility, R(1) / hy);
        }
    }
}

KERNEL transport_3d(
    long ncomponent,        // number of fields
    long nx,                // owned cells along x
    long ny,                // owned cells along y
    long nz,                // owned cells along z
    real hx,                // [m] cell size along x
    real hy,                // [m] cell size along y
    real hz,                // [m] cell size along z
    const real *values,     // (ncomponent, nz + 4, ny + 4, nx + 4) [1] the fields v with ghosts
    const real *diffusion,  // (nz + 4, ny + 4, nx + 4) [kg/(m s)] density times diffusivity, with ghosts
    const real *density,    // (nz, ny, nx) [kg/m3]
    const real *velocity,   // (3, nz, ny, nx) [m/s]
    real *rate              // (ncomponent, nz, ny, nx) [1/s] dv/dt
) {
    FOR_EACH_ROW(row, ncomponent * nz * ny) {
        long field = row / (nz * ny), line = row % (nz * ny), j = line % ny, l = line / ny;
        long stride = nx + 4, layer = (ny + 4) * stride, at = (l + 2) * layer + (j + 2) * stride + 2;
        const real *v = values + field * (nz + 4) * layer + at, *g = diffusion + at;
        const real *rho = density + line * nx, *u = velocity + line * nx;
        const real *w = u + nz * ny * nx, *s = w + nz * ny * nx;
        FOR_EACH_IN_ROW(i, 0, nx) {
            real mobility = R(1) / rho[i];
            rate[row * nx + i] = along(v + i, g + i, 1, u[i], mobility, R(1) / hx) +
                                 along(v + i, g + i, stride, w[i], mobility, R(1) / hy) +
                                 along(v + i, g + i, layer, s[i], mobility, R(1) / hz);
        }
    }
}
