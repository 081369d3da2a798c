/* SPDX-License-Identifier: MIT */
/* See health_world.h. */
#include "health_world.h"

#include <string.h>

#include "base/units.h"

int health_world_new(void **state)
{
	static struct health_world world;

	memset(&world, 0, sizeof(world));
	world.now_ns = 1000 * NS_PER_SEC;
	health_reading_put(&world.reading, HEALTH_TEMPERATURE_C, 50);
	health_reading_put(&world.reading, HEALTH_SLOWDOWN_C, 87);
	health_reading_put(&world.reading, HEALTH_CLOCK_REASONS, 1);
	health_reading_put(&world.reading, HEALTH_ECC_CORRECTED, 7);
	health_reading_put(&world.reading, HEALTH_ECC_UNCORRECTED, 3);
	health_reading_put(&world.reading, HEALTH_ROWS_PENDING, 0);
	health_reading_put(&world.reading, HEALTH_ROWS_FAILED, 0);
	health_reading_put(&world.reading, HEALTH_PAGES_PENDING, 0);
	*state = &world;
	return health_new(&world.health, world.now_ns);
}

int health_world_free(void **state)
{
	struct health_world *world = *state;

	health_free(world->health);
	return 0;
}

void poll_readings(struct health_world *world, int seconds)
{
	for (int i = 0; i < seconds; i++) {
		world->now_ns += NS_PER_SEC;
		health_reading_came(world->health, world->now_ns, &world->reading);
	}
}

void see(struct health_world *world, enum health_value value, int64_t is)
{
	health_reading_put(&world->reading, value, is);
	poll_readings(world, 1);
}

void see_lasting(struct health_world *world, enum health_value value, int64_t is)
{
	see(world, value, is);
	poll_readings(world, HEALTH_SETTLE_S);
}

void xid(struct health_world *world, uint64_t number)
{
	health_xid_came(world->health, world->now_ns, number);
}

const struct health_reason *reason(const struct health_world *world, const char *code)
{
	const struct health_reason *r = NULL;

	while ((r = health_next_reason(world->health, r))) {
		if (strcmp(r->code, code) == 0)
			return r;
	}
	return NULL;
}

const char *news(struct health_world *world)
{
	static char line[256];
	struct health_news item;

	line[0] = '\0';
	while (health_next_news(world->health, &item)) {
		strcat(line, item.began ? "+" : "-");
		strcat(line, item.reason->code);
	}
	return line;
}

uint64_t resets(const struct health_world *world)
{
	struct health_counters counters;

	health_counters(world->health, &counters);
	return counters.resets;
}
