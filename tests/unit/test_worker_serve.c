/* SPDX-License-Identifier: MIT */
/*
 * The worker's loop against a scripted device: what is submitted when, in which order
 * answers leave, and what happens when the device or the mediator goes. Everything the
 * mediator says is in the socket before the loop starts, and its answers are read after
 * it has ended, so that nothing depends on time.
 */
#include "worker/serve.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "base/util.h"
#include "worker/sgemm_cpu.h"

/* Ends each job at its params[0]-th poll; params[1] is the error, 0 for none. */
struct device {
	struct backend base;
	unsigned int in_flight, most_in_flight;
	unsigned int polls;     /* of the job that is asked about */
	bool submit_loses;      /* the next job kills the context at its submission */
	uint64_t submitted[64]; /* jobs in order */
	unsigned int submitted_count;
};

static int device_submit(struct backend *backend, struct job *job)
{
	struct device *device = (struct device *)backend;

	device->submitted[device->submitted_count++] = job->id;
	if (device->submit_loses) {
		job->detail = 719;
		return BACKEND_E_LOST;
	}
	device->in_flight++;
	if (device->in_flight > device->most_in_flight)
		device->most_in_flight = device->in_flight;
	return 0;
}

static int device_poll(struct backend *backend, struct job *job)
{
	struct device *device = (struct device *)backend;

	assert_false(job->ended);
	if (device->polls++ < job->params[0])
		return BACKEND_E_RUNNING;
	device->polls = 0;
	if (job->params[1]) {
		job->detail = job->params[1];
		return BACKEND_E_LOST;
	}
	job->results[0] = (uint32_t)job->id;
	job->result_count = 1;
	job->gpu_time_ns = 1000 * job->id;
	job->ended = true;
	device->in_flight--;
	return 0;
}

static const struct backend_ops device_ops = {
	.name = "scripted",
	.submit = device_submit,
	.poll = device_poll,
};

struct fixture {
	struct device device;
	int mediator, worker;
	bool idle;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	int pair[2];

	f->device.base.ops = &device_ops;
	strcpy(f->device.base.info.device.name, "scripted device");
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	f->mediator = pair[0];
	f->worker = pair[1];
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	closep(&f->mediator);
	closep(&f->worker);
	free(f);
	return 0;
}

static void send_job(struct fixture *f, uint64_t job, uint32_t opcode, uint32_t polls,
                     uint32_t error)
{
	const uint32_t params[] = {polls, error};
	uint8_t packet[WORKER_MSG_MAX_BYTES], request[VGPU_MESSAGE_BYTES];
	struct worker_msg msg = {
		.type = WORKER_MSG_JOB,
		.job = job,
		.opcode = opcode,
		.payload = request,
	};

	msg.payload_bytes = (uint32_t)request_encode(
		request, opcode, 0, params, opcode == VGPU_OP_CUDA_KERNEL ? 2 : 0, NULL, 0);
	assert_true(send(f->mediator, packet, worker_msg_encode(packet, &msg), 0) > 0);
}

/* Lets the loop run on what was sent, which has to bring it to an end. */
static enum worker_exit serve(struct fixture *f)
{
	const struct backend_options options = {0};

	return serve_jobs(f->worker, &f->device.base, &options, &f->idle);
}

static void receive(struct fixture *f, uint8_t packet[WORKER_MSG_MAX_BYTES], struct worker_msg *msg)
{
	ssize_t length = recv(f->mediator, packet, WORKER_MSG_MAX_BYTES, MSG_DONTWAIT);

	assert_true(length > 0);
	assert_int_equal(worker_msg_decode(msg, packet, (size_t)length), 0);
}

static void expect_ready(struct fixture *f)
{
	uint8_t packet[WORKER_MSG_MAX_BYTES];
	struct worker_device device;
	struct worker_msg msg;

	receive(f, packet, &msg);
	assert_int_equal(msg.type, WORKER_MSG_READY);
	assert_int_equal(worker_device_decode(&device, msg.payload, msg.payload_bytes), 0);
	assert_string_equal(device.name, "scripted device");
}

static void expect_answer(struct fixture *f, uint8_t packet[WORKER_MSG_MAX_BYTES],
                          struct response_view *response, enum worker_msg_type type, uint64_t job,
                          uint32_t code)
{
	struct worker_msg msg;

	receive(f, packet, &msg);
	assert_int_equal(msg.type, type);
	assert_int_equal(msg.job, job);
	assert_int_equal(msg.code, code);
	assert_int_equal(response_decode(response, msg.payload, msg.payload_bytes, NULL), 0);
	assert_int_equal(response->status, code);
}

static void expect_end(struct fixture *f, enum worker_msg_type type, uint64_t job, uint32_t code,
                       uint32_t word)
{
	uint8_t packet[WORKER_MSG_MAX_BYTES];
	struct response_view response;

	expect_answer(f, packet, &response, type, job, code);
	assert_true(response.result_count >= 1);
	assert_int_equal(response_result(&response, 0), word);
}

static void expect_done(struct fixture *f, uint64_t job, uint32_t code, uint32_t word)
{
	expect_end(f, WORKER_MSG_DONE, job, code, word);
}

static void expect_done_without_results(struct fixture *f, uint64_t job)
{
	uint8_t packet[WORKER_MSG_MAX_BYTES];
	struct response_view response;

	expect_answer(f, packet, &response, WORKER_MSG_DONE, job, VGPU_CODE_OK);
	assert_int_equal(response.result_count, 0);
}

/* The job has failed with the context. */
static void expect_lost(struct fixture *f, uint64_t job, uint32_t word)
{
	expect_end(f, WORKER_MSG_LOST, job, VGPU_CODE_CUDA, word);
}

static void expect_nothing(struct fixture *f)
{
	uint8_t byte;

	assert_true(recv(f->mediator, &byte, 1, MSG_DONTWAIT) <= 0);
}

static void test_jobs_are_submitted_ahead_up_to_the_bound(void **state)
{
	enum { JOBS = 3 * WORKER_QUEUE_JOBS };
	struct fixture *f = *state;

	for (uint64_t job = 1; job <= JOBS; job++)
		send_job(f, job, VGPU_OP_CUDA_KERNEL, 3, 0);
	send_job(f, JOBS + 1, VGPU_OP_CUDA_KERNEL, 0, 719);
	assert_int_equal(serve(f), WORKER_EXIT_CONTEXT_LOST);
	assert_int_equal(f->device.most_in_flight, WORKER_QUEUE_JOBS);
	expect_ready(f);
	for (uint64_t job = 1; job <= JOBS; job++) {
		assert_int_equal(f->device.submitted[job - 1], job);
		expect_done(f, job, VGPU_CODE_OK, (uint32_t)job);
	}
	expect_lost(f, JOBS + 1, 719);
	expect_nothing(f);
}

static void test_refused_jobs_keep_their_place(void **state)
{
	struct fixture *f = *state;

	send_job(f, 1, VGPU_OP_CUDA_KERNEL, 5, 0);
	send_job(f, 2, 0xdead, 0, 0);
	send_job(f, 3, VGPU_OP_GET_DEVICE_INFO, 0, 0);
	send_job(f, 4, VGPU_OP_SPIN, 0, 0);
	send_job(f, 5, VGPU_OP_CUDA_KERNEL, 0, 700);
	assert_int_equal(serve(f), WORKER_EXIT_CONTEXT_LOST);
	assert_int_equal(f->device.submitted_count, 2);
	expect_ready(f);
	expect_done(f, 1, VGPU_CODE_OK, 1);
	expect_done(f, 2, VGPU_CODE_UNSUPPORTED, 0);
	expect_done(f, 3, VGPU_CODE_OK, 0);
	expect_done(f, 4, VGPU_CODE_UNSUPPORTED, 0);
	expect_lost(f, 5, 700);
	expect_nothing(f);
}

/* Neither reaches the device, and each is answered behind what came before it. */
static void test_what_needs_no_gpu_is_answered_without_it(void **state)
{
	struct fixture *f = *state;

	send_job(f, 1, VGPU_OP_NOP, 0, 0);
	send_job(f, 2, VGPU_OP_CUDA_KERNEL, 5, 0);
	send_job(f, 3, VGPU_OP_NOP, 0, 0);
	send_job(f, 4, VGPU_OP_GET_DEVICE_INFO, 0, 0);
	send_job(f, 5, VGPU_OP_CUDA_KERNEL, 0, 700);
	assert_int_equal(serve(f), WORKER_EXIT_CONTEXT_LOST);
	assert_int_equal(f->device.submitted_count, 2);
	assert_int_equal(f->device.submitted[0], 2);
	assert_int_equal(f->device.submitted[1], 5);
	expect_ready(f);
	expect_done_without_results(f, 1);
	expect_done(f, 2, VGPU_CODE_OK, 2);
	expect_done_without_results(f, 3);
	expect_done(f, 4, VGPU_CODE_OK, 0);
	expect_lost(f, 5, 700);
	expect_nothing(f);
}

static void test_a_lost_context_fails_everything_in_flight(void **state)
{
	struct fixture *f = *state;

	send_job(f, 1, VGPU_OP_CUDA_KERNEL, 1, 0);
	send_job(f, 2, VGPU_OP_CUDA_KERNEL, 1, 700);
	send_job(f, 3, 0xdead, 0, 0);
	send_job(f, 4, VGPU_OP_CUDA_KERNEL, 1, 0);
	assert_int_equal(serve(f), WORKER_EXIT_CONTEXT_LOST);
	assert_false(f->idle);
	expect_ready(f);
	expect_done(f, 1, VGPU_CODE_OK, 1);
	expect_lost(f, 2, 700);
	expect_done(f, 3, VGPU_CODE_UNSUPPORTED, 0);
	expect_lost(f, 4, 700);
}

static void test_answers_survive_unread_packets(void **state)
{
	struct fixture *f = *state;

	f->device.submit_loses = true;
	for (uint64_t job = 1; job <= 2 * WORKER_QUEUE_JOBS; job++)
		send_job(f, job, VGPU_OP_CUDA_KERNEL, 0, 0);
	assert_int_equal(serve(f), WORKER_EXIT_CONTEXT_LOST);
	close(TAKE_FD(f->worker));
	expect_ready(f);
	expect_lost(f, 1, 719);
	expect_nothing(f);
}

static void test_end_of_connection(void **state)
{
	struct fixture *f = *state;

	shutdown(f->mediator, SHUT_WR);
	assert_int_equal(serve(f), WORKER_EXIT_OK);
	assert_true(f->idle);
	expect_ready(f);
}

static void test_nobody_there(void **state)
{
	struct fixture *f = *state;

	close(f->mediator);
	f->mediator = -1;
	assert_int_equal(serve(f), WORKER_EXIT_OK);
}

static void test_nonsense(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(send(f->mediator, "nonsense", 8, 0), 8);
	assert_int_equal(serve(f), WORKER_EXIT_PROTOCOL);
}

static void test_nobody_waits_for_jobs_in_flight(void **state)
{
	struct fixture *f = *state;

	send_job(f, 1, VGPU_OP_CUDA_KERNEL, UINT32_MAX, 0);
	shutdown(f->mediator, SHUT_WR);
	assert_int_equal(serve(f), WORKER_EXIT_OK);
	assert_false(f->idle);
}

struct server {
	int socket;
	struct backend *backend;
	bool idle;
};

static void *serve_in_thread(void *argument)
{
	const struct backend_options options = {.test_ops = true};
	struct server *server = argument;

	return (void *)(intptr_t)serve_jobs(server->socket, server->backend, &options,
	                                    &server->idle);
}

/* Sends a request and waits for its answer's first result. */
static uint32_t call(int mediator, uint32_t opcode, const uint32_t *params, uint32_t param_count)
{
	uint8_t packet[WORKER_MSG_MAX_BYTES], request[VGPU_MESSAGE_BYTES];
	struct worker_msg msg = {.type = WORKER_MSG_JOB, .opcode = opcode, .payload = request};
	struct response_view response;
	ssize_t length;

	msg.payload_bytes =
		(uint32_t)request_encode(request, opcode, 0, params, param_count, NULL, 0);
	assert_true(send(mediator, packet, worker_msg_encode(packet, &msg), 0) > 0);
	do {
		length = recv(mediator, packet, sizeof(packet), 0);
		assert_true(length > 0);
		assert_int_equal(worker_msg_decode(&msg, packet, (size_t)length), 0);
	} while (msg.type == WORKER_MSG_READY);
	assert_int_equal(msg.code, VGPU_CODE_OK);
	assert_int_equal(response_decode(&response, msg.payload, msg.payload_bytes, NULL), 0);
	return response.result_count ? response_result(&response, 0) : 0;
}

static void test_the_cpu_backend_from_start_to_stop(void **state)
{
	const struct backend_options options = {.test_ops = true};
	const uint32_t sum[] = {100, 200}, product[] = {33, 1}, spin[] = {1000};
	struct fixture *f = *state;
	struct server server = {.socket = f->worker};
	struct backend_failure failure;
	uint32_t expected[VGPU_SGEMM_RESULTS];
	pthread_t thread;
	void *status;

	assert_int_equal(cpu_backend.start(&server.backend, &options, &failure), 0);
	assert_int_equal(pthread_create(&thread, NULL, serve_in_thread, &server), 0);
	assert_int_equal(call(f->mediator, VGPU_OP_NOP, NULL, 0), 0);
	assert_int_equal(call(f->mediator, VGPU_OP_CUDA_KERNEL, sum, 2), 300);
	assert_int_equal(sgemm_cpu(expected, product[0], product[1]), 0);
	assert_int_equal(call(f->mediator, VGPU_OP_SGEMM, product, 2), expected[0]);
	assert_int_equal(call(f->mediator, VGPU_OP_SPIN, spin, 1), 0);
	assert_int_equal(call(f->mediator, VGPU_OP_GET_DEVICE_INFO, NULL, 0), 0);
	shutdown(f->mediator, SHUT_WR);
	assert_int_equal(pthread_join(thread, &status), 0);
	assert_int_equal((intptr_t)status, WORKER_EXIT_OK);
	assert_true(server.idle);
	cpu_backend.stop(server.backend);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_jobs_are_submitted_ahead_up_to_the_bound,
	                                        setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_needs_no_gpu_is_answered_without_it,
	                                        setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused_jobs_keep_their_place, setup,
	                                        teardown),
		cmocka_unit_test_setup_teardown(test_a_lost_context_fails_everything_in_flight,
	                                        setup, teardown),
		cmocka_unit_test_setup_teardown(test_answers_survive_unread_packets, setup,
	                                        teardown),
		cmocka_unit_test_setup_teardown(test_end_of_connection, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nobody_there, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nonsense, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nobody_waits_for_jobs_in_flight, setup,
	                                        teardown),
		cmocka_unit_test_setup_teardown(test_the_cpu_backend_from_start_to_stop, setup,
	                                        teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
