/* SPDX-License-Identifier: MIT */
/*
 * See decimal.h. Text becomes a scaled integer digit by digit; that is exact, and what
 * does not fit is seen before it can overflow.
 */
#include "settings/decimal.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "base/util.h"

bool decimal_allows(const struct decimal *decimal, int64_t stored)
{
	return (stored == 0 && decimal->zero_allowed) ||
	       (stored >= decimal->min && stored <= decimal->max);
}

int decimal_parse(int64_t *out, const struct decimal *decimal, const char *text)
{
	int64_t stored = 0, unit = decimal->scale;
	bool point = false, digits = false;

	for (const char *p = text; *p; p++) {
		if (*p == '.' && !point) {
			point = true;
			continue;
		}
		if (*p < '0' || *p > '9')
			return -EINVAL;
		digits = true;
		if (!point) {
			/* Saturate: it is out of any range, but the rest must still be digits. */
			stored =
				min_i64(stored * 10 + (*p - '0') * decimal->scale, INT64_MAX / 100);
		} else if (unit > 1) {
			unit /= 10;
			stored += (*p - '0') * unit;
		} else if (*p != '0') {
			return -EINVAL;
		}
	}
	if (!digits)
		return -EINVAL;
	if (!decimal_allows(decimal, stored))
		return -ERANGE;
	*out = stored;
	return 0;
}

int decimal_from_double(int64_t *out, const struct decimal *decimal, double value)
{
	double stored = value * (double)decimal->scale;

	if (!isfinite(stored))
		return -EINVAL;
	if (stored < 0 || stored > (double)decimal->max)
		return -ERANGE;
	if (fabs(stored - nearbyint(stored)) > 1e-6)
		return -EINVAL;
	/* Next to nothing must not become 0, which is "no limit". */
	if (nearbyint(stored) == 0 && value != 0)
		return -ERANGE;
	if (!decimal_allows(decimal, (int64_t)nearbyint(stored)))
		return -ERANGE;
	*out = (int64_t)nearbyint(stored);
	return 0;
}

double decimal_to_double(const struct decimal *decimal, int64_t stored)
{
	return (double)stored / (double)decimal->scale;
}

const char *decimal_format(char *to, size_t size, const struct decimal *decimal, int64_t stored)
{
	int decimals = 0;

	for (int64_t unit = decimal->scale; unit > 1; unit /= 10)
		decimals++;
	if (decimals)
		snprintf(to, size, "%" PRId64 ".%0*d", stored / decimal->scale, decimals,
		         (int)(stored % decimal->scale));
	else
		snprintf(to, size, "%" PRId64, stored);
	return to;
}
