/* Part of unit_cell.c and others: what the solutions of the cell problem give. */

/* Sums of products of the gradients g[d] of all loads over the sides of a point, weighted by k. */
INLINE void add_products(const real k[SIDES], real g[DIM][SIDES], real sum[NCOMPONENT][LANES], int l)
{
    FOR_EACH_SIDE(side) {
        for (int d = 0; d < DIM; ++d) sum[d][l] += k[side] * g[d][side] * g[d][side];
        sum[NCOMPONENT - 1][l] += k[side] * g[0][side] * g[1][side];
        if (DIM == 3) {
            sum[NCOMPONENT - 3][l] += k[side] * g[1][side] * g[DIM - 1][side];
            sum[NCOMPONENT - 2][l] += k[side] * g[0][side] * g[DIM - 1][side];
        }
    }
}

/* Sums over all faces of (e_i + grad chi_i) k (e_j + grad chi_j). Sums of squares, so that nothing cancels
   where K is far below the mean of k. Takes the scaling out of chi. */
INLINE void energies(const Level *level, Vectors v, real sum[NCOMPONENT][LANES])
{
    real *unscale = v.black;
    FOR_EACH_POINT(i, level->ncolour) FOR_EACH_LANE(l) {
        real scale = level->scale[i * LANES + l];
        for (int d = 0; d < DIM; ++d) v.chi[CHI(i, d)] *= scale;
        unscale[i * LANES + l] = R(1) / scale;
    }
    TEAM_BARRIER;
    for (int c = 0; c < NCOMPONENT; ++c) FOR_EACH_LANE(l) sum[c][l] = 0;
    FOR_EACH_PLACE(level->n) {
        long i = point(level->n, PLACE), at[SIDES];
        list_around(around(level->n, PLACE, BLACK), at);
        FOR_EACH_LANE(l) {
            real scale = level->scale[(level->ncolour + i) * LANES + l], own = R(1) / scale;
            real k[SIDES], g[DIM][SIDES];
            FOR_EACH_SIDE(side) k[side] = level->face[FACE(i, side)] * own * unscale[at[side] * LANES + l];
            for (int d = 0; d < DIM; ++d) {
                real chi = k[2 * d + 1] - k[2 * d];
                FOR_EACH_SIDE(side) g[d][side] = v.chi[CHI(at[side], d)];
                FOR_EACH_SIDE(side) chi = MUL_ADD(k[side], g[d][side], chi);
                chi *= scale * scale;
                FOR_EACH_SIDE(side) {
                    real difference = side & 1 ? g[d][side] - chi : chi - g[d][side];
                    g[d][side] = (side / 2 == d ? R(1) : R(0)) + difference;
                }
            }
            add_products(k, g, sum, l);
        }
    }
    for (int c = 0; c < NCOMPONENT; ++c) TEAM_SUM(sum[c]);
    TEAM_BARRIER;
}
