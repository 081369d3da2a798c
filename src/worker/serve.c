/* SPDX-License-Identifier: MIT */
/*
 * See serve.h. The loop has three duties: take packets as long as there is room and
 * submit them at once, so that the device never waits for this process; find out that
 * the oldest job has ended with as little delay as can be had; and burn no processor
 * on long jobs. Hence it spins for a short while after anything happened, looking at
 * the socket now and then and yielding to others, and afterwards sleeps in small steps
 * on the socket.
 *
 * Refused requests take their place in the queue like any other job, so that answers
 * leave in the order in which the jobs came.
 */
#include "worker/serve.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/util.h"

enum {
	SERVE_SPIN_NS = 2 * 1000 * 1000, /* after the last event */
	SERVE_SLEEP_NS = 50 * 1000,
	SERVE_TURNS_PER_RECEIVE = 4, /* while spinning: a look at the socket costs as much as
	                              * one at the device */
};

/* Conditions of the functions below; negative errno where the conversation broke. */
enum {
	SERVE_E_CLOSED = 1, /* the mediator has gone */
	SERVE_E_LOST,       /* the device context is dead */
};

struct server {
	int socket;
	struct backend *backend;
	bool test_ops;
	struct job jobs[WORKER_QUEUE_JOBS]; /* a ring: count of them from first */
	unsigned int first;
	unsigned int count;
	unsigned int turn;
	int64_t progress_ns; /* when a job last came or ended */
	bool lingers;        /* the last job that found no other came soon behind one */
	uint32_t told_mib;   /* of what jobs hold, the mediator knows this */
};

static int send_packet(int socket, const struct worker_msg *msg)
{
	uint8_t packet[WORKER_MSG_MAX_BYTES];
	size_t length = worker_msg_encode(packet, msg);

	while (send(socket, packet, length, MSG_NOSIGNAL) < 0) {
		if (errno == EPIPE || errno == ECONNRESET)
			return SERVE_E_CLOSED;
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

void serve_start_failed(int socket, const struct backend_failure *failure)
{
	struct worker_msg msg = {
		.type = WORKER_MSG_START_FAILED,
		.code = failure->code,
		.detail = failure->detail,
		.command = WORKER_MSG_NO_COMMAND,
		.payload_bytes = (uint32_t)strlen(failure->text),
		.payload = (const uint8_t *)failure->text,
	};

	(void)send_packet(socket, &msg);
}

static int send_ready(struct server *server)
{
	uint8_t device[WORKER_DEVICE_BYTES];
	struct worker_msg msg = {
		.type = WORKER_MSG_READY,
		.command = WORKER_MSG_NO_COMMAND,
		.payload_bytes = sizeof(device),
		.payload = device,
	};

	server->told_mib = server->backend->info.device.used_mib;
	worker_device_encode(device, &server->backend->info.device);
	return send_packet(server->socket, &msg);
}

/* The mediator holds what it reads of this process against what we say. */
static int tell_holds(struct server *server)
{
	uint32_t used_mib = server->backend->info.device.used_mib;
	const struct worker_msg msg = {
		.type = WORKER_MSG_HOLDS,
		.detail = used_mib,
		.command = WORKER_MSG_NO_COMMAND,
	};

	if (used_mib == server->told_mib)
		return 0;
	server->told_mib = used_mib;
	return send_packet(server->socket, &msg);
}

/* The results of a job that failed are {detail, command}, whatever it was. */
static int send_done(struct server *server, const struct job *job)
{
	const uint32_t blame[] = {job->detail, WORKER_MSG_NO_COMMAND};
	const bool failed = job->code != VGPU_CODE_OK;
	const char *data = failed ? NULL : job->data;
	uint8_t response[VGPU_MESSAGE_BYTES];
	struct worker_msg msg = {
		.type = job->context_lost ? WORKER_MSG_LOST : WORKER_MSG_DONE,
		.job = job->id,
		.code = job->code,
		.detail = job->detail,
		.command = WORKER_MSG_NO_COMMAND,
		.gpu_time_ns = job->gpu_time_ns,
		.payload = response,
	};

	msg.payload_bytes = (uint32_t)response_encode(
		response, job->code, (uint32_t)min_u64(job->gpu_time_ns / NS_PER_US, UINT32_MAX),
		failed ? blame : job->results, failed ? ARRAY_LEN(blame) : job->result_count, data,
		data ? (uint32_t)strlen(data) : 0);
	log_debug("job %llu: %s, detail %u, %llu ns", (unsigned long long)job->id,
	          code_name(job->code), job->detail, (unsigned long long)job->gpu_time_ns);
	return send_packet(server->socket, &msg);
}

/* What needs no GPU, and here it is all that is asked. */
static void answer_without_gpu(const struct backend_info *info, struct job *job)
{
	job->ended = true;
	if (job->operation->id != OPERATION_DEVICE_INFO)
		return;
	job->results[VGPU_INFO_BACKEND] = info->device.backend;
	job->results[VGPU_INFO_CAPABILITY] = info->device.capability;
	job->results[VGPU_INFO_MULTIPROCESSORS] = info->device.multiprocessors;
	job->results[VGPU_INFO_QUOTA_MIB] = info->device.total_mib;
	job->results[VGPU_INFO_USED_MIB] = info->device.used_mib;
	job->result_count = VGPU_INFO_COUNT;
	job->data = info->device.name;
}

/* Turns a packet into a job at the end of the ring; @msg is a JOB. */
static struct job *enqueue(struct server *server, const struct worker_msg *msg)
{
	unsigned int slot = (server->first + server->count) % WORKER_QUEUE_JOBS;
	struct job *job = &server->jobs[slot];
	const char *why = "refused";
	struct request_view request;

	*job = (struct job){.id = msg->job, .slot = slot};
	server->count++;
	job->code = request_decode(&request, msg->payload, msg->payload_bytes, &why);
	if (job->code == VGPU_CODE_OK && request.opcode != msg->opcode) {
		why = "the packet names another operation than the request";
		job->code = VGPU_CODE_INVALID_REQUEST;
	}
	if (job->code == VGPU_CODE_OK)
		job->code = operation_find(&job->operation, &request, server->test_ops);
	if (job->code != VGPU_CODE_OK) {
		log_debug("job %llu, operation %#x: %s (%s)", (unsigned long long)job->id,
		          msg->opcode, code_name(job->code), why);
		job->ended = true;
		return job;
	}
	for (uint32_t i = 0; i < request.param_count; i++)
		job->params[i] = request_param(&request, i);
	return job;
}

static int accept_job(struct server *server, const struct worker_msg *msg)
{
	bool was_idle = server->count == 0;
	struct job *job = enqueue(server, msg);
	int64_t now_ns = clock_monotonic_ns();

	if (was_idle)
		server->lingers = now_ns - server->progress_ns < server->backend->ops->linger_ns;
	server->progress_ns = now_ns;
	if (job->ended)
		return 0;
	if (!opcode_needs_gpu(job->operation->opcode)) {
		answer_without_gpu(&server->backend->info, job);
		return 0;
	}
	if (server->backend->ops->submit(server->backend, job))
		return SERVE_E_LOST;
	return tell_holds(server);
}

/* Takes what lies in the socket, as long as there is room. */
static int receive(struct server *server)
{
	uint8_t packet[WORKER_MSG_MAX_BYTES];
	struct worker_msg msg;
	ssize_t length;
	int r;

	while (server->count < WORKER_QUEUE_JOBS) {
		length = recv(server->socket, packet, sizeof(packet), MSG_DONTWAIT | MSG_TRUNC);
		if (length < 0 && (errno == EAGAIN || errno == EINTR))
			return 0;
		if (length == 0 || (length < 0 && errno == ECONNRESET))
			return SERVE_E_CLOSED;
		if (length < 0)
			return -errno;
		r = worker_msg_decode(&msg, packet, (size_t)length);
		if (r < 0)
			return r;
		if (msg.type != WORKER_MSG_JOB)
			return -EBADMSG;
		r = accept_job(server, &msg);
		if (r)
			return r;
	}
	return 0;
}

/* Waits for a packet, at most @timeout_ns; -1 is without end. */
static int wait_socket(struct server *server, int64_t timeout_ns)
{
	struct timespec timeout = {.tv_sec = 0, .tv_nsec = timeout_ns};
	/* With a full queue only the end of the connection is of interest. */
	struct pollfd entry = {
		.fd = server->socket,
		.events = server->count < WORKER_QUEUE_JOBS ? POLLIN : 0,
	};

	if (ppoll(&entry, 1, timeout_ns < 0 ? NULL : &timeout, NULL) < 0)
		return errno == EINTR ? 0 : -errno;
	server->turn = 0;
	if (entry.revents & (POLLHUP | POLLERR) && !(entry.revents & POLLIN))
		return SERVE_E_CLOSED;
	return 0;
}

/* Answers every job at the head of the queue that has ended. */
static int finish_ended(struct server *server)
{
	struct job *job = &server->jobs[server->first];
	int r;

	while (server->count && job->ended) {
		r = send_done(server, job);
		if (r)
			return r;
		server->first = (server->first + 1) % WORKER_QUEUE_JOBS;
		server->count--;
		server->progress_ns = clock_monotonic_ns();
		job = &server->jobs[server->first];
	}
	return 0;
}

/*
 * Nothing is in flight: looks at the socket for a while, then sleeps on it. With many VMs a
 * while is too short, and all who look take the processors from those who have work.
 */
static int wait_for_job(struct server *server)
{
	if (!server->lingers ||
	    clock_monotonic_ns() - server->progress_ns >= server->backend->ops->linger_ns)
		return wait_socket(server, -1);
	server->turn = 0;
	sched_yield();
	return 0;
}

static int turn(struct server *server)
{
	int r = 0;

	if (server->turn++ % SERVE_TURNS_PER_RECEIVE == 0)
		r = receive(server);
	if (r)
		return r;
	r = finish_ended(server);
	if (r)
		return r;
	if (server->count == 0)
		return wait_for_job(server);
	switch (server->backend->ops->poll(server->backend, &server->jobs[server->first])) {
	case 0:
		server->turn = 0;
		return finish_ended(server);
	case BACKEND_E_LOST:
		return SERVE_E_LOST;
	}
	if (clock_monotonic_ns() - server->progress_ns > SERVE_SPIN_NS)
		return wait_socket(server, SERVE_SLEEP_NS);
	sched_yield();
	return 0;
}

/* A dead context takes every job in flight with it; they all get the error that killed it. */
static void fail_all(struct server *server)
{
	uint32_t detail = 0;

	for (unsigned int i = 0; i < server->count; i++) {
		struct job *job = &server->jobs[(server->first + i) % WORKER_QUEUE_JOBS];

		if (!job->ended && job->detail)
			detail = job->detail;
	}
	log_error("the device context is lost (CUDA error %u), %u job%s with it", detail,
	          server->count, plural_s(server->count));
	for (unsigned int i = 0; i < server->count; i++) {
		struct job *job = &server->jobs[(server->first + i) % WORKER_QUEUE_JOBS];

		if (job->ended)
			continue;
		job->code = VGPU_CODE_CUDA;
		job->detail = detail;
		job->context_lost = true;
		job->ended = true;
	}
	(void)finish_ended(server);
}

/*
 * Unread packets at close would make the peer's next read fail before it has seen our
 * last answers.
 */
static void leave(struct server *server)
{
	uint8_t packet[WORKER_MSG_MAX_BYTES];

	shutdown(server->socket, SHUT_RD);
	while (recv(server->socket, packet, sizeof(packet), MSG_DONTWAIT) > 0)
		;
}

enum worker_exit serve_jobs(int socket, struct backend *backend,
                            const struct backend_options *options, bool *idle)
{
	struct server server = {
		.socket = socket,
		.backend = backend,
		.test_ops = options->test_ops,
	};
	int r;

	r = send_ready(&server);
	while (r == 0)
		r = turn(&server);
	*idle = server.count == 0 && r != SERVE_E_LOST;
	switch (r) {
	case SERVE_E_CLOSED:
		log_debug("the mediator has closed the connection");
		return WORKER_EXIT_OK;
	case SERVE_E_LOST:
		fail_all(&server);
		leave(&server);
		return WORKER_EXIT_CONTEXT_LOST;
	default:
		log_error("talking to the mediator failed: %s", strerror(-r));
		leave(&server);
		return WORKER_EXIT_PROTOCOL;
	}
}
