// Heat conduction on a block of cubes or squares, cell-centred: what a conductivity makes of the faces, and the
// operator div(K grad T) without cross terms as numbers per cell. heat_diagonal.c applies it, heat_cross.c
// adds the cross terms. x is the fastest index.
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
// What is given at the faces of a side: coefficient [W/(m2 K)], value [K], flux [W/m2], and the share [1] of
// the cross part that enters: coefficient * h/(2k).

// Conductance of a face over h^2: the harmonic mean of the cells beside it, 0 at a physical side.
INLINE real conductance(real back, real ahead, int physical, real per_h2)
{
    real mean = R(2) * back * ahead / (back + ahead);
    return physical ? R(0) : mean * per_h2;
}

// Both kernels take one axis at a time and see the block as nouter * n * ninner cells, n along the axis.

// Conductances of the faces across an axis.
KERNEL heat_faces(
    long nouter,               // cells of all slower axes together
    long n,                    // cells along the axis
    long ninner,               // cells of all faster axes together
    real h,                    // [m] cell size along the axis
    const int *physical,       // (2) 1 where the low, high side of the axis is a physical boundary, else 0
    const real *conductivity,  // (nouter, n, ninner) [W/(m K)] normal component of K
    const real *ghost,         // (2, nouter, ninner) [W/(m K)] beyond its sides; any number beyond physical ones
    real *faces,               // (nouter, n, ninner) [W/(m3 K)] between each cell and the next one ahead
    real *behind               // (nouter, ninner) [W/(m3 K)] between the first cells and what lies before them
) {
    real per_h2 = R(1) / (h * h);
    FOR_EACH_CELL_2D(i, outer, (n - 1) * ninner, nouter) {
        const real *k = conductivity + outer * n * ninner + i;
        faces[outer * n * ninner + i] = conductance(k[0], k[ninner], 0, per_h2);
    }
    FOR_EACH_CELL_2D(i, outer, ninner, nouter) {
        const real *low = conductivity + outer * n * ninner + i, *high = low + (n - 1) * ninner;
        const real *before = ghost + outer * ninner + i, *beyond = before + nouter * ninner;
        behind[outer * ninner + i] = conductance(before[0], low[0], physical[0], per_h2);
        faces[(outer + 1) * n * ninner - ninner + i] = conductance(high[0], beyond[0], physical[1], per_h2);
    }
}

// The operator without cross terms as numbers per cell, to assemble a matrix: divergence = centre T + the sum
// over neighbours of coefficient T + what is given at the sides. The share of one axis; those of all axes add
// up in centre. Coefficients through physical sides are 0.
KERNEL heat_coefficients(
    long nouter,          // cells of all slower axes together
    long n,               // cells along the axis
    long ninner,          // cells of all faster axes together
    real h,               // [m] cell size along the axis
    const int *physical,  // (2) 1 where the low, high side of the axis is a physical boundary, else 0
    const real *faces,    // (nouter, n, ninner) [W/(m3 K)] what heat_faces gives
    const real *behind,   // (nouter, ninner) [W/(m3 K)] what heat_faces gives
    const real *side,     // (2, 4, nouter, ninner) [SI] low, high side: coefficient, value, flux, share
    real *back,           // (nouter, n, ninner) [W/(m3 K)] coefficient of the neighbour behind
    real *ahead,          // (nouter, n, ninner) [W/(m3 K)] coefficient of the neighbour ahead
    real *centre          // (nouter, n, ninner) [W/(m3 K)] is added to
) {
    long nface = nouter * ninner;
    real low_per_h = physical[0] ? R(1) / h : R(0), high_per_h = physical[1] ? R(1) / h : R(0);
    real high_of_first = n == 1 ? high_per_h : R(0);
    FOR_EACH_CELL_2D(i, outer, (n - 2) * ninner, nouter) {
        long cell = (outer * n + 1) * ninner + i;
        back[cell] = faces[cell - ninner];
        ahead[cell] = faces[cell];
        centre[cell] -= faces[cell - ninner] + faces[cell];
    }
    FOR_EACH_CELL_2D(i, outer, ninner, nouter) {
        long face = outer * ninner + i, first = outer * n * ninner + i;
        real from_sides = low_per_h * side[face] + high_of_first * side[4 * nface + face];
        back[first] = behind[face];
        ahead[first] = faces[first];
        centre[first] -= behind[face] + faces[first] + from_sides;
    }
    if (n > 1) {
        FOR_EACH_CELL_2D(i, outer, ninner, nouter) {
            long face = outer * ninner + i, last = ((outer + 1) * n - 1) * ninner + i;
            back[last] = faces[last - ninner];
            ahead[last] = faces[last];
            centre[last] -= faces[last - ninner] + faces[last] + high_per_h * side[4 * nface + face];
        }
    }
}
