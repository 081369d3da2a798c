/* SPDX-License-Identifier: MIT */
/*
 * See nvml_reader.h. Two structures: struct nvml_reader is the event loop's, struct
 * shared the thread's and, under its mutex, both's. Who comes last frees the latter:
 * the event loop after an orderly end, the thread when it was given up.
 */
#include "mediator/nvml_reader.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <event2/event.h>

#include "base/log.h"
#include "mediator/nvml_session.h"
#include "mediator/thread.h"

enum {
	POLL_MS = 1000,
	SILENT_POLLS = 5,
	SILENT_MIN_MS = 5000,
	RETRY_MS = 30000,
	STOP_MS = 500,
	WAIT_MS = 100, /* for events in one go: how late a wish is heard */
	WATCH_MIN_MS = 10,
	LOG_BURST = 5, /* lines on changes of the state */
};

#define LOG_INTERVAL_NS (600 * NS_PER_SEC)

enum wish {
	WISH_RUN,
	WISH_RELEASE,
	WISH_STOP,
};

struct xid_mail {
	uint32_t gpu;
	uint64_t xid;
	int64_t at_ns;
};

/* What the thread has to say and the event loop has not yet seen. */
struct mailbox {
	unsigned int wish_number; /* under which wish it was said */
	bool state_fresh;
	enum nvml_state state;
	char text[NVML_WHY_BYTES];
	uint32_t fresh; /* bit g: readings[g] */
	struct nvml_reading readings[NVML_GPUS_MAX];
	uint32_t xid_count;
	struct xid_mail xids[NVML_XIDS_MAX];
	uint32_t xids_dropped;
};

struct shared {
	/* The thread's alone, but for session.watch. */
	struct nvml_session session;
	char library[256];
	uint32_t poll_ms, retry_ms;
	struct nvml_reading scratch;

	pthread_mutex_t mutex; /* for what follows */
	pthread_cond_t wake;   /* for the thread: the wish has changed */
	pthread_cond_t over;   /* for the event loop: ended */
	enum wish wish;
	unsigned int wish_number; /* a new one with each wish, the same as before or not */
	bool ended;
	bool abandoned;
	struct mailbox *mail;
	int bell; /* rung when there is mail */
};

struct nvml_reader {
	const struct nvml_reader_ops *ops;
	void *owner;
	struct shared *shared;
	pthread_t thread;
	bool thread_started;
	struct event *mail_event;
	struct event *watch_event;
	uint32_t silent_ms, stop_ms;
	bool told; /* state and text have been told */
	enum nvml_state state;
	char text[NVML_WHY_BYTES];
	struct log_limit log_limit;
	struct mailbox *taken; /* being told; changes places with shared->mail */
};

const char *nvml_state_name(enum nvml_state state)
{
	static const char *const names[] = {
		[NVML_STATE_DOWN] = "down",
		[NVML_STATE_UP] = "up",
		[NVML_STATE_SILENT] = "silent",
		[NVML_STATE_RELEASED] = "released",
	};

	return names[state];
}

static void shared_free(struct shared *shared)
{
	pthread_cond_destroy(&shared->over);
	pthread_cond_destroy(&shared->wake);
	pthread_mutex_destroy(&shared->mutex);
	closep(&shared->bell);
	free(shared->mail);
	free(shared);
}

/* ---- The thread -------------------------------------------------------------------- */

static void post_state(struct shared *shared, unsigned int wish_number, enum nvml_state state,
                       const char *text)
{
	pthread_mutex_lock(&shared->mutex);
	shared->mail->wish_number = wish_number;
	shared->mail->state_fresh = true;
	shared->mail->state = state;
	snprintf(shared->mail->text, sizeof(shared->mail->text), "%s", text);
	/* Readings of before are of a time that is over. */
	shared->mail->fresh = 0;
	pthread_mutex_unlock(&shared->mutex);
	thread_bell_ring(shared->bell);
}

static void post_xid(struct shared *shared, uint32_t gpu, uint64_t xid)
{
	struct mailbox *mail;

	pthread_mutex_lock(&shared->mutex);
	mail = shared->mail;
	if (mail->xid_count < NVML_XIDS_MAX)
		mail->xids[mail->xid_count++] = (struct xid_mail){gpu, xid, clock_monotonic_ns()};
	else
		mail->xids_dropped++;
	pthread_mutex_unlock(&shared->mutex);
	thread_bell_ring(shared->bell);
}

static enum wish wish_of(struct shared *shared, unsigned int *number)
{
	enum wish wish;

	pthread_mutex_lock(&shared->mutex);
	wish = shared->wish;
	*number = shared->wish_number;
	pthread_mutex_unlock(&shared->mutex);
	return wish;
}

/* Whether nothing has been wished since wish @number. */
static bool still_wished(struct shared *shared, unsigned int number)
{
	unsigned int now;

	wish_of(shared, &now);
	return now == number;
}

/* Sleeps until something is wished after @number, or @ms have passed; UINT32_MAX = for ever. */
static void sleep_while(struct shared *shared, unsigned int number, uint32_t ms)
{
	const struct timespec until = thread_deadline(ms);

	pthread_mutex_lock(&shared->mutex);
	while (shared->wish_number == number) {
		if (ms == UINT32_MAX)
			pthread_cond_wait(&shared->wake, &shared->mutex);
		else if (pthread_cond_timedwait(&shared->wake, &shared->mutex, &until) == ETIMEDOUT)
			break;
	}
	pthread_mutex_unlock(&shared->mutex);
}

/* Reads every GPU. False when one can only be seen again by a new session. */
static bool poll_gpus(struct shared *shared, unsigned int number)
{
	bool whole = true;

	for (uint32_t gpu = 0; gpu < shared->session.gpu_count; gpu++) {
		whole &= nvml_session_sample(&shared->session, gpu, &shared->scratch);
		pthread_mutex_lock(&shared->mutex);
		shared->mail->wish_number = number;
		shared->mail->readings[gpu] = shared->scratch;
		shared->mail->fresh |= 1u << gpu;
		pthread_mutex_unlock(&shared->mutex);
	}
	thread_bell_ring(shared->bell);
	return whole;
}

/* Passes Xid errors on until @until_ns, or until something else is wished. */
static void wait_for_xids(struct shared *shared, unsigned int number, int64_t until_ns)
{
	while (still_wished(shared, number)) {
		int64_t left_ms = (until_ns - clock_monotonic_ns()) / NS_PER_MS;
		uint32_t gpu, ms;
		uint64_t xid;
		int r;

		if (left_ms <= 0)
			return;
		ms = (uint32_t)min_i64(left_ms, WAIT_MS);
		r = nvml_session_wait(&shared->session, ms, &gpu, &xid);
		if (r > 0)
			post_xid(shared, gpu, xid);
		else if (r < 0)
			sleep_while(shared, number, ms);
	}
}

/* Polls until something else is wished or the session is of no use any more. */
static void run_session(struct shared *shared, unsigned int number)
{
	const int64_t retry_at_ns = clock_monotonic_ns() + shared->retry_ms * NS_PER_MS;

	while (still_wished(shared, number)) {
		int64_t next_ns = clock_monotonic_ns() + shared->poll_ms * NS_PER_MS;
		bool whole = poll_gpus(shared, number);

		wait_for_xids(shared, number, next_ns);
		if (!whole && clock_monotonic_ns() >= retry_at_ns)
			return;
	}
}

static void *thread_main(void *arg)
{
	struct shared *shared = arg;
	char text[NVML_WHY_BYTES];
	unsigned int number;
	enum wish wish;
	bool abandoned;

	while ((wish = wish_of(shared, &number)) != WISH_STOP) {
		if (wish == WISH_RELEASE) {
			post_state(shared, number, NVML_STATE_RELEASED, "NVML is closed");
			sleep_while(shared, number, UINT32_MAX);
		} else if (nvml_session_open(&shared->session, text) < 0) {
			post_state(shared, number, NVML_STATE_DOWN, text);
			sleep_while(shared, number, shared->retry_ms);
		} else {
			post_state(shared, number, NVML_STATE_UP, text);
			run_session(shared, number);
		}
		nvml_session_close(&shared->session);
	}
	pthread_mutex_lock(&shared->mutex);
	shared->ended = true;
	abandoned = shared->abandoned;
	pthread_cond_signal(&shared->over);
	pthread_mutex_unlock(&shared->mutex);
	if (abandoned)
		shared_free(shared);
	return NULL;
}

/* ---- The event loop's side ---------------------------------------------------------- */

static void tell_state(struct nvml_reader *reader, enum nvml_state state, const char *text)
{
	if (reader->told && reader->state == state && strcmp(reader->text, text) == 0)
		return;
	reader->told = true;
	reader->state = state;
	if (text != reader->text)
		snprintf(reader->text, sizeof(reader->text), "%s", text);
	if (log_limit_pass(&reader->log_limit, "NVML", (uint64_t)clock_monotonic_ns(), LOG_BURST,
	                   LOG_INTERVAL_NS)) {
		if (state == NVML_STATE_UP || state == NVML_STATE_RELEASED)
			log_info("NVML is %s: %s", nvml_state_name(state), text);
		else
			log_warning("NVML is %s: %s. Jobs go on; the health of the GPUs is unknown",
			            nvml_state_name(state), text);
	}
	reader->ops->state(reader->owner, state, text);
}

static void mail_clear(struct mailbox *mail)
{
	mail->state_fresh = false;
	mail->fresh = 0;
	mail->xid_count = mail->xids_dropped = 0;
}

static void on_mail(evutil_socket_t fd, short what UNUSED, void *arg)
{
	struct nvml_reader *reader = arg;
	struct mailbox *mail;

	thread_bell_silence(fd);
	mail_clear(reader->taken);
	pthread_mutex_lock(&reader->shared->mutex);
	mail = reader->shared->mail;
	reader->shared->mail = reader->taken;
	/* The state, and what was read, under a wish that has passed. Xid errors are no less true.
	 */
	if (mail->wish_number != reader->shared->wish_number) {
		mail->state_fresh = false;
		mail->fresh = 0;
	}
	pthread_mutex_unlock(&reader->shared->mutex);
	reader->taken = mail;

	if (mail->state_fresh)
		tell_state(reader, mail->state, mail->text);
	else if (reader->state == NVML_STATE_SILENT && mail->fresh)
		tell_state(reader, NVML_STATE_UP, "it answers again");
	for (uint32_t i = 0; i < mail->xid_count; i++)
		reader->ops->xid(reader->owner, mail->xids[i].gpu, mail->xids[i].xid,
		                 mail->xids[i].at_ns);
	if (mail->xids_dropped)
		log_warning("NVML: %u Xid error%s came too fast to be counted", mail->xids_dropped,
		            plural_s(mail->xids_dropped));
	for (uint32_t gpu = 0; gpu < NVML_GPUS_MAX; gpu++) {
		if (mail->fresh & 1u << gpu)
			reader->ops->reading(reader->owner, gpu, &mail->readings[gpu]);
	}
}

/* Looks whether a call has been running for too long. */
static void on_watch(evutil_socket_t fd UNUSED, short what UNUSED, void *arg)
{
	struct nvml_reader *reader = arg;
	struct nvml_watch *watch = &reader->shared->session.watch;
	int64_t since_ns = atomic_load(&watch->since_ns);
	char text[NVML_WHY_BYTES];

	if (reader->state == NVML_STATE_SILENT || since_ns == 0 ||
	    clock_monotonic_ns() - since_ns < reader->silent_ms * NS_PER_MS)
		return;
	snprintf(text, sizeof(text), "%s has not returned for %.1f s", atomic_load(&watch->call),
	         (double)reader->silent_ms / 1000);
	tell_state(reader, NVML_STATE_SILENT, text);
}

static void wish(struct nvml_reader *reader, enum wish wish)
{
	pthread_mutex_lock(&reader->shared->mutex);
	reader->shared->wish = wish;
	reader->shared->wish_number++;
	pthread_cond_signal(&reader->shared->wake);
	pthread_mutex_unlock(&reader->shared->mutex);
}

void nvml_reader_release(struct nvml_reader *reader)
{
	wish(reader, WISH_RELEASE);
}

void nvml_reader_resume(struct nvml_reader *reader)
{
	wish(reader, WISH_RUN);
	/* It is being opened: nobody may take it for closed any more. */
	reader->state = NVML_STATE_DOWN;
	reader->told = false;
}

enum nvml_state nvml_reader_state(const struct nvml_reader *reader)
{
	return reader->state;
}

static int shared_new(struct shared **out, const struct nvml_reader_options *options)
{
	struct shared *shared = calloc(1, sizeof(*shared));

	if (!shared)
		return -ENOMEM;
	shared->mail = calloc(1, sizeof(*shared->mail));
	shared->bell = thread_bell_new();
	if (!shared->mail || shared->bell < 0) {
		closep(&shared->bell);
		free(shared->mail);
		free(shared);
		return -ENOMEM;
	}
	pthread_mutex_init(&shared->mutex, NULL);
	thread_cond_init(&shared->wake);
	thread_cond_init(&shared->over);
	shared->poll_ms = options->poll_ms ? options->poll_ms : POLL_MS;
	shared->retry_ms = options->retry_ms ? options->retry_ms : RETRY_MS;
	snprintf(shared->library, sizeof(shared->library), "%s",
	         options->library ? options->library : "libnvidia-ml.so.1");
	shared->session.library = shared->library;
	shared->session.gpu_count = options->gpu_count;
	for (uint32_t gpu = 0; gpu < options->gpu_count; gpu++)
		snprintf(shared->session.uuids[gpu], NVML_UUID_BYTES, "%s", options->uuids[gpu]);
	*out = shared;
	return 0;
}

static int start_events(struct nvml_reader *reader, struct event_base *base)
{
	uint32_t watch_ms = (uint32_t)max_u64(reader->silent_ms / 4, WATCH_MIN_MS);
	const struct timeval period = {.tv_sec = watch_ms / 1000,
	                               .tv_usec = (suseconds_t)(watch_ms % 1000) * 1000};

	reader->mail_event =
		event_new(base, reader->shared->bell, EV_READ | EV_PERSIST, on_mail, reader);
	reader->watch_event = event_new(base, -1, EV_PERSIST, on_watch, reader);
	if (!reader->mail_event || !reader->watch_event ||
	    event_add(reader->mail_event, NULL) < 0 || event_add(reader->watch_event, &period) < 0)
		return -ENOMEM;
	return 0;
}

static int start_thread(struct nvml_reader *reader)
{
	int r = thread_start(&reader->thread, thread_main, reader->shared);

	reader->thread_started = r == 0;
	return r;
}

static uint32_t silence_of(const struct nvml_reader_options *options, uint32_t poll_ms)
{
	if (options->silent_ms == 0)
		return (uint32_t)max_u64((uint64_t)poll_ms * SILENT_POLLS, SILENT_MIN_MS);
	return (uint32_t)max_u64(options->silent_ms, 2 * WAIT_MS);
}

int nvml_reader_new(struct nvml_reader **out, struct event_base *base,
                    const struct nvml_reader_options *options, const struct nvml_reader_ops *ops,
                    void *owner)
{
	CLEANUP(nvml_reader_freep) struct nvml_reader *reader = calloc(1, sizeof(*reader));
	int r;

	if (!reader)
		return -ENOMEM;
	if (options->gpu_count < 1 || options->gpu_count > NVML_GPUS_MAX)
		return -EINVAL;
	reader->ops = ops;
	reader->owner = owner;
	reader->taken = calloc(1, sizeof(*reader->taken));
	if (!reader->taken)
		return -ENOMEM;
	r = shared_new(&reader->shared, options);
	if (r < 0)
		return r;
	reader->silent_ms = silence_of(options, reader->shared->poll_ms);
	reader->stop_ms = options->stop_ms ? options->stop_ms : STOP_MS;
	r = start_events(reader, base);
	if (r == 0)
		r = start_thread(reader);
	if (r < 0)
		return r;
	*out = TAKE_PTR(reader);
	return 0;
}

/* Waits for the thread, but not for long. */
static void stop_thread(struct nvml_reader *reader)
{
	struct shared *shared = reader->shared;
	const char *call;
	bool ended;

	wish(reader, WISH_STOP);
	pthread_mutex_lock(&shared->mutex);
	ended = thread_wait(&shared->over, &shared->mutex, &shared->ended, reader->stop_ms);
	shared->abandoned = !ended;
	call = atomic_load(&shared->session.watch.call);
	pthread_mutex_unlock(&shared->mutex);
	/* Once abandoned it may be gone at any time. */
	if (ended) {
		pthread_join(reader->thread, NULL);
		shared_free(shared);
		return;
	}
	log_warning("NVML has not returned from %s: its thread is left behind", call);
	pthread_detach(reader->thread);
}

void nvml_reader_free(struct nvml_reader *reader)
{
	if (!reader)
		return;
	if (reader->mail_event)
		event_free(reader->mail_event);
	if (reader->watch_event)
		event_free(reader->watch_event);
	if (reader->thread_started)
		stop_thread(reader);
	else if (reader->shared)
		shared_free(reader->shared);
	free(reader->taken);
	free(reader);
}
