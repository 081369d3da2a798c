/* SPDX-License-Identifier: MIT */
/*
 * Is a GPU fit for work? One state per GPU, computed from what the driver reports.
 *
 * Readings, Xid errors and the outcome of resets come in with the time; out come a
 * state, the reasons for it in words that an operator can act on, and whether the GPU
 * has to be drained and reset. Every reason has one row in a table: how bad it is and
 * what ends it (the condition going away for a while, an hour without a repetition, or
 * a reset). The state is that of the worst reason.
 *
 * A GPU about which nothing is known any more keeps its work, unless it was already
 * known to need a drain: a driver that hangs after a fatal error must not hide it.
 */
#ifndef CORE_HEALTH_H
#define CORE_HEALTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/util.h"

struct health;

enum {
	HEALTH_TEXT_BYTES = 160,
	HEALTH_XID_COUNT = 19,
	HEALTH_OTHER_XIDS = 16, /* numbers outside the table that are counted one by one */

	HEALTH_RETURN_S = 3,       /* a lost GPU must answer this long to count as back */
	HEALTH_SETTLE_S = 5,       /* what comes and goes must have gone this long */
	HEALTH_REPORT_S = 3600,    /* a single event is a reason for this long */
	HEALTH_RESET_APART_S = 30, /* resets closer together are one */
	HEALTH_RESET_TRUST_S = 900 /* needing a reset so soon after the last try: it was in vain */
};

/* From good to bad. */
enum health_state {
	HEALTH_OK,
	HEALTH_DEGRADED, /* works; somebody should look */
	HEALTH_UNKNOWN,  /* nothing is known; it may work */
	HEALTH_DRAINING, /* must not get work until it is reset or replaced */
	HEALTH_FAILED,   /* cannot work, and a reset by the mediator has not helped or cannot */
	HEALTH_STATE_COUNT,
};

/* What a reading holds; the names are in health_value_names. */
enum health_value {
	HEALTH_TEMPERATURE_C,
	HEALTH_SLOWDOWN_C,           /* where the hardware starts to slow down */
	HEALTH_MARGIN_C,             /* degrees left until it does; newer GPUs */
	HEALTH_GPU_BUSY_PERCENT,     /* of the time, some kernel ran */
	HEALTH_MEMORY_BUSY_PERCENT,  /* of the time, the memory controller worked */
	HEALTH_MEMORY_USED_BYTES,    /* without the driver's own where NVML tells them apart */
	HEALTH_MEMORY_TOTAL_BYTES,   /* physical */
	HEALTH_POWER_MW,             /* milliwatts */
	HEALTH_ECC_CORRECTED,        /* since the driver loaded or the GPU was reset */
	HEALTH_ECC_UNCORRECTED,      /* likewise */
	HEALTH_ECC_CORRECTED_LIFE,   /* since the GPU was made */
	HEALTH_ECC_UNCORRECTED_LIFE, /* likewise */
	HEALTH_CLOCK_REASONS,        /* bits of enum health_clock_reason and others */
	HEALTH_ROWS_CORRECTED,       /* rows remapped for corrected errors */
	HEALTH_ROWS_UNCORRECTED,     /* for uncorrected ones */
	HEALTH_ROWS_PENDING,         /* 1: a remap takes effect with the next reset */
	HEALTH_ROWS_FAILED,          /* 1: a remap has failed */
	HEALTH_PAGES_CORRECTED,      /* pages retired for corrected errors; older GPUs */
	HEALTH_PAGES_UNCORRECTED,    /* for an uncorrected one each */
	HEALTH_PAGES_PENDING,        /* 1: pages are retired with the next reset */
	HEALTH_RECOVERY_ACTION,      /* enum health_recovery */
	HEALTH_VALUE_COUNT,
};

/* Keys for JSON: "temperature_celsius" and so on, units in the name. */
extern const char *const health_value_names[HEALTH_VALUE_COUNT];

/* Why the clocks are low, as NVML numbers it; only what tells of trouble. */
enum health_clock_reason {
	HEALTH_CLOCKS_HARDWARE = 0x08, /* set with each of the next two as well */
	HEALTH_CLOCKS_THERMAL = 0x40,
	HEALTH_CLOCKS_POWER_BRAKE = 0x80,
};

/* What the driver wants to have done, as NVML numbers it. */
enum health_recovery {
	HEALTH_RECOVERY_NONE,
	HEALTH_RECOVERY_RESET,
	HEALTH_RECOVERY_REBOOT,
	HEALTH_RECOVERY_DRAIN_PEERS,
	HEALTH_RECOVERY_DRAIN_AND_RESET,
};

enum health_contact {
	HEALTH_ANSWERS,        /* at least one value could be read */
	HEALTH_LOST,           /* off the bus */
	HEALTH_RESET_REQUIRED, /* the driver refuses until it is reset */
	HEALTH_UNREACHABLE,    /* any other error; see `error` */
};

/* A GPU at one moment. */
struct health_reading {
	enum health_contact contact;
	uint32_t valid; /* bit v: values[v] is known */
	int64_t values[HEALTH_VALUE_COUNT];
	char error[HEALTH_TEXT_BYTES]; /* unless HEALTH_ANSWERS */
};

/* False when @value is not known; then *@out is unchanged. */
bool health_reading_get(const struct health_reading *reading, enum health_value value,
                        int64_t *out);
void health_reading_put(struct health_reading *reading, enum health_value value, int64_t is);

/* What an Xid says about the GPU. */
enum health_xid_class {
	HEALTH_XID_JOB,       /* one job's own doing: not held against the GPU */
	HEALTH_XID_NOTED,     /* not in the table: counted only */
	HEALTH_XID_WARNING,   /* memory wears: degraded for HEALTH_REPORT_S */
	HEALTH_XID_CONTAINED, /* one job paid for it: degraded for HEALTH_REPORT_S */
	HEALTH_XID_RECOVERY,  /* the driver announces what it wants to have done */
	HEALTH_XID_RESET,     /* drain and reset */
};

struct health_xid {
	uint32_t number;
	enum health_xid_class class;
	const char *text;
};

/* All that are known, by number, ended by number 0. */
extern const struct health_xid health_xids[HEALTH_XID_COUNT + 1];

/* Never NULL: unknown numbers share one row of class NOTED. */
const struct health_xid *health_xid_find(uint64_t number);

struct health_reason {
	const char *code; /* stable, for programs: "row_remap_pending" */
	enum health_state level;
	bool drains;
	int64_t since_ns;
	char message[HEALTH_TEXT_BYTES];
	const char *remedy;
};

struct health_news {
	const struct health_reason *reason;
	bool began; /* else it ended */
};

/* Counted since health_new(); nothing ever falls. */
struct health_counters {
	uint64_t ecc_corrected;
	uint64_t ecc_uncorrected;
	uint64_t resets; /* real ones: by the mediator, and those of others that were noticed */
};

/* Unknown until the first reading. Returns 0 or -ENOMEM; the caller owns *@out. */
int health_new(struct health **out, int64_t now_ns);
void health_free(struct health *health);
DEFINE_CLEANUP(health)

/* ---- Events ------------------------------------------------------------------------ */

void health_reading_came(struct health *health, int64_t now_ns,
                         const struct health_reading *reading);

/* Readings have stopped, for the reason @why; HEALTH_SETTLE_S of readings end that. */
void health_readings_stopped(struct health *health, int64_t now_ns, const char *why);

/* They pause on purpose: what is known of the GPU holds until the next one, which ends that. */
void health_readings_paused(struct health *health, int64_t now_ns, const char *why);

void health_xid_came(struct health *health, int64_t now_ns, uint64_t number);

/* A worker there has failed to start again and again; @who is its VM. */
void health_starts_fail(struct health *health, int64_t now_ns, const char *who);

/* A worker has started there. True if that is news. */
bool health_started(struct health *health);

/* It did not answer at the start: nothing can run there. */
void health_no_context(struct health *health, int64_t now_ns);

/* Why a GPU that needed a reset may work again. */
enum health_mend {
	HEALTH_MEND_RESET, /* it was reset, and verified to work: every reason ends */
	/* It was not, but a fresh context works: an Xid's reason ends, or that there was none. */
	HEALTH_MEND_FRESH,
	HEALTH_MEND_WORD, /* an operator vouches for it: every reason ends */
};

/*
 * What is still wrong comes back with the next readings. Where the driver itself says that
 * it needs a reset, a fresh context was in vain.
 */
void health_mended(struct health *health, int64_t now_ns, enum health_mend how);

/* It could not be reset, or does not work after that, because of @why. */
void health_reset_failed(struct health *health, int64_t now_ns, const char *why);

/*
 * The reason @code, which held before a restart, holds again, since @since_ns. False when
 * it is none that outlives one: only those that drain the GPU do.
 */
bool health_restore(struct health *health, int64_t now_ns, const char *code, int64_t since_ns,
                    const char *message);

/* ---- What comes out ---------------------------------------------------------------- */

enum health_state health_state(const struct health *health);

/* "ok", "degraded", "unknown", "draining", "failed". */
const char *health_state_name(enum health_state state);

/* The GPU must not get work. */
bool health_needs_drain(const struct health *health);

/* And a reset is worth trying; false after one that failed or did not help. */
bool health_needs_reset(const struct health *health);

/* The active reasons, worst first: NULL gives the first, NULL comes after the last. */
const struct health_reason *health_next_reason(const struct health *health,
                                               const struct health_reason *after);

/*
 * Tells once that a reason began or ended; false when there is nothing to tell. The
 * reason is valid until the next event.
 */
bool health_next_news(struct health *health, struct health_news *out);

void health_counters(const struct health *health, struct health_counters *out);

/*
 * The @index-th Xid number and how often it came: first the table's, also those that
 * never came, then others. A number of 0 stands for all that found no place. False at
 * the end.
 */
bool health_xid_count(const struct health *health, size_t index, uint64_t *number, uint64_t *count);

#endif
