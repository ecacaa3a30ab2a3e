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

// Enthalpy [J/kg] of one species, and its heat capacity [J/(kg K)].
INLINE real species_enthalpy(const real *thermo, real t, real *capacity)
{
    const real *high = thermo + 1, *low = thermo + 7;
    int hot = t > thermo[0];
    real a = hot ? high[0] : low[0], b = hot ? high[1] : low[1], c = hot ? high[2] : low[2];
    real d = hot ? high[3] : low[3], e = hot ? high[4] : low[4], f = hot ? high[5] : low[5];
    *capacity = a + t * (b + t * (c + t * (d + t * e)));
    return f + t * (a + t * (b * R(0.5) + t * (c * R(0.33333333333333333) + t * (d * R(0.25) + t * e * R(0.2)))));
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
    FOR_EACH_CELL(c, ncells) {
        real sum = R(0);
        for (long k = 0; k < nspecies; ++k) {
            real capacity;
            sum += fractions[k * ncells + c] * species_enthalpy(thermo + k * NTHERMO, temperature[c], &capacity);
        }
        enthalpy[c] = sum;
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
    FOR_EACH_CELL(c, ncells) {
        real t = temperature[c], step = R(0);
        for (int iteration = 0; iteration < NITERATION; ++iteration) {
            real sum = R(0), total = R(0);
            for (long k = 0; k < nspecies; ++k) {
                real capacity, y = fractions[k * ncells + c];
                sum += y * species_enthalpy(thermo + k * NTHERMO, t, &capacity);
                total += y * capacity;
            }
            step = (enthalpy[c] - sum) / total;
            real next = t + step;
            t = next < R(50) ? R(50) : next > R(10000) ? R(10000) : next;
        }
        temperature[c] = t;
        residual[c] = hp_abs(step) / t;
    }
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
    FOR_EACH_CELL(c, ncells) {
        real t = temperature[c], log_t = hp_log(t), root = hp_sqrt(t);
        real amount = R(0), total = R(0), parallel = R(0), series = R(0);
        for (long k = 0; k < nspecies; ++k) {
            real capacity, y = fractions[k * ncells + c], x = y * moles[k];
            species_enthalpy(thermo + k * NTHERMO, t, &capacity);
            amount += x;
            total += y * capacity;
            const real *l = conduction + k * NCONDUCTION;
            real own = conduction
                           ? root * (l[0] + log_t * (l[1] + log_t * (l[2] + log_t * (l[3] + log_t * l[4]))))
                           : R(1);
            parallel += x * own;
            series += x / own;
        }
        density[c] = pressure_over_r / (t * amount);
        real conductivity = R(0.5) * (parallel / amount + amount / series);
        diffusion[c] = conduction ? conductivity / total : diffusion[c];
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
    FOR_EACH_CELL(c, ncells) {
        real matrix[MOST_ELEMENTS * MOST_ELEMENTS], rest[MOST_ELEMENTS];
        // The second time for what was rounded in the first.
        for (int pass = 0; pass < 2; ++pass) {
            for (long i = 0; i < nelement; ++i) {
                const real *a = share + i * nspecies;
                rest[i] = R(0);
                for (long k = 0; k < nspecies; ++k)
                    rest[i] += a[k] * (before[k * ncells + c] - fractions[k * ncells + c]);
                for (long j = 0; j <= i; ++j) {
                    real sum = R(0);
                    for (long k = 0; k < nspecies; ++k) {
                        real y = fractions[k * ncells + c];
                        sum += a[k] * share[j * nspecies + k] * y * y;
                    }
                    matrix[i * MOST_ELEMENTS + j] = sum;
                }
            }
            for (long i = 0; i < nelement; ++i) {
                real *row = matrix + i * MOST_ELEMENTS, whole = row[i];
                for (long j = 0; j <= i; ++j) {
                    const real *other = matrix + j * MOST_ELEMENTS;
                    real sum = row[j];
                    for (long l = 0; l < j; ++l)
                        sum -= row[l] * other[l];
                    // A pivot of nothing but rounding belongs to a direction without species.
                    real pivot = sum > R(1e-13) * whole ? R(1) / hp_sqrt(sum) : R(0);
                    row[j] = i == j ? pivot : sum * other[j];
                }
                for (long l = 0; l < i; ++l)
                    rest[i] -= row[l] * rest[l];
                rest[i] *= row[i];
            }
            for (long i = nelement - 1; i >= 0; --i) {
                for (long l = i + 1; l < nelement; ++l)
                    rest[i] -= matrix[l * MOST_ELEMENTS + i] * rest[l];
                rest[i] *= matrix[i * MOST_ELEMENTS + i];
            }
            for (long k = 0; k < nspecies; ++k) {
                real y = fractions[k * ncells + c], change = R(0);
                for (long i = 0; i < nelement; ++i)
                    change += share[i * nspecies + k] * rest[i];
                fractions[k * ncells + c] = y + y * y * change;
            }
        }
    }
}
