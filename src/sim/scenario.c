/* SPDX-License-Identifier: MIT */
/*
 * Scenario files. Every key is a row of a table; reading, writing and the words of
 * an error walk the same rows.
 */
#include "sim/scenario.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include <ini.h>

#include "base/units.h"

enum kind { KIND_I64, KIND_U32, KIND_U64, KIND_I32 };

/* A number: stored = written * scale. */
struct number {
	const char *key;
	int64_t scale;
	int64_t max; /* as written */
	enum kind kind;
	size_t offset;
};

#define S(member) offsetof(struct scenario, member)
#define V(member) offsetof(struct scenario_vm, member)

static const struct number scenario_numbers[] = {
	{"seed", 1, INT64_MAX, KIND_U64, S(seed)},
	{"duration-ms", NS_PER_MS, 86400000, KIND_I64, S(duration_ns)},
	{"warmup-ms", NS_PER_MS, 86400000, KIND_I64, S(warmup_ns)},
	{"gpus", 1, 2, KIND_U32, S(gpus)},
	{"worker-start-us", NS_PER_US, 60000000, KIND_I64, S(worker_start_ns)},
	{"worker-reap-us", NS_PER_US, 60000000, KIND_I64, S(worker_reap_ns)},
	{"job-timeout-ms", NS_PER_MS, 86400000, KIND_I64, S(job_timeout_ns)},
	{"quantum-us", NS_PER_US, 1000000, KIND_I64, S(sched.quantum_ns)},
	{"slice-us", NS_PER_US, 1000000, KIND_I64, S(sched.slice_ns)},
	{"handover-us", NS_PER_US, 1000000, KIND_I64, S(sched.handover_ns)},
	{"overlap-max", 1, 32, KIND_I32, S(sched.overlap_max)},
	{"overlap-after-ms", NS_PER_MS, 100000, KIND_I64, S(sched.overlap_after_ns)},
	{"wake-lead-ms", NS_PER_MS, 100000, KIND_I64, S(sched.wake_lead_ns)},
	{"anticipation-us", NS_PER_US, 1000000, KIND_I64, S(sched.anticipation_ns)},
	{"boost-percent", 1, 100, KIND_I32, S(sched.boost_percent)},
	{"expect-busy-permille", 1, 1000, KIND_I64, S(expect.busy_permille)},
	{"expect-kept-permille", 1, 1000, KIND_I64, S(expect.kept_permille)},
	{"expect-error-permille", 1, 1000, KIND_I64, S(expect.error_permille)},
	{"expect-gpu-error-permille", 1, 1000, KIND_I64, S(expect.gpu_error_permille)},
	{"expect-wait-p99-us", NS_PER_US, 100000000, KIND_I64, S(expect.wait_p99_ns)},
	{NULL, 0, 0, KIND_I64, 0},
};

static const struct number vm_numbers[] = {
	{"outstanding", 1, 1000, KIND_U32, V(outstanding)},
	{"think-us", NS_PER_US, 1000000000, KIND_I64, V(think_ns)},
	{"period-us", NS_PER_US, 1000000000, KIND_I64, V(period_ns)},
	{"length-us", NS_PER_US, 1000000000, KIND_I64, V(length_ns)},
	{"spread-percent", 1, 200, KIND_U32, V(spread_percent)},
	{"alternate-us", NS_PER_US, 1000000000, KIND_I64, V(alternate_ns)},
	{"alternate-every", 1, 1000000, KIND_U32, V(alternate_every)},
	{"join-us", NS_PER_US, INT64_C(86400000000), KIND_I64, V(join_ns)},
	{"stream", 1, UINT32_MAX, KIND_U32, V(stream)},
	{"leave-us", NS_PER_US, INT64_C(86400000000), KIND_I64, V(leave_ns)},
	{NULL, 0, 0, KIND_I64, 0},
};

static const char *const load_names[LOAD_COUNT] = {
	[LOAD_BACKLOGGED] = "backlogged",
	[LOAD_CLOSED] = "closed",
	[LOAD_PERIODIC] = "periodic",
	[LOAD_POISSON] = "poisson",
};

static const char *const happening_names[HAPPENS_COUNT] = {
	[HAPPENS_WEIGHT] = "weight", [HAPPENS_PRIORITY] = "priority",     [HAPPENS_POOL] = "pool",
	[HAPPENS_HANG] = "hang",     [HAPPENS_FAULT] = "fault",           [HAPPENS_DEATH] = "death",
	[HAPPENS_DRAIN] = "drain",   [HAPPENS_QUARANTINE] = "quarantine",
};

void scenario_init(struct scenario *scenario)
{
	*scenario = (struct scenario){
		.name = "scenario",
		.seed = 1,
		.duration_ns = 20 * NS_PER_SEC,
		.gpus = 1,
		.worker_reap_ns = 100 * NS_PER_MS,
		.job_timeout_ns = 30 * NS_PER_SEC,
		.sched = sched_config_default,
	};
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

/* ---- Reading ----------------------------------------------------------------- */

struct reader {
	struct scenario *scenario;
	const char *path;
	char section[SCENARIO_NAME];
	uint32_t first_vm; /* of the section: a section with `count` stands for several */
	int bad_line;
};

static int complain(struct reader *reader, const char *key, const char *value, const char *wanted)
{
	fprintf(stderr, "%s: [%s] %s = %s: %s\n", reader->path, reader->section, key, value,
	        wanted);
	return 0;
}

static int64_t load_number(const void *base, const struct number *number)
{
	const void *at = (const char *)base + number->offset;

	switch (number->kind) {
	case KIND_U32:
		return *(const uint32_t *)at;
	case KIND_I32:
		return *(const int32_t *)at;
	default:
		return *(const int64_t *)at;
	}
}

static void store_number(void *base, const struct number *number, int64_t value)
{
	void *at = (char *)base + number->offset;

	switch (number->kind) {
	case KIND_U32:
		*(uint32_t *)at = (uint32_t)value;
		break;
	case KIND_I32:
		*(int32_t *)at = (int32_t)value;
		break;
	default:
		*(int64_t *)at = value;
		break;
	}
}

static const struct number *find_number(const struct number *numbers, const char *key)
{
	for (; numbers->key; numbers++)
		if (strcmp(numbers->key, key) == 0)
			return numbers;
	return NULL;
}

static bool parse_whole(int64_t *out, const char *text, int64_t max)
{
	char *end;

	errno = 0;
	*out = strtoll(text, &end, 10);
	return errno == 0 && end != text && *end == '\0' && *out >= 0 && *out <= max;
}

static bool set_number(void *base, const struct number *number, const char *text)
{
	int64_t value;

	if (!parse_whole(&value, text, number->max))
		return false;
	store_number(base, number, value * number->scale);
	return true;
}

static int find_name(const char *const *names, int count, const char *text)
{
	for (int i = 0; i < count; i++)
		if (strcmp(names[i], text) == 0)
			return i;
	return -1;
}

/* "event = 1500000us weight 250": what happens to the section's first VM. */
static bool add_event(struct reader *reader, const char *text)
{
	struct scenario *scenario = reader->scenario;
	struct scenario_event event = {.vm = reader->first_vm};
	int64_t at_us, value = 0;
	char what[16];
	int name;

	if (scenario->event_count == SCENARIO_EVENTS ||
	    sscanf(text, "%" SCNd64 "us %15s %" SCNd64, &at_us, what, &value) < 2)
		return false;
	name = find_name(happening_names, HAPPENS_COUNT, what);
	if (name < 0 || at_us < 0)
		return false;
	event.at_ns = at_us * NS_PER_US;
	event.what = (enum happening)name;
	event.value = value;
	scenario->events[scenario->event_count++] = event;
	return true;
}

/* A further VM like the one that the section has described so far. */
static bool add_copies(struct reader *reader, const char *text)
{
	struct scenario *scenario = reader->scenario;
	struct scenario_vm *first = &scenario->vms[reader->first_vm];
	int64_t count;

	if (!parse_whole(&count, text, SCENARIO_VMS) || count < 1 ||
	    reader->first_vm + (uint32_t)count > SCENARIO_VMS)
		return false;
	for (int64_t i = 1; i < count; i++) {
		struct scenario_vm *vm = &scenario->vms[reader->first_vm + i];

		*vm = *first;
		snprintf(vm->name, sizeof(vm->name), "%.*s-%d", SCENARIO_NAME - 8, reader->section,
		         (int)(i % SCENARIO_VMS) + 1);
	}
	scenario->vm_count = reader->first_vm + (uint32_t)count;
	return true;
}

static int set_vm_key(struct reader *reader, struct scenario_vm *vm, const char *key,
                      const char *value)
{
	const struct number *number = find_number(vm_numbers, key);
	const struct setting_field *field = setting_find(key);
	int64_t stored;
	int load;

	if (number)
		return set_number(vm, number, value) ? 1
		                                     : complain(reader, key, value, "no number");
	if (field) {
		if (setting_parse(&stored, field, value) < 0)
			return complain(reader, key, value, field->range);
		setting_put(&vm->settings, field, stored);
		return 1;
	}
	if (strcmp(key, "priority") == 0)
		return priority_parse(&vm->settings.priority, value) == 0
		               ? 1
		               : complain(reader, key, value, "low, medium or high");
	if (strcmp(key, "pool") == 0)
		return pool_parse(&vm->settings.pool, value) == 0
		               ? 1
		               : complain(reader, key, value, "A or B");
	if (strcmp(key, "load") == 0) {
		load = find_name(load_names, LOAD_COUNT, value);
		if (load < 0)
			return complain(reader, key, value,
			                "backlogged, closed, periodic or poisson");
		vm->load = (enum load)load;
		return 1;
	}
	if (strcmp(key, "light") == 0) {
		vm->light = strcmp(value, "yes") == 0;
		return vm->light || strcmp(value, "no") == 0
		               ? 1
		               : complain(reader, key, value, "yes or no");
	}
	return complain(reader, key, value, "no such key of a VM");
}

/* A section starts: the scenario itself, or a VM. */
static bool start_section(struct reader *reader, const char *section)
{
	struct scenario *scenario = reader->scenario;
	struct scenario_vm *vm;

	snprintf(reader->section, sizeof(reader->section), "%s", section);
	if (strcmp(section, "scenario") == 0)
		return true;
	if (scenario->vm_count == SCENARIO_VMS)
		return false;
	reader->first_vm = scenario->vm_count++;
	vm = &scenario->vms[reader->first_vm];
	scenario_vm_init(vm);
	snprintf(vm->name, sizeof(vm->name), "%s", section);
	return true;
}

static int on_key(void *context, const char *section, const char *key, const char *value)
{
	struct reader *reader = context;
	struct scenario *scenario = reader->scenario;
	const struct number *number;

	if (strcmp(section, reader->section) != 0 && !start_section(reader, section))
		return complain(reader, key, value, "too many VMs");
	if (strcmp(section, "scenario") == 0) {
		if (strcmp(key, "name") == 0) {
			snprintf(scenario->name, sizeof(scenario->name), "%s", value);
			return 1;
		}
		number = find_number(scenario_numbers, key);
		if (!number || !set_number(scenario, number, value))
			return complain(reader, key, value, "no such key, or no number in range");
		return 1;
	}
	if (strcmp(key, "event") == 0)
		return add_event(reader, value)
		               ? 1
		               : complain(reader, key, value, "write: TIMEus WHAT [VALUE]");
	if (strcmp(key, "count") == 0)
		return add_copies(reader, value)
		               ? 1
		               : complain(reader, key, value, "1 to 64 VMs in all");
	return set_vm_key(reader, &scenario->vms[reader->first_vm], key, value);
}

int scenario_read(struct scenario *out, const char *path)
{
	struct reader reader = {.scenario = out, .path = path};
	int r;

	scenario_init(out);
	snprintf(out->name, sizeof(out->name), "%s", path);
	r = ini_parse(path, on_key, &reader);
	if (r < 0) {
		fprintf(stderr, "%s: cannot be read: %s\n", path, strerror(errno));
		return -errno;
	}
	if (r > 0) {
		fprintf(stderr, "%s: line %d is wrong\n", path, r);
		return -EINVAL;
	}
	if (out->vm_count == 0 || out->gpus == 0 || out->sched.overlap_max == 0 ||
	    out->sched.slice_ns == 0) {
		fprintf(stderr, "%s: needs a VM, a GPU, overlap-max and slice-us\n", path);
		return -EINVAL;
	}
	return 0;
}

/* ---- Writing ----------------------------------------------------------------- */

static void write_numbers(const struct number *numbers, const void *base, const void *standard,
                          FILE *to)
{
	for (; numbers->key; numbers++) {
		int64_t value = load_number(base, numbers);

		if (value != load_number(standard, numbers))
			fprintf(to, "%s = %" PRId64 "\n", numbers->key, value / numbers->scale);
	}
}

static void write_vm(const struct scenario_vm *vm, FILE *to)
{
	struct scenario_vm standard;
	char text[32];

	scenario_vm_init(&standard);
	fprintf(to, "\n[%s]\nload = %s\npriority = %s\npool = %c\n", vm->name, load_names[vm->load],
	        priority_name(vm->settings.priority), pool_letter(vm->settings.pool));
	for (const struct setting_field *field = setting_fields; field->name; field++) {
		int64_t value = setting_get(&vm->settings, field);

		if (value != setting_get(&standard.settings, field))
			fprintf(to, "%s = %s\n", field->name,
			        setting_format(text, sizeof(text), field, value));
	}
	write_numbers(vm_numbers, vm, &standard, to);
	if (vm->light)
		fprintf(to, "light = yes\n");
}

void scenario_write(const struct scenario *scenario, FILE *to)
{
	struct scenario standard;

	scenario_init(&standard);
	standard.duration_ns = -1;
	fprintf(to, "[scenario]\nname = %s\n", scenario->name);
	write_numbers(scenario_numbers, scenario, &standard, to);
	for (uint32_t i = 0; i < scenario->vm_count; i++) {
		write_vm(&scenario->vms[i], to);
		for (uint32_t k = 0; k < scenario->event_count; k++) {
			const struct scenario_event *event = &scenario->events[k];

			if (event->vm == i)
				fprintf(to, "event = %" PRId64 "us %s %" PRId64 "\n",
				        event->at_ns / NS_PER_US, happening_names[event->what],
				        event->value);
		}
	}
}
