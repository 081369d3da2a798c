/* SPDX-License-Identifier: MIT */
/* The picture of a run: GPU time by VM over time, as a stacked area. */
#include <math.h>

#include "base/units.h"
#include "sim/report.h"

enum {
	SVG_WIDTH = 960, /* of the area */
	SVG_HEIGHT = 320,
	SVG_LEFT = 50, /* of it: room for labels */
	SVG_RIGHT = 30,
	SVG_TOP = 30,
	SVG_BELOW = 44,
	SVG_TICKS = 4,
	LEGEND_ROW = 18,
	LEGEND_COLUMNS = 4,
};

/* Text between tags. */
static void put_text(FILE *to, const char *text)
{
	for (; *text; text++) {
		if (*text == '<')
			fputs("&lt;", to);
		else if (*text == '&')
			fputs("&amp;", to);
		else
			fputc(*text, to);
	}
}

/* The share of the GPU that VMs 0..@vm have had in a bucket, in pixels from below. */
static double stacked(const struct scenario *scenario, const struct world_result *result,
                      uint32_t vm, uint32_t bucket)
{
	int64_t bucket_ns = scenario->duration_ns / WORLD_BUCKETS * scenario->gpus, sum_ns = 0;

	for (uint32_t i = 0; i <= vm; i++)
		sum_ns += result->vms[i].occupied_at_ns[bucket + 1] -
		          result->vms[i].occupied_at_ns[bucket];
	return SVG_HEIGHT * fmin(1, (double)sum_ns / (double)bucket_ns);
}

static uint32_t hue(const struct scenario *scenario, uint32_t vm)
{
	return vm * 360 / scenario->vm_count;
}

/* One level of the stack at a bucket; -1 is the ground. */
static double level(const struct scenario *scenario, const struct world_result *result, int64_t vm,
                    uint32_t bucket)
{
	double height = vm < 0 ? 0.0 : stacked(scenario, result, (uint32_t)vm, bucket);

	return SVG_TOP + SVG_HEIGHT - height;
}

static double bucket_x(uint32_t bucket)
{
	return SVG_LEFT + (double)bucket * SVG_WIDTH / WORLD_BUCKETS;
}

/* In steps, since a bucket says what was had in all of it. */
static void svg_area(FILE *to, const struct scenario *scenario, const struct world_result *result,
                     uint32_t vm)
{
	fprintf(to, "<path fill=\"hsl(%u,65%%,60%%)\" d=\"M", hue(scenario, vm));
	for (uint32_t b = 0; b < WORLD_BUCKETS; b++)
		fprintf(to, "%.1f,%.1f H%.1f L", bucket_x(b), level(scenario, result, vm, b),
		        bucket_x(b + 1));
	for (uint32_t b = WORLD_BUCKETS; b-- > 0;)
		fprintf(to, "%.1f,%.1f H%.1f%s", bucket_x(b + 1),
		        level(scenario, result, (int64_t)vm - 1, b), bucket_x(b), b ? " L" : "");
	fputs("Z\"><title>", to);
	put_text(to, scenario->vms[vm].name);
	fputs("</title></path>\n", to);
}

static void svg_axes(FILE *to, const struct scenario *scenario)
{
	double seconds = (double)scenario->duration_ns / NS_PER_SEC;

	for (uint32_t i = 0; i <= SVG_TICKS; i++) {
		double x = SVG_LEFT + (double)i * SVG_WIDTH / SVG_TICKS;
		double y = SVG_TOP + SVG_HEIGHT - (double)i * SVG_HEIGHT / SVG_TICKS;

		fprintf(to,
		        "<path stroke=\"black\" stroke-opacity=\"0.25\" d=\"M%u,%.1f h%u\"/>\n"
		        "<text x=\"%u\" y=\"%.1f\" text-anchor=\"end\">%u %%</text>\n"
		        "<text x=\"%.1f\" y=\"%u\" text-anchor=\"middle\">%.4g s</text>\n",
		        SVG_LEFT, y, SVG_WIDTH, SVG_LEFT - 5, y + 4, 100 * i / SVG_TICKS, x,
		        SVG_TOP + SVG_HEIGHT + 16, seconds * i / SVG_TICKS);
	}
	fprintf(to,
	        "<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\" fill=\"none\" "
	        "stroke=\"black\"/>\n",
	        SVG_LEFT, SVG_TOP, SVG_WIDTH, SVG_HEIGHT);
}

static void svg_legend(FILE *to, const struct scenario *scenario)
{
	for (uint32_t i = 0; i < scenario->vm_count; i++) {
		uint32_t x = SVG_LEFT + i % LEGEND_COLUMNS * (SVG_WIDTH / LEGEND_COLUMNS);
		uint32_t y = SVG_TOP + SVG_HEIGHT + SVG_BELOW + i / LEGEND_COLUMNS * LEGEND_ROW;

		fprintf(to,
		        "<rect x=\"%u\" y=\"%u\" width=\"10\" height=\"10\" "
		        "fill=\"hsl(%u,65%%,60%%)\"/><text x=\"%u\" y=\"%u\">",
		        x, y - 9, hue(scenario, i), x + 16, y);
		put_text(to, scenario->vms[i].name);
		fprintf(to, " (%.2f)</text>\n",
		        (double)core_claim(&scenario->vms[i].settings) / 100);
	}
}

void report_svg(FILE *to, const struct scenario *scenario, const char *policy,
                const struct world_result *result)
{
	uint32_t rows = (scenario->vm_count + LEGEND_COLUMNS - 1) / LEGEND_COLUMNS;

	fprintf(to,
	        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%u\" height=\"%u\" "
	        "font-family=\"sans-serif\" font-size=\"12\">\n"
	        "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n"
	        "<text x=\"%u\" y=\"18\">",
	        SVG_LEFT + SVG_WIDTH + SVG_RIGHT,
	        SVG_TOP + SVG_HEIGHT + SVG_BELOW + rows * LEGEND_ROW, SVG_LEFT);
	put_text(to, scenario->name);
	fprintf(to,
	        ", %s: GPU time of each VM (weight times priority), in steps of %.4g s</text>\n",
	        policy, (double)scenario->duration_ns / WORLD_BUCKETS / NS_PER_SEC);
	for (uint32_t i = scenario->vm_count; i-- > 0;)
		svg_area(to, scenario, result, i);
	svg_axes(to, scenario);
	svg_legend(to, scenario);
	fprintf(to, "</svg>\n");
}
