/* SPDX-License-Identifier: MIT */
/* Connections on an event loop, against a peer at the other end of a socket pair. */
#include "base/stream.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>
#include <event2/buffer.h>
#include <event2/event.h>

enum { STALL_MS = 100 };

struct world {
	struct event_base *base;
	struct stream_group *group;
	struct stream *stream;
	int peer;
	size_t received; /* bytes */
	bool pauses;     /* at the first bytes, without taking them */
	bool ended;
	int reason;
};

static void on_data(void *owner, struct evbuffer *input)
{
	struct world *world = owner;

	if (world->pauses) {
		stream_pause(world->stream, true);
		return;
	}
	world->received += evbuffer_get_length(input);
	evbuffer_drain(input, evbuffer_get_length(input));
}

static void on_end(void *owner, int reason)
{
	struct world *world = owner;

	assert_false(world->ended);
	world->ended = true;
	world->reason = reason;
	stream_free(TAKE_PTR(world->stream));
}

static void on_timer(evutil_socket_t fd UNUSED, short what UNUSED, void *arg UNUSED)
{
}

static const struct stream_ops ops = {.data = on_data, .end = on_end};

static int setup(void **state)
{
	static struct world world;
	int ends[2];

	world = (struct world){.base = event_base_new()};
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
		return -1;
	world.peer = ends[1];
	*state = &world;
	return stream_group_new(&world.group, world.base, STALL_MS) < 0 ||
	       stream_new(&world.stream, world.group, ends[0], &ops, &world) < 0;
}

static int teardown(void **state)
{
	struct world *world = *state;

	stream_free(world->stream);
	stream_group_free(world->group);
	event_base_free(world->base);
	if (world->peer >= 0)
		close(world->peer);
	return 0;
}

/* Turns the loop until @condition, which is bound to come. */
#define RUN_UNTIL(world, condition)                                                       \
	do {                                                                              \
		while (!(condition))                                                      \
			assert_int_equal(event_base_loop((world)->base, EVLOOP_ONCE), 0); \
	} while (0)

/* Turns the loop as often as there is something to do. */
static void run_all(struct world *world)
{
	for (int i = 0; i < 10; i++)
		event_base_loop(world->base, EVLOOP_NONBLOCK);
}

static void test_bytes_and_the_end(void **state)
{
	struct world *world = *state;

	assert_int_equal(send(world->peer, "hello", 5, 0), 5);
	close(TAKE_FD(world->peer));
	RUN_UNTIL(world, world->ended);
	assert_int_equal(world->received, 5);
	assert_int_equal(world->reason, 0);
}

static void test_paused(void **state)
{
	struct world *world = *state;

	world->pauses = true;
	assert_int_equal(send(world->peer, "hello", 5, 0), 5);
	run_all(world);
	assert_int_equal(send(world->peer, "again", 5, 0), 5);
	run_all(world);
	world->pauses = false;
	assert_int_equal(world->received, 0);
	stream_pause(world->stream, false);
	RUN_UNTIL(world, world->received == 10);
	assert_false(world->ended);
	/* As before the pause. */
	assert_int_equal(send(world->peer, "more", 4, 0), 4);
	close(TAKE_FD(world->peer));
	RUN_UNTIL(world, world->ended);
	assert_int_equal(world->received, 14);
}

static void test_hang_up_while_paused(void **state)
{
	struct world *world = *state;

	world->pauses = true;
	assert_int_equal(send(world->peer, "hello", 5, 0), 5);
	run_all(world);
	assert_int_equal(send(world->peer, "never read", 10, 0), 10);
	run_all(world);
	assert_false(world->ended);
	close(TAKE_FD(world->peer));
	RUN_UNTIL(world, world->ended);
	assert_int_equal(world->reason, 0);
	assert_int_equal(world->received, 0);
}

static void test_hang_up_before_the_pause(void **state)
{
	struct world *world = *state;

	assert_int_equal(shutdown(world->peer, SHUT_WR), 0);
	stream_pause(world->stream, true);
	RUN_UNTIL(world, world->ended);
	assert_int_equal(world->reason, 0);
}

/* More than the socket takes. */
static void write_much(struct world *world)
{
	static const char bytes[1 << 20];

	stream_write(world->stream, bytes, sizeof(bytes));
	run_all(world);
	assert_false(stream_flush(world->stream));
}

/* Congestion had ended the reading already, with bytes left over that lead to the pause. */
static void test_hang_up_while_paused_after_congestion(void **state)
{
	struct world *world = *state;
	char bytes[8192];

	world->pauses = true;
	assert_int_equal(send(world->peer, "hello", 5, 0), 5);
	run_all(world);
	write_much(world);
	stream_pause(world->stream, false);
	assert_int_equal(send(world->peer, "again", 5, 0), 5);
	run_all(world);
	while (recv(world->peer, bytes, sizeof(bytes), 0) > 0)
		run_all(world);
	assert_false(stream_congested(world->stream));
	assert_false(world->ended);
	close(TAKE_FD(world->peer));
	run_all(world);
	assert_true(world->ended);
	assert_int_equal(world->received, 0);
}

static void test_peer_that_reads_slowly(void **state)
{
	struct world *world = *state;
	const struct timeval pause = {.tv_usec = STALL_MS * 1000 / 4};
	struct event *timer = event_new(world->base, -1, EV_PERSIST, on_timer, NULL);
	char bytes[8192];

	write_much(world);
	event_add(timer, &pause);
	/* At every stall's end something has been taken since its beginning. */
	for (int i = 0; i < 40; i++) {
		assert_true(recv(world->peer, bytes, sizeof(bytes), 0) > 0);
		assert_int_equal(event_base_loop(world->base, EVLOOP_ONCE), 0);
		assert_false(world->ended);
	}
	/* Now it reads no more. */
	RUN_UNTIL(world, world->ended);
	assert_int_equal(world->reason, -ETIMEDOUT);
	event_free(timer);
}

static bool no_memory;

static void *allocate(size_t bytes)
{
	return no_memory ? NULL : malloc(bytes);
}

static void test_no_memory(void **state)
{
	struct world *world = *state;

	no_memory = true;
	stream_write(world->stream, "answer", 6);
	/* Whoever writes is in the midst of something: nothing of its own ends here. */
	assert_false(world->ended);
	stream_write(world->stream, "answer", 6);
	no_memory = false;
	stream_write(world->stream, "answer", 6);
	assert_true(stream_flush(world->stream));
	RUN_UNTIL(world, world->ended);
	assert_int_equal(world->reason, -ENOMEM);
	/* Nothing, rather than a part. */
	assert_int_equal(recv(world->peer, (char[8]){0}, 8, 0), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(test_bytes_and_the_end),
		TEST(test_paused),
		TEST(test_hang_up_while_paused),
		TEST(test_hang_up_before_the_pause),
		TEST(test_hang_up_while_paused_after_congestion),
		TEST(test_peer_that_reads_slowly),
		TEST(test_no_memory),
	};

	event_set_mem_functions(allocate, realloc, free);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
