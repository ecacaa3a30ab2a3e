"""Ten Tusscher and Panfilov 2006, epicardial, in plain NumPy and as the paper writes it; nothing of ours.

States, rows of an array: Xr1 Xr2 Xs m h j d f f2 fCass s r, Cai CaSR CaSS R' Nai Ki. Units mV, ms, mM, pA/pF.
"""

from __future__ import annotations

import numpy as np
from numpy import exp, log, sqrt

FARADAY, GAS, TEMPERATURE = 96485.3415, 8314.472, 310.0
RTF = GAS * TEMPERATURE / FARADAY
CAPACITANCE, V_C, V_SR, V_SS = 0.185, 0.016404, 0.001094, 0.00005468
KO, NAO, CAO = 5.4, 140.0, 2.0
NGATE = 12

# Of the benchmark of Niederer et al. 2011, table 2.
REST = -85.23
GATES = [
    0.00621,
    0.4712,
    0.0095,
    0.00172,
    0.7444,
    0.7045,
    3.373e-5,
    0.7888,
    0.9755,
    0.9953,
    0.999998,
    2.42e-8,
]
START = np.array([*GATES, 0.000126, 3.64, 0.00036, 0.9073, 8.604, 136.89])


def gates(v, cass):
    """Limits and time constants of the gates, in the order of the states."""
    low = v < -40.0
    a_h = np.where(low, 0.057 * exp(-(v + 80) / 6.8), 0.0)
    slow = 2.7 * exp(0.079 * v) + 3.1e5 * exp(0.3485 * v)
    b_h = np.where(low, slow, 0.77 / (0.13 * (1 + exp(-(v + 10.66) / 11.1))))
    a_j = (-25428 * exp(0.2444 * v) - 6.948e-6 * exp(-0.04391 * v)) * (v + 37.78)
    a_j = np.where(low, a_j / (1 + exp(0.311 * (v + 79.23))), 0.0)
    b_j = 0.02424 * exp(-0.01052 * v) / (1 + exp(-0.1378 * (v + 40.14)))
    b_j = np.where(low, b_j, 0.6 * exp(0.057 * v) / (1 + exp(-0.1 * (v + 32))))
    inactive = 1 / (1 + exp((v + 71.55) / 7.43)) ** 2
    bound = 1 + (cass / 0.05) ** 2
    a_d = 1.4 / (1 + exp((-35 - v) / 13)) + 0.25
    return np.array(
        [
            (
                1 / (1 + exp((-26 - v) / 7)),
                450 / (1 + exp((-45 - v) / 10)) * 6 / (1 + exp((v + 30) / 11.5)),
            ),
            (1 / (1 + exp((v + 88) / 24)), 3 / (1 + exp((-60 - v) / 20)) * 1.12 / (1 + exp((v - 60) / 20))),
            (
                1 / (1 + exp((-5 - v) / 14)),
                1400 / sqrt(1 + exp((5 - v) / 6)) / (1 + exp((v - 35) / 15)) + 80,
            ),
            (
                1 / (1 + exp((-56.86 - v) / 9.03)) ** 2,
                1
                / (1 + exp((-60 - v) / 5))
                * (0.1 / (1 + exp((v + 35) / 5)) + 0.1 / (1 + exp((v - 50) / 200))),
            ),
            (inactive, 1 / (a_h + b_h)),
            (inactive, 1 / (a_j + b_j)),
            (
                1 / (1 + exp((-8 - v) / 7.5)),
                a_d * 1.4 / (1 + exp((v + 5) / 5)) + 1 / (1 + exp((50 - v) / 20)),
            ),
            (
                1 / (1 + exp((v + 20) / 7)),
                1102.5 * exp(-((v + 27) ** 2) / 225)
                + 200 / (1 + exp((13 - v) / 10))
                + 180 / (1 + exp((v + 30) / 10))
                + 20,
            ),
            (
                0.67 / (1 + exp((v + 35) / 7)) + 0.33,
                562 * exp(-((v + 27) ** 2) / 240)
                + 31 / (1 + exp((25 - v) / 10))
                + 80 / (1 + exp((v + 30) / 10)),
            ),
            (0.6 / bound + 0.4, 80 / bound + 2),
            (1 / (1 + exp((v + 20) / 5)), 85 * exp(-((v + 45) ** 2) / 320) + 5 / (1 + exp((v - 20) / 5)) + 3),
            (1 / (1 + exp((20 - v) / 6)), 9.5 * exp(-((v + 40) ** 2) / 1800) + 0.8),
        ]
    ).swapaxes(0, 1)


def ions(v, state):
    """Rate of the voltage (mV/ms) and of the six states after the gates."""
    xr1, xr2, xs, m, h, j, d, f, f2, fcass, s, r, cai, casr, cass, rbar, nai, ki = state
    e_na, e_k, e_ca = RTF * log(NAO / nai), RTF * log(KO / ki), 0.5 * RTF * log(CAO / cai)
    e_ks = RTF * log((KO + 0.03 * NAO) / (ki + 0.03 * nai))
    alpha = 0.1 / (1 + exp(0.06 * (v - e_k - 200)))
    beta = (3 * exp(0.0002 * (v - e_k + 100)) + exp(0.1 * (v - e_k - 10))) / (1 + exp(-0.5 * (v - e_k)))
    i_k1 = 5.405 * alpha / (alpha + beta) * (v - e_k)
    i_kr = 0.153 * xr1 * xr2 * (v - e_k)
    i_ks = 0.392 * xs**2 * (v - e_ks)
    i_to = 0.294 * r * s * (v - e_k)
    i_pk = 0.0146 * (v - e_k) / (1 + exp((25 - v) / 5.98))
    i_na = 14.838 * m**3 * h * j * (v - e_na)
    i_bna = 0.00029 * (v - e_na)
    i_nak = 2.724 * KO / (KO + 1) * nai / (nai + 40)
    i_nak = i_nak / (1 + 0.1245 * exp(-0.1 * v / RTF) + 0.0353 * exp(-v / RTF))
    i_naca = exp(0.35 * v / RTF) * nai**3 * CAO - exp(-0.65 * v / RTF) * NAO**3 * cai * 2.5
    i_naca = 1000 * i_naca / ((87.5**3 + NAO**3) * (1.38 + CAO) * (1 + 0.1 * exp(-0.65 * v / RTF)))
    w = 2 * (v - 15) / RTF
    with np.errstate(invalid="ignore"):
        ratio = np.where(w == 0.0, 1.0, w / np.expm1(w))
    i_cal = 3.98e-5 * d * f * f2 * fcass * 2 * FARADAY * ratio * (0.25 * cass * exp(w) - CAO)
    i_bca, i_pca = 0.000592 * (v - e_ca), 0.1238 * cai / (cai + 0.0005)
    total = i_k1 + i_to + i_kr + i_ks + i_cal + i_nak + i_na + i_bna + i_naca + i_bca + i_pk + i_pca

    leak, transfer = 0.00036 * (casr - cai), 0.0038 * (cass - cai)
    uptake = 0.006375 / (1 + (0.00025 / cai) ** 2)
    kcasr = 2.5 - 1.5 / (1 + (1.5 / casr) ** 2)
    k1, k2 = 0.15 / kcasr, 0.045 * kcasr
    release = 0.102 * k1 * cass**2 * rbar / (0.06 + k1 * cass**2) * (casr - cass)
    per_c, per_ss = CAPACITANCE / (V_C * FARADAY), CAPACITANCE / (V_SS * FARADAY)
    d_cai = (leak - uptake) * V_SR / V_C + transfer - per_c * (i_bca + i_pca - 2 * i_naca) / 2
    d_cass = release * V_SR / V_SS - transfer * V_C / V_SS - per_ss * i_cal / 2
    return -total, np.array(
        [
            d_cai / (1 + 0.2 * 0.001 / (cai + 0.001) ** 2),
            (uptake - release - leak) / (1 + 10 * 0.3 / (casr + 0.3) ** 2),
            d_cass / (1 + 0.4 * 0.00025 / (cass + 0.00025) ** 2),
            -k2 * cass * rbar + 0.005 * (1 - rbar),
            -per_c * (i_na + i_bna + 3 * i_nak + 3 * i_naca),
            -per_c * (i_k1 + i_to + i_kr + i_ks - 2 * i_nak + i_pk),
        ]
    )


def step(v, state, stimulus, dt):
    """Rush and Larsen's step of the gates, forward Euler of the rest; voltage and states after it."""
    limits, times = gates(v, state[14])
    rate, slopes = ions(v, state)
    moved = limits + (state[:NGATE] - limits) * exp(-dt / times)
    return v + dt * (rate + stimulus), np.concatenate([moved, state[NGATE:] + dt * slopes])


def right_side(v, state, stimulus):
    """Time derivatives of voltage and states, for solvers of differential equations."""
    limits, times = gates(v, state[14])
    rate, slopes = ions(v, state)
    return rate + stimulus, np.concatenate([(limits - state[:NGATE]) / times, slopes])


def states_along_a_beat(count: int, dt: float = 0.05, span: float = 400.0):
    """Voltages (count,) and states (18, count) taken from one beat at even times."""
    v, state, kept = np.array([REST]), START[:, None].copy(), []
    nstep = round(span / dt)
    chosen = set(np.linspace(1, nstep, count).astype(int).tolist())
    for number in range(1, nstep + 1):
        v, state = step(v, state, 52.0 if number * dt <= 1.0 + dt / 2 else 0.0, dt)
        if number in chosen:
            kept.append((v, state))
    return tuple(np.concatenate(parts, axis=-1) for parts in zip(*kept, strict=True))
