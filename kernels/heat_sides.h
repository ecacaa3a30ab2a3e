// What is given at the faces of a side of the block; shared by heat.c and heat_diagonal.c.

// Heat that enters a cell through a physical side of nface faces, per volume. `side` holds for each face:
// coefficient [W/(m2 K)], value [K], flux [W/m2], share of the cross part [1].
INLINE real side_source(const real *side, long nface, long face, real t, real per_h)
{
    return (side[face] * (side[nface + face] - t) + side[2 * nface + face]) * per_h;
}
