/* SPDX-License-Identifier: MIT */
/*
 * Rare things that a search must have met to mean anything.
 */
#ifndef SIM_RARE_H
#define SIM_RARE_H

#include <stdint.h>

enum rare_path {
	/* the scheduler */
	RARE_BESIDE,      /* several turns open at once */
	RARE_CROWD,       /* more than three of them */
	RARE_WAIT,        /* a turn kept for a job that had not come */
	RARE_AHEAD,       /* several jobs of a VM in flight */
	RARE_KEPT_OUT,    /* a ready VM whose tag kept it out */
	RARE_REWEIGHTED,  /* a weight changed */
	RARE_MOVED,       /* a VM went to another GPU */
	RARE_LEFT,        /* a VM was removed */
	RARE_NEW_RULES,   /* the configuration changed */
	RARE_WITHOUT_GPU, /* a job that needs no GPU */
	/* refusals */
	RARE_RATE,      /* jobs per second */
	RARE_DEPTH,     /* queue depth */
	RARE_THROTTLED, /* GPU seconds */
	RARE_POOL_OFF,  /* the pool is disabled */
	RARE_MALFORMED,
	/* workers */
	RARE_NO_PLACE,     /* a VM with jobs, and max_workers are there */
	RARE_MADE_ROOM,    /* a worker was ended while its VM had jobs */
	RARE_START_FAILED, /* died before it was ready */
	RARE_FAILING,      /* again and again */
	RARE_KILLED,       /* was killed and not yet reaped */
	RARE_STUCK,        /* and not even that ended it */
	RARE_UNSTUCK,      /* but later it did */
	RARE_STALE,        /* an answer from the past, or twice */
	/* ends of jobs */
	RARE_FAULTED,           /* an exception on the GPU */
	RARE_TIMED_OUT,         /* over the limit */
	RARE_SHORT_LIMIT,       /* over the limit of a VM whose last job was */
	RARE_DIED,              /* the worker died by itself */
	RARE_CANCELLED_QUEUED,  /* by an operator, or the client is gone */
	RARE_CANCELLED_RUNNING, /* by an operator */
	/* quarantine */
	RARE_QUARANTINED,  /* too many points */
	RARE_HELD,         /* an answer was held until its fault was stored */
	RARE_STORE_FAILED, /* the registry could not write something */
	RARE_STORED_AGAIN, /* and was asked again */
	RARE_CLEARED,      /* by an operator */
	RARE_RECOVERED,    /* a job succeeded after a timeout */
	RARE_BLAMELESS,    /* a fault that may be the hardware's brought no points */
	RARE_FORGIVEN,     /* and so did one of shortly before */
	/* drains and restarts */
	RARE_DRAIN_REFUSED,       /* a job, since its GPU is drained */
	RARE_AWAY,                /* a VM works on another GPU instead */
	RARE_DRAINED,             /* nothing of the GPU was used any more */
	RARE_RESTARTED,           /* the mediator was killed */
	RARE_RESTART_LOST_JOBS,   /* with jobs unanswered */
	RARE_RESTART_QUARANTINED, /* with a VM in quarantine */
	RARE_RESTART_POINTS,      /* with points that count on */
	RARE_RESTART_SHORT_LIMIT, /* with a VM whose last job was over its limit */
	RARE_RESTART_DRAINING,    /* with a GPU being drained */
	RARE_COUNT,
};

extern const char *const rare_path_names[RARE_COUNT];

#endif
