"""A root with a package in it, made and installed by rpm itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

FOLDER = "usr/lib/sysimage/rpm"
DATABASE = f"{FOLDER}/rpmdb.sqlite"
SPEC = """
Name: tiny
Version: 1
Release: 1
Summary: A package of the tests
License: none
BuildArch: noarch
%global _source_filedigest_algorithm {algorithm}
%global _binary_filedigest_algorithm {algorithm}
%description
A few files.
%install
mkdir -p %{{buildroot}}/usr/bin %{{buildroot}}/etc %{{buildroot}}/usr/share/doc
echo tiny > %{{buildroot}}/usr/bin/tiny
echo other > %{{buildroot}}/usr/bin/other
echo gone > %{{buildroot}}/usr/bin/gone
echo su > %{{buildroot}}/usr/bin/su
echo setting > %{{buildroot}}/etc/tiny.conf
echo optional > %{{buildroot}}/etc/optional
echo text > %{{buildroot}}/usr/share/doc/text
ln -s tiny %{{buildroot}}/usr/bin/link
%files
%attr(755,root,root) /usr/bin/tiny
%attr(755,root,root) /usr/bin/other
%attr(755,root,root) /usr/bin/gone
%attr(4755,root,root) /usr/bin/su
/usr/bin/link
%config(noreplace) /etc/tiny.conf
%config(missingok) /etc/optional
%doc /usr/share/doc/text
%ghost /var/log/tiny.log
"""


def run(*command: str | Path) -> None:
    subprocess.run([*map(str, command)], check=True, capture_output=True, text=True, timeout=120)


def rpm_tree(folder: Path, algorithm: int = 8) -> Path:
    """`algorithm`: of the digests, by its number: 1 is MD5, 8 SHA-256. Documentation is not installed."""
    (folder / "tiny.spec").write_text(SPEC.format(algorithm=algorithm))
    run("rpmbuild", "-bb", "--quiet", "--define", f"_topdir {folder}/build", folder / "tiny.spec")
    package = next((folder / "build").rglob("*.rpm"))
    root = folder / "tree"
    root.mkdir()
    where = ("--root", root, "--dbpath", f"/{FOLDER}")
    run("rpm", *where, "--initdb")
    run("rpm", *where, "-i", "--nodeps", "--nosignature", "--excludedocs", package)
    return root
