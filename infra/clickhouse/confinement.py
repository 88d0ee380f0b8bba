"""Confine the ClickHouse server's process: its files, its network, its crash on `Python()`.

Grants and constraints (``config.py``) refuse what the engine lets us refuse. Two holes are left
that it has no setting for, and the process itself closes them:

- The function ``file()`` reads any file of the machine, and needs no grant. Landlock (Linux 5.19
  and later, no privileges needed) lets the process open the files of its own folders only.
- The table function ``Python()`` locks a mutex behind a null pointer in every session of the
  server, before it checks access, and so ends the process. The lock fails with an error instead.

The server's process loads this file by its path, so it imports nothing of ours.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import mmap
import os
import platform
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

LANDLOCK_ABI_MIN = 2
"""The first version that lets files be linked and renamed between folders, as merges do."""
READABLE = ("/usr/share/zoneinfo", "/etc/localtime", "/dev/urandom", "/proc/self/statm")
"""What the engine reads outside of its own folders: time zones, randomness, its memory."""

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION_FLAG, PATH_BENEATH = 1, 1
PR_SET_NO_NEW_PRIVS = 38


class Access(enum.IntFlag):
    """What Landlock can refuse of files, in the order of its versions."""

    EXECUTE = enum.auto()
    WRITE_FILE = enum.auto()
    READ_FILE = enum.auto()
    READ_DIR = enum.auto()
    REMOVE_DIR = enum.auto()
    REMOVE_FILE = enum.auto()
    MAKE_CHAR = enum.auto()
    MAKE_DIR = enum.auto()
    MAKE_REG = enum.auto()
    MAKE_SOCK = enum.auto()
    MAKE_FIFO = enum.auto()
    MAKE_BLOCK = enum.auto()
    MAKE_SYM = enum.auto()
    REFER = enum.auto()
    TRUNCATE = enum.auto()
    IOCTL_DEV = enum.auto()


OF_A_FILE = Access.WRITE_FILE | Access.READ_FILE
READ = Access.READ_FILE | Access.READ_DIR
OWN_FOLDER = (
    READ
    | Access.WRITE_FILE
    | Access.REMOVE_DIR
    | Access.REMOVE_FILE
    | Access.MAKE_DIR
    | Access.MAKE_REG
    | Access.MAKE_SYM
    | Access.REFER
    | Access.TRUNCATE
)
"""What the engine does in its own folders: no devices, no sockets, no programs."""


def landlock_abi() -> int:
    """The version of Landlock that the kernel has; 0 where there is none.

    Source: https://docs.kernel.org/userspace-api/landlock.html
    """
    if sys.platform != "linux":
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    return max(int(libc.syscall(CREATE_RULESET, None, 0, VERSION_FLAG)), 0)


def can_confine() -> bool:
    """Whether this machine can keep the server's process to its own folders."""
    return landlock_abi() >= LANDLOCK_ABI_MIN


def open_holes() -> list[str]:
    """What stays open on this machine, a clause for each; nothing where both bars stand."""
    holes = []
    if not can_confine():
        holes.append(
            "every user of ClickHouse, `analyst` too, can read by file() what this account can"
            " read: this system has no Landlock (Linux 5.19 or later)"
        )
    if not _has_stub():
        holes.append("every user of ClickHouse can end the server by SELECT * FROM Python(x)")
    return holes


def confine(own_folders: Iterable[Path]) -> None:
    """Keep this process, from now on, to some folders, and away from networks and programs.

    It may write below `own_folders`, read `READABLE`, use what is open already, and accept
    connections. It may open no other file, connect nowhere by TCP, and start no program. Threads
    that exist already are not confined: call it before there are any.

    Raises
    ------
    OSError
        If the kernel refuses; nothing is confined then.
    """
    abi = landlock_abi()
    refused = Access((1 << 14) - 1)
    if abi >= 3:
        refused |= Access.TRUNCATE
    if abi >= 5:
        refused |= Access.IOCTL_DEV
    connect_tcp = 0b10 if abi >= 4 else 0
    signals_and_sockets = 0b11 if abi >= 6 else 0
    attributes = struct.pack("=QQQ", refused, connect_tcp, signals_and_sockets)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    rules = _call(CREATE_RULESET, attributes, ctypes.c_size_t(size), 0)
    allowed = [(folder, OWN_FOLDER) for folder in own_folders]
    allowed += [(Path(path), READ) for path in READABLE]
    allowed.append((Path(os.devnull), OF_A_FILE))
    for path, access in allowed:
        if not path.exists():
            continue
        possible = refused if path.is_dir() else refused & OF_A_FILE
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", access & possible, opened)
        _call(ADD_RULE, rules, PATH_BENEATH, rule, 0)
        os.close(opened)
    if ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(errno.EPERM, "no_new_privs was refused")
    _call(RESTRICT_SELF, rules, 0)
    os.close(rules)


def _call(*arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    answer = int(libc.syscall(*arguments))
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"Landlock: {os.strerror(number)}")
    return answer


# --- the null mutex -------------------------------------------------------------------------------

LOCK_STUBS = {
    # test rdi, rdi; jz refuse; mov rax, lock; jmp rax; refuse: mov eax, EINVAL; ret
    "x86_64": (bytes.fromhex("4885ff740c48b8"), bytes.fromhex("ffe0b816000000c3")),
    # cbz x0, refuse; ldr x16, lock; br x16; refuse: mov w0, EINVAL; ret; padding; lock:
    "aarch64": (bytes.fromhex("600000b4b0000058 00021fd6 c0028052 c0035fd6 1f2003d5"), b""),
}
"""Machine code before and after the address of the real pthread_mutex_lock."""
LOCKS = (b"pthread_mutex_lock", b"__pthread_mutex_lock")
JUMP_SLOT = {"x86_64": (6, 7), "aarch64": (1025, 1026)}
"""ELF relocation types that hold a function's address: GLOB_DAT and JUMP_SLOT."""


def refuse_null_mutexes(library: Path) -> bool:
    """Make `library` see an error where it locks the null pointer, instead of a crash.

    Its slot for ``pthread_mutex_lock`` gets a stub that answers EINVAL to a null pointer, for
    which the C++ library throws, and hands on every other call.

    Returns
    -------
    bool
        Whether it was done: False on a system or processor that no stub is written for.

    Raises
    ------
    OSError
        If the library has no such slot, or memory could not be changed.
    """
    if not _has_stub():
        return False
    machine = platform.machine()
    libc = ctypes.CDLL(None, use_errno=True)
    before, after = LOCK_STUBS[machine]
    base = _address_of(library)
    slots = list(_slots(library, LOCKS, JUMP_SLOT[machine]))
    if not slots:
        raise OSError(errno.ENOENT, f"no slot of pthread_mutex_lock in {library.name}")
    real = ctypes.c_uint64.from_address(base + slots[0]).value
    code = before + struct.pack("<Q", real) + after
    page = mmap.PAGESIZE
    libc.mmap.restype = ctypes.c_void_p
    anonymous = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    stub = libc.mmap(
        None, ctypes.c_size_t(page), mmap.PROT_READ | mmap.PROT_WRITE, anonymous, -1, 0
    )
    ctypes.memmove(stub, code, len(code))
    _protect(libc, stub, mmap.PROT_READ | mmap.PROT_EXEC)
    for slot in slots:
        _protect(libc, base + slot, mmap.PROT_READ | mmap.PROT_WRITE)
        ctypes.c_uint64.from_address(base + slot).value = stub
    return True


def _has_stub() -> bool:
    return sys.platform == "linux" and platform.machine() in LOCK_STUBS


def _protect(libc: ctypes.CDLL, address: int, access: int) -> None:
    start = address & ~(mmap.PAGESIZE - 1)
    if libc.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(mmap.PAGESIZE), access):
        raise OSError(ctypes.get_errno(), "mprotect was refused")


def _address_of(library: Path) -> int:
    """Where the library is loaded in this process."""
    name = str(library.resolve())
    with Path("/proc/self/maps").open() as maps:
        for line in maps:
            fields = line.split(maxsplit=5)
            if fields[-1].strip() == name and int(fields[2], 16) == 0:
                return int(fields[0].partition("-")[0], 16)
    raise OSError(errno.ENOENT, f"{library.name} is not loaded")


def _slots(library: Path, symbols: tuple[bytes, ...], types: tuple[int, int]) -> Iterator[int]:
    """Offsets of the library's slots that hold the address of one of some imported functions."""
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image:
        segments, dynamic = _headers(image)

        def at(address: int) -> int:
            for start, size, offset in segments:
                if start <= address < start + size:
                    return address - start + offset
            raise OSError(errno.ENOEXEC, f"{library.name} has no segment at {address:#x}")

        tables = [(dynamic[23], dynamic[2])]  # DT_JMPREL, DT_PLTRELSZ
        relative = dynamic.get(0x6FFFFFF9, 0) * 24  # DT_RELACOUNT: these come first and name none
        tables.append((dynamic[7] + relative, dynamic[8] - relative))  # DT_RELA, DT_RELASZ
        for table, size in tables:
            start = at(table)
            for offset, info, _ in struct.iter_unpack("<QQq", image[start : start + size]):
                if info & 0xFFFFFFFF not in types:
                    continue
                (name,) = struct.unpack_from("<I", image, at(dynamic[6]) + (info >> 32) * 24)
                text = at(dynamic[5]) + name  # DT_STRTAB
                if image[text : image.find(b"\0", text)] in symbols:
                    yield offset


def _headers(image: mmap.mmap) -> tuple[list[tuple[int, int, int]], dict[int, int]]:
    """(address, size, file offset) of the loaded segments, and the dynamic section's entries."""
    (table,) = struct.unpack_from("<Q", image, 32)
    size, count = struct.unpack_from("<HH", image, 54)
    segments, dynamic = [], {}
    for at in range(table, table + size * count, size):
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", image, at)
        if kind == 1:  # PT_LOAD
            segments.append((address, length, offset))
        elif kind == 2:  # PT_DYNAMIC
            entries = struct.iter_unpack("<QQ", image[offset : offset + length])
            dynamic = dict(entry for entry in entries if entry[0])
    return segments, dynamic
