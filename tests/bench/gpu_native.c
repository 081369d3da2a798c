/* SPDX-License-Identifier: MIT */
/*
 * The same loads without a mediator: one plain process per VM, each with a context of its
 * own, submits its jobs straight to the device, and the driver (or MPS, if the
 * environment says so) shares it. What bench-gpu-load gets is compared with this.
 *
 * Jobs run through the worker's own backends, so that kernels, launches and the length
 * of a SPIN are the same. At most WORKER_QUEUE_JOBS are in a stream at once: more would
 * change nothing, the device always knows the next one.
 *
 * A process whose context a fault destroyed is replaced by a new one, as its user would
 * do; one with kill=MS is killed then. Records lie in memory that all processes share.
 * Prints the lines of bench-gpu-load. Exit status 77 when there is no device.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/util.h"
#include "gpu_record.h"
#include "vgpu/wire.h"
#include "worker/backend.h"

enum {
	EXIT_NO_GPU = 77,
	EXIT_LOST = 3, /* a fault destroyed the context */
	START_S = 60,
	LOOK_NS = 500 * 1000, /* how often the parent looks after its children */
	SPIN_NS = 2 * 1000 * 1000,
	SLEEP_NS = 50 * 1000,
	TIMER_SLACK_NS = 1000,
	CONTROL_BYTES = 4096,
};

/* What parent and children share, a page of its own. */
struct control {
	atomic_int started; /* children whose device is open */
	atomic_bool go;     /* the times below are set */
	int64_t end_ns, drained_ns;
};

_Static_assert(sizeof(struct control) <= CONTROL_BYTES, "control fits its page");

struct vm {
	struct pattern pattern;
	struct record *record; /* shared */
	struct actor *actor;   /* shared */
	pid_t pid;             /* -1: none */
	int64_t killed_ns;     /* 0: not killed */
};

struct native {
	const struct backend_ops *ops;
	int cpu; /* -1: any */
	double ramp_s, seconds, drain_s;
	uint64_t seed;
	struct control *control;
	struct vm *vms;
	int vm_count;
	int64_t window_ns;
};

/* ---- A child: one VM's process --------------------------------------------- */

struct child {
	struct vm *vm;
	struct backend *backend;
	struct job jobs[WORKER_QUEUE_JOBS]; /* a ring: count of them from first */
	struct actor_job asked[WORKER_QUEUE_JOBS];
	unsigned int first, count;
};

static void sleep_until(int64_t time_ns)
{
	const struct timespec until = {time_ns / NS_PER_SEC, time_ns % NS_PER_SEC};

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

static const struct operation *find_operation(uint32_t opcode)
{
	static const uint8_t no_length[4];
	const struct request_view request = {
		.opcode = opcode,
		.param_count = opcode == VGPU_OP_SPIN,
		.params = no_length,
	};
	const struct operation *operation = NULL;

	operation_find(&operation, &request, true);
	return operation;
}

/* Returns 0 or BACKEND_E_LOST. */
static int submit(struct child *child, int64_t now_ns)
{
	unsigned int slot = (child->first + child->count) % WORKER_QUEUE_JOBS;
	struct job *job = &child->jobs[slot];

	child->asked[slot] = actor_take(child->vm->actor, now_ns);
	*job = (struct job){
		.slot = slot,
		.operation = find_operation(child->asked[slot].opcode),
		.params = {child->asked[slot].us},
	};
	child->count++;
	return child->backend->ops->submit(child->backend, job);
}

/* Looks after the oldest job. Returns 0, BACKEND_E_RUNNING or BACKEND_E_LOST. */
static int finish(struct child *child)
{
	struct job *job = &child->jobs[child->first];
	int64_t now_ns;
	int r = job->ended ? 0 : child->backend->ops->poll(child->backend, job);

	if (r)
		return r;
	now_ns = clock_monotonic_ns();
	record_job(child->vm->record, &child->vm->pattern, &child->asked[child->first], job->code,
	           (uint32_t)(job->gpu_time_ns / NS_PER_US), now_ns);
	actor_answered(child->vm->actor, now_ns);
	child->first = (child->first + 1) % WORKER_QUEUE_JOBS;
	child->count--;
	return 0;
}

/* Until the end, and until the device has nothing more to do. Returns an exit status. */
static int work(struct child *child, const struct control *control)
{
	int64_t now_ns = clock_monotonic_ns(), progress_ns = now_ns, due_ns;
	int r = 0;

	while (now_ns < control->end_ns || (child->count && now_ns < control->drained_ns)) {
		due_ns = actor_due_ns(child->vm->actor, now_ns);
		while (due_ns <= now_ns && child->count < WORKER_QUEUE_JOBS && r == 0) {
			r = submit(child, now_ns);
			due_ns = actor_due_ns(child->vm->actor, now_ns);
		}
		if (r == 0 && child->count)
			r = finish(child);
		else if (r == 0)
			sleep_until(min_i64(due_ns, control->end_ns));
		if (r == BACKEND_E_LOST)
			return EXIT_LOST;
		now_ns = clock_monotonic_ns();
		if (r == 0)
			progress_ns = now_ns;
		else if (now_ns - progress_ns > SPIN_NS)
			sleep_until(now_ns + SLEEP_NS);
		else
			sched_yield();
		r = 0;
	}
	return 0;
}

static int child_run(const struct native *native, struct vm *vm)
{
	const struct backend_options options = {.test_ops = true};
	struct child child = {.vm = vm};
	struct backend_failure failure;
	cpu_set_t one;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS);
	CPU_ZERO(&one);
	CPU_SET((unsigned int)max_i64(native->cpu, 0), &one);
	if (native->cpu >= 0 && sched_setaffinity(0, sizeof(one), &one) < 0)
		return 1;
	if (native->ops->start(&child.backend, &options, &failure) < 0) {
		fprintf(stderr, "bench-gpu-native: %s\n", failure.text);
		return EXIT_NO_GPU;
	}
	atomic_fetch_add(&native->control->started, 1);
	while (!atomic_load(&native->control->go))
		sleep_until(clock_monotonic_ns() + LOOK_NS);
	return work(&child, native->control);
}

/* ---- The parent --------------------------------------------------------------- */

static int spawn(const struct native *native, struct vm *vm)
{
	fflush(stdout);
	vm->pid = fork();
	if (vm->pid == 0)
		_exit(child_run(native, vm));
	return vm->pid < 0 ? -errno : 0;
}

/* One after the other, so that each one measures the length of a SPIN on an idle device. */
static int start_all(struct native *native)
{
	int64_t give_up_ns = clock_monotonic_ns() + START_S * NS_PER_SEC;
	int status = 0, r;

	for (int i = 0; i < native->vm_count; i++) {
		r = spawn(native, &native->vms[i]);
		if (r < 0)
			return r;
		while (atomic_load(&native->control->started) <= i) {
			if (waitpid(native->vms[i].pid, &status, WNOHANG) > 0)
				return WIFEXITED(status) ? WEXITSTATUS(status) : -ECHILD;
			if (clock_monotonic_ns() > give_up_ns)
				return -ETIMEDOUT;
			sleep_until(clock_monotonic_ns() + LOOK_NS);
		}
	}
	return 0;
}

static void begin(struct native *native)
{
	int64_t now_ns = clock_monotonic_ns(), end_ns;

	native->window_ns = now_ns + llround(native->ramp_s * NS_PER_SEC);
	end_ns = native->window_ns + llround(native->seconds * NS_PER_SEC);
	for (int i = 0; i < native->vm_count; i++) {
		struct vm *vm = &native->vms[i];

		vm->record->window_ns = native->window_ns;
		vm->record->end_ns = end_ns;
		actor_init(vm->actor, &vm->pattern, native->seed + (uint64_t)i * 1000003, now_ns,
		           native->window_ns, end_ns);
	}
	native->control->end_ns = end_ns;
	native->control->drained_ns = end_ns + llround(native->drain_s * NS_PER_SEC);
	atomic_store(&native->control->go, true);
	printf("begun %" PRId64 "\n", native->window_ns);
	fflush(stdout);
}

static bool kill_if_due(const struct native *native, struct vm *vm, int64_t now_ns)
{
	int64_t due_ns = vm->pattern.kill_ms >= 0
	                         ? native->window_ns + vm->pattern.kill_ms * NS_PER_MS
	                         : native->control->drained_ns;

	if (vm->killed_ns || now_ns < due_ns)
		return false;
	vm->killed_ns = now_ns;
	return kill(vm->pid, SIGKILL) == 0;
}

/* What a process that died had under way has failed; how long its end took is told. */
static void fail_under_way(struct vm *vm, int64_t now_ns)
{
	const struct actor_job job = {.planned_ns = vm->killed_ns ? vm->killed_ns : now_ns};

	while (vm->actor->under_way) {
		record_job(vm->record, &vm->pattern, &job,
		           vm->killed_ns ? VGPU_CODE_TIMEOUT : VGPU_CODE_CUDA, 0, now_ns);
		actor_answered(vm->actor, now_ns);
	}
}

/* Returns true while the VM has a process. */
static bool look_after(const struct native *native, struct vm *vm, int64_t now_ns)
{
	int status = 0;

	if (vm->pid < 0)
		return false;
	kill_if_due(native, vm, now_ns);
	if (waitpid(vm->pid, &status, WNOHANG) == 0)
		return true;
	now_ns = clock_monotonic_ns();
	vm->pid = -1;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return false;
	fail_under_way(vm, now_ns);
	return !vm->killed_ns && now_ns < native->control->end_ns && spawn(native, vm) == 0;
}

static void wait_all(const struct native *native)
{
	bool any = true;

	while (any) {
		int64_t now_ns = clock_monotonic_ns();

		any = false;
		for (int i = 0; i < native->vm_count; i++)
			any |= look_after(native, &native->vms[i], now_ns);
		sleep_until(now_ns + LOOK_NS);
	}
}

static void kill_all(const struct native *native)
{
	for (int i = 0; i < native->vm_count; i++) {
		if (native->vms[i].pid > 0)
			kill(native->vms[i].pid, SIGKILL);
	}
}

static void print_result(const struct native *native)
{
	printf("{\"seconds\": %.6f, \"begun_ns\": %" PRId64
	       ", \"status_seconds\": 0, \"before\": null, \"after\": null, \"vms\": [",
	       native->seconds, native->window_ns);
	for (int i = 0; i < native->vm_count; i++) {
		if (i)
			fputs(", ", stdout);
		record_print(native->vms[i].record, native->vms[i].actor, stdout);
	}
	puts("]}");
}

/* ---- Start ---------------------------------------------------------------------- */

static const char usage[] =
	"usage: bench-gpu-native [--backend cpu|cuda] [--cpu N] [--ramp S] [--seconds S]\n"
	"                        [--drain S] [--seed N] VM...\n"
	"\n"
	"Runs the loads of bench-gpu-load without a mediator, a process for each VM.\n"
	"  --backend B  whose jobs (default cuda)\n"
	"  --cpu N      keep all processes on that processor\n";

static int parse_options(struct native *native, int argc, char **argv)
{
	static const struct option options[] = {
		{"backend", required_argument, NULL, 'b'},
		{"cpu", required_argument, NULL, 'c'},
		{"ramp", required_argument, NULL, 'r'},
		{"seconds", required_argument, NULL, 's'},
		{"drain", required_argument, NULL, 'd'},
		{"seed", required_argument, NULL, 'n'},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'b')
			native->ops = backend_find(optarg);
		else if (c == 'c')
			native->cpu = atoi(optarg);
		else if (c == 'r')
			native->ramp_s = atof(optarg);
		else if (c == 's')
			native->seconds = atof(optarg);
		else if (c == 'd')
			native->drain_s = atof(optarg);
		else if (c == 'n')
			native->seed = strtoull(optarg, NULL, 10);
		else
			return -EINVAL;
	}
	native->vm_count = argc - optind;
	if (!native->ops || native->vm_count < 1 || native->seconds <= 0 || native->ramp_s < 0)
		return -EINVAL;
	return 0;
}

static void *share(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

/* Memory that lives as long as this process, which does one thing. */
static int create_vms(struct native *native, char **texts)
{
	native->control = share(CONTROL_BYTES);
	native->vms = calloc((size_t)native->vm_count, sizeof(*native->vms));
	if (!native->control || !native->vms)
		return -ENOMEM;
	for (int i = 0; i < native->vm_count; i++) {
		struct vm *vm = &native->vms[i];

		vm->pid = -1;
		vm->record = share(sizeof(*vm->record));
		vm->actor = share(sizeof(*vm->actor));
		if (!vm->record || !vm->actor)
			return -ENOMEM;
		if (pattern_parse(&vm->pattern, texts[i]) < 0)
			return -EINVAL;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct native native = {
		.ops = &cuda_backend,
		.cpu = -1,
		.ramp_s = 0.5,
		.seconds = 5,
		.drain_s = 3,
		.seed = 1,
	};
	int r;

	if (parse_options(&native, argc, argv) < 0) {
		fputs(usage, stderr);
		return 2;
	}
	r = create_vms(&native, argv + optind);
	if (r == 0)
		r = start_all(&native);
	if (r == 0) {
		begin(&native);
		wait_all(&native);
		print_result(&native);
	} else {
		kill_all(&native);
		fprintf(stderr, "bench-gpu-native: cannot start: %s\n",
		        r < 0 ? strerror(-r) : "see above");
	}
	free(native.vms);
	return r == 0 ? 0 : r == EXIT_NO_GPU ? EXIT_NO_GPU : 1;
}
