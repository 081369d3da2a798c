/* SPDX-License-Identifier: MIT */
/*
 * Many VMs with loads of any kind in one process: connects to a socket per VM, as QEMU's
 * device does, and runs a pattern (gpu_pattern.h) on each at the same time.
 *
 * First every VM runs one empty job, one VM after the other, so that its worker is up and
 * was calibrated on an idle GPU. Then the loads start; after a ramp the measured window
 * begins, and only what ends inside it counts. With --admin the mediator is asked for
 * its status at both ends of the window, while the loads go on, so that the time that
 * each VM was charged belongs to the same window.
 *
 * Prints a line "begun NS" (when the window begins, CLOCK_MONOTONIC) as soon as that is
 * known, and at the end one line with a JSON object. bench-load measures round trips
 * with less work per request; this one is for everything else.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/socket.h"
#include "base/util.h"
#include "frames.h"
#include "gpu_record.h"
#include "guest/retry.h"
#include "proto/request.h"
#include "vgpu/vgpu.h"
#include "vgpu/wire.h"

enum {
	FIRST_ANSWER_MS = 60000, /* with the start of a worker and a GPU context */
	STATUS_ANSWER_MS = 5000,
	STATUS_BYTES = 1 << 20,
	TIMER_SLACK_NS = 1000,
};

/* A job of a VM: unused, sent, or asleep until it is tried again. */
struct slot {
	bool used;
	struct actor_job job;
	int64_t sent_ns;
	int64_t retry_ns;      /* when to send it again; 0: it is sent */
	int64_t hint_over_ns;  /* the mediator asked not to come before */
	unsigned int attempts; /* retries so far */
};

struct vm {
	struct pattern pattern;
	struct actor actor;
	struct record *record;
	int fd;
	int asleep; /* slots */
	struct slot slots[PATTERN_DEPTH_MAX];
	struct frames input;
};

/* One question to the admin socket. */
struct status {
	bool asked, answered;
	int64_t at_ns; /* of the answer */
	size_t have;
	char *text; /* ended by NUL; STATUS_BYTES */
};

struct load {
	struct vm *vms;
	int vm_count;
	struct pollfd *polls; /* the VMs', then the admin socket's */
	double ramp_s, seconds, drain_s;
	const char *admin_path;
	int admin;
	struct status before, after;
	int64_t window_ns, end_ns;
	bool warming;
	uint64_t seed;
};

static int fail(const struct vm *vm, const char *what)
{
	fprintf(stderr, "bench-gpu-load: %s: %s\n", vm->pattern.name, what);
	return -1;
}

/* ---- Requests ------------------------------------------------------------- */

static int send_job(struct vm *vm, unsigned int id, int64_t now_ns)
{
	struct slot *slot = &vm->slots[id];
	uint8_t frame[VGPU_SOCKET_HEADER_BYTES + VGPU_MESSAGE_BYTES];
	struct vgpu_socket_header header = {.type = VGPU_MSG_REQUEST, .request_id = id};
	bool spin = slot->job.opcode == VGPU_OP_SPIN;
	size_t length;

	length = request_encode(frame + VGPU_SOCKET_HEADER_BYTES, slot->job.opcode, 0,
	                        &slot->job.us, spin ? 1 : 0, NULL, 0);
	header.payload_bytes = (uint16_t)length;
	header.pool_id = 'A';
	header.priority = VGPU_PRIORITY_MEDIUM;
	vgpu_socket_header_encode(frame, &header);
	length += VGPU_SOCKET_HEADER_BYTES;
	slot->sent_ns = now_ns;
	slot->retry_ns = 0;
	/* Far less than a socket's buffer is ever under way. */
	if (send(vm->fd, frame, length, MSG_NOSIGNAL) != (ssize_t)length)
		return fail(vm, strerror(errno));
	return 0;
}

static int submit(struct vm *vm, const struct actor_job *job, int64_t now_ns)
{
	unsigned int id = 0;

	while (vm->slots[id].used)
		id++;
	vm->slots[id] = (struct slot){.used = true, .job = *job};
	return send_job(vm, id, now_ns);
}

static int wake_sleepers(struct vm *vm, int64_t now_ns, int64_t *wake_ns)
{
	for (unsigned int id = 0; id < PATTERN_DEPTH_MAX && vm->asleep; id++) {
		struct slot *slot = &vm->slots[id];

		if (!slot->used || slot->retry_ns == 0)
			continue;
		if (slot->retry_ns > now_ns) {
			*wake_ns = min_i64(*wake_ns, slot->retry_ns);
			continue;
		}
		vm->asleep--;
		vm->record->early_retries += now_ns < slot->hint_over_ns;
		if (send_job(vm, id, now_ns) < 0)
			return -1;
	}
	return 0;
}

/* Sends whatever is due; *@wake_ns becomes the time of what is next, if that is earlier. */
static int pump(struct vm *vm, int64_t now_ns, int64_t *wake_ns)
{
	int64_t due_ns = actor_due_ns(&vm->actor, now_ns);
	struct actor_job job;

	while (due_ns <= now_ns) {
		job = actor_take(&vm->actor, now_ns);
		if (submit(vm, &job, now_ns) < 0)
			return -1;
		due_ns = actor_due_ns(&vm->actor, now_ns);
	}
	*wake_ns = min_i64(*wake_ns, due_ns);
	return wake_sleepers(vm, now_ns, wake_ns);
}

/* ---- Answers -------------------------------------------------------------- */

/* Returns true if the job is asleep now and will be tried again. */
static bool sleep_for_retry(struct vm *vm, struct slot *slot, uint32_t retry_after_us,
                            int64_t now_ns)
{
	if (!vm->pattern.retry || slot->attempts == VGPU_RETRIES_MAX ||
	    now_ns >= vm->record->end_ns)
		return false;
	slot->attempts++;
	slot->hint_over_ns = now_ns + retry_after_us * NS_PER_US;
	slot->retry_ns = now_ns + NS_PER_US * retry_delay_us(slot->attempts, retry_after_us,
	                                                     actor_random(&vm->actor));
	vm->asleep++;
	return true;
}

/* The answer to a VM's first job: a limit may be used up by a run before this one. */
static int on_first_answer(struct vm *vm, struct slot *slot, const struct response_view *response)
{
	if (response->status == VGPU_CODE_RATE_LIMITED && response->result_count == 2) {
		usleep(response_result(response, 1));
		return send_job(vm, 0, clock_monotonic_ns());
	}
	slot->used = false;
	return response->status == VGPU_CODE_OK ? 0 : fail(vm, code_name(response->status));
}

static int on_answer(struct load *load, struct vm *vm, const struct vgpu_socket_header *header,
                     const uint8_t *payload)
{
	int64_t now_ns = clock_monotonic_ns();
	struct response_view response;
	struct slot *slot;

	if (header->type != VGPU_MSG_RESPONSE ||
	    response_decode(&response, payload, header->payload_bytes, NULL) != VGPU_CODE_OK)
		return fail(vm, "an unexpected message");
	slot = &vm->slots[header->request_id % PATTERN_DEPTH_MAX];
	if (header->request_id >= PATTERN_DEPTH_MAX || !slot->used || slot->retry_ns)
		return fail(vm, "an answer to a request that is not under way");
	if (load->warming)
		return on_first_answer(vm, slot, &response);
	if (response.status == VGPU_CODE_RATE_LIMITED && response.result_count == 2) {
		record_refusal(vm->record, slot->sent_ns, now_ns);
		if (sleep_for_retry(vm, slot, response_result(&response, 1), now_ns))
			return 0;
	}
	slot->used = false;
	record_job(vm->record, &vm->pattern, &slot->job, response.status, response.exec_time_us,
	           now_ns);
	actor_answered(&vm->actor, now_ns);
	return 0;
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

/* ---- The mediator's status ------------------------------------------------- */

static int ask_status(struct load *load, struct status *status)
{
	static const char question[] = "{\"id\":1,\"method\":\"status\"}\n";

	status->asked = true;
	if (load->admin < 0) {
		status->answered = true;
		return 0;
	}
	if (send(load->admin, question, sizeof(question) - 1, MSG_NOSIGNAL) < 0) {
		perror("bench-gpu-load: admin socket");
		return -1;
	}
	return 0;
}

static int receive_status(struct load *load)
{
	struct status *status = load->before.answered ? &load->after : &load->before;
	ssize_t length = recv(load->admin, status->text + status->have,
	                      STATUS_BYTES - 1 - status->have, MSG_DONTWAIT);

	if (length <= 0 || !status->asked) {
		fputs("bench-gpu-load: the admin socket ended or said too much\n", stderr);
		return -1;
	}
	status->have += (size_t)length;
	if (status->text[status->have - 1] == '\n') {
		status->text[--status->have] = '\0';
		status->answered = true;
		status->at_ns = clock_monotonic_ns();
	}
	return 0;
}

/* Keeps the questions' times. Returns when to look again. */
static int64_t settle_status(struct load *load, int64_t now_ns, int *r)
{
	*r = 0;
	if (!load->before.asked) {
		if (now_ns < load->window_ns)
			return load->window_ns;
		*r = ask_status(load, &load->before);
	}
	if (!load->after.asked && load->before.answered) {
		if (now_ns < load->end_ns)
			return load->end_ns;
		*r = ask_status(load, &load->after);
	}
	return load->end_ns + STATUS_ANSWER_MS * NS_PER_MS;
}

/* ---- The run --------------------------------------------------------------- */

/* Waits until @wake_ns or for messages, and takes those. */
static int wait_and_receive(struct load *load, int64_t wake_ns)
{
	int64_t left_ns = max_i64(0, wake_ns - clock_monotonic_ns());
	struct timespec timeout = {left_ns / NS_PER_SEC, left_ns % NS_PER_SEC};
	nfds_t count = (nfds_t)load->vm_count + (load->admin >= 0);
	int ready = ppoll(load->polls, count, &timeout, NULL);

	if (ready < 0 && errno != EINTR) {
		perror("bench-gpu-load: ppoll");
		return -1;
	}
	for (int i = 0; i < load->vm_count && ready > 0; i++) {
		if (load->polls[i].revents && receive(load, &load->vms[i]) < 0)
			return -1;
	}
	if (ready > 0 && load->admin >= 0 && load->polls[load->vm_count].revents)
		return receive_status(load);
	return 0;
}

static bool any_under_way(const struct load *load)
{
	for (int i = 0; i < load->vm_count; i++) {
		if (load->vms[i].actor.under_way)
			return true;
	}
	return false;
}

static int run(struct load *load)
{
	int64_t give_up_ns = load->end_ns + STATUS_ANSWER_MS * NS_PER_MS;
	int64_t drained_ns = load->end_ns + llround(load->drain_s * NS_PER_SEC);
	int64_t now_ns = clock_monotonic_ns(), wake_ns;
	int r;

	while (!load->after.answered || (any_under_way(load) && now_ns < drained_ns)) {
		wake_ns = settle_status(load, now_ns, &r);
		if (r < 0 || (now_ns > give_up_ns && !load->after.answered)) {
			fputs("bench-gpu-load: the mediator does not tell its status\n", stderr);
			return -1;
		}
		if (load->after.answered)
			wake_ns = drained_ns;
		for (int i = 0; i < load->vm_count && r == 0; i++)
			r = pump(&load->vms[i], now_ns, &wake_ns);
		if (r < 0 || wait_and_receive(load, wake_ns) < 0)
			return -1;
		now_ns = clock_monotonic_ns();
	}
	return 0;
}

/* One empty job of each VM, one VM after the other. */
static int warm_up(struct load *load)
{
	const struct actor_job job = {.opcode = VGPU_OP_NOP};

	load->warming = true;
	for (int i = 0; i < load->vm_count; i++) {
		struct vm *vm = &load->vms[i];

		if (submit(vm, &job, clock_monotonic_ns()) < 0)
			return -1;
		while (vm->slots[0].used) {
			if (poll(&load->polls[i], 1, FIRST_ANSWER_MS) <= 0)
				return fail(vm, "no answer to the first job");
			if (receive(load, vm) < 0)
				return -1;
		}
	}
	load->warming = false;
	return 0;
}

static int connect_to(struct load *load, int index, const char *path, int *fd)
{
	int r = socket_connect_unix(fd, path, true);

	load->polls[index] = (struct pollfd){.fd = *fd, .events = POLLIN};
	if (r < 0)
		fprintf(stderr, "bench-gpu-load: %s: %s\n", path, strerror(-r));
	return r;
}

static int connect_all(struct load *load)
{
	load->admin = -1;
	for (int i = 0; i < load->vm_count; i++) {
		if (connect_to(load, i, load->vms[i].pattern.socket, &load->vms[i].fd) < 0)
			return -1;
	}
	if (!load->admin_path)
		return 0;
	return connect_to(load, load->vm_count, load->admin_path, &load->admin);
}

static void begin(struct load *load)
{
	int64_t now_ns = clock_monotonic_ns();

	load->window_ns = now_ns + llround(load->ramp_s * NS_PER_SEC);
	load->end_ns = load->window_ns + llround(load->seconds * NS_PER_SEC);
	for (int i = 0; i < load->vm_count; i++) {
		struct vm *vm = &load->vms[i];

		vm->record->window_ns = load->window_ns;
		vm->record->end_ns = load->end_ns;
		/* A little longer, so that all are at it while the status is asked for. */
		actor_init(&vm->actor, &vm->pattern, load->seed + (uint64_t)i * 1000003, now_ns,
		           load->window_ns, load->end_ns + (load->admin >= 0) * 50 * NS_PER_MS);
	}
	printf("begun %" PRId64 "\n", load->window_ns);
	fflush(stdout);
}

static void print_result(const struct load *load)
{
	printf("{\"seconds\": %.6f, \"begun_ns\": %" PRId64 ", \"status_seconds\": %.6f, ",
	       load->seconds, load->window_ns,
	       (double)(load->after.at_ns - load->before.at_ns) / (double)NS_PER_SEC);
	printf("\"before\": %s, \"after\": %s, \"vms\": [",
	       load->before.have ? load->before.text : "null",
	       load->after.have ? load->after.text : "null");
	for (int i = 0; i < load->vm_count; i++) {
		if (i)
			fputs(", ", stdout);
		record_print(load->vms[i].record, &load->vms[i].actor, stdout);
	}
	puts("]}");
}

/* ---- Start ------------------------------------------------------------------ */

static const char usage[] =
	"usage: bench-gpu-load [--ramp S] [--seconds S] [--drain S] [--seed N] [--admin PATH]\n"
	"                      VM...\n"
	"\n"
	"Runs loads of several VMs on a mediator. Each VM is a list like\n"
	"name=a,socket=PATH,op=spin,us=1000,depth=4 (tests/bench/gpu_pattern.h).\n"
	"  --ramp S      load before the measured window (default 0.5)\n"
	"  --seconds S   the measured window (default 5)\n"
	"  --drain S     longest wait for what is under way at the end (default 3)\n"
	"  --seed N      of everything random (default 1)\n"
	"  --admin PATH  ask there for the status at both ends of the window\n";

static int parse_options(struct load *load, int argc, char **argv)
{
	static const struct option options[] = {
		{"ramp", required_argument, NULL, 'r'},  {"seconds", required_argument, NULL, 's'},
		{"drain", required_argument, NULL, 'd'}, {"seed", required_argument, NULL, 'n'},
		{"admin", required_argument, NULL, 'a'}, {NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'r')
			load->ramp_s = atof(optarg);
		else if (c == 's')
			load->seconds = atof(optarg);
		else if (c == 'd')
			load->drain_s = atof(optarg);
		else if (c == 'n')
			load->seed = strtoull(optarg, NULL, 10);
		else if (c == 'a')
			load->admin_path = optarg;
		else
			return -EINVAL;
	}
	load->vm_count = argc - optind;
	return load->vm_count < 1 || load->seconds <= 0 || load->ramp_s < 0 ? -EINVAL : 0;
}

static int create_vms(struct load *load, char **texts)
{
	load->vms = calloc((size_t)load->vm_count, sizeof(*load->vms));
	load->polls = calloc((size_t)load->vm_count + 1, sizeof(*load->polls));
	load->before.text = calloc(1, STATUS_BYTES);
	load->after.text = calloc(1, STATUS_BYTES);
	if (!load->vms || !load->polls || !load->before.text || !load->after.text)
		return -ENOMEM;
	for (int i = 0; i < load->vm_count; i++) {
		struct vm *vm = &load->vms[i];

		vm->record = calloc(1, sizeof(*vm->record));
		if (!vm->record)
			return -ENOMEM;
		if (pattern_parse(&vm->pattern, texts[i]) < 0)
			return -EINVAL;
	}
	return 0;
}

static void destroy_vms(struct load *load)
{
	for (int i = 0; load->vms && i < load->vm_count; i++)
		free(load->vms[i].record);
	free(load->vms);
	free(load->polls);
	free(load->before.text);
	free(load->after.text);
}

int main(int argc, char **argv)
{
	struct load load = {.ramp_s = 0.5, .seconds = 5, .drain_s = 3, .seed = 1};
	int r;

	if (parse_options(&load, argc, argv) < 0) {
		fputs(usage, stderr);
		return 2;
	}
	prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS);
	r = create_vms(&load, argv + optind);
	if (r == 0)
		r = connect_all(&load);
	if (r == 0)
		r = warm_up(&load);
	if (r == 0) {
		begin(&load);
		r = run(&load);
	}
	if (r == 0)
		print_result(&load);
	destroy_vms(&load);
	return r == 0 ? 0 : 1;
}
