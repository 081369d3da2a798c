/* SPDX-License-Identifier: MIT */
/* See scenario.h: scenarios as they begin, and as they are written. */
#include "sim/scenario.h"

#include <inttypes.h>

#include "base/units.h"
#include "sim/scenario_keys.h"

void scenario_init(struct scenario *scenario)
{
	*scenario = (struct scenario){
		.name = "scenario",
		.seed = 1,
		.duration_ns = 20 * NS_PER_SEC,
		.gpus = 1,
		.rules.worker_reap_ns = 100 * NS_PER_MS,
	};
	core_config_default(&scenario->rules.core);
}

void scenario_vm_init(struct scenario_vm *vm)
{
	*vm = (struct scenario_vm){
		.settings = vm_settings_default,
		.outstanding = 16,
		.think_ns = 60 * NS_PER_US,
		.period_ns = 5 * NS_PER_MS,
		.length_ns = NS_PER_MS,
	};
}

bool scenario_expects(const struct scenario *scenario, const struct sim_policy *policy)
{
	struct scenario_expect expect = scenario->expect[policy - sim_policies];

	for (const struct expect_row *row = expect_rows; row->key; row++)
		if (scenario_range_of(&expect, row)->set)
			return true;
	return false;
}

/* Those that are not as usual. */
static void write_numbers(const struct scenario_number *numbers, const void *base,
                          const void *usual, FILE *to)
{
	char text[32];

	for (; numbers->key; numbers++) {
		struct decimal decimal = scenario_decimal(numbers);
		int64_t value = scenario_get(base, numbers);

		if (value != scenario_get(usual, numbers))
			fprintf(to, "%s = %s\n", numbers->key,
			        scenario_format(text, sizeof(text), &decimal, value));
	}
}

static void write_expect(const struct scenario_expect *expect, const char *policy, FILE *to)
{
	struct scenario_expect copy = *expect;
	bool begun = false;
	char text[32];

	for (const struct expect_row *row = expect_rows; row->key; row++) {
		const struct scenario_range *range = scenario_range_of(&copy, row);

		if (!range->set)
			continue;
		if (!begun)
			fprintf(to, "\n[expect %s]\n", policy);
		begun = true;
		fprintf(to, "%s = %s..", row->key,
		        scenario_format(text, sizeof(text), &scenario_range_decimal, range->least));
		if (range->most < INT64_MAX)
			fputs(scenario_format(text, sizeof(text), &scenario_range_decimal,
			                      range->most),
			      to);
		fputc('\n', to);
	}
}

static void write_argument(const struct scenario_event *event, FILE *to)
{
	struct decimal decimal;
	char text[32];

	switch (happening_words[event->what].argument) {
	case ARGUMENT_NONE:
		break;
	case ARGUMENT_SWITCH:
		fputs(event->value ? " on" : " off", to);
		break;
	case ARGUMENT_PRIORITY:
		fprintf(to, " %s", priority_name((uint32_t)event->value));
		break;
	case ARGUMENT_POOL:
		fprintf(to, " %c", pool_letter((uint32_t)event->value));
		break;
	case ARGUMENT_NUMBER:
		decimal = event->field ? event->field->number : scenario_decimal(event->number);
		fprintf(to, " %s", scenario_format(text, sizeof(text), &decimal, event->value));
		break;
	}
}

static void write_event(const struct scenario_event *event, FILE *to)
{
	const char *name = happening_words[event->what].name;

	if (!name)
		name = event->field ? event->field->number.name : event->number->key;
	fprintf(to, "event = %" PRId64 "us", event->at_ns / NS_PER_US);
	if (event->every_ns)
		fprintf(to, " every %" PRId64 "us", event->every_ns / NS_PER_US);
	fprintf(to, " %s", name);
	write_argument(event, to);
	fputc('\n', to);
}

static void write_vm(const struct scenario_vm *vm, FILE *to)
{
	struct scenario_vm usual;
	char text[32];

	scenario_vm_init(&usual);
	fprintf(to, "\n[%s]\nload = %s\n", vm->name, load_names[vm->load]);
	if (vm->settings.priority != usual.settings.priority)
		fprintf(to, "priority = %s\n", priority_name(vm->settings.priority));
	if (vm->settings.pool != usual.settings.pool)
		fprintf(to, "pool = %c\n", pool_letter(vm->settings.pool));
	if (vm->counts != usual.counts)
		fprintf(to, "counts = %s\n", counts_names[vm->counts]);
	for (size_t i = 0; i < SETTING_COUNT; i++) {
		const struct setting_field *field = &setting_fields[i];
		int64_t value = setting_get(&vm->settings, field);

		if (value != setting_get(&usual.settings, field))
			fprintf(to, "%s = %s\n", field->number.name,
			        scenario_format(text, sizeof(text), &field->number, value));
	}
	write_numbers(scenario_vm_numbers, vm, &usual, to);
}

/* Those of VM @vm, or those of no VM. */
static void write_events(const struct scenario *scenario, bool of_scenario, uint32_t vm, FILE *to)
{
	for (uint32_t i = 0; i < scenario->event_count; i++) {
		const struct scenario_event *event = &scenario->events[i];

		if (happening_words[event->what].of_scenario == of_scenario &&
		    (of_scenario || event->vm == vm))
			write_event(event, to);
	}
}

void scenario_write(const struct scenario *scenario, FILE *to)
{
	struct scenario usual;

	scenario_init(&usual);
	usual.duration_ns = -1; /* always written */
	fprintf(to, "[scenario]\nname = %s\n", scenario->name);
	write_numbers(scenario_numbers, scenario, &usual, to);
	write_numbers(scenario_rule_numbers, &scenario->rules, &usual.rules, to);
	write_events(scenario, true, 0, to);
	for (size_t i = 0; sim_policies[i].name; i++)
		write_expect(&scenario->expect[i], sim_policies[i].name, to);
	for (uint32_t i = 0; i < scenario->vm_count; i++) {
		write_vm(&scenario->vms[i], to);
		write_events(scenario, false, i, to);
	}
}
