/* SPDX-License-Identifier: MIT */
/*
 * Event logs, which people send each other: lines of any bytes, and the events that they
 * tell of, as vgpu-sim --replay plays them.
 *
 * A line that is accepted is written again byte by byte; one that is refused says why. After
 * every event that is possible the core keeps its invariants.
 */
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "core/trace/trace_line.h"

#define REQUIRE(condition)        \
	do {                      \
		if (!(condition)) \
			abort();  \
	} while (0)

static void require_same(const struct trace_line *line, const char *text, size_t length)
{
	char again[TRACE_LINE_BYTES];
	size_t bytes = trace_line_format(again, line->kind, line->values, line->count);

	REQUIRE(bytes <= sizeof(again) && bytes == length + 1);
	REQUIRE(memcmp(again, text, length) == 0 && again[length] == '\n');
}

/* Long stretches of time take long to play, which is no error and no find. */
static bool is_soon(const struct trace_line *line, int64_t *now_ns)
{
	bool soon = line->values[0] < *now_ns + NS_PER_SEC;

	if (soon)
		*now_ns = line->values[0];
	return soon;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct trace_onlooker nobody = {NULL, NULL};
	const char *at = (const char *)data, *end = at + size, *why, *newline;
	CLEANUP(trace_player_freep) struct trace_player *player = NULL;
	int64_t now_ns = 0;
	int r = trace_player_new(&player, &nobody, NULL);

	for (; r == 0 && at < end; at = newline + 1) {
		struct trace_line line = {.kind = TRACE_KINDS};

		newline = memchr(at, '\n', (size_t)(end - at));
		newline = newline ? newline : end;
		why = NULL;
		if (trace_line_parse(&line, at, (size_t)(newline - at), &why) < 0) {
			REQUIRE(why && line.kind == TRACE_KINDS);
			continue;
		}
		require_same(&line, at, (size_t)(newline - at));
		if (line.kind >= CORE_EVENT_COUNT || !is_soon(&line, &now_ns))
			continue;
		r = trace_play(player, line.kind, line.values, line.count);
		/* An abandoned core is fit for nothing any more. */
		if (r == 0 && line.kind != CORE_EVENT_ABANDON)
			REQUIRE(!core_check(trace_player_core(player)));
	}
	return 0;
}
