/* Part of unit_cell_tensor.c and others: what the solutions of the cell problem give, with full tensors. */

/* Sums over all pairs of w (e_i + grad chi_i) (e_j + grad chi_j). */
INLINE void energies(const Level *level, Vectors v, real sum[NCOMPONENT][LANES])
{
    for (int c = 0; c < NCOMPONENT; ++c) FOR_EACH_LANE(l) sum[c][l] = 0;
    FOR_EACH_PIXEL(level->n) {
        long block[BLOCK];
        list_block(level->n, PIXEL, block);
        FOR_EACH_SLOT(s) {
            long own = block[MIDDLE], other = block[MIDDLE + 1 + s];
            real g[DIM][LANES];
            FOR_EACH_AXIS(d) {
                int step = step_along(s + 1, d);
                FOR_EACH_LANE(l) g[d][l] = step + (v.chi[CHI(other, d)] - v.chi[CHI(own, d)]);
            }
            FOR_EACH_COMPONENT(c) FOR_EACH_LANE(l)
                sum[c][l] = MUL_ADD(v.weight[WEIGHT(own, s)] * g[FIRST_INDEX(c)][l], g[SECOND_INDEX(c)][l], sum[c][l]);
        }
    }
    for (int c = 0; c < NCOMPONENT; ++c) TEAM_SUM(sum[c]);
    TEAM_BARRIER;
}

/* The gradients e_d + grad chi_d of the parts of one corner. */
INLINE void gradients_at_corner(
    const Corner *corner, Vectors v, const long *block, real g[DIM][DIM][PARTS][LANES])
{
    FOR_EACH_AXIS(d) {
        real u[PARTS][LANES];
        FOR_EACH_PART(c) FOR_EACH_LANE(l) u[c][l] = (c >> d & 1) + v.chi[CHI(block[MIDDLE + OFFSET(c)], d)];
        find_gradients(corner, u, g[d]);
    }
}

/* Derivatives of all components of n^DIM K by all those of a phase's tensor, [NCOMPONENT][NCOMPONENT]: sums over
   the parts that lie in it. */
INLINE void add_products(
    const Level *level, Vectors v, const int *labels, const int *image, const Input *in, int phase,
    real sum[NCOMPONENT][NCOMPONENT][LANES])
{
    for (int by = 0; by < NCOMPONENT; ++by) for (int k = 0; k < NCOMPONENT; ++k) FOR_EACH_LANE(l) sum[by][k][l] = 0;
    FOR_EACH_PIXEL(level->n) {
        long block[BLOCK];
        int label[PARTS][LANES], any = 0;
        list_block(level->n, PIXEL, block);
        read_corner(labels, image, in, v.npoint, block, label);
        FOR_EACH_PART(c) for (int l = 0; l < LANES; ++l) any |= label[c][l] == phase;
        if (!any) continue;
        Corner corner;
        real g[DIM][DIM][PARTS][LANES];
        take_tensors(in, label, &corner);
        eliminate_joints(&corner);
        gradients_at_corner(&corner, v, block, g);
        FOR_EACH_PART(c) for (int by = 0; by < NCOMPONENT; ++by) for (int k = 0; k < NCOMPONENT; ++k) {
            int a = FIRST_INDEX(by), b = SECOND_INDEX(by), i = FIRST_INDEX(k), j = SECOND_INDEX(k);
            FOR_EACH_LANE(l) {
                real product = g[i][a][c][l] * g[j][b][c][l];
                if (a != b) product = MUL_ADD(g[i][b][c][l], g[j][a][c][l], product);
                sum[by][k][l] += label[c][l] == phase ? product / PARTS : R(0);
            }
        }
    }
    for (int by = 0; by < NCOMPONENT; ++by) for (int k = 0; k < NCOMPONENT; ++k) TEAM_SUM(sum[by][k]);
    TEAM_BARRIER;
}

/* The gradients of all parts, as [load][axis][part][corner]; corner i lies behind point i along every axis. */
INLINE void write_gradients(
    const Level *level, Vectors v, const int *labels, const int *image, const Input *in, long team, long ncells,
    real *gradient)
{
    FOR_EACH_PIXEL(level->n) {
        long block[BLOCK];
        int label[PARTS][LANES];
        Corner corner;
        real g[DIM][DIM][PARTS][LANES];
        list_block(level->n, PIXEL, block);
        read_corner(labels, image, in, v.npoint, block, label);
        take_tensors(in, label, &corner);
        eliminate_joints(&corner);
        gradients_at_corner(&corner, v, block, g);
        FOR_EACH_AXIS(d) FOR_EACH_AXIS(a) FOR_EACH_PART(c) for (int l = 0; l < LANES; ++l) {
            long place = ((d * DIM + a) * PARTS + c) * v.npoint + block[MIDDLE];
            if (HAS_CELL(team, l, ncells)) gradient[place * ncells + CELL_OF(team, l, ncells)] = g[d][a][c][l];
        }
    }
}

/* The solutions, [DIM][npoint][ncells]. As state they are always finite, since that is kept. */
INLINE void write_solutions(Vectors v, long team, long ncells, int state, real *target)
{
    FOR_EACH_POINT(i, v.npoint) for (int d = 0; d < DIM; ++d) FOR_EACH_LANE(l) {
        real chi = v.chi[CHI(i, d)];
        if (HAS_CELL(team, l, ncells))
            target[(d * v.npoint + i) * ncells + CELL_OF(team, l, ncells)] = state && chi - chi != 0 ? 0 : chi;
    }
}
