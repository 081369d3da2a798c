/* SPDX-License-Identifier: MIT */
/*
 * Random numbers for the simulator: one seed, the same sequence everywhere.
 */
#ifndef SIM_RANDOM_H
#define SIM_RANDOM_H

#include <math.h>
#include <stdint.h>

struct sim_random {
	uint64_t state;
};

/* Streams of different numbers of one seed have nothing to do with each other. */
static inline void sim_random_seed(struct sim_random *random, uint64_t seed, uint64_t stream)
{
	random->state =
		seed * UINT64_C(0x9e3779b97f4a7c15) ^ (stream + 1) * UINT64_C(0xd1b54a32d192ed03);
}

/* splitmix64 */
static inline uint64_t sim_random_next(struct sim_random *random)
{
	uint64_t z = random->state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static inline uint64_t sim_random_below(struct sim_random *random, uint64_t bound)
{
	return sim_random_next(random) % bound;
}

/* In [0, 1). */
static inline double sim_random_unit(struct sim_random *random)
{
	return (double)(sim_random_next(random) >> 11) * 0x1p-53;
}

static inline double sim_random_normal(struct sim_random *random)
{
	double u = sim_random_unit(random) + 0x1p-60, v = sim_random_unit(random);

	return sqrt(-2 * log(u)) * cos(2 * M_PI * v);
}

#endif
