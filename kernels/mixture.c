// An ideal gas mixture: enthalpy, temperature at a given enthalpy, density, conduction, element balance.
//
// Thermodynamics of a species: two polynomials of fourth degree in the temperature for its heat capacity,
// meeting at a temperature in the middle (NASA, seven coefficients; McBride, Gordon, Reno 1993, NASA
// TM-4513). A row of `thermo` holds the middle temperature, then above and below it: five coefficients of
// the heat capacity in J/(kg K) and the constant of the enthalpy in J/kg; thirteen numbers.
//
// Conduction: the mean of the arithmetic and the harmonic mean over the mole fractions (Mathur, Tondon,
// Saxena 1967, Mol. Phys. 12, 569) of the species' conductivities sqrt(T) (c0 + c1 ln T + ... + c4 ln^4 T).

#define NTHERMO 13
#define NCONDUCTION 5
#define NITERATION 8
#define MOST_ELEMENTS 8

// Cells are lanes, and species are points: as mass fractions of a species stand side by side, each is read as
// one vector. Lanes without a cell of their own take what does no harm, as whole vectors can be read then.

typedef struct {
    real enthalpy; // [J/kg]
    real capacity; // [J/(kg K)]
} Heat;

// Of one species. Both polynomials are read for every cell, so that choosing is no branch.
INLINE Heat heat_of(const real *thermo, real t)
{
    const real *high = thermo + 1, *low = thermo + 7;
    real a1 = high[0], b1 = high[1], c1 = high[2], d1 = high[3], e1 = high[4], f1 = high[5];
    real a0 = low[0], b0 = low[1], c0 = low[2], d0 = low[3], e0 = low[4], f0 = low[5];
    int hot = t > thermo[0];
    real a = hot ? a1 : a0, b = hot ? b1 : b0, c = hot ? c1 : c0;
    real d = hot ? d1 : d0, e = hot ? e1 : e0, f = hot ? f1 : f0;
    Heat heat;
    heat.capacity = a + t * (b + t * (c + t * (d + t * e)));
    heat.enthalpy =
        f + t * (a + t * (b * R(0.5) + t * (c * R(0.33333333333333333) + t * (d * R(0.25) + t * e * R(0.2)))));
    return heat;
}

// 1 for lanes with a cell, else 0: of the type of what it chooses, so that vectors are as long.
INLINE void find_lanes(real *mine, long team, long ncells)
{
    FOR_EACH_LANE(l) mine[l] = HAS_CELL(team, l, ncells) ? R(1) : R(0);
}

// Sums over the species at the temperatures t: enthalpy, and heat capacity.
INLINE void sum_heat(const real *thermo, const real *t, const real *fractions, const real *mine, long team,
                     long ncells, long nspecies, real *enthalpy, real *capacity)
{
    FOR_EACH_LANE(l) enthalpy[l] = capacity[l] = R(0);
    FOR_EACH_POINT(k, nspecies) {
        const real *own = fractions + k * ncells + team * LANES;
        FOR_EACH_LANE(l) {
            real y = mine[l] > R(0) ? own[l] : R(1);
            Heat one = heat_of(thermo + k * NTHERMO, t[l]);
            enthalpy[l] += y * one.enthalpy;
            capacity[l] += y * one.capacity;
        }
    }
    TEAM_SUM(enthalpy);
    TEAM_SUM(capacity);
}

// Specific enthalpy of each cell.
KERNEL mixture_enthalpy(
    long ncells,              // number of cells
    long nspecies,            // number of species
    const real *thermo,       // (nspecies, 13) [J/(kg K), J/kg] see above
    const real *temperature,  // (ncells) [K] temperature
    const real *fractions,    // (nspecies, ncells) [1] mass fractions
    real *enthalpy            // (ncells) [J/kg] with enthalpies of formation
) {
    FOR_EACH_TEAM(team, ncells) {
        real mine[LANES], t[LANES], sum[LANES], capacity[LANES];
        find_lanes(mine, team, ncells);
        FOR_EACH_LANE(l) t[l] = temperature[CELL_OF(team, l, ncells)];
        sum_heat(thermo, t, fractions, mine, team, ncells, nspecies, sum, capacity);
        TEAM_ONCE FOR_EACH_LANE(l)
            if (HAS_CELL(team, l, ncells)) enthalpy[CELL_OF(team, l, ncells)] = sum[l];
    }
}

// Temperature at which the mixture has a given enthalpy: Newton's method, the same number of iterations in
// every cell.
KERNEL mixture_temperature(
    long ncells,            // number of cells
    long nspecies,          // number of species
    const real *thermo,     // (nspecies, 13) [J/(kg K), J/kg] see above
    const real *enthalpy,   // (ncells) [J/kg] with enthalpies of formation
    const real *fractions,  // (nspecies, ncells) [1] mass fractions
    real *temperature,      // (ncells) [K] first guess, then the answer
    real *residual          // (ncells) [1] last relative change
) {
    FOR_EACH_TEAM(team, ncells) {
        real mine[LANES], wanted[LANES], t[LANES], step[LANES], sum[LANES], capacity[LANES];
        find_lanes(mine, team, ncells);
        FOR_EACH_LANE(l) wanted[l] = enthalpy[CELL_OF(team, l, ncells)];
        FOR_EACH_LANE(l) t[l] = temperature[CELL_OF(team, l, ncells)];
        for (int iteration = 0; iteration < NITERATION; ++iteration) {
            sum_heat(thermo, t, fractions, mine, team, ncells, nspecies, sum, capacity);
            FOR_EACH_LANE(l) {
                step[l] = (wanted[l] - sum[l]) / capacity[l];
                real next = t[l] + step[l];
                next = next > R(10000) ? R(10000) : next;
                t[l] = next < R(50) ? R(50) : next;
            }
        }
        TEAM_ONCE FOR_EACH_LANE(l)
            if (HAS_CELL(team, l, ncells)) {
                temperature[CELL_OF(team, l, ncells)] = t[l];
                residual[CELL_OF(team, l, ncells)] = hp_abs(step[l]) / t[l];
            }
    }
}

// Sums of conduction over the species: over the mole fractions, and over their inverse.
typedef struct {
    real root[LANES], log_t[LANES], parallel[LANES], series[LANES];
} Conduction;

INLINE void sum_conduction(Conduction *of, const real *coefficients, const real *t, const real *moles,
                           const real *fractions, const real *mine, long team, long ncells, long nspecies)
{
    FOR_EACH_LANE(l) {
        of->log_t[l] = hp_log(t[l]);
        of->root[l] = hp_sqrt(t[l]);
        of->parallel[l] = of->series[l] = R(0);
    }
    FOR_EACH_POINT(k, nspecies) {
        const real *c = coefficients + k * NCONDUCTION, *own = fractions + k * ncells + team * LANES;
        FOR_EACH_LANE(l) {
            real x = (mine[l] > R(0) ? own[l] : R(1)) * moles[k], z = of->log_t[l];
            real one = of->root[l] * (c[0] + z * (c[1] + z * (c[2] + z * (c[3] + z * c[4]))));
            of->parallel[l] += x * one;
            of->series[l] += x / one;
        }
    }
    TEAM_SUM(of->parallel);
    TEAM_SUM(of->series);
}

// Density, and conductivity over heat capacity: at unity Lewis number that is density times diffusivity.
KERNEL mixture_properties(
    long ncells,              // number of cells
    long nspecies,            // number of species
    real pressure_over_r,     // [K mol/m3] pressure over the gas constant
    const real *thermo,       // (nspecies, 13) [J/(kg K), J/kg] see above
    const real *moles,        // (nspecies) [mol/kg] 1 over the molar masses
    const real *conduction,   // optional (nspecies, 5) [W/(m K^1.5)] see above
    const real *temperature,  // (ncells) [K] temperature
    const real *fractions,    // (nspecies, ncells) [1] mass fractions
    real *density,            // (ncells) [kg/m3]
    real *diffusion           // (ncells) [kg/(m s)] conductivity over heat capacity, where conduction is given
) {
    FOR_EACH_TEAM(team, ncells) {
        real mine[LANES], t[LANES], amount[LANES], enthalpy[LANES], capacity[LANES];
        find_lanes(mine, team, ncells);
        FOR_EACH_LANE(l) t[l] = temperature[CELL_OF(team, l, ncells)];
        FOR_EACH_LANE(l) amount[l] = R(0);
        FOR_EACH_POINT(k, nspecies) {
            const real *own = fractions + k * ncells + team * LANES;
            FOR_EACH_LANE(l) amount[l] += (mine[l] > R(0) ? own[l] : R(1)) * moles[k];
        }
        TEAM_SUM(amount);
        TEAM_ONCE FOR_EACH_LANE(l)
            if (HAS_CELL(team, l, ncells))
                density[CELL_OF(team, l, ncells)] = pressure_over_r / (t[l] * amount[l]);
        if (conduction) {
            Conduction by;
            sum_conduction(&by, conduction, t, moles, fractions, mine, team, ncells, nspecies);
            sum_heat(thermo, t, fractions, mine, team, ncells, nspecies, enthalpy, capacity);
            TEAM_ONCE FOR_EACH_LANE(l) if (HAS_CELL(team, l, ncells)) {
                real conductivity = R(0.5) * (by.parallel[l] / amount[l] + amount[l] / by.series[l]);
                diffusion[CELL_OF(team, l, ncells)] = conductivity / capacity[l];
            }
        }
    }
}

// The smallest system of each lane: a symmetric matrix of MOST_ELEMENTS columns, and a right-hand side.
typedef struct {
    real matrix[MOST_ELEMENTS * MOST_ELEMENTS][LANES], rest[MOST_ELEMENTS][LANES];
} Balance;

// Solves it in place by Cholesky's method; pivots that are nothing but rounding count as none.
INLINE void solve(Balance *of, long n)
{
    for (long i = 0; i < n; ++i) {
        real(*row)[LANES] = of->matrix + i * MOST_ELEMENTS;
        real whole[LANES];
        FOR_EACH_LANE(l) whole[l] = row[i][l];
        for (long j = 0; j <= i; ++j) {
            real(*other)[LANES] = of->matrix + j * MOST_ELEMENTS;
            for (long m = 0; m < j; ++m)
                FOR_EACH_LANE(l) row[j][l] -= row[m][l] * other[m][l];
            if (j < i)
                FOR_EACH_LANE(l) row[j][l] *= other[j][l];
        }
        FOR_EACH_LANE(l) {
            real inverse = R(1) / hp_sqrt(row[i][l]);
            row[i][l] = row[i][l] > R(1e-13) * whole[l] ? inverse : R(0);
        }
        for (long m = 0; m < i; ++m)
            FOR_EACH_LANE(l) of->rest[i][l] -= row[m][l] * of->rest[m][l];
        FOR_EACH_LANE(l) of->rest[i][l] *= row[i][l];
    }
    for (long i = n - 1; i >= 0; --i) {
        for (long m = i + 1; m < n; ++m)
            FOR_EACH_LANE(l) of->rest[i][l] -= of->matrix[m * MOST_ELEMENTS + i][l] * of->rest[m][l];
        FOR_EACH_LANE(l) of->rest[i][l] *= of->matrix[i * MOST_ELEMENTS + i][l];
    }
}

// What one species with mass fraction y adds to the system; `lost` of it is missing.
INLINE void add_species(Balance *to, const real *share, long k, long nspecies, long nelement, const real *y,
                        const real *lost)
{
    for (long i = 0; i < nelement; ++i) {
        real a = share[i * nspecies + k];
        FOR_EACH_LANE(l) to->rest[i][l] += a * lost[l];
        for (long j = 0; j <= i; ++j) {
            real both = a * share[j * nspecies + k];
            FOR_EACH_LANE(l) to->matrix[i * MOST_ELEMENTS + j][l] += both * y[l] * y[l];
        }
    }
}

// The smallest relative change of mass fractions that gives every element the mass it had before: with
// weights y^2 a linear system of one equation per element, solved by Cholesky's method. Directions in which
// no species of the cell can move are left alone.
KERNEL mixture_conserve(
    long ncells,          // number of cells
    long nspecies,        // number of species
    long nelement,        // number of elements, at most 8
    const real *share,    // (nelement, nspecies) [1] mass of the element in a mass of the species
    const real *before,   // (nspecies, ncells) [1] mass fractions that have the right element masses
    real *fractions       // (nspecies, ncells) [1] mass fractions to be corrected
) {
    FOR_EACH_TEAM(team, ncells) {
        Balance balance;
        real mine[LANES];
        find_lanes(mine, team, ncells);
        // The second time for what was rounded in the first.
        for (int pass = 0; pass < 2; ++pass) {
            for (long i = 0; i < nelement; ++i) {
                FOR_EACH_LANE(l) balance.rest[i][l] = 0;
                for (long j = 0; j <= i; ++j)
                    FOR_EACH_LANE(l) balance.matrix[i * MOST_ELEMENTS + j][l] = 0;
            }
            FOR_EACH_POINT(k, nspecies) {
                long at = k * ncells + team * LANES;
                real y[LANES], lost[LANES];
                FOR_EACH_LANE(l) {
                    y[l] = mine[l] > R(0) ? fractions[at + l] : R(1);
                    lost[l] = (mine[l] > R(0) ? before[at + l] : R(1)) - y[l];
                }
                add_species(&balance, share, k, nspecies, nelement, y, lost);
            }
            for (long i = 0; i < nelement; ++i) {
                TEAM_SUM(balance.rest[i]);
                for (long j = 0; j <= i; ++j)
                    TEAM_SUM(balance.matrix[i * MOST_ELEMENTS + j]);
            }
            solve(&balance, nelement);
            FOR_EACH_POINT(k, nspecies) {
                long at = k * ncells + team * LANES;
                real change[LANES];
                FOR_EACH_LANE(l) change[l] = 0;
                for (long i = 0; i < nelement; ++i)
                    FOR_EACH_LANE(l) change[l] += share[i * nspecies + k] * balance.rest[i][l];
                FOR_EACH_LANE(l)
                    if (mine[l] > R(0))
                        fractions[at + l] += fractions[at + l] * fractions[at + l] * change[l];
            }
        }
    }
}
