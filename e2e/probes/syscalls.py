# SPDX-License-Identifier: Apache-2.0
"""Runs inside a sandbox: makes every kernel call that must be refused, and prints what came back as JSON.

Each is made in a process of its own, so that one which kills or harms its caller is seen and spoils nothing else.
"""

import ctypes
import errno
import json
import mmap
import os
import socket

libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x10000000, 0x20000000, 0x40000000
SIGCHLD = 17
ROOM = ctypes.create_string_buffer(4096)


def call(number, *args):
    """Return the name of the error that a call gives, or what it returned."""
    ctypes.set_errno(0)
    converted = [
        ctypes.c_char_p(a) if isinstance(a, bytes) else ctypes.c_long(a) if isinstance(a, int) else a for a in args
    ]
    result = libc.syscall(ctypes.c_long(number), *converted)
    if result == -1:
        return errno.errorcode.get(ctypes.get_errno(), str(ctypes.get_errno()))
    if result == 0 and number in (56, 435):
        os._exit(0)  # the child that must not be
    return f"returned {result}"


def clone3(flags):
    arguments = (ctypes.c_uint64 * 8)(flags, 0, 0, 0, SIGCHLD, 0, 0, 0)
    return call(435, ctypes.byref(arguments), 64)


def attempt(act):
    try:
        return str(act())
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))


def old_abi():
    """Ask for getpid as a 32-bit program would."""
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    result = function()
    return f"returned {result}" if result >= 0 else errno.errorcode.get(-result, str(-result))


def open_self(name):
    return os.open("/proc/self/ns/" + name, os.O_RDONLY)


FORBIDDEN = {
    "mount tmpfs": lambda: call(165, b"none", b"/mnt", b"tmpfs", 0, 0),
    "mount proc": lambda: call(165, b"proc", b"/mnt", b"proc", 0, 0),
    "mount bind": lambda: call(165, b"/", b"/mnt", 0, 4096, 0),
    "mount remount": lambda: call(165, 0, b"/proc/sys", 0, 32, 0),
    "umount2": lambda: call(166, b"/proc/sys", 2),
    "pivot_root": lambda: call(155, b"/", b"/tmp"),
    "chroot": lambda: call(161, b"/tmp"),
    "open_tree": lambda: call(428, -100, b"/", 1),
    "move_mount": lambda: call(429, -100, b"/tmp", -100, b"/mnt", 0),
    "fsopen": lambda: call(430, b"tmpfs", 0),
    "mount_setattr": lambda: call(442, -100, b"/", 0, ROOM, 32),
    "unshare user": lambda: call(272, CLONE_NEWUSER),
    "unshare mount": lambda: call(272, CLONE_NEWNS),
    "unshare net": lambda: call(272, CLONE_NEWNET),
    "clone user": lambda: call(56, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0),
    "clone pid": lambda: call(56, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0),
    "clone3 user": lambda: clone3(CLONE_NEWUSER),
    "setns own mount": lambda: call(308, open_self("mnt"), 0),
    "setns own user": lambda: call(308, open_self("user"), 0),
    "ptrace traceme": lambda: call(101, 0, 0, 0, 0),
    "ptrace attach": lambda: call(101, 16, 1, 0, 0),
    "process_vm_readv": lambda: call(310, 1, ROOM, 1, ROOM, 1, 0),
    "add_key": lambda: call(248, b"user", b"k", b"v", 1, -3),
    "request_key": lambda: call(249, b"user", b"k", 0, 0),
    "keyctl": lambda: call(250, 0, -3, 0, 0, 0),
    "bpf": lambda: call(321, 0, ROOM, 48),
    "perf_event_open": lambda: call(298, ROOM, 0, -1, -1, 0),
    "io_uring_setup": lambda: call(425, 4, ROOM),
    "open_by_handle_at": lambda: call(304, -100, ROOM, 0),
    "userfaultfd": lambda: call(323, 0),
    "init_module": lambda: call(175, ROOM, 8, b""),
    "finit_module": lambda: call(313, 0, b"", 0),
    "delete_module": lambda: call(176, b"x", 0),
    "kexec_load": lambda: call(246, 0, 0, 0, 0),
    "reboot": lambda: call(169, 0xFEE1DEAD, 672274793, 0, 0),
    "swapon": lambda: call(167, b"/tmp/x", 0),
    "acct": lambda: call(163, b"/tmp/x"),
    "syslog": lambda: call(103, 3, ROOM, 4096),
    "settimeofday": lambda: call(164, ROOM, 0),
    "clock_settime": lambda: call(227, 0, ROOM),
    "sethostname": lambda: call(170, b"evil", 4),
    "iopl": lambda: call(172, 3),
    "quotactl": lambda: call(179, 0x800002 << 8, b"/dev/sda", 0, ROOM),
    "fanotify_init": lambda: call(300, 0, 0),
    "a call of the future": lambda: call(1000),
    "x32 getpid": lambda: call(0x40000000 | 39),
    "32-bit getpid": old_abi,
    "device node": lambda: attempt(lambda: os.mknod("/tmp/null", 0o20666, os.makedev(1, 3))),
    "block device node": lambda: attempt(lambda: os.mknod("/tmp/disk", 0o60666, os.makedev(8, 0))),
    "raw socket": lambda: attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)),
    "packet socket": lambda: attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)),
    "vsock socket": lambda: attempt(lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)),
}


def alone(act):
    """Return what an attempt gives in a process of its own."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, act().encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        answer = file.read()
    _, status = os.waitpid(pid, 0)
    return answer or f"killed by signal {os.WTERMSIG(status)}"


with open("/proc/self/uid_map") as ids:
    if ids.read().split()[:2] == ["0", "0"]:
        raise SystemExit("this probe is for the inside of a sandbox: here, root is root of the host")
print(json.dumps({name: alone(act) for name, act in FORBIDDEN.items()}))
