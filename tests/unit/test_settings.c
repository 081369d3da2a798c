/* SPDX-License-Identifier: MIT */
/*
 * The only parser of VM values: what it takes, what it refuses and with which code,
 * and that writing, reading back and doubles agree to the last digit.
 */
#include "settings/settings.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"

static void test_parse(void **state UNUSED)
{
	static const struct {
		const char *field, *text;
		int result;
		int64_t stored;
	} cases[] = {
		{"weight", "1", 0, 100},
		{"weight", "1.0", 0, 100},
		{"weight", "1.00", 0, 100},
		{"weight", "1.000", 0, 100},
		{"weight", "2.5", 0, 250},
		{"weight", "0100", 0, 10000},
		{"weight", "99.99", 0, 9999},
		{"weight", "100.00", 0, 10000},
		{"weight", "0.99", -ERANGE, 0},
		{"weight", "0.9", -ERANGE, 0},
		{"weight", "0", -ERANGE, 0},
		{"weight", "100.01", -ERANGE, 0},
		{"weight", "100.1", -ERANGE, 0},
		{"weight", "99999999999999999999999999", -ERANGE, 0},
		{"weight", "1.005", -EINVAL, 0},
		{"weight", "-1", -EINVAL, 0},
		{"weight", "+1", -EINVAL, 0},
		{"weight", " 1", -EINVAL, 0},
		{"weight", "1 ", -EINVAL, 0},
		{"weight", "1e1", -EINVAL, 0},
		{"weight", "1e999", -EINVAL, 0},
		{"weight", "0x5", -EINVAL, 0},
		{"weight", "5x", -EINVAL, 0},
		{"weight", "1,5", -EINVAL, 0},
		{"weight", "1.2.3", -EINVAL, 0},
		{"weight", "", -EINVAL, 0},
		{"weight", ".", -EINVAL, 0},
		{"weight", "nan", -EINVAL, 0},
		{"weight", "inf", -EINVAL, 0},
		{"weight", "99999999999999999999999999x", -EINVAL, 0},
		{"rate", "0", 0, 0},
		{"rate", "0.000", 0, 0},
		{"rate", "0.001", 0, 1},
		{"rate", "0.0001", -EINVAL, 0},
		{"rate", "1000000", 0, 1000000000},
		{"rate", "1000000.001", -ERANGE, 0},
		{"burst", "0", 0, 0},
		{"burst", "1.5", -EINVAL, 0},
		{"burst", "1.0", 0, 1},
		{"queue-depth", "65536", 0, 65536},
		{"queue-depth", "65537", -ERANGE, 0},
		{"gpu-seconds", "0.25", 0, 250},
		{"gpu-seconds", "1", 0, 1000},
		{"gpu-seconds", "1.001", -ERANGE, 0},
		{"timeout", "9", -ERANGE, 0},
		{"timeout", "10", 0, 10},
		{"timeout", "86400000", 0, 86400000},
		{"timeout", "86400001", -ERANGE, 0},
		{"memory-quota", "1048576", 0, 1048576},
		{"memory-quota", "1048577", -ERANGE, 0},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		int64_t stored = -7;

		print_message("%s \"%s\"\n", cases[i].field, cases[i].text);
		assert_int_equal(decimal_parse(&stored, &setting_find(cases[i].field)->number,
		                               cases[i].text),
		                 cases[i].result);
		assert_int_equal(stored, cases[i].result == 0 ? cases[i].stored : -7);
	}
}

static void test_doubles(void **state UNUSED)
{
	const struct decimal *weight = &setting_fields[SETTING_WEIGHT].number;
	const struct decimal *rate = &setting_fields[SETTING_RATE].number;
	int64_t stored = -7;

	assert_int_equal(decimal_from_double(&stored, weight, 1.005), -EINVAL);
	assert_int_equal(decimal_from_double(&stored, weight, NAN), -EINVAL);
	assert_int_equal(decimal_from_double(&stored, weight, INFINITY), -EINVAL);
	assert_int_equal(decimal_from_double(&stored, weight, -1), -ERANGE);
	assert_int_equal(decimal_from_double(&stored, weight, 0), -ERANGE);
	assert_int_equal(decimal_from_double(&stored, weight, 0.99), -ERANGE);
	assert_int_equal(decimal_from_double(&stored, weight, 100.01), -ERANGE);
	assert_int_equal(decimal_from_double(&stored, weight, 1e300), -ERANGE);
	/* Next to nothing is not "no limit". */
	assert_int_equal(decimal_from_double(&stored, rate, 1e-12), -ERANGE);
	assert_int_equal(stored, -7);
	assert_int_equal(decimal_from_double(&stored, rate, 0), 0);
	assert_int_equal(stored, 0);
}

/* Every value of a field survives text and double, as it does on its way to a file and back. */
static void test_round_trips(void **state UNUSED)
{
	for (size_t i = 0; i < SETTING_COUNT; i++) {
		const struct decimal *number = &setting_fields[i].number;
		int64_t step = max_i64(1, (number->max - number->min) / 9973);

		for (int64_t value = number->min; value <= number->max; value += step) {
			char text[32];
			int64_t back = -1;

			decimal_format(text, sizeof(text), number, value);
			assert_int_equal(decimal_parse(&back, number, text), 0);
			assert_int_equal(back, value);
			back = -1;
			assert_int_equal(decimal_from_double(&back, number,
			                                     decimal_to_double(number, value)),
			                 0);
			assert_int_equal(back, value);
		}
	}
}

static void test_names(void **state UNUSED)
{
	struct vm_settings settings = vm_settings_default;
	uint32_t value = 7;
	char text[32];

	assert_null(setting_find("wait"));
	for (size_t i = 0; i < SETTING_COUNT; i++) {
		const struct setting_field *field = &setting_fields[i];

		assert_ptr_equal(setting_find(field->number.name), field);
		setting_put(&settings, field, field->number.max);
		assert_int_equal(setting_get(&settings, field), field->number.max);
	}
	assert_int_equal(settings.weight_hundredths, 10000);
	assert_int_equal(settings.memory_quota_mib, 1048576);
	assert_int_equal(settings.priority, VGPU_PRIORITY_MEDIUM);
	assert_string_equal(
		decimal_format(text, sizeof(text), &setting_fields[SETTING_WEIGHT].number, 105),
		"1.05");
	assert_string_equal(
		decimal_format(text, sizeof(text), &setting_fields[SETTING_RATE].number, 7),
		"0.007");

	assert_int_equal(priority_parse(&value, "urgent"), -EINVAL);
	assert_int_equal(priority_parse(&value, "HIGH"), -EINVAL);
	assert_int_equal(priority_parse(&value, ""), -EINVAL);
	assert_int_equal(pool_parse(&value, "C"), -EINVAL);
	assert_int_equal(pool_parse(&value, "AB"), -EINVAL);
	assert_int_equal(pool_parse(&value, "a"), -EINVAL);
	assert_int_equal(pool_parse(&value, ""), -EINVAL);
	assert_int_equal(value, 7);
	assert_int_equal(priority_parse(&value, "high"), 0);
	assert_int_equal(value, VGPU_PRIORITY_HIGH);
	assert_int_equal(pool_parse(&value, "B"), 0);
	assert_int_equal(value, 1);
	assert_string_equal(priority_name(3), "unknown");
	assert_int_equal(pool_letter(1), 'B');
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_doubles),
		cmocka_unit_test(test_round_trips),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
