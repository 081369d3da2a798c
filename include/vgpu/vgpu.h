/* SPDX-License-Identifier: MIT */
/*
 * libvgpu: how a program in a guest uses its virtual GPU.
 *
 * A handle (struct vgpu) speaks to one device, through the registers of its BAR0, or to
 * a mediator's socket as a device would; everything else is the same for both. A request
 * is an opcode of vgpu/protocol.h with parameters and data; its answer is a response.
 *
 * The usual way is vgpu_call(): submit, wait, and retry while the VM is over its limits.
 * A program that wants several requests under way uses vgpu_submit() with vgpu_wait() or
 * vgpu_wait_any(). A device takes one request at a time, a socket up to
 * VGPU_OUTSTANDING_MAX.
 *
 * Errors. Every function that returns int returns 0, or a negative errno when the
 * system refused something, or a positive value: 1..0xFF is an enum vgpu_code that the
 * device or the mediator sent, above that an enum vgpu_error of this library.
 * vgpu_strerror() has words for all of them.
 *
 * Threads. A handle may be used by any thread, but by one at a time: the caller locks.
 * Different handles are independent. Several handles and processes may share a device:
 * it is locked (flock on resource0) from submission to answer, so that their requests
 * take turns. The library starts no thread, installs no signal handler and needs libc only.
 */
#ifndef VGPU_VGPU_H
#define VGPU_VGPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vgpu/protocol.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What no device or mediator said: conditions found in the guest. */
enum vgpu_error {
	VGPU_E_TIMED_OUT = 0x100, /* no answer in time; the request may still run */
	VGPU_E_BUSY,              /* no place for one more request at the moment */
	VGPU_E_CLOSED,            /* connection ended or device reset; the job may have run */
	VGPU_E_PROTOCOL,          /* what was received makes no sense */
	VGPU_E_NO_DEVICE,         /* no such device, or none at all */
	VGPU_E_NO_REQUEST,        /* nothing outstanding has this id */
};

#define VGPU_OUTSTANDING_MAX 1024 /* requests under way on one handle */
#define VGPU_RETRIES_MAX     5
#define VGPU_TIMEOUT_US      INT64_C(60000000) /* of a new handle */
#define VGPU_WAIT_FOREVER    INT64_C(-1)
#define VGPU_DATA_MAX        (VGPU_MESSAGE_BYTES - VGPU_HEADER_BYTES) /* bytes */
#define VGPU_WORDS_MAX       (VGPU_DATA_MAX / 4)                      /* parameters or results */
#define VGPU_NAME_BYTES      128 /* a PCI address or a socket path */
#define VGPU_WHY_BYTES       512 /* enough for every text from an open */

struct vgpu;

/* A request. Parameters and data together are at most VGPU_DATA_MAX bytes. */
struct vgpu_request {
	uint32_t opcode; /* enum vgpu_opcode */
	uint32_t flags;
	const uint32_t *params; /* may be NULL when param_count is 0 */
	uint32_t param_count;
	const void *data; /* may be NULL when data_bytes is 0 */
	uint32_t data_bytes;
};

/* An answer, whole and owned by whoever declared it: it points to nothing. */
struct vgpu_response {
	uint32_t code;           /* enum vgpu_code; 0 = done */
	uint32_t exec_time_us;   /* as the worker measured; 0 if not reported */
	uint32_t reason;         /* enum vgpu_busy_reason with VGPU_CODE_RATE_LIMITED, or 0 */
	uint32_t retry_after_us; /* with VGPU_CODE_RATE_LIMITED: not worth a try earlier */
	uint32_t detail;         /* with VGPU_CODE_CUDA: CUresult, or 0 if not reported */
	uint32_t result_count;
	uint32_t results[VGPU_WORDS_MAX];
	uint32_t data_bytes;
	uint8_t data[VGPU_DATA_MAX];
};

/* What vgpu_get_info() tells without asking the mediator. */
struct vgpu_info {
	bool is_device;             /* else a socket */
	char name[VGPU_NAME_BYTES]; /* PCI address "0000:00:05.0", or the socket's path */
	uint32_t link;              /* VGPU_LINK_*; 0 on a device without extended registers */
	uint32_t outstanding_max;   /* requests that may be under way now */
	/* From here on 0 unless is_device. */
	uint32_t status;   /* enum vgpu_status */
	uint32_t pool_id;  /* ASCII letter */
	uint32_t priority; /* enum vgpu_priority */
	uint32_t vm_id;
	uint32_t protocol_version; /* major << 16 | minor */
	uint32_t capabilities;     /* VGPU_CAP_* */
	/* From here on 0 without VGPU_CAP_EXTENDED_REGISTERS. */
	uint32_t channels;
	uint32_t window_kib;
	uint32_t mmio_reads; /* accesses to the device since its reset */
	uint32_t mmio_writes;
};

/* What a handle has seen since it was opened. */
struct vgpu_stats {
	uint64_t submitted;     /* requests handed to the device, retries included */
	uint64_t done;          /* answers with code 0 */
	uint64_t failed;        /* answers with a code other than 0 and not counted below */
	uint64_t rate_limited;  /* answers with VGPU_CODE_RATE_LIMITED */
	uint64_t quarantined;   /* answers with VGPU_CODE_QUARANTINED */
	uint64_t retries;       /* delays that the retry rule granted */
	uint64_t retry_wait_us; /* their sum */
	uint64_t timeouts;      /* vgpu_call()s that ended with VGPU_E_TIMED_OUT */
	uint64_t dropped;       /* answers that nobody waited for any more, or never asked for */
};

struct vgpu_device_name {
	char bdf[16]; /* "0000:00:05.0" */
};

/*
 * Lists the vgpu devices of this guest in the order of their PCI addresses: writes at
 * most @capacity names and sets *@count to how many there are, which may be more.
 * Finding none is no error. Returns 0, or a negative errno when sysfs cannot be read.
 */
int vgpu_find_devices(struct vgpu_device_name *names, size_t capacity, size_t *count);

/*
 * Opens the device at PCI address @bdf ("0000:00:05.0", or "00:05.0" in domain 0), or
 * the first one found when @bdf is NULL. Switches the device's memory space on if it is
 * off, which needs root, as mapping resource0 does.
 *
 * Returns 0 and the handle in *@out, which the caller gives to vgpu_close();
 * VGPU_E_NO_DEVICE, VGPU_E_PROTOCOL for a device of another major version, or a
 * negative errno. @why may be NULL, else has @why_bytes bytes and gets a text
 * that names the value and the remedy when the result is not 0.
 */
int vgpu_open_device(struct vgpu **out, const char *bdf, char *why, size_t why_bytes);

/*
 * Opens the mediator's socket at @path and announces itself with HELLO; whether the
 * mediator knows HELLO is learned later and changes nothing for the caller. Results as
 * of vgpu_open_device(). A handle whose connection has ended stays so: every later call
 * returns VGPU_E_CLOSED, and the caller opens a new one.
 */
int vgpu_open_socket(struct vgpu **out, const char *path, char *why, size_t why_bytes);

/*
 * Ends the handle; NULL is fine. Requests that are still under way on a device run to
 * their end there, those on a socket are given up by the mediator.
 */
void vgpu_close(struct vgpu *vgpu);

/*
 * How long a vgpu_call() may take with all its retries, in us: 1 or more, or
 * VGPU_WAIT_FOREVER. Returns 0 or -EINVAL.
 */
int vgpu_set_timeout(struct vgpu *vgpu, int64_t timeout_us);

/* How often a refused request is tried again: 0 (never) to VGPU_RETRIES_MAX, which a new
 * handle has. Returns 0 or -EINVAL. */
int vgpu_set_retries(struct vgpu *vgpu, unsigned int retries);

/*
 * Submits @request, waits for its answer and retries while it is VGPU_CODE_RATE_LIMITED:
 * before retry n it sleeps max(retry_after_us, uniform(d/2, d)) with d = 0.2, 0.4, 1,
 * 2.5, 5 s. It returns the refusal at once when the sleep would outlast the handle's
 * timeout. A quarantine, and any other code, is never retried.
 *
 * @out is set when the result is 0 or an enum vgpu_code. VGPU_E_TIMED_OUT: the answer, if
 * it comes, is dropped. On a device that request goes on and keeps the device BUSY:
 * later submissions, of every process, wait for its end within their own time and
 * else give VGPU_E_BUSY. -EMSGSIZE: parameters and data do not fit.
 */
int vgpu_call(struct vgpu *vgpu, const struct vgpu_request *request, struct vgpu_response *out);

/*
 * Hands @request over without waiting for its answer and sets *@id. Waits for a place
 * only when there is none: on a device until the request before, from whichever
 * process, has ended, on a socket until fewer than vgpu_info.outstanding_max are under way;
 * at most @timeout_us (0: not at all, or VGPU_WAIT_FOREVER), then VGPU_E_BUSY: collect an
 * answer or come back later. Retries nothing. -EMSGSIZE as of vgpu_call().
 */
int vgpu_submit(struct vgpu *vgpu, const struct vgpu_request *request, int64_t timeout_us,
                uint32_t *id);

/*
 * Waits for the answer to request @id: at most @timeout_us (0: look once, or
 * VGPU_WAIT_FOREVER). The result is 0 or the answer's code, and the request is over;
 * VGPU_E_TIMED_OUT, and it may be waited for again; VGPU_E_NO_REQUEST; or what ended the
 * connection, and with it every request. Answers to other requests are kept.
 */
int vgpu_wait(struct vgpu *vgpu, uint32_t id, int64_t timeout_us, struct vgpu_response *out);

/* The same for whichever request is answered next. *@id says which, and is 0, which no
 * request has, when the result is not about a request. VGPU_E_NO_REQUEST when none is
 * outstanding. */
int vgpu_wait_any(struct vgpu *vgpu, int64_t timeout_us, uint32_t *id, struct vgpu_response *out);

/* Waits no longer for request @id: its answer will be dropped. Returns 0 or
 * VGPU_E_NO_REQUEST. On a socket its place is free again when the answer has come. */
int vgpu_abandon(struct vgpu *vgpu, uint32_t id);

/*
 * The retry rule for callers of vgpu_submit(): the delay in us before retry @attempt
 * (from 1) of a request that was refused with @retry_after_us, or -1 when it is not to
 * be tried again. Counts the retry.
 */
int64_t vgpu_retry_delay_us(struct vgpu *vgpu, unsigned int attempt, uint32_t retry_after_us);

/* Registers or connection state, as they are now. Returns 0 or VGPU_E_NO_DEVICE when the
 * device is gone. */
int vgpu_get_info(struct vgpu *vgpu, struct vgpu_info *out);

void vgpu_get_stats(const struct vgpu *vgpu, struct vgpu_stats *out);

/* A constant English text for any result of this library, never NULL. For a negative
 * errno it is strerror()'s, and lasts until the next call of that. */
const char *vgpu_strerror(int error);

#ifdef __cplusplus
}
#endif

#endif
