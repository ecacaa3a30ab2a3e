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

// v + dt L v at one cell.
INLINE real advanced(const real *v, Neighbours x, Neighbours y, Neighbours z, real rx, real ry, real rz)
{
    return v[0] + (spread(v, x, rx) + spread(v, y, ry) + spread(v, z, rz));
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
        // The same steps for all cells but those at the ends, and two loops, as neither choice is vectorised.
        Neighbours inside = {1, 1};
        long first = physical[0] ? 1 : 0, last = physical[1] && nx > first ? nx - 1 : nx;
        if (from)
            FOR_EACH_IN_ROW(i, first, last)
                result[i] = R(0.5) * (from[i] + advanced(u + i, inside, y, z, rx, ry, rz));
        else
            FOR_EACH_IN_ROW(i, first, last) result[i] = advanced(u + i, inside, y, z, rx, ry, rz);
        ROW_ONCE for (int high = 0; high < 2; ++high)
            if (high ? last < nx : first > 0) {
                long i = high ? nx - 1 : 0;
                Neighbours x = neighbours(i, nx, 1, physical, mirror);
                real next = advanced(u + i, x, y, z, rx, ry, rz);
                result[i] = from ? R(0.5) * (from[i] + next) : next;
            }
    }
}
