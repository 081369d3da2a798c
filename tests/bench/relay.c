/* SPDX-License-Identifier: MIT */
/*
 * The least that a mediator can cost: a relay that decides nothing.
 *
 * It has the shape of the real thing and none of its work. Per VM there is a listening
 * SOCK_STREAM socket DIR/N.sock and a worker process of its own behind a SOCK_SEQPACKET
 * pair; one epoll loop in between cuts the stream into frames, passes each one on, and
 * writes the worker's answer back. No queue, no accounting, no deadline, no settings.
 *
 * Its workers may be bound to one processor, as the mediator's are with the cpu backend:
 * on which processor a process wakes up costs more than anything that it does.
 *
 * What bench-load measures through it is the price of two sockets and two processes on
 * this machine, which is what the mediator is compared with. Not for any other use: a
 * client that does not read its answers ends the relay.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/socket.h"
#include "base/util.h"
#include "frames.h"
#include "vgpu/wire.h"

enum {
	VMS_MAX = 1024,
	EVENTS_PER_WAIT = 64,
	MODE_OWNER_ONLY = 0600,
};

struct vm;

struct source {
	int fd; /* -1: none */
	int (*readable)(struct vm *vm);
	struct vm *vm;
};

struct vm {
	int epoll;
	struct source listener;
	struct source client;
	struct source worker;
	pid_t pid;
	struct frames input;
};

static int fail(const char *what)
{
	int error = errno;

	fprintf(stderr, "bench-relay: %s: %s\n", what, strerror(error));
	return -error;
}

/* ---- The worker ----------------------------------------------------------- */

static void worker_bind(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		fail("sched_setaffinity");
}

/* Answers every frame with an empty response of success. Ends with the relay. */
static void worker_run(int fd)
{
	uint8_t packet[FRAME_BYTES_MAX];
	uint8_t answer[VGPU_SOCKET_HEADER_BYTES + VGPU_HEADER_BYTES] = {0};
	struct vgpu_socket_header header;
	ssize_t length;

	while ((length = recv(fd, packet, sizeof(packet), 0)) > 0) {
		if (length < VGPU_SOCKET_HEADER_BYTES ||
		    vgpu_socket_header_decode(&header, packet) != 0)
			return;
		header.type = VGPU_MSG_RESPONSE;
		header.payload_bytes = VGPU_HEADER_BYTES;
		vgpu_socket_header_encode(answer, &header);
		vgpu_put_le32(answer + VGPU_SOCKET_HEADER_BYTES + VGPU_RESPONSE_VERSION,
		              VGPU_PROTOCOL_VERSION);
		if (send(fd, answer, sizeof(answer), MSG_NOSIGNAL) < 0)
			return;
	}
}

/* ---- The relay ------------------------------------------------------------ */

static int watch(struct vm *vm, struct source *source)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = source};

	return epoll_ctl(vm->epoll, EPOLL_CTL_ADD, source->fd, &event) < 0 ? fail("epoll_ctl") : 0;
}

static void client_close(struct vm *vm)
{
	close(vm->client.fd);
	vm->client.fd = -1;
	vm->input.have = vm->input.used = 0;
}

static int client_readable(struct vm *vm)
{
	ssize_t length = frames_read(&vm->input, vm->client.fd);
	struct vgpu_socket_header header;
	const uint8_t *payload;
	int r;

	if (length == -EAGAIN)
		return 0;
	if (length == 0)
		client_close(vm);
	if (length <= 0)
		return length ? fail("client") : 0;
	while ((r = frames_next(&vm->input, &header, &payload)) > 0) {
		if (send(vm->worker.fd, payload - VGPU_SOCKET_HEADER_BYTES,
		         VGPU_SOCKET_HEADER_BYTES + (size_t)header.payload_bytes, MSG_NOSIGNAL) < 0)
			return fail("worker");
	}
	errno = -r;
	return r < 0 ? fail("client") : 0;
}

static int worker_readable(struct vm *vm)
{
	uint8_t packet[FRAME_BYTES_MAX];
	ssize_t length = recv(vm->worker.fd, packet, sizeof(packet), MSG_DONTWAIT);

	if (length <= 0)
		return fail("worker");
	if (vm->client.fd >= 0 &&
	    send(vm->client.fd, packet, (size_t)length, MSG_NOSIGNAL) != length && errno != EPIPE)
		return fail("client");
	return 0;
}

static int listener_readable(struct vm *vm)
{
	if (vm->client.fd >= 0)
		client_close(vm);
	vm->client.fd = accept4(vm->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	return vm->client.fd < 0 ? fail("accept") : watch(vm, &vm->client);
}

/* ---- Start and loop ------------------------------------------------------- */

static int vm_start(struct vm *vm, int epoll, const char *directory, int index, int cpu)
{
	char path[256];
	int pair[2], r;

	vm->epoll = epoll;
	vm->client = (struct source){-1, client_readable, vm};
	snprintf(path, sizeof(path), "%s/%d.sock", directory, index);
	vm->listener = (struct source){-1, listener_readable, vm};
	r = socket_listen_unix(&vm->listener.fd, path, MODE_OWNER_ONLY);
	if (r < 0) {
		errno = -r;
		return fail(path);
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return fail("socketpair");
	vm->worker = (struct source){pair[0], worker_readable, vm};
	vm->pid = fork();
	if (vm->pid < 0)
		return fail("fork");
	if (vm->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(pair[0]);
		if (cpu >= 0)
			worker_bind(cpu);
		worker_run(pair[1]);
		_exit(0);
	}
	close(pair[1]);
	r = watch(vm, &vm->listener);
	return r < 0 ? r : watch(vm, &vm->worker);
}

static int terminated(struct vm *vm UNUSED)
{
	return 1;
}

/* SIGTERM ends the loop as an event does. */
static int watch_signals(struct source *source, int epoll)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = source};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	*source = (struct source){signalfd(-1, &set, SFD_CLOEXEC), terminated, NULL};
	if (source->fd < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, source->fd, &event) < 0)
		return fail("signalfd");
	return 0;
}

/* Returns 1 after SIGTERM, or a negative errno. */
static int relay(int epoll)
{
	struct epoll_event events[EVENTS_PER_WAIT];
	int count, i, r = 0;

	while (r == 0) {
		count = epoll_wait(epoll, events, EVENTS_PER_WAIT, -1);
		if (count < 0 && errno != EINTR)
			return fail("epoll_wait");
		for (i = 0; i < count && r == 0; i++) {
			struct source *source = events[i].data.ptr;

			/* Closed by an event before it. */
			if (source->fd >= 0)
				r = source->readable(source->vm);
		}
	}
	return r;
}

int main(int argc, char **argv)
{
	CLEANUP(freep) struct vm *vms = NULL;
	int epoll, count, cpu, i, r;
	struct source signals;

	count = argc >= 3 && argc <= 4 ? atoi(argv[2]) : 0;
	cpu = argc == 4 ? atoi(argv[3]) : -1;
	if (count < 1 || count > VMS_MAX || cpu >= CPU_SETSIZE) {
		fprintf(stderr,
		        "usage: bench-relay DIRECTORY VMS [CPU]\n"
		        "VMS is 1 to %d; its workers are bound to processor CPU, if given\n",
		        VMS_MAX);
		return 2;
	}
	vms = calloc((size_t)count, sizeof(*vms));
	epoll = epoll_create1(EPOLL_CLOEXEC);
	if (!vms || epoll < 0) {
		fail("start");
		return 1;
	}
	for (i = 0; i < count; i++) {
		if (vm_start(&vms[i], epoll, argv[1], i, cpu) < 0)
			return 1;
	}
	if (watch_signals(&signals, epoll) < 0)
		return 1;
	puts("ready");
	fflush(stdout);
	r = relay(epoll);
	for (i = 0; i < count; i++) {
		kill(vms[i].pid, SIGKILL);
		waitpid(vms[i].pid, NULL, 0);
	}
	return r == 1 ? 0 : 1;
}
