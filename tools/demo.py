# SPDX-License-Identifier: MIT
"""Two guests share one GPU, before your eyes. tools/demo is the command.

A mediator of our own, two registered VMs, two guests under QEMU (TCG) with the device.
Each guest multiplies matrices for some seconds through its device and verifies every
product itself. Meanwhile the mediator's own counters are shown; then both views are
compared, and all must agree: jobs done, none failed, none wrong, same numbers on both
sides. At last one guest crashes its worker and hangs, and the other must not notice.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import sys
import time

import guest
import host

NAMES = ("red", "blue")
HANG_LIMIT_MS = 2000
EXIT_FAILED, EXIT_TIMED_OUT = 70, 124  # of vgpu-client
CLIENT_EXTRA_S = 60  # beyond the load itself: emulated guests are slow to start programs


class DemoError(Exception):
    """Something did not work as it must; the text says what."""


class Screen:
    """Steps with their time, and one line of progress that is replaced on a terminal."""

    LINE_EVERY_S = 5  # where it is no terminal

    def __init__(self):
        self._begun = time.monotonic()
        self._live = False
        self._next_line = 0

    def step(self, text):
        self._clear()
        print(f"[{time.monotonic() - self._begun:4.0f} s] {text}", flush=True)

    def progress(self, text):
        if sys.stdout.isatty():
            print(f"\r\033[K         {text}", end="", flush=True)
            self._live = True
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + self.LINE_EVERY_S
            self.step(text)

    def _clear(self):
        if self._live:
            print("\r\033[K", end="")
            self._live = False


def make_guest(arguments, mediator, index, uuid):
    directory = mediator.directory / f"guest-{NAMES[index]}"
    pool = "AB"[index]
    device = f"vgpu-stub,vm_id={index + 1},pool_id={pool},socket={mediator.socket_of(uuid)}"
    return guest.Guest(directory, arguments.kernel, arguments.initramfs, [device],
                       qemu=arguments.programs / "qemu-vgpu")


def boot(machine):
    machine.start()
    return json.loads(machine.check("vgpu-client --json info", CLIENT_EXTRA_S))


def compute(machine, n, seconds):
    """The load, inside the guest; returns what vgpu-client measured there."""
    status, output = machine.run(
        f"vgpu-client --json bench --op sgemm --n {n} --seconds {seconds} "
        "2>/tmp/errors; s=$?; cat /tmp/errors >&2; exit $s", seconds + CLIENT_EXTRA_S)
    start = output.find("{")
    if start < 0:
        raise DemoError(f"vgpu-client ended with {status} in the guest: {output.strip()}")
    return status, json.JSONDecoder().raw_decode(output[start:])[0]


def vm_states(mediator):
    return {vm["vm_uuid"]: vm for vm in mediator.admin_json("status")["vms"]}


def watch(screen, mediator, uuids, futures):
    """Shows the mediator's counters until both loads are over."""
    waiting = set(futures)
    while waiting:
        _, waiting = concurrent.futures.wait(waiting, timeout=0.5)
        states = vm_states(mediator)
        screen.progress("   ".join(f"{name}: {states[uuid]['jobs_done']:5d} products"
                                   for name, uuid in zip(NAMES, uuids)))


def print_table(uuids, states, loads):
    print("\n VM      products  failed  wrong   guest p50   guest p95   mediator p50   mediator p95")
    for name, uuid, (_, load) in zip(NAMES, uuids, loads):
        state, latency = states[uuid], load["latency_us"]
        print(f" {name:6s} {load['done']:9d} {load['failed']:7d} {load['wrong']:6d}"
              f" {latency['p50'] / 1000:8.1f} ms {latency['p95'] / 1000:8.1f} ms"
              f" {state['p50_us'] / 1000:11.1f} ms {state['p95_us'] / 1000:11.1f} ms")
    print()


def check(uuids, states, loads):
    """What must hold, as a list of complaints."""
    complaints = []
    for name, uuid, (status, load) in zip(NAMES, uuids, loads):
        state = states[uuid]
        if status or load["failed"] or load["wrong"]:
            complaints.append(f"{name}: vgpu-client ended with {status}, {load['failed']} failed, "
                              f"{load['wrong']} wrong")
        if not load["done"]:
            complaints.append(f"{name}: no product at all")
        # One job more: the question about the device, before the load.
        if state["jobs_done"] != load["done"] + 1 or state["jobs_failed"]:
            complaints.append(f"{name}: the mediator counts {state['jobs_done']} done and "
                              f"{state['jobs_failed']} failed, the guest {load['done']} + 1")
    return complaints


def make_trouble(screen, mediator, pool, uuids, guests, n):
    """What must hold of it, as a list of complaints."""
    mediator.admin("set-timeout", f"--vm-uuid={uuids[0]}", f"--timeout={HANG_LIMIT_MS}")
    other = pool.submit(compute, guests[1], n, HANG_LIMIT_MS // 1000 + 2)
    seen = [guests[0].run(f"vgpu-client {job}", CLIENT_EXTRA_S)[0]
            for job in ("fault", "hang", "add 100 200")]
    status, load = other.result()
    complaints = []
    if seen != [EXIT_FAILED, EXIT_TIMED_OUT, 0]:
        complaints.append(f"{NAMES[0]}: fault, hang and the next job ended with {seen}")
    if status or load["failed"] or load["wrong"] or not load["done"]:
        complaints.append(f"{NAMES[1]}: ended with {status}; {load['done']} done, "
                          f"{load['failed']} failed, {load['wrong']} wrong beside {NAMES[0]}")
    faults = vm_states(mediator)[uuids[0]]["faults"]
    screen.step(f"{NAMES[0]} was told of both, and computes again ({faults} faults on record); "
                f"{NAMES[1]} computed {load['done']} products meanwhile, {load['failed']} failed")
    return complaints


def demonstrate(arguments, screen):
    uuids = [host.vm_uuid(number) for number in range(1, len(NAMES) + 1)]
    with host.Mediator(arguments.programs, arguments.backend,
                       ["allow_test_ops=yes"]) as mediator, \
            concurrent.futures.ThreadPoolExecutor(len(NAMES)) as pool:
        for name, uuid, letter in zip(NAMES, uuids, "AB"):
            mediator.admin("register-vm", f"--vm-uuid={uuid}", f"--name={name}",
                           f"--pool={letter}")
        mediator.wait_for_sockets(uuids)
        status = mediator.admin_json("status")
        screen.step(f"mediator is up: backend {status['mediator']['backend']}, "
                    f"device {status['gpus'][0]['name']}; VMs {' and '.join(NAMES)} registered")
        guests = [make_guest(arguments, mediator, index, uuid)
                  for index, uuid in enumerate(uuids)]
        try:
            screen.step("booting two guests under QEMU (emulated, no KVM): about 15 s")
            infos = list(pool.map(boot, guests))
            for name, info in zip(NAMES, infos):
                screen.step(f"guest {name} sees {info['gpu']['name']} (backend "
                            f"{info['gpu']['backend']}) behind device {info['device']}")
            screen.step(f"each multiplies {arguments.n} x {arguments.n} matrices for "
                        f"{arguments.seconds} s and verifies every product")
            futures = [pool.submit(compute, machine, arguments.n, arguments.seconds)
                       for machine in guests]
            watch(screen, mediator, uuids, futures)
            loads = [future.result() for future in futures]
            states = vm_states(mediator)
            complaints = check(uuids, states, loads)
            screen.step(f"{NAMES[0]} crashes its worker, then hangs; {NAMES[1]} goes on")
            complaints += make_trouble(screen, mediator, pool, uuids, guests, arguments.n)
        finally:
            # First, so that no thread of the pool waits for a guest that is not watched.
            for machine in guests:
                machine.kill()
        print_table(uuids, states, loads)
        if mediator.stop():
            complaints.append(f"the mediator did not end cleanly:\n{mediator.log_tail()}")
    return complaints, sum(load["done"] for _, load in loads)


def parse_arguments():
    parser = argparse.ArgumentParser(prog="demo", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=pathlib.Path, required=True,
                        help="directory of the programs")
    parser.add_argument("--kernel", type=pathlib.Path, required=True)
    parser.add_argument("--initramfs", type=pathlib.Path, required=True)
    parser.add_argument("--backend", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--seconds", type=int, default=10, help="of load (default 10)")
    parser.add_argument("--n", type=int, default=128, help="side of the matrices (default 128)")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    host.terminate_on_signals()
    try:
        complaints, products = demonstrate(arguments, Screen())
    except (DemoError, host.HostError, guest.GuestError) as error:
        complaints, products = [str(error)], 0
    except KeyboardInterrupt:
        print("\ndemo: interrupted", flush=True)
        os._exit(130)  # a thread may still wait for a guest that is gone
    for complaint in complaints:
        print(f"demo: {complaint}")
    if complaints:
        print("FAILED: the demonstration did not work")
        return 1
    print(f"PASSED: two guests computed {products} products through one mediator, "
          "all verified in the guests")
    return 0


if __name__ == "__main__":
    sys.exit(main())
