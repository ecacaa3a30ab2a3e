/* Explicit diffusion with a constant diagonal tensor, without flux through the sides; 1D, 2D and 3D.

   Where cells fill the box, nothing lies beyond a side. Where their centres lie on the sides, the cell there
   is half as wide, and its one flux changes it twice as much: as if the neighbour inside stood outside, too. */

// Steps to the neighbours along an axis; a side of the box has its mirror image, or nothing (0).
typedef struct {
    long back, ahead;
} Neighbours;

INLINE Neighbours neighbours(long index, long n, long stride, const int *physical, int mirror)
{
    Neighbours at;
    long inside = mirror ? stride : 0;
    at.back = index == 0 && physical[0] ? -inside : stride;
    at.ahead = index == n - 1 && physical[1] ? -inside : stride;
    return at;
}

INLINE real spread(const real *v, Neighbours at, real rate)
{
    return rate * ((v[-at.back] - v[0]) + (v[at.ahead] - v[0]));
}

// v + dt L v; with `start` the mean of that and start, the second stage of Heun's method.
KERNEL diffusion_step(
    long nx,              // owned cells along x
    long ny,              // along y, 1 where there is no y
    long nz,              // along z, 1 where there is no z
    long gy,              // layers of ghosts beyond y- and y+: 1, or 0 where there is no y
    long gz,              // the same for z
    real rx,              // time step times diffusivity over squared spacing along x
    real ry,              // along y, 0 where there is no y
    real rz,              // along z, 0 where there is no z
    int mirror,           // 1 where centres lie on the sides of the box, else 0
    const int *physical,  // (6) 1 where x- x+ y- y+ z- z+ is a side of the box
    const real *v,        // (nz + 2 * gz, ny + 2 * gy, nx + 2) with ghosts
    const real *start,    // optional (nz, ny, nx) what the stage began with
    real *after           // (nz, ny, nx) may be start
) {
    FOR_EACH_ROW(row, ny * nz) {
        long j = row % ny, l = row / ny, stride = nx + 2, layer = (ny + 2 * gy) * stride;
        const real *u = v + (l + gz) * layer + (j + gy) * stride + 1;
        Neighbours y = neighbours(j, ny, gy * stride, physical + 2, mirror);
        Neighbours z = neighbours(l, nz, gz * layer, physical + 4, mirror);
        const real *from = start ? start + row * nx : start;
        real *result = after + row * nx;
        FOR_EACH_IN_ROW(i, 0, nx) {
            Neighbours x = neighbours(i, nx, 1, physical, mirror);
            real next = u[i] + (spread(u + i, x, rx) + spread(u + i, y, ry) + spread(u + i, z, rz));
            result[i] = from ? R(0.5) * (from[i] + next) : next;
        }
    }
}
