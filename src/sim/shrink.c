/* SPDX-License-Identifier: MIT */
/* See shrink.h. */
#include "sim/shrink.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "sim/scenario_keys.h"

struct shrinking {
	struct scenario *best;  /* the smallest so far that fails */
	struct scenario *trial; /* a copy with one thing less */
	shrink_fails *fails;
	void *context;
	bool smaller; /* in this round something could be taken away */
};

/* Takes over what was tried if it still fails. */
static bool keep_if_it_fails(struct shrinking *shrinking)
{
	int64_t at_ns = 0;

	if (!shrinking->fails(shrinking->context, shrinking->trial, &at_ns))
		return false;
	*shrinking->best = *shrinking->trial;
	/* Rounded up to what a file can say. */
	if (at_ns + NS_PER_MS < shrinking->best->duration_ns)
		shrinking->best->duration_ns = (at_ns / NS_PER_MS + 1) * NS_PER_MS;
	shrinking->smaller = true;
	return true;
}

static struct scenario *begin_trial(struct shrinking *shrinking)
{
	*shrinking->trial = *shrinking->best;
	return shrinking->trial;
}

static void remove_event(struct scenario *scenario, uint32_t at)
{
	memmove(scenario->events + at, scenario->events + at + 1,
	        sizeof(scenario->events[0]) * (scenario->event_count - at - 1));
	scenario->event_count--;
}

static void remove_vm(struct scenario *scenario, uint32_t at)
{
	for (uint32_t i = scenario->event_count; i-- > 0;) {
		struct scenario_event *event = &scenario->events[i];

		if (happening_words[event->what].of_scenario)
			continue;
		if (event->vm == at)
			remove_event(scenario, i);
		else if (event->vm > at)
			event->vm--;
	}
	memmove(scenario->vms + at, scenario->vms + at + 1,
	        sizeof(scenario->vms[0]) * (scenario->vm_count - at - 1));
	scenario->vm_count--;
}

static void fewer_vms(struct shrinking *shrinking)
{
	for (uint32_t i = shrinking->best->vm_count; i-- > 0 && shrinking->best->vm_count > 1;) {
		remove_vm(begin_trial(shrinking), i);
		keep_if_it_fails(shrinking);
	}
}

static void fewer_events(struct shrinking *shrinking)
{
	for (uint32_t i = shrinking->best->event_count; i-- > 0;) {
		remove_event(begin_trial(shrinking), i);
		if (keep_if_it_fails(shrinking))
			continue;
		if (shrinking->best->events[i].every_ns == 0)
			continue;
		begin_trial(shrinking)->events[i].every_ns = 0;
		keep_if_it_fails(shrinking);
	}
}

/* Each number of @base, which lies in the trial @offset into it, as it is in @usual. */
static void plainer_numbers(struct shrinking *shrinking, const struct scenario_number *numbers,
                            size_t offset, const void *usual)
{
	for (; numbers->key; numbers++) {
		void *base = (char *)begin_trial(shrinking) + offset;

		if (scenario_get(base, numbers) == scenario_get(usual, numbers))
			continue;
		scenario_put(base, numbers, scenario_get(usual, numbers));
		keep_if_it_fails(shrinking);
	}
}

static void plainer_settings(struct shrinking *shrinking, uint32_t vm,
                             const struct vm_settings *usual)
{
	for (size_t i = 0; i < SETTING_COUNT; i++) {
		const struct setting_field *field = &setting_fields[i];
		struct vm_settings *settings = &begin_trial(shrinking)->vms[vm].settings;

		if (setting_get(settings, field) == setting_get(usual, field))
			continue;
		setting_put(settings, field, setting_get(usual, field));
		keep_if_it_fails(shrinking);
	}
}

/* Those that are no numbers. */
static void plainer_words(struct shrinking *shrinking, uint32_t number,
                          const struct scenario_vm *usual)
{
	struct scenario_vm *vm = &begin_trial(shrinking)->vms[number];

	if (vm->settings.priority != usual->settings.priority) {
		vm->settings.priority = usual->settings.priority;
		keep_if_it_fails(shrinking);
	}
	vm = &begin_trial(shrinking)->vms[number];
	if (vm->settings.pool != usual->settings.pool) {
		vm->settings.pool = usual->settings.pool;
		keep_if_it_fails(shrinking);
	}
	vm = &begin_trial(shrinking)->vms[number];
	if (vm->load != usual->load) {
		vm->load = usual->load;
		keep_if_it_fails(shrinking);
	}
}

static void plainer_vms(struct shrinking *shrinking)
{
	struct scenario_vm usual;

	scenario_vm_init(&usual);
	for (uint32_t i = 0; i < shrinking->best->vm_count; i++) {
		size_t offset = offsetof(struct scenario, vms) + i * sizeof(usual);

		/* Its random numbers are those of its stream, whatever place it has now. */
		usual.stream = shrinking->best->vms[i].stream;
		plainer_numbers(shrinking, scenario_vm_numbers, offset, &usual);
		plainer_settings(shrinking, i, &usual.settings);
		plainer_words(shrinking, i, &usual);
	}
}

static void plainer_world(struct shrinking *shrinking, const struct scenario *usual)
{
	plainer_numbers(shrinking, scenario_rule_numbers, offsetof(struct scenario, rules),
	                &usual->rules);
	if (shrinking->best->gpus == 1)
		return;
	begin_trial(shrinking)->gpus = 1;
	keep_if_it_fails(shrinking);
}

int shrink(struct scenario *scenario, shrink_fails *fails, void *context)
{
	CLEANUP(freep) struct scenario *trial = malloc(sizeof(*trial));
	CLEANUP(freep) struct scenario *usual = malloc(sizeof(*usual));
	struct shrinking shrinking = {
		.best = scenario,
		.trial = trial,
		.fails = fails,
		.context = context,
		.smaller = true,
	};

	if (!trial || !usual)
		return -ENOMEM;
	scenario_init(usual);
	while (shrinking.smaller) {
		shrinking.smaller = false;
		fewer_vms(&shrinking);
		fewer_events(&shrinking);
		plainer_world(&shrinking, usual);
		plainer_vms(&shrinking);
	}
	return 0;
}
