# SPDX-License-Identifier: MIT
"""Measures what the mediator costs, and prints one table. tools/bench is the command.

Round trips of empty jobs, side by side in one run: through a bare relay of the same
shape (tests/bench/relay.c) and through mediator and worker, from the same load
generator, and, where there is a GPU, a launch without us. The two ways are measured in
turns, several rounds each, so that whatever else the machine does falls on both; the
table shows the median over the rounds.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

import host

VM_COUNTS = (1, 8, 64)
RATIO_AIM = 1.5
MEDIATOR_AIM_MIB = 16
DECISION_AIM_NS = 5000  # with the most VMs that are measured
SIMULATED_AIM = 1e6     # jobs a second
EXIT_NO_GPU = 77


class Relay:
    """bench-relay for a number of VMs, with its sockets in a directory; cpu: bind workers."""

    def __init__(self, programs, directory, vms, cpu):
        self._command = [str(programs / "bench-relay"), str(directory), str(vms)]
        if cpu is not None:
            self._command.append(str(cpu))
        self._process = None
        self.sockets = [directory / f"{index}.sock" for index in range(vms)]
        directory.mkdir()

    def __enter__(self):
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE)
        if self._process.stdout.readline() != b"ready\n":
            raise host.HostError("bench-relay did not start")
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait()
        self._process.stdout.close()


def progress(text):
    """One line that the next one replaces, for a person who waits."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def load(programs, sockets, seconds, *options):
    done = subprocess.run([str(programs / "bench-load"), *options, "--seconds", str(seconds),
                           *map(str, sockets)], capture_output=True, text=True)
    if done.returncode:
        raise host.HostError(f"bench-load ended with {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def smallest_jobs(programs, socket, seconds, rounds):
    """Jobs of one addition: what the GPU's part costs on top of an empty job."""
    progress("jobs of one addition")
    return median_of([load(programs, [socket], seconds, "--add") for _ in range(rounds)])


def native(programs):
    done = subprocess.run([str(programs / "bench-native")], capture_output=True, text=True)
    if done.returncode == EXIT_NO_GPU:
        return None
    if done.returncode:
        raise host.HostError(f"bench-native ended with {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def scheduler(programs):
    """What a decision costs, and how fast scenarios are played."""
    done = subprocess.run([str(programs / "vgpu-sim"), "--pick-cost", "--json"],
                          capture_output=True, text=True)
    if done.returncode:
        raise host.HostError(f"vgpu-sim ended with {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def workers_cpu(programs, mediator, socket):
    """The one processor that workers are bound to (the cpu backend's device), or None."""
    load(programs, [socket], 1)
    allowed = os.sched_getaffinity(mediator.workers()[0])
    return min(allowed) if len(allowed) == 1 else None


def median_of(rounds):
    return {key: statistics.median(one[key] for one in rounds)
            for key in ("per_second", "p50_us", "p99_us")}


def round_trips(programs, relay, vm_sockets, seconds, rounds):
    """For each number of VMs, the medians of relay and vgpu and their ratios."""
    results = []
    for vms in VM_COUNTS:
        measured = {"relay": [], "vgpu": []}
        for number in range(rounds):
            for way, sockets in (("relay", relay.sockets), ("vgpu", vm_sockets)):
                progress(f"{vms} VMs, {way}, round {number + 1} of {rounds}")
                measured[way].append(load(programs, sockets[:vms], seconds))
        result = {"vms": vms, **{way: median_of(list_) for way, list_ in measured.items()}}
        for percentile in ("p50", "p99"):
            key = f"{percentile}_us"
            result[f"ratio_{percentile}"] = result["vgpu"][key] / result["relay"][key]
        results.append(result)
    progress("")
    return results


def idle_memory(programs, mediator, vm_sockets):
    """Memory while all VMs are connected, have a worker each and do nothing."""
    holder = subprocess.Popen([str(programs / "bench-load"), "--hold", *map(str, vm_sockets)],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        if not holder.stdout.readline():
            raise host.HostError(f"the VMs cannot be connected:\n{mediator.log_tail()}")
        rss, pss = host.memory_kib(mediator.pid)
        workers = [host.memory_kib(pid) for pid in mediator.workers()]
    finally:
        holder.stdin.close()
        holder.stdout.close()
        holder.wait()
    return {"vms": len(vm_sockets), "workers": len(workers),
            "mediator_rss_kib": rss, "mediator_pss_kib": pss,
            "worker_rss_kib": statistics.median(rss for rss, _ in workers),
            "worker_pss_kib": statistics.median(pss for _, pss in workers)}


def measure(arguments):
    programs = arguments.programs
    uuids = [host.vm_uuid(number) for number in range(1, max(VM_COUNTS) + 1)]
    with host.Mediator(programs, arguments.backend,
                       settings=[f"max_workers={max(VM_COUNTS)}"]) as mediator:
        progress(f"registering {len(uuids)} VMs")
        mediator.register(uuids, "bench")
        status = mediator.admin_json("status")
        sockets = [mediator.socket_of(uuid) for uuid in uuids]
        cpu = workers_cpu(programs, mediator, sockets[0])
        with Relay(programs, mediator.directory / "relay", max(VM_COUNTS), cpu) as relay:
            trips = round_trips(programs, relay, sockets, arguments.seconds, arguments.rounds)
        smallest = smallest_jobs(programs, sockets[0], arguments.seconds, arguments.rounds)
        memory = idle_memory(programs, mediator, sockets)
    progress("decisions of the scheduler")
    decisions = scheduler(programs)
    progress("native launches")
    result = {"machine": host.describe_machine(), "backend": status["mediator"]["backend"],
              "device": status["gpus"][0]["name"], "seconds": arguments.seconds,
              "rounds": arguments.rounds, "transport": "socket", "round_trips": trips,
              "smallest": smallest, "memory": memory, "scheduler": decisions,
              "native": native(programs)}
    progress("")
    return result


def print_result(result):
    print(f"Machine: {result['machine']}")
    print(f"Backend: {result['backend']} ({result['device']}); transport: VM sockets, no guest")
    print(f"Empty jobs, each VM with one under way; median of {result['rounds']} rounds of "
          f"{result['seconds']} s each\n")
    print("            relay                       vgpu                        vgpu / relay")
    print(" VMs   p50 us   p99 us   jobs/s     p50 us   p99 us   jobs/s      p50    p99")
    for row in result["round_trips"]:
        relay, vgpu = row["relay"], row["vgpu"]
        print(f"{row['vms']:4d} {relay['p50_us']:8.1f} {relay['p99_us']:8.1f} "
              f"{relay['per_second']:8.0f}   {vgpu['p50_us']:8.1f} {vgpu['p99_us']:8.1f} "
              f"{vgpu['per_second']:8.0f}     {row['ratio_p50']:4.2f}   {row['ratio_p99']:4.2f}")
    smallest = result["smallest"]
    print("\nAn empty job needs no GPU. One addition on it, one VM: "
          f"p50 {smallest['p50_us']:.1f} us, p99 {smallest['p99_us']:.1f} us")
    if result["native"]:
        for way, figures in result["native"].items():
            print(f"Native launch and wait ({way}): p50 {figures['p50_us']:.1f} us, "
                  f"p99 {figures['p99_us']:.1f} us")
    else:
        print("Native launch: skipped, no GPU answers")
    memory = result["memory"]
    print(f"Memory with {memory['vms']} idle VMs and {memory['workers']} workers: "
          f"mediator RSS {memory['mediator_rss_kib'] / 1024:.1f} MiB "
          f"(PSS {memory['mediator_pss_kib'] / 1024:.1f}), "
          f"each worker RSS {memory['worker_rss_kib'] / 1024:.1f} MiB "
          f"(PSS {memory['worker_pss_kib'] / 1024:.1f})")

    decisions = "; ".join(f"{row['vms']} VMs {row['ns'] / 1000:.2f} us (at worst "
                          f"{row['worst_ns'] / 1000:.2f})" for row in
                          result["scheduler"]["decisions"])
    print(f"One decision of the scheduler: {decisions}")
    jobs = result["scheduler"]["simulated_jobs_per_s"]
    print(f"Simulator: {jobs / 1e6:.2f} million jobs a second")


def verdict(result):
    """Says of each aim whether it is met."""
    mib = result["memory"]["mediator_rss_kib"] / 1024
    missed = [f"{row['vms']} VM{'s' * (row['vms'] > 1)}: {key} {row[f'ratio_{key}']:.2f}"
              for row in result["round_trips"] for key in ("p50", "p99")
              if row[f"ratio_{key}"] > RATIO_AIM]
    print(f"\nAim, at most {RATIO_AIM} x the relay: "
          + (f"missed with {', '.join(missed)}" if missed else "met in every row"))
    print(f"Aim, mediator under {MEDIATOR_AIM_MIB} MiB: "
          f"{'met' if mib < MEDIATOR_AIM_MIB else 'missed'} ({mib:.1f})")
    most = result["scheduler"]["decisions"][-1]
    print(f"Aim, a decision under {DECISION_AIM_NS / 1000:g} us with {most['vms']} VMs: "
          f"{'met' if most['ns'] < DECISION_AIM_NS else 'missed'} ({most['ns'] / 1000:.2f})")
    jobs = result["scheduler"]["simulated_jobs_per_s"]
    print(f"Aim, {SIMULATED_AIM / 1e6:g} million simulated jobs a second: "
          f"{'met' if jobs >= SIMULATED_AIM else 'missed'} ({jobs / 1e6:.2f})")


def parse_arguments():
    parser = argparse.ArgumentParser(prog="bench", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=pathlib.Path, required=True,
                        help="directory of the programs")
    parser.add_argument("--backend", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--seconds", type=int, default=2, help="per measurement (default 2)")
    parser.add_argument("--rounds", type=int, default=5, help="per way and number (default 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    host.terminate_on_signals()
    try:
        result = measure(arguments)
    except host.HostError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit("\nbench: interrupted")
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        print_result(result)
        verdict(result)


if __name__ == "__main__":
    main()
