/* SPDX-License-Identifier: MIT */
/* See watch.h. */
#include "sim/watch.h"

#include <string.h>

int watch_init(struct watch *watch)
{
	memset(watch, 0, sizeof(*watch));
	return audit_new(&watch->audit);
}

void watch_fini(struct watch *watch)
{
	audit_free(watch->audit);
}

/* A world_observer. */
static const char *observe(void *context, struct world *world)
{
	struct watch *watch = context;
	struct core *core = world_core(world);
	const char *wrong = core_check(core);
	struct core_stats stats;
	uint32_t core_vm;

	if (wrong)
		return wrong;
	core_stats(core, &stats);
	if (stats.jobs != world_unanswered(world))
		return "a job was not answered exactly once";
	for (uint32_t i = 0; i < world_scenario(world)->vm_count; i++)
		if (world_vm_present(world, i, &core_vm))
			core_vm_stats(core, world_now_ns(world), core_vm, &watch->stats[i]);
	wrong = bounds_look(&watch->bounds, world, watch->stats);
	return wrong ? wrong : audit_look(world, watch->stats);
}

void watch_run(struct watch *watch, struct world_options *options)
{
	bounds_init(&watch->bounds);
	audit_reset(watch->audit);
	options->observer = observe;
	options->observer_context = watch;
	options->audit = watch->audit;
}

uint64_t watch_rare(const struct watch *watch, enum rare_path path)
{
	return watch->bounds.rare[path] + audit_rare(watch->audit)[path];
}
