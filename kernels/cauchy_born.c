/* Cauchy-Born rule for a Lennard-Jones crystal at zero temperature.

   Every atom of a homogeneously deformed lattice sees its neighbours at r = F R. With one atom per
   primitive cell of volume V0 and half of the lattice vectors R (a vector and its opposite are equal),

       W = 1/V0 sum phi(|F R|),   P = dW/dF = 1/V0 sum phi'/r r (x) R,
       A = dP/dF = 1/V0 sum [(phi'' - phi'/r) / r^2 r r + phi'/r I] (x) R R,

   over the vectors that F leaves inside the cut-off (M. Born, K. Huang 1954; J. L. Ericksen 1984). The
   lattice is given, so that the kernel serves any Bravais lattice. */

#include "lennard_jones_pair.h"

#define OK 0
#define BAD_INPUT 2

/* F of a team's cells. */
typedef struct {
    real f[9][LANES];
    int bad[LANES];
} Deformation;

/* Of the component (i, j) of F. */
INLINE real cofactor(const Deformation *by, int i, int j, int l)
{
    int a = 3 * ((i + 1) % 3), b = 3 * ((i + 2) % 3), c = (j + 1) % 3, d = (j + 2) % 3;
    return by->f[a + c][l] * by->f[b + d][l] - by->f[a + d][l] * by->f[b + c][l];
}

/* Reads F, and finds out whether the vectors up to `reach` are enough. The most by which F^-1 may lengthen a
   vector, its 2-norm, is at most the root of its 1-norm times its infinity-norm, and just that for stretches
   along the axes. */
INLINE void read_deformation(Deformation *to, const real *from, long team, long ncells, real cutoff, real reach)
{
    for (int k = 0; k < 9; ++k)
        FOR_EACH_LANE(l) to->f[k][l] = from[k * ncells + CELL_OF(team, l, ncells)];
    FOR_EACH_LANE(l) {
        real determinant = 0, rows = 0, columns = 0;
        UNROLLED for (int i = 0; i < 3; ++i) {
            determinant += to->f[i][l] * cofactor(to, 0, i, l);
            real row = hp_abs(cofactor(to, i, 0, l)) + hp_abs(cofactor(to, i, 1, l));
            real column = hp_abs(cofactor(to, 0, i, l)) + hp_abs(cofactor(to, 1, i, l));
            rows = hp_max(rows, row + hp_abs(cofactor(to, i, 2, l)));
            columns = hp_max(columns, column + hp_abs(cofactor(to, 2, i, l)));
        }
        real longest = cutoff * (hp_sqrt(rows * columns) / hp_abs(determinant));
        to->bad[l] = !(determinant > 0) || !(longest <= reach); /* also where there is a NaN */
    }
}

/* r = F R, and its square. */
INLINE void deform(const Deformation *by, const real *R0, real r[3][LANES], real *square)
{
    for (int i = 0; i < 3; ++i)
        FOR_EACH_LANE(l) {
            real first = by->f[3 * i][l] * R0[0];
            r[i][l] = MUL_ADD(by->f[3 * i + 2][l], R0[2], MUL_ADD(by->f[3 * i + 1][l], R0[1], first));
        }
    FOR_EACH_LANE(l)
        square[l] = MUL_ADD(r[2][l], r[2][l], MUL_ADD(r[1][l], r[1][l], r[0][l] * r[0][l]));
}

KERNEL cauchy_born(
    long ncells,             // number of cells
    long nvector,            // half of the lattice vectors that may come inside the cut-off
    real cutoff,             // [sigma] beyond it atoms do not see each other
    real reach,              // [sigma] the vectors are all those up to this length
    real volume,             // [sigma^3] of an atom in the reference lattice
    const real *vectors,     // (nvector, 3) [sigma] lattice vectors, without their opposites
    const real *deformation, // (9, ncells) deformation gradient F_iJ, row by row
    real *energy,            // (ncells) [epsilon/sigma^3] per reference volume
    real *stress,            // (9, ncells) [epsilon/sigma^3] first Piola stress P_iJ
    int *status              // (ncells) 0 good, 2 not a deformation that the vectors suffice for
) {
    FOR_EACH_TEAM(team, ncells) {
        Deformation by;
        real sum[LANES], p[9][LANES];
        read_deformation(&by, deformation, team, ncells, cutoff, reach);
        for (int k = 0; k < 9; ++k)
            FOR_EACH_LANE(l) sum[l] = p[k][l] = 0;
        FOR_EACH_POINT(v, nvector) {
            const real *R0 = vectors + 3 * v;
            real r[3][LANES], square[LANES], slope[LANES];
            deform(&by, R0, r, square);
            FOR_EACH_LANE(l) {
                Pair pair = pair_of(R(1) / square[l]);
                slope[l] = square[l] < cutoff * cutoff ? -pair.push : R(0);
                sum[l] += square[l] < cutoff * cutoff ? pair.energy : R(0);
            }
            for (int k = 0; k < 9; ++k)
                FOR_EACH_LANE(l) p[k][l] = MUL_ADD(slope[l] * r[k / 3][l], R0[k % 3], p[k][l]);
        }
        TEAM_SUM(sum);
        for (int k = 0; k < 9; ++k)
            TEAM_SUM(p[k]);
        TEAM_ONCE FOR_EACH_LANE(l) if (HAS_CELL(team, l, ncells)) {
            long c = CELL_OF(team, l, ncells);
            status[c] = by.bad[l] ? BAD_INPUT : OK;
            energy[c] = sum[l] / volume;
            for (int k = 0; k < 9; ++k)
                stress[k * ncells + c] = p[k][l] / volume;
        }
    }
}

/* One column of the tangent: how P changes with F_kL. */
KERNEL cauchy_born_tangent(
    long ncells,             // number of cells
    long nvector,            // half of the lattice vectors that may come inside the cut-off
    int k,                   // row of the component of F
    int L,                   // column of the component of F
    real cutoff,             // [sigma] beyond it atoms do not see each other
    real reach,              // [sigma] the vectors are all those up to this length
    real volume,             // [sigma^3] of an atom in the reference lattice
    const real *vectors,     // (nvector, 3) [sigma] lattice vectors, without their opposites
    const real *deformation, // (9, ncells) deformation gradient F_iJ, row by row
    real *tangent,           // (9, ncells) [epsilon/sigma^3] dP_iJ / dF_kL
    int *status              // (ncells) 0 good, 2 not a deformation that the vectors suffice for
) {
    FOR_EACH_TEAM(team, ncells) {
        Deformation by;
        real a[9][LANES];
        read_deformation(&by, deformation, team, ncells, cutoff, reach);
        for (int m = 0; m < 9; ++m)
            FOR_EACH_LANE(l) a[m][l] = 0;
        FOR_EACH_POINT(v, nvector) {
            const real *R0 = vectors + 3 * v;
            real r[3][LANES], square[LANES], slope[LANES], along[LANES];
            deform(&by, R0, r, square);
            FOR_EACH_LANE(l) {
                real inverse = R(1) / square[l];
                real curvature = pair_curvature(inverse) * (k == 0 ? r[0][l] : (k == 1 ? r[1][l] : r[2][l]));
                slope[l] = square[l] < cutoff * cutoff ? -pair_of(inverse).push : R(0);
                along[l] = square[l] < cutoff * cutoff ? curvature : R(0);
            }
            for (int m = 0; m < 9; ++m)
                FOR_EACH_LANE(l) {
                    real part = MUL_ADD(along[l], r[m / 3][l], m / 3 == k ? slope[l] : R(0));
                    a[m][l] = MUL_ADD(part * R0[m % 3], R0[L], a[m][l]);
                }
        }
        for (int m = 0; m < 9; ++m)
            TEAM_SUM(a[m]);
        TEAM_ONCE FOR_EACH_LANE(l) if (HAS_CELL(team, l, ncells)) {
            status[CELL_OF(team, l, ncells)] = by.bad[l] ? BAD_INPUT : OK;
            for (int m = 0; m < 9; ++m)
                tangent[m * ncells + CELL_OF(team, l, ncells)] = a[m][l] / volume;
        }
    }
}
