/* SPDX-License-Identifier: MIT */
/*
 * Many VMs in one process: connects to one socket per VM, as QEMU's device does, keeps a
 * number of requests under way on each, and measures every round trip.
 *
 * The load is a closed loop: an answer is followed by the next request at once, so each
 * VM always has its --outstanding. One thread drives all of them, with the least work
 * per request, so that what is measured is the other side. It speaks the contract
 * without HELLO: mediator and relay answer the same bytes.
 *
 * The first request of each VM is not counted, since it may start a worker. With --hold
 * nothing is measured: after that request the connections stay open and idle until
 * standard input ends, so that memory can be looked at. Prints one JSON object.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/socket.h"
#include "base/util.h"
#include "frames.h"
#include "guest/histogram.h"
#include "vgpu/wire.h"

enum {
	OUTSTANDING_MAX = 64,
	EVENTS_PER_WAIT = 64,
	FIRST_ANSWER_MS = 60000, /* with the start of a worker and a GPU context */
	LAST_ANSWER_MS = 10000,
	ADD_PARAMS = 2,
	REQUEST_BYTES = VGPU_SOCKET_HEADER_BYTES + VGPU_HEADER_BYTES + ADD_PARAMS * 4,
};

struct vm {
	const char *path;
	int fd;
	int64_t submitted_ns[OUTSTANDING_MAX]; /* by request_id; 0: not under way */
	struct frames input;
};

struct load {
	struct vm *vms;
	int vm_count;
	int outstanding; /* per VM */
	int seconds;
	bool add; /* else empty jobs */
	bool hold;
	int epoll;
	int under_way;
	bool measuring;
	int64_t end_ns; /* nothing is submitted from then on */
	uint64_t refused;
	struct histogram round_trip_ns;
};

static int fail(const struct vm *vm, const char *what)
{
	fprintf(stderr, "bench-load: %s: %s\n", vm->path, what);
	return -1;
}

static int submit(struct load *load, struct vm *vm, uint32_t id)
{
	uint8_t frame[REQUEST_BYTES] = {0}, *request = frame + VGPU_SOCKET_HEADER_BYTES;
	const uint32_t params = load->add ? ADD_PARAMS : 0;
	const size_t length = sizeof(frame) - (ADD_PARAMS - params) * 4;
	struct vgpu_socket_header header = {
		.type = VGPU_MSG_REQUEST,
		.request_id = id,
		.pool_id = 'A',
		.priority = VGPU_PRIORITY_MEDIUM,
		.payload_bytes = (uint32_t)length - VGPU_SOCKET_HEADER_BYTES,
	};

	vgpu_socket_header_encode(frame, &header);
	vgpu_put_le32(request + VGPU_REQUEST_VERSION, VGPU_PROTOCOL_VERSION);
	vgpu_put_le32(request + VGPU_REQUEST_OPCODE, load->add ? VGPU_OP_CUDA_KERNEL : VGPU_OP_NOP);
	vgpu_put_le32(request + VGPU_REQUEST_PARAM_COUNT, params);
	vm->submitted_ns[id] = clock_monotonic_ns();
	load->under_way++;
	/* Far less than a socket's buffer is ever under way. */
	if (send(vm->fd, frame, length, MSG_NOSIGNAL) != (ssize_t)length)
		return fail(vm, strerror(errno));
	return 0;
}

static int on_answer(struct load *load, struct vm *vm, const struct vgpu_socket_header *header,
                     const uint8_t *payload)
{
	uint32_t id = header->request_id;
	int64_t now_ns = clock_monotonic_ns();

	if (header->type != VGPU_MSG_RESPONSE || header->payload_bytes < VGPU_HEADER_BYTES)
		return fail(vm, "an unexpected message");
	if (id >= OUTSTANDING_MAX || vm->submitted_ns[id] == 0)
		return fail(vm, "an answer to a request that is not under way");
	if (vgpu_get_le32(payload + VGPU_RESPONSE_STATUS) != VGPU_CODE_OK)
		load->refused++;
	else if (load->measuring)
		histogram_add(&load->round_trip_ns, (uint64_t)(now_ns - vm->submitted_ns[id]));
	vm->submitted_ns[id] = 0;
	load->under_way--;
	return load->measuring && now_ns < load->end_ns ? submit(load, vm, id) : 0;
}

static int receive(struct load *load, struct vm *vm)
{
	struct vgpu_socket_header header;
	ssize_t length = frames_read(&vm->input, vm->fd);
	const uint8_t *payload;
	int r;

	if (length <= 0)
		return fail(vm, length ? strerror((int)-length) : "the connection was closed");
	while ((r = frames_next(&vm->input, &header, &payload)) > 0) {
		if (on_answer(load, vm, &header, payload) < 0)
			return -1;
	}
	return r < 0 ? fail(vm, "not the protocol") : 0;
}

/* Until nothing is under way any more; @silence_ms without an answer is a failure. */
static int collect(struct load *load, int silence_ms)
{
	struct epoll_event events[EVENTS_PER_WAIT];
	int count;

	while (load->under_way > 0) {
		count = epoll_wait(load->epoll, events, EVENTS_PER_WAIT, silence_ms);
		if (count < 0 && errno == EINTR)
			continue;
		if (count <= 0) {
			fprintf(stderr, "bench-load: %d requests have no answer\n",
			        load->under_way);
			return -1;
		}
		for (int i = 0; i < count; i++) {
			if (receive(load, events[i].data.ptr) < 0)
				return -1;
		}
	}
	return 0;
}

static int connect_all(struct load *load)
{
	struct epoll_event event = {.events = EPOLLIN};
	int r;

	load->epoll = epoll_create1(EPOLL_CLOEXEC);
	for (int i = 0; i < load->vm_count; i++) {
		struct vm *vm = &load->vms[i];

		r = socket_connect_unix(&vm->fd, vm->path, true);
		if (r < 0)
			return fail(vm, strerror(-r));
		event.data.ptr = vm;
		if (epoll_ctl(load->epoll, EPOLL_CTL_ADD, vm->fd, &event) < 0)
			return fail(vm, strerror(errno));
	}
	return 0;
}

/* One request of each VM, one VM after the other. */
static int warm_up(struct load *load)
{
	for (int i = 0; i < load->vm_count; i++) {
		if (submit(load, &load->vms[i], 0) < 0 || collect(load, FIRST_ANSWER_MS) < 0)
			return -1;
	}
	return 0;
}

static int measure(struct load *load)
{
	load->measuring = true;
	load->end_ns = clock_monotonic_ns() + load->seconds * NS_PER_SEC;
	for (int id = 0; id < load->outstanding; id++) {
		for (int i = 0; i < load->vm_count; i++) {
			if (submit(load, &load->vms[i], (uint32_t)id) < 0)
				return -1;
		}
	}
	return collect(load, LAST_ANSWER_MS);
}

static double quantile_us(const struct load *load, unsigned int per_mille)
{
	return (double)histogram_quantile(&load->round_trip_ns, per_mille) / (double)NS_PER_US;
}

static void print_result(const struct load *load)
{
	printf("{\"vms\": %d, \"outstanding\": %d, \"seconds\": %d, \"answers\": %" PRIu64
	       ", \"refused\": %" PRIu64 ", \"per_second\": %.0f, \"p50_us\": %.1f, "
	       "\"p90_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f}\n",
	       load->vm_count, load->outstanding, load->seconds, load->round_trip_ns.count,
	       load->refused, (double)load->round_trip_ns.count / load->seconds,
	       quantile_us(load, 500), quantile_us(load, 900), quantile_us(load, 990),
	       (double)load->round_trip_ns.max / (double)NS_PER_US);
}

static int hold(const struct load *load)
{
	printf("{\"vms\": %d, \"holding\": true}\n", load->vm_count);
	fflush(stdout);
	while (getchar() != EOF)
		;
	return 0;
}

static const char usage[] =
	"usage: bench-load [--add] [--seconds S] [--outstanding K] SOCKET...\n"
	"       bench-load --hold SOCKET...\n"
	"\n"
	"Drives one VM per SOCKET with empty jobs and prints their round trip times.\n"
	"  --add            jobs of one addition, which take the GPU\n"
	"  --seconds S      how long, 1 to 3600 (default 3)\n"
	"  --outstanding K  requests under way per VM, 1 to 64 (default 1)\n"
	"  --hold           one request each, then idle until standard input ends\n";

static int parse_options(struct load *load, int argc, char **argv)
{
	static const struct option options[] = {
		{"add", no_argument, NULL, 'a'},
		{"seconds", required_argument, NULL, 's'},
		{"outstanding", required_argument, NULL, 'o'},
		{"hold", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 's')
			load->seconds = atoi(optarg);
		else if (c == 'o')
			load->outstanding = atoi(optarg);
		else if (c == 'a')
			load->add = true;
		else if (c == 'h')
			load->hold = true;
		else
			return -EINVAL;
	}
	if (load->seconds < 1 || load->seconds > 3600 || load->outstanding < 1 ||
	    load->outstanding > OUTSTANDING_MAX || optind == argc)
		return -EINVAL;
	load->vm_count = argc - optind;
	return 0;
}

int main(int argc, char **argv)
{
	CLEANUP(freep) struct load *load = calloc(1, sizeof(*load));
	CLEANUP(freep) struct vm *vms = NULL;
	int r;

	if (!load)
		return 1;
	load->seconds = 3;
	load->outstanding = 1;
	if (parse_options(load, argc, argv) < 0) {
		fputs(usage, stderr);
		return 2;
	}
	vms = calloc((size_t)load->vm_count, sizeof(*vms));
	if (!vms)
		return 1;
	load->vms = vms;
	for (int i = 0; i < load->vm_count; i++)
		vms[i].path = argv[optind + i];
	if (connect_all(load) < 0 || warm_up(load) < 0)
		return 1;
	if (load->hold)
		return hold(load);
	r = measure(load);
	if (r == 0)
		print_result(load);
	return r < 0 || load->refused ? 1 : 0;
}
