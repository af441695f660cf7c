"""`python -m korora.lab.demo`: bring a lab up, tell the story, show what was seen, leave nothing behind.

Promise: exit code 0 only when everything went as it must; the lab is taken down however it ends, except
with --keep. Limit: needs root, as the lab does, and what script/setup installs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from korora.errors import ExitCode, KororaError, ToolError
from korora.lab.demo import inside, journey, strangers, wire
from korora.lab.demo.ledger import Ledger
from korora.lab.demo.premises import leftovers, new_folder
from korora.lab.demo.scene import FAST, FULL, Scene
from korora.lab.demo.shell import Shell
from korora.lab.demo.stage import Stage
from korora.lab.demo.witness import Witness
from korora.lab.interruption import Interrupted, interruptible, undisturbed
from korora.lab.layout import Layout
from korora.lab.lifecycle import take_down
from korora.lab.namespaces import in_namespace
from korora.lab.observer import Observer

PROGRAM = "script/demo"


@dataclass(frozen=True, slots=True)
class Options:
    keep: bool = False
    fast: bool = False
    folder: Path | None = None


STORY: tuple[tuple[str, tuple[Callable[[Scene], None], ...]], ...] = (
    ("Two hosts, and a guest with a vTPM", (journey.open_the_lab, journey.boot_the_guest)),
    ("Live migration, from a to b", (journey.migrate_live, journey.verify_receipt)),
    (
        "Attack 1: memory changed on the wire",
        (wire.against_plain_qemu, wire.against_korora, wire.without_the_attacker),
    ),
    (
        "Attack 2: another machine at b's address",
        (strangers.another_host_at_the_address, strangers.forged_host_at_the_address),
    ),
    ("Attack 3: an old request, sent again", (strangers.replayed_request,)),
    ("A virus on the VM's own disk", (inside.against_a_virus, inside.let_pass_by_a_person)),
)


def main(words: list[str] | None = None) -> int:
    """Run it; the exit code."""
    options = parsed(sys.argv[1:] if words is None else words)
    stage = Stage()
    begun = time.monotonic()
    try:
        with interruptible():
            return _demonstrate(options, stage, begun)
    except Interrupted as interrupted:
        left = "the lab was kept" if options.keep else "nothing is left behind"
        return _ended(f"{interrupted}; {left}", interrupted.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read has left
        return ExitCode.TOOL
    except KororaError as error:
        remedy = f" ({error.remedy})" if error.remedy else ""
        return _ended(f"{error.message}{remedy}", error.exit_code)
    except (subprocess.SubprocessError, OSError) as error:
        return _ended(f"a step came to nothing: {str(error) or type(error).__name__}", ExitCode.TOOL)
    except Exception as error:
        return _ended(f"this is a bug in the demonstration: {type(error).__name__}: {error}", ExitCode.BUG)


def parsed(words: list[str]) -> Options:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="A real VM, with its vTPM, moves between two attested hosts here; then attacks.",
    )
    parser.add_argument("--keep", action="store_true", help="leave the lab up, and say how to go on")
    parser.add_argument("--fast", action="store_true", help="a smaller guest")
    parser.add_argument(
        "--dir", type=Path, metavar="DIR", help="the lab's folder, new or empty; default: one in /run"
    )
    found = parser.parse_args(words)
    return Options(found.keep, found.fast, found.dir)


def _demonstrate(options: Options, stage: Stage, begun: float) -> int:
    _require_root()
    for folder in leftovers():
        stage.say(f"An earlier demonstration was killed; clearing away {folder}.")
        take_down(Layout.at(folder))
    layout = Layout.at(options.folder or new_folder(keep=options.keep))
    ledger = Ledger()
    try:
        _tell(options, stage, layout, ledger)
        _table(stage, ledger, begun, complete=True)
    except BaseException:
        with suppress(OSError):  # whoever read may have left; what was built must go all the same
            _table(stage, ledger, begun, complete=False)
        raise
    finally:
        with undisturbed():
            _leave(options, stage, layout)
    return ExitCode.DONE if ledger.all_good else ExitCode.BUG


def _leave(options: Options, stage: Stage, layout: Layout) -> None:
    if not options.keep:
        take_down(layout)
    with suppress(OSError):
        if options.keep:
            _how_to_go_on(stage, layout)
        else:
            stage.say("The lab is down: no process, namespace or file of it is left.")


def _tell(options: Options, stage: Stage, layout: Layout, ledger: Ledger) -> None:
    """The story, on a lab that is up at its end, or as far as it came."""
    shell = Shell(Path.cwd(), layout.configuration, stage)
    _introduce(stage, options)
    stage.heading(1, STORY[0][0])
    shell.must(f"korora lab up --dir {layout.directory} --hosts 2")
    with Observer(layout.observer_ip, bind=lambda make: in_namespace(layout.switch_netns, make)) as observer:
        size = FAST if options.fast else FULL
        witness = Witness(observer, size.guest.ip(layout))
        scene = Scene(layout, size, stage, shell.inside(layout.directory), ledger, witness)
        for number, (title, acts) in enumerate(STORY, start=1):
            if number > 1:
                stage.heading(number, title)
            for act in acts:
                act(scene)


def _introduce(stage: Stage, options: Options) -> None:
    stage.title("Korora moves a running VM, with its virtual TPM, between attested hosts, and proves it.")
    stage.say(
        "Two hosts on this machine, a real Linux guest, three attacks, a virus. Nothing is asked; lines that"
        " begin with $ are real commands, which you may type yourself. Ctrl-C ends it and clears all away."
    )


def _table(stage: Stage, ledger: Ledger, begun: float, *, complete: bool) -> None:
    if not ledger.entries:
        return
    stage.heading(len(STORY) + 1, "What was shown" if complete else "What was shown until it stopped")
    stage.plain(ledger.lines(stage.width))
    stage.gap()
    good = sum(entry.good for entry in ledger.entries)
    words = f"{good} of {len(ledger.entries)} as expected, in {time.monotonic() - begun:.0f} s"
    stage.verdict(words if complete else f"stopped; {words}", good=complete and ledger.all_good)


def _how_to_go_on(stage: Stage, layout: Layout) -> None:
    stage.gap()
    stage.say("The lab stays up. Go on with, for example:")
    stage.plain(
        (
            f"  cd {layout.directory}; export KORORA_CONFIG=$PWD/korora.toml PATH={_programs()}:$PATH",
            "  korora vm list",
            "  korora migrate web-1 --to b",
            f"  korora lab down --dir {layout.directory}    # when you are done",
        )
    )


def _programs() -> Path:
    return Path(sys.executable).parent


def _require_root() -> None:
    if os.geteuid() != 0:
        raise ToolError(
            "root is needed: it makes network namespaces and runs host daemons",
            kind="not-root",
            remedy=f"sudo {PROGRAM}",
        )


def _ended(why: str, code: int) -> int:
    print(f"demo: {' '.join(why.split())}", file=sys.stderr)
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
