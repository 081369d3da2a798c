/* SPDX-License-Identifier: MIT */
/*
 * Reads scenario files, and says of every line that is wrong what would be right.
 *
 * A line is empty, a comment (#), a [section], or key = value. Each section comes once.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "base/units.h"
#include "sim/scenario_keys.h"

enum section { SECTION_NONE, SECTION_SCENARIO, SECTION_EXPECT, SECTION_VM };

struct reader {
	struct scenario *scenario;
	const char *path;
	unsigned int line;
	enum section section;
	bool scenario_seen;
	bool expect_seen[SIM_POLICIES];
	size_t policy;  /* in SECTION_EXPECT */
	uint32_t vm;    /* in SECTION_VM: the first of its VMs */
	int64_t copies; /* likewise: how many it stands for */
	bool wrong;
};

static PRINTF(2, 3) void complain(struct reader *reader, const char *format, ...)
{
	va_list arguments;

	fprintf(stderr, "%s:%u: ", reader->path, reader->line);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	reader->wrong = true;
}

static int find_name(const char *const *names, int count, const char *text)
{
	for (int i = 0; i < count; i++)
		if (strcmp(names[i], text) == 0)
			return i;
	return -1;
}

static const struct scenario_number *find_number(const struct scenario_number *numbers,
                                                 const char *key)
{
	for (; numbers->key; numbers++)
		if (strcmp(numbers->key, key) == 0)
			return numbers;
	return NULL;
}

#define NAME_RULE "must be 1 to 47 printable ASCII characters"

_Static_assert(SCENARIO_NAME == 48, "NAME_RULE says how long a name may be");

/* Names come out in tables, JSON and pictures. */
static bool is_name(const char *text)
{
	if (!*text || strlen(text) >= SCENARIO_NAME)
		return false;
	for (; *text; text++)
		if (!isprint((unsigned char)*text))
			return false;
	return true;
}

/* ---- Values: each returns false after having complained --------------------------- */

static bool parse_decimal(struct reader *reader, int64_t *out, const struct decimal *decimal,
                          const char *text)
{
	char low[32], high[32];

	if (decimal_parse(out, decimal, text) == 0)
		return true;
	if (decimal->range)
		complain(reader, "%s = %s: must be %s", decimal->name, text, decimal->range);
	else
		complain(reader, "%s = %s: must be a number from %s to %s", decimal->name, text,
		         scenario_format(low, sizeof(low), decimal, decimal->min),
		         scenario_format(high, sizeof(high), decimal, decimal->max));
	return false;
}

static bool parse_number(struct reader *reader, int64_t *out, const struct scenario_number *number,
                         const char *text)
{
	const struct decimal decimal = scenario_decimal(number);

	return parse_decimal(reader, out, &decimal, text);
}

static bool parse_priority(struct reader *reader, uint32_t *out, const char *text)
{
	if (priority_parse(out, text) == 0)
		return true;
	complain(reader, "priority = %s: must be low, medium or high", text);
	return false;
}

static bool parse_pool(struct reader *reader, uint32_t *out, const char *text)
{
	if (pool_parse(out, text) == 0)
		return true;
	complain(reader, "pool = %s: must be A or B", text);
	return false;
}

/* "0.5..2", "..2", "0.5.." */
static bool parse_range(struct scenario_range *out, char *text)
{
	struct scenario_range range = {0, INT64_MAX, true};
	char *dots = strstr(text, "..");
	const char *most;

	if (!dots)
		return false;
	*dots = '\0';
	most = dots + 2;
	if (!*text && !*most)
		return false;
	if ((*text && decimal_parse(&range.least, &scenario_range_decimal, text) < 0) ||
	    (*most && decimal_parse(&range.most, &scenario_range_decimal, most) < 0) ||
	    range.least > range.most)
		return false;
	*out = range;
	return true;
}

/* ---- Events ------------------------------------------------------------------------- */

/* Cuts the first word off; "" when there is none. */
static char *next_word(char **text)
{
	char *word = *text + strspn(*text, " \t"), *end = word + strcspn(word, " \t");

	*text = *end ? end + 1 : end;
	*end = '\0';
	return word;
}

static bool parse_moment(struct reader *reader, int64_t *out, char *text)
{
	static const struct scenario_number moment = {
		"event", NS_PER_US, 0, INT64_C(86400000000), NUMBER_I64, 0,
	};
	size_t length = strlen(text);

	if (length < 3 || strcmp(text + length - 2, "us") != 0) {
		complain(reader, "event = %s: begins with a moment such as 1500us", text);
		return false;
	}
	text[length - 2] = '\0';
	return parse_number(reader, out, &moment, text);
}

/* What the word names, among what can happen in this section. */
static bool find_happening(const struct reader *reader, struct scenario_event *event,
                           const char *word)
{
	bool of_scenario = reader->section == SECTION_SCENARIO;

	event->what = of_scenario ? HAPPENS_RULE : HAPPENS_SETTING;
	if (of_scenario)
		event->number = find_number(scenario_rule_numbers, word);
	else
		event->field = setting_find(word);
	if (event->number || event->field)
		return true;
	for (int i = 0; i < HAPPENS_COUNT; i++) {
		const struct happening_word *row = &happening_words[i];

		event->what = (enum happening)i;
		if (row->name && row->of_scenario == of_scenario && strcmp(row->name, word) == 0)
			return true;
	}
	return false;
}

static bool parse_argument(struct reader *reader, struct scenario_event *event, const char *word)
{
	uint32_t value = 0;
	bool right = true;

	switch (happening_words[event->what].argument) {
	case ARGUMENT_NUMBER:
		return event->field
		               ? parse_decimal(reader, &event->value, &event->field->number, word)
		               : parse_number(reader, &event->value, event->number, word);
	case ARGUMENT_NONE:
		break;
	case ARGUMENT_PRIORITY:
		right = parse_priority(reader, &value, word);
		break;
	case ARGUMENT_POOL:
		right = parse_pool(reader, &value, word);
		break;
	case ARGUMENT_SWITCH:
		value = strcmp(word, "on") == 0;
		right = value || strcmp(word, "off") == 0;
		if (!right)
			complain(reader, "%s %s: must be on or off",
			         happening_words[event->what].name, word);
		break;
	}
	event->value = value;
	return right;
}

/* "1500us weight 2.5", "1500us every 20us death" */
static void add_event(struct reader *reader, char *text)
{
	struct scenario *scenario = reader->scenario;
	struct scenario_event event = {.vm = reader->vm};
	char *word;

	if (scenario->event_count == SCENARIO_EVENTS) {
		complain(reader, "more than %d events", SCENARIO_EVENTS);
		return;
	}
	if (!parse_moment(reader, &event.at_ns, next_word(&text)))
		return;
	word = next_word(&text);
	if (strcmp(word, "every") == 0) {
		if (!parse_moment(reader, &event.every_ns, next_word(&text)))
			return;
		word = next_word(&text);
		if (event.every_ns == 0) {
			complain(reader, "every 0us: must be later");
			return;
		}
	}
	if (!find_happening(reader, &event, word)) {
		complain(reader, "event %s: no such event here", word);
		return;
	}
	if (happening_words[event.what].argument != ARGUMENT_NONE &&
	    !parse_argument(reader, &event, next_word(&text)))
		return;
	text += strspn(text, " \t");
	if (*text)
		complain(reader, "event: too much: %s", text);
	else
		scenario->events[scenario->event_count++] = event;
}

/* ---- Keys ------------------------------------------------------------------------------ */

static void on_scenario_key(struct reader *reader, const char *key, char *value)
{
	struct scenario *scenario = reader->scenario;
	const struct scenario_number *number = find_number(scenario_numbers, key);
	void *base = scenario;
	int64_t stored;

	if (strcmp(key, "name") == 0) {
		if (is_name(value))
			strcpy(scenario->name, value);
		else
			complain(reader, "name = %s: %s", value, NAME_RULE);
		return;
	}
	if (strcmp(key, "event") == 0) {
		add_event(reader, value);
		return;
	}
	if (!number) {
		number = find_number(scenario_rule_numbers, key);
		base = &scenario->rules;
	}
	if (!number)
		complain(reader, "%s: no such key of [scenario]", key);
	else if (parse_number(reader, &stored, number, value))
		scenario_put(base, number, stored);
}

static void on_expect_key(struct reader *reader, const char *key, char *value)
{
	struct scenario_expect *expect = &reader->scenario->expect[reader->policy];

	for (const struct expect_row *row = expect_rows; row->key; row++) {
		if (strcmp(row->key, key) != 0)
			continue;
		if (!parse_range(scenario_range_of(expect, row), value))
			complain(reader, "%s: must be LEAST..MOST, either may be left out", key);
		return;
	}
	complain(reader, "%s: no such key of [expect]", key);
}

static void set_load(struct reader *reader, struct scenario_vm *vm, const char *value)
{
	int load = find_name(load_names, LOAD_COUNT, value);

	if (load < 0)
		complain(reader, "load = %s: must be backlogged, closed, periodic or poisson",
		         value);
	else
		vm->load = (enum load)load;
}

static void set_counts(struct reader *reader, struct scenario_vm *vm, const char *value)
{
	int counts = find_name(counts_names, COUNTS_COUNT, value);

	if (counts < 0)
		complain(reader, "counts = %s: must be share, excess, wait or nothing", value);
	else
		vm->counts = (enum counts)counts;
}

static void on_vm_key(struct reader *reader, const char *key, char *value)
{
	static const struct decimal count = {
		.name = "count", .scale = 1, .min = 1, .max = SCENARIO_VMS};
	struct scenario_vm *vm = &reader->scenario->vms[reader->vm];
	const struct scenario_number *number = find_number(scenario_vm_numbers, key);
	const struct setting_field *field = setting_find(key);
	int64_t stored;

	if (number && parse_number(reader, &stored, number, value))
		scenario_put(vm, number, stored);
	else if (field && parse_decimal(reader, &stored, &field->number, value))
		setting_put(&vm->settings, field, stored);
	if (number || field)
		return;
	if (strcmp(key, "priority") == 0)
		parse_priority(reader, &vm->settings.priority, value);
	else if (strcmp(key, "pool") == 0)
		parse_pool(reader, &vm->settings.pool, value);
	else if (strcmp(key, "load") == 0)
		set_load(reader, vm, value);
	else if (strcmp(key, "counts") == 0)
		set_counts(reader, vm, value);
	else if (strcmp(key, "event") == 0)
		add_event(reader, value);
	else if (strcmp(key, "count") == 0)
		parse_decimal(reader, &reader->copies, &count, value);
	else
		complain(reader, "%s: no such key of a VM", key);
}

/* ---- Sections ------------------------------------------------------------------------------ */

static bool add_vm(struct reader *reader, const char *name, const struct scenario_vm *like)
{
	struct scenario *scenario = reader->scenario;
	struct scenario_vm *vm = &scenario->vms[scenario->vm_count];

	for (uint32_t i = 0; i < scenario->vm_count; i++) {
		if (strcmp(scenario->vms[i].name, name) == 0) {
			complain(reader, "[%s]: there is a VM of this name", name);
			return false;
		}
	}
	if (!is_name(name)) {
		complain(reader, "[%s]: %s", name, NAME_RULE);
		return false;
	}
	if (scenario->vm_count == SCENARIO_VMS) {
		complain(reader, "[%s]: more than %d VMs", name, SCENARIO_VMS);
		return false;
	}
	*vm = *like;
	strcpy(vm->name, name);
	scenario->vm_count++;
	return true;
}

/* A section that stands for several VMs: further ones like the first. */
static void end_section(struct reader *reader)
{
	const struct scenario_vm *first = &reader->scenario->vms[reader->vm];
	char name[SCENARIO_NAME + 16];

	for (int64_t i = 2; reader->section == SECTION_VM && i <= reader->copies; i++) {
		snprintf(name, sizeof(name), "%s-%" PRId64, first->name, i);
		if (!add_vm(reader, name, first))
			return;
	}
}

static void start_expect(struct reader *reader, const char *policy)
{
	const struct sim_policy *found = sim_policy_find(policy);

	if (!found) {
		complain(reader, "[expect %s]: no such policy", policy);
		return;
	}
	reader->policy = (size_t)(found - sim_policies);
	reader->section = SECTION_EXPECT;
	if (reader->expect_seen[reader->policy])
		complain(reader, "[expect %s] comes twice", policy);
	reader->expect_seen[reader->policy] = true;
}

static void start_section(struct reader *reader, const char *name)
{
	static const char expect[] = "expect ";
	struct scenario_vm usual;

	end_section(reader);
	reader->section = SECTION_NONE;
	if (strcmp(name, "scenario") == 0) {
		if (reader->scenario_seen)
			complain(reader, "[scenario] comes twice");
		reader->scenario_seen = true;
		reader->section = SECTION_SCENARIO;
		return;
	}
	if (strncmp(name, expect, strlen(expect)) == 0) {
		start_expect(reader, name + strlen(expect));
		return;
	}
	scenario_vm_init(&usual);
	reader->vm = reader->scenario->vm_count;
	reader->copies = 1;
	if (add_vm(reader, name, &usual))
		reader->section = SECTION_VM;
}

/* ---- Lines --------------------------------------------------------------------------------- */

/* Without blanks at either end; changes @text. */
static char *trim(char *text)
{
	char *end;

	text += strspn(text, " \t\r\n");
	end = text + strlen(text);
	while (end > text && isspace((unsigned char)end[-1]))
		end--;
	*end = '\0';
	return text;
}

static void on_line(struct reader *reader, char *line)
{
	static void (*const on_key[])(struct reader *, const char *, char *) = {
		[SECTION_SCENARIO] = on_scenario_key,
		[SECTION_EXPECT] = on_expect_key,
		[SECTION_VM] = on_vm_key,
	};
	char *text = trim(line), *equals = strchr(text, '=');
	size_t length = strlen(text);

	if (*text == '\0' || *text == '#')
		return;
	if (*text == '[') {
		if (length < 3 || text[length - 1] != ']') {
			complain(reader, "%s: no section", text);
			reader->section = SECTION_NONE;
			return;
		}
		text[length - 1] = '\0';
		start_section(reader, text + 1);
		return;
	}
	if (!equals || equals == text) {
		complain(reader, "%s: neither a section nor key = value", text);
		return;
	}
	if (reader->section == SECTION_NONE) {
		if (!reader->wrong)
			complain(reader, "%s: belongs to no section", text);
		return;
	}
	*equals = '\0';
	on_key[reader->section](reader, trim(text), trim(equals + 1));
}

/* What no single line is to blame for. */
static void check_whole(struct reader *reader)
{
	const struct scenario *scenario = reader->scenario;

	if (scenario->vm_count == 0)
		complain(reader, "there is no VM");
	if (scenario->warmup_ns >= scenario->duration_ns)
		complain(reader, "warmup-ms must be less than duration-ms");
	for (uint32_t i = 0; i < scenario->vm_count; i++) {
		const struct scenario_vm *vm = &scenario->vms[i];

		if (vm->leave_ns && vm->leave_ns <= vm->join_ns)
			complain(reader, "[%s]: leave-us must be more than join-us", vm->name);
	}
}

int scenario_read(struct scenario *out, const char *path)
{
	struct reader reader = {.scenario = out, .path = path};
	CLEANUP(freep) char *line = NULL;
	size_t size = 0;
	FILE *file = fopen(path, "r");
	int r = 0;

	if (!file) {
		r = -errno;
		fprintf(stderr, "%s: cannot be read: %s\n", path, strerror(errno));
		return r;
	}
	scenario_init(out);
	snprintf(out->name, sizeof(out->name), "%s", path);
	errno = 0;
	while (getline(&line, &size, file) >= 0) {
		reader.line++;
		on_line(&reader, line);
	}
	if (ferror(file)) {
		r = errno ? -errno : -EIO;
		complain(&reader, "cannot be read: %s", strerror(-r));
	}
	fclose(file);
	if (r < 0)
		return r;
	end_section(&reader);
	check_whole(&reader);
	return reader.wrong ? -EINVAL : 0;
}
