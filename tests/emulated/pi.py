"""A Raspberry Pi 4 that is none: a real arm64 Debian, run by qemu-user, behind an sshd on loopback.

`python -m tests.emulated.pi build` makes its root file system once (root, and the network: Debian's packages from the
mirrors that this machine's apt has, wheels by pip); `python -m tests.emulated.pi serve FOLDER` serves it until it is
interrupted. To a client it is a Pi: `uname -m` is aarch64, cpuinfo and memory are those of a Pi 4, with a temperature.
It proves deployment and numerics, never latency. Each server has its own /tmp and home; the rest is shared, read-only
to the account `pi`, which exists nowhere else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.loopback import Loopback, Place, serve, why_no_namespace

# owned by root all the way, or sshd refuses to change the root to it; not /tmp, which others can write to
FOLDER = Path(os.environ.get("EDGEKIT_EMULATED", "/var/cache/edgekit-emulated"))
ROOT = FOLDER / "pi"
READY = FOLDER / "ready"  # says which recipe made it
VERSION = 3  # of the functions that make it: to be raised when they change
# unset it is `max`, and XNNPACK's kernels then compute garbage under qemu 7.2
CPU = "cortex-a72"
QEMU = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")
TOOLS = {"mmdebstrap": "mmdebstrap", "qemu-aarch64-static": "qemu-user-static", "update-binfmts": "binfmt-support"}
PACKAGES = (
    "python3,libstdc++6,libgcc-s1,libc-bin,coreutils,bash,dash,base-files,base-passwd,procps,util-linux,grep,sed,mawk,"
    "tar,gzip,findutils,hostname,mksh,toybox"
)
# ai-edge-litert and onnxruntime with what they need; the versions of the host's (constraints.txt), so that both agree
WHEELS = ("ai-edge-litert", "onnxruntime", "numpy", "flatbuffers", "tqdm", "typing-extensions", "protobuf", "ml_dtypes",
          "backports.strenum")  # fmt: skip
PLATFORMS = ("manylinux2014_aarch64", "manylinux_2_17_aarch64", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64",
             "any")  # fmt: skip
CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints.txt"
MODEL = "Raspberry Pi 4 Model B Rev 1.4"
ACCOUNT = "pi:x:1000:1000::/home/pi:/bin/bash"
# what the kernel of a Pi 4 with 4 GB says (Raspberry Pi OS, 64-bit)
CPUINFO = (
    "".join(
        f"processor\t: {core}\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n"
        "CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n"
        for core in range(4)
    )
    + f"Hardware\t: BCM2835\nRevision\t: c03114\nSerial\t\t: 0000000000000000\nModel\t\t: {MODEL}\n"
)
MEMINFO = "MemTotal:        3884360 kB\nMemFree:         2811264 kB\nMemAvailable:    3403072 kB\n"
FILES = {
    "etc/hostname": "pi-emulated\n",
    "sys/devices/system/cpu/possible": "0-3\n",  # without these two XNNPACK is left out, and says nothing
    "sys/devices/system/cpu/present": "0-3\n",
    "sys/devices/system/cpu/online": "0-3\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "1500000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48686\n",
    "sys/firmware/devicetree/base/model": f"{MODEL}\0",
}
SETUP = f"""
echo '{ACCOUNT}' | cat /etc/passwd - > "$FOLDER/passwd"
echo 'pi:*:19000:0:99999:7:::' | cat /etc/shadow - > "$FOLDER/shadow"
mkdir -p "$FOLDER/home"
chown 1000:1000 "$FOLDER/home"
mount --bind "$FOLDER/passwd" /etc/passwd
mount --bind "$FOLDER/shadow" /etc/shadow
mount -t proc proc {ROOT}/proc
mount --bind {FOLDER}/cpuinfo {ROOT}/proc/cpuinfo
mount --bind {FOLDER}/meminfo {ROOT}/proc/meminfo
mount --bind "$FOLDER/tmp" {ROOT}/tmp
mount --bind "$FOLDER/home" {ROOT}/home/pi
hostname pi-emulated
"""
ENVIRONMENT = (f"QEMU_CPU={CPU}", "PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C.UTF-8")


def missing() -> str:
    """Why there is no emulated Pi here, or ""."""
    if not READY.is_file():
        return "no emulated Raspberry Pi here: make emulated"
    if READY.read_text() != _recipe():
        return "the emulated Raspberry Pi here is of another version: make emulated"
    _register()
    if not QEMU.is_file():
        return "arm64 programs do not run here: qemu-user-static, binfmt-support, and binfmt_misc mounted"
    return why_no_namespace()


def phone_setup() -> str:
    """What makes the same root a phone's, for `loopback.in_namespace`: the folder that its shell may write to."""
    return (
        f"mount -t proc proc {ROOT}/proc\nmount --bind {FOLDER}/cpuinfo {ROOT}/proc/cpuinfo\n"
        f'chown 2000:2000 "$FOLDER/tmp"\nmount --bind "$FOLDER/tmp" {ROOT}/data/local/tmp\n'
    )


@contextmanager
def pi(folder: Path) -> Iterator[Loopback]:
    """The Pi behind an sshd on loopback, for as long as the context lasts; `temporary` is its /tmp."""
    more = (f"ChrootDirectory {ROOT}", "Subsystem sftp internal-sftp")
    with serve(folder, place=Place("pi", SETUP, more, ENVIRONMENT)) as server:
        yield server


def build() -> None:
    """Make the root file system, or leave the one that is there when it is of this recipe."""
    if READY.is_file() and READY.read_text() == _recipe():
        return
    _check_tools()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True, mode=0o755)
    _debian()
    _python()
    (FOLDER / "cpuinfo").write_text(CPUINFO)
    (FOLDER / "meminfo").write_text(MEMINFO)
    READY.write_text(_recipe())


def _recipe() -> str:
    """What the root file system is made of: another text, another one."""
    pinned = [line for line in CONSTRAINTS.read_text().splitlines() if line.partition("==")[0] in WHEELS]
    return repr((VERSION, PACKAGES, WHEELS, pinned, FILES, CPUINFO, MEMINFO))


def _check_tools() -> None:
    if why := why_no_namespace():
        sys.exit(f"no emulated Raspberry Pi can be made here: {why}")
    absent = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if absent:
        sys.exit(f"no emulated Raspberry Pi can be made here. Fix: apt-get install {' '.join(absent)}")
    _register()
    if not QEMU.is_file():
        sys.exit("no emulated Raspberry Pi can be made here: this kernel has no binfmt_misc, or it is not enabled")


def _register() -> None:
    """Have the kernel run arm64 programs by qemu; not mounted by default in a container."""
    if QEMU.is_file() or os.getuid() != 0 or shutil.which("update-binfmts") is None:
        return
    if not QEMU.parent.joinpath("status").is_file():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(QEMU.parent)], check=False)
    subprocess.run(["update-binfmts", "--enable", QEMU.name], check=False)


def _sources() -> list[str]:
    """Where this machine's own apt gets Debian from, for mmdebstrap: no mirror's name stands in this repository."""
    listed = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    texts = [(path, path.read_text()) for path in listed if path.suffix in (".list", ".sources") and path.is_file()]
    return [str(path) for path, text in texts if "debian-archive-keyring" in text or "debian.org" in text]


def _codename() -> str:
    known = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    return known.get("VERSION_CODENAME", "stable").strip('"')


def _debian() -> None:
    """Debian's arm64 packages, extracted, which runs nothing; then what their scripts would have done."""
    command = ["mmdebstrap", "--quiet", "--arch=arm64", "--variant=extract", f"--include={PACKAGES}"]
    subprocess.run([*command, _codename(), str(ROOT), *_sources()], check=True)
    for name in ("passwd", "group"):
        shutil.copyfile(ROOT / f"usr/share/base-passwd/{name}.master", ROOT / f"etc/{name}")
    with (ROOT / "etc/passwd").open("a") as file:
        file.write(f"{ACCOUNT}\nshell:x:2000:2000::/:/system/bin/sh\n")
    (ROOT / "usr/bin/awk").symlink_to("mawk")
    for name, text in FILES.items():
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / name).write_text(text)
    (ROOT / "home/pi").mkdir(parents=True)
    _android()


def _android() -> None:
    """A second face of the same root: mksh and toybox where a phone has them, and adb's work folder."""
    programs = ROOT / "system/bin"
    programs.mkdir(parents=True)
    known = subprocess.run(["chroot", str(ROOT), "/bin/toybox"], capture_output=True, text=True, check=True).stdout
    for name in known.split():
        (programs / name).symlink_to("/bin/toybox")
    (programs / "sh").unlink(missing_ok=True)
    (programs / "sh").symlink_to("/bin/mksh")
    (ROOT / "data/local/tmp").mkdir(parents=True)


def _python() -> None:
    """The runtimes' wheels, and bytecode, which the account there could not write."""
    version = (ROOT / "usr/bin/python3").readlink().name.removeprefix("python")
    packages = ROOT / f"usr/local/lib/python{version}/dist-packages"
    abi = f"cp{version.replace('.', '')}"
    options = ["--only-binary=:all:", "--python-version", version, "--implementation", "cp"]
    options += [word for name in (abi, "abi3", "none") for word in ("--abi", name)]
    options += [word for name in PLATFORMS for word in ("--platform", name)]
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps", "--no-compile"]
    subprocess.run([*pip, *options, "-c", str(CONSTRAINTS), "--target", str(packages), *WHEELS], check=True)
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":  # bytecode is alike on both
        for folder in (ROOT / f"usr/lib/python{version}", packages):
            subprocess.run([sys.executable, "-m", "compileall", "-q", "-s", str(ROOT), str(folder)], check=False)


def _serve(folder: Path) -> None:
    """Serve until interrupted, saying how to get there."""
    if why := missing():
        sys.exit(why)
    folder.mkdir(parents=True)
    with pi(folder.absolute()) as server:
        print(f"PATH={server.binaries}:$PATH ssh {_host()} uname -m", flush=True)
        while True:
            time.sleep(3600)


def _host() -> str:
    from tests.loopback import HOST

    return HOST


if __name__ == "__main__":
    if sys.argv[1:] == ["build"]:
        build()
    elif sys.argv[1:2] == ["serve"] and len(sys.argv) == 3:
        _serve(Path(sys.argv[2]))
    else:
        sys.exit("python -m tests.emulated.pi build | serve FOLDER")
