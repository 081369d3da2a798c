/* SPDX-License-Identifier: MIT */
/*
 * What vgpu-admin does with text that others chose: names on a terminal, in columns,
 * in JSON, and in xe's lists.
 */
#include "admin/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "admin/table.h"
#include "admin/xe.h"
#include "base/utf8.h"
#include "base/util.h"

static void test_escape(void **state UNUSED)
{
	static const struct {
		const char *text, *escaped;
	} cases[] = {
		{"", ""},
		{"web 'a' \"b\" \\", "web 'a' \"b\" \\"},
		{"caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80",
	         "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"},
		{"a\nb\tc\rd", "a\\nb\\tc\\rd"},
		{"\x1b[2J\x7f", "\\x1b[2J\\x7f"},
		{"\xc2\x9b", "\\x9b"}, /* the C1 form of escape [ */
		{"a\xe2\x80\xae"
	         "b",
	         "a\\u202eb"}, /* right to left from here on */
		{"\xef\xbb\xbf", "\\ufeff"},
		{"\xff\xc3", "\\xff\\xc3"},                            /* no UTF-8 */
		{"\xc0\xaf\xed\xa0\x80", "\\xc0\\xaf\\xed\\xa0\\x80"}, /* overlong, surrogate */
		{"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"},          /* beyond U+10FFFF */
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		CLEANUP(freep) char *escaped = text_escape(cases[i].text);

		assert_string_equal(escaped, cases[i].escaped);
	}
}

static void test_utf8(void **state UNUSED)
{
	CLEANUP(freep) char *good = utf8_repair("a\n\xc3\xa9");
	CLEANUP(freep) char *bad = utf8_repair("a\xff\xe2\x82");

	assert_string_equal(good, "a\n\xc3\xa9");
	assert_string_equal(bad, "a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
	assert_int_equal(text_length("\xe2\x82\xac"
	                             "1"),
	                 2);
	assert_int_equal(text_prefix_bytes("\xe2\x82\xac"
	                                   "12",
	                                   2),
	                 4);
	assert_int_equal(text_prefix_bytes("ab", 9), 2);
	assert_true(text_has_control("a\nb"));
	assert_true(text_has_control("\xc2\x85"));
	assert_false(text_has_control("a b\xc3\xa9"));
}

static char *printed(const char *json, const struct column *columns)
{
	json_t *rows = json_loads(json, 0, NULL);
	char *text = NULL;
	size_t size;
	FILE *to = open_memstream(&text, &size);

	assert_non_null(rows);
	if (json_is_array(rows))
		table_print(to, rows, columns);
	else
		table_print_record(to, rows, columns);
	fclose(to);
	json_decref(rows);
	return text;
}

static void test_table(void **state UNUSED)
{
	static const struct column columns[] = {
		{"name", "NAME", COLUMN_TEXT},    {"n", "N", COLUMN_NUMBER},
		{"limit", "LIMIT", COLUMN_LIMIT}, {"on", "ON", COLUMN_YES_NO},
		{"last", "LAST", COLUMN_TEXT},    {NULL, NULL, COLUMN_TEXT},
	};
	CLEANUP(freep)
	char *text = printed(
		"[{\"name\":\"\\u20ac\\n\",\"n\":12,\"limit\":0,\"on\":true,\"last\":\"x\"},"
		"{\"name\":\"longer\",\"n\":7.5,\"limit\":3,\"on\":false}]",
		columns);
	CLEANUP(freep) char *record = printed("{\"name\":null,\"n\":1}", columns);

	assert_string_equal(text, "NAME      N  LIMIT   ON  LAST\n"
	                          "\xe2\x82\xac\\n      12      -  yes  x\n"
	                          "longer  7.5      3   no  -\n");
	assert_string_equal(record, "N      1\n");
}

static void test_long_cells_are_cut(void **state UNUSED)
{
	static const struct column columns[] = {{"name", "NAME", COLUMN_TEXT},
	                                        {"n", "N", COLUMN_NUMBER},
	                                        {NULL, NULL, COLUMN_TEXT}};
	CLEANUP(freep)
	char *text = printed("[{\"name\":\"0123456789012345678901234567890123456789"
	                     "01234567890123456789\",\"n\":1}]",
	                     columns);

	assert_non_null(strstr(text, "\n01234567890123456789012345678901234567890123456\xe2\x80\xa6"
	                             "  1\n"));
}

static void test_formats(void **state UNUSED)
{
	static const struct {
		enum column_format format;
		const char *json, *text;
	} cases[] = {
		{COLUMN_WEIGHT, "2.5", "2.50"},
		{COLUMN_PERCENT, "0.125", "12.5%"},
		{COLUMN_US, "999", "999 us"},
		{COLUMN_US, "1500", "1.5 ms"},
		{COLUMN_US, "2500000", "2.50 s"},
		{COLUMN_SECONDS, "59", "59.0 s"},
		{COLUMN_SECONDS, "61", "1 min 1 s"},
		{COLUMN_SECONDS, "3660", "1 h 1 min"},
		{COLUMN_SECONDS, "90000", "1 d 1 h"},
		{COLUMN_TIME, "0", "-"},
		{COLUMN_NUMBER, "4294967295", "4294967295"},
		{COLUMN_NUMBER, "\"odd\"", "odd"},
		{COLUMN_LIMIT, "0.0", "-"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const struct column columns[] = {{"v", "V", cases[i].format},
		                                 {NULL, NULL, COLUMN_TEXT}};
		char json[64], expected[64];
		CLEANUP(freep) char *text = NULL;

		snprintf(json, sizeof(json), "{\"v\":%s}", cases[i].json);
		snprintf(expected, sizeof(expected), "V  %s\n", cases[i].text);
		text = printed(json, columns);
		assert_string_equal(text, expected);
	}
}

static void test_xe_lists(void **state UNUSED)
{
	static const struct {
		const char *text;
		size_t count;
		const char *items[3];
	} cases[] = {
		{"", 0, {NULL}},
		{"a", 1, {"a"}},
		{"a,b", 2, {"a", "b"}},
		{"a\\,b,c", 2, {"a,b", "c"}},
		{"a\\\\,b", 2, {"a\\", "b"}},
		{"a,,b", 3, {"a", "", "b"}},
		{"a\\", 1, {"a\\"}},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct xe_list list;

		assert_int_equal(xe_list_split(&list, cases[i].text), 0);
		assert_int_equal(list.count, cases[i].count);
		for (size_t k = 0; k < list.count; k++)
			assert_string_equal(list.items[k], cases[i].items[k]);
		xe_list_clear(&list);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_escape),  cmocka_unit_test(test_utf8),
		cmocka_unit_test(test_table),   cmocka_unit_test(test_long_cells_are_cut),
		cmocka_unit_test(test_formats), cmocka_unit_test(test_xe_lists),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
