/* Part of unit_cell_tensor.c and others: the operator of full tensors, for the conjugate gradients.

   The energy of a cell is a sum over pairs of neighbouring pixels, those across corners too, of w (u - u')^2
   (unit_cell_corner.h), some w being negative. Preconditioned by the multigrid cycle of unit_cell_levels.h for
   what the diagonals of the tensors alone would conduct: both energies differ by no more than the tensors,
   scaled to a diagonal of 1, differ from it, so that the number of iterations depends on the anisotropy and not
   on the resolution. The cycle is one for the red points; with those the black ones are eliminated exactly.

   Vectors hold all points as [z][y][x][load][lane]. The residual is scaled as in the cycle, by the square root
   of the diagonal's finite volumes. */

/* Solution of load d at point i, in Vectors.chi. */
#define CHI(i, d) ((((d) / LOADS * v.npoint + (i)) * LOADS + (d) % LOADS) * LANES + l)

typedef struct {
    long npoint;         /* of a vector: all of a cell */
    real *chi;           /* [DIM / LOADS][npoint][LOADS]: all loads */
    real *x, *r, *p, *q; /* [npoint][LOADS]; x is the part of chi under way */
    real *scale;         /* [npoint] of level 0 */
    real *weight;        /* [npoint][SLOTS] of pairs */
} Vectors;

/* Cuts the team's memory into vectors and levels; returns the number of levels. */
INLINE int lay_out(long n, real *memory, Level *level, Vectors *v)
{
    long npoint = number_of_points(n), vector = npoint * LOADS + PAD;
    v->npoint = npoint;
    v->chi = v->x = memory, v->r = v->x + (npoint * DIM + PAD) * LANES;
    v->p = v->r + vector * LANES, v->q = v->p + vector * LANES, v->scale = v->q + vector * LANES;
    v->weight = v->scale + (npoint + PAD) * LANES;
    return lay_out_levels(n, v->weight + (npoint * SLOTS + PAD) * LANES, v->x, level, 1);
}

/* The weights of all pairs. `table` is memory for those of the corners inside a phase, [nphase][PAIRS]. */
INLINE void find_weights(
    const Level *level, Vectors v, const int *labels, const int *image, const Input *in, real *table)
{
    FOR_EACH_POINT(i, in->nphase) {
        Corner corner;
        int label[PARTS][LANES];
        FOR_EACH_PART(c) for (int l = 0; l < LANES; ++l) label[c][l] = (int)i;
        take_tensors(in, label, &corner);
        eliminate_joints(&corner);
        find_pairs(&corner, table + i * PAIRS * LANES);
    }
    FOR_EACH_POINT(i, v.npoint * SLOTS) FOR_EACH_LANE(l) v.weight[i * LANES + l] = 0;
    TEAM_BARRIER;
    for (int turn = 0; turn < PARTS; ++turn) {
        FOR_EACH_PIXEL_IN_TURN(level->n) {
            long block[BLOCK];
            int label[PARTS][LANES];
            real own[PAIRS * LANES];
            list_block(level->n, PIXEL_IN_TURN(turn), block);
            int alike = read_corner(labels, image, in, v.npoint, block, label);
            if (!alike) {
                Corner corner;
                take_tensors(in, label, &corner);
                eliminate_joints(&corner);
                find_pairs(&corner, own);
            }
            const real *pair = alike ? table + label[0][0] * PAIRS * LANES : own;
            for (int c = 0; c < PARTS; ++c) for (int d = c + 1; d < PARTS; ++d, pair += LANES) {
                long i = block[MIDDLE + OFFSET(c)], slot = OFFSET(d) - OFFSET(c) - 1;
                FOR_EACH_LANE(l) v.weight[WEIGHT(i, slot)] += pair[l];
            }
        }
        TEAM_BARRIER;
    }
}

/* The scale of level 0, in the order of the vectors. */
INLINE void copy_scale(const Level *level, Vectors v)
{
    FOR_EACH_PLACE(level->n) {
        long i = point(level->n, PLACE), red = natural(level->n, PLACE, RED), black = natural(level->n, PLACE, BLACK);
        FOR_EACH_LANE(l) {
            v.scale[red * LANES + l] = level->scale[i * LANES + l];
            v.scale[black * LANES + l] = level->scale[(level->ncolour + i) * LANES + l];
        }
    }
    TEAM_BARRIER;
}

/* Sums over the pairs, and the right-hand side of the loads from `first` on into r. */
INLINE void find_loads(const Level *level, Vectors v, int first, Progress *now)
{
    FOR_EACH_LOAD(j) FOR_EACH_LANE(l) now->faces[j][l] = now->norm[j][l] = 0;
    FOR_EACH_PIXEL(level->n) {
        long block[BLOCK];
        list_block(level->n, PIXEL, block);
        FOR_EACH_LOAD(j) {
            real r[LANES], faces[LANES];
            FOR_EACH_LANE(l) r[l] = faces[l] = 0;
            FOR_EACH_SLOT(s) {
                int step = step_along(s + 1, first + j);
                if (step == 0) continue;
                FOR_EACH_LANE(l) {
                    real ahead = v.weight[WEIGHT(block[MIDDLE], s)], behind = v.weight[WEIGHT(block[MIDDLE - 1 - s], s)];
                    r[l] += step * (ahead - behind), faces[l] += ahead;
                }
            }
            FOR_EACH_LANE(l) {
                r[l] *= v.scale[block[MIDDLE] * LANES + l];
                v.r[AT(block[MIDDLE], j)] = r[l];
                now->norm[j][l] = MUL_ADD(r[l], r[l], now->norm[j][l]);
                now->faces[j][l] += faces[l];
            }
        }
    }
    FOR_EACH_LOAD(j) {
        TEAM_SUM(now->faces[j]);
        TEAM_SUM(now->norm[j]);
    }
    TEAM_BARRIER;
}

/* x = p = 0 */
INLINE void start(const Level *level, Vectors v)
{
    FOR_EACH_POINT(i, level->ncolour * 2 * LOADS) FOR_EACH_LANE(l) v.x[i * LANES + l] = v.p[i * LANES + l] = 0;
    TEAM_BARRIER;
}

/* Takes out of r what rounding leaves of a source that is the same everywhere, against which no solution helps;
   in single precision it would lead astray once r is small. */
INLINE void balance(Vectors v)
{
    real source[LOADS][LANES], total[LANES];
    FOR_EACH_LANE(l) total[l] = 0;
    FOR_EACH_LOAD(j) FOR_EACH_LANE(l) source[j][l] = 0;
    FOR_EACH_POINT(i, v.npoint) FOR_EACH_LANE(l) {
        real unscale = R(1) / v.scale[i * LANES + l];
        total[l] = MUL_ADD(unscale, unscale, total[l]);
        UNROLLED FOR_EACH_LOAD(j) source[j][l] = MUL_ADD(v.r[AT(i, j)], unscale, source[j][l]);
    }
    TEAM_SUM(total);
    FOR_EACH_LOAD(j) {
        TEAM_SUM(source[j]);
        FOR_EACH_LANE(l) source[j][l] /= total[l];
    }
    FOR_EACH_POINT(i, v.npoint) FOR_EACH_LOAD(j) FOR_EACH_LANE(l)
        v.r[AT(i, j)] -= source[j][l] / v.scale[i * LANES + l];
    TEAM_BARRIER;
}

/* u = M^-1 r by one cycle, and rz = r u. */
INLINE void precondition(const Level *level, int nlevel, Vectors v, real rz[LOADS][LANES])
{
    balance(v);
    FOR_EACH_PLACE(level->n) {
        long i = point(level->n, PLACE), black = natural(level->n, PLACE, BLACK);
        FOR_EACH_LOAD(j) FOR_EACH_LANE(l) level->rhs_black[AT(i, j)] = (small)v.r[AT(black, j)];
    }
    TEAM_BARRIER;
    FOR_EACH_PLACE(level->n) {
        long i = point(level->n, PLACE), red = natural(level->n, PLACE, RED);
        Around at = around(level->n, PLACE, RED);
        FOR_EACH_LANE(l) {
            SmallFaces k = small_of_red(level->scaled_face, at, l);
            FOR_EACH_LOAD(j)
                level->rhs[AT(i, j)] = (small)v.r[AT(red, j)] + small_sum(k, level->rhs_black, at, j, l);
        }
    }
    TEAM_BARRIER;
    cycle(level, nlevel);
    to_red(level);
    to_black(level, level->rhs_black, level->u);
    FOR_EACH_LOAD(j) FOR_EACH_LANE(l) rz[j][l] = 0;
    FOR_EACH_PLACE(level->n) {
        long i = point(level->n, PLACE), red = natural(level->n, PLACE, RED), black = natural(level->n, PLACE, BLACK);
        FOR_EACH_LOAD(j) FOR_EACH_LANE(l) {
            rz[j][l] = MUL_ADD(v.r[AT(red, j)], (real)level->u[AT(i, j)], rz[j][l]);
            rz[j][l] = MUL_ADD(v.r[AT(black, j)], (real)level->u_black[AT(i, j)], rz[j][l]);
        }
    }
    FOR_EACH_LOAD(j) TEAM_SUM(rz[j]);
    TEAM_BARRIER;
}

/* p = u + beta p, without the scaling of u */
INLINE void turn(const Level *level, Vectors v, real beta[LOADS][LANES])
{
    FOR_EACH_PLACE(level->n) {
        long i = point(level->n, PLACE), red = natural(level->n, PLACE, RED), black = natural(level->n, PLACE, BLACK);
        FOR_EACH_LOAD(j) FOR_EACH_LANE(l) {
            real u = v.scale[red * LANES + l] * (real)level->u[AT(i, j)];
            real u_black = v.scale[black * LANES + l] * (real)level->u_black[AT(i, j)];
            v.p[AT(red, j)] = MUL_ADD(beta[j][l], v.p[AT(red, j)], u);
            v.p[AT(black, j)] = MUL_ADD(beta[j][l], v.p[AT(black, j)], u_black);
        }
    }
    TEAM_BARRIER;
}

/* q = A p, and pq = p q. */
INLINE void apply(const Level *level, Vectors v, real pq[LOADS][LANES])
{
    FOR_EACH_LOAD(j) FOR_EACH_LANE(l) pq[j][l] = 0;
    FOR_EACH_PIXEL(level->n) {
        long block[BLOCK];
        list_block(level->n, PIXEL, block);
        FOR_EACH_LANE(l) {
            UNROLLED FOR_EACH_LOAD(j) {
                real own = v.p[AT(block[MIDDLE], j)], q = 0, square = 0;
                UNROLLED FOR_EACH_SLOT(s) {
                    real ahead = own - v.p[AT(block[MIDDLE + 1 + s], j)], behind = own - v.p[AT(block[MIDDLE - 1 - s], j)];
                    real here = v.weight[WEIGHT(block[MIDDLE], s)], there = v.weight[WEIGHT(block[MIDDLE - 1 - s], s)];
                    q = MUL_ADD(here, ahead, q);
                    q = MUL_ADD(there, behind, q);
                    square = MUL_ADD(here * ahead, ahead, square);
                }
                v.q[AT(block[MIDDLE], j)] = q;
                pq[j][l] += square;
            }
        }
    }
    FOR_EACH_LOAD(j) TEAM_SUM(pq[j]);
    TEAM_BARRIER;
}

/* x and r after a step; where a cell is done, alpha is 0 and both stay. */
INLINE void advance(const Level *level, Vectors v, real alpha[LOADS][LANES])
{
    FOR_EACH_POINT(i, level->ncolour * 2) FOR_EACH_LOAD(j) FOR_EACH_LANE(l) {
        v.x[AT(i, j)] = MUL_ADD(alpha[j][l], v.p[AT(i, j)], v.x[AT(i, j)]);
        v.r[AT(i, j)] = MUL_ADD(-alpha[j][l] * v.scale[i * LANES + l], v.q[AT(i, j)], v.r[AT(i, j)]);
    }
    TEAM_BARRIER;
}

/* Starts from the solutions before[d][i] instead of 0. */
INLINE void start_from(
    const Level *level, Vectors v, const real *before, long team, long ncells, int first, Progress *now)
{
    real gained[LOADS][LANES];
    FOR_EACH_POINT(i, v.npoint) FOR_EACH_LOAD(j) FOR_EACH_LANE(l)
        v.x[AT(i, j)] = v.p[AT(i, j)] = before[((first + j) * v.npoint + i) * ncells + CELL_OF(team, l, ncells)];
    TEAM_BARRIER;
    apply(level, v, gained);
    FOR_EACH_LOAD(j) FOR_EACH_LANE(l) gained[j][l] = 0;
    FOR_EACH_POINT(i, v.npoint) FOR_EACH_LOAD(j) FOR_EACH_LANE(l) {
        real scale = v.scale[i * LANES + l], r = MUL_ADD(-scale, v.q[AT(i, j)], v.r[AT(i, j)]);
        gained[j][l] = MUL_ADD(v.x[AT(i, j)] / scale, v.r[AT(i, j)] + r, gained[j][l]);
        v.r[AT(i, j)] = r;
        v.p[AT(i, j)] = 0;
    }
    FOR_EACH_LOAD(j) {
        TEAM_SUM(gained[j]);
        FOR_EACH_LANE(l) now->faces[j][l] -= gained[j][l];
    }
    TEAM_BARRIER;
}
