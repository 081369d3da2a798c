/* SPDX-License-Identifier: MIT */
/*
 * See options.h.
 */
#include "guest/options.h"

#include <ctype.h>
#include <getopt.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "base/util.h"
#include "guest/bdf.h"
#include "guest/parse.h"
#include "vgpu/sgemm.h"
#include "vgpu/vgpu.h"

#define DAY_MS INT64_C(86400000)

enum option_kind {
	KIND_FLAG,   /* bool */
	KIND_NUMBER, /* int64_t, min to max */
	KIND_TEXT,   /* const char *, not empty */
	KIND_BDF,    /* const char *, a PCI address */
};

struct option_row {
	const char *name;
	const char *value; /* what help calls it; NULL for a flag */
	enum option_kind kind;
	size_t field;
	int64_t min;
	int64_t max;
	const char *help;
};

#define FIELD(name) offsetof(struct options, name)

static const struct option_row rows[OPTION_END] = {
	[OPTION_DEVICE] = {"device", "BDF", KIND_BDF, FIELD(device), 0, 0,
                           "PCI address of the device (default: the first one)"},
	[OPTION_SOCKET] = {"socket", "PATH", KIND_TEXT, FIELD(socket), 0, 0,
                           "talk to the mediator's socket as a device would"},
	[OPTION_TIMEOUT] = {"timeout", "MS", KIND_NUMBER, FIELD(timeout_ms), 1, DAY_MS,
                            "for a request with its retries (default 60000)"},
	[OPTION_RETRIES] = {"retries", "N", KIND_NUMBER, FIELD(retries), 0, VGPU_RETRIES_MAX,
                            "when rate limited; 0 = never (default 5)"},
	[OPTION_JSON] = {"json", NULL, KIND_FLAG, FIELD(json), 0, 0, "print one JSON object"},
	[OPTION_HELP] = {"help", NULL, KIND_FLAG, FIELD(help), 0, 0, "print this"},
	[OPTION_VERSION] = {"version", NULL, KIND_FLAG, FIELD(version), 0, 0, "print the version"},
	[OPTION_COUNT] = {"count", "N", KIND_NUMBER, FIELD(count), 1, 1000000000,
                          "how many requests (default: 1000 for bench, else 1)"},
	[OPTION_SECONDS] = {"seconds", "S", KIND_NUMBER, FIELD(seconds), 1, 86400,
                            "how long, instead of --count"},
	[OPTION_OUTSTANDING] = {"outstanding", "K", KIND_NUMBER, FIELD(outstanding), 1,
                                VGPU_OUTSTANDING_MAX,
                                "requests under way at once; over 1 needs --socket (default 1)"},
	[OPTION_OP] = {"op", "OP", KIND_TEXT, FIELD(op), 0, 0,
                       "nop, add, sgemm or spin (default nop)"},
	[OPTION_SPIN_US] = {"spin-us", "US", KIND_NUMBER, FIELD(spin_us), 0, VGPU_SPIN_MAX_US,
                            "GPU time of a spin in us (default 100)"},
	[OPTION_N] = {"n", "N", KIND_NUMBER, FIELD(n), 1, VGPU_SGEMM_MAX_N,
                      "rows and columns of the matrices (default 256)"},
	[OPTION_SEED] = {"seed", "S", KIND_NUMBER, FIELD(seed), 0, UINT32_MAX,
                         "what the matrices are made from (default 1)"},
	[OPTION_NO_VERIFY] = {"no-verify", NULL, KIND_FLAG, FIELD(no_verify), 0, 0,
                              "believe the answer"},
};

void options_init(struct options *options)
{
	*options = (struct options){
		.timeout_ms = VGPU_TIMEOUT_US / 1000,
		.retries = VGPU_RETRIES_MAX,
		.outstanding = 1,
		.op = "nop",
		.spin_us = 100,
		.n = 256,
		.seed = 1,
	};
}

static bool is_bdf(const char *text)
{
	struct vgpu_device_name name;

	return bdf_parse(&name, text);
}

static bool set_option(struct options *options, const struct option_row *row, const char *value)
{
	void *field = (char *)options + row->field;

	switch (row->kind) {
	case KIND_FLAG:
		*(bool *)field = true;
		return true;
	case KIND_TEXT:
		*(const char **)field = value;
		if (value[0] == '\0')
			fprintf(stderr, "vgpu-client: --%s is empty: give %s\n", row->name,
			        row->value);
		return value[0] != '\0';
	case KIND_BDF:
		*(const char **)field = value;
		if (is_bdf(value))
			return true;
		fprintf(stderr,
		        "vgpu-client: wrong --%s '%s': give a PCI address like 0000:00:05.0 or "
		        "00:05.0, see 'lspci -D'\n",
		        row->name, value);
		return false;
	case KIND_NUMBER:
		break;
	}
	if (parse_integer(value, row->min, row->max, field))
		return true;
	fprintf(stderr,
	        "vgpu-client: wrong --%s '%s': give a whole number from %" PRId64 " to %" PRId64
	        "\n",
	        row->name, value, row->min, row->max);
	return false;
}

/* Writes the getopt table of the @allowed options. */
static void make_table(struct option *table, uint32_t allowed)
{
	for (int id = 0; id < OPTION_END; id++) {
		if (!(allowed & OPTION_BIT(id)))
			continue;
		*table++ = (struct option){
			.name = rows[id].name,
			.has_arg = rows[id].value ? required_argument : no_argument,
			.val = UINT8_MAX + 1 + id,
		};
	}
	*table = (struct option){0};
}

static bool is_option(const char *text)
{
	return text[0] == '-' && text[1] != '\0' && !isdigit((unsigned char)text[1]);
}

bool options_parse(struct options *options, uint32_t allowed, int argc, char **argv, int *at,
                   char **arguments, int max, int *count)
{
	struct option table[OPTION_END + 1];
	bool options_ended = false;
	int c;

	make_table(table, allowed);
	optind = *at;
	*count = 0;
	while (optind < argc) {
		if (options_ended || !is_option(argv[optind])) {
			if (*count == max)
				break;
			arguments[(*count)++] = argv[optind++];
			continue;
		}
		c = getopt_long(argc, argv, "+h", table, NULL);
		if (c == '?')
			return false;
		if (c == 'h')
			options->help = true;
		else if (c == -1)
			options_ended = true;
		else if (!set_option(options, &rows[c - UINT8_MAX - 1], optarg))
			return false;
	}
	*at = optind;
	return true;
}

void options_help(FILE *stream, uint32_t listed)
{
	char left[32];

	for (int id = 0; id < OPTION_END; id++) {
		if (!(listed & OPTION_BIT(id)))
			continue;
		snprintf(left, sizeof(left), "--%s%s%s", rows[id].name, rows[id].value ? " " : "",
		         rows[id].value ? rows[id].value : "");
		fprintf(stream, "  %-18s %s\n", left, rows[id].help);
	}
}
