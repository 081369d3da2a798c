/* SPDX-License-Identifier: MIT */
/*
 * Between the core and everything else: events in, actions out.
 *
 * Whatever happens is brought to the core as one event; mediator_pump() then carries
 * out what the core wants, until it wants nothing more. Nothing that is carried out
 * starts a second pump.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/timerfd.h>
#include <sys/wait.h>

#include <event2/event.h>

#include "base/clock.h"
#include "mediator/internal.h"
#include "proto/request.h"

/* ---- Actions of the core ----------------------------------------------------------- */

static void do_start_worker(struct mediator *mediator, const struct core_action *action)
{
	struct vm_entry *entry = action->owner;
	char label[VM_LABEL_BYTES];
	const struct worker_start start = {
		.vm = action->vm,
		.generation = action->generation,
		.gpu = mediator->gpus.gpus[action->gpu].spec,
		.label = vm_entry_label(label, entry),
		.log_limit = &entry->worker_lines,
	};

	worker_host_start(mediator->workers, &start);
}

static void do_stop_worker(struct mediator *mediator, const struct core_action *action)
{
	worker_host_stop(mediator->workers, action->generation);
}

static void do_kill_worker(struct mediator *mediator, const struct core_action *action)
{
	worker_host_kill(mediator->workers, action->generation);
}

static void do_send_job(struct mediator *mediator, const struct core_action *action)
{
	worker_host_send(mediator->workers, action->generation, action->job, action->opcode,
	                 action->payload);
}

static void do_answer(struct mediator *mediator, const struct core_action *action)
{
	struct vm_entry *entry = action->owner;

	guest_server_answer(mediator->guests, action->client, (uint32_t)action->cookie,
	                    &action->answer, action->result);
	free(action->payload);
	free(action->result);
	if (entry->full && entry->port && core_vm_has_room(mediator->core, action->vm)) {
		entry->full = false;
		guest_port_resume(entry->port);
	}
}

static void describe_death(char *to, size_t size, int status)
{
	if (WIFSIGNALED(status))
		snprintf(to, size, "signal %d", WTERMSIG(status));
	else
		snprintf(to, size, "exit status %d", WEXITSTATUS(status));
}

static void describe_fault(char *to, size_t size, const struct core_store *store)
{
	int used = 0;

	if (store->count > 1)
		used = snprintf(to, size, "%" PRIu32 " faults, the last: ", store->count);
	to += used;
	size -= (size_t)used;
	switch (store->fault) {
	case CORE_FAULT_GPU:
		snprintf(to, size, "CUDA error %" PRIu32, store->detail);
		break;
	case CORE_FAULT_TIMEOUT:
		snprintf(to, size, "limit %" PRIu32 " ms", store->detail);
		break;
	case CORE_FAULT_DEATH:
		describe_death(to, size, (int)store->detail);
		break;
	case CORE_FAULT_COUNT:
		break;
	}
}

static void note_fault(const struct mediator *mediator, const struct core_store *store,
                       const char *label, struct store_record *record)
{
	record->kind = core_fault_name(store->fault);
	record->points = store->points;
	record->count = store->count;
	describe_fault(record->detail, sizeof(record->detail), store);
	if (store->quarantine)
		snprintf(record->quarantine, sizeof(record->quarantine),
		         "%" PRId64 " point%s within %" PRId64 " s",
		         mediator->config.quarantine_threshold,
		         plural_s(mediator->config.quarantine_threshold),
		         mediator->config.fault_window_s);
	if (store->again)
		return;
	log_warning("%s: fault: %s, %s, %" PRId64 " point%s", label, record->kind, record->detail,
	            store->points, plural_s(store->points));
	if (store->quarantine)
		log_error("%s: quarantined: %s", label, record->quarantine);
}

static void note_forgiveness(const struct core_action *action, const char *label,
                             struct store_record *record)
{
	const struct core_store *store = &action->store;

	snprintf(record->detail, sizeof(record->detail), "forgiven: the hardware of GPU %u failed",
	         action->gpu);
	if (store->again)
		return;
	log_warning("%s: forgiven %" PRId64 " point%s: the hardware of GPU %u failed just then",
	            label, store->points, plural_s(store->points), action->gpu);
	if (store->quarantine)
		log_warning("%s: its quarantine stays, but may be the hardware's doing: "
		            "vgpu-admin clear-quarantine ends it",
		            label);
}

static void do_store(struct mediator *mediator, const struct core_action *action)
{
	const struct vm_entry *entry = action->owner;
	const struct core_store *store = &action->store;
	struct store_record record = {
		.record = store->record,
		.at_s = clock_realtime_at_s(store->at_ns),
	};
	char label[VM_LABEL_BYTES];
	int r;

	vm_entry_label(label, entry);
	switch (store->record) {
	case CORE_RECORD_FAULT:
		note_fault(mediator, store, label, &record);
		break;
	case CORE_RECORD_FORGIVEN:
		note_forgiveness(action, label, &record);
		break;
	case CORE_RECORD_RECOVERED:
		break;
	}
	r = store_record(mediator->store, store->ticket, entry->uuid, &record);
	if (r < 0) {
		log_error("%s: what happened is not recorded: %s", label, strerror(-r));
		core_store_done(mediator->core, clock_monotonic_ns(), store->ticket, false);
	}
}

static void store_one(void *context, const struct core_action *action)
{
	do_store(context, action);
}

void mediator_store_rest(struct mediator *mediator)
{
	core_stores_walk(mediator->core, store_one, mediator);
}

static void do_worker_stuck(struct mediator *mediator, const struct core_action *action)
{
	char label[VM_LABEL_BYTES];

	log_error("%s: its worker on GPU %u survives SIGKILL: it hangs in the driver; "
	          "the GPU needs a reset",
	          vm_entry_label(label, action->owner), action->gpu);
	gpu_watch_stuck(mediator->watch, action->gpu);
}

static void do_worker_freed(struct mediator *mediator, const struct core_action *action)
{
	log_info("GPU %u: the driver has let go of its last stuck worker", action->gpu);
	gpu_watch_freed(mediator->watch, action->gpu);
}

static void do_worker_failing(struct mediator *mediator, const struct core_action *action)
{
	char label[VM_LABEL_BYTES];

	log_error(
		"%s: its worker on GPU %u has failed to start %d times in a row: until it does its "
		"jobs are refused; vgpu-worker --probe may tell why",
		vm_entry_label(label, action->owner), action->gpu, CORE_FAILING_STARTS);
	gpu_watch_starts_fail(mediator->watch, action->gpu, label);
}

static void do_gpu_drained(struct mediator *mediator, const struct core_action *action)
{
	gpu_watch_drained(mediator->watch, action->gpu);
}

static void do_vm_gone(struct mediator *mediator, const struct core_action *action)
{
	vm_table_forget(mediator, action->owner);
}

static void arm_timer(struct mediator *mediator)
{
	int64_t deadline_ns = core_deadline_ns(mediator->core);
	struct itimerspec when = {.it_interval = {0}};

	/* A timer that goes off early only asks once too often: later is left as it is. */
	if (deadline_ns >= mediator->armed_ns)
		return;
	deadline_ns = max_i64(deadline_ns, 1);
	when.it_value.tv_sec = deadline_ns / NS_PER_SEC;
	when.it_value.tv_nsec = deadline_ns % NS_PER_SEC;
	if (timerfd_settime(mediator->timer_fd, TFD_TIMER_ABSTIME, &when, NULL) < 0)
		log_error("timerfd: %s", strerror(errno));
	mediator->armed_ns = deadline_ns;
}

void mediator_pump(struct mediator *mediator)
{
	static void (*const handlers[])(struct mediator *, const struct core_action *) = {
		[CORE_ACTION_START_WORKER] = do_start_worker,
		[CORE_ACTION_STOP_WORKER] = do_stop_worker,
		[CORE_ACTION_KILL_WORKER] = do_kill_worker,
		[CORE_ACTION_WORKER_STUCK] = do_worker_stuck,
		[CORE_ACTION_WORKER_FREED] = do_worker_freed,
		[CORE_ACTION_WORKER_FAILING] = do_worker_failing,
		[CORE_ACTION_SEND_JOB] = do_send_job,
		[CORE_ACTION_ANSWER] = do_answer,
		[CORE_ACTION_STORE] = do_store,
		[CORE_ACTION_GPU_DRAINED] = do_gpu_drained,
		[CORE_ACTION_VM_GONE] = do_vm_gone,
	};
	struct core_action action;

	if (mediator->pumping)
		return;
	mediator->pumping = true;
	while (core_next_action(mediator->core, &action)) {
		event_log_action(mediator->event_log, &action);
		handlers[action.type](mediator, &action);
	}
	event_log_settled(mediator->event_log);
	mediator->pumping = false;
	arm_timer(mediator);
}

/* ---- Events for the core ------------------------------------------------------------- */

/* The core has decided on an event that came at @now_ns. */
static void decided(struct mediator *mediator, int64_t now_ns)
{
	histogram_record(&mediator->decisions, clock_monotonic_ns() - now_ns);
	mediator_pump(mediator);
}

void mediator_on_timer(evutil_socket_t fd, short what UNUSED, void *arg)
{
	struct mediator *mediator = arg;
	uint64_t expirations;
	int64_t now_ns;

	if (read(fd, &expirations, sizeof(expirations)) < 0)
		return;
	now_ns = clock_monotonic_ns();
	mediator->armed_ns = SCHED_NEVER;
	core_tick(mediator->core, now_ns);
	decided(mediator, now_ns);
}

static void on_submit(void *owner, void *vm, uint64_t client, uint32_t request_id,
                      enum vgpu_code malformed, uint32_t opcode, struct message *request)
{
	struct mediator *mediator = owner;
	int64_t now_ns = clock_monotonic_ns();
	struct vm_entry *entry = vm;
	const struct core_submission submission = {
		.client = client,
		.cookie = request_id,
		.opcode = opcode,
		.bytes = request ? request->length : 0,
		.without_gpu = !opcode_needs_gpu(opcode),
		.malformed = malformed,
		.payload = request,
	};

	if (core_job_submitted(mediator->core, now_ns, entry->core_vm, &submission) < 0) {
		const struct core_answer answer = {.code = VGPU_CODE_QUEUE_FULL};

		guest_server_answer(mediator->guests, client, request_id, &answer, NULL);
		free(request);
	}
	decided(mediator, now_ns);
	lag_wake(mediator->lag);
}

static void on_client_gone(void *owner, void *vm, uint64_t client)
{
	struct mediator *mediator = owner;
	int64_t now_ns = clock_monotonic_ns();
	struct vm_entry *entry = vm;

	core_client_gone(mediator->core, now_ns, entry->core_vm, client);
	decided(mediator, now_ns);
}

static bool has_room(void *owner, void *vm)
{
	struct mediator *mediator = owner;
	struct vm_entry *entry = vm;

	if (core_vm_has_room(mediator->core, entry->core_vm))
		return true;
	entry->full = true;
	return false;
}

static struct guest_port *find_port(void *owner, uint32_t vm_id)
{
	struct mediator *mediator = owner;
	struct vm_entry *entry;

	TAILQ_FOREACH (entry, &mediator->vms, link) {
		if (entry->vm_id == vm_id && !entry->removing)
			return entry->port;
	}
	return NULL;
}

const struct guest_ops mediator_guest_ops = {
	.submit = on_submit,
	.client_gone = on_client_gone,
	.has_room = has_room,
	.find = find_port,
};

static void on_worker_ready(void *owner, uint32_t vm, uint64_t generation,
                            const struct worker_device *device UNUSED)
{
	struct mediator *mediator = owner;
	int64_t now_ns = clock_monotonic_ns();

	gpu_watch_started(mediator->watch, core_vm_gpu(mediator->core, vm));
	core_worker_ready(mediator->core, now_ns, vm, generation);
	decided(mediator, now_ns);
}

static int on_worker_done(void *owner, uint32_t vm, uint64_t generation, uint64_t job,
                          const struct core_result *result)
{
	struct mediator *mediator = owner;
	int64_t now_ns = clock_monotonic_ns();
	int r = core_job_done(mediator->core, now_ns, vm, generation, job, result);

	decided(mediator, now_ns);
	return r;
}

static void on_worker_dead(void *owner, uint32_t vm, uint64_t generation, int status)
{
	struct mediator *mediator = owner;
	int64_t now_ns = clock_monotonic_ns();

	core_worker_dead(mediator->core, now_ns, vm, generation, (uint32_t)status);
	decided(mediator, now_ns);
}

const struct worker_host_ops mediator_worker_ops = {
	.ready = on_worker_ready,
	.done = on_worker_done,
	.dead = on_worker_dead,
};
