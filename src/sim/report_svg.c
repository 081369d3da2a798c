/* SPDX-License-Identifier: MIT */
/* The picture of a run: GPU time by VM over time, as a stacked area. */
#include <math.h>

#include "base/units.h"
#include "sim/report.h"

enum { SVG_WIDTH = 960, SVG_HEIGHT = 320, SVG_LEFT = 50, SVG_TOP = 30, SVG_LEGEND = 16 };

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

static void svg_area(FILE *to, const struct scenario *scenario, const struct world_result *result,
                     uint32_t vm)
{
	uint32_t hue = vm * 360 / scenario->vm_count;

	fprintf(to, "<path fill=\"hsl(%u,65%%,60%%)\" d=\"M", hue);
	for (uint32_t b = 0; b < WORLD_BUCKETS; b++)
		fprintf(to, "%u,%.1f ", SVG_LEFT + b * SVG_WIDTH / WORLD_BUCKETS,
		        SVG_TOP + SVG_HEIGHT - stacked(scenario, result, vm, b));
	for (uint32_t b = WORLD_BUCKETS; b-- > 0;)
		fprintf(to, "%u,%.1f ", SVG_LEFT + b * SVG_WIDTH / WORLD_BUCKETS,
		        SVG_TOP + SVG_HEIGHT - (vm ? stacked(scenario, result, vm - 1, b) : 0.0));
	fputs("Z\"><title>", to);
	put_text(to, scenario->vms[vm].name);
	fputs("</title></path>\n", to);
}

void report_svg(FILE *to, const struct scenario *scenario, const char *policy,
                const struct world_result *result)
{
	uint32_t height = SVG_TOP + SVG_HEIGHT + 40 + SVG_LEGEND * scenario->vm_count;

	fprintf(to,
	        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%u\" height=\"%u\" "
	        "font-family=\"sans-serif\" font-size=\"12\">\n"
	        "<text x=\"%u\" y=\"18\">",
	        SVG_LEFT + SVG_WIDTH + 20, height, SVG_LEFT);
	put_text(to, scenario->name);
	fprintf(to, ", %s: GPU time by VM</text>\n", policy);
	for (uint32_t i = scenario->vm_count; i-- > 0;)
		svg_area(to, scenario, result, i);
	fprintf(to,
	        "<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\" fill=\"none\" "
	        "stroke=\"black\"/>\n<text x=\"5\" y=\"%u\">100 %%</text>\n"
	        "<text x=\"5\" y=\"%u\">0</text>\n<text x=\"%u\" y=\"%u\">%.1f s</text>\n",
	        SVG_LEFT, SVG_TOP, SVG_WIDTH, SVG_HEIGHT, SVG_TOP + 10, SVG_TOP + SVG_HEIGHT,
	        SVG_LEFT + SVG_WIDTH - 30, SVG_TOP + SVG_HEIGHT + 16,
	        (double)scenario->duration_ns / NS_PER_SEC);
	for (uint32_t i = 0; i < scenario->vm_count; i++) {
		uint32_t y = SVG_TOP + SVG_HEIGHT + 36 + SVG_LEGEND * i;

		fprintf(to,
		        "<rect x=\"%u\" y=\"%u\" width=\"10\" height=\"10\" "
		        "fill=\"hsl(%u,65%%,60%%)\"/><text x=\"%u\" y=\"%u\">",
		        SVG_LEFT, y - 9, i * 360 / scenario->vm_count, SVG_LEFT + 16, y);
		put_text(to, scenario->vms[i].name);
		fprintf(to, " (%.2f)</text>\n",
		        (double)core_claim(&scenario->vms[i].settings) / 100);
	}
	fprintf(to, "</svg>\n");
}
