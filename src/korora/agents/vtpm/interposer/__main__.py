"""`python -m korora.agents.vtpm.interposer`: the process. It outlives the daemon that started it.

Promise: keys are held in memory only and never in a core dump; one hypervisor is served, once; when this
process ends, its swtpm ends too. Limit: memory may be swapped out, and root on this host can read it.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import socket
import sys
import threading

from korora.agents.vtpm.interposer import command_socket as wire
from korora.agents.vtpm.interposer.blob_guard import BlobGuard
from korora.agents.vtpm.interposer.control_channel import read_exactly
from korora.agents.vtpm.interposer.control_lane import ControlLane
from korora.errors import ExitCode, KororaError, PeerError
from korora.model.identity import Secret, SessionId, VmName

_ORDER_WITHIN_S = 30.0
_REST_WITHIN_S = 10.0
_MAX_DAEMONS = 8
_ENDS = {signal.SIGTERM}


class Interposer:
    """Serves one hypervisor, and any number of short conversations with the daemon."""

    def __init__(self, hypervisors: socket.socket, daemons: socket.socket, lane: ControlLane) -> None:
        self._hypervisors, self._daemons, self._lane = hypervisors, daemons, lane
        self._guest_connected = False
        self._talks = threading.Semaphore(_MAX_DAEMONS)

    def run(self) -> None:
        """Until SIGTERM, which is also what End becomes."""
        self._lane.probe()
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)  # in every thread: `sigwait` takes it
        for work in (self._serve_hypervisor, self._serve_daemons):
            threading.Thread(target=work, daemon=True).start()
        signal.sigwait(_ENDS)
        self._lane.end(_REST_WITHIN_S)

    def _serve_hypervisor(self) -> None:
        """One hypervisor, once: a TPM that was switched off is not switched on again by the next one."""
        with self._hypervisors:
            hypervisor, _ = self._hypervisors.accept()
        self._guest_connected = True
        self._lane.serve(hypervisor)
        self._guest_connected = False
        self._lane.end(_REST_WITHIN_S)

    def _serve_daemons(self) -> None:
        while True:
            link, _ = self._daemons.accept()
            if wire.peer_user(link) != os.geteuid() or not self._talks.acquire(blocking=False):
                link.close()
                continue
            threading.Thread(target=self._talk, args=(link,), daemon=True).start()

    def _talk(self, link: socket.socket) -> None:
        link.settimeout(_ORDER_WITHIN_S)
        try:
            with link:
                while True:
                    prefix = read_exactly(link, wire.LENGTH.size)
                    order = wire.decode_order(read_exactly(link, wire.body_length(prefix)))
                    link.sendall(wire.encode(self._answer(order)))
                    if isinstance(order, wire.End):
                        os.kill(os.getpid(), signal.SIGTERM)
        except (OSError, PeerError):
            pass  # it hung up, or does not speak our language: nothing that follows can be trusted
        finally:
            self._talks.release()

    def _answer(self, order: wire.Orders) -> wire.Answers:
        try:
            return self._obey(order)
        except KororaError as error:
            return wire.Failed(int(error.exit_code), error.kind, error.message)
        except (ValueError, OSError) as error:
            return wire.Failed(int(ExitCode.TOOL), "interposer", str(error))

    def _obey(self, order: wire.Orders) -> wire.Answers:
        lane, guard = self._lane, self._lane.guard
        match order:
            case wire.SendUnder(key, vm, session, epoch):
                with lane.lock:
                    guard.send_under(Secret(key), VmName(vm), SessionId(session), epoch)
            case wire.AcceptUnder(key, vm, session, epoch):
                with lane.lock:
                    guard.accept_under(Secret(key), VmName(vm), SessionId(session), epoch)
            case wire.AcceptBare():
                with lane.lock:
                    guard.accept_bare()
            case wire.Stay():
                with lane.lock:
                    guard.stay()
            case wire.Retire():
                lane.retire()
            case wire.Execute(command):
                return wire.Response(lane.execute(command))
            case wire.GetPermanent():
                return wire.Permanent(lane.permanent())
            case wire.GetStatus():
                return self._status()
            case wire.End():
                pass  # after the answer
        return wire.Done()

    def _status(self) -> wire.Status:
        lane, guard = self._lane, self._lane.guard
        return wire.Status(
            mode=guard.mode,
            initialised=lane.initialised,
            guest_connected=self._guest_connected,
            tpm_alive=lane.tpm_alive,
            loaded=guard.loaded,
            digests={kind.label: digest for kind, digest in guard.digests.items()},
            reason=guard.reason,
        )


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="korora-vtpm-interposer")
    parser.add_argument("vm", help="shown in the process list")
    parser.add_argument("--hypervisor-fd", type=int, required=True, help="unix socket for the hypervisor")
    parser.add_argument("--daemon-fd", type=int, required=True, help="unix socket for the daemon")
    parser.add_argument("--tpm-fd", type=int, required=True, help="swtpm's control channel")
    parser.add_argument("--incoming", action="store_true", help="the state comes from another host")
    given = parser.parse_args(arguments)

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hypervisors, daemons = socket.socket(fileno=given.hypervisor_fd), socket.socket(fileno=given.daemon_fd)
    tpm = socket.socket(fileno=given.tpm_fd)
    lane = ControlLane(tpm, BlobGuard(incoming=given.incoming))
    Interposer(hypervisors, daemons, lane).run()


if __name__ == "__main__":
    main(sys.argv[1:])
