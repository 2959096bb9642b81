"""The default seccomp profile: what a container may ask of the kernel when its pod says RuntimeDefault.

The lists are names only: what moby and containerd allow by default, so that a program that runs there runs here.
A capability that the container holds allows further calls.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Collection
from functools import lru_cache
from typing import Any


def _words(text: str) -> list[str]:
    return text.split()


ALLOWED = _words(
    """
accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 clock_adjtime
clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64
close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old
epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat
faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat
fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs
fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat
get_mempolicy get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32
getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom
getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday
getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy
io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc kill
landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen
listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack
membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect
mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink
mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat
_newselect open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll
ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 pwrite64 pwritev
pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages
removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending
rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg
sendto set_mempolicy set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid
setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid
setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt
shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs
statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create
timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask
uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write
writev process_vm_readv process_vm_writev ptrace
"""
)

BY_ARCHITECTURE = {
    "x86_64": ["arch_prctl", "modify_ldt"],
    "aarch64": ["arm_fadvise64_64", "arm_sync_file_range", "sync_file_range2", "breakpoint", "cacheflush", "set_tls"],
}

BY_CAPABILITY = {
    "CAP_DAC_READ_SEARCH": _words("open_by_handle_at"),
    "CAP_SYS_ADMIN": _words(
        """
bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules
lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname
sethostname setns syslog umount umount2 unshare
"""
    ),
    "CAP_SYS_BOOT": _words("reboot"),
    "CAP_SYS_CHROOT": _words("chroot"),
    "CAP_SYS_MODULE": _words("delete_module init_module finit_module"),
    "CAP_SYS_PACCT": _words("acct"),
    "CAP_SYS_PTRACE": _words("kcmp pidfd_getfd process_madvise"),
    "CAP_SYS_RAWIO": _words("iopl ioperm"),
    "CAP_SYS_TIME": _words("settimeofday stime clock_settime clock_settime64"),
    "CAP_SYS_TTY_CONFIG": _words("vhangup"),
    "CAP_SYS_NICE": _words("mbind set_mempolicy_home_node"),
    "CAP_SYSLOG": _words("syslog"),
    "CAP_BPF": _words("bpf"),
    "CAP_PERFMON": _words("perf_event_open"),
}

ARCHITECTURES = {
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
}

_NEW_NAMESPACES = 0x7E020000
_AF_VSOCK = 40
_PERSONALITIES = (0x0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)


def default(capabilities: Collection[str]) -> dict[str, Any]:
    """The profile in the OCI runtime specification's form."""
    return _default(frozenset(name for name in capabilities if name in BY_CAPABILITY))


@lru_cache(maxsize=16)
def _default(held: frozenset[str]) -> dict[str, Any]:
    machine = platform.machine()
    names = [*ALLOWED, *BY_ARCHITECTURE.get(machine, ())]
    for capability in sorted(held):
        names += BY_CAPABILITY[capability]
    rules: list[dict[str, Any]] = [
        {"names": list(dict.fromkeys(names)), "action": "SCMP_ACT_ALLOW"},
        {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [_argument(0, _AF_VSOCK, "SCMP_CMP_NE")]},
    ]
    rules += [
        {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [_argument(0, value, "SCMP_CMP_EQ")]}
        for value in _PERSONALITIES
    ]
    if "CAP_SYS_ADMIN" not in held:
        # Threads and processes, but no namespaces. clone3 hides its flags in memory: "not there" makes libc use clone.
        masked = {"index": 0, "value": _NEW_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
        rules.append({"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [masked]})
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38})
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ARCHITECTURES.get(machine, []),
        "syscalls": rules,
    }


def _argument(index: int, value: int, op: str) -> dict[str, Any]:
    return {"index": index, "value": value, "op": op}


def localhost(path: str, capabilities: Collection[str]) -> dict[str, Any]:
    """A profile from a file on the node, in moby's form (with `archMap`, `includes`, `excludes`) or OCI's.
    Raises OSError or ValueError."""
    with open(path) as file:
        profile = json.load(file)
    if not isinstance(profile, dict) or "defaultAction" not in profile:
        raise ValueError(f"not a seccomp profile: {path}")
    result = {
        key: profile[key] for key in ("defaultAction", "defaultErrnoRet", "flags", "listenerPath") if key in profile
    }
    architectures = list(profile.get("architectures", ()))
    for entry in profile.get("archMap", ()):
        if entry.get("architecture") in ARCHITECTURES.get(platform.machine(), ())[:1]:
            architectures += [entry["architecture"], *entry.get("subArchitectures", ())]
    if architectures:
        result["architectures"] = architectures
    rules = [rule for rule in profile.get("syscalls") or () if _applies(rule, capabilities)]
    fields = ("names", "action", "errnoRet", "args")
    result["syscalls"] = [
        {field: rule[field] for field in fields if rule.get(field) is not None}
        | ({"names": [rule["name"]]} if "name" in rule else {})
        for rule in rules
    ]
    return result


def _applies(rule: dict[str, Any], capabilities: Collection[str]) -> bool:
    machine = {"x86_64": {"amd64", "x86_64"}, "aarch64": {"arm64", "aarch64"}}.get(platform.machine(), set())
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    if excludes.get("arches") and machine & set(excludes["arches"]):
        return False
    if includes.get("arches") and not machine & set(includes["arches"]):
        return False
    if any(cap in capabilities for cap in excludes.get("caps") or ()):
        return False
    if not all(cap in capabilities for cap in includes.get("caps") or ()):
        return False
    wanted = includes.get("minKernel")
    return not wanted or _version(os.uname().release) >= _version(wanted)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("-")[0].split(".")[:2] if part.isdigit())
