/* SPDX-License-Identifier: MIT */
/* See event_log.h. */
#include "mediator/event_log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "core/trace/trace_line.h"
#include "mediator/thread.h"

enum { LAST_BYTES = 64 }; /* kept free for the last line */

struct event_log {
	struct core *core;
	char *path;
	int fd;
	uint64_t hash;      /* of all actions */
	uint32_t unchecked; /* events since the last CHECK */
	int64_t room_bytes; /* of the file */
	bool ended;         /* nothing more is written */

	pthread_t thread;
	bool thread_started;
	char *written;      /* the thread's: what it is writing */
	atomic_bool failed; /* the thread has given up */
	atomic_size_t unwritten_bytes;

	pthread_mutex_t mutex; /* for what follows */
	pthread_cond_t wake;   /* for the thread */
	pthread_cond_t over;   /* for the event loop: thread_ended */
	char *filled;
	size_t filled_bytes;
	bool stopping;
	bool thread_ended;
};

/* ---- The thread ------------------------------------------------------------------- */

/* Waits for bytes to write; 0 at the end. */
static size_t take_filled(struct event_log *log)
{
	char *empty = log->written;
	size_t bytes;

	pthread_mutex_lock(&log->mutex);
	while (!log->filled_bytes && !log->stopping)
		pthread_cond_wait(&log->wake, &log->mutex);
	bytes = log->filled_bytes;
	log->written = log->filled;
	log->filled = empty;
	log->filled_bytes = 0;
	pthread_mutex_unlock(&log->mutex);
	return bytes;
}

static int write_all(struct event_log *log, const char *bytes, size_t count)
{
	while (count) {
		ssize_t done = write(log->fd, bytes, count);

		if (done < 0)
			return -errno;
		atomic_fetch_sub(&log->unwritten_bytes, (size_t)done);
		bytes += done;
		count -= (size_t)done;
	}
	return 0;
}

static void *thread_main(void *arg)
{
	struct event_log *log = arg;
	size_t bytes;
	int r;

	while ((bytes = take_filled(log))) {
		r = write_all(log, log->written, bytes);
		if (r < 0) {
			atomic_store(&log->failed, true);
			log_warning("event log %s: %s: it ends here", log->path, strerror(-r));
			break;
		}
	}
	pthread_mutex_lock(&log->mutex);
	log->thread_ended = true;
	pthread_cond_signal(&log->over);
	pthread_mutex_unlock(&log->mutex);
	return NULL;
}

/* ---- The event loop's side ---------------------------------------------------------- */

/* False if there is no room for the line, and for @spare bytes behind it. */
static bool append(struct event_log *log, const char *line, size_t length, size_t spare)
{
	bool fits, wake;

	pthread_mutex_lock(&log->mutex);
	fits = log->filled_bytes + length + spare <= EVENT_LOG_BUFFER_BYTES;
	wake = fits && log->filled_bytes == 0;
	if (fits) {
		memcpy(log->filled + log->filled_bytes, line, length);
		log->filled_bytes += length;
		atomic_fetch_add(&log->unwritten_bytes, length);
	}
	pthread_mutex_unlock(&log->mutex);
	if (wake)
		pthread_cond_signal(&log->wake);
	return fits;
}

static void end(struct event_log *log, enum trace_end why)
{
	const int64_t value = why;
	char line[TRACE_LINE_BYTES];

	append(log, line, trace_line_format(line, TRACE_END, &value, 1), 0);
	log->ended = true;
}

static void put(struct event_log *log, uint32_t kind, const int64_t *values, size_t count)
{
	char line[TRACE_LINE_BYTES];
	size_t length = trace_line_format(line, kind, values, count);

	log->room_bytes -= (int64_t)length;
	if (log->room_bytes < LAST_BYTES) {
		end(log, TRACE_END_FULL);
		log_warning("event log %s: event_log_max_mb is reached: it ends here", log->path);
	} else if (!append(log, line, length, LAST_BYTES)) {
		end(log, TRACE_END_SLOW);
		log_warning("event log %s: the disk does not keep up: it ends here", log->path);
	}
}

static void on_event(void *context, enum core_event event, const int64_t *values, size_t count)
{
	struct event_log *log = context;

	log->ended |= atomic_load(&log->failed);
	if (log->ended)
		return;
	put(log, event, values, count);
	log->unchecked++;
}

static void put_check(struct event_log *log)
{
	const int64_t value = (int64_t)log->hash;

	if (log->ended)
		return;
	put(log, TRACE_CHECK, &value, 1);
	log->unchecked = 0;
}

void event_log_action(struct event_log *log, const struct core_action *action)
{
	if (log)
		log->hash = core_action_hash(log->hash, action);
}

void event_log_settled(struct event_log *log)
{
	if (log && log->unchecked >= EVENT_LOG_CHECK_EVENTS)
		put_check(log);
}

/* ---- Beginning and end ---------------------------------------------------------------- */

/* The recording of the time before is kept, as its end may be what somebody looks for. */
static int open_file(struct event_log *log)
{
	char old[PATH_MAX];
	struct stat there;

	if (lstat(log->path, &there) == 0) {
		if (!S_ISREG(there.st_mode))
			return -EEXIST;
		snprintf(old, sizeof(old), "%s.old", log->path);
		if (rename(log->path, old) < 0)
			return -errno;
	}
	log->fd = open(log->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	return log->fd < 0 ? -errno : 0;
}

static int start_thread(struct event_log *log)
{
	int r;

	pthread_mutex_init(&log->mutex, NULL);
	thread_cond_init(&log->wake);
	thread_cond_init(&log->over);
	r = thread_start(&log->thread, thread_main, log);
	log->thread_started = r == 0;
	return r;
}

int event_log_new(struct event_log **out, struct core *core, const char *path, int64_t max_bytes)
{
	static const char header[] = TRACE_HEADER VGPU_VERSION "\n";
	CLEANUP(event_log_freep) struct event_log *log = calloc(1, sizeof(*log));
	int r;

	if (!log)
		return -ENOMEM;
	log->fd = -1;
	log->room_bytes = max_bytes - (int64_t)strlen(header);
	log->path = strdup(path);
	log->filled = malloc(EVENT_LOG_BUFFER_BYTES);
	log->written = malloc(EVENT_LOG_BUFFER_BYTES);
	if (!log->path || !log->filled || !log->written)
		return -ENOMEM;
	r = open_file(log);
	if (r == 0)
		r = start_thread(log);
	if (r < 0)
		return r;
	append(log, header, strlen(header), 0);
	log->core = core;
	core_listen(core, on_event, log);
	*out = TAKE_PTR(log);
	return 0;
}

/* Whether the thread has ended: then nobody has @log any more but the caller. */
static bool stop_thread(struct event_log *log)
{
	bool ended;

	pthread_mutex_lock(&log->mutex);
	log->stopping = true;
	pthread_cond_signal(&log->wake);
	ended = thread_wait(&log->over, &log->mutex, &log->thread_ended, EVENT_LOG_STOP_MS);
	pthread_mutex_unlock(&log->mutex);
	if (ended) {
		pthread_join(log->thread, NULL);
		return true;
	}
	log_error("event log %s: the disk hangs: its last %zu bytes are lost", log->path,
	          atomic_load(&log->unwritten_bytes));
	pthread_detach(log->thread);
	return false;
}

void event_log_free(struct event_log *log)
{
	if (!log)
		return;
	if (log->core) {
		core_listen(log->core, NULL, NULL);
		put_check(log);
		if (!log->ended)
			end(log, TRACE_END_STOPPED);
	}
	if (log->thread_started && !stop_thread(log))
		return;
	closep(&log->fd);
	free(log->written);
	free(log->filled);
	free(log->path);
	free(log);
}
