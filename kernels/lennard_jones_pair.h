/* The Lennard-Jones pair potential phi(r) = 4 (r^-12 - r^-6), in units of its own depth and diameter.

   Truncated at the cut-off without a shift. All functions take the squared distance, so that no root is
   needed, and one division serves the whole pair. */

typedef struct {
    real energy; /* phi */
    real push;   /* -phi' / r: times the distance vector it is the force */
} Pair;

/* Energy and push from 1 / r^2. */
INLINE Pair pair_of(real inverse)
{
    real sixth = inverse * inverse * inverse;
    Pair pair;
    pair.energy = R(4) * sixth * (sixth - R(1));
    pair.push = sixth * inverse * MUL_ADD(R(48), sixth, R(-24));
    return pair;
}

/* (phi'' - phi' / r) / r^2 from 1 / r^2: what a tangent needs beside the push. */
INLINE real pair_curvature(real inverse)
{
    real sixth = inverse * inverse * inverse;
    return R(672) * sixth * (sixth - R(2) / R(7)) * inverse * inverse;
}
