/* SPDX-License-Identifier: MIT */
/*
 * See worker_host.h. The order of a death: the process is reaped, then what it still
 * had written is read, then dead() is called. A socket that closes while the process
 * lives on leads to SIGKILL, so that reaping always follows.
 */
#include "mediator/worker_host.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <event2/event.h>

#include "base/clock.h"
#include "base/log.h"
#include "mediator/children.h"
#include "mediator/worker_log.h"
#include "proto/request.h"

enum {
	WORKER_FD = 3,
	WORKER_ARGS_MAX = 24,
	WORKER_PACKETS_PER_EVENT = 16, /* then others get their turn */
};

struct process {
	TAILQ_ENTRY(process) link;
	struct worker_host *host;
	uint32_t vm;
	uint64_t generation;
	char *name; /* for the log: VM and process; NULL = there was no memory for it */
	pid_t pid;  /* -1 = it could not be started, or is reaped */
	int fd;
	struct event *readable;
	struct event *failed; /* made active when it could not be started */
	struct worker_log *log;
	bool ready;
	bool start_failed;
	int64_t since_ns;
	bool expected; /* we asked it to end */
	uint32_t jobs; /* that it has */
	struct worker_device device;
	int64_t told_ns; /* when it last said what its jobs hold */
};

struct worker_host {
	struct event_base *base;
	struct children *children;
	struct worker_host_config config;
	const struct worker_host_ops *ops;
	void *owner;
	TAILQ_HEAD(, process) processes;
};

/* ---- What a worker says --------------------------------------------------------------- */

static void process_kill(struct process *process)
{
	if (process->pid > 0)
		kill(process->pid, SIGKILL);
	/* One that could not be started has nothing to be read. */
	if (process->readable)
		event_del(process->readable);
}

static int on_ready_packet(struct process *process, const struct worker_msg *msg)
{
	struct worker_host *host = process->host;

	if (process->ready ||
	    worker_device_decode(&process->device, msg->payload, msg->payload_bytes) < 0 ||
	    process->device.used_mib > WORKER_HOLDS_MIB_MAX)
		return -EBADMSG;
	process->ready = true;
	process->told_ns = clock_monotonic_ns();
	log_info("%s is ready on %s", process->name, process->device.name);
	host->ops->ready(host->owner, process->vm, process->generation, &process->device);
	return 0;
}

static int on_failed_packet(struct process *process, const struct worker_msg *msg)
{
	if (process->ready || process->start_failed)
		return -EBADMSG;
	process->start_failed = true;
	log_error("%s cannot start: %.*s", process->name, (int)msg->payload_bytes,
	          msg->payload ? (const char *)msg->payload : "");
	return 0;
}

static int on_holds_packet(struct process *process, const struct worker_msg *msg)
{
	if (!process->ready || msg->detail > WORKER_HOLDS_MIB_MAX)
		return -EBADMSG;
	process->device.used_mib = msg->detail;
	process->told_ns = clock_monotonic_ns();
	return 0;
}

static int on_done_packet(struct process *process, const struct worker_msg *msg)
{
	struct worker_host *host = process->host;
	struct core_result result = {
		.code = msg->code < VGPU_CODE_COUNT ? (enum vgpu_code)msg->code : VGPU_CODE_CUDA,
		.detail = msg->detail,
		.command = msg->command,
		.gpu_time_ns = msg->gpu_time_ns,
		.context_lost = msg->type == WORKER_MSG_LOST,
	};
	struct response_view response;
	int r;

	if (!process->ready ||
	    response_decode(&response, msg->payload, msg->payload_bytes, NULL) != VGPU_CODE_OK)
		return -EBADMSG;
	result.result = message_new(msg->payload, msg->payload_bytes);
	if (!result.result)
		return -ENOMEM;
	r = host->ops->done(host->owner, process->vm, process->generation, msg->job, &result);
	if (r == 0) {
		process->jobs--;
		return 0;
	}
	free(result.result);
	/* Its jobs are taken from it when it is to end; else it has to know which it has. */
	return process->expected ? 0 : -EPROTO;
}

/* Reads one packet. Returns 1 for one handled, 0 for none there, or a negative errno. */
static int read_packet(struct process *process)
{
	uint8_t bytes[WORKER_MSG_MAX_BYTES + 1];
	struct worker_msg msg;
	ssize_t length = recv(process->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
	int r;

	if (length < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (length == 0)
		return -EPIPE;
	r = worker_msg_decode(&msg, bytes, (size_t)length);
	if (r == 0) {
		switch (msg.type) {
		case WORKER_MSG_READY:
			r = on_ready_packet(process, &msg);
			break;
		case WORKER_MSG_START_FAILED:
			r = on_failed_packet(process, &msg);
			break;
		case WORKER_MSG_DONE:
		case WORKER_MSG_LOST:
			r = on_done_packet(process, &msg);
			break;
		case WORKER_MSG_HOLDS:
			r = on_holds_packet(process, &msg);
			break;
		case WORKER_MSG_JOB:
			r = -EBADMSG;
			break;
		}
	}
	return r < 0 ? r : 1;
}

static void on_packet(evutil_socket_t fd UNUSED, short what UNUSED, void *arg)
{
	struct process *process = arg;
	int r = 1;

	/* From a worker without a job nothing more is expected now. */
	for (int i = 0; i < WORKER_PACKETS_PER_EVENT && r > 0; i++)
		r = i && !process->jobs ? 0 : read_packet(process);
	if (r >= 0)
		return;
	if (r != -EPIPE && r != -ECONNRESET)
		log_error("%s: %s: killed", process->name,
		          r == -EBADMSG  ? "it sent a malformed packet"
		          : r == -EPROTO ? "it answered a job that it does not have"
		                         : strerror(-r));
	/* A worker that closes its socket means to exit or is useless: see that it does. */
	process_kill(process);
}

/* ---- Ends -------------------------------------------------------------------------------- */

static void process_free(struct process *process)
{
	TAILQ_REMOVE(&process->host->processes, process, link);
	if (process->readable)
		event_free(process->readable);
	if (process->failed)
		event_free(process->failed);
	worker_log_free(process->log);
	free(process->name);
	closep(&process->fd);
	free(process);
}

/* @status as waitpid() says it. */
static void process_dead(struct process *process, int status)
{
	struct worker_host *host = process->host;
	uint64_t generation = process->generation;
	uint32_t vm = process->vm;

	process_free(process);
	host->ops->dead(host->owner, vm, generation, status);
}

static void log_death(const struct process *process, int status)
{
	if (WIFSIGNALED(status) && !process->expected)
		log_warning("%s died of signal %d (%s)", process->name, WTERMSIG(status),
		            strsignal(WTERMSIG(status)));
	else if (WIFEXITED(status) && !process->expected)
		log_warning("%s exited with status %d", process->name, WEXITSTATUS(status));
	else
		log_info("%s ended", process->name);
}

static struct process *find_generation(struct worker_host *host, uint64_t generation)
{
	struct process *process;

	TAILQ_FOREACH (process, &host->processes, link) {
		if (process->generation == generation)
			return process;
	}
	return NULL;
}

static void on_reaped(void *owner, pid_t pid UNUSED, int status)
{
	struct process *process = owner;
	bool reset_seen = false;
	int r;

	log_death(process, status);
	process->pid = -1;
	/* A reset, told once for what it had not read, comes before what it still had said. */
	while ((r = read_packet(process)) > 0 || (r == -ECONNRESET && !reset_seen))
		reset_seen |= r == -ECONNRESET;
	process_dead(process, status);
}

static void on_failed_start(evutil_socket_t fd UNUSED, short what UNUSED, void *arg)
{
	process_dead(arg, 0);
}

/* ---- Starting -------------------------------------------------------------------- */

/* Numbers as text for an argument vector. */
struct numbers {
	char text[4][24];
	unsigned int used;
};

static const char *number(struct numbers *numbers, int64_t value)
{
	char *text = numbers->text[numbers->used++];

	snprintf(text, sizeof(numbers->text[0]), "%lld", (long long)value);
	return text;
}

static void worker_arguments(const char **argv, struct numbers *numbers,
                             const struct worker_host_config *config, uint32_t vm, const char *gpu)
{
	unsigned int n = 0;

	argv[n++] = config->program;
	argv[n++] = "--backend";
	argv[n++] = config->backend;
	if (*gpu) {
		argv[n++] = "--gpu";
		argv[n++] = gpu;
	}
	if (config->uid_base) {
		argv[n++] = "--uid";
		argv[n++] = number(numbers, (int64_t)config->uid_base + vm);
	}
	if (config->pin_cpu >= 0) {
		argv[n++] = "--cpu";
		argv[n++] = number(numbers, config->pin_cpu);
	}
	if (config->allow_test_ops)
		argv[n++] = "--allow-test-ops";
	argv[n++] = "--log-level";
	argv[n++] = config->log_level;
	argv[n++] = "--fd";
	argv[n++] = number(numbers, WORKER_FD);
	argv[n++] = "--parent";
	argv[n++] = number(numbers, getpid());
	argv[n] = NULL;
}

/* Our end of the conversation does not block. */
static int make_sockets(int *ours, int *theirs)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	*ours = pair[0];
	*theirs = pair[1];
	return fcntl(*ours, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

/* Runs the program. *@stderr_fd is the end of its stderr that is ours. */
static int process_spawn(struct process *process, const char *gpu, int *stderr_fd)
{
	struct worker_host *host = process->host;
	const char *argv[WORKER_ARGS_MAX];
	struct numbers numbers = {.used = 0};
	CLEANUP(closep) int ours = -1;
	CLEANUP(closep) int theirs = -1;
	CLEANUP(closep) int our_log = -1;
	CLEANUP(closep) int their_log = -1;
	pid_t pid;
	int r;

	r = make_sockets(&ours, &theirs);
	if (r == 0)
		r = children_pipe(&our_log, &their_log);
	if (r < 0)
		return r;
	worker_arguments(argv, &numbers, &host->config, process->vm, gpu);
	r = children_spawn(
		&pid, argv,
		(const struct child_fd[]){{their_log, STDERR_FILENO}, {theirs, WORKER_FD}}, 2);
	if (r < 0)
		return r;
	r = children_watch(host->children, pid, on_reaped, process);
	if (r < 0) {
		kill(pid, SIGKILL);
		return r;
	}
	process->pid = pid;
	process->fd = TAKE_FD(ours);
	*stderr_fd = TAKE_FD(our_log);
	return 0;
}

/* Listens to what runs. */
static int process_listen(struct process *process, const struct worker_start *start, int stderr_fd)
{
	struct event_base *base = process->host->base;
	int r;

	if (asprintf(&process->name, "%s: worker %d", start->label, (int)process->pid) < 0) {
		process->name = NULL;
		close(stderr_fd);
		return -ENOMEM;
	}
	r = worker_log_new(&process->log, base, stderr_fd, process->name, start->log_limit);
	if (r < 0)
		return r;
	process->readable = event_new(base, process->fd, EV_READ | EV_PERSIST, on_packet, process);
	if (!process->readable || event_add(process->readable, NULL) < 0)
		return -ENOMEM;
	log_info("%s starts", process->name);
	return 0;
}

/* ---- Interface ------------------------------------------------------------------------------ */

int worker_host_new(struct worker_host **out, struct event_base *base, struct children *children,
                    const struct worker_host_config *config, const struct worker_host_ops *ops,
                    void *owner)
{
	struct worker_host *host = calloc(1, sizeof(*host));

	if (!host)
		return -ENOMEM;
	host->base = base;
	host->children = children;
	host->config = *config;
	host->ops = ops;
	host->owner = owner;
	TAILQ_INIT(&host->processes);
	*out = host;
	return 0;
}

void worker_host_free(struct worker_host *host)
{
	struct process *process;

	if (!host)
		return;
	while ((process = TAILQ_FIRST(&host->processes))) {
		process_free(process);
	}
	free(host);
}

void worker_host_start(struct worker_host *host, const struct worker_start *start)
{
	struct process *process = calloc(1, sizeof(*process));
	int stderr_fd, r;

	/* Without memory for this the core's start time-out is what remains. */
	if (!process)
		return;
	process->host = host;
	process->vm = start->vm;
	process->generation = start->generation;
	process->since_ns = clock_monotonic_ns();
	process->fd = process->pid = -1;
	TAILQ_INSERT_TAIL(&host->processes, process, link);
	r = process_spawn(process, start->gpu, &stderr_fd);
	if (r == 0) {
		if (process_listen(process, start, stderr_fd) < 0)
			process_kill(process);
		return;
	}
	log_error("%s: cannot start %s: %s", start->label, host->config.program, strerror(-r));
	process->failed = event_new(host->base, -1, 0, on_failed_start, process);
	if (process->failed)
		event_active(process->failed, EV_READ, 0);
}

void worker_host_stop(struct worker_host *host, uint64_t generation)
{
	struct process *process = find_generation(host, generation);

	if (!process)
		return;
	process->expected = true;
	shutdown(process->fd, SHUT_WR);
}

void worker_host_kill(struct worker_host *host, uint64_t generation)
{
	struct process *process = find_generation(host, generation);

	if (!process)
		return;
	process->expected = true;
	process_kill(process);
}

void worker_host_send(struct worker_host *host, uint64_t generation, uint64_t job, uint32_t opcode,
                      const struct message *request)
{
	struct process *process = find_generation(host, generation);
	const struct worker_msg msg = {
		.type = WORKER_MSG_JOB,
		.job = job,
		.opcode = opcode,
		.payload_bytes = request->length,
		.payload = request->bytes,
	};
	uint8_t bytes[WORKER_MSG_MAX_BYTES];
	size_t length = worker_msg_encode(bytes, &msg);

	if (!process)
		return;
	if (send(process->fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)length) {
		process->jobs++;
		return;
	}
	/* A few small packets always fit: it has not read for long, or is dying. */
	if (errno != EPIPE && errno != ECONNRESET)
		log_error("%s does not take its jobs: %s: killed", process->name, strerror(errno));
	process_kill(process);
}

void worker_host_walk(struct worker_host *host,
                      void (*each)(void *context, const struct worker_info *info), void *context)
{
	const struct process *process;

	TAILQ_FOREACH (process, &host->processes, link) {
		const struct worker_info info = {
			.vm = process->vm,
			.generation = process->generation,
			.pid = process->pid,
			.ready = process->ready,
			.since_ns = process->since_ns,
			.device = process->device,
			.told_ns = process->ready ? process->told_ns : INT64_MAX,
		};

		each(context, &info);
	}
}
