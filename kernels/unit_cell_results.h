/* Part of unit_cell.c and others: what the solutions of the cell problem give. */

/* Solution of load d at black point i, in Vectors.r and what follows it. */
#define CHI_BLACK(i, d) (((d) * level->ncolour + (i)) * LANES + l)

/* Sums over all faces of (e_i + grad chi_i) k (e_j + grad chi_j). Sums of squares, so that nothing cancels
   where K is far below the mean of k. Takes the scaling out of chi. */
INLINE void energies(const Level *level, Vectors v, real sum[NCOMPONENT][LANES])
{
    real *unscale = v.black;
    FOR_EACH_POINT(i, level->ncolour) FOR_EACH_LANE(l) {
        real scale = level->scale[i * LANES + l];
        UNROLLED FOR_EACH_AXIS(d) v.chi[CHI(i, d)] *= scale;
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
            UNROLLED FOR_EACH_SIDE(side) k[side] = level->face[FACE(i, side)] * own * unscale[at[side] * LANES + l];
            UNROLLED FOR_EACH_AXIS(d) {
                real chi = k[2 * d + 1] - k[2 * d];
                UNROLLED FOR_EACH_SIDE(side) g[d][side] = v.chi[CHI(at[side], d)];
                UNROLLED FOR_EACH_SIDE(side) chi = MUL_ADD(k[side], g[d][side], chi);
                chi *= scale * scale;
                UNROLLED FOR_EACH_SIDE(side) {
                    real difference = side & 1 ? g[d][side] - chi : chi - g[d][side];
                    g[d][side] = (side / 2 == d ? R(1) : R(0)) + difference;
                }
            }
            UNROLLED FOR_EACH_SIDE(side) UNROLLED FOR_EACH_COMPONENT(c)
                sum[c][l] = MUL_ADD(k[side] * g[FIRST_INDEX(c)][side], g[SECOND_INDEX(c)][side], sum[c][l]);
        }
    }
    for (int c = 0; c < NCOMPONENT; ++c) TEAM_SUM(sum[c]);
    TEAM_BARRIER;
}

/* After `energies`: the solutions at the black points, too. */
INLINE void find_black(const Level *level, Vectors v)
{
    const real *unscale = v.black;
    FOR_EACH_PLACE(level->n) {
        long i = point(level->n, PLACE), at[SIDES];
        list_around(around(level->n, PLACE, BLACK), at);
        FOR_EACH_AXIS(d) FOR_EACH_LANE(l) {
            real scale = level->scale[(level->ncolour + i) * LANES + l], sum = 0;
            UNROLLED FOR_EACH_SIDE(side) {
                real applied = side == 2 * d + 1 ? R(1) : side == 2 * d ? R(-1) : R(0);
                real k = level->face[FACE(i, side)] * unscale[at[side] * LANES + l];
                sum = MUL_ADD(k, applied + v.chi[CHI(at[side], d)], sum);
            }
            v.r[CHI_BLACK(i, d)] = sum * scale;
        }
    }
    TEAM_BARRIER;
}

/* Sums over all faces of (e_i + grad chi_i) face (e_j + grad chi_j), after `find_black` and with other faces. */
INLINE void add_products(const Level *level, Vectors v, real sum[NCOMPONENT][LANES])
{
    for (int c = 0; c < NCOMPONENT; ++c) FOR_EACH_LANE(l) sum[c][l] = 0;
    FOR_EACH_PLACE(level->n) {
        long i = point(level->n, PLACE), at[SIDES];
        list_around(around(level->n, PLACE, BLACK), at);
        for (int side = 0; side < SIDES; ++side) {
            real sign = side & 1 ? R(1) : R(-1);
            FOR_EACH_LANE(l) {
                real k = level->face[FACE(i, side)], g[DIM];
                UNROLLED FOR_EACH_AXIS(d) {
                    real difference = sign * (v.chi[CHI(at[side], d)] - v.r[CHI_BLACK(i, d)]);
                    g[d] = (side / 2 == d ? R(1) : R(0)) + difference;
                }
                UNROLLED FOR_EACH_COMPONENT(c) sum[c][l] = MUL_ADD(k * g[FIRST_INDEX(c)], g[SECOND_INDEX(c)], sum[c][l]);
            }
        }
    }
    for (int c = 0; c < NCOMPONENT; ++c) TEAM_SUM(sum[c]);
    TEAM_BARRIER;
}

/* The solutions as state, of the red points: [DIM * ncolour][ncells]. Always finite, as it is kept. */
INLINE void write_state(const Level *level, Vectors v, long team, long ncells, real *after)
{
    FOR_EACH_POINT(i, level->ncolour) for (int d = 0; d < DIM; ++d) FOR_EACH_LANE(l) {
        real chi = v.chi[CHI(i, d)];
        if (HAS_CELL(team, l, ncells))
            after[(d * level->ncolour + i) * ncells + CELL_OF(team, l, ncells)] = chi - chi == 0 ? chi : 0;
    }
}

/* After `find_black`: the solutions at all points, in the order of the caller. */
INLINE void write_corrector(const Level *level, Vectors v, long team, long ncells, real *corrector)
{
    FOR_EACH_PLACE(level->n) {
        long i = point(level->n, PLACE), red = natural(level->n, PLACE, RED);
        long black = natural(level->n, PLACE, BLACK);
        for (int d = 0; d < DIM; ++d) FOR_EACH_LANE(l) if (HAS_CELL(team, l, ncells)) {
            real *target = corrector + 2 * d * level->ncolour * ncells + CELL_OF(team, l, ncells);
            target[red * ncells] = v.chi[CHI(i, d)];
            target[black * ncells] = v.r[CHI_BLACK(i, d)];
        }
    }
}
