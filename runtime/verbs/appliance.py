"""`spinescore appliance bundle|verify`: releases, which install the appliance on machines without a network."""

from __future__ import annotations

import argparse
import getpass
import sys
from datetime import datetime, timezone
from pathlib import Path

from spinescore.runtime.verbs import OK, check_paths, say, show
from spinescore.runtime.verbs.extras import check_library
from spinescore.runtime.verbs.options import add_action

__all__ = ["add_arguments"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions of `spinescore appliance`."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    maker = add_action(actions, "bundle", "write a folder that installs the appliance on a machine without a network")
    maker.add_argument("folder", type=Path, metavar="DIR", help="folder to write, which must be new or empty")
    text = "platform of that machine, like manylinux_2_35_x86_64 or manylinux_2_35_aarch64 (default: this machine's)"
    maker.add_argument("--platform", metavar="P", help=text)
    maker.add_argument("--python", metavar="V", help="Python of that machine, like 3.11 (default: the one that runs)")
    text = "wheel of spinescore to install (default: built from the source that runs)"
    maker.add_argument("--wheel", type=Path, metavar="F", help=text)
    signing = maker.add_mutually_exclusive_group(required=True)
    text = "sign the folder with this secret key of minisign; its password is asked for, or read from standard input"
    signing.add_argument("--sign", type=Path, metavar="KEYFILE", help=text)
    signing.add_argument("--no-sign", action="store_true", help="leave the folder unsigned")
    maker.set_defaults(verb=bundle)
    checker = add_action(actions, "verify", "check the signature and every file of such a folder")
    checker.add_argument("folder", type=Path, metavar="DIR", help="folder to check")
    keys = checker.add_mutually_exclusive_group(required=True)
    keys.add_argument(
        "--key", type=Path, metavar="F", help="public key of minisign that the folder must be signed with"
    )
    keys.add_argument("--unsigned", action="store_true", help="check no signature, only the files")
    checker.set_defaults(verb=verify)


def bundle(arguments: argparse.Namespace) -> int:
    """Write a release. Return the exit status."""
    _check_libraries()
    from spinescore.runtime.appliance.shipping.minisign import read_secret_key
    from spinescore.runtime.appliance.shipping.release import write_release
    from spinescore.runtime.appliance.shipping.wheels import here, parse_target

    platform, python = here()
    target = parse_target(arguments.platform or platform, arguments.python or python)
    check_paths(path for path in (arguments.sign, arguments.wheel) if path is not None)
    key = None if arguments.no_sign else read_secret_key(arguments.sign, _ask_password)
    say(f"getting the packages for {target.platform} and Python {target.python_text}")
    date = datetime.now(timezone.utc)
    release = write_release(arguments.folder, target, own=arguments.wheel, key=key, date=date)
    show(f"{arguments.folder} has spinescore {release.version} for {release.platform} and Python {release.python}, "
         f"{release.files} files")  # fmt: skip
    if release.comment is None:
        show("It is NOT SIGNED: nobody can tell whether it was changed on its way. install.sh needs --unsigned for it.")
    else:
        show(f"It is signed: {release.comment}")
    return OK


def _check_libraries() -> None:
    for library in ("nacl", "packaging"):
        check_library(library, "appliance", "a release is made and verified")


def _ask_password() -> str:
    if sys.stdin is not None and not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    return getpass.getpass("Password of the key: ")


def verify(arguments: argparse.Namespace) -> int:
    """Check a release. Return the exit status."""
    _check_libraries()
    from spinescore.runtime.appliance.shipping.minisign import read_public_key
    from spinescore.runtime.appliance.shipping.release import verify_release

    check_paths([arguments.folder])
    key = None if arguments.unsigned else read_public_key(arguments.key)
    release = verify_release(arguments.folder, key)
    signed = "the signature was NOT checked" if release.comment is None else f"signed: {release.comment}"
    show(f"{arguments.folder} is whole: spinescore {release.version} for {release.platform} and Python "
         f"{release.python}, {release.files} files; {signed}")  # fmt: skip
    return OK
