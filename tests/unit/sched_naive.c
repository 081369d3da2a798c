/* SPDX-License-Identifier: MIT */
/*
 * See sched_naive.h. Written from the rules, not from the scheduler: where both do
 * the same thing differently, that is the point.
 */
#include "sched_naive.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

__extension__ typedef __int128 wide;

#define US    ((wide)1000)
#define MS    ((wide)1000000)
#define S1    ((wide)1000000000)
#define NEVER ((wide)1 << 120)

struct sched_vm {
	bool exists, enabled, ready, open, waiting, woken, answered, in_ring;
	uint32_t id, priority, queued, in_flight, hit;
	void *owner;
	wide phi, next_phi;
	wide S, F, P, K, rem, boost;
	wide used, since_answer, charged, e, e_job, last_used, turns;
	wide ready_since, opened, wait_until, last_answer, entered;
	uint64_t open_order;
};

struct sched {
	struct sched_config c;
	int64_t (*head_since)(const void *owner);
	struct sched_vm vms[NAIVE_VMS];
	struct sched_vm *ring[NAIVE_VMS], *late[NAIVE_VMS];
	int ring_n, late_n;
	wide v, f_max, now, slice_from, idle, busy, look;
	uint64_t opens, switches;
	const struct sched_vm *last;
};

#define EACH(s, i) (struct sched_vm * (i) = (s)->vms; (i) < (s)->vms + NAIVE_VMS; (i)++)

static wide lesser(wide a, wide b)
{
	return a < b ? a : b;
}

static wide greater(wide a, wide b)
{
	return a > b ? a : b;
}

static wide reached(const struct sched_vm *i)
{
	return i->S + (256 * i->used + i->rem) / i->phi;
}

static wide kappa(const struct sched *s)
{
	wide k = NEVER;

	for
		EACH((struct sched *)(uintptr_t)s, i)
		{
			if (i->exists && i->ready)
				k = lesser(k, i->P);
			if (i->exists && i->open)
				k = lesser(k, greater(i->P, reached(i)));
		}
	return k;
}

static int count_open(struct sched *s)
{
	int n = 0;

	for
		EACH(s, i)
	n += i->exists && i->open;
	return n;
}

static bool anybody(struct sched *s)
{
	for
		EACH(s, i)
	if (i->exists && (i->open || i->ready))
		return true;
	return false;
}

static bool precedes(const struct sched_vm *a, const struct sched_vm *b)
{
	if (a->K != b->K)
		return a->K < b->K;
	if (a->priority != b->priority)
		return a->priority > b->priority;
	if (a->ready_since != b->ready_since)
		return a->ready_since < b->ready_since;
	return a->id < b->id;
}

static struct sched_vm *payer(struct sched *s)
{
	struct sched_vm *oldest = NULL;

	if (s->ring_n)
		return s->ring[0];
	for
		EACH(s, i)
	if (i->exists && i->open && (!oldest || i->open_order < oldest->open_order))
		oldest = i;
	return oldest;
}

static void take_from(struct sched_vm **list, int *n, int at)
{
	memmove(list + at, list + at + 1, sizeof(*list) * (size_t)(*n - at - 1));
	(*n)--;
}

static void join_late(struct sched *s)
{
	memcpy(s->ring + s->ring_n, s->late, sizeof(*s->late) * (size_t)s->late_n);
	s->ring_n += s->late_n;
	s->late_n = 0;
}

static void pay(struct sched *s, struct sched_vm *i, wide ns)
{
	if (!i) {
		s->idle += ns;
		return;
	}
	i->used += ns;
	i->since_answer += ns;
	i->charged += ns;
	s->busy += ns;
}

static void head_to_tail(struct sched *s)
{
	struct sched_vm *head = s->ring[0];

	take_from(s->ring, &s->ring_n, 0);
	s->ring[s->ring_n++] = head;
	join_late(s);
	s->slice_from = s->now;
}

static void clock_to(struct sched *s, wide now)
{
	while (s->now < now) {
		bool rivals = s->ring_n + s->late_n > 1;
		wide until = rivals ? lesser(now, s->slice_from + s->c.slice_ns) : now;

		until = greater(until, s->now);
		pay(s, payer(s), until - s->now);
		s->now = until;
		if (rivals && until >= s->slice_from + s->c.slice_ns)
			head_to_tail(s);
	}
}

static void enter(struct sched *s, struct sched_vm *i)
{
	i->entered = s->now;
	if (s->ring_n + s->late_n == 1) {
		wide alone = greater(s->c.slice_ns - s->c.handover_ns, s->c.slice_ns / 2 + 1);

		while (s->now - s->slice_from >= alone)
			s->slice_from += alone;
	}
	if (s->ring_n + s->late_n >= 2) {
		s->late[s->late_n++] = i;
	} else {
		if (s->ring_n == 0)
			s->slice_from = s->now;
		s->ring[s->ring_n++] = i;
	}
}

static void leave(struct sched *s, struct sched_vm *i)
{
	struct sched_vm *head = s->ring[0];
	bool next = s->ring_n > 1 && s->ring[1] == i;

	if (head == i) {
		take_from(s->ring, &s->ring_n, 0);
		join_late(s);
		s->slice_from = s->now;
	} else {
		wide x = lesser(s->c.handover_ns,
		                lesser(s->now - i->entered, s->now - s->slice_from));

		x = lesser(x, head->used);
		/* One ns less at a time would do; this is the same, by halving. */
		for (wide lo = 0, hi = x;;) {
			wide mid = (lo + hi + 1) / 2;
			wide keeps = head->S + (256 * (head->used - mid) + head->rem) / head->phi;
			bool fits = greater(head->P, keeps) >= s->v;

			if (lo == hi) {
				x = lo;
				break;
			}
			if (fits)
				lo = mid;
			else
				hi = mid - 1;
		}
		pay(s, head, -x);
		pay(s, i, x);
		for (int k = 0; k < s->ring_n; k++)
			if (s->ring[k] == i)
				take_from(s->ring, &s->ring_n, k);
		for (int k = 0; k < s->late_n; k++)
			if (s->late[k] == i)
				take_from(s->late, &s->late_n, k);
		if (next)
			head_to_tail(s);
	}
}

static wide wait_of(const struct sched *s, const struct sched_vm *i)
{
	return greater(s->c.anticipation_ns, lesser(i->e_job / 10, 500 * US));
}

static void set_ready(struct sched *s, struct sched_vm *i, bool woken)
{
	wide e, wait;

	if (!i->queued || !i->enabled || i->open || i->ready)
		return;
	i->ready = true;
	i->woken = woken;
	i->S = woken ? greater(s->v, i->F) : i->F;
	i->ready_since = s->now;
	i->P = greater(s->v, i->S + 256 * lesser(i->e, S1) / i->phi);
	wait = greater(0, lesser(s->now - s->head_since(i->owner), S1));
	i->boost = s->c.boost_percent * (500000 * lesser(i->queued, 32) / 32 + wait / 2000) / 100;
	e = lesser(i->e, 64 * MS);
	e -= e * i->boost / 1000000;
	i->K = i->S + 256 * e / i->phi;
}

static void change_phi(struct sched *s, struct sched_vm *i)
{
	wide *tags[] = {&i->F, &i->S, &i->P, &i->K};

	if (i->open || i->phi == i->next_phi)
		return;
	for (int k = 0; k < (i->ready ? 4 : 1); k++)
		*tags[k] = s->v + (*tags[k] - s->v) * i->phi / i->next_phi;
	i->phi = i->next_phi;
	i->rem = 0;
}

static void when_idle(struct sched *s)
{
	if (!anybody(s))
		s->v = greater(s->v, s->f_max);
}

static void end_turn(struct sched *s, struct sched_vm *i)
{
	i->F = reached(i);
	i->rem = (256 * i->used + i->rem) % i->phi;
	s->f_max = greater(s->f_max, i->F);
	i->last_used = i->used;
	i->e = i->turns++ ? i->e + (i->used - i->e) / 8 : i->used;
	i->open = i->waiting = false;
	change_phi(s, i);
	set_ready(s, i, false);
	when_idle(s);
}

static void start_turn(struct sched *s, struct sched_vm *i)
{
	s->v = greater(s->v, lesser(i->S, kappa(s)));
	i->ready = false;
	i->open = true;
	i->opened = s->now;
	i->open_order = ++s->opens;
	i->used = 0;
	s->switches += s->last != i;
	s->last = i;
}

static wide r_of(const struct sched *s, const struct sched_vm *i)
{
	wide expected = i->turns ? greater(i->e, i->last_used) : 64 * MS;
	wide r = lesser(expected + expected / 8, S1) + 2 * s->c.handover_ns;

	return i->woken ? r : greater(r, s->c.overlap_after_ns);
}

static bool passes_a(const struct sched *s, const struct sched_vm *i, wide k)
{
	return i->S - (i->woken ? 256 * (wide)s->c.wake_lead_ns / i->phi : 0) <= k;
}

/* (b), or (c) in its place. */
static bool passes_b(struct sched *s, const struct sched_vm *i)
{
	bool all = true;

	for
		EACH(s, j)
		{
			if (!j->exists || !j->open)
				continue;
			if (j->used > S1 && reached(j) >= i->S)
				return true;
			all = all && greater(j->used, (s->now - j->opened) / 2) >= r_of(s, i);
		}
	return all;
}

static wide b_can_hold(struct sched *s, const struct sched_vm *i)
{
	wide at = s->now + 1;

	for
		EACH(s, j)
	if (j->exists && j->open)
		at = greater(at, lesser(s->now + r_of(s, i) - j->used, j->opened + 2 * r_of(s, i)));
	return at;
}

/* (c), for a VM that starts at S. */
static wide c_can_hold(struct sched *s, wide S)
{
	wide soonest = NEVER;

	for
		EACH(s, j)
		{
			wide charge = ((S - j->S) * j->phi - j->rem) / 256 + 1;

			if (j->exists && j->open)
				soonest =
					lesser(soonest, s->now + greater(S1 + 1, charge) - j->used);
		}
	return greater(soonest, s->now + 200 * US);
}

static struct sched_vm *pick(struct sched *s)
{
	bool alone = count_open(s) == 0;
	wide k = kappa(s), soonest = NEVER;
	struct sched_vm *best = NULL;
	bool only_a = false;

	s->look = NEVER;
	if (count_open(s) >= s->c.overlap_max)
		return NULL;
	for
		EACH(s, i)
		{
			if (!i->exists || !i->ready)
				continue;
			if ((alone || (passes_a(s, i, k) && passes_b(s, i))) &&
			    (!best || precedes(i, best)))
				best = i;
			if (!passes_a(s, i, k) && passes_b(s, i))
				only_a = true;
		}
	if (best)
		return best;
	for
		EACH(s, i)
	if (i->exists && i->ready && (passes_a(s, i, k) || !only_a))
		soonest = lesser(soonest, b_can_hold(s, i));
	for
		EACH(s, i)
	if (i->exists && i->ready && !only_a)
		soonest = lesser(soonest, c_can_hold(s, i->S));
	s->look = only_a ? lesser(soonest, s->now + 200 * US) : soonest;
	return NULL;
}

static void *next(struct sched *s, int64_t now)
{
	struct sched_vm *first = NULL, *chosen = NULL;

	clock_to(s, now);
	for (;;) {
		for
			EACH(s, i)
		if (i->exists && i->open && i->waiting && s->now >= i->wait_until &&
		    (!first || i->open_order < first->open_order))
			first = i;
		if (!first)
			break;
		end_turn(s, first);
		first = NULL;
	}
	for
		EACH(s, i)
		{
			uint32_t depth = i->e_job == 0 ? 1 : i->e_job < 250 * US ? 4 : 2;

			if (!i->exists || !i->open || !i->enabled || !i->queued ||
			    i->in_flight >= depth)
				continue;
			if (i->in_flight && i->used + i->in_flight * i->e_job >= s->c.quantum_ns)
				continue;
			if (!chosen || i->open_order < chosen->open_order)
				chosen = i;
		}
	if (!chosen) {
		chosen = pick(s);
		for
			EACH(s, i)
		if (!chosen && i->exists && i->waiting)
			s->look = lesser(s->look, i->wait_until);
		if (!chosen)
			return NULL;
		start_turn(s, chosen);
	}
	chosen->queued--;
	if (chosen->in_flight++ == 0)
		enter(s, chosen);
	return chosen->owner;
}

static void job_done(struct sched *s, int64_t now, struct sched_vm *i)
{
	bool waits, over;
	const struct sched_vm *first = NULL;

	clock_to(s, now);
	if (--i->in_flight == 0)
		leave(s, i);
	i->since_answer = greater(0, i->since_answer);
	i->e_job = i->e_job ? i->e_job + (i->since_answer - i->e_job) / 8 : i->since_answer;
	i->since_answer = 0;
	i->answered = true;
	i->last_answer = s->now;
	if (i->in_flight)
		return;
	over = i->used >= s->c.quantum_ns;
	waits = i->enabled && !i->queued && i->hit >= 2 && s->c.anticipation_ns;
	if (!over && i->queued && i->enabled)
		return;
	if (!over && waits) {
		i->waiting = true;
		i->wait_until = s->now + wait_of(s, i);
		return;
	}
	end_turn(s, i);
	for
		EACH(s, j)
	if (j->exists && j->ready && (!first || precedes(j, first)))
		first = j;
	if (!waits || !first || count_open(s) >= s->c.overlap_max ||
	    i->F + 256 * lesser(i->e, 64 * MS) / i->phi >= first->K ||
	    (count_open(s) && i->F > kappa(s)))
		return;
	i->S = i->F;
	i->P = greater(s->v, i->S + 256 * lesser(i->e, S1) / i->phi);
	i->woken = false;
	start_turn(s, i);
	i->waiting = true;
	i->wait_until = s->now + wait_of(s, i);
}

static void job_queued(struct sched *s, int64_t now, struct sched_vm *i)
{
	clock_to(s, now);
	if (!i->queued && !i->in_flight && i->answered) {
		if (s->now - i->last_answer <= wait_of(s, i))
			i->hit = i->hit < 3 ? i->hit + 1 : 3;
		else
			i->hit = i->hit ? i->hit - 1 : 0;
	}
	i->queued++;
	i->waiting = false;
	set_ready(s, i, true);
}

static void may_not_run(struct sched *s, struct sched_vm *i)
{
	i->ready = false;
	if (i->open && !i->in_flight)
		end_turn(s, i);
	when_idle(s);
}

static void jobs_dropped(struct sched *s, int64_t now, struct sched_vm *i, uint32_t count)
{
	clock_to(s, now);
	i->queued -= count;
	if (!i->queued && !i->waiting)
		may_not_run(s, i);
}

static void vm_enable(struct sched *s, int64_t now, struct sched_vm *i, bool enabled)
{
	clock_to(s, now);
	i->enabled = enabled;
	if (enabled)
		set_ready(s, i, true);
	else
		may_not_run(s, i);
}

static void vm_reaped(struct sched *s, int64_t now, struct sched_vm *i)
{
	clock_to(s, now);
	i->enabled = false;
	if (i->in_flight) {
		i->in_flight = 0;
		leave(s, i);
		i->since_answer = 0;
	}
	may_not_run(s, i);
}

static void vm_set_phi(struct sched *s, int64_t now, struct sched_vm *i, int32_t phi,
                       uint32_t priority)
{
	clock_to(s, now);
	i->priority = priority;
	i->next_phi = phi;
	change_phi(s, i);
}

static int vm_add(struct sched *s, int64_t now, struct sched_vm **out, uint32_t id, int32_t phi,
                  uint32_t priority, int64_t lag, void *owner)
{
	clock_to(s, now);
	for
		EACH(s, i)
		{
			if (i->exists)
				continue;
			*i = (struct sched_vm){
				.exists = true, .id = id, .phi = phi, .next_phi = phi};
			i->priority = priority;
			i->owner = owner;
			i->F = s->v + greater(0, lag);
			*out = i;
			return 0;
		}
	return -ENOMEM;
}

static int64_t vm_remove(struct sched *s, int64_t now, struct sched_vm *i)
{
	clock_to(s, now);
	i->enabled = false;
	may_not_run(s, i);
	i->exists = false;
	if (s->last == i)
		s->last = NULL;
	return (int64_t)greater(0, i->F - s->v);
}

static int create(struct sched **out, const struct sched_config *config,
                  int64_t (*head_since_ns)(const void *owner), int64_t now_ns)
{
	struct sched *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->c = *config;
	s->head_since = head_since_ns;
	s->now = now_ns;
	s->look = NEVER;
	*out = s;
	return 0;
}

static void destroy(struct sched *s)
{
	free(s);
}

static void configure(struct sched *s, int64_t now_ns, const struct sched_config *config)
{
	clock_to(s, now_ns);
	s->c = *config;
}

static int64_t deadline(const struct sched *s)
{
	return s->look >= NEVER ? SCHED_NEVER : (int64_t)s->look;
}

static int64_t charged_ns(struct sched *s, int64_t now_ns, const struct sched_vm *i)
{
	clock_to(s, now_ns);
	return (int64_t)i->charged;
}

static void vm_stats(const struct sched *s, const struct sched_vm *i, struct sched_vm_stats *out)
{
	*out = (struct sched_vm_stats){
		.charged_ns = (int64_t)i->charged,
		.turns = (int64_t)i->turns,
		.queued = i->queued,
		.in_flight = i->in_flight,
		.ready = i->ready,
		.open = i->open,
		.start_tag = (int64_t)i->S,
		.finish_tag = (int64_t)i->F,
		.key = (int64_t)i->K,
		.estimate_turn_ns = (int64_t)i->e,
		.estimate_job_ns = (int64_t)i->e_job,
		.boost_ppm = (int64_t)i->boost,
	};
}

static void stats(const struct sched *s, struct sched_stats *out)
{
	*out = (struct sched_stats){
		.busy_ns = (int64_t)s->busy,
		.idle_ns = (int64_t)s->idle,
		.turns = s->opens,
		.context_switches = s->switches,
		.virtual_time = (int64_t)s->v,
	};
	for
		EACH((struct sched *)(uintptr_t)s, i)
		{
			out->open += i->exists && i->open;
			out->ready += i->exists && i->ready;
		}
}

static const char *check(const struct sched *s)
{
	return s->v <= kappa(s) ? NULL : "virtual time is ahead of kappa";
}

const struct sched_policy sched_naive = {
	.name = "naive",
	.create = create,
	.destroy = destroy,
	.configure = configure,
	.vm_add = vm_add,
	.vm_remove = vm_remove,
	.vm_set_phi = vm_set_phi,
	.vm_enable = vm_enable,
	.job_queued = job_queued,
	.jobs_dropped = jobs_dropped,
	.job_done = job_done,
	.vm_reaped = vm_reaped,
	.next = next,
	.deadline = deadline,
	.charged_ns = charged_ns,
	.vm_stats = vm_stats,
	.stats = stats,
	.check = check,
};
