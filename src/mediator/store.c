/* SPDX-License-Identifier: MIT */
/* See store.h. Two lines of requests and one eventfd; nothing else is shared. */
#include "mediator/store.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>

#include <event2/event.h>

#include "base/clock.h"
#include "base/log.h"
#include "mediator/thread.h"

enum request_type {
	REQUEST_LOAD,
	REQUEST_CHANGE,
	REQUEST_RECORD,
	REQUEST_GPU,
};

struct request {
	STAILQ_ENTRY(request) link;
	enum request_type type;
	uint64_t tag;                     /* or ticket, or the GPU's number */
	char uuid[96];                    /* of the VM or the GPU */
	struct registry_vm_change change; /* CHANGE */
	struct store_record record;       /* RECORD */
	struct store_holds *holds;        /* GPU */
	/* outcome */
	int result;
	bool refused; /* CHANGE: nothing is wrong but what was asked for */
	struct store_snapshot snapshot;
	struct registry_error why;
};

STAILQ_HEAD(request_line, request);

struct store {
	const struct store_ops *ops;
	void *owner;
	struct registry *registry; /* the thread's */
	bool behind;               /* the thread's: the file holds what was not loaded yet */
	bool failing;              /* the thread's: the last access failed, and was logged */
	bool warned;               /* the thread's: the registry's warning was logged */
	pthread_t thread;
	bool thread_started;
	atomic_llong give_up_ns; /* INT64_MAX while it is not to end */
	int bell;
	struct event *done_event;
	bool ok;

	pthread_mutex_t mutex; /* for what follows */
	pthread_cond_t wake;
	struct request_line todo;
	struct request_line done;
	uint32_t pending; /* in todo */
	bool stopping;
};

static void request_free(struct request *request)
{
	registry_vms_clear(&request->snapshot.vms);
	registry_pools_clear(&request->snapshot.pools);
	registry_faults_clear(&request->snapshot.faults);
	registry_gpu_holds_clear(&request->snapshot.holds);
	free(request->holds);
	free(request);
}

/* ---- The thread ------------------------------------------------------------------- */

static void explain(const struct store *store, int result, struct registry_error *why)
{
	if (result < 0)
		snprintf(why->text, sizeof(why->text), "%s: %s", registry_path(store->registry),
		         strerror(-result));
	else if (result > 0)
		snprintf(why->text, sizeof(why->text), "%s", registry_message(store->registry));
}

/*
 * Each reading of the registry takes what lies in the future for something that happens now; it
 * would never become old. If that cannot be written the next reading tries again.
 */
static void settle_times(struct store *store, const struct registry_faults *faults)
{
	int64_t now_s = clock_realtime_s();
	bool ahead = false;

	for (size_t i = 0; i < faults->count; i++)
		ahead |= faults->items[i].at_s > now_s;
	if (ahead && registry_faults_not_after(store->registry, now_s) == 0)
		log_warning("registry: faults of a time to come are dated back to now: the host's "
		            "clock was set back");
}

static int do_load(struct store *store, struct request *request)
{
	struct store_snapshot *snapshot = &request->snapshot;
	int r = registry_vm_list(store->registry, &snapshot->vms);

	if (r == 0)
		r = registry_pool_list(store->registry, &snapshot->pools);
	if (r == 0)
		r = registry_fault_list_counting(store->registry, &snapshot->faults);
	if (r == 0)
		r = registry_gpu_hold_list(store->registry, &snapshot->holds);
	if (r == 0)
		settle_times(store, &snapshot->faults);
	store->behind = r != 0;
	return r;
}

static int do_change(struct store *store, struct request *request)
{
	int r = registry_vm_update(store->registry, request->uuid, &request->change);

	/* That is the matter of who asked; the registry is well. */
	request->refused =
		r == REGISTRY_E_NOT_FOUND || r == REGISTRY_E_EXISTS || r == REGISTRY_E_INVALID;
	if (request->refused)
		explain(store, r, &request->why);
	if (r != 0)
		return request->refused ? 0 : r;
	return do_load(store, request);
}

static int write_fault(struct registry *registry, const char *uuid,
                       const struct store_record *record)
{
	const struct registry_fault_event event = {
		.at_s = record->at_s,
		.kind = record->kind,
		.points = record->points,
		.count = record->count,
		.detail = record->detail,
		.quarantine = record->quarantine[0] ? record->quarantine : NULL,
	};

	return registry_fault_record(registry, uuid, &event);
}

static int write_recovery(struct registry *registry, const char *uuid,
                          const struct store_record *record)
{
	return registry_recovery_record(registry, uuid, record->at_s);
}

static int write_forgiveness(struct registry *registry, const char *uuid,
                             const struct store_record *record)
{
	return registry_faults_forgive(registry, uuid, record->at_s, record->detail);
}

static int do_record(struct store *store, struct request *request)
{
	static int (*const writers[])(struct registry *, const char *,
	                              const struct store_record *) = {
		[CORE_RECORD_FAULT] = write_fault,
		[CORE_RECORD_RECOVERED] = write_recovery,
		[CORE_RECORD_FORGIVEN] = write_forgiveness,
	};
	const struct store_record *record = &request->record;
	int r = writers[record->record](store->registry, request->uuid, record);

	/* Removed meanwhile: nobody is left to hold it against. */
	return r == REGISTRY_E_NOT_FOUND ? 0 : r;
}

static int do_gpu(struct store *store, struct request *request)
{
	struct registry_gpu_hold_event items[STORE_HOLDS_MAX];

	for (uint32_t i = 0; i < request->holds->count; i++) {
		const struct store_hold *hold = &request->holds->items[i];

		items[i] = (struct registry_gpu_hold_event){
			.code = hold->code,
			.at_s = hold->at_s,
			.message = hold->message,
			.by = hold->by[0] ? hold->by : NULL,
		};
	}
	return registry_gpu_holds_set(store->registry, request->uuid, items, request->holds->count);
}

static int open_registry(struct store *store, struct registry **out, const char *path,
                         struct registry_error *why)
{
	const struct registry_options options = {
		.mode = REGISTRY_WRITE,
		.give_up_ns = &store->give_up_ns,
	};

	return registry_open(out, path, &options, why);
}

/*
 * Another file may lie at the path by now, put there by a restore. A missing one is
 * waited for, and so is an empty one, which is about to be written: a new registry in
 * its place would remove every VM.
 */
static int follow_file(struct store *store, struct registry_error *why)
{
	const char *path = registry_path(store->registry);
	struct registry *fresh;
	struct stat found;
	bool changed = false;
	int r = registry_changed(store->registry, &changed);

	store->behind |= changed;
	if (r != REGISTRY_E_REPLACED) {
		explain(store, r, why);
		return r;
	}
	store->behind = true;
	if (stat(path, &found) < 0 || found.st_size == 0) {
		snprintf(why->text, sizeof(why->text),
		         "registry %s is gone; put it back: until then its VMs are served as they "
		         "were, and nothing is recorded",
		         path);
		return REGISTRY_E_MISSING;
	}
	r = open_registry(store, &fresh, path, why);
	if (r != 0)
		return r;
	registry_free(store->registry);
	store->registry = fresh;
	return 0;
}

static void do_request(struct store *store, struct request *request)
{
	static int (*const handlers[])(struct store *, struct request *) = {
		[REQUEST_LOAD] = do_load,
		[REQUEST_CHANGE] = do_change,
		[REQUEST_RECORD] = do_record,
		[REQUEST_GPU] = do_gpu,
	};

	request->result = follow_file(store, &request->why);
	if (request->result == 0) {
		request->result = handlers[request->type](store, request);
		explain(store, request->result, &request->why);
	}
	/* Once per trouble: a full disk is not told again with every fault. */
	if (request->result != 0 && !store->failing)
		log_error("registry: %s", request->why.text);
	store->failing = request->result != 0;
	if (registry_warning(store->registry) && !store->warned) {
		log_warning("registry: %s", registry_warning(store->registry));
		store->warned = true;
	}
}

/* The mediator ends: what there is to write is written as long as there is time. */
static void do_last(struct store *store, struct request *request)
{
	bool late = clock_monotonic_ns() >= atomic_load(&store->give_up_ns);

	if (late || request->type == REQUEST_LOAD)
		request->result = -ECANCELED;
	else
		do_request(store, request);
}

/* Hands a finished request to the event loop. */
static void finish(struct store *store, struct request *request)
{
	pthread_mutex_lock(&store->mutex);
	STAILQ_INSERT_TAIL(&store->done, request, link);
	pthread_mutex_unlock(&store->mutex);
	thread_bell_ring(store->bell);
}

/* Another process has changed the file, or put another in its place: read it. */
static void look_for_changes(struct store *store)
{
	struct registry_error why;
	struct request *request;

	if (follow_file(store, &why) == 0 && !store->behind)
		return;
	request = calloc(1, sizeof(*request));
	if (!request)
		return;
	request->type = REQUEST_LOAD;
	do_request(store, request);
	finish(store, request);
}

/* Waits for a request, or STORE_WATCH_S. The mutex is held. */
static void wait_for_work(struct store *store)
{
	const struct timespec until = thread_deadline(STORE_WATCH_S * 1000);

	while (STAILQ_EMPTY(&store->todo) && !store->stopping) {
		if (pthread_cond_timedwait(&store->wake, &store->mutex, &until) == ETIMEDOUT)
			return;
	}
}

static void *thread_main(void *arg)
{
	struct store *store = arg;
	struct request *request;
	bool stopping;

	for (;;) {
		pthread_mutex_lock(&store->mutex);
		wait_for_work(store);
		stopping = store->stopping;
		request = STAILQ_FIRST(&store->todo);
		if (request) {
			STAILQ_REMOVE_HEAD(&store->todo, link);
			store->pending--;
		}
		pthread_mutex_unlock(&store->mutex);
		if (!request && stopping)
			return NULL;
		if (!request) {
			look_for_changes(store);
			continue;
		}
		if (stopping)
			do_last(store, request);
		else
			do_request(store, request);
		finish(store, request);
	}
}

/* ---- The event loop's side ---------------------------------------------------------- */

static void tell(struct store *store, const struct request *request)
{
	bool well = request->result == 0 && !request->refused;

	switch (request->type) {
	case REQUEST_LOAD:
	case REQUEST_CHANGE:
		store->ops->loaded(store->owner, request->tag, well ? &request->snapshot : NULL,
		                   request->why.text);
		break;
	case REQUEST_RECORD:
		store->ops->stored(store->owner, request->tag, well);
		break;
	case REQUEST_GPU:
		store->ops->gpu_stored(store->owner, (uint32_t)request->tag, well);
		break;
	}
}

static void on_done(evutil_socket_t fd, short what UNUSED, void *arg)
{
	struct store *store = arg;
	struct request_line done = STAILQ_HEAD_INITIALIZER(done);
	struct request *request;

	thread_bell_silence(fd);
	pthread_mutex_lock(&store->mutex);
	STAILQ_CONCAT(&done, &store->done);
	pthread_mutex_unlock(&store->mutex);
	while ((request = STAILQ_FIRST(&done))) {
		STAILQ_REMOVE_HEAD(&done, link);
		store->ok = request->result == 0;
		tell(store, request);
		request_free(request);
	}
}

static int start_thread(struct store *store)
{
	int r;

	pthread_mutex_init(&store->mutex, NULL);
	thread_cond_init(&store->wake);
	r = thread_start(&store->thread, thread_main, store);
	store->thread_started = r == 0;
	return r;
}

int store_new(struct store **out, struct event_base *base, const char *path,
              const struct store_ops *ops, void *owner, struct registry_error *why)
{
	CLEANUP(store_freep) struct store *store = calloc(1, sizeof(*store));
	int r;

	snprintf(why->text, sizeof(why->text), "out of memory");
	if (!store)
		return -ENOMEM;
	store->ops = ops;
	store->owner = owner;
	store->ok = true;
	atomic_init(&store->give_up_ns, INT64_MAX);
	STAILQ_INIT(&store->todo);
	STAILQ_INIT(&store->done);
	store->bell = thread_bell_new();
	if (store->bell < 0)
		return store->bell;
	store->done_event = event_new(base, store->bell, EV_READ | EV_PERSIST, on_done, store);
	if (!store->done_event || event_add(store->done_event, NULL) < 0)
		return -ENOMEM;
	r = open_registry(store, &store->registry, path, why);
	if (r != 0)
		return r;
	if (registry_upgrade_backup(store->registry))
		log_info("registry: %s upgraded; the old file is kept as %s", path,
		         registry_upgrade_backup(store->registry));
	r = start_thread(store);
	if (r < 0)
		return r;
	*out = TAKE_PTR(store);
	return 0;
}

/* What is not stored now is lost: nobody tries again. */
static void log_lost(const struct request *request)
{
	const struct store_record *record = &request->record;

	if (request->type == REQUEST_GPU)
		log_error("registry: not recorded at the end: what holds GPU %s", request->uuid);
	else if (request->type == REQUEST_RECORD && record->record == CORE_RECORD_FAULT)
		log_error("registry: not recorded at the end: VM %s: fault: %s, %" PRId64
		          " point%s%s%s",
		          request->uuid, record->kind, record->points, plural_s(record->points),
		          record->quarantine[0] ? "; quarantined: " : "", record->quarantine);
	else if (request->type == REQUEST_RECORD)
		log_error("registry: not recorded at the end: VM %s: %s", request->uuid,
		          record->record == CORE_RECORD_FORGIVEN
		                  ? record->detail
		                  : "a job succeeded after a timeout");
}

void store_free(struct store *store)
{
	struct request *request;

	if (!store)
		return;
	if (store->thread_started) {
		atomic_store(&store->give_up_ns, clock_monotonic_ns() + STORE_STOP_MS * NS_PER_MS);
		pthread_mutex_lock(&store->mutex);
		store->stopping = true;
		pthread_cond_signal(&store->wake);
		pthread_mutex_unlock(&store->mutex);
		pthread_join(store->thread, NULL);
		pthread_cond_destroy(&store->wake);
		pthread_mutex_destroy(&store->mutex);
	}
	while ((request = STAILQ_FIRST(&store->done))) {
		STAILQ_REMOVE_HEAD(&store->done, link);
		if (request->result != 0)
			log_lost(request);
		request_free(request);
	}
	registry_free(store->registry);
	if (store->done_event)
		event_free(store->done_event);
	closep(&store->bell);
	free(store);
}

/* Puts @request, which it owns now, in line. */
static int submit(struct store *store, struct request *request)
{
	bool full;

	pthread_mutex_lock(&store->mutex);
	full = store->pending >= STORE_PENDING_MAX;
	if (!full) {
		STAILQ_INSERT_TAIL(&store->todo, request, link);
		store->pending++;
		pthread_cond_signal(&store->wake);
	}
	pthread_mutex_unlock(&store->mutex);
	if (full)
		request_free(request);
	return full ? -EBUSY : 0;
}

static struct request *request_new(enum request_type type, uint64_t tag, const char *uuid)
{
	struct request *request = calloc(1, sizeof(*request));

	if (!request)
		return NULL;
	request->type = type;
	request->tag = tag;
	snprintf(request->uuid, sizeof(request->uuid), "%s", uuid);
	return request;
}

int store_load(struct store *store, uint64_t tag)
{
	struct request *request = request_new(REQUEST_LOAD, tag, "");

	return request ? submit(store, request) : -ENOMEM;
}

int store_change(struct store *store, uint64_t tag, const char *uuid,
                 const struct registry_vm_change *change)
{
	struct request *request = request_new(REQUEST_CHANGE, tag, uuid);

	if (!request)
		return -ENOMEM;
	request->change = *change;
	return submit(store, request);
}

int store_record(struct store *store, uint64_t ticket, const char *uuid,
                 const struct store_record *record)
{
	struct request *request = request_new(REQUEST_RECORD, ticket, uuid);

	if (!request)
		return -ENOMEM;
	request->record = *record;
	return submit(store, request);
}

int store_gpu(struct store *store, uint32_t gpu, const char *uuid, const struct store_holds *holds)
{
	struct request *request = request_new(REQUEST_GPU, gpu, uuid);

	if (!request)
		return -ENOMEM;
	request->holds = malloc(sizeof(*holds));
	if (!request->holds) {
		request_free(request);
		return -ENOMEM;
	}
	*request->holds = *holds;
	return submit(store, request);
}

bool store_ok(const struct store *store)
{
	return store->ok;
}
